/* Window functions and mel filters, as the ONNX operators of these names define them. */
#include <math.h>

#include "runtime/ref/ref.h"

/* a - b cos(2 pi i / N) + c cos(4 pi i / N); N is the size, less one if not periodic. */
REF_KERNEL(window_function)
{
    UNUSED_STATE;
    static const double hann[3] = {0.5, 0.5, 0}, blackman[3] = {0.42, 0.5, 0.08},
                        hamming[3] = {25. / 46, 21. / 46, 0};
    const double *k = n->op == OP_HannWindow      ? hann
                      : n->op == OP_HammingWindow ? hamming
                                                  : blackman;
    const double period = (double)(out->dim[0] - !node_int(n, "periodic", 1));
    for (int64_t i = 0; i < out->dim[0]; i++) {
        const double t = 2 * M_PI * (double)i / period;
        element_store(out, i * out->stride[0], k[0] - k[1] * cos(t) + k[2] * cos(2 * t));
    }
}

/* The spectrogram bin where mel band i begins: bands are equal steps of
 * mel(f) = 2595 log10(1 + f / 700) between the edges. */
static double mel_bin(const Tensor *in, int64_t i, int64_t bands)
{
    const double lo = 2595 * log10(1 + load(&in[3], 0) / 700),
                 hi = 2595 * log10(1 + load(&in[4], 0) / 700);
    const double mel = lo + (double)i * (hi - lo) / (double)(bands + 2);
    const double hertz = 700 * (pow(10, mel / 2595) - 1);
    return floor((load(&in[1], 0) + 1) * hertz / load(&in[2], 0));
}

/* A triangle per column: from 0 at bin lo up to 1 at bin mid, down to 0 at bin hi. */
static double triangle(double bin, double lo, double mid, double hi)
{
    if (bin < lo || bin > hi) return 0;
    if (bin == mid) return 1;
    return bin < mid ? (bin - lo) / (mid - lo) : (hi - bin) / (hi - mid);
}

REF_KERNEL(mel_weights)
{
    UNUSED_STATE;
    const int64_t bands = out->dim[1];
    for (int64_t b = 0; b < bands; b++) {
        const double lo = mel_bin(in, b, bands), mid = mel_bin(in, b + 1, bands),
                     hi = mel_bin(in, b + 2, bands);
        for (int64_t s = 0; s < out->dim[0]; s++)
            element_store(out, s * out->stride[0] + b * out->stride[1],
                          triangle((double)s, lo, mid, hi));
    }
}
