/* Random probes over the shards of the batch.
 *
 * Probes go in rounds. Within a round a shard computes what no probe changes once (stage 1) and
 * then runs every probe of the round over it (stage 2), on a GPU several at a time (lanes); memory
 * depends on neither the batch nor the number of probes. Sums over shards make one observation per
 * probe and channel; a device with memory of its own that runs all shards keeps sums and moments
 * there.
 *
 * After each round: stop if the choice for the budget at hand is stable (it shares 99 % with that
 * of the round before) and the ranking is (the averages of the even and of the odd probes rank
 * the groups alike, Spearman > 0.99). */
#include <math.h>
#include <string.h>

#include "passes/score/criteria.h"

enum { ROUND = 16, DEFAULT_PROBES = 300, MAX_SCALE_STEPS = 12 };

typedef struct Probes {
    Scoring *s;
    HvpBuilder *make;
    Hvp h;
    Session *session;
    Feed *feed;
    bool same_key;
    bool alone; /* one instance runs all shards of this rank: its device may keep the statistics */
    bool kept;  /* it does, and so do those of all ranks */
    int64_t ready;    /* alone: the shard that stage 1 has run for; -1: none */
    float ready_loss; /* … and its scale */
    const double *factor;
    double *moments; /* [4, channels], of instance_observe */
    int done, now;   /* probes before and in this round */
    int channels;    /* flat */
    double *sum;     /* [ROUND, channels] */
    double *sums;    /* [channels] of even, then of odd probes, scaled */
    Moments *m;      /* per channel */
    bool *selected;  /* by the round before; NULL: none */
    int nclasses;
} Probes;

/* ---- one shard ---------------------------------------------------------------------- */

static void bind_scalar(const Probes *q, Instance *inst, int input, float x)
{
    if (input < 0) return;
    float *bound = feed_buffer(q->feed, inst, input);
    *bound = x;
    instance_bind(inst, input, bound);
}

/* Only FP16 lacks the range. */
static bool is_scaled(const Probes *q) { return q->s->precision == DT_F16; }

static float first_loss_scale(const Probes *q)
{
    return is_scaled(q) ? exp2f(ceilf(log2f((float)q->s->n)) + 6) : 1;
}

static float first_probe_scale(const Probes *q) { return is_scaled(q) ? 0.125F : 1; }

static void bind_shard(const Probes *q, int64_t shard, Instance *inst)
{
    feed_bind(q->feed, shard, inst);
    if (q->h.in_target >= 0)
        feed_bind_targets(q->feed, shard, inst, q->h.in_target, q->s->target_axis, q->s->soft);
}

/* Keys of one shard run on from probe to probe, so that a device can count them itself. */
static void bind_key(const Probes *q, Instance *inst, int64_t shard, int probe)
{
    int64_t *key = feed_buffer(q->feed, inst, q->h.in_key);
    key[0] = (int64_t)q->s->c->opt.seed;
    key[1] = q->same_key ? probe : shard * q->s->probes + probe;
    instance_bind(inst, q->h.in_key, key);
}

/* Probes k … end - 1; returns the first that overflowed, or end. */
static int run_some(const Probes *q, Instance *inst, int k, int end, float *part)
{
    if (q->kept) return instance_collect(inst, 2, k, end);
    instance_repeat(inst, 2, q->h.in_key, end - k, q->s->groups->nlayers, q->h.out_layer,
                    part + (int64_t)k * q->channels);
    for (; k < end; k++)
        if (hvp_overflowed(part + (int64_t)k * q->channels, q->channels)) break;
    return k;
}

static bool device_keeps(const Probes *q, Instance *inst)
{
    return instance_keeps(inst, 2, q->h.in_key, ROUND, q->s->groups->nlayers, q->h.out_layer,
                          q->factor);
}

/* Runs the round's probes from `first` on; returns the first that overflowed, or how many. */
static int run_probes(Probes *q, int64_t shard, Instance *inst, int first, float *part)
{
    bind_key(q, inst, shard, q->done + first);
    /* The first few alone show whether the scale is right. */
    for (int k = first, end = first + q->session->lanes; k < q->now; end = q->now) {
        if (end > q->now) end = q->now;
        bind_key(q, inst, shard, q->done + k);
        k = run_some(q, inst, k, end, part);
        if (k < end) return k;
    }
    return q->now;
}

/* What no probe changes: done before, where the only shard has been run with this scale. */
static void run_primal(Probes *q, int64_t shard, Instance *inst, float loss)
{
    if (q->ready == shard && q->ready_loss == loss) return;
    bind_scalar(q, inst, q->h.in_loss_scale, loss);
    instance_run(inst, 0);
    instance_run(inst, 1);
    if (!q->alone) return;
    q->ready = shard;
    q->ready_loss = loss;
}

/* FP16 starts with cotangents and tangents scaled so that small ones do not vanish; each overflow
 * lowers both scales for the rest of the shard. Every shard starts anew: results do not depend on
 * which thread ran what. */
static int work(void *ctx, int64_t shard, Instance *inst)
{
    Probes *q = ctx;
    float *part = instance_result(inst); /* [ROUND, channels] */
    float loss = first_loss_scale(q), probe = first_probe_scale(q);
    if (q->ready != shard) bind_shard(q, shard, inst);
    for (int step = 0, done = 0; step < MAX_SCALE_STEPS; step++, loss /= 4, probe /= 4) {
        run_primal(q, shard, inst, loss);
        bind_scalar(q, inst, q->h.in_probe_scale, probe);
        done = run_probes(q, shard, inst, done, part);
        if (done == q->now) {
            if (q->kept) instance_gather(inst, 2, q->now);
            return 0;
        }
        if (!is_scaled(q)) break;
    }
    return diag_error(q->s->c->diag, "second derivatives are infinite or not numbers");
}

/* Whether the devices of all ranks keep the statistics; each tries with a shard of its own. */
static bool all_keep(Probes *q)
{
    Instance *inst = session_instance(q->session);
    const int64_t shard = ranks_index();
    if (!q->alone || !runtime_is_parallel(q->s->c->opt.device) ||
        feed_shards(q->feed) < ranks_count())
        return false;
    bind_shard(q, shard, inst);
    run_primal(q, shard, inst, first_loss_scale(q));
    bind_scalar(q, inst, q->h.in_probe_scale, first_probe_scale(q));
    bind_key(q, inst, shard, 0);
    return ranks_all(device_keeps(q, inst));
}

static int reduce(void *ctx, int64_t shard, Instance *inst)
{
    Probes *q = ctx;
    const float *part = instance_result(inst);
    if (q->kept && shard + 1 == feed_shards(q->feed))
        instance_observe(inst, 2, q->now, q->done, q->moments);
    for (int64_t i = 0; !q->kept && i < (int64_t)q->now * q->channels; i++)
        q->sum[i] += (double)part[i];
    double round = (double)(shard + 1) / (double)feed_shards(q->feed);
    pass_progress(q->s->c, (q->done + q->now * round) / q->s->probes, "probe %d", q->done + 1);
    return 0;
}

/* ---- when to stop ------------------------------------------------------------------- */

static double *group_sums(const Probes *q, const double *x)
{
    const Groups *gr = q->s->groups;
    double *sum = NEW_ARRAY(q->s->arena, double, gr->n);
    for (int c = 0; c < q->channels; c++) sum[gr->of[c]] += x[c];
    return sum;
}

static double overlap(const bool *x, const bool *y, int n)
{
    int both = 0, either = 0;
    for (int i = 0; i < n; i++) both += x[i] && y[i], either += x[i] || y[i];
    return either ? (double)both / either : 1;
}

static bool choice_is_stable(Probes *q)
{
    const Context *c = q->s->c;
    double *mean = NEW_ARRAY(q->s->arena, double, q->channels);
    for (int i = 0; i < q->channels; i++) mean[i] = q->m[i].mean;
    Options o = c->opt;
    if (!(o.keep > 0)) o.keep = 0.5;
    Selection s;
    select_groups(&s, q->s->model, c->original ? c->original : c->graph, q->s->groups,
                  group_sums(q, mean), NULL, &o, q->s->arena);
    bool stable = q->selected && overlap(q->selected, s.removed, q->nclasses) > 0.99;
    q->selected = s.removed;
    return stable;
}

static bool ranking_is_stable(Probes *q)
{
    const double *even = group_sums(q, q->sums), *odd = group_sums(q, q->sums + q->channels);
    return rank_correlation(even, odd, q->s->groups->n, q->s->arena) > 0.99;
}

/* What the device has made of all rounds so far. */
static void take_moments(Probes *q)
{
    const int n = q->channels;
    q->done += q->now;
    for (int c = 0; c < n; c++)
        q->m[c] = (Moments){.n = q->done, .mean = q->moments[c], .m2 = q->moments[n + c]};
    memcpy(q->sums, q->moments + (ptrdiff_t)2 * n, (size_t)n * 2 * sizeof *q->sums);
}

static void observe(Probes *q)
{
    for (int k = 0; k < q->now; k++)
        for (int c = 0; c < q->channels; c++) {
            double x = q->factor[c] * q->sum[(int64_t)k * q->channels + c];
            moments_add(&q->m[c], x);
            q->sums[(q->done + k) % 2 * q->channels + c] += x;
        }
    q->done += q->now;
}

static int run_rounds(Probes *q)
{
    for (bool stable = false; q->done < q->s->probes && !stable;) {
        q->now = q->s->probes - q->done < ROUND ? q->s->probes - q->done : ROUND;
        memset(q->sum, 0, (size_t)ROUND * (size_t)q->channels * sizeof *q->sum);
        TRY(session_run(q->session, feed_shards(q->feed), work, reduce, q));
        if (q->kept)
            take_moments(q);
        else
            observe(q);
        stable = choice_is_stable(q) && ranking_is_stable(q);
    }
    return 0;
}

static int build_shard(ShardGraph *out, void *ctx, int64_t shard, Arena *a, Diag *d)
{
    Probes *q = ctx;
    (void)a, (void)d; /* the scoring has both */
    q->s->shard = shard;
    TRY(q->make(&q->h, q->s));
    const size_t channels = (size_t)q->channels;
    *out = (ShardGraph){.g = q->h.g,
                        .stage = q->h.stage,
                        .lane_stage = 2,
                        .result_bytes = ROUND * channels * sizeof(float),
                        .shared = channels * ((ROUND + 6) * sizeof(double) + sizeof(Moments))};
    return 0;
}

static int run_in(Probes *q, Arena *a, int64_t most)
{
    Scoring *s = q->s;
    const Context *c = s->c;
    TRY(session_open(&q->session, a, s->model, c->data, most, build_shard, q, &c->opt, c->diag));
    q->feed = feed_new(a, q->session, c->data, s->n, NULL);
    q->sum = NEW_ARRAY(a, double, (int64_t)ROUND * q->channels);
    q->sums = NEW_ARRAY(a, double, (int64_t)2 * q->channels);
    q->m = NEW_ARRAY(a, Moments, q->channels);
    q->moments = NEW_ARRAY(a, double, (int64_t)4 * q->channels);
    q->selected = NULL;
    q->alone = q->session->threads == 1;
    q->done = 0;
    q->ready = -1;
    q->kept = all_keep(q);
    if (q->kept) q->session->result_bytes = 1; /* none: sums do not leave the device */
    const int status = run_rounds(q);
    s->bytes = q->session->bytes;
    for (int i = 0; i < q->channels; i++) {
        s->score[i] = q->m[i].mean;
        s->error[i] = moments_error(&q->m[i]);
    }
    s->used = q->done;
    return status;
}

/* In an arena of its own: it may have to begin anew. */
static int run_with(void *ctx, int64_t most)
{
    Probes *q = ctx;
    q->s->arena = arena_new();
    const int status = run_in(q, q->s->arena, most);
    arena_free(q->s->arena);
    return status;
}

int probes_run(Scoring *s, HvpBuilder *make, bool same_key, const double *factor)
{
    if (s->probes <= 0) s->probes = DEFAULT_PROBES;
    Probes q = {.s = s,
                .make = make,
                .same_key = same_key,
                .factor = factor,
                .channels = s->groups->first[s->groups->nlayers],
                .nclasses = s->groups->nclasses};
    Arena *outer = s->arena;
    const int64_t most = shard_for_device(&s->c->opt, s->n);
    const int status = session_retry(run_with, &q, most, s->c->diag);
    s->arena = outer;
    return status;
}
