/* The geometry of sliding windows: convolutions, pools and their gradients. Shape inference
 * and every kernel read it from here, so that auto_pad, ceil_mode and output_padding are
 * resolved in one place. */
#ifndef EHAP_IR_WINDOW_H
#define EHAP_IR_WINDOW_H

#include "ir/ir.h"

/* Over `n` spatial axes: position p of `out` reads positions p*stride + k*dilation - pad of
 * `in`, k < kernel. For ConvTranspose the roles are swapped: position p of `in` is added to
 * positions p*stride + k*dilation - pad of `out`. */
typedef struct Window {
    int n;
    int64_t in[MAX_RANK], out[MAX_RANK]; /* sizes; symbols or DIM_UNKNOWN where not static */
    int64_t kernel[MAX_RANK], stride[MAX_RANK], dilation[MAX_RANK];
    int64_t pad[MAX_RANK], pad_end[MAX_RANK]; /* auto_pad resolved; 0 if `in` is not static */
} Window;

/* The window of a Conv, ConvTranspose, ConvWgrad, MaxPool, AveragePool or of a gradient of a
 * pool (there `in` and `out` are those of the pool). Errors: attributes of the wrong length or
 * out of range, a window that exceeds its padded input. */
int node_window(const Node *n, Window *w, Diag *d);

#endif
