/* Convolutions by cuDNN's legacy interface, which is all that forward, data and filter need;
 * another (its graph interface) would replace this file alone.
 *
 * The algorithm is the fastest that cuDNN measures; under --deterministic, where two runs must not
 * choose differently, and where there is no memory to measure with, it is the first of its
 * heuristic. Either way it must work in the math asked for, and under --deterministic be
 * deterministic. The choice is kept per problem. */
#include <stdlib.h>
#include <string.h>

#include "runtime/cuda/real.h"

struct GpuConvPlan {
    GpuConv c;
    cudnnTensorDescriptor_t src, dst;
    cudnnFilterDescriptor_t weights;
    cudnnConvolutionDescriptor_t conv;
    int algorithm; /* of the kind's enum */
    size_t scratch;
};

/* ---- algorithms -------------------------------------------------------------------------------
 */

typedef struct Choice {
    int algorithm; /* -1: none */
    int math;
    size_t scratch;
} Choice;

enum { MAX_ALGORITHMS = 16 };

typedef struct Candidates {
    Choice list[MAX_ALGORITHMS];
    int n;
} Candidates;

/* Plain floats keep the math that describe() asked for, whatever the list says of the default,
 * which would let TF32 in. */
static bool is_plain(const GpuConv *c) { return c->storage == DT_F32 && !c->tf32; }

/* Whether the problem allows an algorithm that the library offers. */
static bool allowed(const GpuConv *c, cudnnMathType_t math, cudnnDeterminism_t determinism)
{
    if (c->deterministic && determinism != CUDNN_DETERMINISTIC) return false;
    if (!is_plain(c)) return true;
    return math != CUDNN_TENSOR_OP_MATH && math != CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION;
}

/* Whether algorithms could be timed: that takes memory for the operands, too. */
static bool measured(cudnnStatus_t status, const char *call)
{
    if (cudnn_full(status) || status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
        CUDNN_STATUS_CATEGORY(status) == CUDNN_STATUS_NOT_SUPPORTED) {
        (void)cudaGetLastError(); /* it may have left one of its own */
        return false;
    }
    CHECK_STATUS(cudnn, status, call);
    return true;
}

/* Those that are allowed, of a list by measured time or, without, by the heuristic. */
#define LIST(Perf, Name, x, y, z)                                                                  \
    do {                                                                                           \
        Perf perf[MAX_ALGORITHMS];                                                                 \
        int n = 0;                                                                                 \
        if (timed) {                                                                               \
            const cudnnStatus_t status =                                                           \
                cudnnFind##Name##Algorithm(gpu.cudnn, x, y, p->conv, z, MAX_ALGORITHMS, &n, perf); \
            if (!measured(status, "cudnnFind" #Name "Algorithm")) n = 0;                           \
        } else {                                                                                   \
            CHECK(cudnn, cudnnGet##Name##Algorithm_v7(gpu.cudnn, x, y, p->conv, z, MAX_ALGORITHMS, \
                                                      &n, perf));                                  \
        }                                                                                          \
        for (int k = 0; k < n; k++)                                                                \
            if (perf[k].status == CUDNN_STATUS_SUCCESS &&                                          \
                allowed(&p->c, perf[k].mathType, perf[k].determinism))                             \
                all->list[all->n++] =                                                              \
                    (Choice){.algorithm = (int)perf[k].algo, .math = (int)perf[k].mathType};       \
    } while (0)

static void list_algorithms(Candidates *all, const GpuConvPlan *p, bool timed)
{
    all->n = 0;
    switch (p->c.kind) {
    case GPU_FORWARD:
        LIST(cudnnConvolutionFwdAlgoPerf_t, ConvolutionForward, p->src, p->weights, p->dst);
        break;
    case GPU_BY_DATA:
        LIST(cudnnConvolutionBwdDataAlgoPerf_t, ConvolutionBackwardData, p->weights, p->dst,
             p->src);
        break;
    default:
        LIST(cudnnConvolutionBwdFilterAlgoPerf_t, ConvolutionBackwardFilter, p->src, p->dst,
             p->weights);
    }
}

/* Bytes that algorithm a wants in the math that is set now, which need not be the one it was listed
 * for; SIZE_MAX: it does not work in it. */
static size_t workspace_of(const GpuConvPlan *p, int a)
{
    size_t n = 0;
    cudnnStatus_t status;
    switch (p->c.kind) {
    case GPU_FORWARD:
        status = cudnnGetConvolutionForwardWorkspaceSize(gpu.cudnn, p->src, p->weights, p->conv,
                                                         p->dst, (cudnnConvolutionFwdAlgo_t)a, &n);
        break;
    case GPU_BY_DATA:
        status = cudnnGetConvolutionBackwardDataWorkspaceSize(
            gpu.cudnn, p->weights, p->dst, p->conv, p->src, (cudnnConvolutionBwdDataAlgo_t)a, &n);
        break;
    default:
        status = cudnnGetConvolutionBackwardFilterWorkspaceSize(
            gpu.cudnn, p->src, p->dst, p->conv, p->weights, (cudnnConvolutionBwdFilterAlgo_t)a, &n);
    }
    if (status != CUDNN_STATUS_BAD_PARAM &&
        CUDNN_STATUS_CATEGORY(status) != CUDNN_STATUS_NOT_SUPPORTED)
        CHECK_STATUS(cudnn, status, "cudnnGetConvolutionWorkspaceSize");
    return status ? SIZE_MAX : n;
}

static void set_math(const GpuConvPlan *p, int math)
{
    if (!is_plain(&p->c)) CHECK(cudnn, cudnnSetConvolutionMathType(p->conv, (cudnnMathType_t)math));
}

/* The first that works; a workspace takes at most a quarter of what is left. */
static Choice first_that_fits(const GpuConvPlan *p, bool timed)
{
    Candidates all;
    list_algorithms(&all, p, timed);
    const size_t room = gpu_available() / 4;
    for (int k = 0; k < all.n; k++) {
        Choice c = all.list[k];
        set_math(p, c.math);
        c.scratch = workspace_of(p, c.algorithm);
        if (c.scratch <= room) return c;
    }
    return (Choice){.algorithm = -1};
}

typedef struct Known {
    GpuConv c;
    Choice choice;
    struct Known *next;
} Known;

/* Problems compare by bytes: they are made zeroed. That nothing fits is not kept: there may be more
 * memory the next time. */
static Choice choose(const GpuConvPlan *p)
{
    static Known *all;
    for (const Known *k = all; k; k = k->next)
        if (memcmp(&k->c, &p->c, sizeof k->c) == 0) return k->choice;
    Choice choice = {.algorithm = -1};
    if (!p->c.deterministic) choice = first_that_fits(p, true);
    if (choice.algorithm < 0) choice = first_that_fits(p, false);
    if (choice.algorithm < 0) return choice;
    Known *k = calloc(1, sizeof *k);
    if (!k) trap(TRAP_NO_MEMORY, "out of memory for a convolution");
    *k = (Known){p->c, choice, all};
    all = k;
    return choice;
}

/* ---- the five functions ------------------------------------------------------------------------
 */

static void describe(GpuConvPlan *p)
{
    const GpuConv *c = &p->c;
    const cudnnDataType_t type = c->storage == DT_F16    ? CUDNN_DATA_HALF
                                 : c->storage == DT_BF16 ? CUDNN_DATA_BFLOAT16
                                                         : CUDNN_DATA_FLOAT;
    const cudnnMathType_t math = c->storage != DT_F32 ? CUDNN_TENSOR_OP_MATH
                                 : c->tf32            ? CUDNN_DEFAULT_MATH
                                                      : CUDNN_FMA_MATH;
    CHECK(cudnn, cudnnCreateTensorDescriptor(&p->src));
    CHECK(cudnn, cudnnCreateTensorDescriptor(&p->dst));
    CHECK(cudnn, cudnnCreateFilterDescriptor(&p->weights));
    CHECK(cudnn, cudnnCreateConvolutionDescriptor(&p->conv));
    CHECK(cudnn,
          cudnnSetTensor4dDescriptor(p->src, CUDNN_TENSOR_NHWC, type, c->n, c->c, c->h, c->w));
    CHECK(cudnn,
          cudnnSetTensor4dDescriptor(p->dst, CUDNN_TENSOR_NHWC, type, c->n, c->o, c->p, c->q));
    CHECK(cudnn, cudnnSetFilter4dDescriptor(p->weights, type, CUDNN_TENSOR_NHWC, c->o,
                                            c->c / c->group, c->kh, c->kw));
    CHECK(cudnn, cudnnSetConvolution2dDescriptor(p->conv, c->pad[0], c->pad[1], c->stride[0],
                                                 c->stride[1], c->dilation[0], c->dilation[1],
                                                 CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT));
    CHECK(cudnn, cudnnSetConvolutionGroupCount(p->conv, c->group));
    CHECK(cudnn, cudnnSetConvolutionMathType(p->conv, math));
}

/* What may trap of making a plan. */
static bool set_up(GpuConvPlan *p)
{
    describe(p);
    const Choice choice = choose(p);
    if (choice.algorithm < 0) return false;
    set_math(p, choice.math);
    p->algorithm = choice.algorithm;
    p->scratch = choice.scratch;
    return true;
}

/* Leaves nothing behind a trap. */
static bool set_up_or_destroy(GpuConvPlan *p)
{
    Trap t;
    if (trap_enter(&t)) {
        gpu_conv_destroy(p);
        trap(t.kind, "%s", t.message);
    }
    const bool ready = set_up(p);
    trap_leave(&t);
    if (!ready) gpu_conv_destroy(p);
    return ready;
}

GpuConvPlan *gpu_conv_create(const GpuConv *c, size_t *scratch)
{
    GpuConvPlan *p = calloc(1, sizeof *p);
    if (!p) trap(TRAP_NO_MEMORY, "out of memory for a convolution");
    p->c = *c;
    if (!set_up_or_destroy(p)) return NULL;
    *scratch = p->scratch;
    return p;
}

void gpu_conv_run(const GpuConvPlan *p, const void *x, const void *y, float beta, void *result,
                  void *scratch)
{
    const float one = 1;
    switch (p->c.kind) {
    case GPU_FORWARD:
        CHECK(cudnn, cudnnConvolutionForward(gpu.cudnn, &one, p->src, x, p->weights, y, p->conv,
                                             (cudnnConvolutionFwdAlgo_t)p->algorithm, scratch,
                                             p->scratch, &beta, p->dst, result));
        break;
    case GPU_BY_DATA:
        CHECK(cudnn,
              cudnnConvolutionBackwardData(gpu.cudnn, &one, p->weights, x, p->dst, y, p->conv,
                                           (cudnnConvolutionBwdDataAlgo_t)p->algorithm, scratch,
                                           p->scratch, &beta, p->src, result));
        break;
    default:
        CHECK(cudnn,
              cudnnConvolutionBackwardFilter(gpu.cudnn, &one, p->src, x, p->dst, y, p->conv,
                                             (cudnnConvolutionBwdFilterAlgo_t)p->algorithm, scratch,
                                             p->scratch, &beta, p->weights, result));
    }
}

/* Also where a trap is on its way: never traps. */
void gpu_conv_destroy(GpuConvPlan *p)
{
    if (p->src) (void)cudnnDestroyTensorDescriptor(p->src);
    if (p->dst) (void)cudnnDestroyTensorDescriptor(p->dst);
    if (p->weights) (void)cudnnDestroyFilterDescriptor(p->weights);
    if (p->conv) (void)cudnnDestroyConvolutionDescriptor(p->conv);
    free(p);
}
