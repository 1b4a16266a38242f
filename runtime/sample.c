/* Coordinates to pixels: of a grid, of a region, of a shifted tap. */
#include "runtime/sample.h"

#include <math.h>
#include <string.h>

#include "runtime/element.h"

/* ---- GridSample ---------------------------------------------------------------------- */

GridMode grid_mode(const Node *n)
{
    const char *mode = node_str(n, "mode", "linear"), *pad = node_str(n, "padding_mode", "zeros");
    return (GridMode){.align = node_int(n, "align_corners", 0) != 0,
                      .nearest = strcmp(mode, "nearest") == 0,
                      .cubic = strstr(mode, "cubic") != NULL,
                      .padding = *pad == 'z'   ? PAD_ZEROS
                                 : *pad == 'b' ? PAD_BORDER
                                               : PAD_REFLECT};
}

/* x folded back at lo and hi until it lies between them. */
static double reflected(double x, double lo, double hi)
{
    const double range = hi - lo;
    if (!(range > 0) || !isfinite(x)) return lo;
    const double away = x < lo ? lo - x : x > hi ? x - hi : 0;
    if (away == 0) return x;
    const double turns = floor(away / range), rest = away - turns * range;
    const bool odd = fmod(turns, 2) != 0;
    return (x < lo) != odd ? lo + rest : hi - rest;
}

static double padded(const GridMode *m, double x, int64_t size)
{
    const double lo = m->align ? 0 : -0.5, hi = m->align ? (double)size - 1 : (double)size - 0.5;
    if (m->padding == PAD_BORDER) return fmin(fmax(x, 0), (double)size - 1);
    return m->padding == PAD_REFLECT ? reflected(x, lo, hi) : x;
}

/* Up to four elements of an axis with their weights; at < 0: outside, counts as zero. */
typedef struct Taps {
    int n;
    int64_t at[4];
    double weight[4];
} Taps;

static double keys_cubic(double x)
{
    const double a = -0.75;
    x = fabs(x);
    return x < 1   ? ((a + 2) * x - (a + 3)) * x * x + 1
           : x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
                   : 0;
}

/* Around the normalized coordinate g in [-1, 1]. */
static Taps axis_taps(const GridMode *m, double g, int64_t size)
{
    const double n = (double)size, lo = m->align ? 0 : -0.5, hi = lo + (m->align ? n - 1 : n);
    double x = m->align ? (g + 1) / 2 * (n - 1) : ((g + 1) * n - 1) / 2;
    if (m->nearest) x = nearbyint(x);
    if ((x < lo || x > hi) && !m->cubic) x = padded(m, x, size);
    const double first = m->nearest ? x : floor(x) - (m->cubic ? 1 : 0);
    Taps t = {.n = m->nearest ? 1 : m->cubic ? 4 : 2};
    for (int k = 0; k < t.n; k++) {
        const double at = padded(m, first + k, size);
        t.at[k] = at >= 0 && at <= n - 1 ? (int64_t)at : -1;
        t.weight[k] = m->nearest ? 1
                      : m->cubic ? keys_cubic(first + k - x)
                                 : 1 - fabs(first + k - x);
    }
    return t;
}

/* The pixels of the axes so far times those of one more. */
static int times_taps(Corner *c, int n, const Taps *t, int64_t stride)
{
    Corner old[MAX_CORNERS];
    int count = 0;
    memcpy(old, c, (size_t)n * sizeof *old);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < t->n; k++)
            if (t->at[k] >= 0)
                c[count++] = (Corner){old[i].at + t->at[k] * stride, old[i].weight * t->weight[k]};
    return count;
}

/* The coordinates of a place are listed innermost first. */
int grid_corners(const GridMode *m, const Tensor *image, const Tensor *grid, const int64_t *at,
                 Corner *c)
{
    const int r = image->rank - 2;
    int64_t offset = at[0] * grid->stride[0];
    int n = 1;
    for (int a = 0; a < r; a++) offset += at[a + 2] * grid->stride[a + 1];
    c[0] = (Corner){0, 1};
    for (int a = 0; a < r; a++) {
        const double g = element_load(grid, offset + (r - 1 - a) * grid->stride[r + 1]);
        const Taps t = axis_taps(m, g, image->dim[a + 2]);
        n = times_taps(c, n, &t, image->stride[a + 2]);
    }
    return n;
}

int pixel_corners(const Tensor *image, double h, double w, Corner c[4])
{
    const double top = floor(h), left = floor(w);
    int n = 0;
    for (int k = 0; k < 4; k++) {
        const double row = top + k / 2, col = left + k % 2;
        if (!(row >= 0 && row < (double)image->dim[2] && col >= 0 && col < (double)image->dim[3]))
            continue;
        c[n++] = (Corner){(int64_t)row * image->stride[2] + (int64_t)col * image->stride[3],
                          (1 - fabs(h - row)) * (1 - fabs(w - col))};
    }
    return n;
}

/* ---- RoiAlign ------------------------------------------------------------------------ */

/* A coordinate of a sample: its two neighbours, the upper one's weight. False: too far outside. */
static bool neighbours(double x, int64_t size, int64_t at[2], double *high)
{
    if (!(x >= -1 && x <= (double)size) || size == 0) return false;
    x = fmax(x, 0);
    at[0] = x >= (double)size - 1 ? size - 1 : (int64_t)x;
    at[1] = at[0] + 1 < size ? at[0] + 1 : at[0];
    *high = at[1] > at[0] ? x - (double)at[0] : 0;
    return true;
}

static RoiAxis roi_axis(const Node *n, double from, double to, int64_t bins)
{
    const bool half =
        strcmp(node_str(n, "coordinate_transformation_mode", "half_pixel"), "half_pixel") == 0;
    const double scale = (double)node_float(n, "spatial_scale", 1), shift = half ? 0.5 : 0;
    const int64_t ratio = node_int(n, "sampling_ratio", 0);
    double length = (to - from) * scale;
    if (!half) length = fmax(length, 1);
    RoiAxis a = {from * scale - shift, length / (double)bins, ratio};
    if (ratio == 0) a.samples = a.bin > 0 ? (int64_t)fmin(ceil(a.bin), 1 << 20) : 0;
    return a;
}

static double roi_place(const RoiAxis *a, int64_t bin, int64_t k)
{
    return a->start + ((double)bin + ((double)k + 0.5) / (double)a->samples) * a->bin;
}

Roi roi_of(const Node *n, const Tensor *in, int64_t r, const int64_t *bins, int64_t images)
{
    const int64_t at = r * in[1].stride[0], step = in[1].stride[1];
    const double x0 = element_load(&in[1], at), y0 = element_load(&in[1], at + step),
                 x1 = element_load(&in[1], at + 2 * step), y1 = element_load(&in[1], at + 3 * step);
    Roi roi = {roi_axis(n, y0, y1, bins[0]), roi_axis(n, x0, x1, bins[1]),
               element_load_int(&in[2], r * in[2].stride[0])};
    if (roi.image < 0 || roi.image >= images) roi.image = -1;
    return roi;
}

int roi_corners(const Roi *r, const Tensor *image, int64_t bin_h, int64_t bin_w, int64_t k,
                Corner c[4])
{
    int64_t row[2], col[2];
    double up, right;
    const double h = roi_place(&r->h, bin_h, k / r->w.samples);
    const double w = roi_place(&r->w, bin_w, k % r->w.samples);
    if (!neighbours(h, image->dim[2], row, &up) || !neighbours(w, image->dim[3], col, &right))
        return 0;
    for (int i = 0; i < 4; i++)
        c[i] = (Corner){row[i / 2] * image->stride[2] + col[i % 2] * image->stride[3],
                        (i / 2 ? up : 1 - up) * (i % 2 ? right : 1 - right)};
    return 4;
}
