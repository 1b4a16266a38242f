/* Programs whose outputs are the values in question; moments of them. */
#include "passes/observe.h"

#include <math.h>
#include <string.h>

#include "ir/batch.h"
#include "passes/batches.h"

typedef struct Watcher {
    const Graph *g;
    int n;
    Value *const *v;
    const Samples *samples;
    const Observer *by;
    Session *session;
    Feed *feed;
    const int *axis; /* of each value: output_axes */
    int64_t largest; /* elements of one value */
    float *x;        /* per thread two values */
} Watcher;

/* Moves the first `rows` samples of a shard together, at the front of x; their type. */
static Type without_repeats(const Watcher *w, int o, int64_t rows, float *x)
{
    Type t = w->session->g->outputs[o]->type;
    const int axis = w->axis[o];
    const int64_t shard = w->session->shard, outer = batch_outer(&t, axis);
    if (rows == shard || axis < 0) return t;
    const int64_t whole = type_count(&t) / outer, part = whole / shard * rows;
    for (int64_t k = 1; k < outer; k++)
        memmove(x + k * part, x + k * whole, (size_t)part * sizeof *x);
    t.dim[axis] = t.dim[axis] / shard * rows;
    return t;
}

static int see_shard(void *ctx, int64_t shard, Instance *inst)
{
    Watcher *w = ctx;
    const Graph *g = w->session->g;
    float *x = w->x + session_slot(w->session, inst) * 2 * w->largest, *before = NULL;
    void *part = instance_result(inst);
    memset(part, 0, w->by->bytes);
    feed_bind(w->feed, shard, inst);
    instance_run_all(inst);
    for (int o = 0; o < g->noutputs; o++) {
        float *here = x + o % 2 * w->largest;
        instance_read(inst, o, here);
        const Type t = without_repeats(w, o, feed_rows(w->feed, shard), here);
        w->by->see(w->by->ctx, o, &t, here, before, part);
        before = here;
    }
    return 0;
}

static int add_shard(void *ctx, int64_t shard, Instance *inst)
{
    const Watcher *w = ctx;
    (void)shard;
    w->by->add(w->by->ctx, instance_result(inst));
    return 0;
}

/* g with the values as its outputs, at the shard's batch. */
static int with_outputs(ShardGraph *out, void *ctx, int64_t shard, Arena *a, Diag *d)
{
    const Watcher *w = ctx;
    Value **map;
    Graph *copy = graph_clone(w->g, a, &map);
    copy->noutputs = 0;
    for (int i = 0; i < w->n; i++) graph_add_output(copy, map[w->v[i]->id]);
    TRY(simplify_dce(copy, a));
    TRY(shard_specialize(&out->g, copy, a, w->samples, shard, d));
    out->result_bytes = w->by->bytes;
    out->each = 2 * (size_t)largest_output(out->g) * sizeof(float);
    return 0;
}

static int observe_in(Arena *a, Watcher *w, int64_t n, const Options *o, Diag *d, size_t *bytes)
{
    TRY(session_open(&w->session, a, w->g, w->samples, shard_for(n), with_outputs, w, o, d));
    if (bytes && w->session->bytes > *bytes) *bytes = w->session->bytes;
    w->axis = output_axes(a, w->session, with_outputs, w);
    w->largest = largest_output(w->session->g);
    w->x = NEW_ARRAY(a, float, 2 * w->largest * w->session->threads);
    w->feed = feed_new(a, w->session, w->samples, n, NULL);
    return session_run(w->session, feed_shards(w->feed), see_shard, add_shard, w);
}

int observe(const Graph *g, int n, Value *const *v, const Samples *s, int64_t limit,
            const Options *o, Diag *d, const Observer *by, size_t *bytes)
{
    if (n == 0) return 0;
    if (!s || s->count == 0) return diag_error(d, "no samples to run through the network");
    Watcher w = {.g = g, .n = n, .v = v, .samples = s, .by = by};
    Arena *a = arena_new();
    const int64_t most = samples_affordable(g, o, limit);
    int status = observe_in(a, &w, s->count < most ? s->count : most, o, d, bytes);
    arena_free(a);
    return status;
}

/* ---- moments ------------------------------------------------------------------------ */

typedef struct Sums {
    Moments *moments; /* sums of x and x^2 while observing */
    int n;
    int64_t *at; /* of each value in a part: channels sums of x, as many of x^2, and the count */
    int64_t size;
    double *count;
} Sums;

static void see_moments(const void *ctx, int i, const Type *t, const float *x, const float *before,
                        void *part)
{
    const Sums *s = ctx;
    const int64_t channels = s->moments[i].channels;
    double *mean = (double *)part + s->at[i], *variance = mean + channels;
    int64_t rows = t->dim[0] * channels, inner = type_count(t) / (rows ? rows : 1);
    (void)before;
    for (int64_t r = 0; r < rows; r++) {
        double sum = 0, square = 0;
        for (int64_t k = 0; k < inner; k++, x++) {
            sum += (double)*x;
            square += (double)*x * (double)*x;
        }
        mean[r % channels] += sum;
        variance[r % channels] += square;
    }
    mean[2 * channels] = (double)(t->dim[0] * inner);
}

static void add_moments(void *ctx, const void *part)
{
    Sums *s = ctx;
    for (int i = 0; i < s->n; i++) {
        Moments *m = &s->moments[i];
        const double *mean = (const double *)part + s->at[i], *variance = mean + m->channels;
        for (int64_t k = 0; k < m->channels; k++) {
            m->mean[k] += mean[k];
            m->variance[k] += variance[k];
        }
        s->count[i] += mean[2 * m->channels];
    }
}

int measure_moments(Moments *out, Arena *a, const Graph *g, int n, Value *const *v,
                    const Samples *s, int64_t limit, const Options *o, Diag *d)
{
    Sums sums = {out, n, NEW_ARRAY(a, int64_t, n), 0, NEW_ARRAY(a, double, n)};
    for (int i = 0; i < n; i++) {
        int64_t channels = v[i]->type.rank >= 2 ? v[i]->type.dim[1] : 0;
        if (channels <= 0)
            return diag_error(d, "value '%s' has no channels to measure", v[i]->name);
        out[i] =
            (Moments){channels, NEW_ARRAY(a, double, channels), NEW_ARRAY(a, double, channels)};
        sums.at[i] = sums.size;
        sums.size += 2 * channels + 1;
    }
    const Observer by = {see_moments, add_moments, &sums, (size_t)sums.size * sizeof(double)};
    TRY(observe(g, n, v, s, limit, o, d, &by, NULL));
    for (int i = 0; i < n; i++)
        for (int64_t k = 0; k < out[i].channels; k++) {
            double mean = out[i].mean[k] / sums.count[i];
            out[i].mean[k] = mean;
            out[i].variance[k] = fmax(out[i].variance[k] / sums.count[i] - mean * mean, 0);
        }
    return 0;
}

/* ---- normalizations ----------------------------------------------------------------- */

/* y = g (x - mu) / sqrt(var + e) + b  with (mu, var) <- (m, v):
 * g' = g r, b' = b + g (m - mu) / sqrt(var + e), r = sqrt((v + e) / (var + e)). A channel that
 * does not vary keeps a spread of its own, or it would be blown up by the first batch. */
static void settle(Arena *a, Node *n, const Moments *m)
{
    double e = (double)node_float(n, "epsilon", 1e-5f);
    float *value[4];
    for (int k = 0; k < 4; k++)
        value[k] = arena_memdup(a, n->in[k + 1]->data, (size_t)m->channels * sizeof(float));
    for (int64_t c = 0; c < m->channels; c++) {
        double v = fmax(m->variance[c], 1e-4 * (double)value[3][c]);
        double old = sqrt((double)value[3][c] + e), scale = (double)value[0][c];
        value[1][c] += (float)(scale * (m->mean[c] - (double)value[2][c]) / old);
        value[0][c] = (float)(scale * sqrt(v + e) / old);
        value[2][c] = (float)m->mean[c];
        value[3][c] = (float)v;
    }
    for (int k = 0; k < 4; k++) n->in[k + 1]->data = value[k];
}

static bool can_settle(const Node *n)
{
    bool norm = n->op == OP_BatchNormalization;
    for (int k = 1; norm && k <= 4; k++)
        norm = value_is_const(n->in[k]) && n->in[k]->type.dtype == DT_F32;
    return norm && n->in[0]->type.rank >= 2 && n->in[0]->type.dim[1] > 0;
}

int settle_norms(Context *c, int64_t limit)
{
    Graph *g = c->graph;
    Arena *a = arena_new();
    Node **norm = NEW_ARRAY(a, Node *, g->nnodes);
    Value **x = NEW_ARRAY(a, Value *, g->nnodes);
    int n = 0;
    for (int i = 0; i < g->nnodes; i++)
        if (can_settle(g->nodes[i])) {
            norm[n] = g->nodes[i];
            x[n++] = g->nodes[i]->in[0];
        }
    Moments *m = NEW_ARRAY(a, Moments, n);
    int status = n ? measure_moments(m, a, g, n, x, c->data, limit, &c->opt, c->diag) : 0;
    for (int i = 0; status == 0 && i < n; i++) settle(g->arena, norm[i], &m[i]);
    arena_free(a);
    return status;
}
