/* The layout tables: one role per operator and one line of facts per target. */
#include "passes/quant/targets.h"

#include <string.h>

/* What only moves elements; grids travel through the first lot by themselves. */
#define MOVES                                                                                      \
    [OP_MaxPool] = QUANT_COMMUTES, [OP_Reshape] = QUANT_COMMUTES, [OP_Squeeze] = QUANT_COMMUTES,   \
    [OP_Unsqueeze] = QUANT_COMMUTES, [OP_Transpose] = QUANT_COMMUTES, [OP_Slice] = QUANT_COMMUTES, \
    [OP_Identity] = QUANT_COMMUTES, [OP_Dropout] = QUANT_COMMUTES
#define MORE_MOVES(role)                                                                           \
    [OP_Flatten] = role, [OP_Gather] = role, [OP_Split] = role, [OP_Expand] = role
/* What gives elements more or other places. */
#define SPREADS(role)                                                                              \
    [OP_Resize] = role, [OP_DepthToSpace] = role, [OP_SpaceToDepth] = role, [OP_Tile] = role
#define PRODUCTS                                                                                   \
    [OP_Conv] = QUANT_WEIGHTED, [OP_Gemm] = QUANT_WEIGHTED, [OP_MatMul] = QUANT_WEIGHTED
#define POOLS [OP_AveragePool] = QUANT_ARITH, [OP_GlobalAveragePool] = QUANT_ARITH
#define CLIPS [OP_Relu] = QUANT_ABSORBED, [OP_Clip] = QUANT_ABSORBED
/* Activations that a target computes in float. */
#define FLOAT_UNARY                                                                                \
    [OP_HardSwish] = QUANT_THROUGH, [OP_HardSigmoid] = QUANT_THROUGH, [OP_Tanh] = QUANT_THROUGH,   \
    [OP_Gelu] = QUANT_THROUGH, [OP_PRelu] = QUANT_THROUGH

/* ONNX Runtime's CPU provider: an integer kernel needs a grid on every input and on the output;
 * a Relu or Clip behind it vanishes into the output's grid if that starts at zero; what only moves
 * elements must come out on the grid that went in. */
static const uint8_t ort_roles[OP_COUNT] = {
    PRODUCTS,
    POOLS,
    MOVES,
    MORE_MOVES(QUANT_SAME),
    SPREADS(QUANT_SAME),
    CLIPS,
    FLOAT_UNARY,
    [OP_Add] = QUANT_ARITH,
    [OP_Mul] = QUANT_ARITH,
    [OP_Concat] = QUANT_ARITH,
    [OP_Sigmoid] = QUANT_ARITH,
    [OP_LeakyRelu] = QUANT_ARITH,
    [OP_Pad] = QUANT_CARRIED,
};

/* TensorRT and OpenVINO: grids on what products read; activations and sums behind a product are
 * its epilogue. */
static const uint8_t input_roles[OP_COUNT] = {
    PRODUCTS,
    POOLS,
    MOVES,
    MORE_MOVES(QUANT_COMMUTES),
    SPREADS(QUANT_THROUGH),
    CLIPS,
    FLOAT_UNARY,
    [OP_ConvTranspose] = QUANT_WEIGHTED,
    [OP_Add] = QUANT_RESIDUAL,
    [OP_Concat] = QUANT_ARITH,
    [OP_Mul] = QUANT_THROUGH,
    [OP_Sigmoid] = QUANT_THROUGH,
    [OP_LeakyRelu] = QUANT_THROUGH,
    [OP_Pad] = QUANT_CARRIED,
};

/* QNN's HTP: a grid on every edge. */
static const uint8_t qnn_roles[OP_COUNT] = {
    PRODUCTS,
    POOLS,
    MOVES,
    MORE_MOVES(QUANT_SAME),
    SPREADS(QUANT_SAME),
    CLIPS,
    [OP_ConvTranspose] = QUANT_WEIGHTED,
    [OP_Add] = QUANT_ARITH,
    [OP_Sub] = QUANT_ARITH,
    [OP_Mul] = QUANT_ARITH,
    [OP_Div] = QUANT_ARITH,
    [OP_Concat] = QUANT_ARITH,
    [OP_ReduceMean] = QUANT_ARITH,
    [OP_Sigmoid] = QUANT_ARITH,
    [OP_HardSwish] = QUANT_ARITH,
    [OP_HardSigmoid] = QUANT_ARITH,
    [OP_Tanh] = QUANT_ARITH,
    [OP_Gelu] = QUANT_ARITH,
    [OP_LeakyRelu] = QUANT_ARITH,
    [OP_PRelu] = QUANT_ARITH,
    [OP_Softmax] = QUANT_ARITH,
    [OP_Pad] = QUANT_SAME,
};

const Target targets[] = {
    {.name = "ort",
     .activation_min = 0,
     .activation_max = 255,
     .weight_bits = 7,
     .output_grids = true,
     .float_result = true,
     .int32_bias = true,
     .tight_relu = true,
     .int8_to_uint8 = true,
     .role = ort_roles},
    {.name = "tensorrt",
     .activation_min = -128,
     .activation_max = 127,
     .symmetric = true,
     .weight_bits = 8,
     .shared_concat = true,
     .float_result = true,
     .least_channels = 16,
     .role = input_roles},
    {.name = "openvino",
     .activation_min = 0,
     .activation_max = 255,
     .weight_bits = 7,
     .shared_concat = true,
     .float_result = true,
     .constant_factor = true,
     .role = input_roles},
    {.name = "qnn",
     .activation_min = 0,
     .activation_max = 255,
     .weight_bits = 8,
     .output_grids = true,
     .int32_bias = true,
     .shared_concat = true,
     .tight_relu = true,
     .static_shapes = true,
     .least_scale = 1e-4f / 255,
     .role = qnn_roles},
    {.name = "portable",
     .activation_min = 0,
     .activation_max = 255,
     .weight_bits = 7,
     .output_grids = true,
     .float_result = true,
     .int32_bias = true,
     .shared_concat = true,
     .tight_relu = true,
     .int8_to_uint8 = true,
     .role = ort_roles},
    {.name = NULL},
};

const Target *target_find(const char *name)
{
    for (const Target *t = targets; t->name; t++)
        if (!name || strcmp(name, t->name) == 0) return t;
    return NULL;
}

bool role_moves(QuantRole role)
{
    return role == QUANT_SAME || role == QUANT_COMMUTES || role == QUANT_CARRIED;
}

QuantRole target_role(const Target *t, Op op) { return (QuantRole)t->role[op]; }

bool fixed_range(Op op, float *lo, float *hi)
{
    bool known = op == OP_Sigmoid || op == OP_HardSigmoid || op == OP_Softmax || op == OP_Tanh;
    *lo = op == OP_Tanh ? -1 : 0;
    *hi = 1;
    return known;
}

const Value *behind_grid(const Value *v)
{
    while (v && v->def && v->def->nin &&
           (v->def->op == OP_FakeQuant || v->def->op == OP_DequantizeLinear ||
            v->def->op == OP_QuantizeLinear))
        v = v->def->in[0];
    return v;
}

int quant_weight_axis(const Node *n)
{
    const Value *w = behind_grid(node_in(n, 1));
    if (!w || !value_is_const(w) || w->type.rank < 2) return -1;
    if (n->op == OP_Conv) return 0;
    /* With groups, output channels do not lie along one axis of the weight. */
    if (n->op == OP_ConvTranspose) return node_int(n, "group", 1) == 1 ? 1 : -1;
    if (n->op == OP_Gemm) return node_int(n, "transB", 0) ? 0 : 1;
    return n->op == OP_MatMul ? w->type.rank - 1 : -1;
}

/* Whether the result has a place on the grid of the input: zero must survive what moves or clips,
 * and what resizes must copy (ONNX Runtime interpolates in float). */
static bool keeps_grid(const Node *n)
{
    double x;
    if (n->op == OP_Resize) return strcmp(node_str(n, "mode", "nearest"), "nearest") == 0;
    if (n->op == OP_Pad && node_in(n, 2)) return value_scalar(n->in[2], &x) && x == 0;
    if (n->op != OP_Clip) return true;
    if (node_in(n, 1) && (!value_scalar(n->in[1], &x) || x > 0)) return false;
    return !node_in(n, 2) || (value_scalar(n->in[2], &x) && x >= 0);
}

bool below_least_channels(const Target *t, const Node *n)
{
    const Value *w = behind_grid(node_in(n, 1));
    if ((n->op != OP_Conv && n->op != OP_ConvTranspose) || !w || w->type.rank < 2) return false;
    int64_t group = node_int(n, "group", 1), a = w->type.dim[0], b = w->type.dim[1] * group;
    return a < t->least_channels || b < t->least_channels;
}

QuantRole quant_role(const Target *t, const Node *n)
{
    const Value *x = node_in(n, 0);
    if (!n->nout || !n->out[0] || n->out[0]->type.dtype != DT_F32) return QUANT_FLOAT;
    if (!x || x->type.dtype != DT_F32 || !keeps_grid(n)) return QUANT_FLOAT;
    return below_least_channels(t, n) ? QUANT_FLOAT : target_role(t, n->op);
}
