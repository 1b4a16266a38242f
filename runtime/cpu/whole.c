/* Whole numbers element by element: sums, products, comparisons and bits of 32 and 64-bit integers,
 * which loops over floats (chain.c) would round. What is rarer goes to the reference kernels. */
#include "ir/simd.h"
#include "runtime/cpu/cpu.h"

/* n elements of a row, strides in elements. */
typedef void RowFn(void *y, int64_t sy, const void *a, int64_t sa, const void *b, int64_t sb,
                   int64_t n);

/* In place where y may be a or b. */
#define ROW(name, T, R, expression)                                                                \
    CLONES static void row_##name(void *y, int64_t sy, const void *a, int64_t sa, const void *b,   \
                                  int64_t sb, int64_t n)                                           \
    {                                                                                              \
        R *to = y;                                                                                 \
        const T *p = a, *q = b;                                                                    \
        if (sy == 1 && sa == 1 && sb == 1)                                                         \
            INDEPENDENT for (int64_t i = 0, j = 0, k = 0; k < n; i++, j++, k++) to[k] =            \
                (R)(expression);                                                                   \
        else                                                                                       \
            for (int64_t i = 0, j = 0, k = 0; k < n * sy; i += sa, j += sb, k += sy)               \
                to[k] = (R)(expression);                                                           \
    }

#define ROWS_OF(S, U, bits)                                                                        \
    ROW(Add##bits, U, U, p[i] + q[j])                                                              \
    ROW(Sub##bits, U, U, p[i] - q[j])                                                              \
    ROW(Mul##bits, U, U, p[i] * q[j])                                                              \
    ROW(BitwiseAnd##bits, U, U, p[i] & q[j])                                                       \
    ROW(BitwiseOr##bits, U, U, p[i] | q[j])                                                        \
    ROW(BitwiseXor##bits, U, U, p[i] ^ q[j])                                                       \
    ROW(Equal##bits, S, uint8_t, p[i] == q[j])                                                     \
    ROW(Less##bits, S, uint8_t, p[i] < q[j])                                                       \
    ROW(Greater##bits, S, uint8_t, p[i] > q[j])                                                    \
    ROW(LessOrEqual##bits, S, uint8_t, p[i] <= q[j])                                               \
    ROW(GreaterOrEqual##bits, S, uint8_t, p[i] >= q[j])
ROWS_OF(int64_t, uint64_t, 64)
ROWS_OF(int32_t, uint32_t, 32)

#define BOTH(name) [OP_##name] = {row_##name##32, row_##name##64}
static RowFn *const rows[OP_COUNT][2] = {
    BOTH(Add),
    BOTH(Sub),
    BOTH(Mul),
    BOTH(BitwiseAnd),
    BOTH(BitwiseOr),
    BOTH(BitwiseXor),
    BOTH(Equal),
    BOTH(Less),
    BOTH(Greater),
    BOTH(LessOrEqual),
    BOTH(GreaterOrEqual),
};

static RowFn *row_of(const Node *n, const Tensor *in)
{
    if (n->nin != 2 || in[0].dtype != in[1].dtype) return NULL;
    return in->dtype == DT_I64 ? rows[n->op][1] : in->dtype == DT_I32 ? rows[n->op][0] : NULL;
}

static char *element(const Tensor *t, int64_t at)
{
    return (char *)t->data + at * (int64_t)dtype_size(t->dtype);
}

CPU_RUN(whole)
{
    RowFn *f = row_of(n, in);
    const Tensor *t[] = {out, &in[0], &in[1]};
    NestPos pos = {0};
    Nest nest;
    if (!f) {
        cpu_naive_run(n, state, in, out, scratch);
        return;
    }
    if (tensor_count(out) == 0) return;
    nest_make(&nest, 3, t);
    const int last = nest.loops - 1;
    do
        f(element(t[0], pos.offset[0]), nest.stride[0][last], element(t[1], pos.offset[1]),
          nest.stride[1][last], element(t[2], pos.offset[2]), nest.stride[2][last], nest.dim[last]);
    while (nest_next(&nest, last, &pos));
}
