/* The derivatives of LpPool and GlobalLpPool, y = (sum over a window of |x|^p)^(1/p), by those of
 * the ops that they are made of. Their shapes and channels are those of every pool. */
#include "ir/ad.h"
#include "ir/ops/common.h"
#include "ir/rules.h"
#include "ir/window.h"

/* ---- derivatives -------------------------------------------------------------------- */

/* Sums of v over n's windows: a convolution of each channel with ones. Where a ceiling lets the
 * last window reach past the padding, there is more of it. */
static Value *window_sums(Ad *ad, const Node *n, Value *v)
{
    const Type *t = &n->in[0]->type;
    Type ones = {.dtype = DT_F32, .rank = t->rank, .dim = {t->dim[1], 1}};
    int64_t pads[2 * MAX_RANK];
    Window w;
    if (node_window(n, &w, ad->diag) < 0) return NULL;
    for (int i = 0; i < w.n; i++) {
        const int64_t end = (w.out[i] - 1) * w.stride[i] + (w.kernel[i] - 1) * w.dilation[i] + 1;
        const int64_t past = end - w.in[i] - w.pad[i];
        ones.dim[i + 2] = w.kernel[i];
        pads[i] = w.pad[i];
        pads[w.n + i] = past > 0 ? past : 0;
    }
    const int64_t count = type_count(&ones);
    float *one = NEW_ARRAY(ad->g->arena, float, count);
    for (int64_t k = 0; k < count; k++) one[k] = 1;
    Value *weight = value_const(ad->g, "ones", ones, one);
    const size_t axes = (size_t)w.n;
    return build(ad->g, OP_Conv, IN(v, weight),
                 ATTRS(attr_int("group", t->dim[1]), attr_ints("pads", 2 * axes, pads),
                       attr_ints("strides", axes, w.stride),
                       attr_ints("dilations", axes, w.dilation)));
}

static Value *spatial_sum(Ad *ad, const Node *n, Value *v)
{
    int64_t axis[MAX_RANK];
    const int rank = n->in[0]->type.rank;
    for (int i = 2; i < rank; i++) axis[i - 2] = i;
    return ad_sum(ad, v, const_ints(ad->g, rank - 2, axis), true);
}

static int lppool(Ad *ad, const Node *n, Value **out)
{
    const float p = (float)node_int(n, "p", 2);
    Value *size = build(ad->g, OP_Abs, IN(n->in[0]), NO_ATTRS);
    Value *power = build(ad->g, OP_Pow, IN(size, const_f32(ad->g, p)), NO_ATTRS);
    Value *sum = n->op == OP_LpPool ? window_sums(ad, n, power) : spatial_sum(ad, n, power);
    if (!sum) return -1;
    out[0] = build(ad->g, OP_Pow, IN(sum, const_f32(ad->g, 1 / p)), NO_ATTRS);
    return 0;
}

int vjp_lppool(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    return vjp_expanded(ad, n, lppool, dy, dx);
}

int jvp_lppool(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    return jvp_expanded(ad, n, lppool, dx, dy);
}

/* ---- end of derivatives ------------------------------------------------------------- */
