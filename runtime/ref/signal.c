/* Fourier transforms by their definition, windows, mel weights. */
#include <math.h>

#include "runtime/ref/ref.h"

static const double PI = 3.14159265358979323846;

/* One line of complex numbers: `count` of them, zeros from there on. */
typedef struct Line {
    const Tensor *t, *window;
    int64_t start, stride, count;
    int64_t imaginary; /* offset of the imaginary parts; 0: there are none */
} Line;

/* X[k] = sum over i of x[i] exp(-+ 2 pi i k / length) */
static void transform(const Line *x, int64_t k, int64_t length, bool inverse, double *re,
                      double *im)
{
    *re = *im = 0;
    for (int64_t i = 0; i < x->count && i < length; i++) {
        const double angle = (inverse ? 2 : -2) * PI * (double)(i * k % length) / (double)length;
        const double w = x->window ? ref_at(x->window, i) : 1;
        const int64_t at = x->start + i * x->stride;
        const double a = w * load(x->t, at),
                     b = x->imaginary ? w * load(x->t, at + x->imaginary) : 0;
        *re += a * cos(angle) - b * sin(angle);
        *im += a * sin(angle) + b * cos(angle);
    }
    if (inverse) *re /= (double)length, *im /= (double)length;
}

static int64_t imaginary_of(const Tensor *x)
{
    return x->dim[x->rank - 1] == 2 ? x->stride[x->rank - 1] : 0;
}

/* Stores a number at an index whose last coordinate is 0. */
static void store_complex(const Tensor *y, const Index *at, double re, double im)
{
    const int64_t to = ref_index(y, at);
    element_store(y, to, re);
    element_store(y, to + y->stride[y->rank - 1], im);
}

REF_KERNEL(dft)
{
    UNUSED_STATE;
    const int axis = ref_axis(node_in(n, 2) ? element_load_int(&in[2], 0) : -2, in->rank);
    const int64_t length = node_in(n, 1) ? element_load_int(&in[1], 0) : in->dim[axis];
    Tensor numbers = *out;
    numbers.dim[out->rank - 1] = 1;
    FOR_EACH(at, &numbers)
    {
        Index from = at;
        double re, im;
        from.i[axis] = 0;
        const Line x = {
            in, NULL, ref_index(in, &from), in->stride[axis], in->dim[axis], imaginary_of(in)};
        transform(&x, at.i[axis], length, node_int(n, "inverse", 0) != 0, &re, &im);
        store_complex(out, &at, re, im);
    }
}

REF_KERNEL(stft)
{
    UNUSED_STATE;
    const int64_t step = element_load_int(&in[1], 0);
    const bool windowed = node_in(n, 2) != NULL;
    const int64_t length = node_in(n, 3) ? element_load_int(&in[3], 0) : in[2].dim[0];
    Tensor numbers = *out;
    numbers.dim[3] = 1;
    FOR_EACH(at, &numbers)
    {
        double re, im;
        const Line x = {in,
                        windowed ? &in[2] : NULL,
                        at.i[0] * in->stride[0] + at.i[1] * step * in->stride[1],
                        in->stride[1],
                        length,
                        imaginary_of(in)};
        transform(&x, at.i[2], length, false, &re, &im);
        store_complex(out, &at, re, im);
    }
}

/* a - b cos(2 pi i / size) + c cos(4 pi i / size); a symmetric window ends where it began. */
REF_KERNEL(signal_window)
{
    UNUSED_STATE;
    const bool hann = n->op == OP_HannWindow, hamming = n->op == OP_HammingWindow;
    const double a = hann ? 0.5 : hamming ? 25.0 / 46 : 0.42;
    const double b = hann ? 0.5 : hamming ? 1 - 25.0 / 46 : 0.5, c = hann || hamming ? 0 : 0.08;
    const int64_t size = out->dim[0] - (node_int(n, "periodic", 1) ? 0 : 1);
    for (int64_t i = 0; i < out->dim[0]; i++) {
        const double angle = size > 0 ? 2 * PI * (double)i / (double)size : 0;
        element_store(out, i * out->stride[0], a - b * cos(angle) + c * cos(2 * angle));
    }
}

static double mel(double hertz) { return 2595 * log10(1 + hertz / 700); }

/* The bin of the transform at a point of the mel scale. */
static int64_t mel_bin(double point, double length, double rate)
{
    const double hertz = 700 * (pow(10, point / 2595) - 1);
    return (int64_t)floor((length + 1) * hertz / rate);
}

/* Triangles between evenly spaced points of the mel scale, one per band. */
REF_KERNEL(mel_weights)
{
    UNUSED_STATE;
    const double length = load(&in[1], 0), rate = load(&in[2], 0);
    const double low = mel(load(&in[3], 0)), high = mel(load(&in[4], 0));
    const int64_t bands = out->dim[1];
    const double step = (high - low) / (double)(bands + 2);
    FOR_EACH(at, out)
    {
        const double point = low + step * (double)at.i[1];
        const int64_t lower = mel_bin(point, length, rate), k = at.i[0];
        const int64_t center = mel_bin(point + step, length, rate);
        const int64_t higher = mel_bin(point + 2 * step, length, rate);
        double w = 0;
        if (k >= lower && k <= center)
            w = center > lower ? (double)(k - lower) / (double)(center - lower) : 1;
        if (k >= center && k < higher) w = (double)(higher - k) / (double)(higher - center);
        element_store(out, ref_index(out, &at), w);
    }
}
