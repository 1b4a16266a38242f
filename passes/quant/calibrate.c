/* Ranges of activations from data, shard by shard. */
#include "passes/quant/calibrate.h"

#include <math.h>
#include <string.h>

#include "passes/observe.h"

static const char *const names[CALIBRATORS] = {"mse", "entropy", "percentile", "min-max",
                                               "moving-average"};

Calibrator calibrator_find(const char *name)
{
    int k = 0;
    while (name && k < CALIBRATORS && strcmp(names[k], name) != 0) k++;
    return (Calibrator)k;
}

typedef struct Calibration {
    const RangeGroups *groups;
    Histogram *histogram; /* per group */
    Range *average;       /* per group, of the shards' ends */
    bool started;
    int64_t skipped;
} Calibration;

/* What a shard adds. */
typedef struct ShardRanges {
    int64_t skipped;
    Histogram histogram[]; /* per group */
} ShardRanges;

static void see_values(const void *ctx, int i, const Type *type, const float *x,
                       const float *before, void *part)
{
    const Calibration *k = ctx;
    ShardRanges *s = part;
    (void)before;
    s->skipped += histogram_add(&s->histogram[k->groups->group[i]], x, type_count(type));
}

static void add_ranges(void *ctx, const void *part)
{
    Calibration *k = ctx;
    const ShardRanges *s = part;
    const float m = k->started ? RANGE_MOMENTUM : 0;
    for (int g = 0; g < k->groups->groups; g++) {
        const Histogram *h = &s->histogram[g];
        Range *a = &k->average[g];
        a->lo = m * a->lo + (1 - m) * h->lo;
        a->hi = m * a->hi + (1 - m) * h->hi;
        histogram_merge(&k->histogram[g], h);
    }
    k->skipped += s->skipped;
    k->started = true;
}

int calibrate(Range *range, Context *c, const Graph *g, const RangeGroups *groups, int64_t limit,
              GridKind kind)
{
    const Calibrator how = calibrator_find(c->opt.calibration);
    if (how == CALIBRATORS)
        return diag_error(c->diag, "there is no calibration '%s'", c->opt.calibration);
    Arena *a = arena_new();
    int n = groups->groups;
    Calibration k = {.groups = groups,
                     .histogram = NEW_ARRAY(a, Histogram, n),
                     .average = NEW_ARRAY(a, Range, n)};
    const Observer by = {see_values, add_ranges, &k,
                         sizeof(ShardRanges) + (size_t)n * sizeof(Histogram)};
    int status =
        observe(g, groups->n, groups->v, c->data, limit, &c->opt, c->diag, &by, &c->peak_bytes);
    if (k.skipped)
        diag_warning(c->diag, "%lld activations are not finite: ranges leave them out",
                     (long long)k.skipped);
    const int threads = options_threads(&c->opt);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int i = 0; i < n; i++)
        range[i] = how == CALIBRATE_MOVING_AVERAGE ? k.average[i]
                                                   : histogram_range(&k.histogram[i], how, kind);
    arena_free(a);
    return status;
}
