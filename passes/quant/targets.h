/* How the runtimes that serve quantized models want them laid out, as data. */
#ifndef EHAP_PASSES_QUANT_TARGETS_H
#define EHAP_PASSES_QUANT_TARGETS_H

#include "ir/ir.h"

/* What an operator is to the layout. */
typedef enum QuantRole {
    QUANT_FLOAT,    /* computed in float; its results need no grid of their own */
    QUANT_WEIGHTED, /* activation in input 0, weight in 1, bias in 2; integer kernel */
    QUANT_ARITH,    /* every float input and the output on grids: Add, Concat, averages, Sigmoid */
    QUANT_RESIDUAL, /* a sum that a product computes on the way: the other operands on grids */
    QUANT_SAME,     /* moves or selects elements: output on the grid of input 0 */
    QUANT_COMMUTES, /* as QUANT_SAME; the runtime itself pushes grids through it */
    QUANT_CARRIED,  /* as QUANT_SAME, but the runtime moves floats */
    QUANT_THROUGH,  /* computed in float, but what reads it may be integer again */
    QUANT_ABSORBED, /* Relu, Clip: part of the producer's rounding, no grid in between */
} QuantRole;

/* The facts about a runtime; docs/targets.md says which were run and which only read. */
typedef struct Target {
    const char *name;
    int activation_min, activation_max; /* the integers of the activations' grid */
    bool symmetric;                     /* activations have zero point 0 */
    int weight_bits;                    /* unless --weight-bits says otherwise */
    bool output_grids;    /* results of integer ops are on grids; else only what they read is */
    bool float_result;    /* a Gemm or MatMul whose bias is int32 or absent may deliver float */
    bool int32_bias;      /* biases are int32 at scale s_x s_w, else float */
    bool shared_concat;   /* inputs and output of a Concat have one scale */
    bool tight_relu;      /* Relu and Clip vanish only where the grid ends where they do */
    bool constant_factor; /* a product of two activations is one of floats, unless the second has
                             zero point 0 */
    bool int8_to_uint8;   /* the runtime rewrites int8 pairs with one reader to uint8 */
    bool static_shapes;   /* no symbolic dimensions */
    int least_channels;   /* convolutions with fewer, in or out, stay in float */
    float least_scale;
    const uint8_t *role; /* QuantRole by Op */
} Target;

extern const Target targets[]; /* the default first; ends with a NULL name */
/* NULL name: the default. An unknown name gives NULL. */
const Target *target_find(const char *name);
QuantRole target_role(const Target *t, Op op);
bool role_moves(QuantRole role); /* QUANT_SAME and its like */

/* Sigmoid, Softmax, Tanh: the range that follows from the function, so that no data is needed.
 * False for the others. */
bool fixed_range(Op op, float *lo, float *hi);

/* The value behind FakeQuant, QuantizeLinear and DequantizeLinear nodes. */
const Value *behind_grid(const Value *v);
/* The axis of a weighted op's outputs in its weight, -1 if in[1] is not a constant weight. */
int quant_weight_axis(const Node *n);
/* The node's role on the target given its operands and attributes. */
QuantRole quant_role(const Target *t, const Node *n);
/* Whether a convolution has fewer channels than the target wants. */
bool below_least_channels(const Target *t, const Node *n);

#endif
