/* Scalar functions and their first two derivatives, written once for every device.
 *
 * SCALAR_UNARY_LIST(X, T, M, F) has one line X(name, T, f, f', f'') per function: expressions
 * in T x (the operand) and T a, b (the attributes that ir/unary.h names; min and max of Clip).
 * M(exp) is the math function for T, F(name, k) is the k-th derivative of another line (or an
 * earlier column of the same). Names are ONNX's; GeluTanh is Gelu with approximate="tanh".
 *
 * Functions scalar_<name><k>_<T>(x, a, b) are made from it for float and double, k = 0, 1, 2:
 *     #define CASE(name, T, ...) case UNARY_##name: for (...) y[i] = scalar_##name##0_##T(x[i], a,
 * b); and UNARY_<name> numbers the lines. SCALAR_BINARY_LIST likewise: scalar_<name>_<T>(x, y).
 *
 * At a kink the derivative is the one from the flat side (Relu'(0) = 0, as in Clip at both
 * ends), so that a removed channel, which is exactly zero, gets no gradient. NaN passes through.
 * Included by C and by CUDA: nothing here may need C11. */
#ifndef EHAP_RUNTIME_SCALAR_H
#define EHAP_RUNTIME_SCALAR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifndef SCALAR_FN
#define SCALAR_FN static inline __attribute__((unused))
#endif

/* exp in float without a call, so that loops vectorize: x = n ln 2 + r, |r| <= ln 2 / 2, and a
 * polynomial (the coefficients of Cephes). 2 ulp; below e^-86.6, near the end of the normal range,
 * it is 0. */
SCALAR_FN float scalar_expf(float x)
{
    const float magic = 12582912.f; /* 1.5 * 2^23: adding it rounds to an integer */
    float c = x < -86.6f ? -86.6f : x > 89.f ? 89.f : x;
    float shifted = c * 1.44269504088896341f + magic;
    float n = shifted - magic;
    float r = c - n * 0.693359375f - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    uint32_t bits;
    float scale;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.f;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4b400000u + 126u) << 23; /* 2^(n-1): 2^128 is not a float */
    memcpy(&scale, &bits, sizeof scale);
    return x < -86.6f ? 0.f : p * scale * 2.f;
}

/* tanh in float: an odd polynomial near zero, exp elsewhere. */
SCALAR_FN float scalar_tanhf(float x)
{
    float z = x * x, m = x < 0.f ? -x : x;
    float p = -5.70498872745e-3f;
    float far = 1.f - 2.f / (scalar_expf(2.f * m) + 1.f);
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    return m < 0.625f ? p * z * x + x : x < 0.f ? -far : far;
}

/* erf in float, within 2 ulp: x times a polynomial in x^2 below 1, and from there on
 * 1 - exp(-q(|x|)), q a polynomial for -log erfc. Both fitted at Chebyshev points. */
SCALAR_FN float scalar_erff(float x)
{
    float z = x * x, m = x < 0.f ? -x : x;
    float c = m > 4.f ? 4.f : m; /* NaN stays NaN */
    float p = 7.882497106e-5f, q = 1.330939041e-5f, far;
    p = p * z - 8.018854991e-4f;
    p = p * z + 5.189311943e-3f;
    p = p * z - 2.685432880e-2f;
    p = p * z + 1.128359746e-1f;
    p = p * z - 3.761262690e-1f;
    p = p * z + 1.128379166f;
    q = q * c - 3.175720350e-4f;
    q = q * c + 3.436867601e-3f;
    q = q * c - 2.262198594e-2f;
    q = q * c + 1.033189801e-1f;
    q = q * c + 6.390933195e-1f;
    q = q * c + 1.125925949f;
    q = q * c + 7.569686154e-4f;
    far = 1.f - scalar_expf(-q);
    return m < 1.f ? p * x : x < 0.f ? -far : far;
}

#define SCALAR_MATH_double(fn) fn
#define SCALAR_MATH_float(fn) scalar_##fn##f
#define scalar_logf logf
#define scalar_sqrtf sqrtf
#define scalar_floorf floorf
#define scalar_ceilf ceilf
#define scalar_rintf rintf
#define scalar_fabsf fabsf
#define scalar_powf powf
#define scalar_fmodf fmodf
#define scalar_log1pf log1pf
#define scalar_sinf sinf
#define scalar_cosf cosf
#define scalar_tanf tanf
#define scalar_asinf asinf
#define scalar_acosf acosf
#define scalar_atanf atanf
#define scalar_sinhf sinhf
#define scalar_coshf coshf
#define scalar_asinhf asinhf
#define scalar_acoshf acoshf
#define scalar_atanhf atanhf

#define SCALAR_F_double(name, k) scalar_##name##k##_double(x, a, b)
#define SCALAR_F_float(name, k) scalar_##name##k##_float(x, a, b)

/* The argument of tanh in GeluTanh, and its first two derivatives. */
#define GELU_U(T) ((T)0.7978845608028654 * (x + (T)0.044715 * x * x * x))
#define GELU_U1(T) ((T)0.7978845608028654 * (1 + (T)0.134145 * x * x))
#define GELU_U2(T) ((T)0.7978845608028654 * (T)0.26829 * x)
/* The standard normal density. */
#define NORMAL_PDF(T, M) ((T)0.3989422804014327 * M(exp)(-x * x / 2))

/* log(1 + exp(x)) and its derivative; what the derivatives of Mish and Swish are made of. */
#define SOFTPLUS(M) ((x > 0 ? x : 0) + M(log1p)(M(exp)(-M(fabs)(x))))
#define SLOPE_OF_SOFTPLUS(M) (1 / (1 + M(exp)(-x)))
#define MISH_T(M) M(tanh)(SOFTPLUS(M))
#define MISH_T1(M) ((1 - MISH_T(M) * MISH_T(M)) * SLOPE_OF_SOFTPLUS(M))
#define SWISH_S(M) (1 / (1 + M(exp)(-a * x)))
#define SWISH_S1(M) (SWISH_S(M) * (1 - SWISH_S(M)))

/* clang-format off */
#define SCALAR_UNARY_LIST(X, T, M, F) \
    X(Identity, T, x, 1, 0) \
    X(Neg, T, -x, -1, 0) \
    X(Relu, T, x < 0 ? 0 : x, x > 0 ? 1 : 0, 0) \
    X(LeakyRelu, T, x < 0 ? a * x : x, x > 0 ? 1 : a, 0) \
    X(Clip, T, (x < a ? a : x) > b ? b : x < a ? a : x, x > a && x < b ? 1 : 0, 0) \
    X(Sigmoid, T, 1 / (1 + M(exp)(-x)), F(Sigmoid, 0) * (1 - F(Sigmoid, 0)), \
      F(Sigmoid, 1) * (1 - 2 * F(Sigmoid, 0))) \
    X(HardSigmoid, T, a * x + b < 0 ? 0 : a * x + b > 1 ? 1 : a * x + b, \
      a * x + b > 0 && a * x + b < 1 ? a : 0, 0) \
    X(HardSwish, T, x < -3 ? 0 : x > 3 ? x : x * (x + 3) / 6, \
      x < -3 ? 0 : x > 3 ? 1 : x / 3 + (T)0.5, x > -3 && x < 3 ? (T)(1.0 / 3) : 0) \
    X(Tanh, T, M(tanh)(x), 1 - F(Tanh, 0) * F(Tanh, 0), -2 * F(Tanh, 0) * F(Tanh, 1)) \
    X(Gelu, T, x * (T)0.5 * (1 + M(erf)(x * (T)0.7071067811865476)), \
      (T)0.5 * (1 + M(erf)(x * (T)0.7071067811865476)) + x * NORMAL_PDF(T, M), \
      NORMAL_PDF(T, M) * (2 - x * x)) \
    X(GeluTanh, T, (T)0.5 * x * (1 + M(tanh)(GELU_U(T))), \
      (T)0.5 * (1 + M(tanh)(GELU_U(T))) + \
          (T)0.5 * x * (1 - M(tanh)(GELU_U(T)) * M(tanh)(GELU_U(T))) * GELU_U1(T), \
      (1 - M(tanh)(GELU_U(T)) * M(tanh)(GELU_U(T))) * \
          (GELU_U1(T) + (T)0.5 * x * (GELU_U2(T) - 2 * M(tanh)(GELU_U(T)) * GELU_U1(T) * GELU_U1(T)))) \
    X(Erf, T, M(erf)(x), (T)1.1283791670955126 * M(exp)(-x * x), -2 * x * F(Erf, 1)) \
    X(Sqrt, T, M(sqrt)(x), (T)0.5 / M(sqrt)(x), (T)-0.25 / (x * M(sqrt)(x))) \
    X(Exp, T, M(exp)(x), M(exp)(x), M(exp)(x)) \
    X(Log, T, M(log)(x), 1 / x, -1 / (x * x)) \
    X(Abs, T, M(fabs)(x), x > 0 ? 1 : x < 0 ? -1 : 0, 0) \
    X(Reciprocal, T, 1 / x, -1 / (x * x), 2 / (x * x * x)) \
    X(Floor, T, M(floor)(x), 0, 0) \
    X(Ceil, T, M(ceil)(x), 0, 0) \
    X(Round, T, M(rint)(x), 0, 0) \
    X(Sign, T, x > 0 ? 1 : x < 0 ? -1 : x, 0, 0) \
    X(Sin, T, M(sin)(x), M(cos)(x), -M(sin)(x)) \
    X(Cos, T, M(cos)(x), -M(sin)(x), -M(cos)(x)) \
    X(Tan, T, M(tan)(x), 1 + F(Tan, 0) * F(Tan, 0), 2 * F(Tan, 0) * F(Tan, 1)) \
    X(Asin, T, M(asin)(x), 1 / M(sqrt)(1 - x * x), x / ((1 - x * x) * M(sqrt)(1 - x * x))) \
    X(Acos, T, M(acos)(x), -1 / M(sqrt)(1 - x * x), -x / ((1 - x * x) * M(sqrt)(1 - x * x))) \
    X(Atan, T, M(atan)(x), 1 / (1 + x * x), -2 * x / ((1 + x * x) * (1 + x * x))) \
    X(Sinh, T, M(sinh)(x), M(cosh)(x), M(sinh)(x)) \
    X(Cosh, T, M(cosh)(x), M(sinh)(x), M(cosh)(x)) \
    X(Asinh, T, M(asinh)(x), 1 / M(sqrt)(x * x + 1), -x / ((x * x + 1) * M(sqrt)(x * x + 1))) \
    X(Acosh, T, M(acosh)(x), 1 / M(sqrt)(x * x - 1), -x / ((x * x - 1) * M(sqrt)(x * x - 1))) \
    X(Atanh, T, M(atanh)(x), 1 / (1 - x * x), 2 * x / ((1 - x * x) * (1 - x * x))) \
    X(Elu, T, x < 0 ? a * (M(exp)(x) - 1) : x, x > 0 ? 1 : a * M(exp)(x), \
      x > 0 ? 0 : a * M(exp)(x)) \
    X(Selu, T, x < 0 ? b * a * (M(exp)(x) - 1) : b * x, x > 0 ? b : b * a * M(exp)(x), \
      x > 0 ? 0 : b * a * M(exp)(x)) \
    X(Celu, T, x < 0 ? a * (M(exp)(x / a) - 1) : x, x > 0 ? 1 : M(exp)(x / a), \
      x > 0 ? 0 : M(exp)(x / a) / a) \
    X(ThresholdedRelu, T, x > a ? x : 0, x > a ? 1 : 0, 0) \
    X(Shrink, T, x < -a ? x + b : x > a ? x - b : 0, x < -a || x > a ? 1 : 0, 0) \
    X(Softplus, T, SOFTPLUS(M), F(Sigmoid, 0), F(Sigmoid, 1)) \
    X(Softsign, T, x / (1 + M(fabs)(x)), 1 / ((1 + M(fabs)(x)) * (1 + M(fabs)(x))), \
      -2 * F(Sign, 0) * F(Softsign, 1) / (1 + M(fabs)(x))) \
    X(Mish, T, x * MISH_T(M), MISH_T(M) + x * MISH_T1(M), \
      MISH_T1(M) * (2 + x * (1 - SLOPE_OF_SOFTPLUS(M) - 2 * MISH_T(M) * SLOPE_OF_SOFTPLUS(M)))) \
    X(Swish, T, x * SWISH_S(M), SWISH_S(M) + a * x * SWISH_S1(M), \
      a * SWISH_S1(M) * (2 + a * x * (1 - 2 * SWISH_S(M))))

#define SCALAR_BINARY_LIST(X, T, M) \
    X(Add, T, x + y) \
    X(Sub, T, x - y) \
    X(Mul, T, x * y) \
    X(Div, T, x / y) \
    X(Pow, T, M(pow)(x, y)) \
    X(Max, T, x != x || x > y ? x : y) \
    X(Min, T, x != x || x < y ? x : y) \
    X(PRelu, T, x < 0 ? x * y : x)
/* clang-format on */

#define SCALAR_NAME(name, ...) UNARY_##name,
enum Unary { SCALAR_UNARY_LIST(SCALAR_NAME, , SCALAR_MATH_double, SCALAR_F_double) UNARY_COUNT };
#undef SCALAR_NAME

#define SCALAR_DEFINE_UNARY(name, T, f, f1, f2)                                                    \
    SCALAR_FN T scalar_##name##0_##T(T x, T a, T b) { return (void)a, (void)b, (void)x, f; }       \
    SCALAR_FN T scalar_##name##1_##T(T x, T a, T b) { return (void)a, (void)b, (void)x, f1; }      \
    SCALAR_FN T scalar_##name##2_##T(T x, T a, T b) { return (void)a, (void)b, (void)x, f2; }
#ifndef SCALAR_FLOAT_ONLY /* compiled often: runtime/cuda/prelude.h */
SCALAR_UNARY_LIST(SCALAR_DEFINE_UNARY, double, SCALAR_MATH_double, SCALAR_F_double)
#endif
SCALAR_UNARY_LIST(SCALAR_DEFINE_UNARY, float, SCALAR_MATH_float, SCALAR_F_float)

#define SCALAR_DEFINE_BINARY(name, T, f)                                                           \
    SCALAR_FN T scalar_##name##_##T(T x, T y) { return f; }
#ifndef SCALAR_FLOAT_ONLY
SCALAR_BINARY_LIST(SCALAR_DEFINE_BINARY, double, SCALAR_MATH_double)
#endif
SCALAR_BINARY_LIST(SCALAR_DEFINE_BINARY, float, SCALAR_MATH_float)

#endif
