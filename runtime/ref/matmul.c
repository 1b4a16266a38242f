/* Matrix products. */
#include "runtime/ref/ref.h"

/* sum over k of a[a0 + k a_step] b[b0 + k b_step] */
static double dot(const Tensor *a, int64_t a0, int64_t a_step, const Tensor *b, int64_t b0,
                  int64_t b_step, int64_t count)
{
    double sum = 0;
    for (int64_t k = 0; k < count; k++) sum += load(a, a0 + k * a_step) * load(b, b0 + k * b_step);
    return sum;
}

static int64_t dot_int(const Tensor *a, int64_t a0, int64_t a_step, const Tensor *b, int64_t b0,
                       int64_t b_step, int64_t count)
{
    uint64_t sum = 0;
    for (int64_t k = 0; k < count; k++)
        sum += (uint64_t)element_load_int(a, a0 + k * a_step) *
               (uint64_t)element_load_int(b, b0 + k * b_step);
    return (int64_t)sum;
}

/* Where one element of a product comes from: a row of a, a column of b. */
typedef struct Factors {
    int64_t a, a_step, b, b_step, count, row, column;
} Factors;

/* NumPy's matmul: a [batch…, m, k] b [batch…, k, n] -> [batch…, m, n]; vectors are rows or columns
 * whose axis the output lacks. Operands are given the axes they lack, with stride 0. */
static Factors factors(const Tensor *a, const Tensor *b, const Tensor *y, const Index *at)
{
    const int a_rows = a->rank > 1, b_columns = b->rank > 1;
    const int batch = y->rank - a_rows - b_columns;
    Factors f = {.a_step = a->stride[a->rank - 1],
                 .b_step = b->stride[b_columns ? b->rank - 2 : 0],
                 .count = a->dim[a->rank - 1]};
    for (int k = 0; k < batch; k++) {
        const int ka = k - batch + a->rank - 2, kb = k - batch + b->rank - 2;
        if (ka >= 0 && a->dim[ka] != 1) f.a += at->i[k] * a->stride[ka];
        if (kb >= 0 && b->dim[kb] != 1) f.b += at->i[k] * b->stride[kb];
    }
    if (a_rows) f.row = at->i[batch];
    if (b_columns) f.column = at->i[batch + a_rows];
    if (a_rows) f.a += f.row * a->stride[a->rank - 2];
    if (b_columns) f.b += f.column * b->stride[b->rank - 1];
    return f;
}

REF_KERNEL(matmul)
{
    UNUSED_STATE;
    const Tensor *a = &in[0], *b = &in[1], *y = out;
    FOR_EACH(at, y)
    {
        const Factors f = factors(a, b, y, &at);
        const int64_t to = ref_index(y, &at);
        if (is_exact_int(y))
            element_store_int(y, to, dot_int(a, f.a, f.a_step, b, f.b, f.b_step, f.count));
        else
            element_store(y, to, dot(a, f.a, f.a_step, b, f.b, f.b_step, f.count));
    }
}

/* An element of 8 bits. */
static inline double byte_at(const Tensor *t, int64_t offset)
{
    return t->dtype == DT_U8 ? ((const uint8_t *)t->data)[offset]
                             : ((const int8_t *)t->data)[offset];
}

/* sum over k of (a - a0) (b - b0), exact, of 8-bit operands. */
static double shifted_dot(const Tensor *a, double a0, const Tensor *b, double b0, const Factors *f)
{
    double sum = 0;
    for (int64_t k = 0; k < f->count; k++)
        sum += (byte_at(a, f->a + k * f->a_step) - a0) * (byte_at(b, f->b + k * f->b_step) - b0);
    return sum;
}

REF_KERNEL(matmul_integer)
{
    UNUSED_STATE;
    const Tensor *a = &in[0], *b = &in[1];
    FOR_EACH(at, out)
    {
        const Factors f = factors(a, b, out, &at);
        const double a0 = node_in(n, 2) ? ref_number(&in[2], f.row) : 0;
        const double b0 = node_in(n, 3) ? ref_number(&in[3], f.column) : 0;
        element_store(out, ref_index(out, &at), shifted_dot(a, a0, b, b0, &f));
    }
}

REF_KERNEL(qlinear_matmul)
{
    UNUSED_STATE;
    const Tensor *a = &in[0], *b = &in[3];
    FOR_EACH(at, out)
    {
        const Factors f = factors(a, b, out, &at);
        const double sum =
            shifted_dot(a, ref_number(&in[2], f.row), b, ref_number(&in[5], f.column), &f);
        ref_requantize(out, ref_index(out, &at), sum, ref_number(&in[1], f.row),
                       ref_number(&in[4], f.column), &in[6]);
    }
}

/* y = alpha A' B' + beta C: A' [m, k] (transA: stored [k, m]), B' [k, n], C broadcast to [m, n]. */
REF_KERNEL(gemm)
{
    UNUSED_STATE;
    const bool ta = node_int(n, "transA", 0), tb = node_int(n, "transB", 0);
    const double alpha = (double)node_float(n, "alpha", 1), beta = (double)node_float(n, "beta", 1);
    const Tensor *a = &in[0], *b = &in[1];
    const bool has_c = node_in(n, 2) != NULL;
    const Tensor c = has_c ? ref_broadcast(&in[2], out) : *out;
    FOR_EACH(at, out)
    {
        const double sum = dot(a, at.i[0] * a->stride[ta], a->stride[!ta], b,
                               at.i[1] * b->stride[!tb], b->stride[tb], a->dim[!ta]);
        const double add = has_c ? beta * load(&c, ref_index(&c, &at)) : 0;
        element_store(out, ref_index(out, &at), alpha * sum + add);
    }
}
