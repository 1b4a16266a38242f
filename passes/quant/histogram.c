/* Streaming histograms and the range that suits them.
 *
 * For a grid of step d = (hi - lo) / levels on [lo, hi]:
 *   mse      a value inside costs d^2 / 12, one outside the square of its distance to the range
 *   entropy  sum p log(p / q): p the distribution clipped into the range, q what is left of the
 *            unclipped part when every step's share is spread evenly over its non-empty bins
 *            (Migacz, GTC 2017, with two ends)
 * Both ends are moved inwards alternately over fractions of the full range, and the cheapest pair
 * wins; a symmetric grid has one end to move. */
#include <math.h>

#include "ir/simd.h"
#include "passes/quant/calibrate.h"

enum {
    HALF = HISTOGRAM_BINS / 2,
    LOG_HALF = 12,
    LEAST_EXPONENT = -126, /* 1 / 2^exponent is a float */
    FRACTIONS = 48,
    BLOCK = 256
};

static void merge_pairs(Histogram *h)
{
    uint64_t wide[HISTOGRAM_BINS] = {0};
    for (int k = 0; k < HISTOGRAM_BINS; k++) {
        int offset = k - HALF;
        wide[HALF + (offset >= 0 ? offset / 2 : (offset - 1) / 2)] += h->bin[k];
    }
    for (int k = 0; k < HISTOGRAM_BINS; k++) h->bin[k] = wide[k];
    h->exponent++;
}

static void widen(Histogram *h, float magnitude)
{
    int e;
    frexpf(magnitude, &e); /* magnitude < 2^e; HALF bins of 2^(e - LOG_HALF) reach it */
    e = e - LOG_HALF < LEAST_EXPONENT ? LEAST_EXPONENT : e - LOG_HALF;
    if (!h->used) h->exponent = e;
    while (h->exponent < e) merge_pairs(h);
    h->used = true;
}

/* bin[i] = HALF + floor(x[i] inverse); of what is not finite that of 0. */
CLONES static void find_bins(int *restrict bin, const float *restrict x, float inverse, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float v = isfinite(x[i]) ? x[i] * inverse : 0;
        const int towards_zero = (int)v;
        bin[i] = HALF + towards_zero - ((float)towards_zero > v);
    }
}

int64_t histogram_add(Histogram *h, const float *x, int64_t n)
{
    int64_t skipped = 0;
    float lo = h->lo, hi = h->hi;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) {
            skipped++;
            continue;
        }
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    float magnitude = -lo > hi ? -lo : hi;
    h->lo = lo;
    h->hi = hi;
    if (magnitude > 0) widen(h, magnitude);
    float inverse = h->used ? ldexpf(1, -h->exponent) : 0;
    for (int64_t i = 0; i < n; i += BLOCK) {
        const int64_t block = n - i < BLOCK ? n - i : BLOCK;
        int bin[BLOCK];
        find_bins(bin, x + i, inverse, block);
        for (int64_t k = 0; k < block; k++) h->bin[bin[k]]++;
    }
    h->bin[HALF] -= (uint64_t)skipped;
    return skipped;
}

void histogram_merge(Histogram *h, const Histogram *other)
{
    h->lo = other->lo < h->lo ? other->lo : h->lo;
    h->hi = other->hi > h->hi ? other->hi : h->hi;
    if (other->used && !h->used) h->exponent = other->exponent;
    while (other->used && h->exponent < other->exponent) merge_pairs(h);
    h->used |= other->used;
    /* 2^scale bins of `other` make one; what is not used has only zeros in its middle bin. */
    const int scale = other->used ? h->exponent - other->exponent : 0;
    for (int k = -HALF; k < HALF; k++)
        h->bin[HALF + (k >> (scale < 31 ? scale : 31))] += other->bin[HALF + k];
}

static double middle(const Histogram *h, int k) { return ldexp(k + 0.5 - HALF, h->exponent); }

typedef double Cost(const Histogram *h, double lo, double hi, int levels);

static double squared_error(const Histogram *h, double lo, double hi, int levels)
{
    double step = (hi - lo) / levels, total = 0;
    for (int k = 0; k < HISTOGRAM_BINS; k++) {
        if (!h->bin[k]) continue;
        double x = middle(h, k), out = x < lo ? lo - x : x > hi ? x - hi : 0;
        total += (double)h->bin[k] * (out > 0 ? out * out : step * step / 12);
    }
    return total;
}

/* Bins first … last - 1 round to one integer: their part of sum p log(p / q). `below` and `above`
 * are the clipped counts that p adds to its outermost bins. */
static double step_divergence(const Histogram *h, int first, int last, const uint64_t *p_of,
                              double inside)
{
    double count = 0, bins = 0, sum = 0;
    for (int k = first; k < last; k++) {
        count += (double)h->bin[k];
        bins += p_of[k] > 0;
    }
    double q = bins > 0 ? fmax(count, 1e-3) / bins / inside : 0;
    for (int k = first; k < last; k++)
        if (p_of[k]) sum += (double)p_of[k] * log((double)p_of[k] / q);
    return sum;
}

static double divergence(const Histogram *h, double lo, double hi, int levels)
{
    uint64_t p[HISTOGRAM_BINS] = {0}, total = 0, inside = 0;
    double step = (hi - lo) / levels;
    int first = HISTOGRAM_BINS, last = 0;
    for (int k = 0; k < HISTOGRAM_BINS; k++) {
        double x = middle(h, k);
        if (x < lo || x > hi) continue;
        first = k < first ? k : first;
        last = k + 1;
        inside += p[k] = h->bin[k];
    }
    if (!inside || step <= 0) return INFINITY;
    for (int k = 0; k < HISTOGRAM_BINS; k++) {
        total += h->bin[k];
        if (k < first) p[first] += h->bin[k];
        if (k >= last) p[last - 1] += h->bin[k];
    }
    double sum = 0;
    for (int k = first, from = first; k < last; k++) {
        bool ends = k + 1 == last || floor((middle(h, k + 1) - lo) / step + 0.5) >
                                         floor((middle(h, k) - lo) / step + 0.5);
        if (!ends) continue;
        sum += step_divergence(h, from, k + 1, p, (double)inside);
        from = k + 1;
    }
    return sum / (double)total - log((double)total);
}

static double of_ends(const Histogram *h, Cost *cost, double a, double b, int levels)
{
    return cost(h, a < b ? a : b, a < b ? b : a, levels);
}

/* Moves one end inwards as long as that pays; the other stays, or mirrors it. */
static double best_end(const Histogram *h, Cost *cost, double end, double other, int levels,
                       bool mirrored)
{
    double best = end, least = of_ends(h, cost, end, mirrored ? -end : other, levels);
    for (int f = 1; f < FRACTIONS && end != 0; f++) {
        double e = end * (1 - (double)f / (FRACTIONS + 16));
        double c = of_ends(h, cost, e, mirrored ? -e : other, levels);
        if (c < least) {
            least = c;
            best = e;
        }
    }
    return best;
}

static Range cheapest(const Histogram *h, Cost *cost, GridKind kind)
{
    double lo = h->lo, hi = h->hi;
    int levels = kind.qmax - kind.qmin;
    if (kind.symmetric) {
        hi = best_end(h, cost, fmax(hi, -lo), 0, levels, true);
        return (Range){(float)-hi, (float)hi};
    }
    for (int round = 0; round < 2; round++) {
        hi = best_end(h, cost, h->hi, lo, levels, false);
        lo = best_end(h, cost, h->lo, hi, levels, false);
    }
    return (Range){(float)lo, (float)hi};
}

/* The ends that leave out half of `share` each, as far as they are on their own side of zero. */
static Range percentile(const Histogram *h, double share)
{
    double total = 0, seen = 0;
    int lo = 0, hi = HISTOGRAM_BINS - 1;
    for (int k = 0; k < HISTOGRAM_BINS; k++) total += (double)h->bin[k];
    for (; lo < HALF && (seen += (double)h->bin[lo]) <= total * share / 2; lo++) {
    }
    for (seen = 0; hi >= HALF && (seen += (double)h->bin[hi]) <= total * share / 2; hi--) {
    }
    double width = ldexp(1, h->exponent);
    return (Range){fmaxf(h->lo, (float)((lo - HALF) * width)),
                   fminf(h->hi, (float)((hi + 1 - HALF) * width))};
}

Range histogram_range(const Histogram *h, Calibrator by, GridKind kind)
{
    if (!h->used) return (Range){0, 0};
    switch (by) {
    case CALIBRATE_MSE:
        return cheapest(h, squared_error, kind);
    case CALIBRATE_ENTROPY:
        return cheapest(h, divergence, kind);
    case CALIBRATE_PERCENTILE:
        return percentile(h, 1e-4);
    default:
        return (Range){h->lo, h->hi};
    }
}
