/* Shared by the files that call CUDA: the device, its stream and libraries, and the one way in
 * which their statuses are checked. */
#ifndef EHAP_RUNTIME_CUDA_REAL_H
#define EHAP_RUNTIME_CUDA_REAL_H

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <nvrtc.h>

#include "runtime/cuda/gpu.h"

typedef struct Gpu {
    cudaStream_t stream, uploads;
    cudnnHandle_t cudnn;
    cublasHandle_t cublas;
    int capability; /* 90: 9.0 */
} Gpu;

extern Gpu gpu;

/* The source of gpu_build compiled for a capability (90: 9.0): malloc'ed code of *n bytes. */
char *gpu_compile(const char *source, int capability, size_t *n);

static inline const char *cuda_text(cudaError_t s) { return s ? cudaGetErrorString(s) : NULL; }
static inline const char *cudnn_text(cudnnStatus_t s) { return s ? cudnnGetErrorString(s) : NULL; }
static inline const char *cublas_text(cublasStatus_t s)
{
    return s ? cublasGetStatusString(s) : NULL;
}
static inline const char *nvrtc_text(nvrtcResult s) { return s ? nvrtcGetErrorString(s) : NULL; }

/* CHECK(cuda, cudaFree(p)): traps with the call as text unless the status is success. */
#define CHECK(library, call) gpu_check(library##_text(call), #call)

static inline void gpu_check(const char *status, const char *call)
{
    if (status) gpu_fail(call, status);
}

#endif
