/* DeformConv of images: a convolution whose taps are moved, each by two numbers per position, and
 * weighed by a mask. Tap k of offset group q at position p is x at p stride + k dilation - pad +
 * offset[q, k, :, p], between pixels linearly, zero outside. Derivatives go by way of GridSample.
 */
#include "ir/ad.h"
#include "ir/ops/common.h"
#include "ir/ops/products.h"
#include "ir/rules.h"
#include "ir/window.h"

enum { IN_X, IN_WEIGHT, IN_OFFSET, IN_BIAS, IN_MASK };

/* ---- shapes and costs --------------------------------------------------------------- */

/* Input i is [N, channels, out…]. */
static int expect_maps(const Node *n, int i, const Type *y, int64_t channels, Diag *d)
{
    Type t = input_type(n, i);
    int64_t both;
    if (t.rank < 0) return 0;
    TRY(expect_rank(n, i, 4, d));
    for (int k = 0; k < 4; k++) {
        int64_t want = k == 1 ? channels : y->dim[k];
        if (!dim_agree(t.dim[k], want, &both))
            return node_error(d, n, "'%s' has %lld on axis %d, needs %lld", n->in[i]->name,
                              (long long)t.dim[k], k, (long long)want);
    }
    return 0;
}

/* (x [N, C, H, W], w [M, C/group, kh, kw], offset [N, 2 q kh kw, out…], b, mask [N, q kh kw, out…])
 */
int infer_deform_conv(Node *n, Diag *d)
{
    Type x = input_type(n, IN_X), t;
    int64_t groups = node_int(n, "offset_group", 1);
    Window w;
    TRY(expect_same_dtype(n, IN_X, IN_WEIGHT, d));
    TRY(expect_rank(n, IN_X, 4, d));
    TRY(conv_type(n, IN_X, IN_WEIGHT, IN_BIAS, &t, d));
    if (t.rank < 0) return infer_out(n, 0, t, d);
    if (groups < 1 || (x.dim[1] >= 0 && x.dim[1] % groups))
        return node_error(d, n, "%lld channels do not divide into %lld offset groups",
                          (long long)x.dim[1], (long long)groups);
    TRY(node_window(n, &w, d));
    int64_t taps = mul_sat(groups, mul_sat(w.kernel[0], w.kernel[1]));
    TRY(expect_maps(n, IN_OFFSET, &t, mul_sat(2, taps), d));
    TRY(expect_maps(n, IN_MASK, &t, taps, d));
    return infer_out(n, 0, t, d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* Where the taps are before they are moved, as GridSample counts: [taps, out…, (x, y)]; times the
 * size of a pixel they come from `scale`. */
static Value *unmoved(Ad *ad, const Window *w, Value **scale)
{
    Graph *g = ad->g;
    int64_t taps = w->kernel[0] * w->kernel[1], places = w->out[0] * w->out[1];
    float *at = NEW_ARRAY(g->arena, float, 2 * taps * places),
          *pixel = NEW_ARRAY(g->arena, float, 2);
    for (int64_t i = 0; i < 2 * taps * places; i++) {
        int axis = 1 - (int)(i % 2);
        int64_t tap = i / 2 / places, place = i / 2 % places;
        int64_t k = axis ? tap % w->kernel[1] : tap / w->kernel[1];
        int64_t p = axis ? place % w->out[1] : place / w->out[1];
        double x = (double)(p * w->stride[axis] + k * w->dilation[axis] - w->pad[axis]);
        at[i] = (float)((2 * x + 1) / (double)w->in[axis] - 1);
    }
    for (int i = 0; i < 2; i++) pixel[i] = 2 / (float)w->in[1 - i];
    *scale = value_const(g, "pixel", type_of(DT_F32, 1, (int64_t[]){2}), pixel);
    return value_const(g, "taps", type_of(DT_F32, 4, (int64_t[]){taps, w->out[0], w->out[1], 2}),
                       at);
}

/* The places of all taps: [N q, taps h, w, (x, y)]. */
static Value *places_of(Ad *ad, const Node *n, const Window *w, int64_t images)
{
    static const int64_t perm[] = {0, 1, 3, 4, 2};
    Graph *g = ad->g;
    int64_t taps = w->kernel[0] * w->kernel[1], h = w->out[0], v = w->out[1];
    Value *scale, *base = unmoved(ad, w, &scale);
    Value *o = ad_reshape(ad, n->in[IN_OFFSET], 5, (int64_t[]){images, taps, 2, h, v});
    o = build(g, OP_Transpose, IN(o), ATTRS(attr_ints("perm", 5, perm)));
    o = build(g, OP_Gather, IN(o, CONST_INTS(g, 1, 0)), ATTRS(attr_int("axis", 4)));
    o = ad_plus(ad, ad_mul(ad, o, scale), base);
    return ad_reshape(ad, o, 4, (int64_t[]){images, taps * h, v, 2});
}

/* Samples of every tap, then a convolution of one pixel. */
static int sampled(Ad *ad, const Node *n, Value **out)
{
    Graph *g = ad->g;
    const Type x = n->in[IN_X]->type, weight = n->in[IN_WEIGHT]->type;
    int64_t groups = node_int(n, "offset_group", 1), images = x.dim[0] * groups;
    Window w;
    TRY(node_window(n, &w, ad->diag));
    int64_t taps = w.kernel[0] * w.kernel[1], each = x.dim[1] / groups;
    Value *s = ad_reshape(ad, n->in[IN_X], 4, (int64_t[]){images, each, x.dim[2], x.dim[3]});
    s = build(g, OP_GridSample, IN(s, places_of(ad, n, &w, images)), NO_ATTRS);
    s = ad_reshape(ad, s, 5, (int64_t[]){images, each, taps, w.out[0], w.out[1]});
    if (node_in(n, IN_MASK))
        s = ad_mul(
            ad, s,
            ad_reshape(ad, n->in[IN_MASK], 5, (int64_t[]){images, 1, taps, w.out[0], w.out[1]}));
    s = ad_reshape(ad, s, 4, (int64_t[]){x.dim[0], x.dim[1] * taps, w.out[0], w.out[1]});
    Value *flat =
        ad_reshape(ad, n->in[IN_WEIGHT], 4, (int64_t[]){weight.dim[0], weight.dim[1] * taps, 1, 1});
    Value *b = node_in(n, IN_BIAS);
    out[0] = build(g, OP_Conv, 2 + (b != NULL), (Value *[]){s, flat, b},
                   ATTRS(attr_int("group", node_int(n, "group", 1))));
    return 0;
}

int vjp_deform_conv(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    return vjp_expanded(ad, n, sampled, dy, dx);
}

int jvp_deform_conv(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    return jvp_expanded(ad, n, sampled, dx, dy);
}

/* ---- end of derivatives ------------------------------------------------------------- */
