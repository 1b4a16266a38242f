/* Rows of any element type to floats and back. Half precision uses F16C where the CPU has it;
 * the software path gives the same bits. Integers round to nearest even and saturate, the
 * rule of QuantizeLinear. */
#include "ir/simd.h"
#include "runtime/cpu/nest.h"
#include "runtime/element.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx,f16c"))) static void load_half_f16c(float *dst, const uint16_t *src,
                                                               int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(src + i))));
    for (; i < n; i++) dst[i] = _cvtsh_ss(src[i]);
}

__attribute__((target("avx,f16c"))) static void store_half_f16c(uint16_t *dst, const float *src,
                                                                int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(dst + i), _mm256_cvtps_ph(_mm256_loadu_ps(src + i), 0));
    for (; i < n; i++) dst[i] = _cvtss_sh(src[i], 0);
}

__attribute__((target("avx512f"))) static void load_half_avx512(float *dst, const uint16_t *src,
                                                                int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(dst + i, _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(src + i))));
    load_half_f16c(dst + i, src + i, n - i);
}

__attribute__((target("avx512f"))) static void store_half_avx512(uint16_t *dst, const float *src,
                                                                 int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((void *)(dst + i), _mm512_cvtps_ph(_mm512_loadu_ps(src + i), 0));
    store_half_f16c(dst + i, src + i, n - i);
}

/* Every CPU with AVX2 has F16C; clang knows only the former by name. */
static void load_half(float *dst, const uint16_t *src, int64_t n)
{
    if (__builtin_cpu_supports("avx512f"))
        load_half_avx512(dst, src, n);
    else if (__builtin_cpu_supports("avx2"))
        load_half_f16c(dst, src, n);
    else
        for (int64_t i = 0; i < n; i++) dst[i] = f16_to_f32(src[i]);
}

static void store_half(uint16_t *dst, const float *src, int64_t n)
{
    if (__builtin_cpu_supports("avx512f"))
        store_half_avx512(dst, src, n);
    else if (__builtin_cpu_supports("avx2"))
        store_half_f16c(dst, src, n);
    else
        for (int64_t i = 0; i < n; i++) dst[i] = f32_to_f16(src[i]);
}

#else

static void load_half(float *dst, const uint16_t *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++) dst[i] = f16_to_f32(src[i]);
}

static void store_half(uint16_t *dst, const float *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++) dst[i] = f32_to_f16(src[i]);
}

#endif

CLONES static void load_bfloat(float *restrict dst, const uint16_t *restrict src, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t b = (uint32_t)src[i] << 16;
        memcpy(dst + i, &b, sizeof b);
    }
}

/* f32_to_bf16, without branches. */
CLONES static void store_bfloat(uint16_t *restrict dst, const float *restrict src, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t b;
        memcpy(&b, src + i, sizeof b);
        uint32_t rounded = (b + 0x7fff + (b >> 16 & 1)) >> 16, nan = b >> 16 | 0x40;
        dst[i] = (uint16_t)((b & 0x7fffffff) > 0x7f800000u ? nan : rounded);
    }
}

#define LOAD(T)                                                                                    \
    CLONES static void load_##T(float *restrict dst, const T *restrict src, int64_t n)             \
    {                                                                                              \
        for (int64_t i = 0; i < n; i++) dst[i] = (float)src[i];                                    \
    }
LOAD(uint8_t)
LOAD(int8_t)

/* NaN becomes lo. */
#define STORE(T, lo, hi)                                                                           \
    CLONES static void store_##T(T *restrict dst, const float *restrict src, int64_t n)            \
    {                                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                          \
            float x = rintf(src[i]);                                                               \
            x = x > (lo) ? x : (lo);                                                               \
            dst[i] = (T)(int32_t)(x < (hi) ? x : (hi));                                            \
        }                                                                                          \
    }
STORE(uint8_t, 0.f, 255.f)
STORE(int8_t, -128.f, 127.f)

CLONES static void store_bool(uint8_t *restrict dst, const float *restrict src, int64_t n)
{
    for (int64_t i = 0; i < n; i++) dst[i] = src[i] != 0.f;
}

/* The types that no hot loop meets. */
static void load_any(float *dst, const void *src, DType d, int64_t n)
{
    Tensor t = {.dtype = d, .data = (void *)(uintptr_t)src}; /* only read */
    for (int64_t i = 0; i < n; i++) dst[i] = (float)element_load(&t, i);
}

static void store_any(void *dst, const float *src, DType d, int64_t n)
{
    Tensor t = {.dtype = d, .data = dst};
    for (int64_t i = 0; i < n; i++) element_store(&t, i, (double)src[i]);
}

bool block_float(DType d) { return d == DT_F32 || d == DT_F16 || d == DT_BF16; }

bool block_dtype(DType d) { return block_float(d) || d == DT_U8 || d == DT_I8 || d == DT_BOOL; }

void load_floats(float *dst, const void *src, DType d, int64_t n)
{
    switch (d) {
    case DT_F32:
        memcpy(dst, src, (size_t)n * sizeof(float));
        break;
    case DT_F16:
        load_half(dst, src, n);
        break;
    case DT_BF16:
        load_bfloat(dst, src, n);
        break;
    case DT_I8:
        load_int8_t(dst, src, n);
        break;
    case DT_U8:
    case DT_BOOL:
        load_uint8_t(dst, src, n);
        break;
    default:
        load_any(dst, src, d, n);
    }
}

void store_floats(void *dst, const float *src, DType d, int64_t n)
{
    switch (d) {
    case DT_F32:
        memcpy(dst, src, (size_t)n * sizeof(float));
        break;
    case DT_F16:
        store_half(dst, src, n);
        break;
    case DT_BF16:
        store_bfloat(dst, src, n);
        break;
    case DT_I8:
        store_int8_t(dst, src, n);
        break;
    case DT_BOOL:
        store_bool(dst, src, n);
        break;
    case DT_U8:
        store_uint8_t(dst, src, n);
        break;
    default:
        store_any(dst, src, d, n);
    }
}

void load_line(float *dst, const Tensor *t, int64_t at, int64_t stride, int64_t n)
{
    int64_t size = (int64_t)dtype_size(t->dtype);
    const char *p = (const char *)t->data + at * size;
    if (stride == 1) {
        load_floats(dst, p, t->dtype, n);
    } else if (stride == 0) {
        load_floats(dst, p, t->dtype, 1);
        for (int64_t i = 1; i < n; i++) dst[i] = dst[0];
    } else if (t->dtype == DT_F32) {
        const float *x = (const float *)(const void *)p;
        for (int64_t i = 0; i < n; i++) dst[i] = x[i * stride];
    } else {
        for (int64_t i = 0; i < n; i++) load_floats(dst + i, p + i * stride * size, t->dtype, 1);
    }
}

void store_line(const Tensor *t, int64_t at, int64_t stride, const float *src, int64_t n)
{
    int64_t size = (int64_t)dtype_size(t->dtype);
    char *p = (char *)t->data + at * size;
    if (stride == 1) {
        store_floats(p, src, t->dtype, n);
        return;
    }
    for (int64_t i = 0; i < n; i++) store_floats(p + i * stride * size, src + i, t->dtype, 1);
}
