/* Grids: where values are rounded to, and how they are found from data. */
#ifndef EHAP_PASSES_CALIBRATE_H
#define EHAP_PASSES_CALIBRATE_H

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

/* The grid that covers a range; zero gets an integer of its own. Ranges narrower than 1e-6 are
 * widened. */
Grid grid_of_range(Range r, int qmin, int qmax);

/* Symmetric scales max|w| / qmax of the slices of w along `axis` (< 0: one for all), into
 * scale[0..dim). No scale is below 1e-4 of the largest, so that biases, which are integers at the
 * scale of the products, fit into 32 bits. */
void grid_weight_scales(float *scale, const float *w, const Type *t, int axis, int qmax);

/* Ranges of n float values of g (not its constants) over at most `limit` samples of c->data, in one
 * pass whose memory does not depend on the number of samples. A histogram of 2048 bins per value
 * decides how far to clip: the least squared error of rounding to `levels` steps. */
int calibrate(Range *range, Context *c, const Graph *g, int n, Value *const *v, int64_t limit,
              int levels);

/* ---- the histogram ------------------------------------------------------------------- */

enum { HISTOGRAM_BINS = 2048 };

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
/* The part of [lo, hi] whose grid of `levels` steps rounds with the least squared error. */
Range histogram_range(const Histogram *h, int levels);

#endif
