/* Element-wise functions of two and more operands, comparisons, truth values and bits: floats in
 * double by the formulas of scalar.h, integers exactly. */
#include <math.h>

#include "runtime/ref/ref.h"
#include "runtime/scalar.h"

/* Of floats: the sign of x (as in C) if `as_c`, else that of y. */
static double remainder_float(double x, double y, bool as_c)
{
    const double r = fmod(x, y);
    return !as_c && r != 0 && (r < 0) != (y < 0) ? r + y : r;
}

static double binary(const Node *n, double x, double y)
{
#define CASE(name, T, ...)                                                                         \
    case OP_##name:                                                                                \
        return scalar_##name##_double(x, y);
    switch ((int)n->op) {
        SCALAR_BINARY_LIST(CASE, double, SCALAR_MATH_double)
    case OP_Sum:
    case OP_Mean:
        return x + y;
    case OP_Greater:
        return x > y;
    case OP_Less:
        return x < y;
    case OP_GreaterOrEqual:
        return x >= y;
    case OP_LessOrEqual:
        return x <= y;
    case OP_Equal:
        return x == y;
    case OP_Mod:
        return remainder_float(x, y, node_int(n, "fmod", 0) != 0);
    default:
        trap(TRAP_INTERNAL, "ref: %s is no binary op", node_op_name(n));
    }
#undef CASE
}

/* By squaring, wrapping around; below 0 the exponent leaves the fraction's integer part. */
static uint64_t power(uint64_t x, int64_t e)
{
    uint64_t y = 1;
    if (e < 0) return x == 1 ? 1 : x != UINT64_MAX ? 0 : e % 2 ? x : 1;
    for (; e > 0; e >>= 1, x *= x)
        if (e & 1) y *= x;
    return y;
}

/* The remainder has the sign of x (as in C) if `fmod`, else that of y. */
static int64_t remainder_int(int64_t x, int64_t y, bool fmod)
{
    if (y == 0 || y == -1) return 0;
    const int64_t r = x % y;
    return !fmod && r != 0 && (r < 0) != (y < 0) ? r + y : r;
}

/* To the right a sign goes on. */
static int64_t shift(int64_t x, uint64_t by, const char *direction)
{
    if (*direction == 'L') return by < 64 ? (int64_t)((uint64_t)x << by) : 0;
    return x >> (by < 63 ? by : 63);
}

/* Maxima, minima and comparisons, by the order that x and y have in their type. */
static int64_t ordered(const Node *n, int64_t x, int64_t y, bool less)
{
    if (n->op == OP_Max) return less ? y : x;
    if (n->op == OP_Min) return less ? x : y;
    return (int64_t)binary(n, x == y ? 0 : less ? -1 : 1, 0);
}

/* Wraps around like machine arithmetic; division truncates, and by zero gives 0. */
static int64_t binary_int(const Node *n, int64_t x, int64_t y)
{
    const uint64_t a = (uint64_t)x, b = (uint64_t)y;
    switch ((int)n->op) {
    case OP_Add:
    case OP_Sum:
        return (int64_t)(a + b);
    case OP_Sub:
        return (int64_t)(a - b);
    case OP_Mul:
        return (int64_t)(a * b);
    case OP_Div:
        return y == 0 ? 0 : y == -1 ? (int64_t)(0 - a) : x / y;
    case OP_Pow:
        return (int64_t)power(a, y);
    case OP_Mod:
        return remainder_int(x, y, node_int(n, "fmod", 0));
    case OP_PRelu:
        return x < 0 ? (int64_t)(a * b) : x;
    case OP_And:
    case OP_BitwiseAnd:
        return (int64_t)(a & b);
    case OP_Or:
    case OP_BitwiseOr:
        return (int64_t)(a | b);
    case OP_Xor:
    case OP_BitwiseXor:
        return (int64_t)(a ^ b);
    case OP_BitShift:
        return shift(x, b, node_str(n, "direction", "LEFT"));
    default:
        return ordered(n, x, y, x < y);
    }
}

/* Where the sign bit is a number like others. */
static int64_t binary_u64(const Node *n, uint64_t x, uint64_t y)
{
    switch ((int)n->op) {
    case OP_Div:
        return y == 0 ? 0 : (int64_t)(x / y);
    case OP_Mod:
        return y == 0 ? 0 : (int64_t)(x % y);
    case OP_PRelu:
        return (int64_t)x;
    case OP_Add:
    case OP_Sum:
    case OP_Sub:
    case OP_Mul:
    case OP_Pow:
    case OP_BitwiseAnd:
    case OP_BitwiseOr:
    case OP_BitwiseXor:
        return binary_int(n, (int64_t)x, (int64_t)y);
    case OP_BitShift:
        if (*node_str(n, "direction", "LEFT") == 'L') return binary_int(n, (int64_t)x, (int64_t)y);
        return y < 64 ? (int64_t)(x >> y) : 0;
    default:
        return ordered(n, (int64_t)x, (int64_t)y, x < y);
    }
}

static int64_t element_int(const Node *n, const Tensor *in, const Tensor *out, const Index *at)
{
    int64_t x = 0;
    for (int i = 0; i < n->nin; i++) {
        const Tensor t = ref_broadcast(&in[i], out);
        const int64_t y = element_load_int(&t, ref_index(&t, at));
        x = i == 0                  ? y
            : in[0].dtype == DT_U64 ? binary_u64(n, (uint64_t)x, (uint64_t)y)
                                    : binary_int(n, x, y);
    }
    return x;
}

static double element(const Node *n, const Tensor *in, const Tensor *out, const Index *at)
{
    double x = 0;
    for (int i = 0; i < n->nin; i++) {
        const Tensor t = ref_broadcast(&in[i], out);
        const double y = load(&t, ref_index(&t, at));
        x = i ? binary(n, x, y) : y;
    }
    return n->op == OP_Mean ? x / n->nin : x;
}

/* Any number of operands, folded from the left. */
REF_KERNEL(binary)
{
    UNUSED_STATE;
    bool exact = true;
    for (int i = 0; i < n->nin; i++) exact = exact && is_exact_int(&in[i]);
    FOR_EACH(at, out)
    {
        if (exact)
            element_store_int(out, ref_index(out, &at), element_int(n, in, out, &at));
        else
            element_store(out, ref_index(out, &at), element(n, in, out, &at));
    }
}

/* Not, BitwiseNot */
REF_KERNEL(bits)
{
    UNUSED_STATE;
    FOR_EACH(at, out)
    {
        const int64_t x = element_load_int(in, ref_index(in, &at));
        element_store_int(out, ref_index(out, &at), n->op == OP_Not ? !x : ~x);
    }
}

/* IsNaN, IsInf */
REF_KERNEL(float_test)
{
    UNUSED_STATE;
    const bool plus = node_int(n, "detect_positive", 1), minus = node_int(n, "detect_negative", 1);
    FOR_EACH(at, out)
    {
        const double x = load(in, ref_index(in, &at));
        const bool is = n->op == OP_IsNaN ? isnan(x) : isinf(x) && (x > 0 ? plus : minus);
        element_store_int(out, ref_index(out, &at), is);
    }
}
