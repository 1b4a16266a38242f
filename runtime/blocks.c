/* Views of images cut in blocks. Deep channel of (c, i, j): (i * b + j) * C + c, or, in mode CRD,
 * (c * b + i) * b + j. */
#include "runtime/blocks.h"

#include <string.h>

static Tensor wide_view(const Tensor *t, int64_t b)
{
    const int64_t *s = t->stride;
    return (Tensor){.dtype = t->dtype,
                    .rank = 6,
                    .dim = {t->dim[0], t->dim[1], t->dim[2] / b, b, t->dim[3] / b, b},
                    .stride = {s[0], s[1], s[2] * b, s[2], s[3] * b, s[3]},
                    .data = t->data};
}

static Tensor deep_view(const Tensor *t, int64_t b, bool depth_first)
{
    const int64_t *s = t->stride, c = t->dim[1] / (b * b);
    const int64_t of_c = depth_first ? 1 : b * b, of_j = depth_first ? c : 1;
    return (Tensor){.dtype = t->dtype,
                    .rank = 6,
                    .dim = {t->dim[0], c, t->dim[2], b, t->dim[3], b},
                    .stride = {s[0], s[1] * of_c, s[2], s[1] * of_j * b, s[3], s[1] * of_j},
                    .data = t->data};
}

void block_views(const Node *n, const Tensor *in, const Tensor *out, Tensor *from, Tensor *to)
{
    const int64_t b = node_int(n, "blocksize", 1);
    const bool depth_first = strcmp(node_str(n, "mode", "DCR"), "DCR") == 0;
    if (n->op == OP_DepthToSpace) {
        *from = deep_view(in, b, depth_first);
        *to = wide_view(out, b);
    } else {
        *from = wide_view(in, b);
        *to = deep_view(out, b, depth_first);
    }
}
