/* Convolutions by oneDNN on channels-last activations, in one, two or three dimensions.
 *
 *   Conv            y = w * x + b                 forward
 *   ConvTranspose   y = w^T * x + b               backward by data; b is added afterwards
 *   ConvWgrad       dw from x, dy                 backward by weights
 *
 * All three describe one forward convolution from `src` [N,I,p…] through `weights`
 * [O,I/g,k…] to `dst` [N,O,q…]; they differ in which of the three is computed. The upper
 * padding given to oneDNN follows from the sizes, so that q = (p + lo + hi - extent)/s + 1
 * holds exactly and an output_padding needs no care. Weights take the layout that oneDNN
 * asks for: constants once, others at each run (they are small beside the activations).
 * What oneDNN refuses (negative pads, empty tensors) goes to the naive kernel. BF16 is computed
 * with as it is where the CPU can (sums in F32); else, as F16, by way of F32. */
#include "ir/window.h"
#include "runtime/cpu/cpu.h"
#include "runtime/cpu/primitive.h"

#include <stdlib.h>
#include <string.h>

/* The operands of the forward convolution among a node's tensors. */
typedef struct ConvRoles {
    ConvKind kind;
    const Tensor *src, *weights, *bias, *dst;
    int group;
} ConvRoles;

static ConvRoles conv_roles(const Prepare *p)
{
    ConvRoles r = {.group = (int)node_int(p->node, "group", 1)};
    const Tensor *bias = p->nin > 2 && p->in[2].rank >= 0 ? &p->in[2] : NULL;
    switch (p->node->op) {
    case OP_Conv:
        r = (ConvRoles){CONV_FORWARD, &p->in[0], &p->in[1], bias, &p->out[0], r.group};
        break;
    case OP_ConvTranspose:
        r = (ConvRoles){CONV_BY_DATA, &p->out[0], &p->in[1], NULL, &p->in[0], r.group};
        break;
    default:
        r = (ConvRoles){CONV_BY_WEIGHTS, &p->in[0], &p->out[0], NULL, &p->in[1], r.group};
    }
    return r;
}

/* Stride, dilation and pads as oneDNN wants them; false if it will not have them. */
static bool conv_shape(ConvShape *c, const Prepare *p, const ConvRoles *r)
{
    Window w;
    memset(c, 0, sizeof *c);
    if (node_window(p->node, &w, p->diag) < 0) return false;
    for (int i = 0; i < w.n; i++) {
        int64_t extent = (w.kernel[i] - 1) * w.dilation[i] + 1;
        c->stride[i] = w.stride[i];
        c->dilation[i] = w.dilation[i] - 1;
        c->pad_lo[i] = w.pad[i];
        c->pad_hi[i] =
            (r->dst->dim[i + 2] - 1) * w.stride[i] + extent - r->src->dim[i + 2] - w.pad[i];
        if (c->pad_lo[i] < 0 || c->pad_hi[i] <= -c->stride[i]) return false;
    }
    return tensor_count(r->src) > 0 && tensor_count(r->dst) > 0 && tensor_count(r->weights) > 0;
}

static dnnl_data_type_t dnnl_type(DType t) { return t == DT_BF16 ? dnnl_bf16 : dnnl_f32; }

/* The strides of a dense tensor where only axes of size 1 differ from them (what oneDNN
 * recognizes), else the tensor's own. */
static int describe(MemDesc *md, const Tensor *t, bool channels_last)
{
    dnnl_dims_t dim = {0}, stride = {0};
    Tensor dense = *t;
    bool like = channels_last ? tensor_is_channels_last(t) : tensor_is_row_major(t);
    if (like) tensor_set_strides(&dense, channels_last);
    for (int i = 0; i < t->rank; i++) dim[i] = t->dim[i], stride[i] = dense.stride[i];
    return md_strided(md, t->rank, dim, dnnl_type(t->dtype), stride) == dnnl_success ? 0 : -1;
}

static int describe_channels_last(MemDesc *md, const Tensor *t)
{
    Tensor dense = *t;
    tensor_set_strides(&dense, true);
    return describe(md, &dense, true);
}

/* Weights [O,I/g,k…] become [g,O/g,I/g,k…] for oneDNN when there are groups. */
static Tensor grouped_weights(const Tensor *w, int group)
{
    if (group == 1) return *w;
    Tensor t = *w;
    t.rank++;
    for (int i = 1; i < t.rank; i++) t.dim[i] = w->dim[i - 1], t.stride[i] = w->stride[i - 1];
    t.dim[0] = group;
    t.dim[1] = w->dim[0] / group;
    t.stride[0] = t.dim[1] * w->stride[0];
    return t;
}

typedef struct ConvDescs {
    MemDesc src, weights, bias, dst;          /* given to oneDNN */
    MemDesc user_src, user_weights, user_dst; /* as the tensors lie */
} ConvDescs;

static int describe_all(ConvDescs *d, const ConvRoles *r)
{
    Tensor w = grouped_weights(r->weights, r->group);
    dnnl_dims_t wdim = {0};
    for (int i = 0; i < w.rank; i++) wdim[i] = w.dim[i];
    if (md_any(&d->weights, w.rank, wdim, dnnl_type(w.dtype)) != dnnl_success) return -1;
    if (r->bias) TRY(describe(&d->bias, r->bias, false));
    TRY(describe(&d->user_weights, &w, false));
    TRY(describe(&d->user_src, r->src, true));
    TRY(describe(&d->user_dst, r->dst, true));
    TRY(describe_channels_last(&d->src, r->src));
    return describe_channels_last(&d->dst, r->dst);
}

static void free_descs(ConvDescs *d)
{
    MemDesc *all[] = {&d->src,      &d->weights,      &d->bias,    &d->dst,
                      &d->user_src, &d->user_weights, &d->user_dst};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) md_free(all[i]);
}

/* Operands in the order in which conv_run passes their data. */
static int add_operands(Primitive *q, dnnl_primitive_desc_t pd, const ConvRoles *r,
                        const ConvDescs *d, const Prepare *p)
{
    const void *w = p->const_data ? p->const_data[1] : NULL;
    switch (r->kind) {
    case CONV_FORWARD:
        TRY(primitive_operand(q, pd, DNNL_ARG_SRC, &d->user_src, NULL));
        TRY(primitive_operand(q, pd, DNNL_ARG_WEIGHTS, &d->user_weights, w));
        TRY(primitive_operand(q, pd, DNNL_ARG_DST, &d->user_dst, NULL));
        if (!r->bias) return 0;
        return primitive_operand(q, pd, DNNL_ARG_BIAS, &d->bias, NULL);
    case CONV_BY_DATA:
        TRY(primitive_operand(q, pd, DNNL_ARG_DIFF_DST, &d->user_dst, NULL));
        TRY(primitive_operand(q, pd, DNNL_ARG_WEIGHTS, &d->user_weights, w));
        return primitive_operand(q, pd, DNNL_ARG_DIFF_SRC, &d->user_src, NULL);
    default:
        TRY(primitive_operand(q, pd, DNNL_ARG_SRC, &d->user_src, NULL));
        TRY(primitive_operand(q, pd, DNNL_ARG_DIFF_DST, &d->user_dst, NULL));
        return primitive_operand(q, pd, DNNL_ARG_DIFF_WEIGHTS, &d->user_weights, NULL);
    }
}

static int create(Primitive *q, const ConvRoles *r, const ConvShape *shape, const ConvDescs *d,
                  const Prepare *p)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t hint = NULL, pd = NULL;
    const MemDesc *bias = r->bias ? &d->bias : NULL;
    int status = -1;
    if (dnnl_engine_create(&q->engine, dnnl_cpu, 0) != dnnl_success) return -1;
    if (primitive_attr(&attr) != dnnl_success) return -1;
    dnnl_status_t s = conv_desc(&hint, CONV_FORWARD, q->engine, &d->src, &d->weights, bias, &d->dst,
                                shape, NULL, attr);
    if (s == dnnl_success && r->kind != CONV_FORWARD)
        s = conv_desc(&pd, r->kind, q->engine, &d->src, &d->weights, NULL, &d->dst, shape, hint,
                      attr);
    dnnl_primitive_desc_t use = r->kind == CONV_FORWARD ? hint : pd;
    if (s == dnnl_success && add_operands(q, use, r, d, p) == 0) status = primitive_finish(q, use);
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (hint) dnnl_primitive_desc_destroy(hint);
    dnnl_primitive_attr_destroy(attr);
    return status;
}

/* Describes and creates the primitive; false if oneDNN does not take these types or shapes. */
static bool make_primitive(Primitive *q, const Prepare *p)
{
    ConvRoles r = conv_roles(p);
    ConvDescs d = {0};
    ConvShape shape;
    int threads = single_thread_begin();
    bool made =
        conv_shape(&shape, p, &r) && describe_all(&d, &r) == 0 && create(q, &r, &shape, &d, p) == 0;
    single_thread_end(threads);
    free_descs(&d);
    return made;
}

/* ---- half storage ------------------------------------------------------------------- */

enum { IN_X, IN_W, IN_BIAS, OUT, OPERANDS };

/* What oneDNN does not compute with on this CPU goes through F32 in scratch, a few samples at a
 * time, so that the copies stay in the cache. */
typedef struct ConvState {
    PrimitiveState base;   /* first: cpu_primitive_release frees it */
    int64_t samples;       /* at a time; 0: operands are taken as they lie */
    Tensor wide[OPERANDS]; /* in F32; rank < 0: omitted */
    bool direct[OPERANDS]; /* is F32 already: used where it lies */
    size_t at[OPERANDS];   /* in scratch, behind the primitive's */
    size_t bytes;
} ConvState;

static bool is_half(DType t) { return t == DT_F16 || t == DT_BF16; }

static const Tensor *operand_of(const Prepare *p, int k)
{
    return k == OUT ? &p->out[0] : k < p->nin ? &p->in[k] : NULL;
}

/* Whether all operands are of one type that oneDNN computes with here. */
static bool computes_with(const Prepare *p)
{
    for (int k = 0; k < OPERANDS; k++) {
        const Tensor *t = operand_of(p, k);
        if (t && t->rank >= 0 && is_half(t->dtype) &&
            (t->dtype != p->in[0].dtype || !cpu_computes_with(t->dtype)))
            return false;
    }
    return p->in[0].dtype == DT_F32 || is_half(p->in[0].dtype);
}

static bool any_half(const Prepare *p)
{
    for (int k = 0; k < OPERANDS; k++) {
        const Tensor *t = operand_of(p, k);
        if (t && t->rank >= 0 && is_half(t->dtype)) return true;
    }
    return false;
}

/* A weight's gradient sums over the batch, which therefore stays whole. */
static int64_t samples_at_once(const Prepare *p)
{
    enum { FITS = 512 << 10 }; /* bytes: part of the second-level cache */
    int64_t n = p->in[0].dim[0];
    if (p->node->op == OP_ConvWgrad || n == 0) return n;
    int64_t each = (tensor_count(&p->in[0]) + tensor_count(&p->out[0])) / n * 4, fit = n;
    while (fit > 1 && (n % fit || fit * each > FITS)) fit--;
    return fit;
}

static bool holds_samples(Op op, int k) { return k == IN_X || (k == OUT && op != OP_ConvWgrad); }

static void widen_operands(ConvState *s, const Prepare *p)
{
    s->samples = samples_at_once(p);
    for (int k = 0; k < OPERANDS; k++) {
        Tensor *t = &s->wide[k];
        const Tensor *given = operand_of(p, k);
        *t = given ? *given : (Tensor){.rank = -1};
        if (t->rank < 0) continue;
        s->direct[k] = t->dtype == DT_F32;
        bool last = tensor_is_channels_last(t) && !tensor_is_row_major(t);
        if (holds_samples(p->node->op, k)) t->dim[0] = s->samples;
        t->dtype = DT_F32;
        t->data = NULL;
        tensor_set_strides(t, last);
        if (s->direct[k]) continue;
        s->at[k] = s->bytes;
        s->bytes += ((size_t)tensor_count(t) * sizeof(float) + 63) & ~(size_t)63;
    }
}

static bool make_wide_primitive(ConvState *s, const Prepare *p)
{
    Prepare wide = *p;
    widen_operands(s, p);
    wide.in = s->wide;
    wide.out = &s->wide[OUT];
    wide.const_data = NULL;
    return make_primitive(&s->base.prim, &wide);
}

int cpu_conv_prepare(Prepare *p)
{
    ConvState *s = calloc(1, sizeof *s);
    if (!s) trap(TRAP_NO_MEMORY, "out of memory for a convolution");
    p->state = s;
    bool made = computes_with(p) && make_primitive(&s->base.prim, p);
    if (!made && any_half(p) && !s->base.prim.no_memory) {
        primitive_free(&s->base.prim);
        s->base.prim = (Primitive){0};
        made = make_wide_primitive(s, p);
    }
    primitive_check_memory(&s->base.prim);
    s->base.naive = !made;
    p->scratch = made ? s->base.prim.scratch + s->bytes : 0;
    return 0;
}

/* y[n,c,…] += b[c] */
static void add_bias(const Tensor *y, const Tensor *b)
{
    Tensor wide = along_axis(b, 1, y->rank);
    cpu_add_into(y, &wide);
}

static void run(const Node *n, const Primitive *q, const Tensor *in, const Tensor *out,
                void *scratch)
{
    const Tensor *bias = n->nin > 2 && in[IN_BIAS].data ? &in[IN_BIAS] : NULL;
    void *forward[] = {in[0].data, in[1].data, out[0].data, bias ? bias->data : NULL};
    void *backward[] = {in[0].data, in[1].data, out[0].data};
    primitive_run(q, n->op == OP_Conv ? forward : backward, scratch);
    if (n->op == OP_ConvTranspose && bias) add_bias(&out[0], bias);
}

static void run_wide(const Node *n, const ConvState *s, const Tensor *in, const Tensor *out,
                     void *scratch)
{
    Tensor wide[OPERANDS], part[OPERANDS];
    for (int k = 0; k < OPERANDS; k++) {
        wide[k] = s->wide[k];
        if (wide[k].rank < 0) continue;
        part[k] = k == OUT ? *out : in[k];
        part[k].dim[0] = wide[k].dim[0];
        wide[k].data =
            s->direct[k] ? part[k].data : (char *)scratch + s->base.prim.scratch + s->at[k];
        if (!s->direct[k] && (k == IN_W || k == IN_BIAS)) cpu_convert(&wide[k], &in[k]);
    }
    for (int64_t i = 0; i < in[IN_X].dim[0]; i += s->samples) {
        if (!s->direct[IN_X]) cpu_convert(&wide[IN_X], &part[IN_X]);
        run(n, &s->base.prim, wide, &wide[OUT], scratch);
        if (!s->direct[OUT]) cpu_convert(&part[OUT], &wide[OUT]);
        for (int k = 0; k < OPERANDS; k++) {
            if (!holds_samples(n->op, k)) continue;
            part[k] = tensor_at(&part[k], s->samples * part[k].stride[0]);
            if (s->direct[k]) wide[k].data = part[k].data;
        }
    }
}

void cpu_conv_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                  void *scratch)
{
    const ConvState *s = state;
    if (s->base.naive)
        cpu_naive_run(n, NULL, in, out, scratch);
    else if (s->samples)
        run_wide(n, s, in, out, scratch);
    else
        run(n, &s->base.prim, in, out, scratch);
}
