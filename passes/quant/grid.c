/* Grids of integers that cover ranges and weights. */
#include <math.h>

#include "ir/simd.h"

#include "passes/quant/calibrate.h"

Grid grid_of_range(Range r, GridKind k)
{
    double lo = fmin(r.lo, 0), hi = fmax(r.hi, 0), least = (double)k.least_scale;
    if (hi - lo < 1e-20) hi = lo + 1e-6; /* nothing but zeros: any grid does */
    if (k.symmetric) {
        double largest = fmax(hi, -lo * k.qmax / -k.qmin);
        return (Grid){(float)fmax(largest / k.qmax, least), 0};
    }
    double scale = fmax((hi - lo) / (k.qmax - k.qmin), least), zero = round(k.qmin - lo / scale);
    /* Rounding the zero moved one end inwards by up to half a step: let the scale make up. */
    if (zero > k.qmin && zero < k.qmax)
        scale = fmax(fmax(lo / (k.qmin - zero), hi / (k.qmax - zero)), least);
    return (Grid){(float)scale, (float)zero};
}

Grid grid_below(Range r, GridKind k, float top, float *most)
{
    Grid grid = grid_of_range(r, k);
    *most = top > 0 && grid.zero < (float)k.qmax ? top / ((float)k.qmax - grid.zero) : 0;
    if (*most > 0) grid.scale = fminf(grid.scale, *most);
    return grid;
}

/* Of what is a number; in as many lanes as a vector has. */
CLONES static float largest_magnitude(const float *x, int64_t n)
{
    enum { LANES = 16 };
    float most[LANES] = {0}, all = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            most[k] = fabsf(x[i + k]) > most[k] ? fabsf(x[i + k]) : most[k];
    for (; i < n; i++) all = fmaxf(all, fabsf(x[i]));
    for (int k = 0; k < LANES; k++) all = fmaxf(all, most[k]);
    return all;
}

void grid_weight_scales(float *scale, const float *w, const Type *t, int axis, int qmax)
{
    int64_t n = axis < 0 ? 1 : t->dim[axis], inner = 1, total = type_count(t);
    for (int i = axis < 0 ? 0 : axis + 1; i < t->rank; i++) inner *= t->dim[i];
    float largest = 0;
    for (int64_t c = 0; c < n; c++) scale[c] = 0;
    for (int64_t i = 0; i * inner < total; i++)
        scale[i % n] = fmaxf(scale[i % n], largest_magnitude(w + i * inner, inner));
    for (int64_t c = 0; c < n; c++) largest = fmaxf(largest, scale[c]);
    if (largest <= 0) largest = 1;
    for (int64_t c = 0; c < n; c++) scale[c] = fmaxf(scale[c], 1e-4f * largest) / (float)qmax;
}
