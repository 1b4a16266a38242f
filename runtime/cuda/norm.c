/* Normalizations in training, layer normalization, softmax: reductions, then one generated map.
 * Sums of squares are taken around the mean that a first pass found, so that floats suffice. */
#include <math.h>
#include <string.h>

#include "runtime/cuda/cuda.h"

Tensor channel_view(const Tensor *x, void *data)
{
    Tensor v = {.dtype = DT_F32, .rank = 1, .data = data};
    v.dim[0] = x->rank > 1 ? x->dim[1] : 1;
    v.stride[0] = 1;
    return along_axis(&v, 1, x->rank);
}

static Tensor per_channel(const Tensor *x)
{
    Tensor kept = *x;
    kept.dtype = DT_F32;
    for (int i = 0; i < x->rank; i++)
        if (i != 1) kept.dim[i] = 1;
    tensor_set_strides(&kept, false);
    return kept;
}

static size_t rounded(size_t n) { return (n + 63) & ~(size_t)63; }
static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* ---- batch normalization in training ------------------------------------------------------ */

/* Scratch: two vectors, then the partial sums. */
typedef struct BatchNorm {
    Reduce first, second; /* mean and variance; sum of dy, and of dy (x - mean) */
    Map map;
    Map store[2]; /* the vectors to the outputs' types */
    size_t vector;
} BatchNorm;

static void make_store(BatchNorm *s, int k, const Tensor *out, const char *body, int nin,
                       const Tensor *const *in, float param)
{
    if (out->rank < 0) return;
    map_make(&s->store[k], 1, &out, nin, in, body, 1, &param);
}

int cuda_batchnorm_train_prepare(Prepare *p)
{
    static const char copy[] = "    const float y0 = x0;\n";
    static const char body[] =
        "    const float y0 = (x0 - x3) * (x1 / sqrtf(x4 + a->p[0])) + x2;\n";
    BatchNorm *s = cuda_state(sizeof *s);
    const Tensor *x = &p->in[0], kept = per_channel(x), channels = channel_view(x, NULL);
    const Tensor scale = along_axis(&p->in[1], 1, x->rank),
                 bias = along_axis(&p->in[2], 1, x->rank);
    const float eps = node_float(p->node, "epsilon", 1e-5f);
    const float each = (float)((double)tensor_count(&kept) / (double)tensor_count(x));
    const Tensor *in[] = {x, &scale, &bias, &channels, &channels}, *out[] = {&p->out[0]};
    p->state = s;
    s->vector = rounded((size_t)tensor_count(&kept) * sizeof(float));
    reduce_make(&s->first, TERM_X, 1, in, &kept, each);
    reduce_make(&s->second, TERM_SQUARE, 2, (const Tensor *[]){x, &channels}, &kept, each);
    map_make(&s->map, 1, out, 5, in, body, 1, &eps);
    const Tensor flat = {.dtype = DT_F32, .rank = 1, .dim = {tensor_count(&kept)}, .stride = {1}};
    for (int k = 0; k < 2; k++)
        make_store(s, k, &p->out[k + 1], copy, 1, (const Tensor *[]){&flat}, 0);
    p->scratch = 2 * s->vector + larger(reduce_scratch(&s->first), reduce_scratch(&s->second));
    return 0;
}

void cuda_batchnorm_train_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                              void *scratch)
{
    const BatchNorm *s = state;
    char *mean = scratch, *variance = mean + s->vector, *partial = variance + s->vector;
    (void)n;
    reduce_run(&s->first, (const void *[]){in[0].data}, mean, partial);
    reduce_run(&s->second, (const void *[]){in[0].data, mean}, variance, partial);
    map_run(&s->map, (void *[]){out[0].data, in[0].data, in[1].data, in[2].data, mean, variance});
    if (out[1].rank >= 0) map_run(&s->store[0], (void *[]){out[1].data, mean});
    if (out[2].rank >= 0) map_run(&s->store[1], (void *[]){out[2].data, variance});
}

/* (dy, x, scale, mean, variance) -> dx, dscale, dbias. With h = (x - mean) / sigma over M elements:
 *   dbias = sum dy,  dscale = sum dy h,  dx = scale / sigma (dy - dbias / M - h dscale / M) */
int cuda_batchnorm_train_grad_prepare(Prepare *p)
{
    static const char body[] =
        "    const float inverse = 1.f / sqrtf(x4 + a->p[0]);\n"
        "    const float h = (x1 - x3) * inverse, dscale = x6 * inverse;\n"
        "    const float y0 = x2 * inverse * (x0 - x5 * a->p[1] - h * (dscale * a->p[1]));\n";
    static const char store_scale[] = "    const float y0 = x0 / sqrtf(x1 + a->p[0]);\n";
    static const char store_bias[] = "    const float y0 = x0;\n";
    BatchNorm *s = cuda_state(sizeof *s);
    const Tensor *dy = &p->in[0], *x = &p->in[1], kept = per_channel(x);
    const Tensor channels = channel_view(x, NULL);
    Tensor v[3];
    const float eps = node_float(p->node, "epsilon", 1e-5f);
    const float params[2] = {eps, (float)((double)tensor_count(&kept) / (double)tensor_count(x))};
    p->state = s;
    for (int i = 0; i < 3; i++) v[i] = along_axis(&p->in[i + 2], 1, x->rank);
    s->vector = rounded((size_t)tensor_count(&kept) * sizeof(float));
    reduce_make(&s->first, TERM_X, 1, (const Tensor *[]){dy}, &kept, 1);
    reduce_make(&s->second, TERM_CENTRED, 3, (const Tensor *[]){dy, x, &v[1]}, &kept, 1);
    const Tensor *in[] = {dy, x, &v[0], &v[1], &v[2], &channels, &channels}, *out[] = {&p->out[0]};
    map_make(&s->map, 1, out, 7, in, body, 2, params);
    const Tensor flat = {.dtype = DT_F32, .rank = 1, .dim = {tensor_count(&kept)}, .stride = {1}};
    make_store(s, 0, &p->out[1], store_scale, 2, (const Tensor *[]){&flat, &p->in[4]}, eps);
    make_store(s, 1, &p->out[2], store_bias, 1, (const Tensor *[]){&flat}, 0);
    p->scratch = 2 * s->vector + larger(reduce_scratch(&s->first), reduce_scratch(&s->second));
    return 0;
}

void cuda_batchnorm_train_grad_run(const Node *n, const void *state, const Tensor *in,
                                   const Tensor *out, void *scratch)
{
    const BatchNorm *s = state;
    char *sum = scratch, *dot = sum + s->vector, *partial = dot + s->vector;
    (void)n;
    reduce_run(&s->first, (const void *[]){in[0].data}, sum, partial);
    reduce_run(&s->second, (const void *[]){in[0].data, in[1].data, in[3].data}, dot, partial);
    if (out[0].rank >= 0)
        map_run(&s->map, (void *[]){out[0].data, in[0].data, in[1].data, in[2].data, in[3].data,
                                    in[4].data, sum, dot});
    if (out[1].rank >= 0) map_run(&s->store[0], (void *[]){out[1].data, dot, in[4].data});
    if (out[2].rank >= 0) map_run(&s->store[1], (void *[]){out[2].data, sum});
}

/* ---- over the last axes ------------------------------------------------------------------- */

/* kept: one number per row, in floats. */
static Tensor per_row(const Tensor *x, int first, int end)
{
    Tensor kept = *x;
    kept.dtype = DT_F32;
    for (int i = first; i < end; i++) kept.dim[i] = 1;
    tensor_set_strides(&kept, false);
    return kept;
}

typedef struct Rows {
    Reduce first, second;
    Map map, store;
    size_t vector;
} Rows;

/* (x, scale, bias) -> y, mean, 1 / sigma */
int cuda_layernorm_prepare(Prepare *p)
{
    static const char body[] =
        "    const float y0 = (x0 - x1) * (1.f / sqrtf(x2 + a->p[0])) * x3;\n";
    static const char with_bias[] =
        "    const float y0 = (x0 - x1) * (1.f / sqrtf(x2 + a->p[0])) * x3 + x4;\n";
    static const char inverse[] = "    const float y0 = 1.f / sqrtf(x0 + a->p[0]);\n";
    Rows *s = cuda_state(sizeof *s);
    const Tensor *x = &p->in[0];
    const int first = axis_index(node_int(p->node, "axis", -1), x->rank);
    const Tensor kept = per_row(x, first, x->rank);
    const float eps = node_float(p->node, "epsilon", 1e-5f);
    const float each = (float)((double)tensor_count(&kept) / (double)tensor_count(x));
    const bool biased = p->nin > 2 && p->in[2].rank >= 0;
    const Tensor *in[] = {x, &kept, &kept, &p->in[1], &p->in[2]}, *out[] = {&p->out[0]};
    p->state = s;
    s->vector = rounded((size_t)tensor_count(&kept) * sizeof(float));
    reduce_make(&s->first, TERM_X, 1, in, &kept, each);
    reduce_make(&s->second, TERM_SQUARE, 2, in, &kept, each);
    map_make(&s->map, 1, out, biased ? 5 : 4, in, biased ? with_bias : body, 1, &eps);
    if (p->nout > 2 && p->out[2].rank >= 0)
        map_make(&s->store, 1, (const Tensor *[]){&kept}, 1, (const Tensor *[]){&kept}, inverse, 1,
                 &eps);
    p->scratch = 2 * s->vector + larger(reduce_scratch(&s->first), reduce_scratch(&s->second));
    return 0;
}

void cuda_layernorm_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                        void *scratch)
{
    const Rows *s = state;
    char *mean = scratch, *variance = mean + s->vector, *partial = variance + s->vector;
    reduce_run(&s->first, (const void *[]){in[0].data}, mean, partial);
    reduce_run(&s->second, (const void *[]){in[0].data, mean}, variance, partial);
    map_run(&s->map, (void *[]){out[0].data, in[0].data, mean, variance, in[1].data,
                                n->nin > 2 ? in[2].data : NULL});
    if (n->nout > 1 && out[1].rank >= 0) {
        const Tensor from = dense_like(&out[1], DT_F32, mean);
        cuda_copy(&out[1], &from);
    }
    if (n->nout > 2 && out[2].rank >= 0) map_run(&s->store, (void *[]){out[2].data, variance});
}

/* Softmax and LogSoftmax along an axis: the maximum, the sum of exp(x - maximum), the map. */
int cuda_softmax_prepare(Prepare *p)
{
    static const char soft[] = "    const float y0 = scalar_expf(x0 - x1) / x2;\n";
    static const char logs[] = "    const float y0 = x0 - x1 - logf(x2);\n";
    Rows *s = cuda_state(sizeof *s);
    const Tensor *x = &p->in[0];
    const int axis = axis_index(node_int(p->node, "axis", -1), x->rank);
    const Tensor kept = per_row(x, axis, axis + 1);
    const Tensor *in[] = {x, &kept, &kept}, *out[] = {&p->out[0]};
    p->state = s;
    s->vector = rounded((size_t)tensor_count(&kept) * sizeof(float));
    reduce_make(&s->first, TERM_MAX, 1, in, &kept, 1);
    reduce_make(&s->second, TERM_EXP, 2, in, &kept, 1);
    map_make(&s->map, 1, out, 3, in, p->node->op == OP_LogSoftmax ? logs : soft, 0, NULL);
    p->scratch = 2 * s->vector + larger(reduce_scratch(&s->first), reduce_scratch(&s->second));
    return 0;
}

void cuda_softmax_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                      void *scratch)
{
    const Rows *s = state;
    char *max = scratch, *sum = max + s->vector, *partial = sum + s->vector;
    (void)n;
    reduce_run(&s->first, (const void *[]){in[0].data}, max, partial);
    reduce_run(&s->second, (const void *[]){in[0].data, max}, sum, partial);
    map_run(&s->map, (void *[]){out[0].data, in[0].data, max, sum});
}
