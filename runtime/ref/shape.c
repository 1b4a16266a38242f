/* Shapes: views, transposition, expansion. */
#include "runtime/ref/ref.h"

/* The same elements in row-major order under another shape. */
REF_KERNEL(reshape)
{
    UNUSED_STATE;
    const int64_t count = tensor_count(out);
    for (int64_t k = 0; k < count; k++) ref_move(in, ref_offset(in, k), out, ref_offset(out, k));
}

/* y[i0, i1, …] = x at the index whose axis perm[a] is ia; the default reverses the axes. */
REF_KERNEL(transpose)
{
    UNUSED_STATE;
    size_t count = 0;
    const int64_t *perm = node_ints(n, "perm", &count);
    Tensor x = *out;
    x.data = in->data;
    for (int a = 0; a < out->rank; a++)
        x.stride[a] = in->stride[perm ? perm[a] : out->rank - 1 - a];
    FOR_EACH(at, out) ref_move(&x, ref_index(&x, &at), out, ref_index(out, &at));
}

REF_KERNEL(expand)
{
    UNUSED_STATE;
    const Tensor x = ref_broadcast(in, out);
    FOR_EACH(at, out) ref_move(&x, ref_index(&x, &at), out, ref_index(out, &at));
}

/* The dims of x from `start` on, as far as the output goes. */
REF_KERNEL(shape)
{
    UNUSED_STATE;
    int64_t start = node_int(n, "start", 0);
    if (start < 0) start += in->rank;
    if (start < 0) start = 0;
    for (int64_t k = 0; k < out->dim[0]; k++)
        element_store_int(out, k * out->stride[0], in->dim[start + k]);
}

REF_KERNEL(constant_of_shape)
{
    UNUSED_STATE;
    const Attr *value = node_attr(n, "value");
    const float zero = 0;
    Tensor x = {.dtype = value ? value->type.dtype : DT_F32};
    x.data = (void *)(uintptr_t)(value ? value->s.p : &zero); /* only read */
    FOR_EACH(at, out) ref_move(&x, 0, out, ref_index(out, &at));
}
