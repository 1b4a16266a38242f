/* Signal processing: discrete Fourier transforms, windows, mel weights. Complex numbers are pairs
 * on the last axis. */
#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

/* Input i as one size; DIM_UNKNOWN if it is not known, DIM_BAD after an error. */
static int64_t size_input(const Node *n, int i, Diag *d)
{
    int64_t size = DIM_UNKNOWN;
    Type t = input_type(n, i);
    if (t.rank > 0 && type_is_static(&t) && type_count(&t) != 1) {
        node_error(d, n, "'%s' is no single number", n->in[i]->name);
        return DIM_BAD;
    }
    if (value_ints(node_in(n, i), &size, 1) != 1) return DIM_UNKNOWN;
    if (size > 0 || dim_is_sym(size)) return size;
    node_error(d, n, "'%s' is %lld", n->in[i]->name, (long long)size);
    return DIM_BAD;
}

/* Frequencies of a transform of `length`: of real signals the others mirror them. */
static int64_t frequencies(int64_t length, bool onesided)
{
    return onesided && length >= 0 ? length / 2 + 1 : onesided ? DIM_UNKNOWN : length;
}

static int expect_pairs(const Node *n, const Type *x, Diag *d)
{
    int64_t last = x->rank < 1 ? 1 : x->dim[x->rank - 1];
    if (x->rank >= 0 && x->rank < 2)
        return node_error(d, n, "'%s' has rank %d, needs 2", n->in[0]->name, x->rank);
    if (last >= 0 && last != 1 && last != 2)
        return node_error(d, n, "'%s' has %lld on its last axis, needs 1 (real) or 2 (complex)",
                          n->in[0]->name, (long long)last);
    return 0;
}

/* The axis that is transformed: the last one in front of the numbers if none is given. -1: not
 * known, -2 after an error. */
static int dft_axis(const Node *n, int rank, Diag *d)
{
    int64_t given = -2;
    int axis = 0;
    if (node_in(n, 2) && value_ints(n->in[2], &given, 1) != 1) return -1;
    if (axis_of(n, given, rank, &axis, d) < 0) return -2;
    if (axis < rank - 1) return axis;
    node_error(d, n, "axis %d holds the complex numbers", axis);
    return -2;
}

/* (x [.., n, .., 1 or 2], length, axis) -> [.., frequencies, .., 2] */
int infer_dft(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    bool onesided = node_int(n, "onesided", 0) != 0;
    TRY(expect_pairs(n, &t, d));
    if (t.rank < 0) return infer_out(n, 0, t, d);
    int axis = dft_axis(n, t.rank, d);
    if (axis == -2) return -1;
    if (onesided && node_int(n, "inverse", 0))
        return node_error(d, n, "a onesided transform has no inverse");
    int64_t length = node_in(n, 1) ? size_input(n, 1, d) : axis < 0 ? DIM_UNKNOWN : t.dim[axis];
    if (length == DIM_BAD) return -1;
    for (int k = 0; k < t.rank - 1 && axis < 0; k++) t.dim[k] = DIM_UNKNOWN;
    if (axis >= 0) t.dim[axis] = frequencies(length, onesided);
    t.dim[t.rank - 1] = 2;
    return infer_out(n, 0, t, d);
}

/* The frame's length: input 3, or that of the window. */
static int64_t frame_length(const Node *n, Diag *d)
{
    Type window = input_type(n, 2);
    if (node_in(n, 3)) return size_input(n, 3, d);
    return window.rank == 1 ? window.dim[0] : DIM_UNKNOWN;
}

/* (signal [batch, n, 1 or 2], step, window, length) -> [batch, frames, frequencies, 2] */
int infer_stft(Node *n, Diag *d)
{
    Type x = input_type(n, 0), t = {.dtype = x.dtype, .rank = 4};
    int64_t step = size_input(n, 1, d), length = frame_length(n, d);
    TRY(expect_rank(n, 0, 3, d));
    TRY(expect_pairs(n, &x, d));
    if (step == DIM_BAD || length == DIM_BAD) return -1;
    if (!node_in(n, 2) && !node_in(n, 3))
        return node_error(d, n, "it has neither a window nor a frame length");
    TRY(expect_vector(n, 2, length, "window", d));
    t.dim[0] = x.rank < 0 ? DIM_UNKNOWN : x.dim[0];
    t.dim[1] = DIM_UNKNOWN;
    if (x.rank == 3 && x.dim[1] >= 0 && step > 0 && length > 0) {
        if (length > x.dim[1])
            return node_error(d, n, "a frame of %lld exceeds the signal's %lld", (long long)length,
                              (long long)x.dim[1]);
        t.dim[1] = (x.dim[1] - length) / step + 1;
    }
    t.dim[2] = frequencies(length, node_int(n, "onesided", 1) != 0);
    t.dim[3] = 2;
    return infer_out(n, 0, t, d);
}

static DType output_type(const Node *n) { return (DType)node_int(n, "output_datatype", DT_F32); }

int infer_window(Node *n, Diag *d)
{
    int64_t size = size_input(n, 0, d);
    if (size == DIM_BAD) return -1;
    return infer_out(n, 0, type_of(output_type(n), 1, &size), d);
}

/* (bands, length of the transform, sample rate, lowest, highest frequency) -> [frequencies, bands]
 */
int infer_mel_weights(Node *n, Diag *d)
{
    int64_t bands = size_input(n, 0, d), length = size_input(n, 1, d);
    if (bands == DIM_BAD || length == DIM_BAD) return -1;
    int64_t dim[] = {frequencies(length, true), bands};
    return infer_out(n, 0, type_of(output_type(n), 2, dim), d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* v with `size` elements on an axis: cut, or zeros behind. */
static Value *resized(Ad *ad, Value *v, int axis, int64_t size)
{
    int64_t pads[2 * MAX_RANK] = {0};
    if (v->type.dim[axis] == size) return v;
    pads[v->type.rank + axis] = size - v->type.dim[axis];
    return build(ad->g, OP_Pad, IN(v, const_ints(ad->g, 2 * v->type.rank, pads)), NO_ATTRS);
}

/* The transform is W x with a symmetric W, W of the inverse being its conjugate over the length:
 * the transpose of either is the other one, scaled. A onesided result lacks frequencies, whose
 * cotangents are zero; of a real x only the real part counts. */
int vjp_dft(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    const Type *x = &n->in[0]->type;
    int axis = dft_axis(n, x->rank, ad->diag);
    bool inverse = node_int(n, "inverse", 0) != 0;
    int64_t length = axis < 0 ? 0 : x->dim[axis];
    if (axis < 0 || (node_in(n, 1) && value_ints(n->in[1], &length, 1) != 1))
        return node_error(ad->diag, n, "has no gradient: its length or axis is not constant");
    Value *v = resized(ad, dy[0], axis, length);
    v = build(ad->g, OP_DFT, IN(v, NULL, CONST_INTS(ad->g, axis)),
              ATTRS(attr_int("inverse", !inverse)));
    v = ad_scale(ad, v, inverse ? 1 / (double)length : (double)length);
    v = resized(ad, v, axis, x->dim[axis]);
    dx[0] = resized(ad, v, x->rank - 1, x->dim[x->rank - 1]);
    return 0;
}

/* ---- end of derivatives ------------------------------------------------------------- */
