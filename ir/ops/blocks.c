/* DepthToSpace and SpaceToDepth: channels to blocks of pixels and back. With b = blocksize, the
 * pixel (h b + i, w b + j) of channel c of the wide image is the pixel (h, w) of a channel of the
 * deep one: (i b + j) C + c, or (c b + i) b + j in mode CRD, C being the channels of the wide one.
 */
#include <string.h>

#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

static int block_size(const Node *n, int64_t *b, Diag *d)
{
    const char *mode = node_str(n, "mode", "DCR");
    *b = node_int(n, "blocksize", 0);
    if (*b < 1 || *b > 1 << 15) return node_error(d, n, "'blocksize' is %lld", (long long)*b);
    if (strcmp(mode, "DCR") != 0 && strcmp(mode, "CRD") != 0)
        return node_error(d, n, "'mode' is '%s'", mode);
    return expect_rank(n, 0, 4, d);
}

static int divided(const Node *n, int axis, int64_t by, int64_t *dim, Diag *d)
{
    if (*dim < 0) {
        *dim = by == 1 ? *dim : DIM_UNKNOWN;
        return 0;
    }
    if (*dim % by)
        return node_error(d, n, "axis %d has %lld elements, not a multiple of %lld", axis,
                          (long long)*dim, (long long)by);
    *dim /= by;
    return 0;
}

int infer_depth_to_space(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    int64_t b;
    TRY(block_size(n, &b, d));
    if (t.rank >= 0) {
        TRY(divided(n, 1, b * b, &t.dim[1], d));
        for (int i = 2; i < 4; i++) t.dim[i] = dim_times(t.dim[i], b);
    }
    return infer_out(n, 0, t, d);
}

int infer_space_to_depth(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    int64_t b;
    TRY(block_size(n, &b, d));
    if (t.rank >= 0) {
        t.dim[1] = dim_times(t.dim[1], b * b);
        for (int i = 2; i < 4; i++) TRY(divided(n, i, b, &t.dim[i], d));
    }
    return infer_out(n, 0, t, d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* The other op. */
static Value *other(Ad *ad, const Node *n, Op op, Value *dy)
{
    return build(ad->g, op, IN(dy), n->nattrs, n->attrs);
}

int vjp_depth_to_space(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    dx[0] = other(ad, n, OP_SpaceToDepth, dy[0]);
    return 0;
}

int vjp_space_to_depth(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    dx[0] = other(ad, n, OP_DepthToSpace, dy[0]);
    return 0;
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

static bool depth_first(const Node *n) { return strcmp(node_str(n, "mode", "DCR"), "DCR") == 0; }

/* A channel of the wide image with those of the deep one that hold its pixels. */
void rule_lanes_blocks(Lanes *l, const Node *n)
{
    const Value *x = n->in[0], *y = n->out[0];
    bool to_space = n->op == OP_DepthToSpace, crd = !depth_first(n);
    const Value *wide = to_space ? y : x, *deep = to_space ? x : y;
    int64_t b = node_int(n, "blocksize", 1), channels = wide->type.dim[1];
    if (x->type.rank != 4 || channels < 0 || deep->type.dim[1] < 0) return;
    lanes_pass(l, x, 0, y, 0);
    if (!lanes_open(l, x, 1) && !lanes_open(l, y, 1)) return;
    for (int64_t c = 0; c < channels; c++)
        for (int64_t k = 0; k < b * b; k++)
            lanes_tie(l, wide, 1, c, deep, 1, crd ? c * b * b + k : k * channels + c);
}

/* ---- end of channels ---------------------------------------------------------------- */
