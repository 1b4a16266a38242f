/* Fine-tuning over shards: AdamW, or stochastic gradient descent with momentum.
 *
 * A batch is cut into shards of fixed size; each runs the training graph (train_graph.c), and loss,
 * gradients and batch statistics are added in shard order, so the result has the same bytes for
 * any number of threads. Samples are drawn in shuffled epochs and varied per sample from Philox
 * streams, which no thread order can disturb. Ranges of activations on a grid are learned, or
 * follow the batches (moving_range.c).
 *
 * On a device with memory of its own parameters, moments and sums over shards stay there, and the
 * update is part of the program (train_update.c): per step samples, labels and rates go up, the
 * loss and the extremes of ranges that follow the data come down.
 *
 * A run that diverges (a number that is not finite, or a loss far above the best so far) goes
 * back to its last good state and continues at a lower rate. What it ends with is the state that
 * did best on samples held out from it (held_out.c), which may be the one that it began with.
 *
 * The total budget (--steps, --epochs, --time) is shared between a float phase and, once the graph
 * holds FakeQuant nodes, a phase with simulated integers, whose share is {qat=…}; all, where there
 * was no float phase. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ir/process.h"
#include "passes/observe.h"
#include "passes/train/trainer.h"

enum { SNAPSHOT_EVERY = 16, MAX_RETREATS = 6, SETTLING_SAMPLES = 1024, LEAST_BETWEEN = 4 };

static const double NORM_MOMENTUM = 0.1, WARMUP = 0.05, FIRST_DUE = 0.125;

/* ---- one step ----------------------------------------------------------------------- */

void trainer_draw(Trainer *t, int64_t *index)
{
    int64_t n = t->seen;
    for (int64_t i = 0; i < t->recipe.setup.batch; i++, t->drawn++) {
        int64_t at = t->drawn % n;
        if (at == 0 && n <= UINT32_MAX)
            for (int64_t k = n - 1; k > 0; k--) { /* Fisher-Yates */
                int64_t j = rng_below(&t->shuffle, (uint32_t)(k + 1)), x = t->order[k];
                t->order[k] = t->order[j];
                t->order[j] = x;
            }
        index[i] = t->order[at];
    }
}

static void next_batch(Trainer *t)
{
    if (t->drawn_next)
        memcpy(t->index, t->next, sizeof *t->index * (size_t)t->recipe.setup.batch);
    else
        trainer_draw(t, t->index);
    t->drawn_next = false;
}

static void vary_images(Trainer *t, int64_t shard, Instance *inst)
{
    const Augment *a = &t->augment;
    int64_t pixels = a->channels * a->height * a->width;
    float *image = feed_buffer(t->feed, inst, 0), *scratch = t->scratch + shard * pixels;
    for (int64_t i = 0; i < t->t.shard; i++) {
        uint64_t draw = (uint64_t)(t->step * t->recipe.setup.batch + shard * t->t.shard + i);
        Rng r = rng_new(t->c->opt.seed ^ 0xa46, draw);
        augment_image(a, &r, image + i * pixels, scratch);
    }
}

void trainer_bind_samples(Trainer *t, int64_t shard, Instance *inst)
{
    feed_bind(t->feed, shard, inst);
    if (t->augmented && !t->judging) vary_images(t, shard, inst);
    if (t->t.labels >= 0) feed_bind_targets(t->feed, shard, inst, t->t.labels, 0, NULL);
}

void trainer_bind_numbers(Trainer *t, Instance *inst)
{
    if (t->t.loss_scale >= 0) instance_bind(inst, t->t.loss_scale, &t->loss_scale.value);
    for (int i = 0; i < t->t.nranges; i++) {
        instance_bind(inst, t->t.ranges[i].scale_input, &t->ranges[i].grid.scale);
        instance_bind(inst, t->t.ranges[i].zero_input, &t->ranges[i].grid.zero);
    }
}

void trainer_bind_all(Trainer *t, int64_t shard, Instance *inst)
{
    trainer_bind_samples(t, shard, inst);
    for (int i = 0; i < t->t.nparams; i++)
        instance_bind(inst, t->t.params[i].input, t->params[i].data);
    for (int i = 0; i < t->t.nscales; i++) instance_bind(inst, t->t.scales[i].input, t->scales[i]);
    trainer_bind_numbers(t, inst);
}

static int work(void *ctx, int64_t shard, Instance *inst)
{
    trainer_bind_all(ctx, shard, inst);
    instance_run_all(inst);
    return 0;
}

static void add_result(Trainer *t, Instance *inst, int output, float *sum, int64_t n)
{
    if (output < 0) return;
    instance_read(inst, output, t->buffer);
    for (int64_t i = 0; i < n; i++) sum[i] += t->buffer[i];
}

static int reduce(void *ctx, int64_t shard, Instance *inst)
{
    Trainer *t = ctx;
    float loss = 0;
    (void)shard;
    add_result(t, inst, 0, &loss, 1);
    t->loss += (double)loss;
    for (int i = 0; i < t->t.nparams; i++)
        add_result(t, inst, t->t.params[i].output, t->params[i].grad, t->params[i].count);
    for (int i = 0; i < t->t.nnorms; i++) {
        const TrainNorm *n = &t->t.norms[i];
        Running *r = &t->running[i];
        add_result(t, inst, n->mean_output, r->sum_mean, r->channels);
        add_result(t, inst, n->variance_output, r->sum_variance, r->channels);
    }
    for (int i = 0; i < t->t.nextremes; i++) {
        const TrainExtreme *e = &t->t.extremes[i];
        float lo, hi;
        instance_read(inst, e->least_output, &lo);
        instance_read(inst, e->most_output, &hi);
        moving_range_see(&t->ranges[e->range], lo, hi);
    }
    return 0;
}

static size_t floats(int64_t n) { return (size_t)n * sizeof(float); }

static void clear_sums(Trainer *t)
{
    t->loss = 0;
    for (int i = 0; i < t->t.nparams; i++) memset(t->params[i].grad, 0, floats(t->params[i].count));
    for (int i = 0; i < t->t.nnorms; i++) {
        memset(t->running[i].sum_mean, 0, floats(t->running[i].channels));
        memset(t->running[i].sum_variance, 0, floats(t->running[i].channels));
    }
    for (int i = 0; i < t->t.nranges; i++) moving_range_begin_step(&t->ranges[i]);
}

void trainer_update_ranges(Trainer *t)
{
    for (int i = 0; i < t->t.nranges; i++) moving_range_settle(&t->ranges[i], &t->t.ranges[i]);
}

static void update_scales(Trainer *t)
{
    for (int i = 0; i < t->t.nscales; i++) {
        const TrainScale *s = &t->t.scales[i];
        const TrainParam *w = &t->t.params[s->param];
        grid_weight_scales(t->scales[i], t->params[s->param].data, &w->home->type, s->axis,
                           s->qmax);
    }
}

void trainer_update_grids(Trainer *t)
{
    trainer_update_ranges(t);
    update_scales(t);
}

/* running <- (1 - m) running + m (mean over shards), the variance made unbiased */
static void update_running(Trainer *t)
{
    float shards = (float)feed_shards(t->feed), m = (float)NORM_MOMENTUM;
    for (int i = 0; i < t->t.nnorms; i++) {
        Running *r = &t->running[i];
        float correction = (float)t->t.norms[i].correction;
        for (int64_t k = 0; k < r->channels; k++) {
            r->mean[k] += m * (r->sum_mean[k] / shards - r->mean[k]);
            r->variance[k] += m * (r->sum_variance[k] / shards * correction - r->variance[k]);
        }
    }
}

/* All of a step's shards, and the update. False if anything was not finite. */
static bool step_resident(Trainer *t, int *status)
{
    *status = session_run(t->session, feed_shards(t->feed), resident_work, NULL, t);
    if (*status < 0) return false;
    resident_update(t);
    if (!isfinite(t->loss) || !(t->report[REPORT_SQUARES] < FLT_MAX)) return false;
    t->optimizer.step++;
    t->ahead = true;
    return true;
}

static bool step_here(Trainer *t, int *status)
{
    *status = session_run(t->session, feed_shards(t->feed), work, reduce, t);
    if (*status < 0 || !isfinite(t->loss)) return false;
    const float unscale = 1 / t->loss_scale.value;
    for (int i = 0; i < t->t.nparams && unscale != 1; i++)
        for (int64_t k = 0; k < t->params[i].count; k++) t->params[i].grad[k] *= unscale;
    if (!isfinite(optimizer_step(&t->optimizer, t->params, t->t.nparams, t->lr, t->range_lr)))
        return false;
    update_running(t);
    return true;
}

/* Forward, backward and update at rate lr. False if anything was not finite: then no parameter
 * has changed. */
static bool train_step(Trainer *t, double lr, double share, int *status)
{
    next_batch(t);
    t->lr = lr;
    t->range_lr = share * t->recipe.range_lr;
    for (;;) {
        clear_sums(t);
        const bool done = t->resident ? step_resident(t, status) : step_here(t, status);
        if (done) break;
        if (*status < 0 || !isfinite(t->loss) || !loss_scale_lower(&t->loss_scale)) return false;
        t->sent_next = false; /* this batch again */
    }
    loss_scale_passed(&t->loss_scale);
    for (int i = 0; i < t->t.nranges; i++)
        moving_range_follow(&t->ranges[i], (float)t->recipe.range_momentum);
    trainer_update_ranges(t);
    if (!t->resident) update_scales(t);
    t->step++;
    return true;
}

/* ---- the loop ----------------------------------------------------------------------- */

static double progress_of(const Trainer *t, const TrainLoop *l)
{
    const TrainRecipe *r = &t->recipe;
    double done = r->steps ? (double)t->step / (double)r->steps : 0;
    double spent = r->seconds > 0 ? ranks_agree((process_seconds() - l->start) / r->seconds) : 0;
    return fmin(1, fmax(done, spent));
}

/* Takes in a step's loss; false if the run has diverged. The first loss, before any update, is
 * what a run must not lose. */
static bool watch(TrainWatch *w, bool finite, double loss)
{
    if (!finite) return false;
    w->average += fmax(0.1, 1 / (double)++w->steps) * (loss - w->average);
    if (w->best < 0 || (w->steps >= 10 && w->average < w->best)) w->best = w->average;
    return w->average <= 2 * w->best + 0.1;
}

/* Back to an earlier state, and on with smaller steps. False if that has been done too often. */
static bool retreat(Trainer *t, TrainLoop *l, const TrainSnapshot *to)
{
    snapshot_restore(t, to);
    l->watch.steps = 0;
    l->watch.average = 0;
    l->factor *= 0.3;
    return ++l->retreats <= MAX_RETREATS;
}

static bool retreat_from_divergence(Trainer *t, TrainLoop *l, const TrainSnapshot *good)
{
    Diag *d = t->c->diag;
    const long long at = t->step, to = good->step;
    const double loss = t->loss;
    const bool again = retreat(t, l, good);
    if (again)
        diag_warning(
            d, "training diverged at step %lld (loss %.4g): back to step %lld, rate times %.2g", at,
            loss, to, l->factor);
    else
        diag_warning(d, "training keeps diverging: stopped at step %lld", to);
    return again;
}

/* After a step, `now` of the way: *on is false if training is to end there. */
static int judge_when_due(Trainer *t, TrainLoop *l, TrainStates *s, double now, bool *on)
{
    if (now >= 1 || now < l->due || t->step - l->best.at < LEAST_BETWEEN) return 0;
    TRY(held_out_judge(t, &l->best, &s->best));
    l->due = fmax(4 * now, now + FIRST_DUE);
    if (!held_out_far(&l->best)) return 0;
    *on = retreat(t, l, &s->best);
    l->watch.best = -1; /* the samples that it sees may have been learned by heart */
    diag_remark(t->c->diag,
                "training went away from the original: back to step %lld, rate times %.2g",
                (long long)t->step, l->factor);
    snapshot_save(t, &s->good);
    l->best.at = t->step;
    l->due = progress_of(t, l) + FIRST_DUE;
    return 0;
}

static int train_steps(Trainer *t, TrainLoop *l, TrainStates *s)
{
    int status = 0;
    bool on = true;
    l->start = process_seconds() - l->seconds;
    for (double p = progress_of(t, l); p < 1 && on; p = progress_of(t, l)) {
        double share = schedule_cosine(fmax(p, 1e-3), WARMUP) * l->factor;
        bool finite = train_step(t, t->recipe.lr * share, share, &status);
        TRY(status);
        if (!watch(&l->watch, finite, t->loss)) {
            on = retreat_from_divergence(t, l, &s->good);
            continue;
        }
        if (t->step % SNAPSHOT_EVERY == 0 && l->watch.average < 1.2 * l->watch.best + 0.05)
            snapshot_save(t, &s->good);
        const double now = progress_of(t, l);
        TRY(judge_when_due(t, l, s, now, &on));
        l->seconds = process_seconds() - l->start;
        if (t->c->checkpoint && t->step % t->recipe.state_every == 0) TRY(trainer_leave(t, l, s));
        pass_progress(t->c, now, "step %lld, loss %.4f", (long long)t->step, l->watch.average);
    }
    return 0;
}

static int train_loop(Trainer *t, TrainStates *s)
{
    TrainLoop l = {.factor = 1, .watch.best = -1, .due = FIRST_DUE};
    if (t->c->checkpoint) trainer_take_up(t, &l, s);
    if (!t->held.n) l.due = INFINITY;
    if (t->held.n && !l.best.judged) TRY(held_out_judge(t, &l.best, &s->best));
    TRY(train_steps(t, &l, s));
    if (t->held.n) TRY(held_out_judge(t, &l.best, &s->best));
    held_out_decide(t, &l.best, &s->best);
    return 0;
}

/* ---- setting up --------------------------------------------------------------------- */

static float *copied(Arena *a, const Value *v)
{
    return arena_memdup(a, v->data, (size_t)type_bytes(&v->type));
}

static void make_params(Trainer *t, Arena *a)
{
    t->params = NEW_ARRAY(a, Parameter, t->t.nparams);
    for (int i = 0; i < t->t.nparams; i++) {
        const TrainParam *p = &t->t.params[i];
        int64_t n = type_count(&p->home->type);
        t->params[i] = (Parameter){.data = copied(a, p->home),
                                   .grad = NEW_ARRAY(a, float, n),
                                   .count = n,
                                   .decay = p->decay,
                                   .positive = p->scale,
                                   .least = p->least,
                                   .most = p->most};
    }
    optimizer_init(t->params, t->t.nparams, a);
    t->scales = NEW_ARRAY(a, float *, t->t.nscales);
    for (int i = 0; i < t->t.nscales; i++) t->scales[i] = copied(a, t->t.scales[i].home);
    t->running = NEW_ARRAY(a, Running, t->t.nnorms);
    for (int i = 0; i < t->t.nnorms; i++) {
        int64_t n = type_count(&t->t.norms[i].mean->type);
        t->running[i] = (Running){.mean = copied(a, t->t.norms[i].mean),
                                  .variance = copied(a, t->t.norms[i].variance),
                                  .sum_mean = NEW_ARRAY(a, float, n),
                                  .sum_variance = NEW_ARRAY(a, float, n),
                                  .channels = n};
    }
    t->ranges = NEW_ARRAY(a, MovingRange, t->t.nranges);
    for (int i = 0; i < t->t.nranges; i++) moving_range_start(&t->ranges[i], &t->t.ranges[i]);
    trainer_update_grids(t);
}

static void make_batches(Trainer *t, Arena *a)
{
    Context *c = t->c;
    int64_t n = c->data->count, batch = t->recipe.setup.batch, largest = 1;
    t->order = NEW_ARRAY(a, int64_t, n);
    t->index = NEW_ARRAY(a, int64_t, batch);
    t->next = NEW_ARRAY(a, int64_t, batch);
    for (int64_t i = 0; i < n; i++) t->order[i] = i;
    held_out_choose(t, a);
    t->shuffle = rng_new(c->opt.seed, 0x5f1e);
    t->feed = feed_new(a, t->session, c->data, batch, t->index);
    for (int o = 0; o < t->t.g->noutputs; o++) {
        int64_t size = type_count(&t->t.g->outputs[o]->type);
        largest = size > largest ? size : largest;
    }
    t->buffer = NEW_ARRAY(a, float, largest);
    /* Drawings need no variations: there are enough of them, and they are not photographs. */
    t->augmented = t->recipe.augment && !c->opt.made_up &&
                   t->t.g->inputs[0]->type.dtype == DT_F32 &&
                   augment_for(&t->augment, &c->data->inputs[0].type);
    const Augment *g = &t->augment;
    if (t->augmented)
        t->scratch = NEW_ARRAY(a, float, feed_shards(t->feed) * g->channels * g->height * g->width);
}

/* What training keeps beside its program. */
static size_t bytes_remembered(const Trainer *t)
{
    int64_t params = 0, norms = 0, largest = 0;
    for (int i = 0; i < t->t.nparams; i++) params += type_count(&t->t.params[i].home->type);
    for (int i = 0; i < t->t.nnorms; i++) norms += type_count(&t->t.norms[i].mean->type);
    for (int o = 0; o < t->t.g->noutputs; o++)
        largest = (int64_t)fmax((double)largest, (double)type_count(&t->t.g->outputs[o]->type));
    /* Weights, gradients, two moments and two snapshots; statistics, their sums and two snapshots;
     * with --resume, a copy of what is left there. */
    const int64_t state = t->c->checkpoint ? 5 * params + 6 * norms : 0;
    return floats(6 * params + 8 * norms + largest + state) +
           sizeof *t->order * (size_t)t->c->data->count;
}

static int build_shard(ShardGraph *out, void *ctx, int64_t shard, Arena *a, Diag *d)
{
    Trainer *t = ctx;
    t->recipe.setup.shard = shard;
    const int errors = d->errors;
    int status = train_graph_build(&t->t, t->c, a, &t->recipe.setup);
    *t->nothing = status < 0 && d->errors == errors;
    TRY(status);
    *out = (ShardGraph){.g = t->t.g, .shared = bytes_remembered(t)};
    if (!t->resident) return 0;
    const int64_t shards = t->recipe.setup.batch / shard;
    TRY(train_update_build(&t->update, &t->t, a, &t->optimizer, shards, NORM_MOMENTUM));
    out->stage = t->update.stage;
    out->result_bytes = ranks_count() > 1;     /* none: not the outputs */
    for (int k = 0; k < t->update.nstate; k++) /* the snapshot */
        if (resident_is_saved(t->update.state[k].kind))
            out->each += floats(t->update.state[k].count);
    return 0;
}

static int train_in(Arena *a, Context *c, const char *opt, bool *nothing)
{
    Trainer *t = NEW(a, Trainer);
    t->c = c;
    t->nothing = nothing;
    t->arena = a;
    TRY(train_recipe(&t->recipe, c, opt));
    t->optimizer = optimizer_new(t->recipe.optimizer);
    t->loss_scale = loss_scale_new(t->recipe.setup.precision, t->recipe.loss_scale);
    t->resident = runtime_is_parallel(c->opt.device) &&
                  t->recipe.setup.batch / t->recipe.most >= ranks_count();
    if (!t->recipe.setup.freeze_norms) TRY(settle_norms(c, SETTLING_SAMPLES));
    TRY(session_open(&t->session, a, c->graph, c->data, t->recipe.most, build_shard, t, &c->opt,
                     c->diag));
    t->recipe.lr = train_rate(&t->recipe, c, t->t.nnorms > 0);
    if (t->session->bytes > c->peak_bytes) c->peak_bytes = t->session->bytes;
    make_params(t, a);
    if (t->resident) resident_start(t, a);
    make_batches(t, a);
    TrainStates s = {snapshot_new(t, a), snapshot_new(t, a)};
    return train_loop(t, &s);
}

int pass_train(Context *c, const char *opt)
{
    if (!c->data || c->data->count == 0) return diag_error(c->diag, "no samples to train on");
    Arena *a = arena_new();
    bool nothing = false;
    int status = train_in(a, c, opt, &nothing);
    arena_free(a);
    if (!nothing) return status;
    diag_remark(c->diag, "the network has nothing to train");
    return 0;
}
