/* Streaming histograms and the clipping range that suits them.
 *
 * For a grid of step d = (hi - lo) / levels on [lo, hi], a value inside costs d^2 / 12 and one
 * outside the square of its distance to the range. Both ends are moved inwards alternately over
 * fractions of the full range, and the cheapest pair wins. */
#include <math.h>

#include "passes/calibrate.h"

enum { HALF = HISTOGRAM_BINS / 2, FRACTIONS = 48 };

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
    frexpf(magnitude, &e); /* magnitude < 2^e; HALF bins of 2^(e - 10) reach it */
    e -= 10;
    if (!h->used) h->exponent = e;
    while (h->exponent < e) merge_pairs(h);
    h->used = true;
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
    for (int64_t i = 0; i < n; i++)
        if (isfinite(x[i])) h->bin[HALF + (int)floorf(x[i] * inverse)]++;
    return skipped;
}

static double cost(const Histogram *h, double lo, double hi, int levels)
{
    double width = ldexp(1, h->exponent), step = (hi - lo) / levels, total = 0;
    for (int k = 0; k < HISTOGRAM_BINS; k++) {
        if (!h->bin[k]) continue;
        double x = (k + 0.5 - HALF) * width;
        double out = x < lo ? lo - x : x > hi ? x - hi : 0;
        total += (double)h->bin[k] * (out > 0 ? out * out : step * step / 12);
    }
    return total;
}

/* Moves one end inwards as long as that pays. */
static double best_end(const Histogram *h, double end, double other, int levels)
{
    double best = end,
           least = cost(h, end < other ? end : other, end < other ? other : end, levels);
    for (int f = 1; f < FRACTIONS && end != 0; f++) {
        double e = end * (1 - (double)f / (FRACTIONS + 16));
        double c = cost(h, e < other ? e : other, e < other ? other : e, levels);
        if (c < least) {
            least = c;
            best = e;
        }
    }
    return best;
}

Range histogram_range(const Histogram *h, int levels)
{
    double lo = h->lo, hi = h->hi;
    if (!h->used) return (Range){0, 0};
    for (int round = 0; round < 2; round++) {
        hi = best_end(h, h->hi, lo, levels);
        lo = best_end(h, h->lo, hi, levels);
    }
    return (Range){(float)lo, (float)hi};
}
