/* cuDNN, cuBLAS and NVRTC: see stubs.h. */
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/stubs.h"

/* ---- cuDNN ------------------------------------------------------------------------------------
 */

static cudnnStatus_t status(void)
{
    return fails() ? CUDNN_STATUS_EXECUTION_FAILED : CUDNN_STATUS_SUCCESS;
}

#define OK return status()
cudnnStatus_t cudnnCreate(cudnnHandle_t *h)
{
    static intptr_t count;
    *h = (cudnnHandle_t)++count;
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
        for (int k = 1; k < 3; k++) p[k].determinism = CUDNN_DETERMINISTIC;                        \
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

/* What each algorithm wants, whatever the list said of it. */
int refused = -1;
static cudnnStatus_t workspace(int algorithm, size_t *n)
{
    *n = algorithm == 0 ? 0 : algorithm == 1 ? 1000 : 2000;
    if (algorithm == refused) return CUDNN_STATUS_NOT_SUPPORTED;
    OK;
}
cudnnStatus_t cudnnGetConvolutionForwardWorkspaceSize(cudnnHandle_t h,
                                                      const cudnnTensorDescriptor_t x,
                                                      const cudnnFilterDescriptor_t w,
                                                      const cudnnConvolutionDescriptor_t c,
                                                      const cudnnTensorDescriptor_t y,
                                                      cudnnConvolutionFwdAlgo_t a, size_t *n)
{
    return (void)h, (void)x, (void)w, (void)c, (void)y, workspace((int)a, n);
}
cudnnStatus_t cudnnGetConvolutionBackwardDataWorkspaceSize(
    cudnnHandle_t h, const cudnnFilterDescriptor_t w, const cudnnTensorDescriptor_t dy,
    const cudnnConvolutionDescriptor_t c, const cudnnTensorDescriptor_t dx,
    cudnnConvolutionBwdDataAlgo_t a, size_t *n)
{
    return (void)h, (void)w, (void)dy, (void)c, (void)dx, workspace((int)a, n);
}
cudnnStatus_t cudnnGetConvolutionBackwardFilterWorkspaceSize(
    cudnnHandle_t h, const cudnnTensorDescriptor_t x, const cudnnTensorDescriptor_t dy,
    const cudnnConvolutionDescriptor_t c, const cudnnFilterDescriptor_t dw,
    cudnnConvolutionBwdFilterAlgo_t a, size_t *n)
{
    return (void)h, (void)x, (void)dy, (void)c, (void)dw, workspace((int)a, n);
}

/* The same list as if it were measured; without memory there is none. */
bool no_memory;

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
    static intptr_t count;
    *h = (cublasHandle_t)++count;
    return cublas_status();
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t h, cudaStream_t s)
{
    return (void)h, (void)s, cublas_status();
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t h, void *p, size_t n)
{
    static void *volatile kept[256]; /* cuBLAS would, too */
    static unsigned count;
    (void)h;
    kept[count++ % 256] = p;
    return note("workspace %zu%s\n", n, kept[0] ? "" : " nowhere"), cublas_status();
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

/* ---- NVRTC ------------------------------------------------------------------------------------
 */

static nvrtcResult nvrtc_status(void)
{
    return fails() ? NVRTC_ERROR_INTERNAL_ERROR : NVRTC_SUCCESS;
}

int known_archs[3] = {75, 80, 90};

const char *nvrtcGetErrorString(nvrtcResult s) { return (void)s, "internal"; }
nvrtcResult nvrtcVersion(int *major, int *minor) { return *major = 13, *minor = 0, nvrtc_status(); }
nvrtcResult nvrtcGetNumSupportedArchs(int *n) { return *n = 3, nvrtc_status(); }
nvrtcResult nvrtcGetSupportedArchs(int *all)
{
    memcpy(all, known_archs, sizeof known_archs);
    return nvrtc_status();
}
nvrtcResult nvrtcCreateProgram(nvrtcProgram *p, const char *text, const char *name, int n,
                               const char *const *headers, const char *const *names)
{
    (void)text, (void)name, (void)n, (void)headers, (void)names;
    *p = (nvrtcProgram)malloc(1);
    const nvrtcResult s = nvrtc_status();
    if (s) free(*p);
    return s;
}
nvrtcResult nvrtcDestroyProgram(nvrtcProgram *p) { return free(*p), NVRTC_SUCCESS; }
nvrtcResult nvrtcCompileProgram(nvrtcProgram p, int n, const char *const *options)
{
    (void)p, (void)n;
    return note("compile %s\n", options[0]), nvrtc_status();
}
nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram p, size_t *n) { return (void)p, *n = 6, 0; }
nvrtcResult nvrtcGetProgramLog(nvrtcProgram p, char *text)
{
    return (void)p, strcpy(text, "line 3"), NVRTC_SUCCESS;
}
nvrtcResult nvrtcGetCUBINSize(nvrtcProgram p, size_t *n) { return (void)p, *n = 5, nvrtc_status(); }
nvrtcResult nvrtcGetCUBIN(nvrtcProgram p, char *code)
{
    return (void)p, memcpy(code, "cubin", 5), nvrtc_status();
}
nvrtcResult nvrtcGetPTXSize(nvrtcProgram p, size_t *n) { return (void)p, *n = 4, nvrtc_status(); }
nvrtcResult nvrtcGetPTX(nvrtcProgram p, char *code)
{
    return (void)p, memcpy(code, "ptx", 4), nvrtc_status();
}
