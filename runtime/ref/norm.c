/* Batch and layer normalization, softmax. */
#include "runtime/ref/ref.h"

#include <math.h>

/* y = scale (x - mean) / sqrt(variance + eps) + bias, per channel (axis 1) */
REF_KERNEL(batchnorm)
{
    UNUSED_STATE;
    const double eps = (double)node_float(n, "epsilon", 1e-5f);
    FOR_EACH(at, out)
    {
        const int64_t c = out->rank > 1 ? at.i[1] : 0;
        const double x = load(in, ref_index(in, &at));
        const double hat = (x - ref_at(&in[3], c)) / sqrt(ref_at(&in[4], c) + eps);
        element_store(out, ref_index(out, &at), ref_at(&in[1], c) * hat + ref_at(&in[2], c));
    }
}

/* The index set of one channel: `t` with axis 1 reduced to that channel. */
static Tensor channel_of(const Tensor *t, int64_t c)
{
    Tensor v = *t;
    v.data = (char *)t->data + (size_t)(c * t->stride[1]) * dtype_size(t->dtype);
    v.dim[1] = 1;
    return v;
}

/* (x, scale, bias) -> y, mean, variance: of the batch, biased. */
REF_KERNEL(batchnorm_train)
{
    UNUSED_STATE;
    const double eps = (double)node_float(n, "epsilon", 1e-5f);
    for (int64_t c = 0; c < in->dim[1]; c++) {
        const Tensor x = channel_of(in, c), y = channel_of(out, c);
        const double count = (double)tensor_count(&x);
        double mean = 0, variance = 0;
        FOR_EACH(at, &x) mean += load(&x, ref_index(&x, &at));
        mean /= count;
        FOR_EACH(at, &x) variance += pow(load(&x, ref_index(&x, &at)) - mean, 2);
        variance /= count;
        const double k = ref_at(&in[1], c) / sqrt(variance + eps), b = ref_at(&in[2], c);
        FOR_EACH(at, &x)
        element_store(&y, ref_index(&y, &at), (load(&x, ref_index(&x, &at)) - mean) * k + b);
        if (out[1].rank >= 0) element_store(&out[1], c * out[1].stride[0], mean);
        if (out[2].rank >= 0) element_store(&out[2], c * out[2].stride[0], variance);
    }
}

/* (dy, x, scale, mean, variance) -> dx, dscale, dbias. With h = (x - mean) / sigma and M elements a
 * channel: dbias = sum dy, dscale = sum dy h, dx = scale / sigma (dy - dbias / M - h dscale / M).
 */
REF_KERNEL(batchnorm_train_grad)
{
    UNUSED_STATE;
    const double eps = (double)node_float(n, "epsilon", 1e-5f);
    for (int64_t c = 0; c < in->dim[1]; c++) {
        const Tensor dy = channel_of(&in[0], c), x = channel_of(&in[1], c), dx = channel_of(out, c);
        const double count = (double)tensor_count(&x), mean = ref_at(&in[3], c);
        const double sigma = sqrt(ref_at(&in[4], c) + eps);
        double dscale = 0, dbias = 0;
        FOR_EACH(at, &x)
        {
            const double d = load(&dy, ref_index(&dy, &at));
            dbias += d;
            dscale += d * (load(&x, ref_index(&x, &at)) - mean) / sigma;
        }
        FOR_EACH(at, &x)
        {
            const double h = (load(&x, ref_index(&x, &at)) - mean) / sigma;
            const double d = load(&dy, ref_index(&dy, &at)) - (dbias + h * dscale) / count;
            element_store(&dx, ref_index(&dx, &at), ref_at(&in[2], c) / sigma * d);
        }
        if (out[1].rank >= 0) element_store(&out[1], c * out[1].stride[0], dscale);
        if (out[2].rank >= 0) element_store(&out[2], c * out[2].stride[0], dbias);
    }
}

/* The rows of t along axes [from, rank): the index set of the row starts. */
static Tensor row_starts(const Tensor *t, int from)
{
    Tensor v = *t;
    for (int a = from; a < t->rank; a++) v.dim[a] = 1;
    return v;
}

/* One row: axes [from, rank) at a row start. */
static Tensor row_at(const Tensor *t, int from, const Index *start)
{
    Tensor v = *t;
    v.data = (char *)t->data + (size_t)ref_index(t, start) * dtype_size(t->dtype);
    for (int a = 0; a < from; a++) v.dim[a] = 1;
    return v;
}

/* (x, scale, bias) -> y, mean, 1 / sigma over axes [axis, rank); RMSNormalization has no mean. */
REF_KERNEL(layernorm)
{
    UNUSED_STATE;
    const double eps = (double)node_float(n, "epsilon", 1e-5f);
    const int axis = ref_axis(node_int(n, "axis", -1), in->rank);
    const Tensor starts = row_starts(in, axis);
    const Tensor scale = ref_broadcast(&in[1], out);
    const Tensor bias = node_in(n, 2) ? ref_broadcast(&in[2], out) : scale;
    FOR_EACH(start, &starts)
    {
        const Tensor x = row_at(in, axis, &start), y = row_at(out, axis, &start);
        const Tensor s = row_at(&scale, axis, &start), b = row_at(&bias, axis, &start);
        const double count = (double)tensor_count(&x);
        double mean = 0, variance = 0;
        if (n->op != OP_RMSNormalization)
            FOR_EACH(at, &x) mean += load(&x, ref_index(&x, &at)) / count;
        FOR_EACH(at, &x) variance += pow(load(&x, ref_index(&x, &at)) - mean, 2) / count;
        const double inverse = 1 / sqrt(variance + eps);
        FOR_EACH(at, &x)
        {
            const double h = (load(&x, ref_index(&x, &at)) - mean) * inverse;
            const double add = node_in(n, 2) ? load(&b, ref_index(&b, &at)) : 0;
            element_store(&y, ref_index(&y, &at), h * load(&s, ref_index(&s, &at)) + add);
        }
        if (n->nout > 1 && out[1].rank >= 0)
            element_store(&out[1], ref_index(&out[1], &start), mean);
        if (n->nout > 2 && out[2].rank >= 0)
            element_store(&out[2], ref_index(&out[2], &start), inverse);
    }
}

/* exp(x - m) / sum exp(x - m) along one axis, or its logarithm. */
REF_KERNEL(softmax)
{
    UNUSED_STATE;
    const int axis = ref_axis(node_int(n, "axis", -1), in->rank);
    const int64_t count = in->dim[axis], step = in->stride[axis];
    Tensor starts = *in;
    starts.dim[axis] = count ? 1 : 0;
    FOR_EACH(start, &starts)
    {
        const int64_t x = ref_index(in, &start), y = ref_index(out, &start);
        double max = -INFINITY, sum = 0;
        for (int64_t k = 0; k < count; k++) max = fmax(max, load(in, x + k * step));
        for (int64_t k = 0; k < count; k++) sum += exp(load(in, x + k * step) - max);
        for (int64_t k = 0; k < count; k++) {
            const double z = load(in, x + k * step) - max;
            const double v = n->op == OP_LogSoftmax ? z - log(sum) : exp(z) / sum;
            element_store(out, y + k * out->stride[axis], v);
        }
    }
}
