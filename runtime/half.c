/* IEEE binary16 and bfloat16 in software, exact for every bit pattern. */
#include "runtime/runtime.h"

#include <string.h>

static float float_of_bits(uint32_t b)
{
    float f;
    memcpy(&f, &b, sizeof f);
    return f;
}

float f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = h & 0x7fff;
    if (magnitude >= 0x7c00) /* infinity, NaN */
        return float_of_bits(sign | 0x7f800000u | (magnitude & 0x3ff) << 13);
    /* Read with a float's bias, the exponent is 112 too small; the product also normalizes. */
    const float f = float_of_bits(magnitude << 13) * 0x1p112f;
    return sign ? -f : f;
}

uint16_t f32_to_f16(float f)
{
    uint32_t b;
    memcpy(&b, &f, sizeof b);
    const uint16_t sign = (uint16_t)(b >> 16 & 0x8000);
    b &= 0x7fffffff;
    if (b > 0x7f800000u) return (uint16_t)(sign | 0x7e00 | (b >> 13 & 0x3ff));
    if (b >= 0x477ff000u) return sign | 0x7c00; /* 65520 and above round to infinity */
    if (b < 0x38800000u) { /* subnormal: adding 0.5 leaves the rounded bits at the bottom */
        const float shifted = float_of_bits(b) + 0.5f;
        memcpy(&b, &shifted, sizeof b);
        return (uint16_t)(sign | (b - 0x3f000000u));
    }
    b += 0xfffu + (b >> 13 & 1); /* to nearest, ties to even */
    return (uint16_t)(sign | ((b - 0x38000000u) >> 13));
}

float bf16_to_f32(uint16_t h) { return float_of_bits((uint32_t)h << 16); }

uint16_t f32_to_bf16(float f)
{
    uint32_t b;
    memcpy(&b, &f, sizeof b);
    if ((b & 0x7fffffff) > 0x7f800000u) return (uint16_t)(b >> 16 | 0x40);
    return (uint16_t)((b + 0x7fff + (b >> 16 & 1)) >> 16);
}
