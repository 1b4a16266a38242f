/* Index arithmetic that the reference kernels share. */
#include <string.h>

#include "ir/window.h"
#include "runtime/ref/ref.h"

void ref_move(const Tensor *from, int64_t from_offset, const Tensor *to, int64_t to_offset)
{
    const size_t size = dtype_size(to->dtype);
    memcpy((char *)to->data + (size_t)to_offset * size,
           (const char *)from->data + (size_t)from_offset * size, size);
}

int64_t ref_offset(const Tensor *t, int64_t k)
{
    int64_t offset = 0;
    for (int a = t->rank - 1; a >= 0; a--) {
        offset += k % t->dim[a] * t->stride[a];
        k /= t->dim[a];
    }
    return offset;
}

double ref_at(const Tensor *t, int64_t k) { return load(t, ref_offset(t, k)); }

void ref_fill(const Tensor *t, double x) { FOR_EACH(at, t) element_store(t, ref_index(t, &at), x); }

Index *ref_first(const Tensor *t, Index *at) { return tensor_count(t) > 0 ? at : NULL; }

Index *ref_next(const Tensor *t, Index *at)
{
    int a = t->rank - 1;
    while (a >= 0 && ++at->i[a] == t->dim[a]) at->i[a--] = 0;
    return a < 0 ? NULL : at;
}

Tensor ref_broadcast(const Tensor *t, const Tensor *like)
{
    Tensor b = *like;
    b.dtype = t->dtype;
    b.data = t->data;
    for (int a = 0; a < like->rank; a++) {
        const int k = a - (like->rank - t->rank);
        b.stride[a] = k < 0 || t->dim[k] == 1 ? 0 : t->stride[k];
    }
    return b;
}

Tensor ref_broadcast_axis(const Tensor *t, int axis, const Tensor *like)
{
    Tensor b = *like;
    b.dtype = t->dtype;
    b.data = t->data;
    for (int a = 0; a < like->rank; a++)
        b.stride[a] = a == axis && tensor_count(t) > 1 ? t->stride[t->rank - 1] : 0;
    return b;
}

int ref_axis(int64_t axis, int rank) { return (int)(axis < 0 ? axis + rank : axis); }

Tensor ref_image(const Tensor *t)
{
    Tensor v = *t;
    const int spatial = t->rank - 2;
    v.rank = 5;
    for (int a = 0; a < 3; a++) {
        const int from = a - (3 - spatial);
        v.dim[2 + a] = from < 0 ? 1 : t->dim[2 + from];
        v.stride[2 + a] = from < 0 ? 0 : t->stride[2 + from];
    }
    return v;
}

RefWindow ref_window(const Node *n)
{
    RefWindow r = {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0}, {0}};
    Diag silent = {0};
    Window w;
    if (node_window(n, &w, &silent) < 0) trap(TRAP_INTERNAL, "ref: a window without a shape");
    for (int a = 3 - w.n, k = 0; k < w.n; a++, k++) {
        r.kernel[a] = w.kernel[k];
        r.stride[a] = w.stride[k];
        r.dilation[a] = w.dilation[k];
        r.pad[a] = w.pad[k];
        r.pad_end[a] = w.pad_end[k];
    }
    return r;
}
