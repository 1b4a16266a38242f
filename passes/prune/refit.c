/* The least-squares fit of one layer (see reconstruct.c for what is fitted to what).
 *
 * x are patches at POSITIONS places of every sample, or more where samples are few; a row [x | 1 |
 * t] each. Their products are added up, shard by shard, in least_squares.c.
 *
 * How far the weights are held back to what they were is decided by cross-validation: every
 * HELD_EVERY'th shard is held out, fits to the others are tried on it, and the best ridge is that
 * of the fit to all. Too few samples to hold any out, and layers so wide that a fit takes seconds,
 * have a ridge by the number of samples. */
#include "passes/prune/refit.h"

#include <math.h>
#include <string.h>

#include "ir/window.h"
#include "passes/prune/least_squares.h"

enum { POSITIONS = 16, ROWS_PER_UNKNOWN = 4, ROW_BLOCK = 256, MOST_TRIED = 2304 };
static const double RIDGE = 1e-4, MOST_RIDGE = 0.1; /* of REFIT_SAMPLES samples, of one */

/* ---- rows --------------------------------------------------------------------------- */

/* A convolution's window with the elements that it reads around each position. */
typedef struct Patches {
    Window w;
    int64_t channels, taps, in_count, out_count;
    int64_t *offset; /* [taps, w.n]: kernel index times dilation */
} Patches;

static Patches patches_of(const Node *n, const Type *x, Diag *d, Arena *a)
{
    Value input = *n->in[0], *in[] = {&input, n->in[1]};
    Node sized = *n;
    input.type = *x;
    sized.in = in;
    sized.nin = 2;
    Patches p = {.channels = x->dim[1], .taps = 1, .in_count = 1, .out_count = 1};
    if (node_window(&sized, &p.w, d) < 0) trap(TRAP_INTERNAL, "the window of a valid node");
    for (int k = 0; k < p.w.n; k++) {
        p.in_count *= p.w.in[k];
        p.out_count *= p.w.out[k];
        p.taps *= p.w.kernel[k];
    }
    p.offset = NEW_ARRAY(a, int64_t, p.taps * p.w.n);
    for (int64_t t = 0; t < p.taps; t++)
        for (int64_t k = p.w.n - 1, rest = t; k >= 0; rest /= p.w.kernel[k--])
            p.offset[t * p.w.n + k] = rest % p.w.kernel[k] * p.w.dilation[k];
    return p;
}

/* For every tap the element of a channel's plane that it reads at output position p; -1: padding.
 */
static void tap_sources(const Patches *q, int64_t p, int64_t *source)
{
    int64_t base[MAX_RANK];
    for (int k = q->w.n - 1; k >= 0; p /= q->w.out[k--])
        base[k] = p % q->w.out[k] * q->w.stride[k] - q->w.pad[k];
    for (int64_t t = 0; t < q->taps; t++) {
        int64_t at = 0;
        for (int k = 0; k < q->w.n && at >= 0; k++) {
            int64_t i = base[k] + q->offset[t * q->w.n + k];
            at = i < 0 || i >= q->w.in[k] ? -1 : at * q->w.in[k] + i;
        }
        source[t] = at;
    }
}

static void patch(const Patches *q, const float *x, int64_t p, int64_t *source, float *row)
{
    tap_sources(q, p, source);
    for (int64_t c = 0; c < q->channels; c++, x += q->in_count)
        for (int64_t t = 0; t < q->taps; t++) *row++ = source[t] < 0 ? 0 : x[source[t]];
}

/* ---- one fit ------------------------------------------------------------------------ */

enum { OUT_X, OUT_TARGET, OUT_OTHER };

typedef struct Task {
    Context *c;
    const Fit *f;
    int64_t samples;
    LeastSquares q;
    Arena *arena;
    Patches patches;
    int64_t rows;              /* per shard at most */
    int64_t groups, positions; /* x is groups of positions: samples of a convolution */
    int64_t target_outputs;
    int64_t unknowns; /* per output, without the intercept */
    float *w0, *b0;   /* present weights [outputs, columns] and biases, if grouped */
    /* per thread */
    float *x, *target, *other, *row, *wide;
    int64_t nx, nt, no;
    int64_t *source;
} Task;

static bool grouped(const Task *t) { return t->f->group > 1; }

/* Of a block. The kernel of least_squares.c may read a tile beyond the last row. */
static int64_t floats_of_rows(const Task *t)
{
    return (t->rows < ROW_BLOCK ? t->rows : ROW_BLOCK) * t->q.width + 64;
}

/* Places to look at in each sample: more where samples are few, since a fit to fewer rows than
 * unknowns is one to noise. */
static int64_t positions_wanted(const Task *t)
{
    const int64_t n = t->f->conv ? t->samples : 1;
    const int64_t wanted = (ROWS_PER_UNKNOWN * t->unknowns + n - 1) / n;
    return wanted > POSITIONS ? wanted : POSITIONS;
}

/* Sizes from the program's outputs, which are those of one shard. */
static void plan(void *ctx, const PrefixStep *step, ShardGraph *made)
{
    Task *t = ctx;
    const Type *x = &step->g->outputs[OUT_X]->type, *y = &step->g->outputs[OUT_TARGET]->type;
    t->nx = type_count(x);
    t->nt = type_count(y);
    t->no = t->f->other ? type_count(&step->g->outputs[OUT_OTHER]->type) : 0;
    t->target_outputs = t->f->conv ? y->dim[1] : y->dim[y->rank - 1];
    t->groups = t->f->conv ? x->dim[0] : t->nx / t->f->columns;
    if (t->f->conv) t->patches = patches_of(t->f->node, x, t->c->diag, t->arena);
    t->positions = t->f->conv ? t->patches.out_count : 1;
    const int64_t wanted = positions_wanted(t);
    t->rows = t->groups * (t->positions < wanted ? t->positions : wanted);
    made->result_bytes = least_squares_bytes(&t->q);
    made->each =
        (size_t)(t->nx + t->nt + t->no + floats_of_rows(t) + t->f->columns) * sizeof(float);
}

static void set_up(void *ctx, const PrefixStep *step)
{
    Task *t = ctx;
    const int threads = step->session->threads;
    Arena *a = t->arena;
    t->x = NEW_ARRAY(a, float, threads * t->nx);
    t->target = NEW_ARRAY(a, float, threads * t->nt);
    t->other = NEW_ARRAY(a, float, threads * t->no + 1);
    t->wide = NEW_ARRAY(a, float, threads * t->f->columns);
    t->row = NEW_ARRAY(a, float, threads *floats_of_rows(t));
    t->source = NEW_ARRAY(a, int64_t, threads * (t->patches.taps + 1));
}

/* What is read at position p of group g. */
static void make_columns(const Task *t, const float *x, int64_t g, int64_t p, int64_t *source,
                         float *columns)
{
    const Fit *f = t->f;
    if (f->conv)
        patch(&t->patches, x + g * t->patches.channels * t->patches.in_count, p, source, columns);
    else
        memcpy(columns, x + g * f->columns, (size_t)f->columns * sizeof *columns);
}

static void add_groups(const Fit *f, const float *columns, int64_t unknowns, float *row)
{
    for (int64_t k = 0; k < unknowns; k++) {
        const int64_t end = (k + 1) * f->group < f->columns ? (k + 1) * f->group : f->columns;
        row[k] = 0;
        for (int64_t i = k * f->group; i < end; i++) row[k] += columns[i];
    }
}

/* One row [x | 1 | t] for group g at position p; `wide` has room for all columns. */
static void make_row(const Task *t, const float *x, const float *target, const float *other,
                     int64_t g, int64_t p, int64_t *source, float *wide, float *row)
{
    const Fit *f = t->f;
    make_columns(t, x, g, p, source, grouped(t) ? wide : row);
    if (grouped(t)) add_groups(f, wide, t->unknowns, row);
    row += t->unknowns;
    if (f->intercept) *row++ = 1;
    for (int64_t o = 0; o < f->outputs; o++, row++) {
        int64_t lane = f->lanes ? f->lanes[o] : o;
        *row = target[(g * t->target_outputs + lane) * t->positions + p];
        if (other) *row -= other[(g * f->outputs + o) * t->positions + p];
        if (grouped(t)) *row -= dot_product(t->w0 + o * f->columns, wide, f->columns) + t->b0[o];
    }
}

/* Position j of `count` in equal strata, at random inside its own. */
static int64_t position(const Task *t, Rng *rng, int64_t j, int64_t count)
{
    if (count == t->positions) return j;
    int64_t from = j * t->positions / count, to = (j + 1) * t->positions / count;
    return from + rng_below(rng, (uint32_t)(to - from));
}

static int take(void *ctx, int64_t shard, const PrefixStep *step, Instance *inst)
{
    Task *t = ctx;
    int64_t slot = session_slot(step->session, inst), width = t->q.width;
    float *x = t->x + slot * t->nx, *target = t->target + slot * t->nt;
    float *other = t->f->other ? t->other + slot * t->no : NULL;
    float *wide = t->wide + slot * t->f->columns;
    float *rows = t->row + slot * floats_of_rows(t), *part = instance_result(inst);
    int64_t *source = t->source + slot * (t->patches.taps + 1), n = 0;
    int64_t count = t->rows / t->groups;
    instance_read(inst, OUT_X, x);
    instance_read(inst, OUT_TARGET, target);
    if (other) instance_read(inst, OUT_OTHER, other);
    memset(part, 0, least_squares_bytes(&t->q));
    for (int64_t g = 0; g < t->groups; g++) {
        Rng rng = rng_new(t->c->opt.seed, (uint64_t)(shard * t->groups + g));
        for (int64_t j = 0; j < count; j++) {
            make_row(t, x, target, other, g, position(t, &rng, j, count), source, wide,
                     rows + n++ * width);
            if (n < ROW_BLOCK) continue;
            least_squares_part(&t->q, rows, n, part);
            n = 0;
        }
    }
    least_squares_part(&t->q, rows, n, part);
    return 0;
}

static int add_up(void *ctx, int64_t shard, const PrefixStep *step, Instance *inst)
{
    Task *t = ctx;
    const int64_t shards = feed_shards(step->feed),
                  every = shards < HELD_EVERY ? shards : HELD_EVERY;
    const bool hold = t->q.held && every > 2 && shard % every == every - 1;
    least_squares_add(&t->q, instance_result(inst), t->rows, hold);
    return 0;
}

/* ---- the result --------------------------------------------------------------------- */

static const float *floats(const Node *n, int k) { return node_in(n, k) ? n->in[k]->data : NULL; }

/* What BatchNormalization multiplies output o by, and adds to it. */
static void norm_affine(const Fit *f, int64_t o, double *scale, double *shift)
{
    *scale = 1;
    *shift = 0;
    if (!f->norm) return;
    double variance = (double)floats(f->norm, 4)[o];
    double epsilon = (double)node_float(f->norm, "epsilon", 1e-5F);
    *scale = (double)floats(f->norm, 1)[o] / sqrt(variance + epsilon);
    *shift = (double)floats(f->norm, 2)[o] - (double)floats(f->norm, 3)[o] * *scale;
}

/* Element (output o, column i) of the node's weight. */
static int64_t weight_at(const Fit *f, int64_t o, int64_t i)
{
    bool transposed =
        f->node->op == OP_MatMul || (f->node->op == OP_Gemm && !node_int(f->node, "transB", 0));
    return transposed ? i * f->outputs + o : o * f->columns + i;
}

/* The present weights and bias as rows [columns, 1], BatchNormalization multiplied in. */
static double *present_weights(const Task *t)
{
    const Fit *f = t->f;
    double *w = NEW_ARRAY(t->arena, double, f->outputs * t->q.columns), scale, shift;
    const float *old = f->node->in[1]->data, *bias = floats(f->node, 2);
    for (int64_t o = 0; o < f->outputs; o++) {
        norm_affine(f, o, &scale, &shift);
        for (int64_t i = 0; i < f->columns; i++)
            w[o * t->q.columns + i] = scale * (double)old[weight_at(f, o, i)];
        if (f->intercept)
            w[o * t->q.columns + f->columns] = shift + (bias ? scale * (double)bias[o] : 0);
    }
    return w;
}

static float *new_constant(Graph *g, Value *v)
{
    float *data = NEW_ARRAY(g->arena, float, type_count(&v->type));
    v->data = data;
    return data;
}

/* Input k of n as a constant of its own, added when the node has none. */
static float *bias_of(Graph *g, Node *n, int64_t outputs)
{
    if (!node_in(n, 2)) {
        Value **in = NEW_ARRAY(g->arena, Value *, 3);
        memcpy(in, n->in, 2 * sizeof *in);
        in[2] = value_const(g, arena_printf(g->arena, "%s_bias", n->in[1]->name),
                            type_of(DT_F32, 1, &outputs), NULL);
        n->in = in;
        n->nin = 3;
    }
    return new_constant(g, n->in[2]);
}

static void write_weights(const Task *t, const double *w)
{
    const Fit *f = t->f;
    Graph *g = t->c->graph;
    float *weight = new_constant(g, f->node->in[1]);
    for (int64_t o = 0; o < f->outputs; o++)
        for (int64_t i = 0; i < f->columns; i++)
            weight[weight_at(f, o, i)] = (float)w[o * t->q.columns + i];
    if (!f->intercept) return;
    float *bias = f->norm && !node_in(f->node, 2) ? NULL : bias_of(g, f->node, f->outputs);
    for (int64_t o = 0; bias && o < f->outputs; o++)
        bias[o] = f->norm ? 0 : (float)w[o * t->q.columns + f->columns];
}

/* y = w x + b through (w x - mean) * scale / sqrt(variance + epsilon) + shift. */
static void write_norm(const Task *t, const double *w, const double *mean, const double *variance)
{
    const Fit *f = t->f;
    Graph *g = t->c->graph;
    double epsilon = (double)node_float(f->norm, "epsilon", 1e-5F);
    float *out[5];
    for (int k = 1; k < 5; k++) out[k] = new_constant(g, f->norm->in[k]);
    for (int64_t o = 0; o < f->outputs; o++) {
        out[1][o] = (float)sqrt(variance[o] + epsilon);
        out[2][o] = (float)(w[o * t->q.columns + f->columns] + mean[o]);
        out[3][o] = (float)mean[o];
        out[4][o] = (float)variance[o];
    }
}

/* W0 and b0, BatchNormalization multiplied in. */
static void keep_present(Task *t)
{
    const Fit *f = t->f;
    const float *old = f->node->in[1]->data, *bias = floats(f->node, 2);
    double scale, shift;
    t->w0 = NEW_ARRAY(t->arena, float, f->outputs * f->columns);
    t->b0 = NEW_ARRAY(t->arena, float, f->outputs);
    for (int64_t o = 0; o < f->outputs; o++) {
        norm_affine(f, o, &scale, &shift);
        for (int64_t i = 0; i < f->columns; i++)
            t->w0[o * f->columns + i] = (float)(scale * (double)old[weight_at(f, o, i)]);
        t->b0[o] = (float)(shift + (bias ? scale * (double)bias[o] : 0));
    }
}

/* Adds a group's unknown to each of its weights, and what was found to bias or shift. */
static void add_weights(const Task *t, const double *d)
{
    const Fit *f = t->f;
    Graph *g = t->c->graph;
    const float *old = f->node->in[1]->data, *bias = floats(f->node, 2), *shift = NULL;
    if (f->norm) shift = floats(f->norm, 2);
    float *weight = new_constant(g, f->node->in[1]), *out = NULL;
    if (f->norm)
        out = new_constant(g, f->norm->in[2]);
    else if (f->intercept)
        out = bias_of(g, f->node, f->outputs);
    for (int64_t o = 0; o < f->outputs; o++) {
        const double *row = d + o * t->q.columns;
        double scale, unused;
        norm_affine(f, o, &scale, &unused);
        if (scale == 0) scale = INFINITY;
        for (int64_t i = 0; i < f->columns; i++) {
            const int64_t at = weight_at(f, o, i);
            weight[at] = (float)((double)old[at] + row[i / f->group] / scale);
        }
        const float *before = f->norm ? shift : bias;
        if (out) out[o] = (float)((before ? (double)before[o] : 0) + row[t->unknowns]);
    }
}

/* Few samples say less than their rows do, which lie side by side: what they ask for is trusted
 * less. Measured on detectors refitted with three photographs and judged on another. */
static double usual_ridge(int64_t samples)
{
    return fmin(MOST_RIDGE, RIDGE * fmax(1, (double)REFIT_SAMPLES / (double)samples));
}

/* NULL, or why the layer keeps its weights. */
static const char *solve(Task *t)
{
    static const char *const constant = "its input is constant",
                             *const worse = "on samples held out no others are better";
    const Fit *f = t->f;
    Arena *a = t->arena;
    double *w = grouped(t) ? NEW_ARRAY(a, double, f->outputs * t->q.columns) : present_weights(t),
           *mean = NEW_ARRAY(a, double, f->outputs), *variance = NEW_ARRAY(a, double, f->outputs);
    const double ridge =
        t->q.held_rows ? least_squares_choose(&t->q, f->intercept, w) : usual_ridge(t->samples);
    if (!isfinite(ridge)) return worse;
    const bool moments = f->norm && !grouped(t);
    if (!least_squares_solve(&t->q, ridge, f->intercept, w, moments ? mean : NULL, variance))
        return constant;
    if (grouped(t)) {
        add_weights(t, w);
        return NULL;
    }
    write_weights(t, w);
    if (f->norm) write_norm(t, w, mean, variance);
    return NULL;
}

int refit_layer(Context *c, Prefix *prefix, const Fit *f, int64_t samples, size_t *bytes)
{
    static const PrefixCalls calls = {plan, set_up, take, add_up};
    Arena *a = arena_new();
    Task t = {.c = c,
              .f = f,
              .samples = samples,
              .arena = a,
              .unknowns = (f->columns + f->group - 1) / f->group};
    if (grouped(&t)) keep_present(&t);
    t.q = least_squares_new(a, (int)t.unknowns + f->intercept, (int)f->outputs,
                            samples >= HELD_EVERY && t.unknowns <= MOST_TRIED);
    Value *values[] = {f->x, f->target, f->other};
    int side[] = {0, 1, 0};
    int status = prefix_run(prefix, f->other ? 3 : 2, values, side, &calls, &t, bytes);
    const char *why = status == 0 ? solve(&t) : NULL;
    if (why)
        diag_remark(c->diag, "reconstruct: '%s' keeps its weights: %s", node_label(f->node), why);
    arena_free(a);
    return status;
}
