/* Programs whose outputs are the values in question; moments of them. */
#include "passes/observe.h"

#include <math.h>

#include "passes/batches.h"

typedef struct Watcher {
    Feed *feed;
    const Graph *g;
    float *buffer;
    Observer *see;
    void *ctx;
} Watcher;

static int run_shard(void *ctx, int64_t shard, Instance *inst)
{
    Watcher *w = ctx;
    feed_bind(w->feed, shard, inst);
    instance_run_all(inst);
    return 0;
}

static int show_shard(void *ctx, int64_t shard, Instance *inst)
{
    Watcher *w = ctx;
    (void)shard;
    for (int o = 0; o < w->g->noutputs; o++) {
        instance_read(inst, o, w->buffer);
        w->see(w->ctx, o, &w->g->outputs[o]->type, w->buffer);
    }
    return 0;
}

typedef struct Outputs {
    Arena *arena;
    const Graph *g;
    int n;
    Value *const *v;
    const Samples *samples;
    Diag *d;
} Outputs;

/* g with the values as its outputs, at the shard's batch. */
static int with_outputs(ShardGraph *out, void *ctx, int64_t shard)
{
    const Outputs *o = ctx;
    Value **map;
    Graph *copy = graph_clone(o->g, o->arena, &map);
    copy->noutputs = 0;
    for (int i = 0; i < o->n; i++) graph_add_output(copy, map[o->v[i]->id]);
    TRY(simplify_dce(copy, o->arena));
    return shard_specialize(&out->g, copy, o->arena, o->samples, shard, o->d);
}

static int observe_in(Arena *a, const Graph *g, int n, Value *const *v, const Samples *s,
                      int64_t limit, const Options *o, Diag *d, Watcher *w, size_t *bytes)
{
    Session *session;
    int64_t largest = 1;
    Outputs outputs = {a, g, n, v, s, d};
    TRY(session_open(&session, a, g, 0, with_outputs, &outputs, o, d));
    if (bytes) *bytes = session->bytes;
    for (int i = 0; i < n; i++) {
        int64_t size = type_count(&session->g->outputs[i]->type);
        largest = size > largest ? size : largest;
    }
    w->g = session->g;
    w->buffer = NEW_ARRAY(a, float, largest);
    w->feed = feed_new(a, session, s, s->count < limit ? s->count : limit, NULL);
    return session_run(session, feed_shards(w->feed), run_shard, show_shard, w);
}

int observe(const Graph *g, int n, Value *const *v, const Samples *s, int64_t limit,
            const Options *o, Diag *d, Observer *see, void *ctx, size_t *bytes)
{
    if (n == 0) return 0;
    if (!s || s->count == 0) return diag_error(d, "no samples to run through the network");
    Watcher w = {.see = see, .ctx = ctx};
    Arena *a = arena_new();
    int status = observe_in(a, g, n, v, s, limit, o, d, &w, bytes);
    arena_free(a);
    return status;
}

/* ---- moments ------------------------------------------------------------------------ */

typedef struct Sums {
    Moments *moments; /* sums of x and x^2 while observing */
    double *count;
} Sums;

static void add_moments(void *ctx, int i, const Type *t, const float *x)
{
    Sums *s = ctx;
    Moments *m = &s->moments[i];
    int64_t rows = t->dim[0] * m->channels, inner = type_count(t) / (rows ? rows : 1);
    for (int64_t r = 0; r < rows; r++) {
        double sum = 0, square = 0;
        for (int64_t k = 0; k < inner; k++, x++) {
            sum += (double)*x;
            square += (double)*x * (double)*x;
        }
        m->mean[r % m->channels] += sum;
        m->variance[r % m->channels] += square;
    }
    s->count[i] += (double)(t->dim[0] * inner);
}

int measure_moments(Moments *out, Arena *a, const Graph *g, int n, Value *const *v,
                    const Samples *s, int64_t limit, const Options *o, Diag *d)
{
    Sums sums = {out, NEW_ARRAY(a, double, n)};
    for (int i = 0; i < n; i++) {
        int64_t channels = v[i]->type.rank >= 2 ? v[i]->type.dim[1] : 0;
        if (channels <= 0)
            return diag_error(d, "value '%s' has no channels to measure", v[i]->name);
        out[i] =
            (Moments){channels, NEW_ARRAY(a, double, channels), NEW_ARRAY(a, double, channels)};
    }
    TRY(observe(g, n, v, s, limit, o, d, add_moments, &sums, NULL));
    for (int i = 0; i < n; i++)
        for (int64_t k = 0; k < out[i].channels; k++) {
            double mean = out[i].mean[k] / sums.count[i];
            out[i].mean[k] = mean;
            out[i].variance[k] = fmax(out[i].variance[k] / sums.count[i] - mean * mean, 0);
        }
    return 0;
}

/* ---- normalisations ----------------------------------------------------------------- */

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
