/* Normalization of each sample by its own mean and variance: LayerNormalization and
 * RMSNormalization over the last axes, InstanceNormalization over the image of a channel,
 * GroupNormalization over the images of a group of channels, MeanVarianceNormalization over any
 * axes.
 *
 * GroupNormalization's scale and bias have one element per channel (opset 21) or per group. */
#include <math.h>

#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

/* Scale and bias have (or broadcast to) the shape of the normalized axes; mean and deviation
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

/* x [N, C, …]; scale and bias are vectors. */
int infer_groupnorm(Node *n, Diag *d)
{
    Type x = input_type(n, 0), scale = input_type(n, 1);
    int64_t groups = node_int(n, "num_groups", 0), both;
    TRY(expect_same_dtype(n, 0, 1, d));
    TRY(infer_out(n, 0, x, d));
    if (x.rank < 0) return 0;
    if (x.rank < 2) return node_error(d, n, "input has rank %d, needs 2 or more", x.rank);
    if (n->op == OP_InstanceNormalization) groups = x.dim[1];
    if (groups < 1 && !dim_is_sym(groups) && x.dim[1] != 0)
        return node_error(d, n, "'num_groups' is %lld", (long long)groups);
    if (x.dim[1] >= 0 && groups > 0 && x.dim[1] % groups)
        return node_error(d, n, "%lld channels do not divide into %lld groups", (long long)x.dim[1],
                          (long long)groups);
    bool per_group = scale.rank == 1 && dim_agree(scale.dim[0], groups, &both);
    TRY(expect_vector(n, 1, per_group ? groups : x.dim[1], "scale", d));
    return expect_vector(n, 2, per_group ? groups : x.dim[1], "bias", d);
}

/* The axes of a MeanVarianceNormalization, as a mask. */
static int variance_axes(const Node *n, int rank, bool mask[MAX_RANK], Diag *d)
{
    static const int64_t usual[] = {0, 2, 3};
    size_t count = 3;
    const int64_t *axes = node_ints(n, "axes", &count);
    if (!axes) axes = usual;
    for (int i = 0; i < MAX_RANK; i++) mask[i] = false;
    for (size_t k = 0; k < count; k++) {
        int axis = 0;
        TRY(axis_of(n, axes[k], rank, &axis, d));
        mask[axis] = true;
    }
    return 0;
}

int infer_mvn(Node *n, Diag *d)
{
    Type x = input_type(n, 0);
    bool mask[MAX_RANK];
    if (x.rank >= 0) TRY(variance_axes(n, x.rank, mask, d));
    return infer_out(n, 0, x, d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* x^ = (x - mean) inv over some axes, which stay as 1; RMSNormalization has no mean. */
typedef struct Normal {
    Value *normal, *inv, *axes;
    bool centred;
} Normal;

static Normal normal_over(Ad *ad, const Node *n, Value *x, Value *axes)
{
    Normal r = {.axes = axes, .centred = n->op != OP_RMSNormalization};
    Value *c = r.centred ? ad_sub(ad, x, ad_mean(ad, x, axes)) : x;
    Value *v = ad_mean(ad, ad_mul(ad, c, c), axes);
    /* MeanVarianceNormalization adds 1e-9 to the deviation; this is close enough */
    float epsilon = n->op == OP_MeanVarianceNormalization ? 1e-18f : 1e-5f;
    r.inv = ad_rsqrt(ad, v, node_float(n, "epsilon", epsilon));
    r.normal = ad_mul(ad, c, r.inv);
    return r;
}

/* The derivative of x^ by x, a symmetric map: inv (d - mean(d) - x^ mean(d x^)). */
static Value *normal_map(Ad *ad, const Normal *r, Value *d)
{
    Value *along = ad_mul(ad, r->normal, ad_mean(ad, ad_mul(ad, d, r->normal), r->axes));
    if (r->centred) d = ad_sub(ad, d, ad_mean(ad, d, r->axes));
    return ad_mul(ad, r->inv, ad_sub(ad, d, along));
}

static Normal layernorm(Ad *ad, const Node *n)
{
    int64_t axes[MAX_RANK], axis = node_int(n, "axis", -1);
    int rank = n->in[0]->type.rank, naxes = 0;
    for (int64_t i = axis < 0 ? axis + rank : axis; i < rank; i++) axes[naxes++] = i;
    return normal_over(ad, n, n->in[0], const_ints(ad->g, naxes, axes));
}

int vjp_layernorm(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    Normal r = layernorm(ad, n);
    if (n->nout > 1 && (dy[1] || (n->nout > 2 && dy[2])))
        return node_error(ad->diag, n, "has no gradient through its statistics");
    if (ad_wants(ad, n->in[0])) dx[0] = normal_map(ad, &r, ad_mul(ad, dy[0], n->in[1]));
    if (ad_wants(ad, n->in[1])) dx[1] = ad_mul(ad, dy[0], r.normal);
    if (ad_wants(ad, node_in(n, 2))) dx[2] = dy[0];
    return 0;
}

int jvp_layernorm(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    Normal r = layernorm(ad, n);
    if (dx[0]) dy[0] = ad_mul(ad, normal_map(ad, &r, dx[0]), n->in[1]);
    if (dx[1]) dy[0] = ad_plus(ad, dy[0], ad_mul(ad, r.normal, dx[1]));
    if (n->nin > 2 && dx[2]) dy[0] = ad_plus(ad, dy[0], dx[2]);
    return 0;
}

static Normal mvn(Ad *ad, const Node *n)
{
    int64_t axes[MAX_RANK];
    int rank = n->in[0]->type.rank, naxes = 0;
    bool mask[MAX_RANK];
    variance_axes(n, rank, mask, ad->diag);
    for (int i = 0; i < rank; i++)
        if (mask[i]) axes[naxes++] = i;
    return normal_over(ad, n, n->in[0], const_ints(ad->g, naxes, axes));
}

int vjp_mvn(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    Normal r = mvn(ad, n);
    dx[0] = normal_map(ad, &r, dy[0]);
    return 0;
}

int jvp_mvn(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    Normal r = mvn(ad, n);
    dy[0] = normal_map(ad, &r, dx[0]);
    return 0;
}

/* Groups, as [N, groups, channels of a group, positions]. */
static int64_t groups_of(const Node *n)
{
    int64_t channels = n->in[0]->type.dim[1];
    return n->op == OP_InstanceNormalization ? channels : node_int(n, "num_groups", 1);
}

static Value *grouped(Ad *ad, const Node *n, Value *v)
{
    const Type *x = &n->in[0]->type;
    int64_t g = groups_of(n), dim[4] = {x->dim[0], g, x->dim[1] / g, dims_product(x, 2, x->rank)};
    return ad_reshape(ad, v, 4, dim);
}

/* A scale or bias beside that. */
static Value *grouped_vector(Ad *ad, const Node *n, Value *v)
{
    int64_t g = groups_of(n), dim[4] = {1, g, v->type.dim[0] / g, 1};
    return ad_reshape(ad, v, 4, dim);
}

static Value *ungrouped(Ad *ad, const Node *n, Value *v)
{
    return ad_reshape(ad, v, n->in[0]->type.rank, n->in[0]->type.dim);
}

static Normal groupnorm(Ad *ad, const Node *n)
{
    return normal_over(ad, n, grouped(ad, n, n->in[0]), CONST_INTS(ad->g, 2, 3));
}

/* The cotangent of a scale or bias, from that of its grouped form over all positions. */
static Value *vector_grad(Ad *ad, const Node *n, int i, Value *d)
{
    int64_t g = groups_of(n), count = n->in[i]->type.dim[0];
    const Type t = {n->in[i]->type.dtype, 4, {1, g, count / g, 1}};
    return ad_reshape(ad, ad_unbroadcast(ad, d, &t), 1, &count);
}

int vjp_groupnorm(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    Normal r = groupnorm(ad, n);
    Value *d = grouped(ad, n, dy[0]), *scale = grouped_vector(ad, n, n->in[1]);
    if (ad_wants(ad, n->in[0])) dx[0] = ungrouped(ad, n, normal_map(ad, &r, ad_mul(ad, d, scale)));
    if (ad_wants(ad, n->in[1])) dx[1] = vector_grad(ad, n, 1, ad_mul(ad, d, r.normal));
    if (ad_wants(ad, n->in[2])) dx[2] = vector_grad(ad, n, 2, d);
    return 0;
}

int jvp_groupnorm(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    Normal r = groupnorm(ad, n);
    Value *d = NULL;
    if (dx[0])
        d = ad_mul(ad, normal_map(ad, &r, grouped(ad, n, dx[0])), grouped_vector(ad, n, n->in[1]));
    if (dx[1]) d = ad_plus(ad, d, ad_mul(ad, r.normal, grouped_vector(ad, n, dx[1])));
    if (dx[2]) d = ad_plus(ad, d, ad_fit(ad, grouped_vector(ad, n, dx[2]), &r.normal->type));
    dy[0] = ungrouped(ad, n, d);
    return 0;
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* The axes in the mask are pinned: the mean and the variance are over all of their lanes, and count
 * those that are zero. */
static void lanes_normalized(Lanes *l, const Node *n, const bool *mask)
{
    const Value *x = n->in[0];
    for (int axis = 0; axis < x->type.rank; axis++) {
        for (int o = 0; o < (mask[axis] ? 1 : n->nout); o++)
            if (n->out[o]) lanes_pass(l, x, axis, n->out[o], axis);
        if (mask[axis] && lanes_open(l, x, axis)) lanes_pin(l, x, axis, n);
    }
}

void rule_lanes_layernorm(Lanes *l, const Node *n)
{
    int rank = n->in[0]->type.rank;
    int64_t from = node_int(n, "axis", -1);
    bool mask[MAX_RANK];
    for (int axis = 0; axis < MAX_RANK; axis++)
        mask[axis] = axis >= (from < 0 ? from + rank : from);
    lanes_normalized(l, n, mask);
}

/* x / sqrt(mean(x^2) + epsilon) scale, the mean being over the axes from `axis` on. With a fraction
 * r of the lanes left, and the others zero, mean(x^2) is r times that of what is left: x /
 * sqrt(mean' + epsilon / r) scale / sqrt(r). */
void rule_lanes_rmsnorm(Lanes *l, const Node *n)
{
    if (!value_is_const(n->in[1]) || n->in[1]->type.dtype != DT_F32) {
        rule_lanes_layernorm(l, n);
        return;
    }
    lanes_broadcast(l, n, n->nin, n->out[0], 0, 0);
}

int shrink_rmsnorm(Lanes *l, Graph *g, Node *n, Diag *d)
{
    const Value *x = n->in[0];
    const int64_t from = node_int(n, "axis", -1), count = type_count(&n->in[1]->type);
    double left = 1;
    (void)d;
    for (int axis = (int)(from < 0 ? from + x->type.rank : from); axis < x->type.rank; axis++) {
        const int64_t size = lanes_size(l, x, axis);
        if (lanes_open(l, x, axis))
            left *= (double)lanes_survivors(l, x, axis, 0, size) / (double)size;
    }
    if (left == 1) return 0;
    const float *scale = n->in[1]->data;
    float *larger = NEW_ARRAY(g->arena, float, count);
    for (int64_t i = 0; i < count; i++) larger[i] = (float)(scale[i] / sqrt(left));
    Value *w = value_const(g, n->in[1]->name, n->in[1]->type, larger);
    value_swap_names(w, n->in[1]);
    n->in[1] = w;
    node_set_attr(g, n, attr_float("epsilon", (float)(node_float(n, "epsilon", 1e-5F) / left)));
    return 0;
}

void rule_lanes_mvn(Lanes *l, const Node *n)
{
    Diag quiet = {0};
    bool mask[MAX_RANK];
    if (n->in[0]->type.rank < 0 || variance_axes(n, n->in[0]->type.rank, mask, &quiet) < 0) return;
    lanes_normalized(l, n, mask);
}

/* Channels of one group share a mean, so they stay or go together; groups are independent. */
void rule_lanes_groupnorm(Lanes *l, const Node *n)
{
    const Value *x = n->in[0], *y = n->out[0];
    if (x->type.rank < 2 || x->type.dim[1] < 1) return;
    lanes_pass(l, x, 0, y, 0);
    if (!lanes_open(l, x, 1)) return;
    int64_t groups = groups_of(n), size = x->type.dim[1] / groups;
    for (int64_t c = 0; c < x->type.dim[1]; c++) {
        lanes_tie(l, x, 1, c, y, 1, c);
        lanes_tie(l, x, 1, c, x, 1, c / size * size);
        for (int i = 1; i < 3; i++)
            lanes_tie(l, x, 1, c, n->in[i], 0, n->in[i]->type.dim[0] == groups ? c / size : c);
    }
}

int shrink_groupnorm(Lanes *l, Graph *g, Node *n, Diag *d)
{
    const Value *x = n->in[0];
    (void)d;
    if (!lanes_open(l, x, 1)) return 0;
    int64_t channels = lanes_size(l, x, 1), groups = node_int(n, "num_groups", 1);
    int64_t left = lanes_survivors(l, x, 1, 0, channels);
    node_set_attr(g, n, attr_int("num_groups", left / (channels / groups)));
    return 0;
}

/* ---- end of channels ---------------------------------------------------------------- */
