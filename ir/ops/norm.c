/* Batch normalization (inference and training), softmax. */
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

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* A per-channel vector [C] as [1, C, 1 …], beside x [N, C, …]. */
static Value *per_channel(Ad *ad, const Node *n, Value *v)
{
    int64_t dim[MAX_RANK];
    int rank = n->in[0]->type.rank;
    for (int i = 0; i < rank; i++) dim[i] = i == 1 ? v->type.dim[0] : 1;
    return ad_reshape(ad, v, rank, dim);
}

static Value *inverse_deviation(Ad *ad, const Node *n)
{
    return ad_rsqrt(ad, n->in[4], node_float(n, "epsilon", 1e-5f));
}

/* Inference: y = (x - mean) k + bias with k = scale / sqrt(var + epsilon), statistics fixed. */
static Value *batchnorm_factor(Ad *ad, const Node *n)
{
    return per_channel(ad, n, ad_mul(ad, n->in[1], inverse_deviation(ad, n)));
}

static Value *batchnorm_normal(Ad *ad, const Node *n)
{
    Value *centred = ad_sub(ad, n->in[0], per_channel(ad, n, n->in[3]));
    return ad_mul(ad, centred, per_channel(ad, n, inverse_deviation(ad, n)));
}

static Value *sum_but_channels(Ad *ad, Value *v)
{
    int64_t axes[MAX_RANK] = {0};
    for (int i = 1; i < v->type.rank - 1; i++) axes[i] = i + 1;
    return ad_sum(ad, v, const_ints(ad->g, v->type.rank - 1, axes), false);
}

int vjp_batchnorm(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    if (ad_wants(ad, n->in[3]) || ad_wants(ad, n->in[4]))
        return node_error(ad->diag, n, "has no gradient by its running statistics");
    if (ad_wants(ad, n->in[0])) dx[0] = ad_mul(ad, dy[0], batchnorm_factor(ad, n));
    if (ad_wants(ad, n->in[1]))
        dx[1] = sum_but_channels(ad, ad_mul(ad, dy[0], batchnorm_normal(ad, n)));
    if (ad_wants(ad, n->in[2])) dx[2] = sum_but_channels(ad, dy[0]);
    return 0;
}

int jvp_batchnorm(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    if (dx[3] || dx[4]) return node_error(ad->diag, n, "has no tangent by its running statistics");
    if (dx[0]) dy[0] = ad_mul(ad, dx[0], batchnorm_factor(ad, n));
    if (dx[1])
        dy[0] = ad_plus(ad, dy[0], ad_mul(ad, batchnorm_normal(ad, n), per_channel(ad, n, dx[1])));
    if (dx[2]) dy[0] = ad_plus(ad, dy[0], per_channel(ad, n, dx[2]));
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

static Value *sum_along(Ad *ad, const Node *n, Value *v)
{
    return ad_sum(ad, v, CONST_INTS(ad->g, node_int(n, "axis", -1)), true);
}

/* y = softmax(x): the symmetric map d -> y (d - sum y d). */
static Value *softmax_map(Ad *ad, const Node *n, Value *d)
{
    Value *y = n->out[0];
    return ad_mul(ad, y, ad_sub(ad, d, sum_along(ad, n, ad_mul(ad, y, d))));
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
    dx[0] = ad_sub(ad, dy[0], ad_mul(ad, probabilities(ad, n), sum_along(ad, n, dy[0])));
    return 0;
}

int jvp_logsoftmax(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    dy[0] = ad_sub(ad, dx[0], sum_along(ad, n, ad_mul(ad, probabilities(ad, n), dx[0])));
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

void rule_lanes_softmax(Lanes *l, const Node *n)
{
    int rank = n->in[0]->type.rank;
    int64_t at = node_int(n, "axis", -1);
    for (int axis = 0; axis < rank; axis++)
        if (axis != (at < 0 ? at + rank : at)) lanes_pass(l, n->in[0], axis, n->out[0], axis);
}

/* ---- end of channels ---------------------------------------------------------------- */
