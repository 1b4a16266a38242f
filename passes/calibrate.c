/* Ranges of activations from data: a program whose outputs are the values in question runs over
 * the samples, and a histogram per value takes in its outputs shard by shard. */
#include "passes/calibrate.h"

#include "passes/batches.h"

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
