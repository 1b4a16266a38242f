/* Reductions over the axes of the optional second input (all, where it is missing or empty, unless
 * noop_with_empty_axes). */
#include "runtime/ref/ref.h"

#include <math.h>

static void find_axes(const Node *n, const Tensor *in, bool reduced[MAX_RANK])
{
    const int64_t count = node_in(n, 1) ? tensor_count(&in[1]) : 0;
    const bool all = count == 0 && !node_int(n, "noop_with_empty_axes", 0);
    for (int a = 0; a < MAX_RANK; a++) reduced[a] = all;
    for (int64_t k = 0; k < count; k++)
        reduced[ref_axis(element_load_int(&in[1], ref_offset(&in[1], k)), in->rank)] = true;
}

static double fold(Op op, double acc, double x)
{
    if (op == OP_ReduceMax) return isnan(x) || x > acc ? x : acc;
    if (op == OP_ReduceMin) return isnan(x) || x < acc ? x : acc;
    return acc + x;
}

static int64_t fold_int(Op op, int64_t acc, int64_t x)
{
    if (op == OP_ReduceMax) return x > acc ? x : acc;
    if (op == OP_ReduceMin) return x < acc ? x : acc;
    return (int64_t)((uint64_t)acc + (uint64_t)x);
}

/* The part of x that one output element reduces: the reduced axes, at the output's index. */
static Tensor group_of(const Tensor *x, const bool *reduced, const Tensor *y, const Index *at)
{
    Tensor v = *x;
    int64_t offset = 0;
    const bool keepdims = y->rank == x->rank;
    for (int a = 0, k = 0; a < x->rank; a++) {
        if (!reduced[a]) {
            offset += at->i[keepdims ? a : k] * x->stride[a];
            v.dim[a] = 1;
        }
        k += !reduced[a];
    }
    v.data = (char *)x->data + (size_t)offset * dtype_size(x->dtype);
    return v;
}

REF_KERNEL(reduce)
{
    UNUSED_STATE;
    bool reduced[MAX_RANK];
    find_axes(n, in, reduced);
    const bool extreme = n->op == OP_ReduceMax || n->op == OP_ReduceMin;
    FOR_EACH(at, out)
    {
        const Tensor x = group_of(in, reduced, out, &at);
        const int64_t count = tensor_count(&x), to = ref_index(out, &at);
        double acc = extreme && count ? load(&x, 0) : n->op == OP_ReduceMax ? -INFINITY : 0;
        int64_t exact = extreme && count && is_exact_int(in) ? element_load_int(&x, 0) : 0;
        if (n->op == OP_ReduceMin && !count) acc = INFINITY;
        FOR_EACH(j, &x)
        {
            const int64_t from = ref_index(&x, &j);
            if (is_exact_int(in))
                exact = fold_int(n->op, exact, element_load_int(&x, from));
            else
                acc = fold(n->op, acc, load(&x, from));
        }
        if (is_exact_int(in))
            element_store_int(out, to, n->op == OP_ReduceMean && count ? exact / count : exact);
        else
            element_store(out, to, n->op == OP_ReduceMean ? acc / (double)count : acc);
    }
}

REF_KERNEL(sum_product)
{
    UNUSED_STATE;
    bool reduced[MAX_RANK] = {false};
    size_t count = 0;
    const int64_t *axes = node_ints(n, "axes", &count);
    for (size_t k = 0; k < count; k++) reduced[ref_axis(axes[k], in->rank)] = true;
    FOR_EACH(at, out)
    {
        const Tensor a = group_of(&in[0], reduced, out, &at),
                     b = group_of(&in[1], reduced, out, &at);
        double acc = 0;
        FOR_EACH(j, &a) acc += load(&a, ref_index(&a, &j)) * load(&b, ref_index(&b, &j));
        element_store(out, ref_index(out, &at), acc);
    }
}

/* GlobalAveragePool and GlobalMaxPool: all axes from 2 on. */
REF_KERNEL(global_pool)
{
    UNUSED_STATE;
    bool reduced[MAX_RANK];
    for (int a = 0; a < MAX_RANK; a++) reduced[a] = a >= 2;
    FOR_EACH(at, out)
    {
        const Tensor x = group_of(in, reduced, out, &at);
        double sum = 0, max = -INFINITY;
        FOR_EACH(j, &x)
        {
            const double v = load(&x, ref_index(&x, &j));
            sum += v;
            if (v > max || isnan(v)) max = v;
        }
        const double mean = sum / (double)tensor_count(&x);
        element_store(out, ref_index(out, &at), n->op == OP_GlobalMaxPool ? max : mean);
    }
}
