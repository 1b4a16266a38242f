/* The training losses of ONNX: NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss. */
#include <string.h>

#include "ir/ad.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

/* Scores [N, C, d…], labels [N, d…], weights [C]: the labels' shape, or a scalar. */
static int loss_type(const Node *n, Type *out, Diag *d)
{
    Type x = input_type(n, 0), labels = input_type(n, 1);
    const char *reduction = node_str(n, "reduction", "mean");
    int64_t both;
    bool none = strcmp(reduction, "none") == 0;
    if (!none && strcmp(reduction, "mean") != 0 && strcmp(reduction, "sum") != 0)
        return node_error(d, n, "'reduction' is '%s'", reduction);
    if (labels.dtype != DT_I32 && labels.dtype != DT_I64 && labels.dtype != DT_NONE)
        return node_error(d, n, "labels are %s, int32 or int64 is needed",
                          dtype_name(labels.dtype));
    *out = none ? labels : (Type){.rank = 0};
    out->dtype = x.dtype;
    if (x.rank < 0 || labels.rank < 0) return 0;
    if (x.rank < 2) return node_error(d, n, "input has rank %d, needs 2 or more", x.rank);
    TRY(expect_rank(n, 1, x.rank - 1, d));
    TRY(expect_vector(n, 2, x.dim[1], "weight", d));
    for (int i = 0; i < labels.rank; i++)
        if (!dim_agree(labels.dim[i], x.dim[i ? i + 1 : 0], &both))
            return node_error(d, n, "labels have %lld on axis %d, the input has %lld",
                              (long long)labels.dim[i], i, (long long)x.dim[i ? i + 1 : 0]);
    return 0;
}

/* The second output of SoftmaxCrossEntropyLoss are the logarithms of the probabilities. */
int infer_loss(Node *n, Diag *d)
{
    Type t;
    TRY(loss_type(n, &t, d));
    TRY(infer_out(n, 0, t, d));
    return infer_out(n, 1, input_type(n, 0), d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* [C, 1…], to broadcast against [N, C, d…]: the classes' numbers in the labels' type. */
static Value *classes(Ad *ad, const Node *n)
{
    const Type *x = &n->in[0]->type, *labels = &n->in[1]->type;
    Type t = {.dtype = labels->dtype, .rank = x->rank - 1, .dim = {x->dim[1]}};
    for (int i = 1; i < t.rank; i++) t.dim[i] = 1;
    char *data = arena_alloc(ad->g->arena, (size_t)x->dim[1] * dtype_size(t.dtype));
    for (int64_t c = 0; c < x->dim[1]; c++) {
        const int32_t narrow = (int32_t)c;
        if (t.dtype == DT_I32)
            memcpy(data + c * 4, &narrow, 4);
        else
            memcpy(data + c * 8, &c, 8);
    }
    return value_const(ad->g, "classes", t, data);
}

/* w[c] where c is the label and counts, else 0: [N, C, d…]. */
static Value *label_weights(Ad *ad, const Node *n)
{
    Graph *g = ad->g;
    const Type *x = &n->in[0]->type;
    const int64_t ignore = node_int(n, "ignore_index", 0);
    Value *class = classes(ad, n), *weight = node_in(n, 2);
    Type column = class->type;
    column.dtype = DT_F32;
    Value *label = build(g, OP_Unsqueeze, IN(n->in[1], CONST_INTS(g, 1)), NO_ATTRS);
    Value *is_label = build(g, OP_Equal, IN(label, class), NO_ATTRS);
    Value *mask = build(g, OP_Cast, IN(is_label), ATTRS(attr_int("to", x->dtype)));
    if (node_attr(n, "ignore_index") && ignore >= 0 && ignore < x->dim[1]) {
        float *counts = NEW_ARRAY(g->arena, float, x->dim[1]);
        for (int64_t c = 0; c < x->dim[1]; c++) counts[c] = c == ignore ? 0 : 1;
        mask = ad_mul(ad, mask, value_const(g, "counts", column, counts));
    }
    return weight ? ad_mul(ad, mask, ad_reshape(ad, weight, column.rank, column.dim)) : mask;
}

/* -sum over c of w log p, then reduced; a mean is over the sum of the weights. */
static int loss(Ad *ad, const Node *n, Value **out)
{
    Graph *g = ad->g;
    const char *reduction = node_str(n, "reduction", "mean");
    int64_t axis[MAX_RANK];
    const int axes = *reduction == 'n' ? 1 : n->in[0]->type.rank;
    for (int i = 0; i < axes; i++) axis[i] = axes == 1 ? 1 : i;
    Value *over = const_ints(g, axes, axis), *log_p = n->in[0];
    if (n->op == OP_SoftmaxCrossEntropyLoss)
        log_p = build(g, OP_LogSoftmax, IN(log_p), ATTRS(attr_int("axis", 1)));
    Value *w = label_weights(ad, n);
    Value *sum = ad_scale(ad, ad_sum(ad, ad_mul(ad, w, log_p), over, false), -1);
    out[0] = *reduction == 'm' ? ad_div(ad, sum, ad_sum(ad, w, over, false)) : sum;
    if (n->nout > 1) out[1] = log_p;
    return 0;
}

int vjp_loss(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    return vjp_expanded(ad, n, loss, dy, dx);
}

int jvp_loss(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    return jvp_expanded(ad, n, loss, dx, dy);
}

/* ---- end of derivatives ------------------------------------------------------------- */
