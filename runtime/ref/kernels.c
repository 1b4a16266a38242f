/* The reference device: one line per op. */
#include "runtime/ref/ref.h"

#define FLAGS (KF_F16 | KF_BF16)
#define ENTRY(op, kernel, more) [OP_##op] = {.run = ref_##kernel, .flags = FLAGS | (more)}
#define PREPARED(op, kernel, more)                                                                 \
    [OP_##op] = {.prepare = ref_##kernel##_prepare, .run = ref_##kernel, .flags = FLAGS | (more)}
#define K(op, kernel) ENTRY(op, kernel, 0)
#define P(op, kernel) PREPARED(op, kernel, 0)
/* The output may take the place of an operand: each element is read before it is written. */
#define KI(op, kernel) ENTRY(op, kernel, KF_INPLACE)
#define PI(op, kernel) PREPARED(op, kernel, KF_INPLACE)

static const Kernel kernels[OP_COUNT] = {
    K(Conv, conv),
    K(ConvTranspose, conv_transpose),
    K(ConvWgrad, conv_wgrad),
    K(MatMul, matmul),
    K(Gemm, gemm),
    PI(Relu, unary),
    PI(LeakyRelu, unary),
    KI(Clip, clip),
    PI(Sigmoid, unary),
    PI(HardSigmoid, unary),
    PI(HardSwish, unary),
    PI(Tanh, unary),
    PI(Gelu, unary),
    PI(Erf, unary),
    PI(Sqrt, unary),
    PI(Exp, unary),
    PI(Log, unary),
    PI(Abs, unary),
    PI(Reciprocal, unary),
    PI(Floor, unary),
    PI(Ceil, unary),
    PI(Round, unary),
    PI(Neg, unary),
    [OP_Derivative] = {.prepare = ref_unary_prepare,
                       .run = ref_derivative,
                       .flags = FLAGS | KF_INPLACE},
    KI(Identity, copy),
    PI(Dropout, dropout),
    K(Cast, copy),
    KI(Add, binary),
    KI(Sub, binary),
    KI(Mul, binary),
    KI(Div, binary),
    KI(Pow, binary),
    KI(Max, binary),
    KI(Min, binary),
    KI(Sum, binary),
    KI(PRelu, binary),
    K(Greater, binary),
    K(Less, binary),
    K(Equal, binary),
    KI(Where, where),
    K(MaxPool, maxpool),
    K(AveragePool, avgpool),
    K(GlobalAveragePool, global_pool),
    K(GlobalMaxPool, global_pool),
    K(MaxPoolGrad, maxpool_grad),
    K(MaxPoolPick, maxpool_pick),
    P(AveragePoolGrad, avgpool_grad),
    KI(BatchNormalization, batchnorm),
    K(BatchNormTrain, batchnorm_train),
    K(BatchNormTrainGrad, batchnorm_train_grad),
    K(LayerNormalization, layernorm),
    KI(Softmax, softmax),
    KI(LogSoftmax, softmax),
    K(ReduceSum, reduce),
    K(ReduceMean, reduce),
    K(ReduceMax, reduce),
    K(ReduceMin, reduce),
    K(SumProduct, sum_product),
    K(Reshape, reshape),
    K(Flatten, reshape),
    K(Squeeze, reshape),
    K(Unsqueeze, reshape),
    K(Transpose, transpose),
    K(Expand, expand),
    K(Shape, shape),
    K(ConstantOfShape, constant_of_shape),
    K(Concat, concat),
    K(Split, split),
    K(Slice, slice),
    K(Pad, pad),
    K(Gather, gather),
    K(SliceGrad, slice_grad),
    K(GatherGrad, gather_grad),
    K(QuantizeLinear, quantize),
    K(DequantizeLinear, dequantize),
    KI(FakeQuant, fake_quant),
    PI(FakeQuantGrad, fake_quant_grad),
    K(Rademacher, rademacher),
};

const Device device_ref = {.name = "ref", .kernels = kernels, .threads = true};
const Device device_ref_last = {
    .name = "ref-last", .kernels = kernels, .channels_last = true, .threads = true};
