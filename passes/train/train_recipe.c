/* What fine-tuning is to do, from the pass's options, the program's, and the graph. */
#include "passes/train/train_recipe.h"

#include <math.h>
#include <string.h>

#include "passes/batches.h"
#include "passes/quant/targets.h"

enum { DEFAULT_BATCH = 128, LEAST_STEPS = 312, STATE_EVERY = 64 };

static const double DEFAULT_QAT_SHARE = 0.2, RANGE_PAST = 0.99;

/* {ranges=…}, else --ranges, else learned. */
static int range_mode(RangeMode *mode, Context *c, const char *opt)
{
    static const char *const names[] = {[RANGES_LEARNED] = "learned",
                                        [RANGES_MOVING_AVERAGE] = "moving-average",
                                        [RANGES_FIXED] = "fixed",
                                        NULL};
    int k = RANGES_LEARNED;
    while (c->opt.ranges && names[k] && strcmp(c->opt.ranges, names[k]) != 0) k++;
    if (!names[k]) return diag_error(c->diag, "there are no ranges '%s'", c->opt.ranges);
    TRY(pass_choice(&k, c, opt, "ranges", names));
    *mode = (RangeMode)k;
    return 0;
}

/* Whether a float phase has had its part of the budget. */
static bool trained_before(const Context *c)
{
    int runs = 0;
    for (int i = 0; i < c->report.npasses; i++)
        runs += strcmp(c->report.passes[i].name, "train") == 0;
    return runs > 1; /* this one is recorded already */
}

/* Whether nobody says how long to train. */
static bool free_length(const Options *o)
{
    return o->epochs <= 0 && o->steps <= 0 && o->seconds <= 0;
}

/* Then not for hours on end. */
static double affordable_steps(const Context *c, int64_t batch, double wanted)
{
    const double steps = steps_affordable(c->graph, &c->opt, batch, wanted);
    if (steps < wanted)
        diag_remark(c->diag,
                    "training takes %.0f steps of %lld samples instead of %.0f, as the network is "
                    "large%s (--steps, --epochs or --time choose)",
                    steps, (long long)batch, wanted,
                    c->opt.made_up ? " and its samples are made up" : "");
    return steps;
}

/* The numbers that the pass's options give, and the share of the steps with simulated integers. */
static int read_numbers(TrainRecipe *r, double *qat, Context *c, const char *opt)
{
    double freeze = 0, augment = 1;
    const struct {
        const char *key;
        double *to, least, most;
    } numbers[] = {
        {"distill", &r->setup.distill, 0, 1},
        {"temperature", &r->setup.temperature, 1e-3, 1e3},
        {"hints", &r->setup.hints, 0, INFINITY},
        {"freeze-bn", &freeze, 0, 1},
        {"loss-scale", &r->loss_scale, 0, INFINITY},
        {"augment", &augment, 0, 1},
        {"range-lr", &r->range_lr, 0, INFINITY},
        {"range-momentum", &r->range_momentum, 0, 1},
        {"lr", &r->lr, 0, INFINITY},
        {"qat", qat, 0, 1},
    };
    for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
        TRY(pass_number(numbers[k].to, c, opt, numbers[k].key, numbers[k].least, numbers[k].most));
    r->setup.freeze_norms = freeze > 0;
    r->augment = augment > 0;
    TRY(pass_int(&r->held_out, c, opt, "held-out", 0));
    return pass_int(&r->state_every, c, opt, "state", 1);
}

/* Where little work is to be spent, small steps are better than few. */
static int64_t usual_batch(const Context *c)
{
    enum { FEW_STEPS = 64 };
    int64_t batch = DEFAULT_BATCH;
    while (free_length(&c->opt) && batch > SHARD_SAMPLES &&
           steps_affordable(c->graph, &c->opt, batch, FEW_STEPS) < FEW_STEPS)
        batch /= 2;
    return batch;
}

/* A step sees no sample twice because of a number that was typed. */
static int64_t given_batch(const Context *c)
{
    const int64_t n = c->data->count, batch = c->opt.batch;
    if (batch <= n || batch <= DEFAULT_BATCH) return batch;
    const int64_t most = n > DEFAULT_BATCH ? n : DEFAULT_BATCH;
    diag_remark(c->diag, "--batch %lld: there are %lld samples, steps are of %lld",
                (long long)batch, (long long)n, (long long)most);
    return most;
}

static void choose_batch(TrainRecipe *r, const Context *c)
{
    const Options *o = &c->opt;
    const int64_t shard = shard_size(c->graph, c->data, 0),
                  batch = o->batch > 0 ? given_batch(c) : usual_batch(c);
    r->setup.batch = (batch + shard - 1) / shard * shard; /* whole shards */
    r->most = shard_for_device(o, r->setup.batch);
    while (r->most > SHARD_SAMPLES && r->setup.batch % r->most) r->most /= 2;
}

/* How long this phase may go on: `share` of what all phases have. */
static int choose_steps(TrainRecipe *r, Context *c, const char *opt, double share)
{
    const Options *o = &c->opt;
    const double epochs = o->epochs > 0 ? o->epochs : 2;
    double total = ceil(epochs * (double)c->data->count / (double)r->setup.batch);
    if (o->epochs <= 0 && total < LEAST_STEPS) total = LEAST_STEPS;
    if (free_length(o)) total = affordable_steps(c, r->setup.batch, total);
    if (o->steps > 0) total = (double)o->steps;
    const bool timed = o->seconds > 0 && o->steps <= 0 && o->epochs <= 0;
    r->seconds = o->seconds * share;
    r->total = timed ? 0 : total;
    r->steps = timed ? 0 : (int64_t)fmax(1, round(total * share));
    TRY(pass_int(&r->steps, c, opt, "steps", 1));
    if (pass_option(c, opt, "steps")) r->total = (double)r->steps;
    return 0;
}

/* With plain descent, networks with normalizations bear higher rates than folded ones. A run of few
 * steps has no time to recover from large ones: the rate falls with their number (docs/results.md).
 */
static double default_rate(const TrainRecipe *r, bool norms)
{
    const double rate = r->optimizer == OPTIMIZER_ADAMW ? 2e-3 : norms ? 0.02 : 0.01;
    return rate * (r->total > 0 ? fmin(1, pow(r->total / LEAST_STEPS, 0.75)) : 1);
}

double train_rate(const TrainRecipe *r, const Context *c, bool norms)
{
    if (r->lr >= 0) return r->lr;
    const double lr = c->opt.lr > 0 ? (double)c->opt.lr : default_rate(r, norms);
    return graph_is_fake_quantized(c->graph) ? 0.3 * lr : lr;
}

int train_recipe(TrainRecipe *out, Context *c, const char *opt)
{
    static const char *const optimizers[] = {
        [OPTIMIZER_SGD] = "sgd", [OPTIMIZER_ADAMW] = "adamw", NULL};
    int optimizer = OPTIMIZER_ADAMW;
    const char *precision = pass_option(c, opt, "precision");
    const bool integers = graph_is_fake_quantized(c->graph);
    double qat = integers && !trained_before(c) ? 1 : DEFAULT_QAT_SHARE;
    *out = (TrainRecipe){.setup = {.distill = 0.7, .temperature = 1, .hints = 40},
                         .lr = -1,
                         .range_lr = 1e-3,
                         .range_momentum = RANGE_PAST,
                         .held_out = -1,
                         .state_every = STATE_EVERY};
    TRY(pass_choice(&optimizer, c, opt, "optimizer", optimizers));
    out->optimizer = (OptimizerKind)optimizer;
    if (!precision) precision = c->opt.train_precision;
    out->setup.precision = precision_for(precision, PRECISION_TRAINING, c->opt.device);
    if (out->setup.precision == DT_NONE)
        return diag_error(c->diag, "train: precision is '%s', it must be fp32, fp16 or bf16",
                          precision);
    if (!target_find(c->opt.target))
        return diag_error(c->diag, "unknown target '%s'", c->opt.target);
    TRY(range_mode(&out->setup.ranges, c, opt));
    TRY(read_numbers(out, &qat, c, opt));
    choose_batch(out, c);
    return choose_steps(out, c, opt, integers ? qat : 1 - qat);
}
