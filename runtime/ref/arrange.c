/* Repeating, masking, accumulating, reversing along axes; sequences. */
#include "runtime/ref/ref.h"

REF_KERNEL(tile)
{
    UNUSED_STATE;
    FOR_EACH(at, out)
    {
        Index from = at;
        for (int a = 0; a < in->rank; a++) from.i[a] = at.i[a] % in->dim[a];
        ref_move(in, ref_index(in, &from), out, ref_index(out, &at));
    }
}

/* Upper: columns from row + k on; lower: columns up to row + k. */
REF_KERNEL(trilu)
{
    UNUSED_STATE;
    const bool upper = node_int(n, "upper", 1) != 0;
    const int row = in->rank - 2, column = in->rank - 1;
    const int64_t k = node_in(n, 1) ? element_load_int(&in[1], 0) : 0;
    FOR_EACH(at, out)
    {
        const int64_t to = ref_index(out, &at), over = at.i[column] - at.i[row];
        if (upper ? over >= k : over <= k)
            ref_move(in, ref_index(in, &at), out, to);
        else
            element_store_int(out, to, 0);
    }
}

/* y[i] = x[0] + … + x[i], without x[i] if exclusive, from the end if reverse. */
/* CumSum and CumProd. */
REF_KERNEL(cumsum)
{
    UNUSED_STATE;
    const bool product = n->op == OP_CumProd;
    const bool exclusive = node_int(n, "exclusive", 0) != 0, reverse = node_int(n, "reverse", 0);
    const int axis = ref_axis(element_load_int(&in[1], 0), in->rank);
    const int64_t size = in->dim[axis];
    Tensor lines = *out; /* one index per line */
    lines.dim[axis] = size > 0;
    FOR_EACH(at, &lines)
    {
        const int64_t from = ref_index(in, &at), to = ref_index(out, &at);
        double sum = product;
        uint64_t whole = product;
        for (int64_t k = 0; k < size; k++) {
            const int64_t i = reverse ? size - 1 - k : k;
            const int64_t x = from + i * in->stride[axis], y = to + i * out->stride[axis];
            const double before = sum;
            const uint64_t whole_before = whole;
            if (is_exact_int(in)) {
                const uint64_t v = (uint64_t)element_load_int(in, x);
                whole = product ? whole * v : whole + v;
                element_store_int(out, y, (int64_t)(exclusive ? whole_before : whole));
            } else {
                sum = product ? sum * load(in, x) : sum + load(in, x);
                element_store(out, y, exclusive ? before : sum);
            }
        }
    }
}

/* The first `length` elements of each sample in reverse. */
REF_KERNEL(reverse_sequence)
{
    UNUSED_STATE;
    const int batch = (int)node_int(n, "batch_axis", 1), time = (int)node_int(n, "time_axis", 0);
    FOR_EACH(at, out)
    {
        Index from = at;
        const int64_t length = element_load_int(&in[1], at.i[batch] * in[1].stride[0]);
        if (at.i[time] < length && length <= in->dim[time]) from.i[time] = length - 1 - at.i[time];
        ref_move(in, ref_index(in, &from), out, ref_index(out, &at));
    }
}

REF_KERNEL(eye_like)
{
    UNUSED_STATE;
    const int64_t k = node_int(n, "k", 0);
    FOR_EACH(at, out) element_store_int(out, ref_index(out, &at), at.i[1] - at.i[0] == k);
}

/* start + i * delta */
REF_KERNEL(range)
{
    UNUSED_STATE;
    for (int64_t i = 0; i < out->dim[0]; i++)
        if (is_exact_int(out))
            element_store_int(out, i * out->stride[0],
                              (int64_t)((uint64_t)element_load_int(in, 0) +
                                        (uint64_t)i * (uint64_t)element_load_int(&in[2], 0)));
        else
            element_store(out, i * out->stride[0], load(in, 0) + (double)i * load(&in[2], 0));
}

REF_KERNEL(size)
{
    UNUSED_STATE;
    element_store_int(out, 0, tensor_count(in));
}
