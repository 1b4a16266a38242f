/* MeanVarianceNormalization and LpNormalization: sums over axes, in double, then one map; and LRN,
 * whose sums of squares over neighbouring channels are as many shifted additions as the window is
 * wide. Any layout. */
#include <math.h>

#include "ir/simd.h"
#include "runtime/cpu/cpu.h"

/* ---- over axes ----------------------------------------------------------------------- */

/* x with what is summed over reduced to 1. */
static Tensor kept_of(const Node *n, const Tensor *x)
{
    static const int64_t usual[] = {0, 2, 3};
    size_t count = 3;
    const int64_t *axes = node_ints(n, "axes", &count), last[] = {node_int(n, "axis", -1)};
    Tensor kept = *x;
    if (n->op == OP_LpNormalization) axes = last, count = 1;
    for (size_t k = 0; k < count; k++) kept.dim[axis_index((axes ? axes : usual)[k], x->rank)] = 1;
    return kept;
}

/* Two numbers in double and in float for each of them. */
CPU_PREPARE(over_axes)
{
    const Tensor kept = kept_of(p->node, p->in);
    p->scratch = (size_t)tensor_count(&kept) * 2 * (sizeof(double) + sizeof(float));
    return 0;
}

CLONES static void centre(const void *ctx, int n, float *y, const float *const *v)
{
    const float *x = v[0], *mean = v[1], *k = v[2];
    (void)ctx;
    INDEPENDENT
    for (int i = 0; i < n; i++) y[i] = (x[i] - mean[i]) * k[i];
}

/* y = (x - mean) / (sqrt(variance) + 1e-9) */
CPU_RUN(mvn)
{
    const Tensor kept = kept_of(n, in), *x[] = {in, in};
    const int64_t count = tensor_count(&kept);
    double *sum = scratch, *square = sum + count;
    float *mean = (float *)(void *)(square + count), *k = mean + count;
    const Tensor m = dense_like(&kept, DT_F32, mean), s = dense_like(&kept, DT_F32, k);
    const Tensor *t[] = {out, in, &m, &s};
    (void)state;
    if (tensor_count(in) == 0) return;
    const double each = (double)(tensor_count(in) / count);
    cpu_accumulate(REDUCE_DOT, NULL, NULL, 2, x, &kept, sum);
    for (int64_t e = 0; e < count; e++) {
        const double mu = sum[e] / each, variance = square[e] / each - mu * mu;
        mean[e] = (float)mu;
        k[e] = (float)(1 / (sqrt(variance > 0 ? variance : 0) + 1e-9));
    }
    block_map(4, t, centre, NULL);
}

CLONES static void magnitudes(const void *ctx, int n, float *y, const float *const *x)
{
    (void)ctx;
    for (int i = 0; i < n; i++) y[i] = fabsf(x[0][i]);
}

CLONES static void squares(const void *ctx, int n, float *y, const float *const *x)
{
    (void)ctx;
    for (int i = 0; i < n; i++) y[i] = x[0][i] * x[0][i];
}

CLONES static void divide(const void *ctx, int n, float *y, const float *const *v)
{
    const float *x = v[0], *norm = v[1];
    (void)ctx;
    INDEPENDENT
    for (int i = 0; i < n; i++) y[i] = x[i] / norm[i];
}

/* Zeros stay zeros. */
CPU_RUN(lpnorm)
{
    const Tensor kept = kept_of(n, in);
    const int64_t count = tensor_count(&kept);
    const bool one = node_int(n, "p", 2) == 1;
    double *sum = scratch;
    float *norm = (float *)(void *)(sum + 2 * count);
    const Tensor by = dense_like(&kept, DT_F32, norm), *t[] = {out, in, &by};
    (void)state;
    if (tensor_count(in) == 0) return;
    cpu_accumulate(REDUCE_SUM, one ? magnitudes : squares, NULL, 1, &in, &kept, sum);
    for (int64_t e = 0; e < count; e++) {
        norm[e] = (float)(one ? sum[e] : sqrt(sum[e]));
        if (norm[e] == 0.f) norm[e] = 1;
    }
    block_map(3, t, divide, NULL);
}

/* ---- over neighbouring channels ------------------------------------------------------ */

typedef struct Lrn {
    float alpha, beta, bias;
} Lrn;

CPU_PREPARE(lrn)
{
    p->scratch = (size_t)tensor_count(p->in) * sizeof(float);
    return 0;
}

CLONES static void add_square(const void *ctx, int n, float *y, const float *const *v)
{
    const float *sum = v[0], *x = v[1];
    (void)ctx;
    INDEPENDENT
    for (int i = 0; i < n; i++) y[i] = sum[i] + x[i] * x[i];
}

/* x / (bias + alpha sum)^beta */
CLONES static void respond(const void *ctx, int n, float *y, const float *const *v)
{
    const Lrn r = *(const Lrn *)ctx;
    const float *x = v[0], *sum = v[1];
    if (r.beta == 0.75f) { /* what networks have */
        INDEPENDENT
        for (int i = 0; i < n; i++) {
            const float root = sqrtf(r.bias + r.alpha * sum[i]);
            y[i] = x[i] / (root * sqrtf(root));
        }
    } else {
        for (int i = 0; i < n; i++) y[i] = x[i] / powf(r.bias + r.alpha * sum[i], r.beta);
    }
}

CPU_RUN(lrn)
{
    const int64_t size = node_int(n, "size", 1), channels = in->dim[1];
    const Lrn r = {node_float(n, "alpha", 1e-4f) / (float)size, node_float(n, "beta", 0.75f),
                   node_float(n, "bias", 1)};
    Tensor sum = *in;
    const Tensor *t[] = {out, in, &sum};
    (void)state;
    sum.data = scratch;
    if (tensor_count(in) == 0) return;
    cpu_fill_zero(&sum);
    for (int64_t k = -((size - 1) / 2); k <= size / 2; k++) {
        const int64_t first = k < 0 ? -k : 0, left = channels - (k < 0 ? -k : k);
        if (left <= 0) continue;
        const Tensor to = tensor_section(&sum, 1, first, left),
                     from = tensor_section(in, 1, first + k, left), *v[] = {&to, &to, &from};
        block_map(3, v, add_square, NULL);
    }
    block_map(3, t, respond, &r);
}
