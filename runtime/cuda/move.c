/* Ops that move elements: each is one or a few strided copies between views. */
#include <stdlib.h>
#include <string.h>

#include "ir/select.h"
#include "runtime/cuda/cuda.h"
#include "runtime/cuda/loops.h"

/* Whether pairs of elements can be moved as one. */
static bool may_double(const CopyArgs *a)
{
    const int in = a->loops - 1;
    const uintptr_t at = (uintptr_t)a->dst | (uintptr_t)a->src;
    if (a->size == 16 || a->to[in] != 1 || a->from[in] != 1 || a->dim[in] % 2 ||
        at % (2 * (uintptr_t)a->size))
        return false;
    for (int i = 0; i < in; i++)
        if (a->to[i] % 2 || a->from[i] % 2) return false;
    return true;
}

void cuda_copy(const Tensor *dst, const Tensor *src)
{
    const Tensor *t[2] = {dst, src};
    CopyArgs a = {.threads = tensor_count(dst), .dst = dst->data, .src = src->data};
    Loops l;
    if (a.threads == 0) return;
    loops_make(&l, 2, t);
    a.loops = l.n;
    a.size = (int)dtype_size(dst->dtype);
    for (int i = 0; i < l.n; i++) {
        a.dim[i] = l.dim[i];
        a.to[i] = l.stride[0][i];
        a.from[i] = l.stride[1][i];
    }
    while (may_double(&a)) {
        a.size *= 2;
        a.threads /= 2;
        a.dim[a.loops - 1] /= 2;
        for (int i = 0; i < a.loops - 1; i++) a.to[i] /= 2, a.from[i] /= 2;
    }
    gpu_launch(GPU_copy, &a);
}

void cuda_zero(const Tensor *dst)
{
    if (!cuda_is_dense(dst)) trap(TRAP_INTERNAL, "a tensor with gaps is to be cleared");
    gpu_zero(dst->data, (size_t)tensor_count(dst) * dtype_size(dst->dtype));
}

/* Arguments that say where must be constants, and padding constant. */
bool moves_can(const Device *d, const Node *n, const Tensor *in, const Tensor *out)
{
    const int first = n->op == OP_Concat || n->op == OP_Transpose ? n->nin : 1;
    (void)d, (void)out;
    if (n->op == OP_Pad && strcmp(node_str(n, "mode", "constant"), "constant") != 0) return false;
    if (n->op == OP_Split) return true; /* sizes are those of the outputs */
    for (int i = first; i < n->nin; i++)
        if (in[i].rank >= 0 && !in[i].data && !(n->op == OP_Pad && i == 2)) return false;
    return true;
}

int cuda_transpose_prepare(Prepare *p)
{
    p->state = NULL;
    return 0;
}

void cuda_transpose_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                        void *scratch)
{
    const Tensor x = tensor_transposed(n, &in[0], &out[0]);
    (void)state, (void)scratch;
    cuda_copy(&out[0], &x);
}

void cuda_reshape_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                      void *scratch)
{
    (void)n, (void)state;
    tensor_reshape(cuda_copy, &in[0], &out[0], scratch);
}

/* ---- joining and cutting ------------------------------------------------------------------ */

int cuda_concat_prepare(Prepare *p)
{
    p->state = NULL;
    return 0;
}

void cuda_concat_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                     void *scratch)
{
    const int axis = axis_index(node_int(n, "axis", 0), out[0].rank);
    int64_t start = 0;
    (void)state, (void)scratch;
    for (int i = 0; i < n->nin; start += in[i++].dim[axis]) {
        const Tensor y = tensor_section(&out[0], axis, start, in[i].dim[axis]);
        cuda_copy(&y, &in[i]);
    }
}

int cuda_split_prepare(Prepare *p)
{
    p->state = NULL;
    return 0;
}

void cuda_split_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                    void *scratch)
{
    const int axis = axis_index(node_int(n, "axis", 0), in[0].rank);
    int64_t start = 0;
    (void)state, (void)scratch;
    for (int i = 0; i < n->nout; i++) {
        if (!n->out[i]) continue; /* the first ones are never omitted alone */
        const Tensor x = tensor_section(&in[0], axis, start, out[i].dim[axis]);
        cuda_copy(&out[i], &x);
        start += out[i].dim[axis];
    }
}

/* What a Slice picks, read once from its constants: the view of `whole` without data. */
typedef struct View {
    Tensor whole; /* offset in elements, and the picked part's sizes and strides */
    int64_t offset;
} View;

static int64_t int_at(const Tensor *t, int64_t k)
{
    return element_load_int(t, t->rank ? k * t->stride[0] : 0);
}

static View *slice_view(const Tensor *in, int nin, const Tensor *whole, const Tensor *part)
{
    const Tensor *axes = nin > 3 && in[3].data ? &in[3] : NULL;
    const Tensor *steps = nin > 4 && in[4].data ? &in[4] : NULL;
    View *v = cuda_state(sizeof *v);
    v->whole = *whole;
    for (int64_t k = 0; k < tensor_count(&in[1]); k++) {
        const int a = axis_index(axes ? int_at(axes, k) : k, whole->rank);
        const int64_t size = whole->dim[a], step = steps ? int_at(steps, k) : 1;
        int64_t start = int_at(&in[1], k), end = step < 0 ? -1 : size;
        slice_clamp(size, &start, &end, step);
        v->offset += start * whole->stride[a];
        v->whole.stride[a] = step * whole->stride[a];
    }
    for (int i = 0; i < v->whole.rank; i++) v->whole.dim[i] = part->dim[i];
    return v;
}

static Tensor view_of(const View *v, const Tensor *whole)
{
    Tensor t = v->whole;
    t.data = whole->data;
    return tensor_at(&t, v->offset);
}

int cuda_slice_prepare(Prepare *p)
{
    p->state = slice_view(p->in, p->nin, &p->in[0], &p->out[0]);
    return 0;
}

void cuda_slice_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                    void *scratch)
{
    (void)n, (void)scratch;
    if (tensor_count(&out[0]) == 0) return;
    const Tensor x = view_of(state, &in[0]);
    cuda_copy(&out[0], &x);
}

int cuda_slice_grad_prepare(Prepare *p)
{
    p->state = slice_view(p->in, p->nin, &p->out[0], &p->in[0]);
    return 0;
}

void cuda_slice_grad_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                         void *scratch)
{
    (void)n, (void)scratch;
    cuda_zero(&out[0]);
    if (tensor_count(&in[0]) == 0) return;
    const Tensor y = view_of(state, &out[0]);
    cuda_copy(&y, &in[0]);
}

/* Padding: fill, then copy what of the input lies inside (negative pads cut). */
typedef struct Pad {
    Tensor x, y; /* the parts, without data */
    int64_t from, to;
    bool empty;
} Pad;

int cuda_pad_prepare(Prepare *p)
{
    Pad *s = cuda_state(sizeof *s);
    const Tensor *axes = p->nin > 3 && p->in[3].data ? &p->in[3] : NULL;
    const int64_t count = tensor_count(&p->in[1]) / 2;
    p->state = s;
    s->x = p->in[0];
    s->y = p->out[0];
    for (int64_t k = 0; k < count; k++) {
        const int a = axis_index(axes ? int_at(axes, k) : k, s->x.rank);
        const int64_t begin = int_at(&p->in[1], k), skip = begin < 0 ? -begin : 0;
        const int64_t at = begin > 0 ? begin : 0;
        int64_t size = p->in[0].dim[a] - skip;
        if (size > p->out[0].dim[a] - at) size = p->out[0].dim[a] - at;
        s->empty |= size <= 0;
        s->from += skip * s->x.stride[a];
        s->to += at * s->y.stride[a];
        s->x.dim[a] = s->y.dim[a] = size;
    }
    return 0;
}

void cuda_pad_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                  void *scratch)
{
    const Pad *s = state;
    const Tensor *value = optional(n, in, 2);
    Tensor x = s->x, y = s->y;
    (void)scratch;
    if (value && tensor_count(value) > 0) {
        const Tensor one = {.dtype = value->dtype, .rank = 0, .data = value->data};
        cuda_copy(&out[0], &one);
    } else {
        cuda_zero(&out[0]);
    }
    if (s->empty) return;
    x.data = in[0].data;
    y.data = out[0].data;
    x = tensor_at(&x, s->from);
    y = tensor_at(&y, s->to);
    cuda_copy(&y, &x);
}
