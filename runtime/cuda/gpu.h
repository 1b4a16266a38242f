/* What the host side asks of a GPU. driver.c, lanes.c, conv_cudnn.c, gemm_cublas.c and nvrtc.c do
 * it with CUDA; tests/cuda/emulated.c does it on the CPU, with the same kernel bodies.
 *
 * One process drives one device: calls are queued in order, but for lanes between fork and join.
 * What fails traps with the failing call and the node that gpu_begin() named last. Several devices
 * are several processes. */
#ifndef EHAP_RUNTIME_CUDA_GPU_H
#define EHAP_RUNTIME_CUDA_GPU_H

#include "runtime/cuda/kernels.h"
#include "runtime/kernel.h"

/* Opens the device and its libraries; "" on success, else what is missing. Repeatable. */
const char *gpu_open(void);

void *gpu_alloc(size_t n);
void gpu_release(void *p);
size_t gpu_available(void);
void gpu_upload(void *to, const void *from, size_t n);
void gpu_download(void *to, const void *from, size_t n);
void gpu_copy(void *to, const void *from, size_t n); /* both on the device */
void gpu_zero(void *p, size_t n);
void gpu_begin(const Node *n);
void gpu_record(void);
void *gpu_recorded(void);
void gpu_replay(void *recording);
void gpu_discard(void *recording);

/* As DeviceMemory has them (runtime/kernel.h). */
int gpu_lanes(int n);
void gpu_fork(int n);
void gpu_lane(int k);
void gpu_join(int n);

/* Traps: "node 'conv1' (Conv): cudnnConvolutionForward failed: …" */
_Noreturn void gpu_fail(const char *call, const char *status);

/* args: the kernel's argument struct; its first member says how many threads. */
void gpu_launch(enum GpuKernel kernel, const void *args);

/* Compiles generated code that defines kernel `generated` of one MapArgs; source is prelude.h, the
 * scalar functions and what follows. The handle stays valid; gpu_build keeps nothing of the same
 * source (codegen.c does). */
void *gpu_build(const char *source);
void gpu_launch_built(void *built, const MapArgs *args);

/* As DeviceMemory has it: by NCCL, or where that cannot be used by gpu_over_ranks_by_host, through
 * MPI. */
void gpu_over_ranks(void *x, DType t, int64_t n, RankOp op, bool in_order);
void gpu_over_ranks_by_host(void *x, DType t, int64_t n, RankOp op);
/* y = all[0] op all[1] op …, of ranks_count() parts of n elements one behind the other. */
void gpu_combine(void *y, const void *all, DType t, int64_t n, RankOp op);

/* Whether the libraries multiply numbers of this storage; bfloat16 takes capability 8.0. */
bool gpu_multiplies(DType storage);

/* ---- convolutions: five functions ------------------------------------------------------ */

typedef enum GpuConvKind { GPU_FORWARD, GPU_BY_DATA, GPU_BY_WEIGHTS } GpuConvKind;

/* The forward convolution of src [n,h,w,c] through weights [o,kh,kw,c/group] to dst [n,p,q,o], all
 * dense in that order and of one storage (F32, F16 or BF16; sums are F32). */
typedef struct GpuConv {
    GpuConvKind kind;
    DType storage;
    bool tf32, deterministic;
    int n, h, w, c, o, p, q, kh, kw, group;
    int stride[2], dilation[2], pad[2];
} GpuConv;

typedef struct GpuConvPlan GpuConvPlan;

/* NULL if the library has no algorithm for it (under `deterministic`: none that is).
 * *scratch: bytes wanted while running. */
GpuConvPlan *gpu_conv_create(const GpuConv *c, size_t *scratch);
/* result = convolution + beta result, where x is the operand of [src, weights, dst] that comes
 * first of those not computed. */
void gpu_conv_run(const GpuConvPlan *p, const void *x, const void *y, float beta, void *result,
                  void *scratch);
void gpu_conv_destroy(GpuConvPlan *p);

/* ---- products --------------------------------------------------------------------------- */

/* y = alpha a b + beta y, row-major with leading dimensions: a [m,k] (or [k,m] where ta), b [k,n]
 * (or [n,k]), y [m,n]; `batch` of them, stride elements apart. Sums are F32. */
typedef struct GpuGemm {
    DType storage, result;
    bool ta, tb, tf32;
    int m, n, k, lda, ldb, ldy, batch;
    int64_t stride_a, stride_b, stride_y;
    float alpha, beta;
} GpuGemm;

void gpu_gemm(const GpuGemm *g, const void *a, const void *b, void *y);

#endif
