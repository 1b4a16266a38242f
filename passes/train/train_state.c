/* The state of training: its snapshots, its way into the graph, and into another process. */
#include <string.h>

#include "passes/checkpoint.h"
#include "passes/train/trainer.h"

static size_t floats(int64_t n) { return (size_t)n * sizeof(float); }

/* ---- going back, and home ------------------------------------------------------------ */

typedef void EachArray(float *x, int64_t n, void *ctx);

static void each_range(Trainer *t, EachArray *f, void *ctx)
{
    for (int i = 0; i < t->t.nranges; i++) f(t->ranges[i].ends, 2, ctx);
}

static void each_weight(Trainer *t, EachArray *f, void *ctx)
{
    for (int i = 0; i < t->t.nparams; i++) f(t->params[i].data, t->params[i].count, ctx);
    for (int i = 0; i < t->t.nnorms; i++) {
        f(t->running[i].mean, t->running[i].channels, ctx);
        f(t->running[i].variance, t->running[i].channels, ctx);
    }
}

/* Calls f on every array that training changes; ranges first. */
static void each_array(Trainer *t, EachArray *f, void *ctx)
{
    each_range(t, f, ctx);
    each_weight(t, f, ctx);
}

static void save_array(float *x, int64_t n, void *ctx)
{
    float **to = ctx;
    memcpy(*to, x, floats(n));
    *to += n;
}

static void load_array(float *x, int64_t n, void *ctx)
{
    float **from = ctx;
    memcpy(x, *from, floats(n));
    *from += n;
}

static void count_array(float *x, int64_t n, void *ctx)
{
    (void)x;
    *(int64_t *)ctx += n;
}

void snapshot_save(Trainer *t, TrainSnapshot *s)
{
    float *to = s->values;
    s->on_device = t->resident && !t->push;
    s->step = t->step;
    if (s->on_device) {
        instance_save(t->instance, t->nsaved, t->saved);
        each_range(t, save_array, &to);
    } else {
        each_array(t, save_array, &to);
    }
}

void snapshot_bring(Trainer *t, TrainSnapshot *s)
{
    float *to = s->values;
    resident_pull(t, false);
    s->step = t->step;
    each_array(t, save_array, &to);
}

void snapshot_end_with(Trainer *t, const TrainSnapshot *s)
{
    float *from = s->values;
    t->ahead = false; /* what the device has is not wanted */
    each_array(t, load_array, &from);
    trainer_update_grids(t);
}

TrainSnapshot snapshot_new(Trainer *t, Arena *a)
{
    TrainSnapshot s = {0};
    each_array(t, count_array, &s.size);
    s.values = NEW_ARRAY(a, float, s.size);
    snapshot_save(t, &s);
    return s;
}

/* The snapshot's bytes, wherever it is; what the host holds is then no state at all. */
static void bring_home(Trainer *t, TrainSnapshot *s)
{
    const TrainUpdate *u = &t->update;
    float *to = s->values;
    if (!s->on_device) return;
    for (int k = 0, j = 0; k < u->nstate; k++)
        if (resident_is_saved(u->state[k].kind)) instance_read_saved(t->instance, j++, t->home[k]);
    for (int i = 0; i < t->t.nranges; i++) to += 2;
    each_weight(t, save_array, &to);
}

static void forget_moments(Trainer *t)
{
    for (int i = 0; i < t->t.nparams; i++) {
        memset(t->params[i].m, 0, floats(t->params[i].count));
        memset(t->params[i].v, 0, floats(t->params[i].count));
    }
    for (int k = 0; t->instance && k < t->update.nstate; k++) {
        if (is_moment(t->update.state[k].kind))
            instance_bind(t->instance, t->update.in[k], t->home[k]);
    }
    t->optimizer.step = 0;
}

void snapshot_restore(Trainer *t, const TrainSnapshot *s)
{
    float *from = s->values;
    forget_moments(t);
    t->step = s->step;
    t->sent_next = false; /* images vary with the step */
    if (s->on_device) {
        instance_restore(t->instance);
        each_range(t, load_array, &from);
        trainer_update_ranges(t);
        return;
    }
    each_array(t, load_array, &from);
    t->push = t->resident;
    t->ahead = false;
    trainer_update_grids(t);
}

/* Puts what was learned into the graph's constants. */
void trainer_take_home(Trainer *t)
{
    resident_pull(t, false);
    Arena *a = t->c->graph->arena;
    for (int i = 0; i < t->t.nparams; i++)
        t->t.params[i].home->data = arena_memdup(a, t->params[i].data, floats(t->params[i].count));
    for (int i = 0; i < t->t.nscales; i++) {
        Value *home = t->t.scales[i].home;
        home->data = arena_memdup(a, t->scales[i], (size_t)type_bytes(&home->type));
    }
    for (int i = 0; i < t->t.nranges; i++) moving_range_take_home(&t->ranges[i], &t->t.ranges[i]);
    for (int i = 0; i < t->t.nnorms; i++) {
        const Running *r = &t->running[i];
        t->t.norms[i].mean->data = arena_memdup(a, r->mean, floats(r->channels));
        t->t.norms[i].variance->data = arena_memdup(a, r->variance, floats(r->channels));
    }
}

/* ---- going on in another process ---------------------------------------------------- */

/* All of it in one block: the loop, then parameters and moments, statistics, ranges, the last good
 * and the best state, the permutation. `copy` moves between the block and where it belongs, either
 * way; without a block nothing is moved. Returns the bytes of the block. */
static size_t move_state(Trainer *t, TrainLoop *loop, TrainStates *s, char *block,
                         void (*copy)(char *block, void *home, size_t n))
{
    size_t at = 0;
#define MOVE(home, n) (block ? copy(block + at, (home), (n)) : (void)0, at += (n))
    MOVE(loop, sizeof *loop);
    for (int i = 0; i < t->t.nparams; i++) {
        MOVE(t->params[i].data, floats(t->params[i].count));
        MOVE(t->params[i].m, floats(t->params[i].count));
        MOVE(t->params[i].v, floats(t->params[i].count));
    }
    for (int i = 0; i < t->t.nnorms; i++) {
        MOVE(t->running[i].mean, floats(t->running[i].channels));
        MOVE(t->running[i].variance, floats(t->running[i].channels));
    }
    for (int i = 0; i < t->t.nranges; i++) MOVE(t->ranges[i].ends, sizeof t->ranges[i].ends);
    MOVE(s->good.values, floats(s->good.size));
    MOVE(s->best.values, floats(s->best.size));
    MOVE(t->order, sizeof *t->order * (size_t)t->c->data->count);
#undef MOVE
    return at;
}

static void to_block(char *block, void *home, size_t n) { memcpy(block, home, n); }
static void from_block(char *block, void *home, size_t n) { memcpy(home, block, n); }

int trainer_leave(Trainer *t, TrainLoop *loop, TrainStates *s)
{
    Arena *a = arena_new();
    size_t n = move_state(t, loop, s, NULL, NULL);
    char *block = arena_alloc(a, n);
    bring_home(t, &s->good);
    resident_pull(t, true);
    loop->step = t->step;
    loop->drawn = t->drawn;
    loop->updates = t->optimizer.step;
    loop->good_step = s->good.step;
    loop->shuffle = t->shuffle;
    loop->loss_scale = t->loss_scale;
    move_state(t, loop, s, block, to_block);
    int status = checkpoint_save_part(t->c, block, n);
    arena_free(a);
    return status;
}

/* If an earlier process was stopped in this pass. */
void trainer_take_up(Trainer *t, TrainLoop *loop, TrainStates *s)
{
    Arena *a = arena_new();
    size_t n = move_state(t, loop, s, NULL, NULL);
    char *block = arena_alloc(a, n);
    if (checkpoint_load_part(t->c, block, n)) {
        move_state(t, loop, s, block, from_block);
        t->step = loop->step;
        t->drawn = loop->drawn;
        t->optimizer.step = loop->updates;
        s->good.step = loop->good_step;
        t->shuffle = loop->shuffle;
        t->loss_scale = loop->loss_scale;
        trainer_update_grids(t);
        diag_remark(t->c->diag, "training goes on at step %lld", (long long)t->step);
    }
    arena_free(a);
}
