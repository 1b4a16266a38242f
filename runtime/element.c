/* Loads and stores of one element, by element type. */
#include "runtime/element.h"

#include <math.h>
#include <string.h>

/* Rounding a double to float and then to fewer bits may round twice; "to odd" in the first step
 * (keep a sticky last bit) makes the second one exact. */
static float to_odd(double x)
{
    float f = (float)x;
    if ((double)f == x || isnan(x) || isinf(f)) return f;
    uint32_t b;
    if (fabs((double)f) > fabs(x)) f = nextafterf(f, 0);
    memcpy(&b, &f, sizeof b);
    b |= 1;
    memcpy(&f, &b, sizeof f);
    return f;
}

/* The integer types: DTYPE, C type, least and largest as doubles that convert safely. */
#define INT_TYPES(X)                                                                               \
    X(DT_U8, uint8_t, 0, UINT8_MAX)                                                                \
    X(DT_I8, int8_t, INT8_MIN, INT8_MAX)                                                           \
    X(DT_U16, uint16_t, 0, UINT16_MAX)                                                             \
    X(DT_I16, int16_t, INT16_MIN, INT16_MAX)                                                       \
    X(DT_I32, int32_t, INT32_MIN, INT32_MAX)                                                       \
    X(DT_U32, uint32_t, 0, UINT32_MAX)                                                             \
    X(DT_I64, int64_t, INT64_MIN, INT64_MAX)                                                       \
    X(DT_U64, uint64_t, 0, UINT64_MAX)

double element_load(const Tensor *t, int64_t offset)
{
    switch ((int)t->dtype) {
    case DT_F32:
        return (double)((const float *)t->data)[offset];
    case DT_F64:
        return ((const double *)t->data)[offset];
    case DT_F16:
        return (double)f16_to_f32(((const uint16_t *)t->data)[offset]);
    case DT_BF16:
        return (double)bf16_to_f32(((const uint16_t *)t->data)[offset]);
    case DT_U64:
        return (double)((const uint64_t *)t->data)[offset];
    default:
        return (double)element_load_int(t, offset);
    }
}

int64_t element_load_int(const Tensor *t, int64_t offset)
{
#define LOAD(dt, type, lo, hi)                                                                     \
    case dt:                                                                                       \
        return (int64_t)((const type *)t->data)[offset];
    switch ((int)t->dtype) {
        INT_TYPES(LOAD)
    case DT_BOOL:
        return ((const uint8_t *)t->data)[offset] != 0;
    case DT_F32:
    case DT_F64:
    case DT_F16:
    case DT_BF16: {
        const double x = element_load(t, offset);
        return x >= 0x1p63 ? INT64_MAX : x >= -0x1p63 ? (int64_t)x : x < 0 ? INT64_MIN : 0;
    }
    default:
        trap(TRAP_INTERNAL, "a tensor of dtype %d has no elements", (int)t->dtype);
    }
#undef LOAD
}

void element_store(const Tensor *t, int64_t offset, double x)
{
#define STORE(dt, type, lo, hi)                                                                    \
    case dt:                                                                                       \
        ((type *)t->data)[offset] = x >= (double)(hi)  ? (type)(hi)                                \
                                    : x > (double)(lo) ? (type)x                                   \
                                    : x < 0            ? (type)(lo)                                \
                                                       : 0;                                                   \
        return;
    switch ((int)t->dtype) {
        INT_TYPES(STORE)
    case DT_F32:
        ((float *)t->data)[offset] = (float)x;
        return;
    case DT_F64:
        ((double *)t->data)[offset] = x;
        return;
    case DT_F16:
        ((uint16_t *)t->data)[offset] = f32_to_f16(to_odd(x));
        return;
    case DT_BF16:
        ((uint16_t *)t->data)[offset] = f32_to_bf16(to_odd(x));
        return;
    case DT_BOOL:
        ((uint8_t *)t->data)[offset] = x != 0;
        return;
    default:
        trap(TRAP_INTERNAL, "a tensor of dtype %d has no elements", (int)t->dtype);
    }
#undef STORE
}

void element_store_int(const Tensor *t, int64_t offset, int64_t x)
{
#define STORE(dt, type, lo, hi)                                                                    \
    case dt:                                                                                       \
        ((type *)t->data)[offset] = (type)x;                                                       \
        return;
    switch ((int)t->dtype) {
        INT_TYPES(STORE)
    case DT_BOOL:
        ((uint8_t *)t->data)[offset] = x != 0;
        return;
    default:
        element_store(t, offset, (double)x);
        return;
    }
#undef STORE
}
