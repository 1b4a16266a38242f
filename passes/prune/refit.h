/* One layer's weights and bias by least squares. */
#ifndef EHAP_PASSES_PRUNE_REFIT_H
#define EHAP_PASSES_PRUNE_REFIT_H

#include "passes/prune/prefix.h"

enum { REFIT_SAMPLES = 1024 }; /* what a fit sees where there are as many */

/* A layer, and what its output is to come close to. */
typedef struct Fit {
    Node *node, *norm; /* norm: the BatchNormalization behind it, or NULL */
    Value *x, *z;      /* input; fitted output */
    Value *other;      /* the other operand of the addition behind z, or NULL */
    Value *target;     /* of the original */
    bool conv;
    int64_t columns, outputs; /* of x patches, without the intercept */
    int64_t group;            /* columns that share an unknown */
    bool intercept;
    const int64_t *lanes; /* per output: its index in the target; NULL: the same */
} Fit;

/* Gives f's node, and the BatchNormalization behind it, new constants in c->graph: those with which
 * its output comes closest to the target (less the other operand) over `samples` samples. What it
 * takes raises *bytes. Where there is nothing to fit, or what fits some samples is no better on the
 * others, it says so, and all stays. */
int refit_layer(Context *c, Prefix *prefix, const Fit *f, int64_t samples, size_t *bytes);

#endif
