/* Ops without a CUDA kernel: operands come to the host, the CPU's kernel runs, results go back.
 * Slow, and such a stage is not recorded, but what runs on the CPU runs here. Said once per op. */
#include <stdlib.h>
#include <string.h>

#include "ir/op.h"
#include "runtime/cuda/cuda.h"
#include "runtime/program.h"

typedef struct Host {
    const Kernel *kernel;
    void *inner;
    int nin, nout;
    Tensor *operands; /* constants with their data, the others with a buffer of ours */
    bool *constant;
    void *scratch;
} Host;

static size_t bytes_of(const Tensor *t)
{
    return t->rank < 0 ? 0 : (size_t)tensor_count(t) * dtype_size(t->dtype);
}

/* The CPU's kernel, unless it wants operands in a form in which they are not. */
static const Kernel *host_kernel(const Prepare *p)
{
    const Kernel *k = &device_cpu.kernels[p->node->op];
    for (int i = 0; i < p->nin + p->nout; i++) {
        const Tensor *t = &p->in[i];
        if (t->rank < 0) continue;
        if ((t->dtype == DT_F16 && !(k->flags & KF_F16)) ||
            (t->dtype == DT_BF16 && !(k->flags & KF_BF16)) ||
            (k->flags & KF_ROW_MAJOR && !tensor_is_row_major(t)))
            return &device_ref.kernels[p->node->op];
    }
    return k;
}

static void tell_once(const Prepare *p)
{
    static bool told[OP_COUNT];
    if (told[p->node->op]) return;
    told[p->node->op] = true;
    diag_remark(p->diag, "node '%s' (%s) runs on the CPU: the GPU has no kernel for it",
                p->node->name ? p->node->name : "", node_op_name(p->node));
}

int cuda_host_prepare(Prepare *p)
{
    Host *h = cuda_state(sizeof *h);
    const int n = p->nin + p->nout;
    Prepare inner = *p;
    p->state = h;
    h->kernel = host_kernel(p);
    h->nin = p->nin;
    h->nout = p->nout;
    h->operands = cuda_state((size_t)n * sizeof(Tensor) + 1);
    h->constant = cuda_state((size_t)n + 1);
    for (int i = 0; i < n; i++) { /* out follows in */
        h->operands[i] = p->in[i];
        h->constant[i] = i < p->nin && p->in[i].data;
        if (!h->constant[i] && p->in[i].rank >= 0)
            h->operands[i].data = cuda_state(bytes_of(&p->in[i]) + 64);
    }
    tell_once(p);
    inner.device = &device_cpu;
    inner.scratch = 0;
    inner.state = NULL;
    const int status = h->kernel->prepare ? h->kernel->prepare(&inner) : 0;
    h->inner = inner.state;
    h->scratch = aligned_alloc(64, (inner.scratch + 127) & ~(size_t)63);
    if (!h->scratch) trap(TRAP_NO_MEMORY, "out of memory for a kernel");
    return status;
}

void cuda_host_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                   void *scratch)
{
    const Host *h = state;
    Tensor *at = h->operands;
    (void)scratch;
    for (int i = 0; i < h->nin; i++)
        if (at[i].data && !h->constant[i] && bytes_of(&at[i]))
            gpu_download(at[i].data, in[i].data, bytes_of(&at[i]));
    h->kernel->run(n, h->inner, at, at + h->nin, h->scratch);
    for (int o = 0; o < h->nout; o++)
        if (at[h->nin + o].data && bytes_of(&at[h->nin + o]))
            gpu_upload(out[o].data, at[h->nin + o].data, bytes_of(&at[h->nin + o]));
}

void cuda_host_release(void *state)
{
    Host *h = state;
    if (h->inner && h->kernel->release) h->kernel->release(h->inner);
    for (int i = 0; h->operands && h->constant && i < h->nin + h->nout; i++)
        if (!h->constant[i]) free(h->operands[i].data);
    free(h->operands);
    free(h->constant);
    free(h->scratch);
    free(h);
}

void cuda_send_to_host(Program *p)
{
    for (int k = 0; k < p->nsteps; k++) {
        Step *s = &p->steps[k];
        Tensor *t = NEW_ARRAY(p->arena, Tensor, s->nin + s->nout + 1);
        for (int i = 0; i < s->nin + s->nout; i++) t[i] = s->slot[i].t;
        if (!s->copy && s->node && !cuda_can_run(p->device, s->node, t, t + s->nin))
            s->kernel = &cuda_host_kernel;
    }
}

const Kernel cuda_host_kernel = {cuda_host_prepare, cuda_host_run, cuda_host_release,
                                 KF_HOST | KF_F16 | KF_BF16, NULL};
