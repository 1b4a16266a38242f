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
    cudaStream_t stream; /* of the lane that calls go to, and its libraries' handles */
    cudnnHandle_t cudnn;
    cublasHandle_t cublas;
    cudaStream_t uploads;
    int capability; /* 90: 9.0 */
} Gpu;

extern Gpu gpu;

/* Opens lane k: a stream, the libraries' handles on it and a workspace. "" or what failed. */
const char *gpu_lane_open(int k);

/* The source of gpu_build compiled for a capability (90: 9.0): malloc'ed code of *n bytes. */
char *gpu_compile(const char *source, int capability, size_t *n);

/* Statuses: NULL, or what is wrong. */
static inline const char *cuda_text(cudaError_t s) { return s ? cudaGetErrorString(s) : NULL; }
static inline const char *cudnn_text(cudnnStatus_t s) { return s ? cudnnGetErrorString(s) : NULL; }
static inline const char *cublas_text(cublasStatus_t s)
{
    return s ? cublasGetStatusString(s) : NULL;
}
static inline const char *nvrtc_text(nvrtcResult s) { return s ? nvrtcGetErrorString(s) : NULL; }

/* … and whether that is a lack of memory, which smaller shards may avoid. */
static inline bool cuda_full(cudaError_t s) { return s == cudaErrorMemoryAllocation; }
static inline bool cudnn_full(cudnnStatus_t s)
{
    return s == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
}
static inline bool cublas_full(cublasStatus_t s) { return s == CUBLAS_STATUS_ALLOC_FAILED; }
static inline bool nvrtc_full(nvrtcResult s) { return (void)s, false; }

/* CHECK(cuda, cudaFree(p)): traps with the call as text unless the status is success. */
#define CHECK(library, call) CHECK_STATUS(library, call, #call)
#define CHECK_STATUS(library, status, call)                                                        \
    do {                                                                                           \
        const __typeof__(status) status_ = (status);                                               \
        if (status_) gpu_failed(call, library##_text(status_), library##_full(status_));           \
    } while (0)

/* OPEN(cuda, call): returns the library and its words unless the status is success. */
#define OPEN(library, call)                                                                        \
    do {                                                                                           \
        const char *status_ = library##_text(call);                                                \
        if (status_) return gpu_say(#library, status_);                                            \
    } while (0)
const char *gpu_say(const char *what, const char *status); /* "what: status"; static */

/* gpu_fail, or for a lack of memory TRAP_DEVICE_MEMORY. */
_Noreturn void gpu_failed(const char *call, const char *status, bool full);

#endif
