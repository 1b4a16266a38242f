/* DFT and STFT by their sums, with the N powers of exp(2 pi i / N) from a table. */
#include <math.h>

#include "runtime/ref/ref.h"

/* Scratch: N numbers to transform, N powers of the root. */
typedef struct Transform {
    int64_t length, bins;
    bool inverse;
    double *x, *root; /* pairs */
} Transform;

/* Of a result with `bins` numbers: those to transform, `given` saying whether N is odd. */
static int64_t full_length(int64_t bins, bool onesided, int64_t given)
{
    if (!onesided || bins < 1) return bins;
    return 2 * (bins - 1) + (given % 2 != 0);
}

static size_t transform_bytes(int64_t bins) { return (size_t)(bins * 8 + 8) * sizeof(double); }

static Transform transform_begin(int64_t length, int64_t bins, bool inverse, void *scratch)
{
    Transform t = {length, bins, inverse, scratch, (double *)scratch + 2 * length};
    for (int64_t k = 0; k < length; k++) {
        const double angle = 2 * M_PI * (double)k / (double)length;
        t.root[2 * k] = cos(angle);
        t.root[2 * k + 1] = inverse ? sin(angle) : -sin(angle);
    }
    return t;
}

/* What lies at x[from + j * stride], and zeros from j = count on. */
static void transform_load(Transform *t, const Tensor *x, int64_t from, int64_t stride,
                           int64_t count)
{
    const int last = x->rank - 1;
    for (int64_t j = 0; j < t->length; j++) {
        const int64_t at = from + j * stride;
        t->x[2 * j] = j < count ? load(x, at) : 0;
        t->x[2 * j + 1] = j < count && x->dim[last] > 1 ? load(x, at + x->stride[last]) : 0;
    }
}

static void transform_store(const Transform *t, const Tensor *y, int64_t to, int64_t stride)
{
    const double scale = t->inverse ? 1 / (double)t->length : 1;
    for (int64_t k = 0; k < t->bins; k++) {
        double re = 0, im = 0;
        for (int64_t j = 0, at = 0; j < t->length; j++) {
            const double *x = t->x + 2 * j, *w = t->root + 2 * at;
            re += x[0] * w[0] - x[1] * w[1];
            im += x[0] * w[1] + x[1] * w[0];
            at += k;
            if (at >= t->length) at -= t->length;
        }
        element_store(y, to + k * stride, re * scale);
        element_store(y, to + k * stride + y->stride[y->rank - 1], im * scale);
    }
}

/* ---- DFT ----------------------------------------------------------------------------- */

/* The axis is part of the shape: where it is read from data, that is known by now. */
static int dft_axis(const Node *n)
{
    int64_t axis = -2;
    if (node_in(n, 2) && value_ints(n->in[2], &axis, 1) != 1) return -1;
    return ref_axis(axis, n->in[0]->type.rank);
}

int ref_dft_prepare(Prepare *p)
{
    int64_t most = 0;
    const int axis = dft_axis(p->node);
    if (axis < 0 || axis >= p->out->rank - 1)
        return node_error(p->diag, p->node, "its axis is not known");
    for (int i = 0; i < p->out->rank; i++) most = most > p->out->dim[i] ? most : p->out->dim[i];
    p->scratch = transform_bytes(most);
    return 0;
}

REF_KERNEL(dft)
{
    (void)state;
    const int axis = dft_axis(n);
    const int64_t bins = out->dim[axis], size = in->dim[axis];
    const int64_t wanted = n->nin > 1 && in[1].rank >= 0 ? element_load_int(&in[1], 0) : size;
    Transform t = transform_begin(full_length(bins, node_int(n, "onesided", 0) != 0, wanted), bins,
                                  node_int(n, "inverse", 0) != 0, scratch);
    Tensor lines = *out;
    lines.dim[axis] = lines.dim[out->rank - 1] = 1;
    FOR_EACH(at, &lines)
    {
        transform_load(&t, in, ref_index(in, &at), in->stride[axis], size);
        transform_store(&t, out, ref_index(out, &at), out->stride[axis]);
    }
}

/* ---- STFT ---------------------------------------------------------------------------- */

int ref_stft_prepare(Prepare *p)
{
    p->scratch = transform_bytes(p->out->dim[2]);
    return 0;
}

REF_KERNEL(stft)
{
    (void)state;
    const Tensor *window = n->nin > 2 && in[2].rank >= 0 ? &in[2] : NULL;
    const int64_t step = element_load_int(&in[1], 0), size = in->dim[1], bins = out->dim[2];
    Tensor x = *in;
    if (x.rank == 2) x.dim[x.rank++] = 1; /* real, without the axis of parts */
    const int64_t wanted =
        n->nin > 3 && in[3].rank >= 0 ? element_load_int(&in[3], 0) : window->dim[0];
    Transform t = transform_begin(full_length(bins, node_int(n, "onesided", 1) != 0, wanted), bins,
                                  false, scratch);
    for (int64_t b = 0; b < out->dim[0]; b++)
        for (int64_t f = 0; f < out->dim[1]; f++) {
            const int64_t from = f * step, left = from >= 0 && from < size ? size - from : 0;
            transform_load(&t, &x, b * x.stride[0] + from * x.stride[1], x.stride[1], left);
            for (int64_t j = 0; j < t.length && window; j++) {
                const double w = j < window->dim[0] ? load(window, j * window->stride[0]) : 0;
                t.x[2 * j] *= w;
                t.x[2 * j + 1] *= w;
            }
            transform_store(&t, out, b * out->stride[0] + f * out->stride[1], out->stride[2]);
        }
}
