/* Normalisations: batch (inference and training), layer, softmax. */
#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

/* x [N, C, …] with `count` vectors of C elements from input 1 on. */
static int channel_vectors(const Node *n, const Type *x, int first, int count, Diag *d)
{
    if (x->rank < 2) return node_error(d, n, "input has rank %d, needs 2 or more", x->rank);
    for (int i = first; i < first + count; i++) TRY(expect_vector(n, i, x->dim[1], "parameter", d));
    return 0;
}

int infer_batchnorm(Node *n, Diag *d)
{
    Type x = input_type(n, 0);
    if (x.rank >= 0) TRY(channel_vectors(n, &x, 1, 4, d));
    return infer_out(n, 0, x, d);
}

static Type channel_vector(const Type *x)
{
    return x->rank < 0 ? type_unknown(x->dtype) : type_of(x->dtype, 1, &x->dim[1]);
}

int infer_batchnorm_train(Node *n, Diag *d)
{
    Type x = input_type(n, 0);
    if (x.rank >= 0) TRY(channel_vectors(n, &x, 1, 2, d));
    TRY(infer_out(n, 0, x, d));
    TRY(infer_out(n, 1, channel_vector(&x), d));
    return infer_out(n, 2, channel_vector(&x), d);
}

int infer_batchnorm_train_grad(Node *n, Diag *d)
{
    Type x = input_type(n, 1);
    if (x.rank >= 0) TRY(channel_vectors(n, &x, 2, 3, d));
    TRY(infer_out(n, 0, x, d));
    TRY(infer_out(n, 1, channel_vector(&x), d));
    return infer_out(n, 2, channel_vector(&x), d);
}

/* Scale and bias have (or broadcast to) the shape of the normalised axes; mean and deviation
 * have 1 there. */
int infer_layernorm(Node *n, Diag *d)
{
    Type x = input_type(n, 0), t;
    int axis = 0;
    TRY(infer_out(n, 0, x, d));
    if (x.rank < 0) return 0;
    TRY(axis_of(n, node_int(n, "axis", -1), x.rank, &axis, d));
    TRY(broadcast_inputs(n, 0, n->nin, &t, d));
    if (t.rank != x.rank)
        return node_error(d, n, "scale or bias has rank %d, input has %d", t.rank, x.rank);
    for (int i = axis; i < x.rank; i++) x.dim[i] = 1;
    x.dtype = DT_F32;
    TRY(infer_out(n, 1, x, d));
    return infer_out(n, 2, x, d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

static Value *mul(Ad *ad, Value *a, Value *b) { return build(ad->g, OP_Mul, IN(a, b), NO_ATTRS); }

static Value *sub(Ad *ad, Value *a, Value *b) { return build(ad->g, OP_Sub, IN(a, b), NO_ATTRS); }

static Value *plus(Ad *ad, Value *a, Value *b)
{
    return a && b ? build(ad->g, OP_Add, IN(a, b), NO_ATTRS) : a ? a : b;
}

/* 1 / sqrt(variance + epsilon) */
static Value *inverse_deviation(Ad *ad, const Node *n, Value *variance)
{
    Value *epsilon = const_f32(ad->g, node_float(n, "epsilon", 1e-5f));
    Value *v = build(ad->g, OP_Add, IN(variance, epsilon), NO_ATTRS);
    return build(ad->g, OP_Reciprocal, IN(build(ad->g, OP_Sqrt, IN(v), NO_ATTRS)), NO_ATTRS);
}

/* A per-channel vector [C] as [1, C, 1 …], beside x [N, C, …]. */
static Value *per_channel(Ad *ad, const Node *n, Value *v)
{
    int64_t dim[MAX_RANK];
    int rank = n->in[0]->type.rank;
    for (int i = 0; i < rank; i++) dim[i] = i == 1 ? v->type.dim[0] : 1;
    return ad_reshape(ad, v, rank, dim);
}

/* Inference: y = (x - mean) k + bias with k = scale / sqrt(var + epsilon), statistics fixed. */
static Value *batchnorm_factor(Ad *ad, const Node *n)
{
    return per_channel(ad, n, mul(ad, n->in[1], inverse_deviation(ad, n, n->in[4])));
}

static Value *batchnorm_normal(Ad *ad, const Node *n)
{
    Value *centred = sub(ad, n->in[0], per_channel(ad, n, n->in[3]));
    return mul(ad, centred, per_channel(ad, n, inverse_deviation(ad, n, n->in[4])));
}

static Value *sum_but_channels(Ad *ad, Value *v)
{
    int64_t axes[MAX_RANK] = {0};
    for (int i = 1; i < v->type.rank - 1; i++) axes[i] = i + 1;
    return build(ad->g, OP_ReduceSum, IN(v, const_ints(ad->g, v->type.rank - 1, axes)),
                 ATTRS(attr_int("keepdims", 0)));
}

int vjp_batchnorm(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    if (ad_wants(ad, n->in[3]) || ad_wants(ad, n->in[4]))
        return node_error(ad->diag, n, "has no gradient by its running statistics");
    if (ad_wants(ad, n->in[0])) dx[0] = mul(ad, dy[0], batchnorm_factor(ad, n));
    if (ad_wants(ad, n->in[1]))
        dx[1] = sum_but_channels(ad, mul(ad, dy[0], batchnorm_normal(ad, n)));
    if (ad_wants(ad, n->in[2])) dx[2] = sum_but_channels(ad, dy[0]);
    return 0;
}

int jvp_batchnorm(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    if (dx[3] || dx[4]) return node_error(ad->diag, n, "has no tangent by its running statistics");
    if (dx[0]) dy[0] = mul(ad, dx[0], batchnorm_factor(ad, n));
    if (dx[1]) dy[0] = plus(ad, dy[0], mul(ad, batchnorm_normal(ad, n), per_channel(ad, n, dx[1])));
    if (dx[2]) dy[0] = plus(ad, dy[0], per_channel(ad, n, dx[2]));
    return 0;
}

int vjp_batchnorm_train(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    if (dy[1] || dy[2])
        return node_error(ad->diag, n, "has no gradient through its batch statistics");
    Node *m = build_multi(ad->g, OP_BatchNormTrainGrad, 3,
                          IN(dy[0], n->in[0], n->in[1], n->out[1], n->out[2]), n->nattrs, n->attrs);
    for (int i = 0; i < 3; i++) dx[i] = m->out[i];
    return 0;
}

/* What the rules of LayerNormalization share: x^ = (x - mean) inv over the last axes. */
typedef struct LayerNorm {
    Value *normal, *inv, *axes; /* x^; 1 / deviation, axes kept as 1; the axes normalised over */
} LayerNorm;

static Value *mean_over(Ad *ad, Value *v, Value *axes)
{
    return build(ad->g, OP_ReduceMean, IN(v, axes), ATTRS(attr_int("keepdims", 1)));
}

static LayerNorm layernorm(Ad *ad, const Node *n)
{
    LayerNorm l;
    int64_t axes[MAX_RANK], axis = node_int(n, "axis", -1);
    int rank = n->in[0]->type.rank, naxes = 0;
    for (int64_t i = axis < 0 ? axis + rank : axis; i < rank; i++) axes[naxes++] = i;
    l.axes = const_ints(ad->g, naxes, axes);
    Value *centred = sub(ad, n->in[0], mean_over(ad, n->in[0], l.axes));
    l.inv = inverse_deviation(ad, n, mean_over(ad, mul(ad, centred, centred), l.axes));
    l.normal = mul(ad, centred, l.inv);
    return l;
}

/* The derivative of x^ by x, a symmetric map: inv (d - mean(d) - x^ mean(d x^)). */
static Value *layernorm_map(Ad *ad, const LayerNorm *l, Value *d)
{
    Value *along = mul(ad, l->normal, mean_over(ad, mul(ad, d, l->normal), l->axes));
    return mul(ad, l->inv, sub(ad, sub(ad, d, mean_over(ad, d, l->axes)), along));
}

int vjp_layernorm(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    LayerNorm l = layernorm(ad, n);
    if (n->nout > 1 && (dy[1] || (n->nout > 2 && dy[2])))
        return node_error(ad->diag, n, "has no gradient through its statistics");
    if (ad_wants(ad, n->in[0])) dx[0] = layernorm_map(ad, &l, mul(ad, dy[0], n->in[1]));
    if (ad_wants(ad, n->in[1])) dx[1] = mul(ad, dy[0], l.normal);
    if (ad_wants(ad, node_in(n, 2))) dx[2] = dy[0];
    return 0;
}

int jvp_layernorm(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    LayerNorm l = layernorm(ad, n);
    if (dx[0]) dy[0] = mul(ad, layernorm_map(ad, &l, dx[0]), n->in[1]);
    if (dx[1]) dy[0] = plus(ad, dy[0], mul(ad, l.normal, dx[1]));
    if (n->nin > 2 && dx[2]) dy[0] = plus(ad, dy[0], dx[2]);
    return 0;
}

static Value *sum_along(Ad *ad, const Node *n, Value *v)
{
    return build(ad->g, OP_ReduceSum, IN(v, CONST_INTS(ad->g, node_int(n, "axis", -1))),
                 ATTRS(attr_int("keepdims", 1)));
}

/* y = softmax(x): the symmetric map d -> y (d - sum y d). */
static Value *softmax_map(Ad *ad, const Node *n, Value *d)
{
    Value *y = n->out[0];
    return mul(ad, y, sub(ad, d, sum_along(ad, n, mul(ad, y, d))));
}

int vjp_softmax(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    dx[0] = softmax_map(ad, n, dy[0]);
    return 0;
}

int jvp_softmax(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    dy[0] = softmax_map(ad, n, dx[0]);
    return 0;
}

static Value *probabilities(Ad *ad, const Node *n)
{
    return build(ad->g, OP_Softmax, IN(n->in[0]), ATTRS(attr_int("axis", node_int(n, "axis", -1))));
}

/* y = log softmax(x), p = softmax(x): dx = dy - p sum(dy), and forwards dy = dx - sum(p dx). */
int vjp_logsoftmax(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    dx[0] = sub(ad, dy[0], mul(ad, probabilities(ad, n), sum_along(ad, n, dy[0])));
    return 0;
}

int jvp_logsoftmax(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    dy[0] = sub(ad, dx[0], sum_along(ad, n, mul(ad, probabilities(ad, n), dx[0])));
    return 0;
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* Parameters, and the statistics that training returns, are vectors over axis 1. */
void rule_lanes_batchnorm(Lanes *l, const Node *n)
{
    const Value *x = n->in[0], *y = n->out[0];
    if (x->type.rank < 2) return;
    for (int axis = 0; axis < x->type.rank; axis++) lanes_pass(l, x, axis, y, axis);
    for (int i = 1; i < n->nin && lanes_open(l, x, 1); i++) lanes_tie_axis(l, n->in[i], 0, x, 1);
    for (int o = 1; o < n->nout && lanes_open(l, x, 1); o++)
        if (n->out[o]) lanes_tie_axis(l, n->out[o], 0, x, 1);
}

/* Axes before the normalised ones pass; a mean over lanes does not survive their removal. */
/* The axes that are normalised are pinned: the mean and the variance are over all of their lanes,
 * and count those that are zero. */
void rule_lanes_layernorm(Lanes *l, const Node *n)
{
    int rank = n->in[0]->type.rank;
    int64_t from = node_int(n, "axis", -1);
    if (rank < 0) return;
    for (int axis = 0; axis < rank; axis++) {
        bool normalised = axis >= (from < 0 ? from + rank : from);
        for (int o = 0; o < (normalised ? 1 : n->nout); o++)
            if (n->out[o]) lanes_pass(l, n->in[0], axis, n->out[o], axis);
        if (normalised && lanes_open(l, n->in[0], axis)) lanes_pin(l, n->in[0], axis, n);
    }
}

void rule_lanes_softmax(Lanes *l, const Node *n)
{
    int rank = n->in[0]->type.rank;
    int64_t at = node_int(n, "axis", -1);
    for (int axis = 0; axis < rank; axis++)
        if (axis != (at < 0 ? at + rank : at)) lanes_pass(l, n->in[0], axis, n->out[0], axis);
}

/* ---- end of channels ---------------------------------------------------------------- */
