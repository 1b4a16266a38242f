/* Strided tensors: layouts, and copies between layouts and element types. */
#include <string.h>

#include "runtime/element.h"
#include "runtime/kernel.h"

int64_t tensor_count(const Tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->dim[i];
    return n;
}

/* Whether strides are those of a gapless array whose axes are stored in `order`. Strides of axes of
 * one element do not matter. */
static bool has_order(const Tensor *t, const int *order)
{
    int64_t expected = 1;
    for (int k = t->rank - 1; k >= 0; k--) {
        const int axis = order[k];
        if (t->dim[axis] != 1 && t->stride[axis] != expected) return false;
        expected *= t->dim[axis];
    }
    return true;
}

/* The axes as a layout stores them, outermost first. */
static void axes_in_order(int rank, bool channels_last, int order[MAX_RANK])
{
    for (int k = 0; k < rank; k++) order[k] = k;
    if (!channels_last) return;
    for (int k = 1; k + 1 < rank; k++) order[k] = k + 1;
    order[rank - 1] = 1;
}

static bool has_layout(const Tensor *t, bool channels_last)
{
    int order[MAX_RANK];
    if (t->rank < 0 || (channels_last && t->rank < 3)) return false;
    axes_in_order(t->rank, channels_last, order);
    return has_order(t, order);
}

bool tensor_is_row_major(const Tensor *t) { return has_layout(t, false); }
bool tensor_is_channels_last(const Tensor *t) { return has_layout(t, true); }

void tensor_set_strides(Tensor *t, bool channels_last)
{
    int order[MAX_RANK];
    int64_t stride = 1;
    axes_in_order(t->rank, channels_last && t->rank >= 3, order);
    for (int k = t->rank - 1; k >= 0; k--) {
        t->stride[order[k]] = stride;
        stride *= t->dim[order[k]];
    }
}

bool tensor_same_layout(const Tensor *a, const Tensor *b)
{
    if (a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++) {
        if (a->dim[i] != b->dim[i]) return false;
        if (a->dim[i] != 1 && a->stride[i] != b->stride[i]) return false;
    }
    return tensor_is_row_major(a) || tensor_is_channels_last(a);
}

/* One row: n elements, each in its own stride and type. */
static void copy_row(const Tensor *src, int64_t from, int64_t src_stride, const Tensor *dst,
                     int64_t to, int64_t dst_stride, int64_t n)
{
    const size_t size = dtype_size(src->dtype);
    const char *s = (const char *)src->data + (size_t)from * size;
    char *d = (char *)dst->data + (size_t)to * dtype_size(dst->dtype);
    if (src->dtype == dst->dtype && src_stride == 1 && dst_stride == 1) {
        memcpy(d, s, (size_t)n * size);
    } else if (src->dtype == dst->dtype && size == 4) {
        const uint32_t *s4 = (const uint32_t *)(const void *)s;
        uint32_t *d4 = (uint32_t *)(void *)d;
        for (int64_t i = 0; i < n; i++) d4[i * dst_stride] = s4[i * src_stride];
    } else if (src->dtype == dst->dtype) {
        for (int64_t i = 0; i < n; i++)
            memcpy(d + (size_t)(i * dst_stride) * size, s + (size_t)(i * src_stride) * size, size);
    } else if (dtype_is_float(src->dtype) || (src->dtype == DT_U64 && dtype_is_float(dst->dtype))) {
        for (int64_t i = 0; i < n; i++)
            element_store(dst, to + i * dst_stride, element_load(src, from + i * src_stride));
    } else {
        for (int64_t i = 0; i < n; i++)
            element_store_int(dst, to + i * dst_stride,
                              element_load_int(src, from + i * src_stride));
    }
}

void tensor_copy(const Tensor *src, const Tensor *dst)
{
    const int last = dst->rank - 1;
    int64_t at[MAX_RANK] = {0}, from = 0, to = 0;
    if (tensor_count(dst) == 0) return;
    if (dst->rank == 0 || (tensor_is_row_major(src) && tensor_is_row_major(dst)) ||
        tensor_same_layout(src, dst)) {
        copy_row(src, 0, 1, dst, 0, 1, tensor_count(dst));
        return;
    }
    for (;;) {
        copy_row(src, from, src->stride[last], dst, to, dst->stride[last], dst->dim[last]);
        int axis = last - 1;
        while (axis >= 0 && ++at[axis] == dst->dim[axis]) {
            from -= (at[axis] - 1) * src->stride[axis];
            to -= (at[axis] - 1) * dst->stride[axis];
            at[axis--] = 0;
        }
        if (axis < 0) return;
        from += src->stride[axis];
        to += dst->stride[axis];
    }
}

/* ---- reshape ------------------------------------------------------------------------ */

static bool through_scratch(const Tensor *in, const Tensor *out)
{
    return !tensor_is_row_major(in) && !tensor_is_row_major(out);
}

int tensor_reshape_prepare(Prepare *p)
{
    if (through_scratch(&p->in[0], &p->out[0]))
        p->scratch = (size_t)tensor_count(&p->in[0]) * dtype_size(p->in[0].dtype);
    return 0;
}

static Tensor row_major(const Tensor *t, void *data)
{
    Tensor r = *t;
    r.data = data;
    tensor_set_strides(&r, false);
    return r;
}

void tensor_reshape(TensorCopy *copy, const Tensor *in, const Tensor *out, void *scratch)
{
    void *between = in->data;
    if (!tensor_is_row_major(in)) {
        between = through_scratch(in, out) ? scratch : out->data;
        const Tensor y = row_major(in, between);
        copy(&y, in);
        if (between == out->data) return;
    }
    const Tensor x = row_major(out, between);
    copy(out, &x);
}

Tensor tensor_at(const Tensor *t, int64_t offset)
{
    Tensor v = *t;
    v.data = (char *)t->data + offset * (int64_t)dtype_size(t->dtype);
    return v;
}

Tensor tensor_section(const Tensor *t, int axis, int64_t start, int64_t size)
{
    Tensor v = tensor_at(t, start * t->stride[axis]);
    v.dim[axis] = size;
    return v;
}

Tensor tensor_transposed(const Node *n, const Tensor *in, const Tensor *out)
{
    size_t count = 0;
    const int64_t *perm = node_ints(n, "perm", &count);
    Tensor x = *out;
    x.data = in->data;
    for (int i = 0; i < x.rank; i++) x.stride[i] = in->stride[perm ? perm[i] : x.rank - 1 - i];
    return x;
}
