/* Normalization over groups of channels or any axes, division by norms, Hardmax. */
#include <math.h>
#include <string.h>

#include "runtime/ref/ref.h"

typedef struct Moments {
    double mean, variance;
} Moments;

static Moments moments(const Tensor *x)
{
    const double count = (double)tensor_count(x);
    Moments m = {0, 0};
    FOR_EACH(at, x) m.mean += load(x, ref_index(x, &at)) / count;
    FOR_EACH(at, x) m.variance += pow(load(x, ref_index(x, &at)) - m.mean, 2) / count;
    return m;
}

/* Channels [c, c + count) of sample i. */
static Tensor channels_of(const Tensor *t, int64_t i, int64_t c, int64_t count)
{
    Tensor v = *t;
    const int64_t offset = i * t->stride[0] + c * t->stride[1];
    v.data = (char *)t->data + (size_t)offset * dtype_size(t->dtype);
    v.dim[0] = 1;
    v.dim[1] = count;
    return v;
}

/* InstanceNormalization, GroupNormalization: (x, scale, bias), these by channel or by group. */
REF_KERNEL(groupnorm)
{
    UNUSED_STATE;
    const double eps = (double)node_float(n, "epsilon", 1e-5f);
    const bool instance = n->op == OP_InstanceNormalization;
    const int64_t groups = instance ? in->dim[1] : node_int(n, "num_groups", 1);
    const int64_t size = groups ? in->dim[1] / groups : 0;
    const bool by_group = in[1].dim[0] == groups;
    for (int64_t i = 0; i < in->dim[0]; i++)
        for (int64_t g = 0; g < groups; g++) {
            const Tensor all = channels_of(in, i, g * size, size);
            const Moments m = moments(&all);
            for (int64_t c = g * size; c < (g + 1) * size; c++) {
                const Tensor x = channels_of(in, i, c, 1), y = channels_of(out, i, c, 1);
                const int64_t v = by_group ? g : c;
                const double k = ref_at(&in[1], v) / sqrt(m.variance + eps), b = ref_at(&in[2], v);
                FOR_EACH(at, &x)
                {
                    const double centred = load(&x, ref_index(&x, &at)) - m.mean;
                    element_store(&y, ref_index(&y, &at), centred * k + b);
                }
            }
        }
}

/* One index for each part of t: its axes in the mask are whole. */
static Tensor parts_of(const Tensor *t, const bool *mask)
{
    Tensor v = *t;
    for (int a = 0; a < t->rank; a++)
        if (mask[a]) v.dim[a] = t->dim[a] > 0;
    return v;
}

/* The part of t at `at` along the axes that are not in the mask. */
static Tensor part_of(const Tensor *t, const bool *mask, const Index *at)
{
    Tensor v = *t;
    int64_t offset = 0;
    for (int a = 0; a < t->rank; a++)
        if (!mask[a]) {
            offset += at->i[a] * t->stride[a];
            v.dim[a] = 1;
        }
    v.data = (char *)t->data + (size_t)offset * dtype_size(t->dtype);
    return v;
}

/* MeanVarianceNormalization */
REF_KERNEL(mvn)
{
    UNUSED_STATE;
    static const int64_t usual[] = {0, 2, 3};
    size_t count = 3;
    const int64_t *axes = node_ints(n, "axes", &count);
    bool mask[MAX_RANK] = {false};
    for (size_t k = 0; k < count; k++) mask[ref_axis((axes ? axes : usual)[k], in->rank)] = true;
    const Tensor parts = parts_of(in, mask);
    FOR_EACH(at, &parts)
    {
        const Tensor x = part_of(in, mask, &at), y = part_of(out, mask, &at);
        const Moments m = moments(&x);
        const double deviation = sqrt(m.variance) + 1e-9;
        FOR_EACH(k, &x)
        element_store(&y, ref_index(&y, &k), (load(&x, ref_index(&x, &k)) - m.mean) / deviation);
    }
}

/* LpNormalization: zeros stay zeros. */
REF_KERNEL(lpnorm)
{
    UNUSED_STATE;
    bool mask[MAX_RANK] = {false};
    const bool one = node_int(n, "p", 2) == 1;
    mask[ref_axis(node_int(n, "axis", -1), in->rank)] = true;
    const Tensor lines = parts_of(in, mask);
    FOR_EACH(at, &lines)
    {
        const Tensor x = part_of(in, mask, &at), y = part_of(out, mask, &at);
        double norm = 0;
        FOR_EACH(k, &x)
        {
            const double v = load(&x, ref_index(&x, &k));
            norm += one ? fabs(v) : v * v;
        }
        if (!one) norm = sqrt(norm);
        if (norm == 0) norm = 1;
        FOR_EACH(k, &x) element_store(&y, ref_index(&y, &k), load(&x, ref_index(&x, &k)) / norm);
    }
}

/* y = x / (bias + alpha / size * sum of x^2 over the window of channels)^beta */
REF_KERNEL(lrn)
{
    UNUSED_STATE;
    const int64_t size = node_int(n, "size", 1), channels = in->dim[1];
    const double alpha = (double)node_float(n, "alpha", 1e-4f) / (double)size;
    const double beta = (double)node_float(n, "beta", 0.75f);
    FOR_EACH(at, out)
    {
        const int64_t c = at.i[1], x = ref_index(in, &at);
        double sum = 0;
        for (int64_t k = c - (size - 1) / 2; k <= c + size / 2; k++)
            if (k >= 0 && k < channels) sum += pow(load(in, x + (k - c) * in->stride[1]), 2);
        const double norm = (double)node_float(n, "bias", 1) + alpha * sum;
        element_store(out, ref_index(out, &at), load(in, x) / pow(norm, beta));
    }
}

/* 1 at the first maximum of each line, 0 elsewhere. */
REF_KERNEL(hardmax)
{
    UNUSED_STATE;
    const int axis = ref_axis(node_int(n, "axis", -1), in->rank);
    bool mask[MAX_RANK] = {false};
    mask[axis] = true;
    const Tensor lines = parts_of(in, mask);
    FOR_EACH(at, &lines)
    {
        const int64_t x = ref_index(in, &at), y = ref_index(out, &at), step = in->stride[axis];
        int64_t best = 0;
        for (int64_t k = 1; k < in->dim[axis]; k++)
            if (load(in, x + k * step) > load(in, x + best * step)) best = k;
        for (int64_t k = 0; k < in->dim[axis]; k++)
            element_store(out, y + k * out->stride[axis], k == best);
    }
}
