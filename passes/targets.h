/* How the runtimes that serve quantised models want them laid out, as data. */
#ifndef EHAP_PASSES_TARGETS_H
#define EHAP_PASSES_TARGETS_H

#include "ir/ir.h"

/* What an operator is to the layout. */
typedef enum QuantRole {
    QUANT_FLOAT,    /* computed in float; its results need no grid of their own */
    QUANT_WEIGHTED, /* activation in input 0, weight in 1, bias in 2; integer kernel */
    QUANT_ARITH,    /* every float input and the output on grids: Add, Concat, averages, Sigmoid */
    QUANT_SAME,     /* moves or selects elements: output on the grid of input 0 */
    QUANT_ABSORBED, /* Relu, Clip: part of the producer's rounding, no grid in between */
} QuantRole;

typedef struct Target {
    const char *name;
    int activation_min, activation_max; /* the integers of the activations' grid */
    int weight_bits;                    /* unless --weight-bits says otherwise */
    bool float_result;                  /* the classifier's last product may deliver float */
    bool int32_bias;                    /* biases are int32 at scale s_x s_w, else float */
    const uint8_t *role;                /* QuantRole by Op */
} Target;

/* NULL name: the default, "ort". An unknown name gives NULL. */
const Target *target_find(const char *name);
QuantRole target_role(const Target *t, Op op);

/* The axis of a weighted op's outputs in its weight, -1 if in[1] is not a constant weight. */
int quant_weight_axis(const Node *n);

#endif
