/* Ops that move elements: each is one or a few strided copies between views (copy.c). */
#include "ir/select.h"
#include "runtime/blocks.h"
#include "runtime/cpu/cpu.h"

#include <string.h>

static int64_t int_at(const Tensor *t, int64_t k)
{
    return element_load_int(t, t->rank ? k * t->stride[0] : 0);
}

/* What the plan asks for: equal shapes, any strides and types; the node is not of this op. */
void cpu_plan_copy_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                       void *scratch)
{
    (void)n, (void)state, (void)scratch;
    if (in[0].dtype == out[0].dtype)
        cpu_copy(&out[0], &in[0]);
    else if (block_dtype(in[0].dtype) && block_dtype(out[0].dtype))
        cpu_convert(&out[0], &in[0]);
    else
        tensor_copy(&in[0], &out[0]);
}

void cpu_identity_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                      void *scratch)
{
    if (in[0].data != out[0].data) cpu_plan_copy_run(n, state, in, out, scratch);
}

/* ---- shapes -------------------------------------------------------------------------- */

void cpu_reshape_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                     void *scratch)
{
    (void)n, (void)state;
    tensor_reshape(cpu_copy, &in[0], &out[0], scratch);
}

void cpu_transpose_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                       void *scratch)
{
    const Tensor x = tensor_transposed(n, &in[0], &out[0]);
    (void)state, (void)scratch;
    cpu_copy(&out[0], &x);
}

/* ---- joining and cutting ------------------------------------------------------------- */

void cpu_concat_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                    void *scratch)
{
    int axis = axis_index(node_int(n, "axis", 0), out[0].rank);
    int64_t start = 0;
    (void)state, (void)scratch;
    for (int i = 0; i < n->nin; i++) {
        Tensor y = tensor_section(&out[0], axis, start, in[i].dim[axis]);
        cpu_copy(&y, &in[i]);
        start += in[i].dim[axis];
    }
}

void cpu_split_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                   void *scratch)
{
    int axis = axis_index(node_int(n, "axis", 0), in[0].rank);
    int64_t start = 0;
    (void)state, (void)scratch;
    for (int i = 0; i < n->nout; i++) {
        if (!n->out[i]) continue; /* the first ones are never omitted alone */
        Tensor x = tensor_section(&in[0], axis, start, out[i].dim[axis]);
        cpu_copy(&out[i], &x);
        start += out[i].dim[axis];
    }
}

/* What a Slice picks from `whole`, seen in place; `part` has the size. in: the node's inputs. */
static Tensor slice_view(const Node *n, const Tensor *in, const Tensor *whole, const Tensor *part)
{
    Tensor v = *whole;
    const Tensor *axes = optional(n, in, 3), *steps = optional(n, in, 4);
    int64_t count = tensor_count(&in[1]), offset = 0;
    for (int64_t k = 0; k < count; k++) {
        int a = axis_index(axes ? int_at(axes, k) : k, whole->rank);
        int64_t size = whole->dim[a], step = steps ? int_at(steps, k) : 1;
        int64_t start = int_at(&in[1], k), top = step < 0 ? size - 1 : size;
        if (start < 0) start += size;
        start = start < 0 ? 0 : start > top ? top : start;
        offset += start * whole->stride[a];
        v.stride[a] = step * whole->stride[a];
    }
    for (int i = 0; i < v.rank; i++) v.dim[i] = part->dim[i];
    return tensor_at(&v, offset);
}

void cpu_slice_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                   void *scratch)
{
    (void)state, (void)scratch;
    if (tensor_count(&out[0]) == 0) return;
    Tensor x = slice_view(n, in, &in[0], &out[0]);
    cpu_copy(&out[0], &x);
}

void cpu_slice_grad_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                        void *scratch)
{
    (void)state, (void)scratch;
    cpu_fill_zero(&out[0]);
    if (tensor_count(&in[0]) == 0) return;
    Tensor y = slice_view(n, in, &out[0], &in[0]);
    cpu_copy(&y, &in[0]);
}

/* The input goes inside; then, axis by axis, each line of the margin is a copy of one that is
 * there, as far as the axes before are done. */
static void pad_by_lines(const Tensor *in, const Tensor *out, const int64_t *before,
                         const char *mode)
{
    Tensor y = *out;
    for (int a = 0; a < in->rank; a++) y = tensor_section(&y, a, before[a], in->dim[a]);
    cpu_copy(&y, in);
    for (int a = 0; a < in->rank; a++) {
        y = *out;
        for (int b = a + 1; b < in->rank; b++) y = tensor_section(&y, b, before[b], in->dim[b]);
        for (int64_t i = 0; i < out->dim[a]; i++) {
            const int64_t source = pad_source(mode, i - before[a], in->dim[a]);
            const Tensor to = tensor_section(&y, a, i, 1),
                         from = tensor_section(&y, a, before[a] + source, 1);
            if (source != i - before[a]) cpu_copy(&to, &from);
        }
    }
}

/* Constant padding: fill, then copy what of the input lies inside (negative pads cut). */
void cpu_pad_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                 void *scratch)
{
    const Tensor *value = optional(n, in, 2), *axes = optional(n, in, 3);
    const char *mode = node_str(n, "mode", "constant");
    int64_t count = tensor_count(&in[1]) / 2, before[MAX_RANK] = {0};
    Tensor x = in[0], y = out[0];
    if (strcmp(mode, "constant") != 0) {
        bool cuts = tensor_count(in) == 0;
        for (int64_t k = 0; k < count; k++) {
            before[axis_index(axes ? int_at(axes, k) : k, x.rank)] = int_at(&in[1], k);
            cuts |= int_at(&in[1], k) < 0 || int_at(&in[1], k + count) < 0;
        }
        if (cuts)
            cpu_naive_run(n, state, in, out, scratch);
        else
            pad_by_lines(in, out, before, mode);
        return;
    }
    if (value && tensor_count(value) > 0) {
        Tensor one = {.dtype = value->dtype, .rank = 0, .data = value->data};
        cpu_copy(&out[0], &one);
    } else {
        cpu_fill_zero(&out[0]);
    }
    for (int64_t k = 0; k < count; k++) {
        int a = axis_index(axes ? int_at(axes, k) : k, x.rank);
        int64_t begin = int_at(&in[1], k), skip = begin < 0 ? -begin : 0;
        int64_t from = begin > 0 ? begin : 0, size = in[0].dim[a] - skip;
        if (size > out[0].dim[a] - from) size = out[0].dim[a] - from;
        if (size <= 0) return;
        x = tensor_section(&x, a, skip, size);
        y = tensor_section(&y, a, from, size);
    }
    cpu_copy(&y, &x);
}

/* A repeated axis is two, the copies and what is copied: the first does not move in the input. */
void cpu_tile_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                  void *scratch)
{
    Tensor x = in[0], y = out[0];
    x.rank = 0;
    for (int a = 0; a < in->rank && tensor_count(out) > 0; a++) {
        const int64_t size = in->dim[a], times = out->dim[a] / size;
        if (x.rank + (times > 1) >= MAX_RANK) {
            cpu_naive_run(n, state, in, out, scratch);
            return;
        }
        if (times > 1) {
            x.stride[x.rank] = 0;
            y.stride[x.rank] = size * out->stride[a];
            x.dim[x.rank] = y.dim[x.rank] = times;
            x.rank++;
        }
        x.stride[x.rank] = in->stride[a];
        y.stride[x.rank] = out->stride[a];
        x.dim[x.rank] = y.dim[x.rank] = size;
        x.rank++;
    }
    y.rank = x.rank;
    if (tensor_count(out) > 0) cpu_copy(&y, &x);
}

/* ---- by index ------------------------------------------------------------------------ */

/* t without axes [axis, axis + drop), at an offset: what one index selects. */
static Tensor without_axes(const Tensor *t, int axis, int drop, int64_t offset)
{
    Tensor v = tensor_at(t, offset);
    v.rank = t->rank - drop;
    for (int i = axis; i < v.rank; i++)
        v.dim[i] = t->dim[i + drop], v.stride[i] = t->stride[i + drop];
    return v;
}

typedef struct Picked {
    Tensor whole, part; /* of what is indexed, and of what has the indices' axes */
} Picked;

/* The two views of the k-th index in row-major order; wide: has the indices' axes. */
static Picked pick(const Tensor *whole, const Tensor *wide, const Tensor *indices, int axis,
                   int64_t k)
{
    int64_t at = 0, in_index = 0;
    for (int a = indices->rank - 1; a >= 0; a--) {
        int64_t i = k % indices->dim[a];
        k /= indices->dim[a];
        in_index += i * indices->stride[a];
        at += i * wide->stride[axis + a];
    }
    int64_t size = whole->dim[axis], i = element_load_int(indices, in_index);
    if (i < 0) i += size;
    if (i < 0 || i >= size) i = 0; /* a wrong index never reads outside */
    return (Picked){without_axes(whole, axis, 1, i * whole->stride[axis]),
                    without_axes(wide, axis, indices->rank, at)};
}

void cpu_gather_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                    void *scratch)
{
    int axis = axis_index(node_int(n, "axis", 0), in[0].rank);
    int64_t count = tensor_count(&in[1]);
    (void)state, (void)scratch;
    for (int64_t k = 0; k < count && tensor_count(&out[0]) > 0; k++) {
        Picked p = pick(&in[0], &out[0], &in[1], axis, k);
        cpu_copy(&p.part, &p.whole);
    }
}

/* Rows added in the order of the indices. */
void cpu_gather_grad_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                         void *scratch)
{
    int axis = axis_index(node_int(n, "axis", 0), out[0].rank);
    int64_t count = tensor_count(&in[1]);
    (void)state, (void)scratch;
    cpu_fill_zero(&out[0]);
    for (int64_t k = 0; k < count && tensor_count(&in[0]) > 0; k++) {
        Picked p = pick(&out[0], &in[0], &in[1], axis, k);
        cpu_add_into(&p.whole, &p.part);
    }
}

void cpu_blocks_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                    void *scratch)
{
    Tensor from, to;
    (void)state, (void)scratch;
    block_views(n, &in[0], &out[0], &from, &to);
    cpu_copy(&to, &from);
}
