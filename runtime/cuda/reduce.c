/* Reductions over any axes of any layout (kernels: reduce.cuh). */
#include <string.h>

#include "runtime/cuda/cuda.h"
#include "runtime/cuda/loops.h"

/* Slices of one element's sum: enough threads to fill a device, at most one per 32 terms. */
static int64_t slices_of(int64_t kept, int64_t reduced)
{
    const int64_t threads = 1 << 17, wanted = kept > 0 ? threads / kept : 1, most = reduced / 32;
    const int64_t s = wanted < most ? wanted : most;
    return s < 1 ? 1 : s > 1024 ? 1024 : s;
}

static void copy_loops(const Loops *l, int from, int operands, int *n, int64_t *dim,
                       int64_t stride[][MAP_DIMS])
{
    *n = l->n;
    for (int i = 0; i < l->n; i++) {
        dim[i] = l->dim[i];
        for (int k = 0; k < operands; k++) stride[k][i] = l->stride[from + k][i];
    }
}

/* Whether a thread may take four neighbouring kept elements, each operand's in one access or all
 * the same. over: the reduced loops. */
static bool may_widen(const ReduceArgs *a, const Loops *over)
{
    const int in = a->kept_loops - 1;
    if (a->slice_first || a->kept_dim[in] % 4) return false;
    for (int k = 0; k < a->operands; k++) {
        if (a->kept_stride[k][in] == 0) continue;
        if (a->kept_stride[k][in] != 1) return false;
        for (int i = 0; i < in; i++)
            if (a->kept_stride[k][i] % 4) return false;
        for (int i = 0; i < over->n; i++)
            if (over->stride[k][i] % 4) return false;
    }
    return true;
}

void reduce_make(Reduce *r, enum GpuTerm term, int operands, const Tensor *const *x,
                 const Tensor *kept, float scale)
{
    ReduceArgs *a = &r->args;
    Tensor left[REDUCE_OPERANDS + 1], over[REDUCE_OPERANDS];
    const Tensor *pl[REDUCE_OPERANDS + 1], *po[REDUCE_OPERANDS];
    Loops l;
    memset(r, 0, sizeof *r);
    left[0] = *kept;
    for (int k = 0; k < operands; k++) {
        left[k + 1] = over[k] = tensor_broadcast(x[k], x[0]);
        for (int i = 0; i < kept->rank; i++)
            *(kept->dim[i] == 1 ? &left[k + 1].dim[i] : &over[k].dim[i]) = 1;
        a->dtype[k] = (int)x[k]->dtype;
    }
    for (int k = 0; k < operands; k++) pl[k + 1] = &left[k + 1], po[k] = &over[k];
    pl[0] = &left[0];
    loops_make(&l, operands + 1, pl);
    copy_loops(&l, 1, operands, &a->kept_loops, a->kept_dim, a->kept_stride);
    a->kept = loops_count(&l);
    loops_make(&l, operands, po);
    copy_loops(&l, 0, operands, &a->reduced_loops, a->reduced_dim, a->reduced_stride);
    a->reduced = loops_count(&l);
    a->term = (int)term;
    a->operands = operands;
    a->slices = slices_of(a->kept, a->reduced);
    a->slice_first = a->reduced > 1 && l.stride[0][l.n - 1] == 1;
    a->wide = may_widen(a, &l) ? 4 : 1;
    if (a->wide > 1) {
        const int in = a->kept_loops - 1;
        a->kept /= 4;
        a->kept_dim[in] /= 4;
        for (int k = 0; k < operands; k++) a->kept_stride[k][in] *= 4;
    }
    a->threads = a->kept * a->slices;
    r->finish = (FinishArgs){.threads = a->kept * a->wide,
                             .slices = a->slices,
                             .term = (int)term,
                             .dtype = (int)kept->dtype,
                             .scale = scale};
}

size_t reduce_scratch(const Reduce *r)
{
    return ((size_t)(r->args.threads * r->args.wide) * sizeof(float) + 63) & ~(size_t)63;
}

void reduce_run(const Reduce *r, const void *const *x, void *y, void *scratch)
{
    ReduceArgs a = r->args;
    FinishArgs f = r->finish;
    if (f.threads == 0) return;
    for (int k = 0; k < a.operands; k++) a.x[k] = x[k];
    a.partial = scratch;
    gpu_launch(GPU_reduce, &a);
    f.partial = scratch;
    f.y = y;
    gpu_launch(GPU_finish, &f);
}

/* ---- the ops -------------------------------------------------------------------------------- */

/* Float operands; and lists of axes, which are constants. */
bool floats_can(const Device *d, const Node *n, const Tensor *in, const Tensor *out)
{
    (void)d;
    for (int o = 0; o < n->nout; o++)
        if (out[o].rank >= 0 && !cuda_is_float(out[o].dtype)) return false;
    for (int i = 0; i < n->nin; i++)
        if (in[i].rank >= 0 && !cuda_is_float(in[i].dtype) && !in[i].data) return false;
    return cuda_is_float(in[0].dtype) && tensor_count(&in[0]) > 0;
}

/* kept: x's rank, 1 where reduced, in the output's memory order and type. */
static Tensor kept_of(const Tensor *x, const bool *reduced, const Tensor *out)
{
    Tensor kept = *x;
    kept.dtype = out->dtype;
    for (int i = 0; i < x->rank; i++)
        if (reduced[i]) kept.dim[i] = 1;
    tensor_set_strides(&kept, out->rank == x->rank && !tensor_is_row_major(out));
    return kept;
}

static void mark_axes(const Prepare *p, bool *reduced)
{
    const Tensor *axes = p->nin > 1 && p->in[1].data ? &p->in[1] : NULL;
    const int rank = p->in[0].rank;
    const int64_t count = axes ? tensor_count(axes) : 0;
    const bool none = count == 0 && node_int(p->node, "noop_with_empty_axes", 0);
    for (int i = 0; i < rank; i++) reduced[i] = count == 0 && !none;
    for (int64_t k = 0; k < count; k++)
        reduced[axis_index(element_load_int(axes, k * axes->stride[0]), rank)] = true;
}

int cuda_reduce_prepare(Prepare *p)
{
    Reduce *r = cuda_state(sizeof *r);
    const Op op = p->node->op;
    const enum GpuTerm term = op == OP_ReduceMax   ? TERM_MAX
                              : op == OP_ReduceMin ? TERM_MIN
                                                   : TERM_X;
    const Tensor *x[] = {&p->in[0]};
    bool reduced[MAX_RANK];
    p->state = r;
    mark_axes(p, reduced);
    const Tensor kept = kept_of(&p->in[0], reduced, &p->out[0]);
    const double each = (double)tensor_count(&kept) / (double)tensor_count(&p->in[0]);
    reduce_make(r, term, 1, x, &kept, op == OP_ReduceMean ? (float)each : 1.f);
    p->scratch = reduce_scratch(r);
    return 0;
}

void cuda_reduce_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                     void *scratch)
{
    (void)n;
    reduce_run(state, (const void *[]){in[0].data}, out[0].data, scratch);
}

int cuda_sum_product_prepare(Prepare *p)
{
    Reduce *r = cuda_state(sizeof *r);
    const Tensor *x[] = {&p->in[0], &p->in[1]};
    bool reduced[MAX_RANK] = {false};
    size_t count = 0;
    const int64_t *axes = node_ints(p->node, "axes", &count);
    p->state = r;
    for (size_t k = 0; k < count; k++) reduced[axis_index(axes[k], p->in[0].rank)] = true;
    const Tensor kept = kept_of(&p->in[0], reduced, &p->out[0]);
    reduce_make(r, TERM_DOT, 2, x, &kept, 1);
    p->scratch = reduce_scratch(r);
    return 0;
}

void cuda_sum_product_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                          void *scratch)
{
    (void)n;
    reduce_run(state, (const void *[]){in[0].data, in[1].data}, out[0].data, scratch);
}

/* GlobalAveragePool and GlobalMaxPool: over all axes but two. */
int cuda_global_pool_prepare(Prepare *p)
{
    Reduce *r = cuda_state(sizeof *r);
    const Tensor *x[] = {&p->in[0]};
    bool reduced[MAX_RANK];
    const bool mean = p->node->op == OP_GlobalAveragePool;
    p->state = r;
    for (int i = 0; i < p->in[0].rank; i++) reduced[i] = i > 1;
    const Tensor kept = kept_of(&p->in[0], reduced, &p->out[0]);
    const double each = (double)tensor_count(&kept) / (double)tensor_count(&p->in[0]);
    reduce_make(r, mean ? TERM_X : TERM_MAX, 1, x, &kept, mean ? (float)each : 1.f);
    p->scratch = reduce_scratch(r);
    return 0;
}

void cuda_global_pool_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                          void *scratch)
{
    cuda_reduce_run(n, state, in, out, scratch);
}

/* ---- FakeQuantGrad with the gradient of the scale ------------------------------------------- */

typedef struct FakeGrad {
    Map inside;
    Reduce step;
} FakeGrad;

int cuda_fake_quant_grad_prepare(Prepare *p)
{
    static const char body[] = "    const float y0 = gpu_inside(x1, x2, x3, a->p[0], a->p[1]) ? x0 "
                               ": 0.f;\n";
    FakeGrad *s = cuda_state(sizeof *s);
    Tensor view[4];
    const Tensor *t[4], *out[] = {&p->out[0]};
    const float ends[2] = {(float)node_int(p->node, "qmin", 0),
                           (float)node_int(p->node, "qmax", 255)};
    p->state = s;
    for (int i = 0; i < 4; i++) {
        view[i] = map_operand(p->node, i, p->in, &p->out[0]);
        t[i] = &view[i];
    }
    map_make(&s->inside, 1, out, 4, t, body, 2, ends);
    if (p->nout < 2 || p->out[1].rank < 0) return 0;
    Tensor kept = view[1];
    for (int i = 0; i < kept.rank; i++) kept.dim[i] = view[2].dim[i];
    kept.dtype = p->out[1].dtype;
    tensor_set_strides(&kept, false);
    reduce_make(&s->step, TERM_FAKE_STEP, 4, t, &kept, 1);
    s->step.args.p[0] = ends[0];
    s->step.args.p[1] = ends[1];
    p->scratch = reduce_scratch(&s->step);
    return 0;
}

void cuda_fake_quant_grad_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                              void *scratch)
{
    const FakeGrad *s = state;
    const void *x[] = {in[0].data, in[1].data, in[2].data, in[3].data};
    if (n->nout > 1 && out[1].data) reduce_run(&s->step, x, out[1].data, scratch);
    map_run(&s->inside, (void *[]){out[0].data, in[0].data, in[1].data, in[2].data, in[3].data});
}
