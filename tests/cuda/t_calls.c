/* What the module asks of CUDA, cuDNN and cuBLAS, checked on functions of the same names that
 * record their arguments: descriptors, choice of algorithms, operand order, capture, the ring of
 * uploads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/cuda/real.h"

/* ---- the record -------------------------------------------------------------------------------
 */

static char log_text[16384];

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...)
{
    const size_t n = strlen(log_text);
    va_list ap;
    va_start(ap, format);
    vsnprintf(log_text + n, sizeof log_text - n, format, ap);
    va_end(ap);
}

static void forget(void) { log_text[0] = '\0'; }

static void must_say(const char *text)
{
    if (!strstr(log_text, text)) fail_msg("'%s' is not in:\n%s", text, log_text);
}

/* ---- CUDA -------------------------------------------------------------------------------------
 */

static cudaError_t next_status;

/* Calls are counted; the one of this number fails, if it is not 0. */
static int calls, failing;

static bool fails(void) { return ++calls == failing; }

static cudaError_t result(void)
{
    const cudaError_t s = next_status;
    next_status = cudaSuccess;
    return fails() ? (cudaError_t)700 : s;
}

cudaError_t cudaGetDeviceCount(int *count) { return *count = 2, result(); }
cudaError_t cudaSetDevice(int device) { return note("device %d\n", device), result(); }
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    (void)device;
    memset(p, 0, sizeof *p);
    p->major = 9;
    return result();
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags)
{
    static intptr_t count;
    *s = (cudaStream_t)++count;
    return note("stream %u\n", flags), result();
}
cudaError_t cudaMallocHost(void **p, size_t n) { return *p = malloc(n), result(); }
cudaError_t cudaMalloc(void **p, size_t n)
{
    const cudaError_t s = result();
    *p = s ? NULL : malloc(n ? n : 1);
    return s;
}
static size_t left = (size_t)1 << 30;
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    *free_bytes = left;
    *total = (size_t)1 << 30;
    return result();
}
cudaError_t cudaFree(void *p) { return free(p), cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags)
{
    static intptr_t count;
    (void)flags;
    *e = (cudaEvent_t)++count;
    return result();
}
cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    return note("wait %d\n", (int)(intptr_t)e), result();
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    return note("event %d on %d\n", (int)(intptr_t)e, (int)(intptr_t)s), result();
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags)
{
    (void)flags;
    return note("stream %d waits for %d\n", (int)(intptr_t)s, (int)(intptr_t)e), result();
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind,
                            cudaStream_t s)
{
    memcpy(to, from, n);
    return note("copy %zu kind %d on %d\n", n, (int)kind, (int)(intptr_t)s), result();
}
cudaError_t cudaMemsetAsync(void *p, int value, size_t n, cudaStream_t s)
{
    (void)s;
    memset(p, value, n);
    return note("set %zu\n", n), result();
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) { return (void)s, note("sync\n"), result(); }
cudaError_t cudaGetLastError(void) { return cudaSuccess; }
const char *cudaGetErrorString(cudaError_t s) { return s == 700 ? "illegal access" : "no memory"; }
cudaError_t cudaLaunchKernel(const void *f, dim3 grid, dim3 block, void **args, size_t shared,
                             cudaStream_t s)
{
    (void)args, (void)shared, (void)s;
    return note("launch %d grid %u block %u\n", (int)(intptr_t)f, grid.x, block.x), result();
}
cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode)
{
    (void)s;
    return note("capture %d\n", (int)mode), result();
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g)
{
    (void)s;
    *g = (cudaGraph_t)7;
    return note("captured\n"), result();
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long flags)
{
    (void)g, (void)flags;
    *e = (cudaGraphExec_t)8;
    return note("instantiate\n"), result();
}
cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    return (void)g, note("destroy graph\n"), cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t s)
{
    (void)s;
    return note("replay %d\n", (int)(intptr_t)e), result();
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e) { return (void)e, note("drop\n"), cudaSuccess; }

/* Kernel k is "function" k + 1. */
const void *const gpu_kernel_table[GPU_KERNEL_COUNT] = {(void *)1, (void *)2, (void *)3,
                                                        (void *)4, (void *)5, (void *)6,
                                                        (void *)7, (void *)8, (void *)9};

/* ---- cuDNN ------------------------------------------------------------------------------------
 */

static cudnnStatus_t status(void)
{
    return fails() ? CUDNN_STATUS_EXECUTION_FAILED : CUDNN_STATUS_SUCCESS;
}

#define OK return status()
cudnnStatus_t cudnnCreate(cudnnHandle_t *h)
{
    *h = (cudnnHandle_t)1;
    OK;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t h, cudaStream_t s)
{
    (void)h, (void)s;
    OK;
}
const char *cudnnGetErrorString(cudnnStatus_t s) { return (void)s, "not supported"; }
cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t *d)
{
    *d = malloc(1);
    OK;
}
cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t *d)
{
    *d = malloc(1);
    OK;
}
cudnnStatus_t cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t *d)
{
    *d = malloc(1);
    OK;
}
cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t d)
{
    free(d);
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t d)
{
    free(d);
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t d)
{
    free(d);
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetTensor4dDescriptor(cudnnTensorDescriptor_t d, cudnnTensorFormat_t f,
                                         cudnnDataType_t t, int n, int c, int h, int w)
{
    (void)d;
    note("tensor %s %s %d,%d,%d,%d\n", f == CUDNN_TENSOR_NHWC ? "nhwc" : "?",
         t == CUDNN_DATA_HALF ? "half" : "float", n, c, h, w);
    OK;
}
cudnnStatus_t cudnnSetFilter4dDescriptor(cudnnFilterDescriptor_t d, cudnnDataType_t t,
                                         cudnnTensorFormat_t f, int k, int c, int h, int w)
{
    (void)d, (void)t;
    note("filter %s %d,%d,%d,%d\n", f == CUDNN_TENSOR_NHWC ? "nhwc" : "?", k, c, h, w);
    OK;
}
cudnnStatus_t cudnnSetConvolution2dDescriptor(cudnnConvolutionDescriptor_t d, int ph, int pw,
                                              int sh, int sw, int dh, int dw,
                                              cudnnConvolutionMode_t mode, cudnnDataType_t compute)
{
    (void)d;
    note("convolution pad %d,%d stride %d,%d dilation %d,%d %s %s\n", ph, pw, sh, sw, dh, dw,
         mode == CUDNN_CROSS_CORRELATION ? "cross" : "flipped",
         compute == CUDNN_DATA_FLOAT ? "sums float" : "sums ?");
    OK;
}
cudnnStatus_t cudnnSetConvolutionGroupCount(cudnnConvolutionDescriptor_t d, int n)
{
    (void)d;
    note("groups %d\n", n);
    OK;
}
cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t d, cudnnMathType_t m)
{
    (void)d;
    note("math %s\n", m == CUDNN_FMA_MATH         ? "fma"
                      : m == CUDNN_TENSOR_OP_MATH ? "tensor"
                                                  : "default");
    OK;
}

/* A list of algorithms: fast but not deterministic; tensor math; plain. */
#define LIST(Perf, name)                                                                           \
    static void list_##name(Perf *p, int *n)                                                       \
    {                                                                                              \
        memset(p, 0, 3 * sizeof *p);                                                               \
        p[0].determinism = CUDNN_NON_DETERMINISTIC;                                                \
        for (int k = 1; k < 3; k++) {                                                              \
            p[k].determinism = CUDNN_DETERMINISTIC;                                                \
            p[k].memory = 1000 * (size_t)k;                                                        \
        }                                                                                          \
        p[1].algo = 1;                                                                             \
        p[1].mathType = CUDNN_TENSOR_OP_MATH;                                                      \
        p[2].algo = 3;                                                                             \
        p[2].mathType = CUDNN_DEFAULT_MATH;                                                        \
        *n = 3;                                                                                    \
    }
LIST(cudnnConvolutionFwdAlgoPerf_t, forward)
LIST(cudnnConvolutionBwdDataAlgoPerf_t, data)
LIST(cudnnConvolutionBwdFilterAlgoPerf_t, filter)

cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(
    cudnnHandle_t h, const cudnnTensorDescriptor_t x, const cudnnFilterDescriptor_t w,
    const cudnnConvolutionDescriptor_t c, const cudnnTensorDescriptor_t y, const int most, int *n,
    cudnnConvolutionFwdAlgoPerf_t *p)
{
    (void)h, (void)x, (void)w, (void)c, (void)y, (void)most;
    list_forward(p, n);
    note("heuristic\n");
    OK;
}
cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(
    cudnnHandle_t h, const cudnnFilterDescriptor_t w, const cudnnTensorDescriptor_t dy,
    const cudnnConvolutionDescriptor_t c, const cudnnTensorDescriptor_t dx, const int most, int *n,
    cudnnConvolutionBwdDataAlgoPerf_t *p)
{
    (void)h, (void)w, (void)dy, (void)c, (void)dx, (void)most;
    list_data(p, n);
    note("heuristic\n");
    OK;
}
cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithm_v7(
    cudnnHandle_t h, const cudnnTensorDescriptor_t x, const cudnnTensorDescriptor_t dy,
    const cudnnConvolutionDescriptor_t c, const cudnnFilterDescriptor_t dw, const int most, int *n,
    cudnnConvolutionBwdFilterAlgoPerf_t *p)
{
    (void)h, (void)x, (void)dy, (void)c, (void)dw, (void)most;
    list_filter(p, n);
    note("heuristic\n");
    OK;
}

/* The same list as if it were measured; without memory there is none. */
static bool no_memory;

static cudnnStatus_t measured(void)
{
    const cudnnStatus_t s = status();
    note("measured\n");
    return no_memory ? CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED : s;
}

cudnnStatus_t cudnnFindConvolutionForwardAlgorithm(cudnnHandle_t h, const cudnnTensorDescriptor_t x,
                                                   const cudnnFilterDescriptor_t w,
                                                   const cudnnConvolutionDescriptor_t c,
                                                   const cudnnTensorDescriptor_t y, const int most,
                                                   int *n, cudnnConvolutionFwdAlgoPerf_t *p)
{
    (void)h, (void)x, (void)w, (void)c, (void)y, (void)most;
    list_forward(p, n);
    return measured();
}
cudnnStatus_t cudnnFindConvolutionBackwardDataAlgorithm(
    cudnnHandle_t h, const cudnnFilterDescriptor_t w, const cudnnTensorDescriptor_t dy,
    const cudnnConvolutionDescriptor_t c, const cudnnTensorDescriptor_t dx, const int most, int *n,
    cudnnConvolutionBwdDataAlgoPerf_t *p)
{
    (void)h, (void)w, (void)dy, (void)c, (void)dx, (void)most;
    list_data(p, n);
    return measured();
}
cudnnStatus_t cudnnFindConvolutionBackwardFilterAlgorithm(
    cudnnHandle_t h, const cudnnTensorDescriptor_t x, const cudnnTensorDescriptor_t dy,
    const cudnnConvolutionDescriptor_t c, const cudnnFilterDescriptor_t dw, const int most, int *n,
    cudnnConvolutionBwdFilterAlgoPerf_t *p)
{
    (void)h, (void)x, (void)dy, (void)c, (void)dw, (void)most;
    list_filter(p, n);
    return measured();
}

static void note_run(const char *what, int algorithm, const void *first, const void *second,
                     const void *out, const void *beta, size_t workspace)
{
    note("%s algorithm %d operands %d,%d -> %d beta %g workspace %zu\n", what, algorithm,
         (int)(intptr_t)first, (int)(intptr_t)second, (int)(intptr_t)out,
         (double)*(const float *)beta, workspace);
}
cudnnStatus_t cudnnConvolutionForward(cudnnHandle_t h, const void *alpha,
                                      const cudnnTensorDescriptor_t xd, const void *x,
                                      const cudnnFilterDescriptor_t wd, const void *w,
                                      const cudnnConvolutionDescriptor_t c,
                                      cudnnConvolutionFwdAlgo_t algo, void *space, size_t n,
                                      const void *beta, const cudnnTensorDescriptor_t yd, void *y)
{
    (void)h, (void)alpha, (void)xd, (void)wd, (void)c, (void)space, (void)yd;
    note_run("forward", (int)algo, x, w, y, beta, n);
    OK;
}
cudnnStatus_t cudnnConvolutionBackwardData(cudnnHandle_t h, const void *alpha,
                                           const cudnnFilterDescriptor_t wd, const void *w,
                                           const cudnnTensorDescriptor_t dyd, const void *dy,
                                           const cudnnConvolutionDescriptor_t c,
                                           cudnnConvolutionBwdDataAlgo_t algo, void *space,
                                           size_t n, const void *beta,
                                           const cudnnTensorDescriptor_t dxd, void *dx)
{
    (void)h, (void)alpha, (void)wd, (void)dyd, (void)c, (void)space, (void)dxd;
    note_run("data", (int)algo, w, dy, dx, beta, n);
    OK;
}
cudnnStatus_t cudnnConvolutionBackwardFilter(cudnnHandle_t h, const void *alpha,
                                             const cudnnTensorDescriptor_t xd, const void *x,
                                             const cudnnTensorDescriptor_t dyd, const void *dy,
                                             const cudnnConvolutionDescriptor_t c,
                                             cudnnConvolutionBwdFilterAlgo_t algo, void *space,
                                             size_t n, const void *beta,
                                             const cudnnFilterDescriptor_t dwd, void *dw)
{
    (void)h, (void)alpha, (void)xd, (void)dyd, (void)c, (void)space, (void)dwd;
    note_run("filter", (int)algo, x, dy, dw, beta, n);
    OK;
}

/* ---- cuBLAS -----------------------------------------------------------------------------------
 */

static cublasStatus_t cublas_status(void)
{
    return fails() ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasCreate_v2(cublasHandle_t *h)
{
    *h = (cublasHandle_t)1;
    return cublas_status();
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t h, cudaStream_t s)
{
    return (void)h, (void)s, cublas_status();
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t h, void *p, size_t n)
{
    static void *volatile kept; /* cuBLAS would, too */
    (void)h;
    kept = p;
    return note("workspace %zu%s\n", n, kept ? "" : " nowhere"), cublas_status();
}
cublasStatus_t cublasSetMathMode(cublasHandle_t h, cublasMath_t m) { return (void)h, (void)m, 0; }
const char *cublasGetStatusString(cublasStatus_t s) { return (void)s, "bad"; }
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t h, cublasOperation_t ta,
                                          cublasOperation_t tb, int m, int n, int k,
                                          const void *alpha, const void *a, cudaDataType at,
                                          int lda, long long sa, const void *b, cudaDataType bt,
                                          int ldb, long long sb, const void *beta, void *c,
                                          cudaDataType ct, int ldc, long long sc, int batch,
                                          cublasComputeType_t compute, cublasGemmAlgo_t algo)
{
    (void)h, (void)alpha, (void)beta, (void)bt, (void)algo;
    note("gemm %d%d %d,%d,%d a %d ld %d/%lld b %d ld %d/%lld c %d ld %d/%lld batch %d %s in %s out "
         "%s\n",
         (int)ta, (int)tb, m, n, k, (int)(intptr_t)a, lda, sa, (int)(intptr_t)b, ldb, sb,
         (int)(intptr_t)c, ldc, sc, batch, compute == CUBLAS_COMPUTE_32F ? "float sums" : "tf32",
         at == CUDA_R_16F ? "half" : "float", ct == CUDA_R_16F ? "half" : "float");
    return cublas_status();
}

/* ---- tests ------------------------------------------------------------------------------------
 */

static void *address(int n) { return (void *)(intptr_t)n; }

static GpuConv problem(GpuConvKind kind, DType storage)
{
    GpuConv c;
    memset(&c, 0, sizeof c);
    c.kind = kind;
    c.storage = storage;
    c.n = 4, c.c = 8, c.h = c.w = 16, c.o = 24, c.p = c.q = 8, c.kh = c.kw = 3, c.group = 1;
    c.stride[0] = c.stride[1] = 2, c.dilation[0] = c.dilation[1] = 1, c.pad[0] = c.pad[1] = 1;
    return c;
}

static void test_open(void **state)
{
    (void)state;
    forget();
    setenv("OMPI_COMM_WORLD_LOCAL_RANK", "3", 1);
    assert_string_equal(gpu_open(), "");
    must_say("device 1\n"); /* the fourth process of two devices */
    must_say("stream 1\n"); /* does not wait for the default stream */
    must_say("workspace ");
}

static void test_half_descriptors(void **state)
{
    (void)state;
    forget();
    size_t scratch;
    GpuConv c = problem(GPU_FORWARD, DT_F16);
    c.deterministic = true;
    GpuConvPlan *p = gpu_conv_create(&c, &scratch);
    must_say("tensor nhwc half 4,8,16,16\n");
    must_say("tensor nhwc half 4,24,8,8\n");
    must_say("filter nhwc 24,8,3,3\n");
    must_say("convolution pad 1,1 stride 2,2 dilation 1,1 cross sums float\n");
    must_say("math tensor\n");
    assert_int_equal(scratch, 1000);
    gpu_conv_run(p, address(10), address(11), 1, address(12), NULL);
    must_say("forward algorithm 1 operands 10,11 -> 12 beta 1 workspace 1000\n");
    gpu_conv_destroy(p);
}

/* Without TF32 a float convolution must not use the offered tensor math. */
static void test_float_is_float(void **state)
{
    (void)state;
    static const char *const line[] = {
        "forward algorithm 3 operands 1,2 -> 3 beta 0 workspace 2000\n",
        "data algorithm 3 operands 1,2 -> 3 beta 0 workspace 2000\n",
        "filter algorithm 3 operands 1,2 -> 3 beta 0 workspace 2000\n"};
    for (int kind = 0; kind < 3; kind++) {
        forget();
        size_t scratch;
        GpuConv c = problem((GpuConvKind)kind, DT_F32);
        c.deterministic = true;
        GpuConvPlan *p = gpu_conv_create(&c, &scratch);
        must_say("math fma\n");
        assert_null(strstr(log_text, "math default"));
        gpu_conv_run(p, address(1), address(2), 0, address(3), NULL);
        must_say(line[kind]);
        gpu_conv_destroy(p);
    }
}

static void test_tf32_on_request(void **state)
{
    (void)state;
    forget();
    size_t scratch;
    GpuConv c = problem(GPU_FORWARD, DT_F32);
    c.tf32 = c.deterministic = true;
    GpuConvPlan *p = gpu_conv_create(&c, &scratch);
    gpu_conv_run(p, address(1), address(2), 0, address(3), NULL);
    must_say("forward algorithm 1");
    gpu_conv_destroy(p);
}

static void test_choices_are_kept(void **state)
{
    (void)state;
    size_t scratch;
    GpuConv c = problem(GPU_BY_DATA, DT_F16);
    gpu_conv_destroy(gpu_conv_create(&c, &scratch));
    forget();
    gpu_conv_destroy(gpu_conv_create(&c, &scratch));
    assert_null(strstr(log_text, "heuristic"));
    c.group = 2;
    gpu_conv_destroy(gpu_conv_create(&c, &scratch));
    must_say("measured\n");
    must_say("groups 2\n");
}

/* Measured, the first algorithm wins though it is not deterministic; else the heuristic's first
 * that is. What does not fit in a quarter of the memory is passed over. */
static void test_deterministic(void **state)
{
    (void)state;
    size_t scratch;
    GpuConv c = problem(GPU_BY_WEIGHTS, DT_F16);
    forget();
    c.dilation[0] = 3;
    gpu_conv_destroy(gpu_conv_create(&c, &scratch));
    assert_int_equal(scratch, 0);
    assert_null(strstr(log_text, "heuristic"));
    forget();
    c.deterministic = true;
    gpu_conv_destroy(gpu_conv_create(&c, &scratch));
    assert_int_equal(scratch, 1000);
    must_say("heuristic\n");
    assert_null(strstr(log_text, "measured"));
    left = 4 * 999;
    c.dilation[0] = 2;
    assert_null(gpu_conv_create(&c, &scratch));
    left = (size_t)1 << 30;
}

/* No memory to measure with: the heuristic. */
static void test_no_memory_to_measure(void **state)
{
    (void)state;
    size_t scratch;
    GpuConv c = problem(GPU_FORWARD, DT_F16);
    forget();
    c.dilation[0] = 4;
    no_memory = true;
    gpu_conv_destroy(gpu_conv_create(&c, &scratch));
    no_memory = false;
    must_say("measured\nheuristic\n");
}

/* Row-major [5,7] x [7,3] is column-major [3,7] x [7,5]. */
static void test_gemm(void **state)
{
    (void)state;
    forget();
    GpuGemm g = {.storage = DT_F16,
                 .result = DT_F32,
                 .m = 5,
                 .n = 3,
                 .k = 7,
                 .lda = 7,
                 .ldb = 3,
                 .ldy = 3,
                 .batch = 2,
                 .stride_a = 35,
                 .stride_b = 0,
                 .stride_y = 15,
                 .alpha = 1};
    gpu_gemm(&g, address(1), address(2), address(3));
    must_say(
        "gemm 00 3,5,7 a 2 ld 3/0 b 1 ld 7/35 c 3 ld 3/15 batch 2 float sums in half out float\n");
    forget();
    g.tb = true;
    g.ldb = 7;
    gpu_gemm(&g, address(1), address(2), address(3));
    must_say("gemm 10 3,5,7 a 2 ld 7/0");
}

static void test_recording(void **state)
{
    (void)state;
    forget();
    const CopyArgs a = {.threads = 1000};
    const SignArgs s = {.threads = 256};
    gpu_record();
    gpu_launch(GPU_copy, &a);
    gpu_zero(log_text + sizeof log_text - 8, 8);
    gpu_launch(GPU_sign, &s);
    void *r = gpu_recorded();
    gpu_replay(r);
    gpu_replay(r);
    assert_string_equal(log_text, "capture 1\nlaunch 1 grid 4 block 256\nset 8\n"
                                  "launch 5 grid 1 block 256\ncaptured\ninstantiate\n"
                                  "destroy graph\nreplay 8\nreplay 8\n");
    gpu_discard(r);
}

/* An upload returns with the caller's data copied, in parts of the ring's size. */
static void test_upload(void **state)
{
    (void)state;
    const size_t n = ((size_t)9 << 20) + 5;
    char *from = calloc(1, n), *to = gpu_alloc(n), *back = malloc(n);
    forget();
    from[n - 1] = 42;
    gpu_upload(to, from, n);
    /* Events 2k + 1 (there) and 2k + 2 (taken) belong to buffer k; kernels run on stream 1. */
    assert_string_equal(log_text,
                        "wait 2\ncopy 4194304 kind 1 on 2\nevent 1 on 2\nstream 1 waits for 1\n"
                        "copy 4194304 kind 3 on 1\nevent 2 on 1\n"
                        "wait 4\ncopy 4194304 kind 1 on 2\nevent 3 on 2\nstream 1 waits for 3\n"
                        "copy 4194304 kind 3 on 1\nevent 4 on 1\n"
                        "wait 6\ncopy 1048581 kind 1 on 2\nevent 5 on 2\nstream 1 waits for 5\n"
                        "copy 1048581 kind 3 on 1\nevent 6 on 1\n");
    gpu_download(back, to, n);
    must_say("kind 2 on 1\nsync\n");
    assert_int_equal(back[n - 1], 42);
    free(from);
    free(back);
    gpu_release(to);
}

static void test_errors(void **state)
{
    (void)state;
    Trap t;
    Node n = {.op = OP_Conv, .name = "conv7"};
    const CopyArgs a = {.threads = 1};
    next_status = cudaErrorMemoryAllocation;
    assert_null(gpu_alloc(100));
    gpu_begin(&n);
    next_status = (cudaError_t)700;
    if (trap_enter(&t) == 0) {
        gpu_launch(GPU_copy, &a);
        fail_msg("the launch should have failed");
    }
    assert_int_equal(t.kind, TRAP_DEVICE);
    assert_string_equal(t.message, "node 'conv7' (Conv): cudaLaunchKernel failed: illegal access");
}

/* ---- failures -------------------------------------------------------------------------------- */

static void a_convolution(void)
{
    static int dilation = 10; /* a problem that is not known yet */
    size_t scratch;
    GpuConv c = problem((GpuConvKind)(dilation % 3), DT_F16);
    c.dilation[0] = dilation++;
    GpuConvPlan *p = gpu_conv_create(&c, &scratch);
    gpu_conv_destroy(p);
}

static GpuConvPlan *a_plan;
static char device_bytes[64];
static void *a_recording;

static void running(void)
{
    const GpuGemm g = {.storage = DT_F16, .result = DT_F16, .m = 1, .n = 1, .k = 1, .batch = 1};
    gpu_conv_run(a_plan, address(1), address(2), 0, address(3), NULL);
    gpu_gemm(&g, address(1), address(2), address(3));
}

static void moving_data(void)
{
    char host[64] = {0};
    gpu_upload(device_bytes, host, sizeof host);
    gpu_zero(device_bytes, 8);
    gpu_download(host, device_bytes, sizeof host);
    (void)gpu_available();
}

static void recording(void)
{
    const CopyArgs a = {.threads = 1};
    gpu_record();
    gpu_launch(GPU_copy, &a);
    a_recording = gpu_recorded();
    gpu_replay(a_recording);
}

/* Runs f once for each call that it makes, with that call failing. Every time it must trap and name
 * the node. */
static void every_call_fails(void (*f)(void), int at_least)
{
    static const Node n = {.op = OP_Conv, .name = "conv7"};
    calls = failing = 0;
    gpu_begin(&n);
    f();
    const int all = calls;
    assert_true(all >= at_least);
    for (int k = 1; k <= all; k++) {
        Trap t;
        calls = 0;
        failing = k;
        if (trap_enter(&t) == 0) {
            f();
            if (calls >= k) fail_msg("nobody noticed that call %d of %d failed", k, all);
            trap_leave(&t);
        }
        failing = 0;
        assert_int_equal(t.kind, TRAP_DEVICE);
        if (!strstr(t.message, "node 'conv7' (Conv): cu")) fail_msg("%s", t.message);
    }
}

static void test_every_call_fails(void **state)
{
    (void)state;
    size_t scratch;
    const GpuConv c = problem(GPU_FORWARD, DT_F16);
    every_call_fails(a_convolution, 10);
    a_plan = gpu_conv_create(&c, &scratch);
    every_call_fails(running, 2);
    gpu_conv_destroy(a_plan);
    every_call_fails(moving_data, 9);
    every_call_fails(recording, 4);
}

/* In processes of their own, as a device is opened once. */
static void test_opening_fails(void **state)
{
    (void)state;
    int all = 0, status;
    for (int k = 1; !all; k++) {
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            failing = k;
            const bool opened = !*gpu_open();
            _exit(calls < k ? 2 : opened ? 1 : 0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 1);
        if (WEXITSTATUS(status) == 2) all = k - 1;
    }
    assert_true(all > 70); /* the ring alone makes 64 calls */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opening_fails),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_half_descriptors),
        cmocka_unit_test(test_float_is_float),
        cmocka_unit_test(test_tf32_on_request),
        cmocka_unit_test(test_choices_are_kept),
        cmocka_unit_test(test_deterministic),
        cmocka_unit_test(test_no_memory_to_measure),
        cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_recording),
        cmocka_unit_test(test_upload),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_every_call_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
