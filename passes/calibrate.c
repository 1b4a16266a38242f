/* Ranges of activations from data, shard by shard. */
#include "passes/calibrate.h"

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
    Range *shard;         /* per group, of the shard in hand */
    bool *started;
    int64_t skipped;
} Calibration;

static void follow(Calibration *k, int g)
{
    Range *a = &k->average[g], *s = &k->shard[g];
    float m = k->started[g] ? RANGE_MOMENTUM : 0;
    a->lo = m * a->lo + (1 - m) * s->lo;
    a->hi = m * a->hi + (1 - m) * s->hi;
    *s = (Range){0, 0};
    k->started[g] = true;
}

static void add_values(void *ctx, int i, const Type *type, const float *x)
{
    Calibration *k = ctx;
    int g = k->groups->group[i];
    int64_t n = type_count(type);
    k->skipped += histogram_add(&k->histogram[g], x, n);
    Range *s = &k->shard[g];
    for (int64_t j = 0; j < n; j++) {
        if (!isfinite(x[j])) continue;
        s->lo = x[j] < s->lo ? x[j] : s->lo;
        s->hi = x[j] > s->hi ? x[j] : s->hi;
    }
    bool last = i == k->groups->n - 1; /* of the shard: values come in order */
    for (int j = 0; last && j < k->groups->groups; j++) follow(k, j);
}

int calibrate(Range *range, Context *c, const Graph *g, const RangeGroups *groups, int64_t limit,
              GridKind kind)
{
    Calibrator by = calibrator_find(c->opt.calibration);
    if (by == CALIBRATORS)
        return diag_error(c->diag, "there is no calibration '%s'", c->opt.calibration);
    Arena *a = arena_new();
    int n = groups->groups;
    Calibration k = {.groups = groups,
                     .histogram = NEW_ARRAY(a, Histogram, n),
                     .average = NEW_ARRAY(a, Range, n),
                     .shard = NEW_ARRAY(a, Range, n),
                     .started = NEW_ARRAY(a, bool, n)};
    size_t bytes = 0;
    int status =
        observe(g, groups->n, groups->v, c->data, limit, &c->opt, c->diag, add_values, &k, &bytes);
    if (bytes > c->peak_bytes) c->peak_bytes = bytes;
    if (k.skipped)
        diag_warning(c->diag, "%lld activations are not finite: ranges leave them out",
                     (long long)k.skipped);
    for (int i = 0; i < n; i++)
        range[i] = by == CALIBRATE_MOVING_AVERAGE ? k.average[i]
                                                  : histogram_range(&k.histogram[i], by, kind);
    arena_free(a);
    return status;
}
