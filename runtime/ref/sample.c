/* GridSample and RoiAlign, and their transposes. */
#include <math.h>
#include <string.h>

#include "runtime/ref/ref.h"

/* ---- GridSample ---------------------------------------------------------------------- */

typedef enum Padding { PAD_ZEROS, PAD_BORDER, PAD_REFLECT } Padding;

typedef struct GridMode {
    bool align, nearest, cubic;
    Padding padding;
} GridMode;

static GridMode grid_mode(const Node *n)
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

/* Around the normalised coordinate g in [-1, 1]. */
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

/* The taps of all axes at a place of the grid, whose coordinates are listed innermost first. */
static void place_taps(const GridMode *m, const Tensor *x, const Tensor *grid, const Index *at,
                       Taps *taps)
{
    int64_t offset = at->i[0] * grid->stride[0];
    const int r = x->rank - 2;
    for (int a = 0; a < r; a++) offset += at->i[a + 2] * grid->stride[a + 1];
    for (int a = 0; a < r; a++) {
        const double g = load(grid, offset + (r - 1 - a) * grid->stride[r + 1]);
        taps[a] = axis_taps(m, g, x->dim[a + 2]);
    }
}

static double pick(const Tensor *x, const Taps *taps, int axis, int64_t offset)
{
    if (axis == x->rank) return load(x, offset);
    const Taps *t = &taps[axis - 2];
    double sum = 0;
    for (int k = 0; k < t->n; k++)
        if (t->at[k] >= 0)
            sum += t->weight[k] * pick(x, taps, axis + 1, offset + t->at[k] * x->stride[axis]);
    return sum;
}

REF_KERNEL(grid_sample)
{
    UNUSED_STATE;
    const GridMode m = grid_mode(n);
    Taps taps[MAX_RANK];
    FOR_EACH(at, out)
    {
        place_taps(&m, &in[0], &in[1], &at, taps);
        const int64_t from = at.i[0] * in->stride[0] + at.i[1] * in->stride[1];
        element_store(out, ref_index(out, &at), pick(in, taps, 2, from));
    }
}

/* Adds v to what pick() would weigh; sum is row-major in the shape of x. */
static void put(double *sum, const Tensor *x, const Taps *taps, int axis, int64_t offset, double v)
{
    if (axis == x->rank) {
        sum[offset] += v;
        return;
    }
    const Taps *t = &taps[axis - 2];
    for (int k = 0; k < t->n; k++)
        if (t->at[k] >= 0)
            put(sum, x, taps, axis + 1, offset * x->dim[axis] + t->at[k], v * t->weight[k]);
}

int ref_grid_sample_grad_prepare(Prepare *p)
{
    p->scratch = (size_t)tensor_count(p->out) * sizeof(double);
    return 0;
}

/* (dy, grid) -> dx */
REF_KERNEL(grid_sample_grad)
{
    UNUSED_STATE;
    const GridMode m = grid_mode(n);
    double *sum = scratch;
    Taps taps[MAX_RANK];
    for (int64_t k = 0; k < tensor_count(out); k++) sum[k] = 0;
    FOR_EACH(at, in)
    {
        place_taps(&m, out, &in[1], &at, taps);
        put(sum, out, taps, 2, at.i[0] * out->dim[1] + at.i[1], load(in, ref_index(in, &at)));
    }
    FOR_EACH(at, out) element_store(out, ref_index(out, &at), *sum++);
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

/* The four neighbours of a sample in an image of h x w: where they are in it, row-major, and what
 * they weigh. False: it lies too far outside. */
static bool roi_corners(int64_t height, int64_t width, double h, double w, int64_t at[4],
                        double weight[4])
{
    int64_t row[2], col[2];
    double up, right;
    if (!neighbours(h, height, row, &up) || !neighbours(w, width, col, &right)) return false;
    for (int k = 0; k < 4; k++) {
        at[k] = row[k / 2] * width + col[k % 2];
        weight[k] = (k / 2 ? up : 1 - up) * (k % 2 ? right : 1 - right);
    }
    return true;
}

/* The four weighed neighbours: their sum, or their largest. */
static double roi_sample(const Tensor *x, int64_t offset, double h, double w, bool max)
{
    int64_t at[4], width = x->dim[3];
    double weight[4], sum = 0, most = -INFINITY;
    if (!roi_corners(x->dim[2], width, h, w, at, weight)) return 0;
    for (int k = 0; k < 4; k++) {
        const int64_t place = at[k] / width * x->stride[2] + at[k] % width * x->stride[3];
        const double v = weight[k] * load(x, offset + place);
        sum += v;
        most = fmax(most, v);
    }
    return max ? most : sum;
}

/* One axis of a region, cut into `bins` of `samples` each. */
typedef struct RoiAxis {
    double start, bin;
    int64_t samples;
} RoiAxis;

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

/* Both axes of region r, and its image. */
typedef struct Roi {
    RoiAxis h, w;
    int64_t image;
} Roi;

static Roi roi_of(const Node *n, const Tensor *in, int64_t r, const int64_t *bins)
{
    const int64_t at = r * in[1].stride[0], step = in[1].stride[1];
    return (Roi){roi_axis(n, load(&in[1], at + step), load(&in[1], at + 3 * step), bins[0]),
                 roi_axis(n, load(&in[1], at), load(&in[1], at + 2 * step), bins[1]),
                 element_load_int(&in[2], r * in[2].stride[0])};
}

REF_KERNEL(roi_align)
{
    UNUSED_STATE;
    const bool max = strcmp(node_str(n, "mode", "avg"), "max") == 0;
    FOR_EACH(at, out)
    {
        const Roi roi = roi_of(n, in, at.i[0], out->dim + 2);
        const RoiAxis h = roi.h, w = roi.w;
        const int64_t image = roi.image;
        const int64_t from = image * in->stride[0] + at.i[1] * in->stride[1];
        double sum = 0, most = -INFINITY, count = (double)(h.samples * w.samples);
        const bool exists = image >= 0 && image < in->dim[0];
        for (int64_t i = 0; i < h.samples && exists; i++)
            for (int64_t j = 0; j < w.samples; j++) {
                const double v =
                    roi_sample(in, from, roi_place(&h, at.i[2], i), roi_place(&w, at.i[3], j), max);
                sum += v;
                most = fmax(most, v);
            }
        if (count == 0 || !exists) most = 0;
        element_store(out, ref_index(out, &at), max ? most : sum / fmax(count, 1));
    }
}

/* (dy, rois, images) -> dx: every neighbour takes what it weighed in the average. */
REF_KERNEL(roi_align_grad)
{
    UNUSED_STATE;
    double *sum = scratch, weight[4];
    int64_t corner[4];
    for (int64_t k = 0; k < tensor_count(out); k++) sum[k] = 0;
    FOR_EACH(at, in)
    {
        const Roi r = roi_of(n, in, at.i[0], in->dim + 2);
        const double d =
            load(in, ref_index(in, &at)) / fmax((double)(r.h.samples * r.w.samples), 1);
        if (r.image < 0 || r.image >= out->dim[0]) continue;
        double *plane = sum + (r.image * out->dim[1] + at.i[1]) * out->dim[2] * out->dim[3];
        for (int64_t i = 0; i < r.h.samples * r.w.samples; i++) {
            const double h = roi_place(&r.h, at.i[2], i / r.w.samples);
            const double w = roi_place(&r.w, at.i[3], i % r.w.samples);
            if (!roi_corners(out->dim[2], out->dim[3], h, w, corner, weight)) continue;
            for (int k = 0; k < 4; k++) plane[corner[k]] += d * weight[k];
        }
    }
    FOR_EACH(at, out) element_store(out, ref_index(out, &at), *sum++);
}
