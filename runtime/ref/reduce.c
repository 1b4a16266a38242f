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

static double largest(const Tensor *x)
{
    double max = -INFINITY;
    FOR_EACH(j, x) max = fmax(max, load(x, ref_index(x, &j)));
    return max;
}

static double fold(Op op, double acc, double x)
{
    switch ((int)op) {
    case OP_ReduceMax:
        return isnan(x) || x > acc ? x : acc;
    case OP_ReduceMin:
        return isnan(x) || x < acc ? x : acc;
    case OP_ReduceProd:
        return acc * x;
    case OP_ReduceL1:
        return acc + fabs(x);
    case OP_ReduceL2:
    case OP_ReduceSumSquare:
        return acc + x * x;
    case OP_ReduceLogSumExp:
        return acc + exp(x);
    default:
        return acc + x;
    }
}

/* The exponentials of LogSumExp are taken relative to the largest. */
static double reduce(Op op, const Tensor *x)
{
    double acc = op == OP_ReduceMax    ? -INFINITY
                 : op == OP_ReduceMin  ? INFINITY
                 : op == OP_ReduceProd ? 1
                                       : 0;
    double max = op == OP_ReduceLogSumExp ? largest(x) : 0;
    if (isinf(max)) max = 0;
    FOR_EACH(j, x) acc = fold(op, acc, load(x, ref_index(x, &j)) - max);
    return op == OP_ReduceMean                                 ? acc / (double)tensor_count(x)
           : op == OP_ReduceL2                                 ? sqrt(acc)
           : op == OP_ReduceLogSum || op == OP_ReduceLogSumExp ? max + log(acc)
                                                               : acc;
}

static bool reduces_exactly(Op op)
{
    return op != OP_ReduceL2 && op != OP_ReduceLogSum && op != OP_ReduceLogSumExp;
}

static int64_t fold_int(Op op, int64_t acc, int64_t x)
{
    const uint64_t a = (uint64_t)acc, b = (uint64_t)x;
    switch ((int)op) {
    case OP_ReduceMax:
        return x > acc ? x : acc;
    case OP_ReduceMin:
        return x < acc ? x : acc;
    case OP_ReduceProd:
        return (int64_t)(a * b);
    case OP_ReduceL1:
        return (int64_t)(x < 0 ? a - b : a + b);
    case OP_ReduceSumSquare:
        return (int64_t)(a + b * b);
    default:
        return (int64_t)(a + b);
    }
}

static int64_t reduce_int(Op op, const Tensor *x)
{
    const int64_t count = tensor_count(x);
    const bool extreme = (op == OP_ReduceMax || op == OP_ReduceMin) && count > 0;
    int64_t acc = extreme ? element_load_int(x, 0) : op == OP_ReduceProd;
    FOR_EACH(j, x) acc = fold_int(op, acc, element_load_int(x, ref_index(x, &j)));
    return op == OP_ReduceMean && count ? acc / count : acc;
}

REF_KERNEL(reduce)
{
    UNUSED_STATE;
    bool reduced[MAX_RANK];
    find_axes(n, in, reduced);
    FOR_EACH(at, out)
    {
        const Tensor x = group_of(in, reduced, out, &at);
        const int64_t to = ref_index(out, &at);
        if (is_exact_int(in) && reduces_exactly(n->op))
            element_store_int(out, to, reduce_int(n->op, &x));
        else
            element_store(out, to, reduce(n->op, &x));
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
