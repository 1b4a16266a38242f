/* Discrete Fourier transforms, of an axis (DFT) and of overlapping frames (STFT). Complex numbers
 * are pairs on the last axis, real ones may have just 1 there:
 *   y[k] = sum over j < N of x[j] exp(-2 pi i j k / N), x being cut or continued by zeros to N;
 * inverse: exp(+2 pi i j k / N) / N. `onesided` keeps k <= N / 2 of a real x. */
#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

/* Results of a transform to `length` numbers. x: what is transformed. */
static int bins_of(const Node *n, const Type *x, int64_t length, bool onesided, int64_t *bins,
                   Diag *d)
{
    const int64_t parts = x->dim[x->rank - 1];
    if (parts >= 0 && parts != 1 && parts != 2)
        return node_error(d, n, "'%s' has %lld on its last axis, needs 1 (real) or 2 (complex)",
                          n->in[0]->name, (long long)parts);
    if (onesided && parts == 2)
        return node_error(d, n, "'onesided' is for real numbers, '%s' is complex", n->in[0]->name);
    *bins = !onesided ? length : length < 0 ? DIM_UNKNOWN : length / 2 + 1;
    return 0;
}

/* The transformed axis; -1 if it is not known. */
static int dft_axis(const Node *n, int rank, int *axis, Diag *d)
{
    int64_t at = -2;
    *axis = -1;
    if (node_in(n, 2) && (value_ints(n->in[2], &at, 1) != 1 || dim_is_sym(at))) return 0;
    TRY(axis_of(n, at, rank, axis, d));
    return *axis < rank - 1 ? 0 : node_error(d, n, "axis %lld holds the parts", (long long)at);
}

/* (x, dft_length, axis) */
int infer_dft(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    const bool onesided = node_int(n, "onesided", 0) != 0;
    int axis;
    if (t.rank < 0) return infer_out(n, 0, t, d);
    if (t.rank < 2) return node_error(d, n, "'%s' has rank %d", n->in[0]->name, t.rank);
    if (onesided && node_int(n, "inverse", 0))
        return node_error(d, n, "'onesided' and 'inverse' exclude each other");
    TRY(dft_axis(n, t.rank, &axis, d));
    int64_t length = axis < 0 ? DIM_UNKNOWN : t.dim[axis], bins;
    if (node_in(n, 1)) TRY(count_input(n, 1, 1, "DFT length", &length, d));
    TRY(bins_of(n, &t, length, onesided, &bins, d));
    for (int i = 0; i < t.rank - 1; i++)
        if (i == axis || axis < 0) t.dim[i] = axis < 0 ? DIM_UNKNOWN : bins;
    t.dim[t.rank - 1] = 2;
    return infer_out(n, 0, t, d);
}

/* The frame's length: that of the window, too. */
static int frame_length(const Node *n, int64_t *length, Diag *d)
{
    const Type window = input_type(n, 2);
    *length = DIM_UNKNOWN;
    if (!node_in(n, 2) && !node_in(n, 3))
        return node_error(d, n, "has neither a window nor a frame length");
    if (node_in(n, 3)) TRY(count_input(n, 3, 1, "frame length", length, d));
    TRY(expect_vector(n, 2, *length, "window", d));
    if (*length < 0 && window.rank == 1) *length = window.dim[0];
    return 0;
}

/* A real signal may come without the axis of 1: so do those of torch.stft, and ONNX Runtime takes
 * them. */
static Type with_parts(Type x)
{
    if (x.rank == 2) x.dim[x.rank++] = 1;
    return x;
}

/* (signal [batch, length, 1 or 2] or [batch, length], frame step, window, frame length) ->
 * [batch, frames, bins, 2] */
int infer_stft(Node *n, Diag *d)
{
    Type x = with_parts(input_type(n, 0)),
         t = {x.dtype, 4, {DIM_UNKNOWN, DIM_UNKNOWN, DIM_UNKNOWN, 2}};
    int64_t step, length;
    if (x.rank != 3) TRY(expect_rank(n, 0, 3, d));
    TRY(count_input(n, 1, 1, "frame step", &step, d));
    TRY(frame_length(n, &length, d));
    if (x.rank < 0) return infer_out(n, 0, t, d);
    TRY(bins_of(n, &x, length, node_int(n, "onesided", 1) != 0, &t.dim[2], d));
    if (length >= 0 && x.dim[1] >= 0 && length > x.dim[1])
        return node_error(d, n, "frames of %lld exceed the signal's %lld", (long long)length,
                          (long long)x.dim[1]);
    t.dim[0] = x.dim[0];
    if (step > 0 && length >= 0 && x.dim[1] >= 0) t.dim[1] = (x.dim[1] - length) / step + 1;
    return infer_out(n, 0, t, d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* The first `size` of v on an axis, or v and zeros. */
static Value *resized(Ad *ad, Value *v, int axis, int64_t size)
{
    Type t = v->type;
    Value *from = CONST_INTS(ad->g, 0), *on = CONST_INTS(ad->g, axis);
    if (t.dim[axis] == size) return v;
    if (t.dim[axis] > size)
        return build(ad->g, OP_Slice, IN(v, from, CONST_INTS(ad->g, size), on), NO_ATTRS);
    Value *to = CONST_INTS(ad->g, t.dim[axis]);
    t.dim[axis] = size;
    return build(ad->g, OP_SliceGrad, IN(v, from, to, on),
                 ATTRS(attr_ints("shape", (size_t)t.rank, t.dim)));
}

/* The transpose of exp(-+2 pi i j k / N) as a map of pairs is exp(+-2 pi i j k / N): the transform
 * the other way, but for its factor; what `onesided` left out counts as zero. */
int vjp_dft(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    const Type *x = &n->in[0]->type;
    const bool inverse = node_int(n, "inverse", 0) != 0;
    int axis;
    int64_t length;
    TRY(dft_axis(n, x->rank, &axis, ad->diag));
    if (axis < 0) return node_error(ad->diag, n, "its axis is not known");
    length = x->dim[axis];
    if (node_in(n, 1)) TRY(count_input(n, 1, 1, "DFT length", &length, ad->diag));
    if (length < 1) return node_error(ad->diag, n, "its length is not known");
    Value *on = CONST_INTS(ad->g, axis);
    on->type.rank = 0;
    Value *v = build(ad->g, OP_DFT, IN(resized(ad, dy[0], axis, length), NULL, on),
                     ATTRS(attr_int("inverse", !inverse)));
    v = ad_scale(ad, v, inverse ? 1 / (double)length : (double)length);
    dx[0] = resized(ad, resized(ad, v, axis, x->dim[axis]), x->rank - 1, x->dim[x->rank - 1]);
    return 0;
}

/* DFT of the frames times the window. */
static int stft(Ad *ad, const Node *n, Value **out)
{
    Graph *g = ad->g;
    const Type *y = &n->out[0]->type;
    int64_t step, length;
    TRY(count_input(n, 1, 1, "frame step", &step, ad->diag));
    TRY(frame_length(n, &length, ad->diag));
    if (step < 1 || length < 1) return node_error(ad->diag, n, "its frames are not known");
    const Type t = {.dtype = DT_I64, .rank = 2, .dim = {y->dim[1], length}};
    int64_t *at = NEW_ARRAY(g->arena, int64_t, t.dim[0] * length);
    for (int64_t k = 0; k < t.dim[0] * length; k++) at[k] = k / length * step + k % length;
    const Type parts = with_parts(n->in[0]->type);
    Value *x = ad_reshape(ad, n->in[0], parts.rank, parts.dim);
    Value *frames =
        build(g, OP_Gather, IN(x, value_const(g, "frames", t, at)), ATTRS(attr_int("axis", 1)));
    if (node_in(n, 2))
        frames = ad_mul(ad, frames, ad_reshape(ad, n->in[2], 2, (int64_t[]){length, 1}));
    out[0] = build(g, OP_DFT, IN(frames), ATTRS(attr_int("onesided", node_int(n, "onesided", 1))));
    return 0;
}

int vjp_stft(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    return vjp_expanded(ad, n, stft, dy, dx);
}

int jvp_stft(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    return jvp_expanded(ad, n, stft, dx, dy);
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* All axes but the transformed one and the last, which holds the parts. */
void rule_lanes_dft(Lanes *l, const Node *n)
{
    const Value *x = n->in[0];
    Diag quiet = {0};
    int axis;
    if (x->type.rank < 2 || dft_axis(n, x->type.rank, &axis, &quiet) < 0 || axis < 0) return;
    for (int k = 0; k < x->type.rank - 1; k++)
        if (k != axis) lanes_pass(l, x, k, n->out[0], k);
}

/* ---- end of channels ---------------------------------------------------------------- */
