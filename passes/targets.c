/* The layout tables. For ONNX Runtime's CPU provider: integer convolutions need a grid on every
 * input and on the output; a Relu or Clip after them vanishes into the output's grid if that
 * starts at zero; sums are integer if both inputs and the output have grids; what only moves
 * elements must come out on the grid that went in; the last Gemm may end in float. */
#include "passes/targets.h"

#include <string.h>

static const uint8_t ort_roles[OP_COUNT] = {
    [OP_Conv] = QUANT_WEIGHTED,     [OP_Gemm] = QUANT_WEIGHTED,
    [OP_MatMul] = QUANT_WEIGHTED,   [OP_Add] = QUANT_ARITH,
    [OP_Mul] = QUANT_ARITH,         [OP_Concat] = QUANT_ARITH,
    [OP_AveragePool] = QUANT_ARITH, [OP_GlobalAveragePool] = QUANT_ARITH,
    [OP_Sigmoid] = QUANT_ARITH,     [OP_LeakyRelu] = QUANT_ARITH,
    [OP_MaxPool] = QUANT_SAME,      [OP_Reshape] = QUANT_SAME,
    [OP_Flatten] = QUANT_SAME,      [OP_Squeeze] = QUANT_SAME,
    [OP_Unsqueeze] = QUANT_SAME,    [OP_Transpose] = QUANT_SAME,
    [OP_Slice] = QUANT_SAME,        [OP_Pad] = QUANT_SAME,
    [OP_Gather] = QUANT_SAME,       [OP_Split] = QUANT_SAME,
    [OP_Identity] = QUANT_SAME,     [OP_Relu] = QUANT_ABSORBED,
    [OP_Clip] = QUANT_ABSORBED,
};

static const Target targets[] = {
    {.name = "ort",
     .activation_min = 0,
     .activation_max = 255,
     .weight_bits = 7,
     .float_result = true,
     .int32_bias = true,
     .role = ort_roles},
};

const Target *target_find(const char *name)
{
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
        if (!name || strcmp(name, targets[i].name) == 0) return &targets[i];
    return NULL;
}

QuantRole target_role(const Target *t, Op op) { return (QuantRole)t->role[op]; }

int quant_weight_axis(const Node *n)
{
    const Value *w = node_in(n, 1);
    /* The weight itself, or its FakeQuant / DequantizeLinear. */
    while (w && w->def && w->def->nin &&
           (w->def->op == OP_FakeQuant || w->def->op == OP_DequantizeLinear))
        w = w->def->in[0];
    if (!w || !value_is_const(w) || w->type.rank < 2) return -1;
    if (n->op == OP_Conv) return 0;
    if (n->op == OP_Gemm) return node_int(n, "transB", 0) ? 0 : 1;
    return n->op == OP_MatMul ? w->type.rank - 1 : -1;
}
