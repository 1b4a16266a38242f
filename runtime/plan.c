/* From a graph to steps: which nodes run in which stage, in which layout each value lives, which
 * operands need a copy before or after a kernel, and which values are views of others.
 *
 * Nodes keep the graph's order within their stage. A copy (another layout, or F16 widened to F32
 * for a kernel that does not read it) is a step of its own with a buffer that lives for that one
 * kernel, so that memory.c sees every byte. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/op.h"
#include "runtime/element.h"
#include "runtime/layout.h"
#include "runtime/program.h"

typedef struct Plan {
    Program *p;
    const Graph *g;
    Diag *d;
    uint8_t *stage;  /* by value id */
    bool *needed;    /* by node index */
    bool *last;      /* by value id: channels-last */
    Slot *converted; /* by value id: a constant in the form that a kernel wanted; buffer -1: none */
    Slot *border;    /* by value id: an input as bound, until its copy in `value` has been made */
    bool *strided;   /* by value id: a transposed view, as all its readers follow strides */
    const bool *wide; /* by value id: half storage kept as floats (widen.c); NULL: none */
    int cap_steps;
} Plan;

/* ---- what runs, and when ------------------------------------------------------------ */

/* Values known at compile time need no node: constants, and small integers such as shapes. */
static bool known(const Value *v)
{
    int64_t count = type_count(&v->type);
    if (v->data) return true;
    if (!v->elems || count < 0 || !(dtype_is_int(v->type.dtype) || v->type.dtype == DT_BOOL))
        return false;
    for (int64_t i = 0; i < count; i++)
        if (dim_is_sym(v->elems[i])) return false;
    return true;
}

/* Backwards from the outputs: the nodes whose results somebody reads. */
static void mark_needed(Plan *pl)
{
    bool *read = NEW_ARRAY(pl->p->arena, bool, pl->g->nvalues);
    for (int o = 0; o < pl->g->noutputs; o++) read[pl->g->outputs[o]->id] = true;
    for (int k = pl->g->nnodes - 1; k >= 0; k--) {
        const Node *n = pl->g->nodes[k];
        for (int o = 0; o < n->nout; o++)
            if (n->out[o] && read[n->out[o]->id] && !known(n->out[o])) pl->needed[k] = true;
        for (int i = 0; i < n->nin && pl->needed[k]; i++)
            if (n->in[i]) read[n->in[i]->id] = true;
    }
}

/* n makes or reads v; NULL: v is an input. */
static int check_value(Plan *pl, const Node *n, const Value *v)
{
    char text[256];
    if (dtype_size(v->type.dtype) && type_bytes(&v->type) >= 0) return 0;
    type_print(pl->g, &v->type, text, sizeof text);
    return n ? node_error(pl->d, n, "'%s' has no static size: %s", v->name, text)
             : diag_error(pl->d, "input '%s' has no static size: %s", v->name, text);
}

static int check_node(Plan *pl, const Node *n)
{
    if (!pl->p->device->kernels[n->op].run)
        return node_error(pl->d, n, "device '%s' has no kernel for this operator",
                          pl->p->device->name);
    for (int i = 0; i < n->nin; i++)
        if (n->in[i]) TRY(check_value(pl, n, n->in[i]));
    for (int o = 0; o < n->nout; o++)
        if (n->out[o]) TRY(check_value(pl, n, n->out[o]));
    return 0;
}

static int node_stage(const Plan *pl, const Node *n)
{
    int stage = 0;
    for (int i = 0; i < n->nin; i++)
        if (n->in[i] && pl->stage[n->in[i]->id] > stage) stage = pl->stage[n->in[i]->id];
    return stage;
}

/* ---- slots -------------------------------------------------------------------------- */

static int buffer_add(Program *p, Buffer b)
{
    if (p->nbuffers == p->cap_buffers) {
        const int cap = p->cap_buffers ? 2 * p->cap_buffers : 64;
        Buffer *grown = NEW_ARRAY(p->arena, Buffer, cap);
        for (int k = 0; k < p->nbuffers; k++) grown[k] = p->buffers[k];
        p->buffers = grown;
        p->cap_buffers = cap;
    }
    b.same = -1;
    p->buffers[p->nbuffers] = b;
    return p->nbuffers++;
}

static Tensor tensor_of(const Type *type, bool channels_last)
{
    Tensor t = {.dtype = type->dtype, .rank = type->rank};
    for (int i = 0; i < t.rank; i++) t.dim[i] = type->dim[i];
    tensor_set_strides(&t, channels_last);
    return t;
}

/* Where the value lives. */
static Tensor home_of(const Plan *pl, const Value *v)
{
    Tensor t = tensor_of(&v->type, pl->last[v->id]);
    if (pl->wide && pl->wide[v->id]) t.dtype = DT_F32;
    return t;
}

static Slot slot_in_arena(Plan *pl, Tensor t, int stage)
{
    const size_t size = (size_t)tensor_count(&t) * dtype_size(t.dtype);
    const Buffer b = {.kind = BUF_ARENA, .size = size, .first = -1, .stage = stage};
    return (Slot){buffer_add(pl->p, b), t};
}

/* A constant; t.data is on the host. */
static Slot slot_of_data(Plan *pl, Tensor t)
{
    const size_t size = (size_t)tensor_count(&t) * dtype_size(t.dtype);
    return (Slot){buffer_add(pl->p, (Buffer){.kind = BUF_CONST, .data = t.data, .size = size}), t};
}

static Slot slot_of_const(Plan *pl, const Value *v)
{
    Tensor t = tensor_of(&v->type, false);
    const void *data = v->data;
    if (!known(v)) trap(TRAP_INTERNAL, "value '%s' is read before it is computed", v->name);
    if (!data) {
        const int64_t count = tensor_count(&t);
        t.data = NEW_ARRAY(pl->p->arena, int64_t, count + 1);
        for (int64_t i = 0; i < count; i++) element_store_int(&t, i, v->elems[i]);
        data = t.data;
    }
    t.data = (void *)(uintptr_t)data; /* kernels only read it */
    return slot_of_data(pl, t);
}

static void add_inputs(Plan *pl)
{
    Program *p = pl->p;
    for (int k = 0; k < pl->g->ninputs; k++) {
        const Value *v = pl->g->inputs[k];
        const int stage = p->input_stage[k];
        const Buffer b = {.kind = BUF_INPUT, .input = k, .stage = stage};
        Slot bound = {buffer_add(p, b), tensor_of(&v->type, false)};
        p->value[v->id] = pl->border[v->id] = bound;
        pl->stage[v->id] = (uint8_t)stage;
        const Tensor home = home_of(pl, v);
        if (tensor_is_row_major(&home))
            pl->border[v->id].buffer = -1;
        else
            p->value[v->id] = slot_in_arena(pl, home, stage);
    }
}

/* ---- steps -------------------------------------------------------------------------- */

static Step *step_add(Plan *pl, const Node *n, const Kernel *kernel, int stage, int nin, int nout)
{
    Program *p = pl->p;
    if (p->nsteps == pl->cap_steps) {
        pl->cap_steps = pl->cap_steps ? 2 * pl->cap_steps : 64;
        Step *grown = NEW_ARRAY(p->arena, Step, pl->cap_steps);
        for (int k = 0; k < p->nsteps; k++) grown[k] = p->steps[k];
        p->steps = grown;
    }
    Step *s = &p->steps[p->nsteps++];
    *s = (Step){.node = n, .kernel = kernel, .stage = stage, .nin = nin, .nout = nout};
    s->slot = NEW_ARRAY(p->arena, Slot, nin + nout + 1);
    s->operand = p->noperands;
    p->noperands += nin + nout;
    return s;
}

static void emit_copy(Plan *pl, const Node *n, int stage, Slot from, Slot to)
{
    const Kernel *copy = pl->p->device->copy ? pl->p->device->copy : &kernel_copy;
    Step *s = step_add(pl, n, copy, stage, 1, 1);
    s->copy = true;
    s->slot[0] = from;
    s->slot[1] = to;
}

/* Brings an input that lives channels-last into its layout, once per run of its stage. */
static void emit_border(Plan *pl, const Value *v)
{
    if (pl->border[v->id].buffer < 0) return;
    emit_copy(pl, NULL, pl->stage[v->id], pl->border[v->id], pl->p->value[v->id]);
    pl->border[v->id].buffer = -1;
}

/* The tensor that kernel k gets for an operand that lives as `t`: other type, other layout. */
static Tensor wanted(const Kernel *k, Need need, Tensor t)
{
    const bool last = tensor_is_channels_last(&t) && !tensor_is_row_major(&t);
    if ((t.dtype == DT_F16 && !(k->flags & KF_F16)) ||
        (t.dtype == DT_BF16 && !(k->flags & KF_BF16)))
        t.dtype = DT_F32;
    t.data = NULL;
    tensor_set_strides(&t, need == NEED_LAST || (need == NEED_ANY && last));
    return t;
}

static bool same_tensor(const Tensor *a, const Tensor *b)
{
    return a->dtype == b->dtype && tensor_same_layout(a, b);
}

/* A constant in another type or layout: made now, once, not in every run. */
static Slot convert_const(Plan *pl, const Value *v, Slot home, Tensor t)
{
    Slot *s = &pl->converted[v->id];
    if (s->buffer >= 0 && same_tensor(&s->t, &t)) return *s;
    t.data = NEW_ARRAY(pl->p->arena, char, tensor_count(&t) * (int64_t)dtype_size(t.dtype));
    tensor_copy(&home.t, &t);
    return *s = slot_of_data(pl, t);
}

/* The slot that the kernel reads for input i, after a copy if it cannot take the value as it is. */
static Slot operand_in(Plan *pl, const Node *n, const Kernel *k, int stage, int i)
{
    const Value *v = n->in[i];
    if (!v) return (Slot){-1, {.rank = -1}};
    if (pl->p->value[v->id].buffer < 0) pl->p->value[v->id] = slot_of_const(pl, v);
    if (pl->stage[v->id] == stage) emit_border(pl, v);
    const Slot home = pl->p->value[v->id];
    if (pl->strided[v->id] && home.t.dtype == DT_F32 && !tensor_is_row_major(&home.t)) return home;
    const Tensor t = wanted(k, layout_need_in(pl->p->device, n, i), home.t);
    if (same_tensor(&t, &home.t)) return home;
    if (pl->p->buffers[home.buffer].kind == BUF_CONST) return convert_const(pl, v, home, t);
    const Slot temp = slot_in_arena(pl, t, stage);
    emit_copy(pl, n, stage, home, temp);
    return temp;
}

/* Ops whose output is their first input under another shape. */
static const bool is_view[OP_COUNT] = {
    [OP_Identity] = true, [OP_Reshape] = true,   [OP_Flatten] = true,
    [OP_Squeeze] = true,  [OP_Unsqueeze] = true,
};

/* Makes the output an alias of the input's memory if both layouts allow. */
static bool alias(Plan *pl, const Node *n, int stage)
{
    const Value *x = n->in[0], *y = n->out[0];
    if (!is_view[n->op]) return false;
    if (pl->p->value[x->id].buffer < 0) pl->p->value[x->id] = slot_of_const(pl, x);
    const Slot from = pl->p->value[x->id];
    Slot to = {from.buffer, home_of(pl, y)};
    if (from.t.dtype != to.t.dtype || pl->p->buffers[from.buffer].kind == BUF_CONST) return false;
    if (!(tensor_is_row_major(&from.t) && tensor_is_row_major(&to.t)) &&
        !tensor_same_layout(&from.t, &to.t))
        return false;
    if (pl->stage[x->id] == stage) emit_border(pl, x);
    pl->p->value[y->id] = to;
    return true;
}

/* The same for a Transpose that only products read: one of a matrix's axes still lies densely. */
static bool alias_transposed(Plan *pl, const Node *n, int stage)
{
    const Value *x = n->in[0], *y = n->out[0];
    if (n->op != OP_Transpose || !pl->strided[y->id] || y->type.rank < 2) return false;
    const Slot from = pl->p->value[x->id];
    Tensor like = home_of(pl, y);
    tensor_set_strides(&like, false);
    if (from.buffer < 0 || from.t.dtype != DT_F32 || like.dtype != DT_F32 ||
        !tensor_is_row_major(&from.t) || pl->p->buffers[from.buffer].kind == BUF_CONST)
        return false;
    const Slot to = {from.buffer, tensor_transposed(n, &from.t, &like)};
    if (to.t.stride[to.t.rank - 1] != 1 && to.t.stride[to.t.rank - 2] != 1) return false;
    if (pl->stage[x->id] == stage) emit_border(pl, x);
    pl->p->value[y->id] = to;
    return true;
}

static void emit_node(Plan *pl, const Node *n, int stage)
{
    const Kernel *k = &pl->p->device->kernels[n->op];
    Slot *slot = NEW_ARRAY(pl->p->arena, Slot, n->nin + n->nout + 1), *out = slot + n->nin;
    if (alias(pl, n, stage) || alias_transposed(pl, n, stage)) return;
    for (int i = 0; i < n->nin; i++) slot[i] = operand_in(pl, n, k, stage, i);
    for (int o = 0; o < n->nout; o++) {
        const Value *v = n->out[o];
        out[o] = (Slot){-1, {.rank = -1}};
        if (!v) continue;
        const Tensor home = home_of(pl, v);
        const Tensor t = wanted(k, layout_need_out(pl->p->device, n, o), home);
        pl->p->value[v->id] = out[o] = slot_in_arena(pl, home, stage);
        if (!same_tensor(&t, &home)) out[o] = slot_in_arena(pl, t, stage);
    }
    step_add(pl, n, k, stage, n->nin, n->nout)->slot = slot;
    for (int o = 0; o < n->nout; o++)
        if (n->out[o] && out[o].buffer != pl->p->value[n->out[o]->id].buffer)
            emit_copy(pl, n, stage, out[o], pl->p->value[n->out[o]->id]);
}

static void emit_stages(Plan *pl)
{
    for (int s = 0; s < MAX_STAGES; s++) {
        pl->p->stage_begin[s] = pl->p->nsteps;
        for (int k = 0; k < pl->g->nnodes; k++) {
            const Node *n = pl->g->nodes[k];
            if (pl->needed[k] && node_stage(pl, n) == s) emit_node(pl, n, s);
        }
        for (int i = 0; i < pl->g->ninputs; i++)
            if (pl->stage[pl->g->inputs[i]->id] == s) emit_border(pl, pl->g->inputs[i]);
    }
    pl->p->stage_begin[MAX_STAGES] = pl->p->nsteps;
}

/* ---- kernels ------------------------------------------------------------------------ */

/* What a kernel keeps is released even if it traps half-way. */
static int prepare_kernel(Step *s, Prepare *pr)
{
    Trap t;
    if (!s->kernel->prepare) return 0;
    if (trap_enter(&t)) {
        s->state = pr->state;
        trap(t.kind, "%s", t.message);
    }
    const int status = s->kernel->prepare(pr);
    trap_leave(&t);
    s->state = pr->state;
    return status;
}

static int prepare_step(Program *p, Step *s, Diag *d)
{
    const int n = s->nin + s->nout;
    Tensor *t = NEW_ARRAY(p->arena, Tensor, n + 1);
    const void **data = NEW_ARRAY(p->arena, const void *, s->nin + 1);
    Prepare *pr = NEW(p->arena, Prepare);
    *pr = (Prepare){.node = s->node,
                    .device = p->device,
                    .fusion = s->fusion,
                    .in = t,
                    .out = t + s->nin,
                    .nin = s->nin,
                    .nout = s->nout,
                    .const_data = data,
                    .diag = d};
    for (int k = 0; k < n; k++) t[k] = s->slot[k].t;
    for (int i = 0; i < s->nin; i++) data[i] = t[i].data;
    const int status = prepare_kernel(s, pr);
    if (pr->scratch > p->scratch) p->scratch = pr->scratch;
    return status;
}

/* Which operands follow which bound input (lists by counting sort). */
static void list_bindings(Program *p)
{
    const int ninputs = p->graph->ninputs;
    int *at = NEW_ARRAY(p->arena, int, ninputs + 2);
    p->bind_at = NEW_ARRAY(p->arena, int, p->noperands + 1);
    p->bind_begin = at;
    for (int pass = 0; pass < 2; pass++) {
        for (int k = 0; k < p->nsteps; k++)
            for (int i = 0; i < p->steps[k].nin; i++) {
                const int b = p->steps[k].slot[i].buffer;
                if (b < 0 || p->buffers[b].kind != BUF_INPUT) continue;
                int *count = &at[p->buffers[b].input + 1];
                if (pass == 0)
                    ++*count;
                else
                    p->bind_at[(*count)++] = p->steps[k].operand + i;
            }
        if (pass == 0) {
            for (int k = 0; k <= ninputs; k++) at[k + 1] += at[k];
            memmove(at + 1, at, sizeof(int) * (size_t)(ninputs + 1));
        }
    }
}

/* Places the constants in one block of the device and fills it. */
static void upload_constants(Program *p)
{
    const DeviceMemory *m = p->device->memory;
    const size_t page = program_page(p);
    size_t total = 0;
    for (int b = 0; b < p->nbuffers; b++) {
        if (p->buffers[b].kind != BUF_CONST) continue;
        p->buffers[b].offset = total;
        total += (p->buffers[b].size + page - 1) & ~(page - 1);
    }
    p->constants = m->alloc(total + 64);
    if (!p->constants)
        trap(TRAP_DEVICE_MEMORY, "out of memory on '%s': the constants need %zu bytes",
             p->device->name, total);
    for (int b = 0; b < p->nbuffers; b++)
        if (p->buffers[b].kind == BUF_CONST && p->buffers[b].size)
            m->upload(p->constants + p->buffers[b].offset, p->buffers[b].data, p->buffers[b].size);
}

static Plan plan_new(Program *p, const Graph *g, Diag *d)
{
    Plan pl = {.p = p, .g = g, .d = d};
    p->value = NEW_ARRAY(p->arena, Slot, g->nvalues);
    pl.stage = NEW_ARRAY(p->arena, uint8_t, g->nvalues);
    pl.needed = NEW_ARRAY(p->arena, bool, g->nnodes);
    pl.border = NEW_ARRAY(p->arena, Slot, g->nvalues);
    pl.converted = NEW_ARRAY(p->arena, Slot, g->nvalues);
    return pl;
}

/* `stage`: of the inputs; NULL: all 0. */
static int take_inputs(Plan *pl, const uint8_t *stage)
{
    const Graph *g = pl->g;
    uint8_t *input_stage = NEW_ARRAY(pl->p->arena, uint8_t, g->ninputs);
    pl->p->input_stage = input_stage;
    for (int k = 0; k < g->ninputs; k++) {
        input_stage[k] = stage ? stage[k] : 0;
        if (input_stage[k] >= MAX_STAGES)
            return diag_error(pl->d, "input '%s' is in stage %d, the last stage is %d",
                              g->inputs[k]->name, input_stage[k], MAX_STAGES - 1);
        TRY(check_value(pl, NULL, g->inputs[k]));
    }
    return 0;
}

static void find_stages(Plan *pl)
{
    for (int k = 0; k < pl->g->ninputs; k++)
        pl->stage[pl->g->inputs[k]->id] = pl->p->input_stage[k];
    for (int k = 0; k < pl->g->nnodes; k++) {
        const Node *n = pl->g->nodes[k];
        const int stage = node_stage(pl, n);
        for (int i = 0; i < n->nout; i++)
            if (n->out[i] && !known(n->out[i])) pl->stage[n->out[i]->id] = (uint8_t)stage;
    }
}

/* What only products read. */
static void find_strided(Plan *pl)
{
    const Graph *g = pl->g;
    pl->strided = NEW_ARRAY(pl->p->arena, bool, g->nvalues);
    for (uint32_t v = 0; v < g->nvalues; v++) pl->strided[v] = true;
    for (int k = 0; k < g->nnodes; k++) {
        const Kernel *kernel = &pl->p->device->kernels[g->nodes[k]->op];
        for (int i = 0; i < g->nodes[k]->nin && pl->needed[k]; i++)
            if (g->nodes[k]->in[i] && !(i < 2 && kernel->flags & KF_STRIDED))
                pl->strided[g->nodes[k]->in[i]->id] = false;
    }
    for (int o = 0; o < g->noutputs; o++) pl->strided[g->outputs[o]->id] = false;
}

/* Every output has a place: outputs that are constants get one. */
static int place_outputs(Plan *pl)
{
    for (int k = 0; k < pl->g->noutputs; k++) {
        const Value *v = pl->g->outputs[k];
        Slot *s = &pl->p->value[v->id];
        if (s->buffer < 0 && known(v)) *s = slot_of_const(pl, v);
        if (s->buffer < 0) return diag_error(pl->d, "nothing computes output '%s'", v->name);
    }
    return 0;
}

/* Steps and their buffers, placed. */
static int lay_out(Plan *pl, const bool *wide, bool no_reuse)
{
    Program *p = pl->p;
    pl->wide = wide;
    p->steps = NULL;
    p->nsteps = p->noperands = p->nbuffers = pl->cap_steps = 0;
    for (uint32_t v = 0; v < pl->g->nvalues; v++)
        p->value[v].buffer = pl->border[v].buffer = pl->converted[v].buffer = -1;
    add_inputs(pl);
    emit_stages(pl);
    TRY(place_outputs(pl));
    if (p->device->memory) p->device->memory->rewrite(p);
    if (!no_reuse) program_fuse(p);
    return program_place(p, no_reuse, pl->d);
}

/* The same with half storage kept as floats where there is memory for it anyway. Not everything
 * that fits by count fits by place: a sixteenth more is accepted. */
static int lay_out_wide(Plan *pl)
{
    Program *p = pl->p;
    TRY(lay_out(pl, NULL, false));
    const size_t least = p->memory;
    const bool *wide = p->device->computes_with ? program_widen(p, least) : NULL;
    if (!wide) return 0;
    TRY(lay_out(pl, wide, false));
    return p->memory <= least + least / 16 ? 0 : lay_out(pl, NULL, false);
}

static int compile(Program *p, const Graph *g, const ProgramOptions *o, Diag *d)
{
    p->graph = g;
    p->lane_stage = o->lane_stage;
    p->device = device_find(o->device ? o->device : "cpu", d);
    if (!p->device) return -1;
    Plan pl = plan_new(p, g, d);
    TRY(take_inputs(&pl, o->stage));
    mark_needed(&pl);
    for (int k = 0; k < g->nnodes; k++)
        if (pl.needed[k]) TRY(check_node(&pl, g->nodes[k]));
    pl.last = layout_choose(p->device, g, p->arena);
    find_stages(&pl);
    find_strided(&pl);
    TRY(o->no_reuse ? lay_out(&pl, NULL, true) : lay_out_wide(&pl));
    for (int k = 0; k < p->nsteps; k++) TRY(prepare_step(p, &p->steps[k], d));
    p->scratch = (p->scratch + program_page(p) - 1) & ~(program_page(p) - 1);
    list_bindings(p);
    if (p->device->memory) upload_constants(p);
    return 0;
}

static void release_states(void *program)
{
    const Program *p = program;
    for (int k = 0; k < p->nsteps; k++)
        if (p->steps[k].state && p->steps[k].kernel->release)
            p->steps[k].kernel->release(p->steps[k].state);
    if (p->constants) p->device->memory->release(p->constants);
}

int program_compile(Program **out, const Graph *g, const ProgramOptions *o, Diag *d)
{
    Arena *a = arena_new();
    Program *p = NEW(a, Program);
    p->arena = a;
    arena_defer(a, release_states, p);
    const int status = compile(p, g, o, d);
    *out = status < 0 ? NULL : p;
    if (status < 0) program_free(p);
    return status;
}

void program_free(Program *p)
{
    if (p) arena_free(p->arena); /* holds p itself */
}

size_t program_memory_left(const Program *p)
{
    return p->device->memory ? p->device->memory->available() : SIZE_MAX;
}

bool runtime_is_parallel(const char *device)
{
    Diag quiet = {0};
    const Device *d = device_find(device ? device : "cpu", &quiet);
    return d && d->memory;
}

bool runtime_multiplies_bf16(const char *device)
{
    Diag quiet = {0};
    return runtime_cpu_has_bf16() && device_find(device ? device : "cpu", &quiet) == &device_cpu;
}

int program_threads(const Program *p, int wanted)
{
    if (!p->device->threads) return 1;
    return wanted > 0 ? wanted : runtime_cpu_count();
}

/* Bytes that a step of the lane stage writes, on average, times lanes, for which launching it takes
 * a small part of its time (a guess: some microseconds of a GPU's memory). */
static const size_t FULL_STEP = (size_t)32 << 20;

int program_lanes(const Program *p)
{
    size_t written = 0;
    int steps = 0, lanes = 1;
    if (!p->device->memory || !p->lane_stage) return 1;
    for (int k = p->stage_begin[p->lane_stage]; k < p->stage_begin[p->lane_stage + 1]; k++)
        for (int o = 0; o < p->steps[k].nout; o++) {
            const Slot *s = &p->steps[k].slot[p->steps[k].nin + o];
            if (s->buffer < 0) continue;
            written += (size_t)tensor_count(&s->t) * dtype_size(s->t.dtype);
            steps += o == 0;
        }
    while (steps && lanes < MAX_LANES && (size_t)lanes * (written / (size_t)steps) < FULL_STEP)
        lanes *= 2;
    return lanes;
}

size_t program_lane_bytes(const Program *p) { return p->lane_memory + p->scratch; }

size_t program_peak_bytes(const Program *p) { return p->memory + p->scratch; }

/* ---- text --------------------------------------------------------------------------- */

static void print_slot(const Program *p, FILE *f, const Slot *s)
{
    if (s->buffer < 0) {
        fputs(" -", f);
        return;
    }
    const Buffer *b = &p->buffers[buffer_root(p, s->buffer)];
    char text[256];
    const Type type = type_of(s->t.dtype, s->t.rank, s->t.dim);
    fprintf(f, " %s%s", type_print(NULL, &type, text, sizeof text),
            tensor_is_row_major(&s->t) ? "" : " last");
    if (b->kind == BUF_ARENA) fprintf(f, "@%zu", b->offset);
    if (b->kind == BUF_INPUT) fprintf(f, "@%s", p->graph->inputs[b->input]->name);
    if (b->kind == BUF_CONST) fputs("@const", f);
}

/* "Add+Mul+Relu name:" of a joined step. */
static void print_what(FILE *f, const Step *s)
{
    const char *name = s->node && s->node->name ? s->node->name : "";
    const int members = s->fusion ? s->fusion->nmembers : 1;
    if (s->copy) fputs("copy ", f);
    for (int m = 0; m < members; m++) {
        const Node *n = s->fusion ? s->fusion->members[m].node : s->node;
        fprintf(f, "%s%s", m ? "+" : "", n ? node_op_name(n) : "input");
    }
    fprintf(f, " %s:", name);
}

void program_print(const Program *p, void *file)
{
    FILE *f = file;
    fprintf(f, "device %s, %d steps, %zu bytes (scratch %zu)\n", p->device->name, p->nsteps,
            program_peak_bytes(p), p->scratch);
    for (int k = 0; k < p->nsteps; k++) {
        const Step *s = &p->steps[k];
        fprintf(f, "%4d stage %d ", k, s->stage);
        print_what(f, s);
        for (int i = 0; i < s->nin + s->nout; i++) {
            if (i == s->nin) fputs(" ->", f);
            print_slot(p, f, &s->slot[i]);
        }
        fputc('\n', f);
    }
}
