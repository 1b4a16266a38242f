/* Dynamic loss scaling (Micikevicius et al. 2018): gradients are taken of `value` losses, so that
 * small ones do not vanish in half precision; what overflows halves it, many steps without double
 * it. Always a power of two: scaling and its undoing round nothing in float. */
#ifndef EHAP_PASSES_TRAIN_LOSS_SCALE_H
#define EHAP_PASSES_TRAIN_LOSS_SCALE_H

#include "ir/ir.h"

typedef struct LossScale {
    float value;
    bool moves;    /* FP16: BF16 and float have the range of gradients */
    int64_t clean; /* steps since it last changed */
} LossScale;

/* Beginning near `start` (0: 65536). */
LossScale loss_scale_new(DType storage, double start);
/* A gradient was not finite; false if a lower scale cannot be why. */
bool loss_scale_lower(LossScale *s);
/* A step was taken. */
void loss_scale_passed(LossScale *s);

#endif
