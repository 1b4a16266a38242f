/* Parameter updates: SGD with Nesterov momentum and AdamW, gradient clipping, and the learning
 * rate over time. Plain loops in a fixed order: the same bytes on every run. */
#ifndef EHAP_PASSES_TRAIN_OPTIMIZER_H
#define EHAP_PASSES_TRAIN_OPTIMIZER_H

#include "ir/arena.h"

typedef enum OptimizerKind { OPTIMIZER_SGD, OPTIMIZER_ADAMW } OptimizerKind;

typedef struct Parameter {
    float *data; /* count elements, updated in place */
    float *grad; /* count elements, d loss / d data; clipped in place */
    int64_t count;
    bool decay;        /* weight decay applies (not to biases, nor to normalizations) */
    bool positive;     /* a scale: kept > 0 by stepping its logarithm, by the normalized
                          (Adam) rule whatever the kind, at a rate of its own */
    float least, most; /* a positive parameter stays within them; 0: no such bound */
    float *m, *v;      /* first and second moments; made by optimizer_init */
} Parameter;

typedef struct Optimizer {
    OptimizerKind kind;
    float momentum;     /* SGD: velocity; AdamW: beta1 */
    float beta2;        /* AdamW */
    float weight_decay; /* SGD: added to the gradient; AdamW: decoupled */
    float clip_norm;    /* gradients are scaled down to this total norm; 0: never */
    int64_t step;       /* updates done */
} Optimizer;

/* The usual constants of `kind`. */
Optimizer optimizer_new(OptimizerKind kind);
/* Makes the moments of n parameters in arena a, all zero. */
void optimizer_init(Parameter *p, int n, Arena *a);
/* One update at learning rates lr and, of positive parameters, positive_lr (>= 0). Returns the norm
 * of the gradient before clipping; if it is not finite nothing is updated. */
double optimizer_step(Optimizer *o, Parameter *p, int n, double lr, double positive_lr);

/* Share of the peak learning rate at `progress` in [0, 1]: linear up to 1 during the first
 * `warmup`, then half a cosine down to 0 at the end. */
double schedule_cosine(double progress, double warmup);

#endif
