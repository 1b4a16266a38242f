/* The kernels that are compiled ahead, from the bodies in *.cuh. */
#include "runtime/cuda/kernels.h"
#include "runtime/philox.h"
#include "runtime/scalar.h"

#include "runtime/cuda/copy.cuh"
#include "runtime/cuda/pool.cuh"
#include "runtime/cuda/random.cuh"
#include "runtime/cuda/reduce.cuh"

#define DEFINE(name, Args)                                                                         \
    extern "C" __global__ void __launch_bounds__(256) gpu_kernel_##name(                           \
        const __grid_constant__ Args a)                                                            \
    {                                                                                              \
        const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;                          \
        if (i < a.threads) name##_thread(&a, i);                                                   \
    }
GPU_KERNELS(DEFINE)

#define ENTRY(name, Args) (const void *)gpu_kernel_##name,
extern "C" const void *const gpu_kernel_table[GPU_KERNEL_COUNT] = {GPU_KERNELS(ENTRY)};
