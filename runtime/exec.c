/* Instances: a program's memory, its operands resolved to pointers, and the loop over steps. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "ir/process.h"
#include "runtime/element.h"
#include "runtime/program.h"

static void run_copy(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                     void *scratch)
{
    (void)n, (void)state, (void)scratch;
    tensor_copy(in, out);
}

static void run_view(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                     void *scratch)
{
    (void)n, (void)state, (void)scratch;
    const size_t size = (size_t)tensor_count(out) * dtype_size(out->dtype);
    if (size) memmove(out->data, in->data, size);
}

const Kernel kernel_copy = {.run = run_copy, .flags = KF_F16 | KF_BF16};
const Kernel kernel_view = {.run = run_view, .flags = KF_F16 | KF_BF16 | KF_INPLACE | KF_ROW_MAJOR};

Tensor instance_resolve(const Instance *i, const Slot *s)
{
    Tensor t = s->t;
    if (s->buffer < 0) return t;
    const Buffer *b = &i->p->buffers[buffer_root(i->p, s->buffer)];
    if (b->kind == BUF_ARENA) t.data = i->memory + b->offset;
    if (i->stays && i->stays[s->buffer] >= 0)
        t.data = on_device_input(i->device, i->stays[s->buffer]);
    if (b->kind == BUF_INPUT) /* only read */
        t.data = i->device ? on_device_input(i->device, b->input)
                           : (void *)(uintptr_t)i->bound[b->input];
    if (b->kind == BUF_CONST && i->device) t.data = i->p->constants + b->offset;
    return t;
}

void instance_resolve_all(Instance *i)
{
    for (int k = 0; k < i->p->nsteps; k++) {
        const Step *s = &i->p->steps[k];
        for (int j = 0; j < s->nin + s->nout; j++)
            i->operands[s->operand + j] = instance_resolve(i, &s->slot[j]);
    }
}

/* In pages of 2 MiB, those that it fills, where the system gives them when asked: tens of MiB are
 * gone through again and again, in several places at a time. */
static void *host_memory(size_t n)
{
    const size_t page = 2 << 20, align = n < page ? 64 : page;
    void *m = aligned_alloc(align, (n + align - 1) / align * align);
#ifdef MADV_HUGEPAGE
    if (m && n >= page) madvise(m, n / page * page, MADV_HUGEPAGE);
#endif
    return m;
}

/* 64 more, so that even an empty tensor has an address of its own. Not from the arena, which would
 * fill it with zeros. */
static void *new_memory(const Program *p)
{
    const size_t n = program_peak_bytes(p) + 64;
    return p->device->memory ? p->device->memory->alloc(n) : host_memory(n);
}

static void release_memory(void *instance)
{
    Instance *i = instance;
    if (i->device) on_device_free(i->owner, i->device);
    if (i->memory && i->owner)
        i->owner->release(i->memory);
    else
        free(i->memory);
}

int instance_new(Instance **out, const Program *p, Diag *d)
{
    Arena *a = arena_new();
    Instance *i = NEW(a, Instance);
    *out = NULL;
    i->arena = a;
    i->p = p;
    i->owner = p->device->memory;
    i->operands = NEW_ARRAY(a, Tensor, p->noperands + 1);
    i->bound = NEW_ARRAY(a, const void *, p->graph->ninputs + 1);
    arena_defer(a, release_memory, i);
    i->memory = new_memory(p);
    if (p->device->memory) i->device = on_device_new(p);
    if (!i->memory || (p->device->memory && !i->device)) {
        instance_free(i);
        return diag_error(d, "out of memory on '%s': the program needs %zu bytes", p->device->name,
                          program_peak_bytes(p));
    }
    i->scratch = i->memory + p->memory;
    instance_resolve_all(i);
    *out = i;
    return 0;
}

size_t program_instance_bytes(const Program *p)
{
    return program_peak_bytes(p) + (size_t)p->noperands * sizeof(Tensor);
}

void instance_free(Instance *i)
{
    if (i) arena_free(i->arena);
}

void instance_bind(Instance *i, int input, const void *data)
{
    const Program *p = i->p;
    i->bound[input] = data;
    if (i->device) {
        on_device_bind(i->device, input);
        return;
    }
    for (int k = p->bind_begin[input]; k < p->bind_begin[input + 1]; k++)
        i->operands[p->bind_at[k]].data = (void *)(uintptr_t)data;
}

int instance_lanes(Instance *i, int n)
{
    if (!i->device) return 1;
    while (n > 1 && !on_device_lanes(i, n)) n /= 2;
    return n;
}

/* Steps first … end - 1. */
static void run_range(Instance *i, int first, int end, Tensor *operands, void *scratch)
{
    const Program *p = i->p;
    for (int k = first; k < end; k++) {
        const Step *s = &p->steps[k];
        const Tensor *in = operands + s->operand;
        const double start = i->seconds ? process_seconds() : 0;
        if (i->device) p->device->memory->begin(s->node);
        s->kernel->run(s->node, s->state, in, in + s->nin, scratch);
        if (i->seconds) i->seconds[k] += process_seconds() - start;
    }
}

void instance_run_steps(Instance *i, int stage, Tensor *operands, void *scratch)
{
    run_range(i, i->p->stage_begin[stage], i->p->stage_begin[stage + 1], operands, scratch);
}

void instance_carry(Instance *i, int stage, int n, const int *out, const int *in)
{
    const Program *p = i->p;
    Carry *c = &i->carry[stage];
    *c = (Carry){.n = n, .out = out, .in = in};
    if (!i->device) c->kept = NEW_ARRAY(i->arena, void *, n);
    for (int k = 0; k < n; k++) {
        const Value *from = p->graph->outputs[out[k]], *to = p->graph->inputs[in[k]];
        const Slot *s = &p->value[from->id];
        const int64_t size = type_bytes(&from->type);
        if (size != type_bytes(&to->type) || !tensor_is_row_major(&s->t) || s->buffer < 0 ||
            p->buffers[buffer_root(p, s->buffer)].kind != BUF_ARENA)
            trap(TRAP_INTERNAL, "output %d cannot become input '%s'", out[k], to->name);
        if (c->kept) c->kept[k] = arena_alloc(i->arena, (size_t)size);
    }
    if (i->device) on_device_carry(i, stage);
}

void instance_send(Instance *i)
{
    if (i->device) on_device_send(i);
}

static void carry(Instance *i, const Carry *c)
{
    for (int k = 0; k < c->n; k++) {
        instance_read(i, c->out[k], c->kept[k]);
        instance_bind(i, c->in[k], c->kept[k]);
    }
}

static void need_inputs(const Instance *i, int stage)
{
    const Program *p = i->p;
    for (int k = 0; k < p->graph->ninputs; k++)
        if (!i->bound[k] && p->bind_begin[k] < p->bind_begin[k + 1] && p->input_stage[k] <= stage)
            trap(TRAP_INTERNAL, "input '%s' is not bound", p->graph->inputs[k]->name);
}

void instance_run(Instance *i, int stage)
{
    need_inputs(i, stage);
    i->shown = NULL;
    if (i->device) {
        on_device_run(i, stage);
    } else {
        instance_run_steps(i, stage, i->operands, i->scratch);
        carry(i, &i->carry[stage]);
    }
}

void instance_repeat(Instance *i, int stage, int counter, int n, int nout, const int *out,
                     float *rows)
{
    const Graph *g = i->p->graph;
    const Type *t = &g->inputs[counter]->type;
    const int64_t count = type_count(t), *bound = i->bound[counter];
    int64_t key[MAX_COUNTER];
    if (t->dtype != DT_I64 || count < 1 || count > MAX_COUNTER)
        trap(TRAP_INTERNAL, "input '%s' is no counter", g->inputs[counter]->name);
    if (i->device && on_device_repeat(i, stage, counter, n, nout, out, rows)) return;
    memcpy(key, bound, (size_t)count * sizeof *key);
    for (int k = 0; k < n; k++, key[count - 1]++) {
        instance_bind(i, counter, key);
        instance_run(i, stage);
        for (int o = 0; o < nout; rows += type_count(&g->outputs[out[o++]]->type))
            instance_read(i, out[o], rows);
    }
    instance_bind(i, counter, bound);
}

void instance_profile(Instance *i, double *seconds) { i->seconds = seconds; }

void instance_run_all(Instance *i)
{
    for (int stage = 0; stage < MAX_STAGES; stage++) instance_run(i, stage);
}

/* The last step that writes where output k lives; -1: none, it is an input or a constant. */
static int step_of_output(const Program *p, int k)
{
    const int b = p->value[p->graph->outputs[k]->id].buffer;
    int step = b < 0 ? -1 : p->nsteps - 1;
    for (; step >= 0; step--) {
        const Step *s = &p->steps[step];
        for (int j = s->nin; j < s->nin + s->nout; j++)
            if (s->slot[j].buffer >= 0 && buffer_root(p, s->slot[j].buffer) == buffer_root(p, b))
                return step;
    }
    return -1;
}

void instance_run_until(Instance *i, int output)
{
    if (i->device) {
        instance_run_all(i);
        return;
    }
    need_inputs(i, MAX_STAGES);
    i->shown = NULL;
    run_range(i, 0, step_of_output(i->p, output) + 1, i->operands, i->scratch);
}

static const Type *output_type(const Instance *i, int output)
{
    return &i->p->graph->outputs[output]->type;
}

/* Where output k begins among packed outputs; of the number of outputs: the bytes of all. */
static size_t packed_offset(const Instance *i, int output)
{
    size_t at = 0;
    for (int k = 0; k < output; k++) at += (size_t)type_bytes(output_type(i, k));
    return at;
}

void instance_read(const Instance *i, int output, void *dst)
{
    if (i->shown) {
        memcpy(dst, i->shown + packed_offset(i, output),
               (size_t)type_bytes(output_type(i, output)));
        return;
    }
    if (i->device) {
        on_device_read(i, output, dst);
        return;
    }
    const Slot *s = &i->p->value[i->p->graph->outputs[output]->id];
    const Tensor from = instance_resolve(i, s);
    Tensor to = from;
    to.data = dst;
    tensor_set_strides(&to, false);
    const Device *dev = i->p->device;
    (dev->copy ? dev->copy : &kernel_copy)->run(NULL, NULL, &from, &to, NULL);
}

void *instance_result(const Instance *i) { return i->result; }

void instance_set_result(Instance *i, void *result) { i->result = result; }

size_t instance_packed_bytes(const Instance *i) { return packed_offset(i, i->p->graph->noutputs); }

void instance_pack(const Instance *i, char *to)
{
    for (int k = 0; k < i->p->graph->noutputs; k++) instance_read(i, k, to + packed_offset(i, k));
}

void instance_show(Instance *i, const char *packed) { i->shown = packed; }
