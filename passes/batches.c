/* Shards of samples, and programs that run over them: see batches.h. */
#include "passes/batches.h"

#include "ir/batch.h"
#include "ir/process.h"

#include <stdatomic.h>
#include <string.h>

/* ---- shapes ------------------------------------------------------------------------- */

/* Which of the samples' inputs feeds graph input k; -1: none. */
static int sample_input(const Graph *g, const Samples *s, int k)
{
    for (int i = 0; s && i < s->ninputs; i++)
        if (s->inputs[i].name && strcmp(s->inputs[i].name, g->inputs[k]->name) == 0) return i;
    return s && k < s->ninputs && !s->inputs[k].name ? k : -1;
}

/* The samples that a run takes because of input k; 0: as many as one likes. */
static int64_t batch_of_input(const Graph *g, const Samples *s, int k)
{
    const int i = sample_input(g, s, k), axis = i < 0 ? 0 : s->inputs[i].batch_axis;
    const Type *t = &g->inputs[k]->type;
    if (axis < 0) return !s->inputs[i].same;
    return axis < t->rank && !dim_is_sym(t->dim[axis]) ? t->dim[axis] : 0;
}

/* The same of the whole graph. */
static int64_t fixed_batch(const Graph *g, const Samples *s)
{
    int64_t batch = 0;
    for (int k = 0; k < g->ninputs && !batch; k++) batch = batch_of_input(g, s, k);
    return batch;
}

int64_t shard_size(const Graph *g, const Samples *s, int64_t wanted)
{
    const int64_t batch = fixed_batch(g, s);
    return batch ? batch : wanted > 0 ? wanted : SHARD_SAMPLES;
}

/* Binds the symbols of one input: batch by `shard`, the rest by the sample's shape. */
static int bind_symbols(int64_t *dims, const Value *x, const SampleInput *in, int64_t shard,
                        Diag *d)
{
    const Type *t = &x->type, *sample = &in->type;
    const int axis = in->batch_axis;
    if (t->rank != sample->rank + (axis >= 0))
        return diag_error(d, "input '%s' has %d dimensions, one sample has %d", x->name, t->rank,
                          sample->rank);
    for (int i = 0; i < t->rank; i++) {
        const bool is_batch = i == axis;
        const int64_t want = is_batch ? shard : sample->dim[axis >= 0 && i > axis ? i - 1 : i];
        if (dim_is_sym(t->dim[i])) {
            int64_t *bound = &dims[t->dim[i] - DIM_SYM_BASE];
            if (*bound < 0) *bound = want;
            if (*bound == want) continue;
        } else if (t->dim[i] == want || (is_batch && shard < 0)) {
            continue;
        }
        return diag_error(d, "dimension %d of input '%s' does not fit the samples, which have %lld",
                          i, x->name, (long long)want);
    }
    return 0;
}

int shard_specialize(Graph **out, const Graph *g, Arena *a, const Samples *s, int64_t shard,
                     Diag *d)
{
    return shard_specialize_mapped(out, g, a, s, shard, NULL, d);
}

int shard_specialize_mapped(Graph **out, const Graph *g, Arena *a, const Samples *s, int64_t shard,
                            Value ***map, Diag *d)
{
    int64_t *dims = NEW_ARRAY(a, int64_t, g->nsymbols + 1);
    for (int k = 0; k < g->nsymbols; k++) dims[k] = -1;
    for (int k = 0; k < g->ninputs; k++) {
        int i = sample_input(g, s, k);
        if (i < 0) return diag_error(d, "the samples have no input '%s'", g->inputs[k]->name);
        TRY(bind_symbols(dims, g->inputs[k], &s->inputs[i], shard, d));
    }
    *out = simplify_specialize(g, a, dims, map, d);
    return *out ? 0 : -1;
}

/* ---- sessions ----------------------------------------------------------------------- */

void session_close(Session *s)
{
    if (!s) return;
    pool_free(s->pool);
    program_free(s->program);
    s->pool = NULL;
    s->program = NULL;
}

static void release_session(void *p) { session_close(p); }

/* What may be planned for: what --memory says; else what there is for the CPU's programs. */
static size_t memory_limit(const Options *o)
{
    return o->memory                        ? o->memory
           : runtime_is_parallel(o->device) ? SIZE_MAX
                                            : process_memory_free();
}

int memory_allows(const Options *o, size_t bytes, int64_t samples, Diag *d)
{
    const size_t limit = memory_limit(o);
    if (bytes <= limit) return 0;
    return diag_error(d, "%lld sample%s at a time need%s %zu bytes, %s %zu", (long long)samples,
                      samples == 1 ? "" : "s", samples == 1 ? "s" : "", bytes,
                      o->memory ? "--memory allows" : "this machine has free", limit);
}

/* Bytes of one instance with the buffers that a feed gives it and what the caller adds. */
static int bytes_each(Session *s, const Samples *samples, const ShardGraph *made, Diag *d)
{
    bool ok = add_ok(program_instance_bytes(s->program), made->result_bytes, &s->each) &&
              add_ok(s->each, made->each, &s->each);
    size_t room = 0;
    for (int k = 0; k < s->g->ninputs; k++) {
        const int i = sample_input(s->g, samples, k);
        const size_t one = i < 0 ? 0 : samples->inputs[i].room;
        ok = ok && add_ok(s->each, (size_t)type_bytes(&s->g->inputs[k]->type), &s->each);
        room = one > room ? one : room;
    }
    ok = ok && add_ok(s->each, room, &s->each);
    if (ok) return 0;
    return diag_error(d, "the program needs more memory than an address can name");
}

/* Bytes held whatever the number of threads. The libraries' code is read in as it first runs. */
static size_t bytes_held(const ShardGraph *made, const Options *o)
{
    enum { FIRST_RUN = 1 << 20 };
    if (!o->whole_process || runtime_is_parallel(o->device)) return made->shared;
    return process_resident() + FIRST_RUN + made->shared;
}

static size_t bytes_with(const Session *s, int threads)
{
    size_t all;
    return mul_ok(s->each, (size_t)threads, &all) && add_ok(all, s->held, &all) ? all : SIZE_MAX;
}

int64_t shard_for(int64_t n)
{
    int64_t shard = SHARD_SAMPLES;
    while (shard > 1 && shard / 2 >= n) shard /= 2;
    return shard;
}

int64_t shard_for_device(const Options *o, int64_t n)
{
    int64_t shard = SHARD_SAMPLES;
    if (!runtime_is_parallel(o->device)) return shard_for(n);
    n = (n + ranks_count() - 1) / ranks_count(); /* its part */
    if (n < shard) return shard_for(n);
    while (2 * shard <= n && 2 * shard <= PARALLEL_SAMPLES) shard *= 2;
    return shard;
}

static void tell_smaller(int64_t now, int64_t before, Diag *d)
{
    diag_remark(d, "%lld samples at a time instead of %lld: the device has no memory for more",
                (long long)now, (long long)before);
}

/* program_compile; *full: the device has no memory for it, which is no error unless `last`. */
static int compile_for(Session *s, const ProgramOptions *po, bool last, bool *full, Diag *d)
{
    Trap t;
    *full = false;
    if (trap_enter(&t)) {
        s->program = NULL;
        if (t.kind != TRAP_DEVICE_MEMORY || last) trap(t.kind, "%s", t.message);
        *full = true;
        return 0;
    }
    const int status = program_compile(&s->program, s->g, po, d);
    trap_leave(&t);
    return status;
}

/* Lanes that the device has memory for beside one instance. */
static int lanes_that_fit(const Session *s, const Options *o)
{
    const size_t left = program_memory_left(s->program), lane = program_lane_bytes(s->program);
    size_t room = left > s->each ? left - s->each : 0;
    if (o->memory && o->memory < left) room = o->memory > s->each ? o->memory - s->each : 0;
    int lanes = program_lanes(s->program);
    while (lanes > 1 && lane > room / (size_t)(lanes - 1)) lanes /= 2;
    return lanes;
}

/* What an instance may take for its shard not to be cut. */
static size_t most_each(const Options *o)
{
    static const size_t usual = (size_t)4 << 30;
    const bool bounded = o->memory || !runtime_is_parallel(o->device);
    return bounded ? (o->memory ? o->memory : usual) / MEMORY_THREADS : SIZE_MAX;
}

/* Compiles the program of the largest shard that fits. *smaller: a half of it may be tried. */
static int plan(Session *s, const Samples *samples, bool *smaller, ShardBuilder *make, void *ctx,
                const Graph *model, const Options *o, Diag *d)
{
    ShardGraph made;
    const int64_t wanted = s->shard;
    const bool open = fixed_batch(model, samples) == 0;
    bool full = false, fits_device; /* the device was, at a larger shard */
    for (;; s->shard /= 2) {
        made = (ShardGraph){0};
        *smaller = open && s->shard % 2 == 0;
        TRY(make(&made, ctx, s->shard, s->arena, d));
        ProgramOptions po = {
            .device = o->device, .stage = made.stage, .lane_stage = made.lane_stage};
        s->g = made.g;
        TRY(compile_for(s, &po, !*smaller, &fits_device, d));
        fits_device = !fits_device;
        bool fits = true;
        if (fits_device) {
            TRY(bytes_each(s, samples, &made, d));
            fits = s->each <= most_each(o);
            fits_device = s->each <= program_memory_left(s->program);
        }
        if ((fits && fits_device) || !*smaller) break;
        full |= !fits_device;
        program_free(s->program);
        s->program = NULL;
    }
    if (full) tell_smaller(s->shard, wanted, d);
    s->result_bytes = made.result_bytes;
    s->held = bytes_held(&made, o);
    if (o->memory) s->held = (size_t)ranks_agree((double)s->held);
    s->lanes = lanes_that_fit(s, o);
    return memory_allows(o, bytes_with(s, 1), s->shard, d);
}

/* One instance per thread with its lanes. What the plan found room for may be gone, or in pieces.
 */
static int make_instances(Session *s, bool quietly, Diag *d)
{
    Diag quiet = {0};
    const int wanted = program_lanes(s->program);
    TRY(pool_new(&s->pool, s->program, s->threads, quietly ? &quiet : d));
    s->lanes = pool_lanes(s->pool, s->lanes);
    if (s->lanes < wanted)
        diag_remark(d, "%d probe%s at a time instead of %d: the device has no memory for more",
                    s->lanes, s->lanes > 1 ? "s" : "", wanted);
    return 0;
}

static void print_plan(const Session *s, FILE *f)
{
    program_print(s->program, f);
    fprintf(f, "%d threads of %zu bytes beside %zu: %zu bytes\n", s->threads, s->each, s->held,
            s->bytes);
}

int session_open(Session **out, Arena *a, const Graph *model, const Samples *samples, int64_t most,
                 ShardBuilder *make, void *ctx, const Options *o, Diag *d)
{
    Session *s = *out = NEW(a, Session);
    bool smaller;
    arena_defer(a, release_session, s);
    s->arena = a;
    s->shard = shard_size(model, samples, most);
    for (;; s->shard /= 2) {
        TRY(plan(s, samples, &smaller, make, ctx, model, o, d));
        s->threads = program_threads(s->program, o->threads);
        while (s->threads > 1 && bytes_with(s, s->threads) > memory_limit(o)) s->threads--;
        smaller = smaller && runtime_is_parallel(o->device);
        if (make_instances(s, smaller, d) == 0) break;
        if (!smaller) return -1;
        tell_smaller(s->shard / 2, s->shard, d);
        session_close(s);
    }
    s->each += (size_t)(s->lanes - 1) * program_lane_bytes(s->program);
    s->bytes = bytes_with(s, s->threads);
    if (o->print_plan && ranks_index() == 0) print_plan(s, stderr);
    s->owner = NEW_ARRAY(a, _Atomic(Instance *), s->threads);
    return 0;
}

typedef int Attempt(void *ctx, int64_t most);

/* f's status; a trap stays in t. */
static int attempt(Trap *t, Attempt *f, void *ctx, int64_t most)
{
    if (trap_enter(t) == 0) {
        const int status = f(ctx, most);
        trap_leave(t);
        return status;
    }
    return -1;
}

int session_retry(int (*f)(void *ctx, int64_t most), void *ctx, int64_t most, Diag *d)
{
    for (;; most /= 2) {
        Trap t = {.kind = TRAP_NONE};
        const int status = attempt(&t, f, ctx, most);
        if (t.kind == TRAP_NONE) return status;
        if (t.kind != TRAP_DEVICE_MEMORY || most < 2) trap(t.kind, "%s", t.message);
        diag_remark(d, "%s", t.message);
        tell_smaller(most / 2, most, d);
    }
}

Instance *session_instance(Session *s) { return pool_instance(s->pool); }

/* A slot is claimed when its instance first asks. */
int session_slot(Session *s, Instance *inst)
{
    for (int t = 0; t < s->threads; t++) {
        Instance *owner = NULL;
        if (atomic_compare_exchange_strong(&s->owner[t], &owner, inst) || owner == inst) return t;
    }
    trap(TRAP_INTERNAL, "a session of %d threads met one more instance", s->threads);
}

int session_run(Session *s, int64_t shards, ShardCallback *work, ShardCallback *reduce, void *ctx)
{
    ShardJob job = {.program = s->program,
                    .n = shards,
                    .work = work,
                    .reduce = reduce,
                    .ctx = ctx,
                    .result_bytes = s->result_bytes};
    return pool_run(s->pool, &job);
}

/* ---- feeds -------------------------------------------------------------------------- */

/* The buffers of one instance. */
typedef struct Slot {
    void **buffer; /* per graph input */
    int64_t *index;
} Slot;

struct Feed {
    const Graph *g;
    const Samples *samples;
    const int64_t *index;
    int64_t n, shard;
    Session *session;
    Slot *slots;
    int *source; /* per graph input: of which samples' input; -1: the caller's */
};

Feed *feed_new(Arena *a, Session *session, const Samples *s, int64_t n, const int64_t *index)
{
    Feed *f = NEW(a, Feed);
    const Graph *g = session->g;
    int64_t shard = session->shard;
    *f = (Feed){.g = g, .samples = s, .index = index, .n = n, .shard = shard, .session = session};
    f->slots = NEW_ARRAY(a, Slot, session->threads);
    f->source = NEW_ARRAY(a, int, g->ninputs);
    for (int k = 0; k < g->ninputs; k++) f->source[k] = sample_input(g, s, k);
    for (int t = 0; t < session->threads; t++) {
        f->slots[t].buffer = NEW_ARRAY(a, void *, g->ninputs);
        f->slots[t].index = NEW_ARRAY(a, int64_t, shard);
        for (int k = 0; k < g->ninputs; k++)
            f->slots[t].buffer[k] = arena_alloc(a, (size_t)type_bytes(&g->inputs[k]->type));
    }
    return f;
}

int64_t feed_shards(const Feed *f) { return (f->n + f->shard - 1) / f->shard; }

int64_t feed_rows(const Feed *f, int64_t shard)
{
    int64_t rest = f->n - shard * f->shard;
    return rest < f->shard ? rest : f->shard;
}

int64_t feed_sample(const Feed *f, int64_t shard, int64_t row)
{
    int64_t i = shard * f->shard + row % feed_rows(f, shard);
    return f->index ? f->index[i] : i;
}

static Slot *slot_of(Feed *f, Instance *inst) { return &f->slots[session_slot(f->session, inst)]; }

void feed_bind(Feed *f, int64_t shard, Instance *inst)
{
    Slot *slot = slot_of(f, inst);
    for (int64_t i = 0; i < f->shard; i++) slot->index[i] = feed_sample(f, shard, i);
    for (int k = 0; k < f->g->ninputs; k++) {
        if (f->source[k] < 0) continue;
        const Type *t = &f->g->inputs[k]->type;
        samples_gather(f->samples, f->source[k], slot->index, f->shard, t->dtype, slot->buffer[k]);
        instance_bind(inst, k, slot->buffer[k]);
    }
}

/* What feed_run runs. */
typedef struct Forward {
    Feed *feed;
    ShardCallback *reduce;
    void *ctx;
} Forward;

static int forward_shard(void *ctx, int64_t shard, Instance *inst)
{
    const Forward *f = ctx;
    feed_bind(f->feed, shard, inst);
    instance_run_all(inst);
    return 0;
}

static int reduce_forward(void *ctx, int64_t shard, Instance *inst)
{
    const Forward *f = ctx;
    return f->reduce(f->ctx, shard, inst);
}

int feed_run(Feed *f, ShardCallback *reduce, void *ctx)
{
    Forward forward = {f, reduce, ctx};
    return session_run(f->session, feed_shards(f), forward_shard, reduce_forward, &forward);
}

void *feed_buffer(Feed *f, Instance *inst, int k) { return slot_of(f, inst)->buffer[k]; }

void feed_bind_targets(Feed *f, int64_t shard, Instance *inst, int k, int axis, const float *soft)
{
    const Type *t = &f->g->inputs[k]->type;
    const int64_t outer = batch_outer(t, axis), rows = feed_rows(f, shard);
    const int64_t classes = axis < 0 ? type_count(t) : type_count(t) / f->shard;
    float *x = feed_buffer(f, inst, k);
    memset(x, 0, (size_t)type_bytes(t));
    for (int64_t i = 0; soft && i < rows; i++)
        batch_put(x, soft + (shard * f->shard + i) * classes, outer, i, f->shard,
                  (size_t)classes * sizeof *x);
    for (int64_t i = 0; !soft && i < rows; i++) {
        int64_t label = f->samples->labels[feed_sample(f, shard, i)];
        if (label >= 0 && label < classes) x[i * classes + label] = 1;
    }
    instance_bind(inst, k, x);
}
