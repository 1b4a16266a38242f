/* The CPU device: one line per op. */
#include "runtime/cpu/cpu.h"

#define NAIVE(op) [OP_##op] = {.prepare = cpu_naive_prepare, .run = cpu_naive_run}
#define UNARY(op) [OP_##op] = {cpu_unary_prepare, cpu_unary_run, cpu_free_release, MAP}
#define RUN(op, name, flags) [OP_##op] = {NULL, cpu_##name##_run, NULL, flags}
#define PREP(op, name, flags) [OP_##op] = {cpu_##name##_prepare, cpu_##name##_run, NULL, flags}
#define POOL(op) [OP_##op] = {cpu_pool_prepare, cpu_pool_run, cpu_free_release, 0}
#define DNNL(op, name)                                                                             \
    [OP_##op] = {cpu_##name##_prepare, cpu_##name##_run, cpu_primitive_release, 0}

enum { MAP = KF_INPLACE | KF_F16, ANY = KF_F16 | KF_BF16 };

static const Kernel kernels[OP_COUNT] = {
    DNNL(Conv, conv),
    DNNL(ConvTranspose, conv),
    DNNL(ConvWgrad, conv),
    DNNL(MatMul, matmul),
    DNNL(Gemm, matmul),
    UNARY(Relu),
    UNARY(LeakyRelu),
    RUN(Clip, clip, MAP),
    UNARY(Sigmoid),
    UNARY(HardSigmoid),
    UNARY(HardSwish),
    UNARY(Tanh),
    UNARY(Gelu),
    UNARY(Erf),
    UNARY(Sqrt),
    UNARY(Exp),
    UNARY(Log),
    UNARY(Abs),
    UNARY(Reciprocal),
    UNARY(Floor),
    UNARY(Ceil),
    UNARY(Round),
    UNARY(Neg),
    UNARY(Derivative),
    RUN(Identity, identity, ANY | KF_INPLACE),
    RUN(Dropout, dropout, ANY | KF_INPLACE),
    RUN(Cast, cast, ANY),
    RUN(Add, binary, MAP),
    RUN(Sub, binary, MAP),
    RUN(Mul, binary, MAP),
    RUN(Div, binary, MAP),
    RUN(Pow, binary, MAP),
    RUN(PRelu, binary, MAP),
    RUN(Max, variadic, MAP),
    RUN(Min, variadic, MAP),
    RUN(Sum, variadic, MAP),
    RUN(Greater, binary, KF_F16),
    RUN(Less, binary, KF_F16),
    RUN(Equal, binary, KF_F16),
    RUN(Where, where, KF_F16),
    POOL(MaxPool),
    POOL(AveragePool),
    POOL(MaxPoolGrad),
    POOL(MaxPoolPick),
    POOL(AveragePoolGrad),
    PREP(GlobalAveragePool, global_pool, KF_F16),
    PREP(GlobalMaxPool, global_pool, KF_F16),
    PREP(BatchNormalization, batchnorm, MAP),
    PREP(BatchNormTrain, batchnorm_train, KF_F16),
    PREP(BatchNormTrainGrad, batchnorm_train_grad, KF_F16),
    PREP(LayerNormalization, layernorm, KF_F16 | KF_ROW_MAJOR),
    PREP(Softmax, softmax, MAP),
    PREP(LogSoftmax, softmax, MAP),
    PREP(ReduceSum, reduce, KF_F16),
    PREP(ReduceMean, reduce, KF_F16),
    PREP(ReduceMax, reduce, KF_F16),
    PREP(ReduceMin, reduce, KF_F16),
    [OP_SumProduct] = {cpu_reduce_prepare, cpu_sum_product_run, NULL, KF_F16},
    PREP(Reshape, reshape, ANY),
    PREP(Flatten, reshape, ANY),
    PREP(Squeeze, reshape, ANY),
    PREP(Unsqueeze, reshape, ANY),
    RUN(Transpose, transpose, ANY),
    RUN(Expand, identity, ANY),
    NAIVE(Shape),
    NAIVE(ConstantOfShape),
    RUN(Concat, concat, ANY),
    RUN(Split, split, ANY),
    RUN(Slice, slice, ANY),
    RUN(Pad, pad, ANY),
    RUN(Gather, gather, ANY),
    RUN(SliceGrad, slice_grad, ANY),
    RUN(GatherGrad, gather_grad, KF_F16),
    RUN(QuantizeLinear, quantize, KF_F16),
    RUN(DequantizeLinear, dequantize, KF_F16),
    RUN(FakeQuant, fake_quant, MAP),
    PREP(FakeQuantGrad, fake_quant_grad, KF_F16),
    PREP(Rademacher, rademacher, KF_F16),
};

static const Kernel plan_copy = {.run = cpu_plan_copy_run};

const Device device_cpu = {
    .name = "cpu", .kernels = kernels, .copy = &plan_copy, .channels_last = true, .threads = true};
