/* Ranges of activations from data: a histogram per value takes them in shard by shard. */
#include "passes/calibrate.h"

#include "passes/observe.h"

typedef struct Calibration {
    Histogram *histogram; /* per value */
    int64_t skipped;
} Calibration;

static void add_values(void *ctx, int i, const Type *type, const float *x)
{
    Calibration *k = ctx;
    k->skipped += histogram_add(&k->histogram[i], x, type_count(type));
}

int calibrate(Range *range, Context *c, const Graph *g, int n, Value *const *v, int64_t limit,
              int levels)
{
    Arena *a = arena_new();
    Calibration k = {.histogram = NEW_ARRAY(a, Histogram, n)};
    size_t bytes = 0;
    int status = observe(g, n, v, c->data, limit, &c->opt, c->diag, add_values, &k, &bytes);
    if (bytes > c->peak_bytes) c->peak_bytes = bytes;
    if (k.skipped)
        diag_warning(c->diag, "%lld activations are not finite: ranges leave them out",
                     (long long)k.skipped);
    for (int i = 0; i < n; i++) range[i] = histogram_range(&k.histogram[i], levels);
    arena_free(a);
    return status;
}
