/* Grids: where values are rounded to, and how they are found from data. */
#ifndef EHAP_PASSES_QUANT_CALIBRATE_H
#define EHAP_PASSES_QUANT_CALIBRATE_H

#include "passes/passes.h"

/* x is rounded to scale * (q - zero), q an integer in [qmin, qmax] known from elsewhere. */
typedef struct Grid {
    float scale, zero;
} Grid;

/* What was seen of a tensor. Both limits are finite; lo <= 0 <= hi, for zero must be on every
 * grid (padding). */
typedef struct Range {
    float lo, hi;
} Range;

/* The integers that a target's activations have. */
typedef struct GridKind {
    int qmin, qmax;
    bool symmetric;    /* the zero point is 0 */
    float least_scale; /* no scale is below this */
} GridKind;

/* The grid that covers a range; zero gets an integer of its own. Ranges narrower than 1e-20 are
 * widened. */
Grid grid_of_range(Range r, GridKind k);
/* The same, but the grid does not pass `top` (0: it may): *most is the largest scale with which it
 * does not, 0 where there is no bound. */
Grid grid_below(Range r, GridKind k, float top, float *most);

/* Symmetric scales max|w| / qmax of the slices of w along `axis` (< 0: one for all), into
 * scale[0..dim). No scale is below 1e-4 of the largest, so that biases, which are integers at the
 * scale of the products, fit into 32 bits. */
void grid_weight_scales(float *scale, const float *w, const Type *t, int axis, int qmax);

/* How a range is chosen from what was seen of a tensor. */
typedef enum Calibrator {
    CALIBRATE_MSE,            /* least squared error of rounding and clipping */
    CALIBRATE_ENTROPY,        /* least Kullback-Leibler divergence of the rounded distribution */
    CALIBRATE_PERCENTILE,     /* all but 1e-4 of the values */
    CALIBRATE_MIN_MAX,        /* all */
    CALIBRATE_MOVING_AVERAGE, /* exponential average of the shards' smallest and largest */
    CALIBRATORS
} Calibrator;
/* "mse", …; NULL gives the default. CALIBRATORS if there is no such name. */
Calibrator calibrator_find(const char *name);

/* The shares of the past in a moving average of ranges, per batch. */
#define RANGE_MOMENTUM 0.95f

/* Values that share a range: values v[i] with group[i] == k make range[k]. */
typedef struct RangeGroups {
    int n, groups;
    Value **v; /* float values of the graph, not its constants */
    int *group;
} RangeGroups;

/* Ranges of values of g over at most `limit` samples of c->data, in one pass whose memory does not
 * depend on the number of samples: a histogram per group takes them in shard by shard. */
int calibrate(Range *range, Context *c, const Graph *g, const RangeGroups *groups, int64_t limit,
              GridKind kind);

/* ---- the histogram ------------------------------------------------------------------- */

enum { HISTOGRAM_BINS = 8192 };

/* Counts in bins of width 2^exponent, centred: bin k holds [(k - BINS/2) w, (k + 1 - BINS/2) w).
 * When a value does not fit, bins merge in pairs; the counts come out the same in whatever order
 * the values came in. */
typedef struct Histogram {
    uint64_t bin[HISTOGRAM_BINS];
    int exponent;
    bool used;
    float lo, hi; /* smallest and largest value, and 0 */
} Histogram;

/* Values that are not finite are skipped and counted in the result. */
int64_t histogram_add(Histogram *h, const float *x, int64_t n);
/* Adds what `other` has counted. */
void histogram_merge(Histogram *h, const Histogram *other);
/* The part of [lo, hi] that suits the grid best; symmetric kinds get a symmetric range. */
Range histogram_range(const Histogram *h, Calibrator by, GridKind kind);

#endif
