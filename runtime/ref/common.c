/* Index arithmetic that the reference kernels share. */
#include <string.h>

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

/* auto_pad: the padding follows from the sizes. */
static void set_auto_pad(RefWindow *w, const char *mode, const int64_t *in, const int64_t *out)
{
    const bool upper = strcmp(mode, "SAME_UPPER") == 0, lower = strcmp(mode, "SAME_LOWER") == 0;
    for (int a = 0; a < 3 && (upper || lower); a++) {
        const int64_t span = (w->kernel[a] - 1) * w->dilation[a] + 1;
        const int64_t total = (out[a] - 1) * w->stride[a] + span - in[a];
        if (total <= 0) continue;
        w->pad[a] = upper ? total / 2 : total - total / 2;
        w->pad_end[a] = total - w->pad[a];
    }
}

/* Transposed convolution with a given output size: the padding follows from it. */
static void set_transposed_pad(RefWindow *w, const Node *n, const int64_t *in, const int64_t *out)
{
    const bool upper = strcmp(node_str(n, "auto_pad", "NOTSET"), "SAME_UPPER") == 0;
    size_t count = 0;
    const int64_t *extra = node_ints(n, "output_padding", &count);
    for (int a = 0; a < 3; a++) {
        const int k = a - (3 - (int)count);
        const int64_t total = w->stride[a] * (out[a] - 1) + (extra && k >= 0 ? extra[k] : 0) +
                              (w->kernel[a] - 1) * w->dilation[a] + 1 - in[a];
        w->pad[a] = upper ? total / 2 : total - total / 2;
        w->pad_end[a] = total - w->pad[a];
    }
}

static void set_axes(const Node *n, const char *name, int spatial, int from, int64_t *to)
{
    size_t count = 0;
    const int64_t *list = node_ints(n, name, &count);
    for (int k = 0; list && k < spatial && from + k < (int)count; k++)
        to[3 - spatial + k] = list[from + k];
}

RefWindow ref_window(const Node *n, const Tensor *input, const Tensor *output, const Tensor *weight)
{
    RefWindow w = {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0}, {0}};
    const int spatial = input->rank - 2;
    const Tensor x = ref_image(input), y = ref_image(output);
    const char *mode = node_str(n, "auto_pad", "NOTSET");
    if (weight || !node_attr(n, "kernel_shape"))
        for (int a = 0; a < 3; a++)
            w.kernel[a] = weight ? ref_image(weight).dim[2 + a] : x.dim[2 + a];
    else
        set_axes(n, "kernel_shape", spatial, 0, w.kernel);
    set_axes(n, "strides", spatial, 0, w.stride);
    set_axes(n, "dilations", spatial, 0, w.dilation);
    set_axes(n, "pads", spatial, 0, w.pad);
    set_axes(n, "pads", spatial, spatial, w.pad_end);
    if (n->op != OP_ConvTranspose)
        set_auto_pad(&w, mode, x.dim + 2, y.dim + 2);
    else if (!node_attr(n, "pads") &&
             (strncmp(mode, "SAME", 4) == 0 || node_attr(n, "output_shape")))
        set_transposed_pad(&w, n, x.dim + 2, y.dim + 2);
    return w;
}
