/* What kernels are written in: a subset of C that is CUDA C too. A kernel is a function of its
 * arguments and of a thread number; threads share nothing, so that a loop can stand for a launch
 * (tests/cuda/emulated.c). This text also opens all generated code. */
#ifndef EHAP_RUNTIME_CUDA_PRELUDE_H
#define EHAP_RUNTIME_CUDA_PRELUDE_H

#ifdef __CUDACC__
#define SCALAR_FN static __device__ __forceinline__
#else
#define SCALAR_FN static inline __attribute__((unused))
#endif

#define SCALAR_FLOAT_ONLY /* of runtime/scalar.h */

#include <math.h>
#include <stdint.h>
#include <string.h>

/* ONNX's numbers of the element types that kernels load and store (DT_F32 … in ir/ir.h). */
enum { GPU_F32 = 1, GPU_U8 = 2, GPU_I8 = 3, GPU_BOOL = 9, GPU_F16 = 10, GPU_BF16 = 16 };

#ifdef __CUDACC__
SCALAR_FN float half_load(uint16_t h)
{
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}
SCALAR_FN uint16_t half_store(float f)
{
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}
#else
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
#define half_load f16_to_f32
#define half_store f32_to_f16
#endif

/* bfloat16 is the upper half of a float; stores round to nearest even, and NaN stays NaN. */
SCALAR_FN float bf16_load(uint16_t h)
{
    const uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
SCALAR_FN uint16_t bf16_store(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (f != f) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

SCALAR_FN float gpu_load(const void *p, int dtype, int64_t at)
{
    if (dtype == GPU_F32) return ((const float *)p)[at];
    if (dtype == GPU_F16) return half_load(((const uint16_t *)p)[at]);
    if (dtype == GPU_BF16) return bf16_load(((const uint16_t *)p)[at]);
    if (dtype == GPU_I8) return (float)((const int8_t *)p)[at];
    return (float)((const uint8_t *)p)[at];
}

/* n = 2, 4, 8 or 16 bytes in one access; both lie at multiples of n. */
#ifdef __CUDACC__
#define GPU_ALIGNED __align__(16)
SCALAR_FN void gpu_move(void *to, const void *from, int n)
{
    if (n == 16)
        *(uint4 *)to = *(const uint4 *)from;
    else if (n == 8)
        *(uint2 *)to = *(const uint2 *)from;
    else if (n == 4)
        *(uint32_t *)to = *(const uint32_t *)from;
    else
        *(uint16_t *)to = *(const uint16_t *)from;
}
#else
#define GPU_ALIGNED _Alignas(16)
SCALAR_FN void gpu_move(void *to, const void *from, int n)
{
    if ((uintptr_t)to % (uintptr_t)n || (uintptr_t)from % (uintptr_t)n) __builtin_trap();
    memcpy(to, from, (size_t)n);
}
#endif

/* i / n for 0 <= i < most, in 32 bits where they do. */
SCALAR_FN int64_t gpu_divide(int64_t i, int64_t n, int64_t most)
{
    return most <= 0x7fffffff ? (int64_t)((uint32_t)i / (uint32_t)n) : i / n;
}

enum { GPU_WIDE = 8 }; /* elements that a thread moves at most */

SCALAR_FN int gpu_size(int dtype)
{
    return dtype == GPU_F32 ? 4 : dtype == GPU_F16 || dtype == GPU_BF16 ? 2 : 1;
}

/* x[0 … n) from element `at` on, of which n are aligned to their size together or to 16 bytes. n:
 * 2, 4 or 8. */
SCALAR_FN void gpu_load_wide(const void *p, int dtype, int64_t at, int n, float *x)
{
    GPU_ALIGNED uint32_t w[GPU_WIDE];
    const int size = gpu_size(dtype), bytes = n * size, part = bytes < 16 ? bytes : 16;
    for (int k = 0; k < bytes; k += part)
        gpu_move((char *)w + k, (const char *)p + at * size + k, part);
    for (int e = 0; e < n; e++) {
        const uint32_t narrow = w[e * size / 4] >> 8 * (e * size % 4);
        float f;
        memcpy(&f, &w[e], sizeof f);
        x[e] = dtype == GPU_F32    ? f
               : dtype == GPU_F16  ? half_load((uint16_t)narrow)
               : dtype == GPU_BF16 ? bf16_load((uint16_t)narrow)
               : dtype == GPU_I8   ? (float)(int8_t)narrow
                                   : (float)(uint8_t)narrow;
    }
}

/* Bytes round to nearest even and saturate; NaN becomes the least. */
SCALAR_FN void gpu_store(void *p, int dtype, int64_t at, float x)
{
    if (dtype == GPU_F32) {
        ((float *)p)[at] = x;
    } else if (dtype == GPU_F16) {
        ((uint16_t *)p)[at] = half_store(x);
    } else if (dtype == GPU_BF16) {
        ((uint16_t *)p)[at] = bf16_store(x);
    } else if (dtype == GPU_BOOL) {
        ((uint8_t *)p)[at] = (uint8_t)(x != 0.f);
    } else {
        const float lo = dtype == GPU_I8 ? -128.f : 0.f, hi = dtype == GPU_I8 ? 127.f : 255.f;
        const float r = rintf(x), up = r > lo ? r : lo;
        const int32_t byte = (int32_t)(up < hi ? up : hi);
        ((uint8_t *)p)[at] = (uint8_t)byte;
    }
}

/* The other way. */
SCALAR_FN void gpu_store_wide(void *p, int dtype, int64_t at, int n, const float *x)
{
    GPU_ALIGNED uint32_t w[GPU_WIDE];
    const int size = gpu_size(dtype), bytes = n * size, part = bytes < 16 ? bytes : 16;
    for (int e = 0; e < n; e++) gpu_store(w, dtype, e, x[e]);
    for (int k = 0; k < bytes; k += part)
        gpu_move((char *)p + at * size + k, (const char *)w + k, part);
}

/* *p = min(*p, x), whoever else does it. */
SCALAR_FN void gpu_lower(int64_t *p, int64_t x)
{
#ifdef __CUDACC__
    atomicMin((long long *)p, (long long)x);
#else
    if (x < *p) *p = x;
#endif
}

/* The grid [lo, hi] of a simulated integer, as runtime/cpu/quant.c has it. */
SCALAR_FN float gpu_fake_quant(float x, float scale, float zero, float lo, float hi)
{
    const float q = rintf(x / scale) + zero;
    return ((q < lo ? lo : q > hi ? hi : q) - zero) * scale;
}
SCALAR_FN int gpu_inside(float x, float scale, float zero, float lo, float hi)
{
    const float q = rintf(x / scale) + zero;
    return q >= lo && q <= hi;
}

enum { MAP_DIMS = 8, MAP_OPERANDS = 20, MAP_PARAMS = 24 };

/* Operand k of thread i lies at data[k] + the sum over loops of index * stride[k]; loop 0 is the
 * outermost; in a wide kernel a thread is as many elements of the innermost loop. Outputs come
 * first.
 */
typedef struct MapArgs {
    int64_t threads;
    int64_t dim[MAP_DIMS];
    int64_t stride[MAP_OPERANDS][MAP_DIMS];
    void *data[MAP_OPERANDS];
    float p[MAP_PARAMS]; /* numbers of the formulas */
} MapArgs;

#endif
