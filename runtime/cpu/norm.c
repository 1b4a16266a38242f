/* Batch normalization (inference, training, its gradient), group and layer normalization, softmax.
 *
 * Batch normalization is one walk that accumulates per channel in double and one element-wise
 * map with per-channel operands; both are at memory speed in any layout. Layer normalization
 * and softmax work line by line in a dense float copy of the line. */
#include "ir/simd.h"
#include "runtime/cpu/cpu.h"
#include "runtime/scalar.h"

#include <math.h>

/* ---- per channel --------------------------------------------------------------------- */

static double at(const Tensor *v, int64_t c) { return element_load(v, c * v->stride[0]); }

static int64_t channels_of(const Tensor *x) { return x->rank > 1 ? x->dim[1] : 1; }

/* Dense [C] floats that broadcast along axis 1 of x. */
static Tensor channel_vector(const Tensor *x, float *data)
{
    Tensor v = {.dtype = DT_F32, .rank = 1, .data = data};
    v.dim[0] = channels_of(x);
    v.stride[0] = 1;
    return along_axis(&v, 1, x->rank);
}

/* x with all axes but the channels' reduced. */
static Tensor per_channel(const Tensor *x)
{
    Tensor kept = *x;
    for (int i = 0; i < x->rank; i++)
        if (i != 1) kept.dim[i] = 1;
    return kept;
}

/* y = (x - mean) k + bias */
CLONES static void affine(const void *ctx, int n, float *y, const float *const *v)
{
    const float *x = v[0], *mean = v[1], *k = v[2], *bias = v[3];
    (void)ctx;
    INDEPENDENT
    for (int i = 0; i < n; i++) y[i] = (x[i] - mean[i]) * k[i] + bias[i];
}

static void map_affine(const Tensor *y, const Tensor *x, float *mean, float *k, float *bias)
{
    Tensor m = channel_vector(x, mean), s = channel_vector(x, k), b = channel_vector(x, bias);
    const Tensor *t[] = {y, x, &m, &s, &b};
    block_map(5, t, affine, NULL);
}

int cpu_batchnorm_prepare(Prepare *p)
{
    p->scratch = (size_t)channels_of(&p->in[0]) * 3 * sizeof(float);
    return 0;
}

void cpu_batchnorm_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                       void *scratch)
{
    double eps = (double)node_float(n, "epsilon", 1e-5f);
    int64_t count = channels_of(&in[0]);
    float *mean = scratch, *k = mean + count, *bias = k + count;
    (void)state;
    for (int64_t c = 0; c < count; c++) {
        mean[c] = (float)at(&in[3], c);
        k[c] = (float)(at(&in[1], c) / sqrt(at(&in[4], c) + eps));
        bias[c] = (float)at(&in[2], c);
    }
    map_affine(&out[0], &in[0], mean, k, bias);
}

int cpu_batchnorm_train_prepare(Prepare *p)
{
    p->scratch = (size_t)channels_of(&p->in[0]) * (2 * sizeof(double) + 3 * sizeof(float));
    return 0;
}

/* (x, scale, bias) -> y, mean, variance: sums of x and x^2 in double give both. */
void cpu_batchnorm_train_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                             void *scratch)
{
    double eps = (double)node_float(n, "epsilon", 1e-5f), *sum = scratch;
    int64_t count = channels_of(&in[0]);
    double *square = sum + count, m = (double)tensor_count(&in[0]) / (double)count;
    float *mean = (float *)(void *)(square + count), *k = mean + count, *bias = k + count;
    const Tensor *x[] = {&in[0], &in[0]};
    Tensor kept = per_channel(&in[0]);
    (void)state;
    cpu_accumulate(REDUCE_DOT, NULL, NULL, 2, x, &kept, sum);
    for (int64_t c = 0; c < count; c++) {
        double mu = sum[c] / m, variance = square[c] / m - mu * mu;
        variance = variance > 0 ? variance : 0;
        mean[c] = (float)mu;
        k[c] = (float)(at(&in[1], c) / sqrt(variance + eps));
        bias[c] = (float)at(&in[2], c);
        if (out[1].data) element_store(&out[1], c * out[1].stride[0], mu);
        if (out[2].data) element_store(&out[2], c * out[2].stride[0], variance);
    }
    map_affine(&out[0], &in[0], mean, k, bias);
}

/* [N, C] floats that broadcast to x. */
static Tensor sample_channels(const Tensor *x, float *data)
{
    Tensor v = {.dtype = DT_F32, .rank = x->rank, .data = data};
    for (int i = 0; i < x->rank; i++) v.dim[i] = i < 2 ? x->dim[i] : 1;
    v.stride[0] = x->dim[1];
    v.stride[1] = 1;
    return v;
}

int cpu_groupnorm_prepare(Prepare *p)
{
    const Tensor *x = &p->in[0];
    p->scratch = (size_t)(x->dim[0] * x->dim[1]) * (2 * sizeof(double) + 3 * sizeof(float));
    return 0;
}

/* Instance and group normalization: sums of x and x^2 per sample and channel, in double, joined
 * over the channels of a group; then one map. */
void cpu_groupnorm_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                       void *scratch)
{
    double eps = (double)node_float(n, "epsilon", 1e-5f), *sum = scratch;
    bool instance = n->op == OP_InstanceNormalization;
    int64_t channels = in[0].dim[1], rows = in[0].dim[0] * channels;
    int64_t groups = instance ? channels : node_int(n, "num_groups", 1);
    int64_t size = groups ? channels / groups : 1;
    bool by_group = in[1].dim[0] == groups;
    double *square = sum + rows;
    float *mean = (float *)(void *)(square + rows), *k = mean + rows, *bias = k + rows;
    const Tensor *x[] = {&in[0], &in[0]};
    Tensor kept = sample_channels(&in[0], mean), m = kept, s = kept, b = kept;
    (void)state;
    if (tensor_count(&in[0]) == 0) return;
    double count = (double)(tensor_count(&in[0]) / rows * size);
    cpu_accumulate(REDUCE_DOT, NULL, NULL, 2, x, &kept, sum);
    for (int64_t first = 0; first < rows; first += size) {
        double mu = 0, variance = 0;
        for (int64_t c = first; c < first + size; c++) {
            mu += sum[c] / count;
            variance += square[c] / count;
        }
        variance = variance - mu * mu > 0 ? variance - mu * mu : 0;
        for (int64_t c = first; c < first + size; c++) {
            int64_t at_c = by_group ? c % channels / size : c % channels;
            mean[c] = (float)mu;
            k[c] = (float)(at(&in[1], at_c) / sqrt(variance + eps));
            bias[c] = (float)at(&in[2], at_c);
        }
    }
    s.data = k;
    b.data = bias;
    const Tensor *t[] = {&out[0], &in[0], &m, &s, &b};
    block_map(5, t, affine, NULL);
}

/* dx = dy k1 + (x - mean) k2 + k3 */
CLONES static void affine2(const void *ctx, int n, float *dx, const float *const *v)
{
    const float *dy = v[0], *x = v[1], *mean = v[2], *k1 = v[3], *k2 = v[4], *k3 = v[5];
    (void)ctx;
    INDEPENDENT
    for (int i = 0; i < n; i++) dx[i] = dy[i] * k1[i] + (x[i] - mean[i]) * k2[i] + k3[i];
}

int cpu_batchnorm_train_grad_prepare(Prepare *p)
{
    p->scratch = (size_t)channels_of(&p->in[0]) * (2 * sizeof(double) + 4 * sizeof(float));
    return 0;
}

/* (dy, x, scale, mean, variance) -> dx, dscale, dbias. With h = (x - mean) / sigma over M elements:
 *   dbias = sum dy,  dscale = sum dy h,  dx = scale / sigma (dy - dbias / M - h dscale / M) */
void cpu_batchnorm_train_grad_run(const Node *n, const void *state, const Tensor *in,
                                  const Tensor *out, void *scratch)
{
    double eps = (double)node_float(n, "epsilon", 1e-5f), *sum = scratch;
    int64_t count = channels_of(&in[1]);
    double *product = sum + count, m = (double)tensor_count(&in[1]) / (double)count;
    float *mean = (float *)(void *)(product + count);
    float *k1 = mean + count, *k2 = k1 + count, *k3 = k2 + count;
    const Tensor *t[] = {&in[0], &in[1]};
    Tensor kept = per_channel(&in[1]);
    (void)state;
    cpu_accumulate(REDUCE_DOT, NULL, NULL, 2, t, &kept, sum);
    for (int64_t c = 0; c < count; c++) {
        double mu = at(&in[3], c), inverse = 1 / sqrt(at(&in[4], c) + eps);
        double dscale = (product[c] - mu * sum[c]) * inverse, k = at(&in[2], c) * inverse;
        mean[c] = (float)mu;
        k1[c] = (float)k;
        k2[c] = (float)(-k * inverse * dscale / m);
        k3[c] = (float)(-k * sum[c] / m);
        if (out[1].data) element_store(&out[1], c * out[1].stride[0], dscale);
        if (out[2].data) element_store(&out[2], c * out[2].stride[0], sum[c]);
    }
    Tensor v[4];
    float *data[] = {mean, k1, k2, k3};
    for (int i = 0; i < 4; i++) v[i] = channel_vector(&in[1], data[i]);
    const Tensor *map[] = {&out[0], &in[0], &in[1], &v[0], &v[1], &v[2], &v[3]};
    block_map(7, map, affine2, NULL);
}

/* ---- per line ------------------------------------------------------------------------ */

/* A dense float copy of one line. */
int cpu_softmax_prepare(Prepare *p)
{
    const Tensor *x = &p->in[0];
    int axis = axis_index(node_int(p->node, "axis", -1), x->rank);
    p->scratch = (size_t)(x->rank ? x->dim[axis] : 1) * sizeof(float);
    return 0;
}

CLONES static float line_max(const float *x, int64_t n)
{
    float lane[16], m = -INFINITY;
    int64_t i = 0;
    for (int k = 0; k < 16; k++) lane[k] = -INFINITY;
    for (; i + 16 <= n; i += 16)
        for (int k = 0; k < 16; k++) lane[k] = x[i + k] > lane[k] ? x[i + k] : lane[k];
    for (; i < n; i++) m = x[i] > m ? x[i] : m;
    for (int k = 0; k < 16; k++) m = lane[k] > m ? lane[k] : m;
    return m;
}

/* exp(x - max) in y, or with keep_logs x - max; their sum. y may be x. */
CLONES static double line_exp_sum(float *y, const float *x, int64_t n, float max, bool keep_logs)
{
    double sum = 0;
    for (int64_t start = 0; start < n; start += BLOCK) {
        float logs[BLOCK], *e = keep_logs ? logs : y + start;
        const float *p = x + start;
        int count = (int)(n - start < BLOCK ? n - start : BLOCK);
        INDEPENDENT
        for (int i = 0; i < count; i++) e[i] = scalar_expf(p[i] - max);
        sum += cpu_row_sum(e, count);
        INDEPENDENT
        for (int i = 0; i < count && keep_logs; i++) y[start + i] = p[i] - max;
    }
    return sum;
}

CLONES static void line_affine(float *x, int64_t n, float scale, float shift)
{
    for (int64_t i = 0; i < n; i++) x[i] = x[i] * scale + shift;
}

void cpu_softmax_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                     void *scratch)
{
    int axis = axis_index(node_int(n, "axis", -1), in[0].rank);
    int64_t count = in[0].dim[axis];
    bool logs = n->op == OP_LogSoftmax;
    Tensor x = in[0], y = out[0];
    const Tensor *t[] = {&y, &x};
    Nest nest;
    NestPos pos = {0};
    (void)state;
    if (tensor_count(&x) == 0) return;
    x.dim[axis] = y.dim[axis] = 1;
    nest_make(&nest, 2, t);
    const bool dense = x.dtype == DT_F32 && y.dtype == DT_F32 && x.stride[axis] == 1 &&
                       y.stride[axis] == 1; /* worked on where it lies */
    do {
        float *to = dense ? (float *)y.data + pos.offset[0] : scratch;
        const float *from = dense ? (const float *)x.data + pos.offset[1] : scratch;
        if (!dense) load_line(scratch, &x, pos.offset[1], x.stride[axis], count);
        float max = line_max(from, count);
        double sum = line_exp_sum(to, from, count, max, logs);
        if (logs)
            line_affine(to, count, 1, -(float)log(sum));
        else
            line_affine(to, count, (float)(1 / sum), 0);
        if (!dense) store_line(&y, pos.offset[0], y.stride[axis], scratch, count);
    } while (nest_next(&nest, nest.loops, &pos));
}

/* Elements in a row: axes [axis, rank). */
static int64_t row_length(const Node *n, const Tensor *x)
{
    int64_t count = 1;
    for (int i = axis_index(node_int(n, "axis", -1), x->rank); i < x->rank; i++) count *= x->dim[i];
    return count;
}

int cpu_layernorm_prepare(Prepare *p)
{
    p->scratch = (size_t)row_length(p->node, &p->in[0]) * 3 * sizeof(float);
    return 0;
}

CLONES static double square_sum(const float *x, int64_t n, double mean)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i += 8) {
        double lane[8] = {0};
        int64_t m = n - i < 8 ? n - i : 8;
        for (int64_t k = 0; k < m; k++)
            lane[k] = ((double)x[i + k] - mean) * ((double)x[i + k] - mean);
        sum += ((lane[0] + lane[1]) + (lane[2] + lane[3])) +
               ((lane[4] + lane[5]) + (lane[6] + lane[7]));
    }
    return sum;
}

CLONES static void normalize(float *x, const float *scale, const float *bias, int64_t n, float mean,
                             float inverse)
{
    for (int64_t i = 0; i < n; i++) x[i] = (x[i] - mean) * inverse * scale[i] + bias[i];
}

/* Row-major throughout (kernels.c asks for it). (x, scale, bias) -> y, mean, 1 / sigma. */
void cpu_layernorm_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                       void *scratch)
{
    double eps = (double)node_float(n, "epsilon", 1e-5f);
    int64_t count = row_length(n, &in[0]), total = tensor_count(&in[0]);
    const Tensor *b = optional(n, in, 2);
    float *x = scratch, *scale = x + count, *bias = scale + count;
    bool plain = tensor_count(&in[1]) == count && (!b || tensor_count(b) == count);
    if (!plain || !tensor_is_row_major(&in[0]) || !tensor_is_row_major(&out[0])) {
        cpu_naive_run(n, state, in, out, scratch);
        return;
    }
    load_line(scale, &in[1], 0, 1, count);
    for (int64_t i = 0; i < count; i++) bias[i] = 0;
    if (b) load_line(bias, b, 0, 1, count);
    for (int64_t row = 0; row * count < total; row++) {
        load_line(x, &in[0], row * count, 1, count);
        double mean = 0;
        for (int64_t i = 0; i < count && n->op != OP_RMSNormalization; i += BLOCK)
            mean += cpu_row_sum(x + i, (int)(count - i < BLOCK ? count - i : BLOCK));
        mean /= (double)count;
        double inverse = 1 / sqrt(square_sum(x, count, mean) / (double)count + eps);
        normalize(x, scale, bias, count, (float)mean, (float)inverse);
        store_line(&out[0], row * count, 1, x, count);
        if (n->nout > 1 && out[1].data) element_store(&out[1], row, mean);
        if (n->nout > 2 && out[2].data) element_store(&out[2], row, inverse);
    }
}
