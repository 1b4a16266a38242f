/* Convolutions in one or two dimensions, by the library behind gpu.h.
 *
 * Conv, ConvTranspose and ConvWgrad are the three results of one forward convolution from src
 * [N,C,H,W] through weights [O,C/g,kh,kw] to dst [N,O,P,Q] (runtime/cpu/conv.c). The library wants
 * all three channels-last, of one type, with pads that are the same on both sides, and is fast only
 * with channels in multiples of 8 (F16) or 4 (TF32). An operand that is not so is staged: copied
 * to, or from, a form in scratch that is, zeros around it. Constant weights are staged once. */
#include <stdlib.h>
#include <string.h>

#include "ir/window.h"
#include "runtime/cuda/cuda.h"

enum Role { SRC, WEIGHTS, DST, ROLES };

/* One operand and its staged form. */
typedef struct Stage {
    Tensor own, staged;        /* rank 4, no data */
    bool used, zero;           /* zero: the copy leaves gaps */
    Tensor from, to;           /* the parts of both that are copied: own's and staged's */
    int64_t own_at, staged_at; /* where they begin, in elements */
    Convert convert;
    size_t scratch; /* offset of the staged form */
} Stage;

typedef struct Conv {
    GpuConvKind kind;
    Stage role[ROLES];
    GpuConvPlan *plan;
    bool biased;
    Convert bias;
    Tensor bias_view;       /* as it broadcasts to the result */
    size_t library;         /* offset of the library's scratch */
    void *constant_weights; /* staged, on the device; NULL: staged at each run */
} Conv;

/* ---- geometry --------------------------------------------------------------------------- */

/* A rank of 4: [N,C,W] gets H = 1. */
static Tensor planar(const Tensor *t)
{
    Tensor v = *t;
    if (t->rank != 3) return v;
    v.rank = 4;
    v.dim[3] = t->dim[2];
    v.stride[3] = t->stride[2];
    v.dim[2] = 1;
    v.stride[2] = t->dim[2] * t->stride[2];
    return v;
}

static GpuConvKind kind_of(const Node *n)
{
    return n->op == OP_Conv            ? GPU_FORWARD
           : n->op == OP_ConvTranspose ? GPU_BY_DATA
                                       : GPU_BY_WEIGHTS;
}

/* Fills the roles' own tensors. */
static void set_roles(Stage *role, const Node *n, const Tensor *in, const Tensor *out)
{
    static const int place[3][ROLES] = {{0, 1, 2}, {2, 1, 0}, {0, 2, 1}}; /* 2: the output */
    for (int r = 0; r < ROLES; r++) {
        const int at = place[kind_of(n)][r];
        role[r].own = planar(at == 2 ? &out[0] : &in[at]);
        role[r].own.data = NULL;
    }
}

static int64_t rounded_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static void set_stage(Stage *s, int64_t outer, int64_t inner, DType storage)
{
    Tensor *t = &s->staged;
    s->staged = s->own;
    t->dtype = storage;
    t->dim[0] = outer;
    t->dim[1] = inner;
    tensor_set_strides(t, true);
}

/* Cuts both to what they share, staged beginning `lead` before own. False if that is nothing. */
static bool align_axis(Stage *s, int axis, int64_t lead)
{
    const int64_t from = lead < 0 ? -lead : 0, to = lead > 0 ? lead : 0;
    int64_t size = s->own.dim[axis] - from;
    if (size > s->staged.dim[axis] - to) size = s->staged.dim[axis] - to;
    s->own_at += from * s->own.stride[axis];
    s->staged_at += to * s->staged.stride[axis];
    s->from.dim[axis] = s->to.dim[axis] = size;
    return size > 0;
}

static bool finish_stage(Stage *s, const int64_t *lead)
{
    bool whole = true;
    s->from = s->own;
    s->to = s->staged;
    for (int i = 0; i < 4; i++) {
        whole &= s->own.dim[i] == s->staged.dim[i];
        if (!align_axis(s, i, i >= 2 ? lead[i - 2] : 0)) return false;
        s->zero |= s->to.dim[i] != s->staged.dim[i];
    }
    s->used = !whole || s->own.dtype != s->staged.dtype || !tensor_is_channels_last(&s->own);
    return true;
}

static bool window_of(const Node *n, Window *w)
{
    Diag quiet = {0};
    if (node_window(n, w, &quiet) < 0 || w->n > 2) return false;
    if (w->n == 2) return true;
    w->n = 2; /* one axis: the second of two */
    w->kernel[1] = w->kernel[0], w->stride[1] = w->stride[0], w->dilation[1] = w->dilation[0];
    w->pad[1] = w->pad[0];
    w->kernel[0] = w->stride[0] = w->dilation[0] = 1;
    w->pad[0] = 0;
    return true;
}

/* Pads of the library, and how far the staged src begins before its own. */
static void set_pads(GpuConv *g, const Window *w, Stage *role, int64_t *lead)
{
    bool plain = true;
    int64_t covered[2];
    for (int i = 0; i < 2; i++) {
        const int64_t extent = (w->kernel[i] - 1) * w->dilation[i] + 1,
                      h = role[SRC].own.dim[i + 2];
        const int64_t p = role[DST].own.dim[i + 2];
        covered[i] = (p - 1) * w->stride[i] + extent;
        plain &= w->pad[i] >= 0 && h + 2 * w->pad[i] >= extent &&
                 (h + 2 * w->pad[i] - extent) / w->stride[i] + 1 == p;
    }
    for (int i = 0; i < 2; i++) {
        lead[i] = plain ? 0 : w->pad[i];
        g->pad[i] = plain ? (int)w->pad[i] : 0;
        if (!plain) role[SRC].staged.dim[i + 2] = covered[i];
    }
    if (!plain) tensor_set_strides(&role[SRC].staged, true);
}

/* The library's problem and the stages; false if it is none of its. */
static bool describe(GpuConv *g, Stage *role, const Node *n, const Tensor *in, const Tensor *out,
                     const Device *device)
{
    static const int64_t none[2] = {0, 0};
    Window w;
    int64_t lead[2];
    memset(g, 0, sizeof *g);
    if (in[0].rank < 3 || in[0].rank > 4 || !window_of(n, &w)) return false;
    set_roles(role, n, in, out);
    for (int r = 0; r < ROLES; r++)
        if (!cuda_is_float(role[r].own.dtype) || tensor_count(&role[r].own) == 0 ||
            tensor_count(&role[r].own) > INT32_MAX / 2)
            return false;
    const bool same = in[0].dtype == in[1].dtype && gpu_multiplies(in[0].dtype);
    const DType storage = same ? in[0].dtype : DT_F32;
    const bool half = storage != DT_F32;
    const int64_t group = node_int(n, "group", 1), c = role[SRC].own.dim[1],
                  o = role[DST].own.dim[1],
                  multiple = group > 1      ? 1
                             : half         ? 8
                             : device->tf32 ? 4
                                            : 1;
    const int64_t c8 = rounded_up(c, multiple), o8 = rounded_up(o, multiple);
    set_stage(&role[SRC], role[SRC].own.dim[0], c8, storage);
    set_stage(&role[WEIGHTS], o8, c8 / group, storage);
    set_stage(&role[DST], role[DST].own.dim[0], o8, storage);
    set_pads(g, &w, role, lead);
    const int64_t *s = role[SRC].staged.dim, *d = role[DST].staged.dim;
    *g = (GpuConv){.kind = kind_of(n),
                   .storage = storage,
                   .tf32 = device->tf32,
                   .deterministic = device->deterministic,
                   .n = (int)s[0],
                   .c = (int)s[1],
                   .h = (int)s[2],
                   .w = (int)s[3],
                   .o = (int)d[1],
                   .p = (int)d[2],
                   .q = (int)d[3],
                   .kh = (int)w.kernel[0],
                   .kw = (int)w.kernel[1],
                   .group = (int)group,
                   .pad = {g->pad[0], g->pad[1]}};
    for (int i = 0; i < 2; i++) {
        g->stride[i] = (int)w.stride[i];
        g->dilation[i] = (int)w.dilation[i];
    }
    return finish_stage(&role[SRC], lead) && finish_stage(&role[WEIGHTS], none) &&
           finish_stage(&role[DST], none);
}

bool conv_can(const Device *d, const Node *n, const Tensor *in, const Tensor *out)
{
    GpuConv g;
    Stage role[ROLES] = {0};
    size_t scratch;
    if (!describe(&g, role, n, in, out, d)) return false;
    GpuConvPlan *plan = gpu_conv_create(&g, &scratch);
    if (plan) gpu_conv_destroy(plan);
    return plan != NULL;
}

/* ---- preparing -------------------------------------------------------------------------- */

static int result_role(GpuConvKind kind)
{
    return kind == GPU_FORWARD ? DST : kind == GPU_BY_DATA ? SRC : WEIGHTS;
}

static size_t bytes_of(const Tensor *t)
{
    return ((size_t)tensor_count(t) * dtype_size(t->dtype) + 255) & ~(size_t)255;
}

static Tensor with_data(const Tensor *t, void *data, int64_t at)
{
    Tensor v = *t;
    v.data = data;
    return tensor_at(&v, at);
}

/* Constant weights, staged on the host. */
static void stage_constant(Conv *s, const void *data)
{
    const Stage *w = &s->role[WEIGHTS];
    const size_t size = bytes_of(&w->staged);
    char *host = cuda_state(size);
    const Tensor from = with_data(&w->from, (void *)(uintptr_t)data, w->own_at);
    const Tensor to = with_data(&w->to, host, w->staged_at);
    tensor_copy(&from, &to);
    s->constant_weights = gpu_alloc(size);
    if (s->constant_weights) gpu_upload(s->constant_weights, host, size);
    free(host);
    if (!s->constant_weights) trap(TRAP_NO_MEMORY, "out of memory on the device for weights");
}

static void prepare_bias(Conv *s, const Prepare *p)
{
    const Stage *r = &s->role[result_role(s->kind)];
    s->biased = p->nin > 2 && p->in[2].rank >= 0;
    if (!s->biased) return;
    s->bias_view = along_axis(&p->in[2], 1, 4);
    convert_make_at(&s->bias, r->used ? &r->to : &r->own, r->used ? r->staged_at : 0, &s->bias_view,
                    0);
}

int cuda_conv_prepare(Prepare *p)
{
    Conv *s = cuda_state(sizeof *s);
    GpuConv g;
    size_t library = 0, at = 0;
    p->state = s;
    s->kind = kind_of(p->node);
    if (!describe(&g, s->role, p->node, p->in, p->out, p->device) ||
        !(s->plan = gpu_conv_create(&g, &library)))
        return node_error(p->diag, p->node, "the GPU's library has no algorithm for this shape");
    const int result = result_role(s->kind);
    if (result != WEIGHTS && p->const_data[1] && s->role[WEIGHTS].used)
        stage_constant(s, p->const_data[1]);
    for (int r = 0; r < ROLES; r++) {
        Stage *t = &s->role[r];
        if (!t->used) continue;
        t->scratch = at;
        at += bytes_of(&t->staged);
        if (r == result)
            convert_make_at(&t->convert, &t->from, t->own_at, &t->to, t->staged_at);
        else
            convert_make_at(&t->convert, &t->to, t->staged_at, &t->from, t->own_at);
    }
    prepare_bias(s, p);
    s->library = at;
    p->scratch = at + library;
    return 0;
}

void cuda_conv_release(void *state)
{
    Conv *s = state;
    if (s->plan) gpu_conv_destroy(s->plan);
    if (s->constant_weights) gpu_release(s->constant_weights);
    free(s);
}

/* ---- running ---------------------------------------------------------------------------- */

/* The operand as the library reads it. */
static const void *staged_input(const Stage *s, void *data, char *scratch)
{
    if (!s->used) return data;
    const Tensor from = with_data(&s->from, data, s->own_at);
    const Tensor to = with_data(&s->to, scratch + s->scratch, s->staged_at);
    if (s->zero) gpu_zero(scratch + s->scratch, bytes_of(&s->staged));
    convert_run(&s->convert, &to, &from);
    return scratch + s->scratch;
}

/* Puts the bias where the sum will be added to it. */
static void preload_bias(const Conv *s, const Stage *r, void *result, void *bias)
{
    const Tensor to = with_data(r->used ? &r->to : &r->own, result, r->used ? r->staged_at : 0);
    Tensor from = s->bias_view;
    from.data = bias;
    if (r->used && r->zero) gpu_zero(result, bytes_of(&r->staged));
    convert_run(&s->bias, &to, &from);
}

void cuda_conv_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                   void *scratch)
{
    const Conv *s = state;
    const int kind = (int)s->kind, result = result_role(s->kind);
    const int first = kind == GPU_BY_DATA ? WEIGHTS : SRC,
              second = first == SRC && kind == GPU_FORWARD ? WEIGHTS : DST;
    void *data[ROLES];
    const Stage *r = &s->role[result];
    const void *operand[ROLES] = {0};
    data[result] = out[0].data;
    data[first] = in[kind == GPU_BY_DATA ? 1 : 0].data;
    data[second] = in[kind == GPU_BY_DATA ? 0 : 1].data;
    for (int k = 0; k < ROLES; k++)
        if (k != result)
            operand[k] = k == WEIGHTS && s->constant_weights
                             ? s->constant_weights
                             : staged_input(&s->role[k], data[k], scratch);
    void *y = r->used ? (char *)scratch + r->scratch : out[0].data;
    (void)n;
    if (s->biased) preload_bias(s, r, y, in[2].data);
    gpu_conv_run(s->plan, operand[first], operand[second], s->biased ? 1.f : 0.f, y,
                 (char *)scratch + s->library);
    if (!r->used) return;
    const Tensor from = with_data(&r->to, y, r->staged_at);
    const Tensor to = with_data(&r->from, out[0].data, r->own_at);
    if (tensor_count(&to) < tensor_count(&out[0])) cuda_zero(&out[0]);
    convert_run(&r->convert, &to, &from);
}
