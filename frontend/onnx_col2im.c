/* Col2Im: columns of blocks [N, C K, L] added into an image, by ScatterElements.
 *
 * Element (c, k, l) goes to pixel p stride + k dilation of channel c of the padded image, k and p
 * being the tap and the block in as many dimensions as the image has; then the padding is cut off.
 */
#include "frontend/onnx_expand.h"

enum { LARGEST = 1 << 26 }; /* elements of a channel's blocks */

typedef struct Blocks {
    int n;
    int64_t image[MAX_RANK], kernel[MAX_RANK], stride[MAX_RANK], dilation[MAX_RANK];
    int64_t before[MAX_RANK], padded[MAX_RANK], count[MAX_RANK]; /* count: of blocks */
    int64_t taps, places, pixels;
} Blocks;

/* A list of n numbers of at least `low`; `otherwise` where it is absent. */
static bool list_of(const Node *n, const char *attr, int count, int64_t low, int64_t otherwise,
                    int64_t *out)
{
    size_t have = 0;
    const int64_t *x = node_ints(n, attr, &have);
    for (int k = 0; k < count; k++) {
        out[k] = x && (int)have == count ? x[k] : otherwise;
        if (out[k] < low || out[k] > INT32_MAX) return false;
    }
    return !x || (int)have == count;
}

static bool grow(int64_t *x, int64_t by)
{
    if (by < 1 || *x > LARGEST / by) return false;
    *x *= by;
    return true;
}

static bool read_blocks(const Node *n, Blocks *b)
{
    int64_t pads[2 * MAX_RANK];
    *b = (Blocks){.taps = 1, .places = 1, .pixels = 1};
    if (n->nin != 3 || !n->in[1] || !n->in[2]) return false;
    b->n = value_ints(n->in[1], b->image, MAX_RANK - 2);
    if (b->n < 1 || value_ints(n->in[2], b->kernel, MAX_RANK) != b->n) return false;
    if (!list_of(n, "strides", b->n, 1, 1, b->stride) ||
        !list_of(n, "dilations", b->n, 1, 1, b->dilation) ||
        !list_of(n, "pads", 2 * b->n, 0, 0, pads))
        return false;
    for (int k = 0; k < b->n; k++) {
        if (b->image[k] < 1 || b->image[k] > LARGEST || b->kernel[k] < 1 || b->kernel[k] > LARGEST)
            return false;
        b->before[k] = pads[k];
        b->padded[k] = b->image[k] + pads[k] + pads[b->n + k];
        int64_t room = b->padded[k] - (b->kernel[k] - 1) * b->dilation[k] - 1;
        b->count[k] = room < 0 ? 0 : room / b->stride[k] + 1;
        if (!grow(&b->taps, b->kernel[k]) || !grow(&b->places, b->count[k]) ||
            !grow(&b->pixels, b->padded[k]))
            return false;
    }
    return b->taps <= LARGEST / b->places;
}

/* The pixel of each tap and block: [1, 1, taps blocks]. */
static Value *pixels_of(Expander *e, const Blocks *b)
{
    Graph *g = e->im->g;
    int64_t count = b->taps * b->places, *at = NEW_ARRAY(g->arena, int64_t, count);
    for (int64_t i = 0; i < count; i++) {
        int64_t tap = i / b->places, place = i % b->places, size = 1;
        for (int k = b->n - 1; k >= 0; k--) {
            int64_t x = place % b->count[k] * b->stride[k] + tap % b->kernel[k] * b->dilation[k];
            at[i] += x * size;
            size *= b->padded[k];
            place /= b->count[k];
            tap /= b->kernel[k];
        }
    }
    return value_const(g, "pixels", type_of(DT_I64, 3, (int64_t[]){1, 1, count}), at);
}

/* [N, channels, size], N being that of x. */
static Value *shape_like(Expander *e, Value *x, int64_t channels, int64_t size)
{
    Value *n = expand_unsqueeze(e, expand_size(e, x, 0), 0);
    return expand_concat(e, NULL, n, CONST_INTS(e->im->g, channels, size), 0);
}

int expand_col2im(Expander *e, const Node *n)
{
    Graph *g = e->im->g;
    const Type *t = &n->in[0]->type;
    Blocks b;
    if (!read_blocks(n, &b) || t->rank != 3 || t->dim[1] < 1 || t->dim[1] % b.taps) return 0;
    int64_t channels = t->dim[1] / b.taps, to[MAX_RANK] = {0, channels}, end[MAX_RANK];
    int64_t axis[MAX_RANK];
    for (int k = 0; k < b.n; k++) {
        to[k + 2] = b.padded[k];
        end[k] = b.before[k] + b.image[k];
        axis[k] = k + 2;
    }
    Value *columns = expand_reshape(e, n->in[0], 3, (int64_t[]){0, channels, b.taps * b.places});
    Value *zeros = expand_reshape(e, expand_number(e, columns, 0), 3, (int64_t[]){1, 1, 1});
    zeros = expand_binary(e, OP_Expand, zeros, shape_like(e, columns, channels, b.pixels));
    Value *at = expand_binary(e, OP_Expand, pixels_of(e, &b),
                              expand_op(e, OP_Shape, IN(columns), NO_ATTRS));
    Value *y = expand_op(e, OP_ScatterElements, IN(zeros, at, columns),
                         ATTRS(attr_int("axis", 2), attr_str("reduction", "add")));
    y = expand_reshape(e, y, b.n + 2, to);
    expand_into(
        e, n->out[0], OP_Slice,
        IN(y, const_ints(g, b.n, b.before), const_ints(g, b.n, end), const_ints(g, b.n, axis)),
        NO_ATTRS);
    return 1;
}
