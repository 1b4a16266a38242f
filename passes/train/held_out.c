/* What training is judged by: samples that it does not see. A share of them, drawn once, is held
 * out. Before the first step, after an eighth and half of the way and in the end, the loss of the
 * outputs
 *
 *     (1 - a) CE(z, labels) + a CE(z, teacher), or the relative squares of differences,
 *
 * is taken on them: no varied images, no hints, which are a means and no end. The state where it is
 * least is the one that training leaves, the first included; the last is taken for it if it is as
 * good within the noise, as it has had the small steps: better than the first and within 5 %, or,
 * where labels count, which a few samples tell little of, within 10 %. Steps that lead far away
 * from the best state are too large for the network as it is: training goes back there and takes
 * smaller ones. Sums are over shards in order, so what is chosen is the same for any number of
 * threads. */
#include <math.h>

#include "passes/train/trainer.h"

static int64_t least(int64_t x, int64_t y) { return x < y ? x : y; }

/* An eighth of the samples at most, and no more than judging takes a few hundredths of the time for
 * that training takes; short runs a little more, as fewer would not tell. */
static int64_t how_many(const Trainer *t)
{
    enum { SHARE = 8, FEW = 64, MOST = 256 };
    if (t->recipe.held_out >= 0) return least(t->recipe.held_out, t->c->data->count - 1);
    const int64_t trained = t->recipe.steps * t->recipe.setup.batch;
    int64_t n = trained ? least(MOST, trained / 32) : FEW;
    if (n < FEW && trained) n = least(FEW, trained / 4);
    return least(n, t->c->data->count / SHARE);
}

void held_out_choose(Trainer *t, Arena *a)
{
    enum { STREAM = 0x4e1d };
    const int64_t n = t->c->data->count, apart = how_many(t);
    Rng r = rng_new(t->c->opt.seed, STREAM);
    for (int64_t last = n - 1; last >= n - apart; last--) {
        const int64_t k = rng_below(&r, (uint32_t)least(last + 1, UINT32_MAX)), x = t->order[k];
        t->order[k] = t->order[last];
        t->order[last] = x;
    }
    const int64_t judges =
        apart || t->recipe.held_out == 0 ? apart : least(n, t->recipe.setup.batch);
    t->seen = n - apart;
    t->held = (HeldOut){.n = judges, .apart = apart > 0};
    t->held.index = arena_memdup(a, t->order + n - t->held.n, sizeof *t->order * (size_t)t->held.n);
}

static int judge_shard(void *ctx, int64_t shard, Instance *inst)
{
    Trainer *t = ctx;
    trainer_bind_all(t, shard, inst);
    instance_run_until(inst, t->t.judged);
    return 0;
}

static int add_loss(void *ctx, int64_t shard, Instance *inst)
{
    Trainer *t = ctx;
    float loss;
    (void)shard;
    instance_read(inst, t->t.judged, &loss);
    t->held.sum += (double)loss;
    return 0;
}

/* Adds the losses of the first shards of t->index. */
static int add_losses(Trainer *t, int64_t shards)
{
    if (!t->resident) return session_run(t->session, shards, judge_shard, add_loss, t);
    for (int64_t k = 0; k < shards; k++) t->held.sum += resident_judge(t, k);
    return 0;
}

/* The mean over the samples; those that fill up the last shard count again. */
static int loss_held_out(Trainer *t, double *loss)
{
    HeldOut *h = &t->held;
    const int64_t shard = t->t.shard, batch = t->recipe.setup.batch,
                  n = (h->n + shard - 1) / shard * shard;
    int status = 0;
    h->sum = 0;
    t->judging = true;
    for (int64_t at = 0; at < n && status >= 0; at += batch) {
        const int64_t some = least(batch, n - at);
        for (int64_t i = 0; i < some; i++) t->index[i] = h->index[(at + i) % h->n];
        status = add_losses(t, some / shard);
    }
    t->judging = false;
    *loss = ranks_agree(h->sum * (double)batch / (double)n);
    if (!isfinite(*loss)) *loss = INFINITY;
    return status;
}

int held_out_judge(Trainer *t, TrainBest *b, TrainSnapshot *best)
{
    TRY(loss_held_out(t, &b->latest));
    b->at = t->step;
    if (b->judged++ == 0) b->first = b->latest;
    if (b->judged > 1 && !(b->latest < b->least)) return 0;
    b->least = b->latest;
    b->step = t->step;
    snapshot_bring(t, best);
    return 0;
}

bool held_out_far(const TrainBest *b)
{
    static const double FAR = 1.25;
    return b->latest > FAR * b->least;
}

static void note(Trainer *t, int64_t kept, double first, double loss)
{
    Report *r = &t->c->report;
    if (r->npasses)
        r->passes[r->npasses - 1].train = (TrainRecord){t->held.n, t->step, kept, first, loss};
}

void held_out_decide(Trainer *t, const TrainBest *b, const TrainSnapshot *best)
{
    static const double NOISE = 1.05, NOISE_OF_LABELS = 1.1;
    const bool labels = t->t.labels >= 0;
    const bool last =
        !t->held.n || (labels ? b->latest <= NOISE_OF_LABELS * b->least
                              : b->latest < b->first && b->latest <= NOISE * b->least);
    const char *to = labels ? "labels and original" : "the original",
               *which = t->held.apart ? "held-out " : "";
    const long long n = t->held.n, kept = last ? t->step : b->step, steps = t->step;
    note(t, kept, b->first, last ? b->latest : b->least);
    if (kept == 0) {
        diag_remark(
            t->c->diag,
            "training did not come closer to %s on %lld %ssamples: its result was not taken", to, n,
            which);
        return;
    }
    if (!last) {
        diag_remark(t->c->diag,
                    "training was closest to %s on %lld %ssamples after step %lld of %lld: that "
                    "state was taken",
                    to, n, which, kept, steps);
        snapshot_end_with(t, best);
    }
    trainer_take_home(t);
}
