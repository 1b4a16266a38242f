/* The CUDA device: one line per op. What is not here runs on the CPU (host.c). */
#include <string.h>

#include "runtime/cuda/cuda.h"

#define K(op, name, release, can, flags)                                                           \
    {                                                                                              \
        OP_##op,                                                                                   \
            {cuda_##name##_prepare, cuda_##name##_run, cuda_##release##_release, (flags), NULL},   \
            can                                                                                    \
    }
#define MAPS(op) K(op, map, free, map_can, MAP)
#define MOVE(op, name) K(op, name, free, moves_can, ANY)
#define VIEW(op)                                                                                   \
    {                                                                                              \
        OP_##op, {tensor_reshape_prepare, cuda_reshape_run, cuda_free_release, ANY, NULL}, NULL    \
    }

enum { ANY = KF_F16 | KF_BF16, MAP = ANY | KF_INPLACE | KF_MAP };

static const struct {
    Op op;
    Kernel kernel;
    CudaCan *can;
} lines[] = {
    K(Conv, conv, conv, conv_can, ANY),
    K(ConvTranspose, conv, conv, conv_can, ANY),
    K(ConvWgrad, conv, conv, conv_can, ANY),
    K(MatMul, matmul, free, matmul_can, ANY),
    K(Gemm, matmul, free, matmul_can, ANY),
    MAPS(Relu),
    MAPS(LeakyRelu),
    MAPS(Clip),
    MAPS(Sigmoid),
    MAPS(HardSigmoid),
    MAPS(HardSwish),
    MAPS(Tanh),
    MAPS(Gelu),
    MAPS(Erf),
    MAPS(Sqrt),
    MAPS(Exp),
    MAPS(Log),
    MAPS(Abs),
    MAPS(Reciprocal),
    MAPS(Floor),
    MAPS(Ceil),
    MAPS(Round),
    MAPS(Neg),
    MAPS(Derivative),
    K(Identity, copy, free, NULL, ANY | KF_INPLACE),
    MAPS(Dropout),
    MAPS(Cast),
    MAPS(Add),
    MAPS(Sub),
    MAPS(Mul),
    MAPS(Div),
    MAPS(Pow),
    MAPS(PRelu),
    MAPS(Max),
    MAPS(Min),
    MAPS(Sum),
    MAPS(Greater),
    MAPS(Less),
    MAPS(Equal),
    MAPS(Where),
    MAPS(BatchNormalization),
    MAPS(QuantizeLinear),
    MAPS(DequantizeLinear),
    MAPS(FakeQuant),
    K(FakeQuantGrad, fake_quant_grad, free, floats_can, ANY),
    K(MaxPool, pool, free, pool_can, ANY),
    K(AveragePool, pool, free, pool_can, ANY),
    K(MaxPoolGrad, pool, free, pool_can, ANY),
    K(MaxPoolPick, pool, free, pool_can, ANY),
    K(AveragePoolGrad, pool, free, pool_can, ANY),
    K(GlobalAveragePool, global_pool, free, floats_can, ANY),
    K(GlobalMaxPool, global_pool, free, floats_can, ANY),
    K(BatchNormTrain, batchnorm_train, free, floats_can, ANY),
    K(BatchNormTrainGrad, batchnorm_train_grad, free, floats_can, ANY),
    K(LayerNormalization, layernorm, free, floats_can, KF_ROW_MAJOR),
    K(Softmax, softmax, free, floats_can, ANY),
    K(LogSoftmax, softmax, free, floats_can, ANY),
    K(ReduceSum, reduce, free, floats_can, ANY),
    K(ReduceMean, reduce, free, floats_can, ANY),
    K(ReduceMax, reduce, free, floats_can, ANY),
    K(ReduceMin, reduce, free, floats_can, ANY),
    K(SumProduct, sum_product, free, floats_can, ANY),
    VIEW(Reshape),
    VIEW(Flatten),
    VIEW(Squeeze),
    VIEW(Unsqueeze),
    MOVE(Transpose, transpose),
    K(Expand, map, free, map_can, MAP),
    MOVE(Concat, concat),
    MOVE(Split, split),
    MOVE(Slice, slice),
    MOVE(SliceGrad, slice_grad),
    MOVE(Pad, pad),
    K(Rademacher, rademacher, free, NULL, ANY),
};

static Kernel kernels[OP_COUNT];
static CudaCan *can[OP_COUNT];

bool cuda_can_run(const Device *d, const Node *n, const Tensor *in, const Tensor *out)
{
    return !can[n->op] || can[n->op](d, n, in, out);
}

/* Ops of the CPU without a line run there, and take what that kernel takes. */
static void fill(void)
{
    const unsigned kept = KF_F16 | KF_BF16 | KF_ROW_MAJOR;
    for (int op = 0; op < OP_COUNT; op++) {
        if (!device_cpu.kernels[op].run) continue;
        kernels[op] = cuda_host_kernel;
        kernels[op].flags = KF_HOST | (device_cpu.kernels[op].flags & kept);
    }
    for (size_t k = 0; k < sizeof lines / sizeof *lines; k++) {
        kernels[lines[k].op] = lines[k].kernel;
        can[lines[k].op] = lines[k].can;
    }
}

static void append(float *rows, int64_t *counter, int lane, int64_t row, int64_t at, const float *x,
                   int64_t n)
{
    const AppendArgs a = {n, lane, row, at, counter, counter + 1, x, rows};
    if (n > 0) gpu_launch(GPU_append, &a);
}

static void bump(int64_t *counter, int64_t *keys, int64_t size, int lanes)
{
    const BumpArgs a = {lanes, size, counter, keys};
    gpu_launch(GPU_bump, &a);
}

static void gather(double *total, const float *rows, int64_t n)
{
    const GatherArgs a = {n, rows, total};
    if (n > 0) gpu_launch(GPU_gather, &a);
}

static void observe(double *moments, double *total, const double *factor, int64_t columns,
                    int64_t n, int64_t before)
{
    const ObserveArgs a = {columns, n, before, factor, total, moments};
    if (columns > 0) gpu_launch(GPU_observe, &a);
}

static const DeviceMemory memory = {
    .alloc = gpu_alloc,
    .release = gpu_release,
    .available = gpu_available,
    .upload = gpu_upload,
    .download = gpu_download,
    .copy = gpu_copy,
    .begin = gpu_begin,
    .record = gpu_record,
    .recorded = gpu_recorded,
    .replay = gpu_replay,
    .discard = gpu_discard,
    .lanes = gpu_lanes,
    .fork = gpu_fork,
    .lane = gpu_lane,
    .join = gpu_join,
    .append = append,
    .bump = bump,
    .over_ranks = gpu_over_ranks,
    .gather = gather,
    .observe = observe,
    .rewrite = cuda_send_to_host,
};

static const Kernel plan_copy = {cuda_copy_prepare, cuda_copy_run, cuda_free_release, ANY, NULL};
static const Kernel chain = {cuda_map_prepare, cuda_map_run, cuda_free_release, MAP, NULL};

/* What runtime/load.c looks for. */
__attribute__((visibility("default"))) const Device *ehap_cuda_device(bool tf32, bool deterministic,
                                                                      const char **why);

const Device *ehap_cuda_device(bool tf32, bool deterministic, const char **why)
{
    static Device devices[2][2]; /* one per pair of flags: equal names are equal devices */
    *why = gpu_open();
    if (**why) return NULL;
    fill();
    Device *d = &devices[tf32][deterministic];
    *d = (Device){.name = tf32 ? "cuda-tf32" : "cuda",
                  .kernels = kernels,
                  .copy = &plan_copy,
                  .chain = &chain,
                  .channels_last = true,
                  .tf32 = tf32,
                  .deterministic = deterministic,
                  .memory = &memory};
    return d;
}
