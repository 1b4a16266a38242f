/* Grids from ranges, weights and data. */
#include "passes/calibrate.h"

#include <math.h>
#include <string.h>

#include "passes/batches.h"

Grid grid_of_range(Range r, int qmin, int qmax)
{
    double lo = fmin(r.lo, 0), hi = fmax(r.hi, 0);
    if (hi - lo < 1e-6) hi = lo + 1e-6;
    double scale = (hi - lo) / (qmax - qmin), zero = round(qmin - lo / scale);
    /* Rounding the zero moved one end inwards by up to half a step: let the scale make up. */
    if (zero > qmin && zero < qmax) scale = fmax(lo / (qmin - zero), hi / (qmax - zero));
    return (Grid){(float)scale, (float)zero};
}

void grid_weight_scales(float *scale, const float *w, const Type *t, int axis, int qmax)
{
    int64_t n = axis < 0 ? 1 : t->dim[axis], inner = 1, total = type_count(t);
    for (int i = axis < 0 ? 0 : axis + 1; i < t->rank; i++) inner *= t->dim[i];
    float largest = 0;
    for (int64_t c = 0; c < n; c++) scale[c] = 0;
    for (int64_t i = 0; i < total; i++) {
        float *s = &scale[i / inner % n];
        *s = fmaxf(*s, fabsf(w[i]));
    }
    for (int64_t c = 0; c < n; c++) largest = fmaxf(largest, scale[c]);
    if (largest <= 0) largest = 1;
    for (int64_t c = 0; c < n; c++) scale[c] = fmaxf(scale[c], 1e-4f * largest) / (float)qmax;
}

typedef struct Calibration {
    Feed *feed;
    const Graph *g;
    Histogram *histogram; /* per output */
    float *buffer;
    int64_t skipped;
} Calibration;

static int calibrate_shard(void *ctx, int64_t shard, Instance *inst)
{
    Calibration *k = ctx;
    feed_bind(k->feed, shard, inst);
    instance_run_all(inst);
    return 0;
}

static int collect_shard(void *ctx, int64_t shard, Instance *inst)
{
    Calibration *k = ctx;
    (void)shard; /* rows that fill up the last shard are real samples: they do no harm */
    for (int o = 0; o < k->g->noutputs; o++) {
        instance_read(inst, o, k->buffer);
        k->skipped +=
            histogram_add(&k->histogram[o], k->buffer, type_count(&k->g->outputs[o]->type));
    }
    return 0;
}

/* A program whose outputs are the n values. */
static int observe(Graph **out, Context *c, Arena *a, const Graph *g, int n, Value *const *v,
                   int64_t shard)
{
    Value **map;
    Graph *copy = graph_clone(g, a, &map);
    copy->noutputs = 0;
    for (int i = 0; i < n; i++) graph_add_output(copy, map[v[i]->id]);
    simplify_dce(copy, a);
    return shard_specialize(out, copy, a, c->data, shard, c->diag);
}

static int calibrate_in(Arena *a, Range *range, Context *c, const Graph *g, int n, Value *const *v,
                        int64_t limit, int levels)
{
    Graph *p;
    Session *session;
    int64_t shard = shard_size(g, 0), largest = 0;
    int64_t count = c->data->count < limit ? c->data->count : limit;
    TRY(observe(&p, c, a, g, n, v, shard));
    ProgramOptions po = {.device = c->opt.device};
    TRY(session_open(&session, a, p, &po, c->opt.threads, c->opt.memory, c->diag));
    if (session->bytes > c->peak_bytes) c->peak_bytes = session->bytes;
    for (int i = 0; i < n; i++) {
        int64_t size = type_count(&p->outputs[i]->type);
        largest = size > largest ? size : largest;
    }
    Calibration k = {.feed = feed_new(a, p, c->data, count, NULL, shard, session),
                     .g = p,
                     .histogram = NEW_ARRAY(a, Histogram, n),
                     .buffer = NEW_ARRAY(a, float, largest)};
    TRY(session_run(session, feed_shards(k.feed), calibrate_shard, collect_shard, &k));
    if (k.skipped)
        diag_warning(c->diag, "%lld activations are not finite: ranges leave them out",
                     (long long)k.skipped);
    for (int i = 0; i < n; i++) range[i] = histogram_range(&k.histogram[i], levels);
    return 0;
}

int calibrate(Range *range, Context *c, const Graph *g, int n, Value *const *v, int64_t limit,
              int levels)
{
    if (n == 0) return 0;
    if (!c->data || c->data->count == 0) return diag_error(c->diag, "no samples to calibrate on");
    Arena *a = arena_new();
    int status = calibrate_in(a, range, c, g, n, v, limit, levels);
    arena_free(a);
    return status;
}
