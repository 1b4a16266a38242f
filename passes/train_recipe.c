/* What fine-tuning is to do, from the pass's options, the program's, and the graph. */
#include "passes/train_recipe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "passes/batches.h"
#include "passes/targets.h"

enum { DEFAULT_BATCH = 128, LEAST_STEPS = 312, STATE_EVERY = 64 };

static const double DEFAULT_QAT_SHARE = 0.2, RANGE_PAST = 0.99;

static double number(Context *c, const char *opt, const char *key, double otherwise)
{
    const char *text = pass_option(c, opt, key);
    return text ? strtod(text, NULL) : otherwise;
}

/* {ranges=…}, else --ranges, else learned. */
static int range_mode(RangeMode *mode, Context *c, const char *opt)
{
    static const char *const names[] = {[RANGES_LEARNED] = "learned",
                                        [RANGES_MOVING_AVERAGE] = "moving-average",
                                        [RANGES_FIXED] = "fixed"};
    const char *name = pass_option(c, opt, "ranges");
    if (!name) name = c->opt.ranges ? c->opt.ranges : names[RANGES_LEARNED];
    for (int k = 0; k <= RANGES_FIXED; k++) {
        *mode = (RangeMode)k;
        if (strcmp(name, names[k]) == 0) return 0;
    }
    return diag_error(c->diag, "ranges are learned, moving-average or fixed, not '%s'", name);
}

/* Whether a float phase has had its part of the budget. */
static bool trained_before(const Context *c)
{
    int runs = 0;
    for (int i = 0; i < c->report.npasses; i++)
        runs += strcmp(c->report.passes[i].name, "train") == 0;
    return runs > 1; /* this one is recorded already */
}

/* Where nobody says how long to train, not for hours on end. */
static double affordable_steps(const Context *c, int64_t batch, double wanted)
{
    const double steps = steps_affordable(c->graph, &c->opt, batch, wanted);
    if (steps < wanted)
        diag_remark(c->diag,
                    "training takes %.0f steps instead of %.0f, as the network is large (--steps, "
                    "--epochs or --time choose)",
                    steps, wanted);
    return steps;
}

static TrainRecipe recipe_of(Context *c, const char *opt)
{
    bool qat = graph_is_fake_quantised(c->graph);
    double part = number(c, opt, "qat", qat && !trained_before(c) ? 1 : DEFAULT_QAT_SHARE);
    double share = qat ? part : 1 - part;
    const char *optimizer = pass_option(c, opt, "optimizer");
    bool sgd = optimizer && strcmp(optimizer, "sgd") == 0;
    const Options *o = &c->opt;
    TrainRecipe r = {.optimizer = sgd ? OPTIMIZER_SGD : OPTIMIZER_ADAMW};
    int64_t shard = shard_size(c->graph, c->data, 0),
            batch = o->batch > 0 ? o->batch : DEFAULT_BATCH;
    r.setup.batch = (batch + shard - 1) / shard * shard; /* whole shards */
    r.most = shard_for_device(o, r.setup.batch);
    while (r.most > SHARD_SAMPLES && r.setup.batch % r.most) r.most /= 2;
    r.setup.distill = number(c, opt, "distill", 0.7);
    r.setup.temperature = number(c, opt, "temperature", 1);
    r.setup.hints = number(c, opt, "hints", 40);
    r.setup.freeze_norms = number(c, opt, "freeze-bn", 0) > 0;
    r.loss_scale = number(c, opt, "loss-scale", 0);
    r.augment = number(c, opt, "augment", 1) > 0;
    r.state_every = (int64_t)fmax(1, number(c, opt, "state", STATE_EVERY));
    r.range_lr = number(c, opt, "range-lr", 1e-3);
    r.range_momentum = number(c, opt, "range-momentum", RANGE_PAST);

    double epochs = o->epochs > 0 ? o->epochs : 2;
    double total = ceil(epochs * (double)c->data->count / (double)r.setup.batch);
    if (o->epochs <= 0 && total < LEAST_STEPS) total = LEAST_STEPS;
    if (o->epochs <= 0 && o->steps <= 0 && o->seconds <= 0)
        total = affordable_steps(c, r.setup.batch, total);
    if (o->steps > 0) total = (double)o->steps;
    bool timed = o->seconds > 0 && o->steps <= 0 && o->epochs <= 0;
    r.seconds = o->seconds * share;
    r.total = timed ? 0 : total;
    r.steps = timed ? 0 : (int64_t)fmax(1, round(total * share));
    if (pass_option(c, opt, "steps")) {
        r.steps = (int64_t)number(c, opt, "steps", 1);
        r.total = (double)r.steps;
    }
    return r;
}

/* With plain descent, networks with normalisations bear higher rates than folded ones. A run of few
 * steps has no time to recover from large ones: the rate falls with their number (docs/results.md).
 */
static double default_rate(const TrainRecipe *r, bool norms)
{
    const double rate = r->optimizer == OPTIMIZER_ADAMW ? 2e-3 : norms ? 0.02 : 0.01;
    return rate * (r->total > 0 ? fmin(1, pow(r->total / LEAST_STEPS, 0.75)) : 1);
}

double train_rate(const TrainRecipe *r, Context *c, const char *opt, bool norms)
{
    double lr = c->opt.lr > 0 ? (double)c->opt.lr : default_rate(r, norms);
    if (graph_is_fake_quantised(c->graph)) lr *= 0.3;
    return number(c, opt, "lr", lr);
}

int train_recipe(TrainRecipe *out, Context *c, const char *opt)
{
    const char *precision = pass_option(c, opt, "precision");
    if (!precision) precision = c->opt.train_precision;
    *out = recipe_of(c, opt);
    out->setup.precision = precision ? precision_named(precision) : DT_F32;
    if (out->setup.precision == DT_NONE)
        return diag_error(c->diag, "train: precision is '%s', it must be fp32, fp16 or bf16",
                          precision);
    TRY(range_mode(&out->setup.ranges, c, opt));
    if (!target_find(c->opt.target))
        return diag_error(c->diag, "unknown target '%s'", c->opt.target);
    return 0;
}
