/* The table of such operators, the small ones among them, and what their rules build with. */
#include "frontend/onnx_expand.h"

#include <string.h>

#define DIMS(...)                                                                                  \
    (int64_t[]) { __VA_ARGS__ }

/* ---- parts -------------------------------------------------------------------------- */

Value *expand_into(Expander *e, Value *out, Op op, int nin, Value *const *in, int nattrs,
                   const Attr *attrs)
{
    Graph *g = e->im->g;
    g->at = e->of;
    Node *n = node_new(g, op, nin, in, 1);
    g->at = NULL;
    for (int k = 0; k < nattrs; k++) node_set_attr(g, n, attrs[k]);
    if (!out) {
        const Value *y = e->of->out[0];
        out = value_new(g, arena_printf(e->im->tmp, "%s_%s", y ? y->name : "t", op_info[op].name),
                        (Type){.rank = -1});
    }
    n->out[0] = out;
    if (!e->failed) e->failed = append_node(e->im, n) < 0;
    return out;
}

Value *expand_op(Expander *e, Op op, int nin, Value *const *in, int nattrs, const Attr *attrs)
{
    return expand_into(e, NULL, op, nin, in, nattrs, attrs);
}

Value *expand_binary(Expander *e, Op op, Value *x, Value *y)
{
    return expand_op(e, op, IN(x, y), NO_ATTRS);
}

Value *expand_number(Expander *e, const Value *like, double x)
{
    Value *v = const_f32(e->im->g, (float)x);
    if (like->type.dtype == DT_F32) return v;
    return expand_op(e, OP_CastLike, IN(v, (Value *)(uintptr_t)like), NO_ATTRS);
}

Value *expand_scalar(Expander *e, int64_t x)
{
    Value *v = const_ints(e->im->g, 1, &x);
    v->type.rank = 0;
    return v;
}

Value *expand_reshape(Expander *e, Value *x, int rank, const int64_t *to)
{
    return expand_binary(e, OP_Reshape, x, const_ints(e->im->g, rank, to));
}

Value *expand_transpose(Expander *e, Value *out, Value *x, int rank, const int64_t *perm)
{
    return expand_into(e, out, OP_Transpose, IN(x), ATTRS(attr_ints("perm", (size_t)rank, perm)));
}

Value *expand_unsqueeze(Expander *e, Value *x, int64_t axis)
{
    return expand_binary(e, OP_Unsqueeze, x, const_ints(e->im->g, 1, &axis));
}

Value *expand_slice(Expander *e, Value *x, int64_t axis, int64_t from, int64_t to, int64_t step)
{
    Graph *g = e->im->g;
    return expand_op(
        e, OP_Slice,
        IN(x, CONST_INTS(g, from), CONST_INTS(g, to), CONST_INTS(g, axis), CONST_INTS(g, step)),
        NO_ATTRS);
}

Value *expand_concat(Expander *e, Value *out, Value *x, Value *y, int64_t axis)
{
    return expand_into(e, out, OP_Concat, IN(x, y), ATTRS(attr_int("axis", axis)));
}

Value *expand_size(Expander *e, Value *x, int axis)
{
    Value *shape = expand_op(e, OP_Shape, IN(x), NO_ATTRS);
    return expand_op(e, OP_Gather, IN(shape, expand_scalar(e, axis)), NO_ATTRS);
}

/* ---- small ones --------------------------------------------------------------------- */

/* y = Swish_alpha(a) * b */
static int swiglu(Expander *e, const Node *n)
{
    if (n->nin != 2 || !n->in[0] || !n->in[1]) return 0;
    Value *gate =
        expand_op(e, OP_Swish, IN(n->in[0]), ATTRS(attr_float("alpha", node_float(n, "alpha", 1))));
    expand_into(e, n->out[0], OP_Mul, IN(gate, n->in[1]), NO_ATTRS);
    return 1;
}

/* Coordinates of pixel centres from -1 to 1 (of the outer edges, or of the outer centres if
 * `align`), and a 1: [H W, 3] as (x, y, 1), in three dimensions [D H W, 4] as (x, y, z, 1). */
static Value *unit_grid(Expander *e, int n, const int64_t *size, bool align)
{
    Graph *g = e->im->g;
    int64_t places = 1, rest;
    for (int k = 0; k < n; k++) places *= size[k];
    float *x = NEW_ARRAY(g->arena, float, places *(n + 1));
    for (int64_t p = 0; p < places; p++) {
        rest = p;
        for (int k = n - 1; k >= 0; k--, rest /= size[k + 1]) {
            double at = (double)(rest % size[k]), d = (double)size[k];
            double u = !align ? (2 * at + 1) / d - 1 : d > 1 ? 2 * at / (d - 1) - 1 : 0;
            x[p * (n + 1) + n - 1 - k] = (float)u;
        }
        x[p * (n + 1) + n] = 1;
    }
    return value_const(g, "grid", type_of(DT_F32, 2, DIMS(places, n + 1)), x);
}

/* theta [N, n, n + 1] times the grid of the wanted size. */
static int affine_grid(Expander *e, const Node *n)
{
    enum { LARGEST = 1 << 24 };
    int64_t size[MAX_RANK], to[MAX_RANK] = {0}, places = 1;
    int rank = n->nin == 2 && n->in[1] ? value_ints(n->in[1], size, MAX_RANK) : -1, axes = rank - 2;
    if ((rank != 4 && rank != 5) || n->in[0]->type.dtype != DT_F32) return 0;
    for (int k = 2; k < rank; k++) {
        if (size[k] < 1 || size[k] > LARGEST || places > LARGEST / size[k]) return 0;
        places *= size[k];
        to[k - 1] = size[k];
    }
    to[axes + 1] = axes;
    Value *grid = unit_grid(e, axes, size + 2, node_int(n, "align_corners", 0) != 0);
    Value *theta = expand_transpose(e, NULL, n->in[0], 3, DIMS(0, 2, 1));
    Value *y = expand_binary(e, OP_MatMul, grid, theta);
    expand_into(e, n->out[0], OP_Reshape, IN(y, const_ints(e->im->g, axes + 2, to)), NO_ATTRS);
    return 1;
}

/* Along each axis what is too much is cut off and what is missing is zeros, half in front. */
static int center_crop_pad(Expander *e, const Node *n)
{
    Graph *g = e->im->g;
    const Type *t = &n->in[0]->type;
    int64_t size[MAX_RANK], lo[MAX_RANK], hi[MAX_RANK], pads[2 * MAX_RANK] = {0}, axis[MAX_RANK];
    size_t naxes = 0;
    const int64_t *axes = node_ints(n, "axes", &naxes);
    int count = n->nin == 2 && n->in[1] ? value_ints(n->in[1], size, MAX_RANK) : -1;
    if (t->rank < 1 || count < 1 || count != (axes ? (int)naxes : t->rank)) return 0;
    for (int k = 0; k < count; k++) {
        axis[k] = axes ? axes[k] + (axes[k] < 0 ? t->rank : 0) : k;
        if (axis[k] < 0 || axis[k] >= t->rank || size[k] < 0 || t->dim[axis[k]] < 0) return 0;
        int64_t more = t->dim[axis[k]] - size[k], less = more < 0 ? -more : 0;
        lo[k] = more > 0 ? more / 2 : 0;
        hi[k] = lo[k] + (more > 0 ? size[k] : t->dim[axis[k]]);
        pads[axis[k]] = less / 2;
        pads[t->rank + axis[k]] = less - less / 2;
    }
    Value *y = expand_op(e, OP_Slice,
                         IN(n->in[0], const_ints(g, count, lo), const_ints(g, count, hi),
                            const_ints(g, count, axis)),
                         NO_ATTRS);
    expand_into(e, n->out[0], OP_Pad, IN(y, const_ints(g, 2 * t->rank, pads)), NO_ATTRS);
    return 1;
}

/* The update's rows at write_indices (of each sample, or 0) and the places behind them. */
static int tensor_scatter(Expander *e, const Node *n)
{
    if (n->nin < 2 || !n->in[1] || n->in[0]->type.rank < 2) return 0;
    int rank = n->in[0]->type.rank;
    int64_t axis = node_int(n, "axis", -2), ones[MAX_RANK], per_sample[MAX_RANK];
    axis += axis < 0 ? rank : 0;
    if (axis < 1 || axis >= rank) return 0;
    for (int k = 0; k < rank; k++) {
        ones[k] = k == axis ? -1 : 1;
        per_sample[k] = k ? 1 : -1;
    }
    Value *at =
        expand_op(e, OP_Range,
                  IN(expand_scalar(e, 0), expand_size(e, n->in[1], (int)axis), expand_scalar(e, 1)),
                  NO_ATTRS);
    at = expand_reshape(e, at, rank, ones);
    if (node_in(n, 2)) {
        Value *first = expand_op(e, OP_Cast, IN(n->in[2]), ATTRS(attr_int("to", DT_I64)));
        at = expand_binary(e, OP_Add, at, expand_reshape(e, first, rank, per_sample));
    }
    if (strcmp(node_str(n, "mode", "linear"), "circular") == 0)
        at = expand_binary(e, OP_Mod, at, expand_size(e, n->in[0], (int)axis));
    at = expand_binary(e, OP_Expand, at, expand_op(e, OP_Shape, IN(n->in[1]), NO_ATTRS));
    expand_into(e, n->out[0], OP_ScatterElements, IN(n->in[0], at, n->in[1]),
                ATTRS(attr_int("axis", axis)));
    return 1;
}

static const struct {
    const char *op_type;
    ExpandRule *rule;
} rules[] = {
    {"AffineGrid", affine_grid},
    {"Attention", expand_attention},
    {"CenterCropPad", center_crop_pad},
    {"Col2Im", expand_col2im},
    {"RotaryEmbedding", expand_rotary_embedding},
    {"SwiGLU", swiglu},
    {"TensorScatter", tensor_scatter},
};

static ExpandRule *rule_of(const char *op_type)
{
    for (size_t k = 0; k < sizeof rules / sizeof *rules; k++)
        if (strcmp(rules[k].op_type, op_type) == 0) return rules[k].rule;
    return NULL;
}

bool is_expanded(const char *op_type) { return rule_of(op_type) != NULL; }

int expand_node(Import *im, Node *n)
{
    Expander e = {.im = im, .of = n};
    ExpandRule *rule = n->op_type ? rule_of(n->op_type) : NULL;
    if (!rule || n->nout < 1 || n->nin < 1 || !n->in[0]) return 0;
    int done = rule(&e, n);
    return e.failed ? -1 : done;
}
