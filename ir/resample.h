/* The geometry of Resize: which positions of the input make a position of the output, along each
 * axis by itself. Shape inference and every kernel read it from here, so that coordinate
 * transformations, modes and policies are resolved in one place. */
#ifndef EHAP_IR_RESAMPLE_H
#define EHAP_IR_RESAMPLE_H

#include "ir/ir.h"

/* y[p] = sum over k < taps of weight[p * taps + k] * x[at[p * taps + k]], and a constant where
 * outside[p]. */
typedef struct Resample {
    int64_t in, out, taps;
    int64_t *at;
    double *weight;
    bool *outside; /* NULL: nowhere */
    bool identity; /* y = x */
} Resample;

/* Dimensions of the output of a Resize: -1 if not known, a symbol where it stays. Errors: scales or
 * sizes of the wrong number or out of range. */
int resize_dims(const Node *n, int64_t dim[MAX_RANK], Diag *d);
/* Whether the axis goes through a Resize untouched, whatever its size. */
bool resize_keeps_axis(const Node *n, int axis);

/* The maps of all axes of a Resize or a ResizeGrad, whose shapes are static; `in` is on the side of
 * the Resize's input. Errors: scales or sizes that are not constants, modes that do not exist. */
typedef struct ResizeMaps {
    Arena *arena; /* holds it all */
    int rank;
    Resample axis[MAX_RANK];
} ResizeMaps;
int resize_maps(ResizeMaps *m, const Node *n, Diag *d);

#endif
