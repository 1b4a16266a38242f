/* Division by a norm: LpNormalization along an axis, LRN by the squares of neighbouring channels.
 */
#include <string.h>

#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

int infer_lpnorm(Node *n, Diag *d)
{
    int64_t p = node_int(n, "p", 2);
    int axis = 0;
    if (p != 1 && p != 2) return node_error(d, n, "'p' is %lld, 1 and 2 exist", (long long)p);
    if (n->in[0]->type.rank >= 0)
        TRY(axis_of(n, node_int(n, "axis", -1), n->in[0]->type.rank, &axis, d));
    return infer_out(n, 0, input_type(n, 0), d);
}

int infer_lrn(Node *n, Diag *d)
{
    int64_t size = node_int(n, "size", 0);
    const Type x = input_type(n, 0);
    if (size < 1 || size > INT32_MAX) return node_error(d, n, "'size' is %lld", (long long)size);
    if (x.rank >= 0 && x.rank < 2)
        return node_error(d, n, "input has rank %d, needs 2 or more", x.rank);
    return infer_out(n, 0, x, d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* y = x / |x|, s = d|x| / dx (y, or the signs of x for p = 1): dy = (d - y sum(s d)) / |x|. */
typedef struct LpNorm {
    Value *norm, *slope, *axes;
} LpNorm;

static LpNorm lpnorm(Ad *ad, const Node *n)
{
    bool one = node_int(n, "p", 2) == 1;
    LpNorm l = {.axes = CONST_INTS(ad->g, node_int(n, "axis", -1))};
    l.norm = build(ad->g, one ? OP_ReduceL1 : OP_ReduceL2, IN(n->in[0], l.axes),
                   ATTRS(attr_int("keepdims", 1)));
    l.slope = one ? build(ad->g, OP_Sign, IN(n->in[0]), NO_ATTRS) : n->out[0];
    return l;
}

/* (d - a sum(b d)) / |x| */
static Value *lpnorm_map(Ad *ad, const LpNorm *l, Value *a, Value *b, Value *d)
{
    Value *sum = ad_sum(ad, ad_mul(ad, b, d), l->axes, true);
    return ad_div(ad, ad_sub(ad, d, ad_mul(ad, a, sum)), l->norm);
}

int vjp_lpnorm(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    LpNorm l = lpnorm(ad, n);
    dx[0] = lpnorm_map(ad, &l, l.slope, n->out[0], dy[0]);
    return 0;
}

int jvp_lpnorm(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    LpNorm l = lpnorm(ad, n);
    dy[0] = lpnorm_map(ad, &l, n->out[0], l.slope, dx[0]);
    return 0;
}

/* LRN: y = x D^-beta, D = bias + alpha / size B x^2, B the 0-1 matrix of the channels in a window:
 * [c - floor((size - 1) / 2), c + ceil((size - 1) / 2)]. */
static Value *window_sum(Ad *ad, const Node *n, Value *v, bool transposed)
{
    const Type *x = &n->in[0]->type;
    int64_t c = x->dim[1], size = node_int(n, "size", 1);
    int64_t dim[3] = {x->dim[0], c, dims_product(x, 2, x->rank)};
    float *b = NEW_ARRAY(ad->g->arena, float, c *c);
    for (int64_t i = 0; i < c; i++)
        for (int64_t j = 0; j < c; j++)
            b[transposed ? j * c + i : i * c + j] =
                j >= i - (size - 1) / 2 && j <= i + size / 2 ? 1 : 0;
    Value *band = value_const(ad->g, "band", (Type){DT_F32, 2, {c, c}}, b);
    v = build(ad->g, OP_MatMul, IN(band, ad_reshape(ad, v, 3, dim)), NO_ATTRS);
    return ad_reshape(ad, v, x->rank, x->dim);
}

static Value *power(Ad *ad, Value *v, float e)
{
    return build(ad->g, OP_Pow, IN(v, const_f32(ad->g, e)), NO_ATTRS);
}

/* dy = D^-beta d - k x D^(-beta-1) B (x d), k = 2 alpha beta / size; backwards with B on the other
 * side: dx = D^-beta d - k x B' (x D^(-beta-1) d). */
static Value *lrn_map(Ad *ad, const Node *n, Value *d, bool transposed)
{
    Value *x = n->in[0];
    float beta = node_float(n, "beta", 0.75f), size = (float)node_int(n, "size", 1);
    float alpha = node_float(n, "alpha", 1e-4f) / size;
    Value *squares = window_sum(ad, n, ad_mul(ad, x, x), false);
    Value *norm = ad_plus(ad, const_f32(ad->g, node_float(n, "bias", 1)),
                          ad_scale(ad, squares, (double)alpha));
    Value *slope = ad_mul(ad, x, power(ad, norm, -beta - 1)), *along;
    if (transposed)
        along = ad_mul(ad, x, window_sum(ad, n, ad_mul(ad, slope, d), true));
    else
        along = ad_mul(ad, slope, window_sum(ad, n, ad_mul(ad, x, d), false));
    return ad_sub(ad, ad_mul(ad, power(ad, norm, -beta), d),
                  ad_scale(ad, along, (double)(2 * alpha * beta)));
}

int vjp_lrn(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    dx[0] = lrn_map(ad, n, dy[0], true);
    return 0;
}

int jvp_lrn(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    dy[0] = lrn_map(ad, n, dx[0], false);
    return 0;
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* A norm is the same without lanes that are zero. */
void rule_lanes_lpnorm(Lanes *l, const Node *n)
{
    for (int axis = 0; axis < n->in[0]->type.rank; axis++)
        lanes_pass(l, n->in[0], axis, n->out[0], axis);
}

/* Channels have neighbours: without one, the windows of others move. */
void rule_lanes_lrn(Lanes *l, const Node *n)
{
    rule_lanes_lpnorm(l, n);
    if (lanes_open(l, n->in[0], 1)) lanes_pin(l, n->in[0], 1, n);
}

/* ---- end of channels ---------------------------------------------------------------- */
