/* Running on a device with memory of its own.
 *
 * Inputs have a place there, filled before a run from what was bound since the last one. The first
 * run of a stage queues its steps one by one; the second records them, and from then on the
 * recording is replayed (a CUDA graph): nothing in it changes, as every operand keeps its address.
 * A stage with a step that works on the host is never recorded.
 *
 * Runs of one stage that differ by a counter alone go side by side in lanes, forked and joined
 * within the recording: steps that do not fill the device share it. */
#include <stdlib.h>
#include <string.h>

#include "runtime/element.h"
#include "runtime/program.h"

/* A stage in every lane, followed by its outputs' way to a row; then the counters' next step. */
typedef struct Repeat {
    void *recording;
    float *rows;
    int64_t *at; /* the row of this run; the first with an Inf or NaN */
    int64_t row, nrows;
    double *total, *moments, *factor; /* [most, row], [4, row], [row]: one allocation */
    int most;
    int64_t *keys; /* [lanes, size]: what each lane reads as input `counter` */
    int64_t size;
    int counter, nout;
} Repeat;

typedef struct OnDevice {
    char *inputs;
    size_t *offset; /* by graph input */
    bool *dirty;    /* bound since it was last uploaded */
    bool warm[MAX_STAGES];
    void *recording[MAX_STAGES];
    Repeat repeat[MAX_STAGES];
    int lanes;   /* of the program's lane stage; other stages have one */
    char *more;  /* the memory of all but the first */
    char *saved; /* copies of inputs saved_in[0 … nsaved), one behind the other */
    const int *saved_in;
    int nsaved;
} OnDevice;

static size_t input_bytes(const Program *p, int k)
{
    return (size_t)type_bytes(&p->graph->inputs[k]->type);
}

OnDevice *on_device_new(const Program *p)
{
    const int n = p->graph->ninputs;
    OnDevice *o = calloc(1, sizeof *o);
    const size_t page = program_page(p);
    size_t total = page; /* even with no inputs */
    if (o) o->offset = calloc((size_t)n + 1, sizeof *o->offset);
    if (o) o->dirty = calloc((size_t)n + 1, sizeof *o->dirty);
    if (o && o->offset && o->dirty) {
        for (int k = 0; k < n; k++) {
            o->offset[k] = total;
            total += (input_bytes(p, k) + page - 1) & ~(page - 1);
        }
        o->inputs = p->device->memory->alloc(total);
        o->lanes = 1;
    }
    if (o && o->inputs) return o;
    on_device_free(p->device->memory, o);
    return NULL;
}

void on_device_free(const DeviceMemory *m, OnDevice *o)
{
    if (!o) return;
    for (int s = 0; s < MAX_STAGES; s++) {
        if (o->recording[s]) m->discard(o->recording[s]);
        if (o->repeat[s].recording) m->discard(o->repeat[s].recording);
        if (o->repeat[s].rows) m->release(o->repeat[s].rows);
        if (o->repeat[s].total) m->release(o->repeat[s].total);
    }
    if (o->more) m->release(o->more);
    if (o->saved) m->release(o->saved);
    if (o->inputs) m->release(o->inputs);
    free(o->offset);
    free(o->dirty);
    free(o);
}

void *on_device_input(const OnDevice *o, int input) { return o->inputs + o->offset[input]; }

void on_device_bind(OnDevice *o, int input) { o->dirty[input] = true; }

void on_device_send(Instance *i)
{
    const Program *p = i->p;
    OnDevice *o = i->device;
    for (int k = 0; k < p->graph->ninputs; k++) {
        if (!o->dirty[k] || !i->bound[k]) continue;
        p->device->memory->upload(on_device_input(o, k), i->bound[k], input_bytes(p, k));
        o->dirty[k] = false;
    }
}

/* Whether the stage can be recorded and has run once, so that nothing in it is new (libraries
 * load code and allocate at first use). */
static bool recordable(const Instance *i, int stage)
{
    const Program *p = i->p;
    for (int k = p->stage_begin[stage]; k < p->stage_begin[stage + 1]; k++)
        if (p->steps[k].kernel->flags & KF_HOST) return false;
    return p->stage_begin[stage] < p->stage_begin[stage + 1] && !i->seconds;
}

/* The stage's steps, then its state's way to where the next run reads it. */
static void run_stage(Instance *i, int stage)
{
    const Carry *c = &i->carry[stage];
    const Program *p = i->p;
    instance_run_steps(i, stage, i->operands, i->scratch);
    for (int k = 0; k < c->n; k++) {
        const Tensor x = instance_resolve(i, &p->value[p->graph->outputs[c->out[k]]->id]);
        const size_t size = input_bytes(p, c->in[k]);
        char *to = on_device_input(i->device, c->in[k]);
        if (size && to != x.data) p->device->memory->copy(to, x.data, size);
    }
}

/* ---- state -------------------------------------------------------------------------------- */

/* The only step that writes the buffer; -1: several do, or none. */
static int only_writer(const Program *p, int buffer)
{
    int writer = -1;
    for (int k = 0; k < p->nsteps; k++)
        for (int o = 0; o < p->steps[k].nout; o++) {
            if (p->steps[k].slot[p->steps[k].nin + o].buffer != buffer) continue;
            if (writer >= 0) return -1;
            writer = k;
        }
    return writer;
}

static bool reads_input(const Program *p, const Slot *s, int input)
{
    return s->buffer >= 0 && p->buffers[s->buffer].kind == BUF_INPUT &&
           p->buffers[s->buffer].input == input;
}

/* Whether output `out` may be written over input `in`: by an element-wise step, element by element,
 * and after everything else in its stage has read it. */
static bool may_stay(const Program *p, int stage, const Slot *out, int in)
{
    const int w = only_writer(p, out->buffer);
    if (w < 0 || p->steps[w].stage != stage) return false;
    for (int k = p->stage_begin[stage]; k < p->stage_begin[stage + 1]; k++) {
        const Step *s = &p->steps[k];
        for (int i = 0; i < s->nin; i++) {
            if (!reads_input(p, &s->slot[i], in)) continue;
            const Tensor *t = &s->slot[i].t;
            if (k > w || (k == w && (!(s->kernel->flags & KF_MAP) || t->dtype != out->t.dtype ||
                                     !tensor_same_layout(t, &out->t))))
                return false;
        }
    }
    return true;
}

void on_device_carry(Instance *i, int stage)
{
    const Program *p = i->p;
    const Carry *c = &i->carry[stage];
    int *stays = (int *)(uintptr_t)i->stays;
    if (!stays) {
        i->stays = stays = NEW_ARRAY(i->arena, int, p->nbuffers + 1);
        for (int b = 0; b < p->nbuffers; b++) stays[b] = -1;
    }
    for (int k = 0; k < c->n; k++) {
        const Slot *out = &p->value[p->graph->outputs[c->out[k]]->id];
        if (may_stay(p, stage, out, c->in[k])) stays[out->buffer] = c->in[k];
    }
    instance_resolve_all(i);
}

/* Between the inputs and their copies. */
static void copy_saved(const Instance *i, bool back)
{
    const OnDevice *o = i->device;
    char *at = o->saved;
    for (int k = 0; k < o->nsaved; k++) {
        char *input = on_device_input(o, o->saved_in[k]);
        const size_t size = input_bytes(i->p, o->saved_in[k]);
        if (size) i->p->device->memory->copy(back ? input : at, back ? at : input, size);
        at += size;
    }
}

void instance_save(Instance *i, int n, const int *in)
{
    OnDevice *o = i->device;
    size_t size = 0;
    if (!o) trap(TRAP_INTERNAL, "state is saved that no device has");
    for (int k = 0; k < n; k++) size += input_bytes(i->p, in[k]);
    if (!o->saved) o->saved = i->p->device->memory->alloc(size + 1);
    if (!o->saved) trap(TRAP_DEVICE_MEMORY, "out of memory on '%s' for state", i->p->device->name);
    o->saved_in = in;
    o->nsaved = n;
    on_device_send(i); /* what has been bound is the state */
    copy_saved(i, false);
}

void instance_restore(Instance *i) { copy_saved(i, true); }

void instance_read_saved(const Instance *i, int k, void *dst)
{
    const OnDevice *o = i->device;
    const char *at = o->saved;
    for (int j = 0; j < k; j++) at += input_bytes(i->p, o->saved_in[j]);
    i->p->device->memory->download(dst, at, input_bytes(i->p, o->saved_in[k]));
}

void instance_over_ranks(Instance *i, int n, const int *out, const RankOp *op)
{
    const Program *p = i->p;
    for (int k = 0; k < n; k++) {
        const Tensor x = instance_resolve(i, &p->value[p->graph->outputs[out[k]]->id]);
        p->device->memory->begin(NULL);
        p->device->memory->over_ranks(x.data, DT_F32, tensor_count(&x), op[k],
                                      p->device->deterministic);
    }
}

/* ---- runs --------------------------------------------------------------------------------- */

void on_device_run(Instance *i, int stage)
{
    const DeviceMemory *m = i->p->device->memory;
    OnDevice *o = i->device;
    on_device_send(i);
    if (!o->warm[stage] || !recordable(i, stage)) {
        run_stage(i, stage);
        o->warm[stage] = true;
        return;
    }
    if (!o->recording[stage]) {
        m->record();
        run_stage(i, stage);
        o->recording[stage] = m->recorded();
    }
    m->replay(o->recording[stage]);
}

/* ---- many runs of one stage ---------------------------------------------------------- */

/* Elements of all the outputs together; -1: they are not dense floats of this device. */
static int64_t row_elements(const Instance *i, int nout, const int *out)
{
    const Program *p = i->p;
    int64_t row = 0;
    for (int o = 0; o < nout; o++) {
        const Slot *s = &p->value[p->graph->outputs[out[o]]->id];
        if (s->t.dtype != DT_F32 || !tensor_is_row_major(&s->t) || s->buffer < 0) return -1;
        row += tensor_count(&s->t);
    }
    return row;
}

static int lanes_of(const Instance *i, int stage)
{
    return stage == i->p->lane_stage ? i->device->lanes : 1;
}

/* Rows for n runs and what further lanes run beyond them, the row counter, keys. */
static bool make_room(const Instance *i, Repeat *r, int n, int lanes)
{
    const DeviceMemory *m = i->p->device->memory;
    if (r->rows && r->nrows >= n) return true;
    if (r->recording) m->discard(r->recording);
    if (r->rows) m->release(r->rows);
    r->recording = NULL;
    const int64_t floats = (n + lanes) * r->row;
    const size_t counters = 2 + (size_t)(lanes * r->size);
    r->rows = m->alloc((size_t)(floats + 1) * sizeof(float) + counters * sizeof *r->at);
    r->at = (int64_t *)(void *)(r->rows + floats + floats % 2);
    r->keys = r->at + 2;
    r->nrows = n;
    return r->rows != NULL;
}

bool on_device_lanes(Instance *i, int n)
{
    const DeviceMemory *m = i->p->device->memory;
    size_t bytes;
    if (n < 2 || m->lanes(n) < n || !mul_ok(program_lane_bytes(i->p), (size_t)n - 1, &bytes))
        return n < 2;
    i->device->more = m->alloc(bytes + 1);
    if (i->device->more) i->device->lanes = n;
    return i->device->more != NULL;
}

/* A lane's tensor of a slot: what its stage writes is its own, and so is the counter. */
static Tensor lane_resolve(const Instance *i, const Repeat *r, int lane, const Slot *s)
{
    const Program *p = i->p;
    Tensor t = instance_resolve(i, s);
    if (s->buffer < 0) return t;
    const Buffer *b = &p->buffers[buffer_root(p, s->buffer)];
    if (b->kind == BUF_INPUT && b->input == r->counter) t.data = r->keys + lane * r->size;
    if (b->kind == BUF_ARENA && b->stage == p->lane_stage && lane > 0)
        t.data = i->device->more + (size_t)(lane - 1) * program_lane_bytes(p) + b->lane_offset;
    return t;
}

static void run_lane(Instance *i, const Repeat *r, int stage, int lane)
{
    const Program *p = i->p;
    char *scratch =
        lane ? i->device->more + (size_t)(lane - 1) * program_lane_bytes(p) + p->lane_memory
             : i->scratch;
    Arena *a = arena_new();
    Tensor *operands = NEW_ARRAY(a, Tensor, p->noperands + 1);
    for (int k = p->stage_begin[stage]; k < p->stage_begin[stage + 1]; k++) {
        const Step *s = &p->steps[k];
        for (int j = 0; j < s->nin + s->nout; j++)
            operands[s->operand + j] = lane_resolve(i, r, lane, &s->slot[j]);
    }
    instance_run_steps(i, stage, operands, scratch);
    arena_free(a);
}

/* Every lane its run and, with `keep`, its row. */
static void run_lanes(Instance *i, const Repeat *r, int stage, const int *out, bool keep)
{
    const Program *p = i->p;
    const DeviceMemory *m = p->device->memory;
    const int lanes = lanes_of(i, stage);
    if (lanes > 1) m->fork(lanes);
    for (int lane = 0; lane < lanes; lane++) {
        int64_t at = 0;
        if (lanes > 1) m->lane(lane);
        run_lane(i, r, stage, lane);
        for (int o = 0; o < r->nout && keep; o++) {
            const Slot *s = &p->value[p->graph->outputs[out[o]]->id];
            const Tensor x = lane_resolve(i, r, lane, s);
            m->append(r->rows, r->at, lane, r->row, at, x.data, tensor_count(&x));
            at += tensor_count(&x);
        }
    }
    if (lanes > 1) m->join(lanes);
}

/* The caller's counter and the ones that follow it, one per lane. */
static void upload_keys(const Instance *i, const Repeat *r, int lanes)
{
    int64_t keys[MAX_LANES * MAX_COUNTER];
    for (int lane = 0; lane < lanes; lane++) {
        int64_t *key = keys + lane * r->size;
        memcpy(key, i->bound[r->counter], (size_t)r->size * sizeof *key);
        key[r->size - 1] += lane;
    }
    i->p->device->memory->upload(r->keys, keys, (size_t)(lanes * r->size) * sizeof *keys);
}

/* Lanes run once before they are recorded, as their libraries load code and allocate then. */
static void record_repeat(Instance *i, Repeat *r, int stage, const int *out)
{
    const DeviceMemory *m = i->p->device->memory;
    const int lanes = lanes_of(i, stage);
    if (lanes > 1) {
        on_device_send(i);
        upload_keys(i, r, lanes);
        run_lanes(i, r, stage, out, false);
    }
    m->record();
    run_lanes(i, r, stage, out, true);
    m->bump(r->at, r->keys, r->size, lanes);
    r->recording = m->recorded();
}

/* Makes the recording for at least n rows; false: the stage cannot be repeated here. */
static bool repeatable(Instance *i, int stage, int counter, int n, int nout, const int *out)
{
    Repeat *r = &i->device->repeat[stage];
    const int64_t row = row_elements(i, nout, out);
    if (row < 0 || !i->device->warm[stage] || !recordable(i, stage) || i->carry[stage].n)
        return false;
    if (r->recording && (r->counter != counter || r->nout != nout || r->row != row)) return false;
    r->counter = counter;
    r->size = type_count(&i->p->graph->inputs[counter]->type);
    r->nout = nout;
    r->row = row;
    if (!make_room(i, r, n, lanes_of(i, stage))) return false;
    if (!r->recording) record_repeat(i, r, stage, out);
    return true;
}

/* Rows first … n - 1, and as many beyond as lanes make of it. */
static void run_rows(Instance *i, int stage, int first, int n)
{
    const DeviceMemory *m = i->p->device->memory;
    const Repeat *r = &i->device->repeat[stage];
    const int lanes = lanes_of(i, stage);
    const int64_t at[2] = {first, n};
    i->device->dirty[r->counter] = false; /* lanes have their own */
    on_device_send(i);
    i->device->dirty[r->counter] = true;
    upload_keys(i, r, lanes);
    m->upload(r->at, at, sizeof at);
    for (int k = first; k < n; k += lanes) m->replay(r->recording);
}

bool on_device_repeat(Instance *i, int stage, int counter, int n, int nout, const int *out,
                      float *rows)
{
    const Repeat *r = &i->device->repeat[stage];
    if (!repeatable(i, stage, counter, n, nout, out)) return false;
    run_rows(i, stage, 0, n);
    i->p->device->memory->download(rows, r->rows, (size_t)(n * r->row) * sizeof *rows);
    return true;
}

/* ---- their statistics ------------------------------------------------------------------ */

bool instance_keeps(Instance *i, int stage, int counter, int most, int nout, const int *out,
                    const double *factor)
{
    if (!i->device) return false;
    const DeviceMemory *m = i->p->device->memory;
    Repeat *r = &i->device->repeat[stage];
    if (!i->device->warm[stage]) on_device_run(i, stage);
    if (!repeatable(i, stage, counter, most, nout, out)) return false;
    const size_t row = (size_t)r->row, zeros = ((size_t)most + 4) * row * sizeof(double);
    void *zero = calloc(zeros + 1, 1);
    if (r->total && r->most < most) {
        m->release(r->total);
        r->total = NULL;
    }
    if (!r->total && zero) {
        r->total = m->alloc(zeros + row * sizeof *factor + 1);
        r->most = most;
    }
    if (r->total && zero) {
        r->moments = r->total + (size_t)most * row;
        r->factor = r->moments + 4 * row;
        m->upload(r->total, zero, zeros);
        m->upload(r->factor, factor, row * sizeof *factor);
    }
    free(zero);
    return r->total && zero;
}

int instance_collect(Instance *i, int stage, int first, int n)
{
    const Repeat *r = &i->device->repeat[stage];
    int64_t bad = n;
    run_rows(i, stage, first, n);
    i->p->device->memory->download(&bad, r->at + 1, sizeof bad);
    return (int)bad;
}

void instance_gather(Instance *i, int stage, int n)
{
    const Repeat *r = &i->device->repeat[stage];
    i->p->device->memory->gather(r->total, r->rows, n * r->row);
}

void instance_observe(Instance *i, int stage, int n, int64_t before, double *moments)
{
    const Device *d = i->p->device;
    const DeviceMemory *m = d->memory;
    const Repeat *r = &i->device->repeat[stage];
    if (ranks_count() > 1) m->over_ranks(r->total, DT_F64, n * r->row, RANKS_SUM, d->deterministic);
    m->observe(r->moments, r->total, r->factor, r->row, n, before);
    m->download(moments, r->moments, 4 * (size_t)r->row * sizeof *moments);
}

/* ---- results ------------------------------------------------------------------------- */

void on_device_read(const Instance *i, int output, void *dst)
{
    const DeviceMemory *m = i->p->device->memory;
    const Slot *s = &i->p->value[i->p->graph->outputs[output]->id];
    Tensor from = instance_resolve(i, s), to = from;
    const size_t size = (size_t)tensor_count(&from) * dtype_size(from.dtype);
    to.data = dst;
    tensor_set_strides(&to, false);
    if (tensor_is_row_major(&from)) {
        if (size) m->download(dst, from.data, size);
        return;
    }
    char *copy = malloc(size + 1);
    if (!copy) trap(TRAP_NO_MEMORY, "out of memory for an output");
    m->download(copy, from.data, size);
    from.data = copy;
    tensor_copy(&from, &to);
    free(copy);
}
