/* Random crops and mirror images of training samples. */
#ifndef EHAP_PASSES_TRAIN_AUGMENT_H
#define EHAP_PASSES_TRAIN_AUGMENT_H

#include "ir/ir.h"
#include "runtime/runtime.h"

typedef struct Augment {
    int64_t channels, height, width;
    bool channels_last; /* the sample is H,W,C instead of C,H,W */
    int64_t pad;        /* crops move by up to this many pixels in each direction */
    bool mirror;        /* left-right, half of the time */
} Augment;

/* Whether samples of this type (without the batch axis) look like images (1, 3 or 4 channels of at
 * least 8x8), and how they may be varied: moved by up to an eighth of their size; mirrored only in
 * colour, for grey ones are often writing. */
bool augment_for(Augment *out, const Type *sample);
/* Varies one float image in place; `scratch` holds as many floats. What leaves on one side is
 * replaced by the reflection of what is at the other. Draws from r: two or three numbers. */
void augment_image(const Augment *a, Rng *r, float *image, float *scratch);

#endif
