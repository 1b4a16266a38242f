/* What optimizer.c does, as nodes of the training graph, so that on a device with memory of its own
 * neither parameters nor gradients leave it.
 *
 * A shard, for loss, gradients, batch statistics (min and max for extremes):
 *     sum <- fresh ? x : sum + x
 *
 * The update, where ok says that |loss| and the sum of squares are finite:
 *     g = unscale sum shrink,  shrink = min(1, clip / |g|)
 *
 *     m, v, w <- ok ? step : as before
 *
 *     s <- max |w| / qmax, the grids that follow weights
 *
 *     mean, variance <- + momentum (batch - …)
 *
 * All that is made of sums also reads a rate, and so belongs to the update: between the stages the
 * sums of several ranks become one.
 *
 * State is flat: [n] floats, in row-major order whatever layout the plan gives the rest. */
#include "passes/train/train_update.h"

#include <float.h>
#include <math.h>
#include <string.h>

typedef struct Update {
    TrainUpdate *u;
    TrainGraph *t;
    Graph *g;
    const Optimizer *o;
    Value **next; /* by state: its new value */
    Value *rate[RATES], *fresh, *ok, *shrink;
    Value **old;    /* the graph's outputs before */
    Value **grad;   /* by parameter: flat, over all shards; NULL: none */
    Value **weight; /* by parameter: flat, new */
    int64_t shards;
    double momentum; /* of running statistics */
} Update;

/* ---- arithmetic ---------------------------------------------------------------------- */

static Value *add(Update *b, Value *x, Value *y) { return build(b->g, OP_Add, IN(x, y), NO_ATTRS); }
static Value *mul(Update *b, Value *x, Value *y) { return build(b->g, OP_Mul, IN(x, y), NO_ATTRS); }
static Value *unary(Update *b, Op op, Value *x) { return build(b->g, op, IN(x), NO_ATTRS); }
static Value *binary(Update *b, Op op, Value *x, Value *y)
{
    return build(b->g, op, IN(x, y), NO_ATTRS);
}

static Value *number(Update *b, double x) { return const_f32(b->g, (float)x); }
static Value *times(Update *b, Value *x, double by) { return mul(b, x, number(b, by)); }

static Value *flat(Update *b, Value *x)
{
    return binary(b, OP_Reshape, x, CONST_INTS(b->g, type_count(&x->type)));
}

static Value *where(Update *b, Value *yes, Value *x, Value *y)
{
    return build(b->g, OP_Where, IN(yes, x, y), NO_ATTRS);
}

/* [1] */
static Value *sum_all(Update *b, Value *x)
{
    return flat(b, build(b->g, OP_ReduceSum, IN(x), ATTRS(attr_int("keepdims", 0))));
}

/* ---- state --------------------------------------------------------------------------- */

/* A graph input of n floats that is carried; its number as state in *k. */
static Value *state_input(Update *b, StateKind kind, int index, int64_t n, int *k)
{
    TrainUpdate *u = b->u;
    *k = u->nstate++;
    u->state[*k] = (TrainState){kind, index, n};
    u->in[*k] = b->g->ninputs;
    return graph_add_input(b->g, "state", type_of(DT_F32, 1, &n));
}

/* The same for a value that is an input of the training graph already. */
static void carry_into(Update *b, StateKind kind, int index, int input, Value *next)
{
    TrainUpdate *u = b->u;
    const int k = u->nstate++;
    u->state[k] = (TrainState){kind, index, type_count(&b->g->inputs[input]->type)};
    u->in[k] = input;
    b->next[k] = next;
}

/* ---- a shard -------------------------------------------------------------------------- */

/* Over shards or ranks; then sums are state. */
static bool is_summed(const Update *b) { return b->shards > 1 || ranks_count() > 1; }

/* Output `old` over the shards of a step so far, flat; combined by `op`. */
static Value *over_shards(Update *b, int output, Op op)
{
    int k;
    if (output < 0) return NULL;
    Value *x = flat(b, b->old[output]);
    if (!is_summed(b)) return x;
    Value *sum = state_input(b, STATE_SUM, output, type_count(&x->type), &k);
    b->u->over[b->u->nsums++] = op == OP_Add ? RANKS_SUM : op == OP_Min ? RANKS_LEAST : RANKS_MOST;
    return b->next[k] = where(b, b->fresh, x, binary(b, op, sum, x));
}

/* ---- the update ----------------------------------------------------------------------- */

/* Sum of squares: of all (*all), and of what shares the learning rate. */
static Value *squares(Update *b, Value *loss, Value **shared)
{
    Value *all = unary(b, OP_Abs, mul(b, loss, b->rate[RATE_SHARE]));
    *shared = NULL;
    for (int i = 0; i < b->t->nparams; i++) {
        if (!b->grad[i]) continue;
        Value *g = b->grad[i] = mul(b, b->grad[i], b->rate[RATE_UNSCALE]);
        Value *part = sum_all(b, mul(b, g, g));
        all = add(b, all, part);
        if (!b->t->params[i].scale) *shared = *shared ? add(b, *shared, part) : part;
    }
    return all;
}

/* Next m and v of a parameter whose gradient is g, and the step's direction. */
static Value *adam_direction(Update *b, int i, Value *g, int64_t n)
{
    const double b1 = (double)b->o->momentum, b2 = (double)b->o->beta2;
    int km, kv;
    Value *m = state_input(b, STATE_MOMENT_1, i, n, &km);
    Value *v = state_input(b, STATE_MOMENT_2, i, n, &kv);
    Value *m1 = add(b, times(b, m, b1), times(b, g, 1 - b1));
    Value *v1 = add(b, times(b, v, b2), times(b, mul(b, g, g), 1 - b2));
    b->next[km] = where(b, b->ok, m1, m);
    b->next[kv] = where(b, b->ok, v1, v);
    Value *root = unary(b, OP_Sqrt, mul(b, v1, b->rate[RATE_MOMENT_2]));
    return binary(b, OP_Div, mul(b, m1, b->rate[RATE_MOMENT_1]), add(b, root, number(b, 1e-8)));
}

static Value *sgd_direction(Update *b, int i, Value *g, int64_t n)
{
    int km;
    Value *m = state_input(b, STATE_MOMENT_1, i, n, &km);
    Value *m1 = add(b, times(b, m, (double)b->o->momentum), g);
    b->next[km] = where(b, b->ok, m1, m);
    return add(b, g, times(b, m1, (double)b->o->momentum));
}

/* w - lr (direction + decay w) */
static Value *stepped(Update *b, int i, Value *w, Value *g)
{
    const bool sgd = b->o->kind == OPTIMIZER_SGD;
    const double decay = b->t->params[i].decay ? (double)b->o->weight_decay : 0;
    const int64_t n = type_count(&w->type);
    if (b->shrink) g = mul(b, g, b->shrink);
    if (sgd && decay > 0) g = add(b, g, times(b, w, decay));
    Value *d = sgd ? sgd_direction(b, i, g, n) : adam_direction(b, i, g, n);
    if (!sgd && decay > 0) d = add(b, d, times(b, w, decay));
    return binary(b, OP_Sub, w, mul(b, d, b->rate[RATE]));
}

/* w exp(-lr direction of d loss / d log w), within its bounds */
static Value *stepped_positive(Update *b, int i, Value *w, Value *g)
{
    const TrainParam *p = &b->t->params[i];
    Value *d = adam_direction(b, i, mul(b, g, w), type_count(&w->type));
    Value *by = unary(b, OP_Neg, mul(b, d, b->rate[RATE_OF_RANGES]));
    Value *next = mul(b, w, unary(b, OP_Exp, by));
    if (p->least > 0) next = binary(b, OP_Max, next, number(b, (double)p->least));
    if (p->most > 0) next = binary(b, OP_Min, next, number(b, (double)p->most));
    return next;
}

static void update_params(Update *b)
{
    for (int i = 0; i < b->t->nparams; i++) {
        const TrainParam *p = &b->t->params[i];
        Value *w = flat(b, b->g->inputs[p->input]);
        Value *g = b->grad[i] ? b->grad[i] : times(b, w, 0);
        Value *next = p->scale ? stepped_positive(b, i, w, g) : stepped(b, i, w, g);
        b->weight[i] = where(b, b->ok, next, w);
        carry_into(b, STATE_WEIGHT, i, p->input, b->weight[i]);
    }
}

/* grid_weight_scales of the new weights */
static void update_scales(Update *b)
{
    for (int i = 0; i < b->t->nscales; i++) {
        const TrainScale *s = &b->t->scales[i];
        const Type *t = &b->t->params[s->param].home->type;
        int64_t axes[MAX_RANK];
        int n = 0;
        for (int k = 0; k < t->rank; k++)
            if (k != s->axis) axes[n++] = k;
        Value *x = unary(b, OP_Abs, b->weight[s->param]);
        x = binary(b, OP_Reshape, x, const_ints(b->g, t->rank, t->dim));
        const Attr drop = attr_int("keepdims", 0);
        if (n > 0)
            x = build(b->g, OP_ReduceMax, 2, (Value *[]){x, const_ints(b->g, n, axes)}, 1, &drop);
        Value *most = build(b->g, OP_ReduceMax, 1, &x, 1, &drop);
        Value *none = binary(b, OP_Equal, most, number(b, 0));
        most = where(b, none, number(b, 1), most);
        x = binary(b, OP_Max, x, times(b, most, 1e-4));
        x = binary(b, OP_Div, x, number(b, s->qmax));
        carry_into(b, STATE_SCALE, i, s->input, flat(b, x));
    }
}

/* r + momentum (batch - r) */
static void update_running(Update *b, StateKind kind, int i, Value *sum, double correction)
{
    int k;
    Value *r = state_input(b, kind, i, type_count(&sum->type), &k);
    Value *batch = times(b, mul(b, sum, b->rate[RATE_SHARE]), correction);
    Value *next = add(b, r, times(b, binary(b, OP_Sub, batch, r), b->momentum));
    b->next[k] = where(b, b->ok, next, r);
}

static void split_rates(Update *b)
{
    const int64_t n = RATES;
    b->u->rates = b->g->ninputs;
    Value *rates = graph_add_input(b->g, "rates", type_of(DT_F32, 1, &n));
    const Attr axis = attr_int("axis", 0);
    const Node *s = build_multi(b->g, OP_Split, RATES, 2,
                                (Value *[]){rates, CONST_INTS(b->g, 1, 1, 1, 1, 1, 1)}, 1, &axis);
    memcpy(b->rate, s->out, sizeof b->rate);
}

/* ---- putting it together -------------------------------------------------------------- */

typedef struct Sums {
    Value *loss, *judged, **mean, **variance, **report;
    int nreport;
} Sums;

static void sum_shards(Update *b, Sums *s, Arena *a)
{
    const TrainGraph *t = b->t;
    const int64_t one = 1;
    b->u->fresh = is_summed(b) ? b->g->ninputs : -1;
    if (is_summed(b)) b->fresh = graph_add_input(b->g, "fresh", type_of(DT_BOOL, 1, &one));
    *s = (Sums){.loss = over_shards(b, 0, OP_Add),
                .mean = NEW_ARRAY(a, Value *, t->nnorms),
                .variance = NEW_ARRAY(a, Value *, t->nnorms),
                .report = NEW_ARRAY(a, Value *, REPORT_EXTREMES + 2 * t->nextremes),
                .nreport = REPORT_EXTREMES};
    s->judged = t->judged ? over_shards(b, t->judged, OP_Add) : s->loss;
    for (int i = 0; i < t->nparams; i++) b->grad[i] = over_shards(b, t->params[i].output, OP_Add);
    for (int i = 0; i < t->nnorms; i++) {
        s->mean[i] = over_shards(b, t->norms[i].mean_output, OP_Add);
        s->variance[i] = over_shards(b, t->norms[i].variance_output, OP_Add);
    }
    for (int i = 0; i < t->nextremes; i++) {
        s->report[s->nreport++] = over_shards(b, t->extremes[i].least_output, OP_Min);
        s->report[s->nreport++] = over_shards(b, t->extremes[i].most_output, OP_Max);
    }
}

static void update_all(Update *b, Sums *s)
{
    Value *shared;
    Value *all = squares(b, s->loss, &shared);
    b->ok = binary(b, OP_Less, all, number(b, (double)FLT_MAX));
    if (b->o->clip_norm > 0 && shared) {
        Value *norm = unary(b, OP_Sqrt, add(b, shared, number(b, 1e-30)));
        Value *most = binary(b, OP_Div, number(b, (double)b->o->clip_norm), norm);
        b->shrink = binary(b, OP_Min, most, number(b, 1));
    }
    s->report[REPORT_LOSS] = s->loss;
    s->report[REPORT_SQUARES] = all;
    s->report[REPORT_JUDGED] = s->judged;
    update_params(b);
    update_scales(b);
    for (int i = 0; i < b->t->nnorms; i++) {
        update_running(b, STATE_MEAN, i, s->mean[i], 1);
        update_running(b, STATE_VARIANCE, i, s->variance[i], b->t->norms[i].correction);
    }
}

static void set_outputs(Update *b, const Sums *s)
{
    const Attr axis = attr_int("axis", 0);
    b->u->nreport = s->nreport;
    b->g->noutputs = 0;
    graph_add_output(b->g, build(b->g, OP_Concat, s->nreport, s->report, 1, &axis));
    for (int k = 0; k < b->u->nstate; k++) {
        b->u->out[k] = b->g->noutputs;
        graph_add_output(b->g, b->next[k]);
    }
}

/* Weights and scales belong to both stages, moments, statistics and rates to the update. */
static void set_stages(Update *b, Arena *a)
{
    const TrainUpdate *u = b->u;
    uint8_t *stage = NEW_ARRAY(a, uint8_t, b->g->ninputs);
    for (int k = 0; k < u->nstate; k++) {
        const StateKind kind = u->state[k].kind;
        const bool both = kind == STATE_WEIGHT || kind == STATE_SCALE || kind == STATE_SUM;
        if (!both) stage[u->in[k]] = STAGE_UPDATE;
    }
    stage[u->rates] = STAGE_UPDATE;
    b->u->stage = stage;
}

int train_update_build(TrainUpdate *out, TrainGraph *t, Arena *a, const Optimizer *o,
                       int64_t shards, double norm_momentum)
{
    const int most = 4 * t->nparams + t->nscales + 4 * t->nnorms + 2 * t->nextremes + 2;
    *out = (TrainUpdate){.state = NEW_ARRAY(a, TrainState, most),
                         .in = NEW_ARRAY(a, int, most),
                         .out = NEW_ARRAY(a, int, most),
                         .over = NEW_ARRAY(a, RankOp, most)};
    Update b = {.u = out, .t = t, .g = t->g, .o = o, .shards = shards, .momentum = norm_momentum};
    Sums s;
    b.next = NEW_ARRAY(a, Value *, most);
    b.grad = NEW_ARRAY(a, Value *, t->nparams);
    b.weight = NEW_ARRAY(a, Value *, t->nparams);
    b.old = arena_memdup(a, t->g->outputs, sizeof(Value *) * (size_t)t->g->noutputs);
    sum_shards(&b, &s, a);
    split_rates(&b);
    update_all(&b, &s);
    set_outputs(&b, &s);
    set_stages(&b, a);
    return simplify_dce(t->g, a);
}

void train_update_rates(float *rates, const Optimizer *o, double lr, double range_lr,
                        double unscale, int64_t shards)
{
    const double t = (double)(o->step + 1);
    rates[RATE] = (float)lr;
    rates[RATE_OF_RANGES] = (float)range_lr;
    rates[RATE_MOMENT_1] = (float)(1 / (1 - pow((double)o->momentum, t)));
    rates[RATE_MOMENT_2] = (float)(1 / (1 - pow((double)o->beta2, t)));
    rates[RATE_UNSCALE] = (float)unscale;
    rates[RATE_SHARE] = (float)(1 / (double)shards);
}
