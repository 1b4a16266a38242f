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

/* NumPy's matmul: a [batch…, m, k] b [batch…, k, n] -> [batch…, m, n]; vectors are rows or columns
 * whose axis the output lacks. Operands are given the axes they lack, with stride 0. */
REF_KERNEL(matmul)
{
    UNUSED_STATE;
    const Tensor *a = &in[0], *b = &in[1], *y = out;
    const int a_rows = a->rank > 1, b_columns = b->rank > 1;
    const int batch = y->rank - a_rows - b_columns;
    const int64_t count = a->dim[a->rank - 1];
    const int64_t b_step = b->stride[b_columns ? b->rank - 2 : 0];
    FOR_EACH(at, y)
    {
        int64_t ao = 0, bo = 0;
        for (int k = 0; k < batch; k++) {
            const int ka = k - batch + a->rank - 2, kb = k - batch + b->rank - 2;
            if (ka >= 0 && a->dim[ka] != 1) ao += at.i[k] * a->stride[ka];
            if (kb >= 0 && b->dim[kb] != 1) bo += at.i[k] * b->stride[kb];
        }
        if (a_rows) ao += at.i[batch] * a->stride[a->rank - 2];
        if (b_columns) bo += at.i[batch + a_rows] * b->stride[b->rank - 1];
        const int64_t to = ref_index(y, &at), a_step = a->stride[a->rank - 1];
        if (is_exact_int(y))
            element_store_int(y, to, dot_int(a, ao, a_step, b, bo, b_step, count));
        else
            element_store(y, to, dot(a, ao, a_step, b, bo, b_step, count));
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
