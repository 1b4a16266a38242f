/* Pools and their gradients (kernels: pool.cuh). */
#include "ir/window.h"
#include "runtime/cuda/cuda.h"

enum { SPATIAL = 3 };

/* Up to three dimensions, floats, no positions of maxima. */
bool pool_can(const Device *d, const Node *n, const Tensor *in, const Tensor *out)
{
    (void)d;
    return in[0].rank >= 3 && in[0].rank - 2 <= SPATIAL && cuda_is_float(in[0].dtype) &&
           cuda_is_float(out[0].dtype) && !(n->nout > 1 && n->out[1]);
}

static PlaceArgs place_of(const Tensor *t)
{
    PlaceArgs p = {.dtype = (int)t->dtype, .n = t->stride[0], .c = t->stride[1]};
    for (int i = 2; i < t->rank; i++) p.at[SPATIAL - t->rank + i] = t->stride[i];
    return p;
}

/* What the op does, and which operand the windows slide over: an input, or -1 for the output. */
static const struct {
    enum GpuPool pool;
    int big;
} pools[OP_COUNT] = {
    [OP_MaxPool] = {POOL_MAX, 0},
    [OP_AveragePool] = {POOL_MEAN, 0},
    [OP_AveragePoolGrad] = {POOL_MEAN_GRAD, -1},
    [OP_MaxPoolGrad] = {POOL_MAX_GRAD, 1},
    [OP_MaxPoolPick] = {POOL_MAX_PICK, 1},
};

static void set_windows(PoolArgs *a, const Window *w)
{
    for (int i = 0; i < SPATIAL; i++) {
        const int from = i - (SPATIAL - w->n);
        const bool real = from >= 0;
        a->in[i] = real ? w->in[from] : 1;
        a->out[i] = real ? w->out[from] : 1;
        a->kernel[i] = real ? w->kernel[from] : 1;
        a->stride[i] = real ? w->stride[from] : 1;
        a->dilation[i] = real ? w->dilation[from] : 1;
        a->lo[i] = real ? w->pad[from] : 0;
        a->hi[i] = real ? w->pad_end[from] : 0;
    }
}

int cuda_pool_prepare(Prepare *p)
{
    const Node *n = p->node;
    PoolArgs *a = cuda_state(sizeof *a);
    const int big = pools[n->op].big;
    const Tensor *x = big < 0 ? &p->out[0] : &p->in[big];
    Window w;
    p->state = a;
    TRY(node_window(n, &w, p->diag));
    set_windows(a, &w);
    a->threads = tensor_count(&p->out[0]);
    a->pool = (int)pools[n->op].pool;
    a->count_pad = node_int(n, "count_include_pad", 0) != 0;
    a->n = x->dim[0];
    a->c = x->dim[1];
    a->a = place_of(&p->in[0]);
    if (big == 1) a->x = place_of(x);
    a->y = place_of(&p->out[0]);
    return 0;
}

void cuda_pool_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                   void *scratch)
{
    PoolArgs a = *(const PoolArgs *)state;
    (void)scratch;
    if (a.threads == 0) return;
    a.a.data = in[0].data;
    if (pools[n->op].big == 1) a.x.data = in[1].data;
    a.y.data = out[0].data;
    gpu_launch(GPU_pool, &a);
}
