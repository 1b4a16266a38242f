/* Resize: attributes and shape inputs to weights. The formulas are those of the ONNX operator
 * (opset 19), in float as ONNX Runtime computes them: which pixel is the nearest hangs on the last
 * bit.
 *
 * Output position p lies at x = f(p) of the input (coordinate_transformation_mode). `nearest` takes
 * the input at x rounded; `linear` and `cubic` weigh the neighbours i of x by h(i - x), h a
 * triangle of half-width 1 or a cubic of half-width 2; `antialias` stretches h by 1 / scale where
 * the image shrinks. Weights are divided by their sum. */
#include "ir/resample.h"

#include <math.h>
#include <string.h>

#include "ir/op.h"
#include "ir/ops/common.h"

/* What a Resize does along one axis. */
typedef struct AxisScale {
    int64_t in, out; /* out: DIM_UNKNOWN if it cannot be told */
    float scale, start, end;
    bool named; /* by `axes`, or all are */
} AxisScale;

typedef struct Resize {
    int rank;
    const char *coordinates, *mode, *nearest;
    float cubic;
    bool exclude_outside, antialias, crop, has_sizes;
    AxisScale axis[MAX_RANK];
} Resize;

/* ---- scales and sizes --------------------------------------------------------------- */

/* Which axes `scales`, `sizes` and `roi` speak of, in order; their number. */
static int named_axes(const Node *n, int rank, int axes[MAX_RANK], Diag *d)
{
    size_t count = 0;
    const int64_t *list = node_ints(n, "axes", &count);
    bool seen[MAX_RANK] = {false};
    if (!list) {
        for (int i = 0; i < rank; i++) axes[i] = i;
        return rank;
    }
    for (size_t k = 0; k < count; k++) {
        int axis = 0;
        TRY(axis_of(n, list[k], rank, &axis, d));
        if (seen[axis]) return node_error(d, n, "axis %d is listed twice", axis);
        seen[axis] = true;
        axes[k] = axis;
    }
    return (int)count;
}

static bool is_given(const Value *v) { return v && !(v->type.rank == 1 && v->type.dim[0] == 0); }

/* Input i's numbers, one for each of `count`; 0 if it is not a constant. */
static int numbers(const Node *n, int i, int count, double *out, Diag *d)
{
    const Type t = input_type(n, i);
    if (t.rank >= 0 && (t.rank != 1 || (t.dim[0] >= 0 && t.dim[0] != count)))
        return node_error(d, n, "'%s' needs %d elements", n->in[i]->name, count);
    return value_floats(n->in[i], out, count) == count;
}

static int scales_to_sizes(const Node *n, Resize *r, int count, const int *axes, Diag *d)
{
    double scale[MAX_RANK];
    int known = numbers(n, 2, count, scale, d);
    TRY(known);
    for (int k = 0; k < count; k++) {
        AxisScale *a = &r->axis[axes[k]];
        if (!known) {
            a->out = DIM_UNKNOWN;
            continue;
        }
        a->scale = (float)scale[k];
        if (!(a->scale > 0 && a->scale < 1e6f))
            return node_error(d, n, "scale %g on axis %d", scale[k], axes[k]);
        if (a->in >= 0)
            a->out = (int64_t)floorf((float)a->in * a->scale);
        else if (a->scale != 1)
            a->out = DIM_UNKNOWN;
    }
    return known;
}

/* One scale for all named axes, so that none gets larger (or smaller) than its size. */
static void keep_aspect_ratio(Resize *r, int count, const int *axes, bool larger)
{
    float scale = 0;
    for (int k = 0; k < count; k++) {
        float s = r->axis[axes[k]].scale;
        if (k == 0 || (larger ? s > scale : s < scale)) scale = s;
    }
    for (int k = 0; k < count; k++) {
        AxisScale *a = &r->axis[axes[k]];
        a->scale = scale;
        a->out = (int64_t)floorf(scale * (float)a->in + 0.5f);
    }
}

static int sizes_to_scales(const Node *n, Resize *r, int count, const int *axes, Diag *d)
{
    const char *policy = node_str(n, "keep_aspect_ratio_policy", "stretch");
    const Type t = input_type(n, 3);
    bool known = true;
    int64_t size[MAX_RANK];
    if (t.rank >= 0 && (t.rank != 1 || (t.dim[0] >= 0 && t.dim[0] != count)))
        return node_error(d, n, "'%s' needs %d elements", n->in[3]->name, count);
    bool listed = value_ints(n->in[3], size, MAX_RANK) == count;
    for (int k = 0; k < count; k++) {
        AxisScale *a = &r->axis[axes[k]];
        if (listed && size[k] < 1 && !dim_is_sym(size[k]) && a->in != 0)
            return node_error(d, n, "size %lld on axis %d", (long long)size[k], axes[k]);
        a->out = listed ? size[k] : DIM_UNKNOWN;
        known = known && a->out >= 0 && a->in >= 0;
        a->scale = a->out >= 0 && a->in > 0 ? (float)a->out / (float)a->in : 1;
    }
    if (strcmp(policy, "stretch") == 0) return known;
    for (int k = 0; k < count && !known; k++) r->axis[axes[k]].out = DIM_UNKNOWN;
    if (known) keep_aspect_ratio(r, count, axes, strcmp(policy, "not_smaller") == 0);
    return known;
}

/* The input's dims: of x, or of the attribute of a ResizeGrad. */
static void input_dims(const Node *n, Resize *r)
{
    size_t rank = (size_t)n->in[0]->type.rank;
    const int64_t *dim = node_ints(n, "input_shape", &rank);
    if (!dim) dim = n->in[0]->type.dim;
    r->rank = (int)rank;
    for (int i = 0; i < r->rank; i++)
        r->axis[i] = (AxisScale){.in = dim[i], .out = dim[i], .scale = 1, .end = 1};
}

/* 1 if all is known, 0 if not, -1 after an error. */
static int resize_of(const Node *n, Resize *r, Diag *d)
{
    int axes[MAX_RANK];
    *r = (Resize){.coordinates = node_str(n, "coordinate_transformation_mode", "half_pixel"),
                  .mode = node_str(n, "mode", "nearest"),
                  .nearest = node_str(n, "nearest_mode", "round_prefer_floor"),
                  .cubic = node_float(n, "cubic_coeff_a", -0.75f),
                  .exclude_outside = node_int(n, "exclude_outside", 0) != 0,
                  .antialias = node_int(n, "antialias", 0) != 0};
    r->crop = strcmp(r->coordinates, "tf_crop_and_resize") == 0;
    input_dims(n, r);
    int count = named_axes(n, r->rank, axes, d);
    TRY(count);
    for (int k = 0; k < count; k++) r->axis[axes[k]].named = true;
    r->has_sizes = is_given(node_in(n, 3));
    if (r->has_sizes == is_given(node_in(n, 2)))
        return node_error(d, n, "needs either scales or sizes");
    int known = r->has_sizes ? sizes_to_scales(n, r, count, axes, d)
                             : scales_to_sizes(n, r, count, axes, d);
    if (known <= 0 || !r->crop) return known;
    double roi[2 * MAX_RANK];
    if (!is_given(node_in(n, 1))) return node_error(d, n, "needs a region ('roi')");
    known = numbers(n, 1, 2 * count, roi, d);
    for (int k = 0; k < count && known > 0; k++) {
        r->axis[axes[k]].start = (float)roi[k];
        r->axis[axes[k]].end = (float)roi[count + k];
    }
    return known;
}

int resize_dims(const Node *n, int64_t dim[MAX_RANK], Diag *d)
{
    Resize r;
    TRY(resize_of(n, &r, d));
    for (int i = 0; i < r.rank; i++) dim[i] = r.axis[i].out;
    return 0;
}

bool resize_keeps_axis(const Node *n, int axis)
{
    Resize r;
    Diag quiet = {0};
    if (n->in[0]->type.rank < 0 || resize_of(n, &r, &quiet) < 0) return false;
    const AxisScale *a = &r.axis[axis];
    if (!a->named) return true;
    return a->out == a->in && a->scale == 1 && a->start == 0 && a->end == 1 &&
           (!r.crop || value_is_const(n->in[1]));
}

/* ---- weights ------------------------------------------------------------------------ */

enum { COORDINATES = 7 };
static const char *const coordinate_modes[COORDINATES] = {
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners",
    "asymmetric", "tf_half_pixel_for_nn", "tf_crop_and_resize"};

static float position(int mode, const AxisScale *a, int64_t p)
{
    const float x = (float)p, in = (float)a->in, out = (float)a->out;
    const float half = (x + 0.5f) / a->scale - 0.5f;
    switch (mode) {
    case 1: /* symmetric about the centre although out is rounded */
        return in / 2 * (1 - out / (a->scale * in)) + half;
    case 2:
        return a->out > 1 ? half : 0;
    case 3:
        return a->out > 1 ? x * (in - 1) / (out - 1) : 0;
    case 4:
        return x / a->scale;
    case 5:
        return (x + 0.5f) / a->scale;
    case 6:
        return a->out > 1 ? a->start * (in - 1) + x * (a->end - a->start) * (in - 1) / (out - 1)
                          : 0.5f * (a->start + a->end) * (in - 1);
    default:
        return half;
    }
}

static int64_t clamped(int64_t i, int64_t in) { return i < 0 ? 0 : i >= in ? in - 1 : i; }

/* In float, so that coordinates far outside do not overflow. */
static int64_t nearest(const Resize *r, float x, int64_t in)
{
    float i = strcmp(r->nearest, "floor") == 0               ? floorf(x)
              : strcmp(r->nearest, "ceil") == 0              ? ceilf(x)
              : strcmp(r->nearest, "round_prefer_ceil") == 0 ? floorf(x + 0.5f)
                                                             : ceilf(x - 0.5f);
    return i < 0 ? 0 : i >= (float)in ? in - 1 : clamped((int64_t)i, in);
}

static double triangle(double x) { return fmax(0, 1 - fabs(x)); }

/* Keys' piecewise cubic. */
static double cubic(double x, double a)
{
    x = fabs(x);
    return x < 1   ? ((a + 2) * x - (a + 3)) * x * x + 1
           : x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
                   : 0;
}

/* Half the number of neighbours that h reaches, and its stretch. */
static int64_t reach(const Resize *r, const AxisScale *a, double *stretch)
{
    const double half = strcmp(r->mode, "cubic") == 0 ? 2 : 1;
    *stretch = r->antialias && a->scale < 1 ? (double)a->scale : 1;
    return (int64_t)ceil(half / *stretch);
}

/* The taps of one output position at x. */
static void weigh(const Resize *r, const AxisScale *a, float x, int64_t taps, int64_t *at,
                  double *weight)
{
    double stretch, sum = 0;
    const double floor_x = floor((double)x);
    const int64_t first = 1 - reach(r, a, &stretch);
    const bool is_cubic = strcmp(r->mode, "cubic") == 0;
    for (int64_t k = 0; k < taps; k++) {
        const double i = floor_x + (double)(first + k), arg = (i - (double)x) * stretch;
        const bool inside = i >= 0 && i < (double)a->in;
        at[k] = i < 0 ? 0 : inside ? (int64_t)i : a->in - 1;
        weight[k] = is_cubic ? cubic(arg, (double)r->cubic) : triangle(arg);
        if (r->exclude_outside && !inside) weight[k] = 0;
        sum += weight[k];
    }
    for (int64_t k = 0; k < taps && sum != 0; k++) weight[k] /= sum;
}

static bool is_identity(const Resample *m)
{
    if (m->in != m->out || m->outside) return false;
    for (int64_t i = 0; i < m->out * m->taps; i++)
        if (m->weight[i] != (m->at[i] == i / m->taps ? 1 : 0)) return false;
    return true;
}

static void fill_map(const Resize *r, const AxisScale *a, int mode, Resample *m, Arena *arena)
{
    double stretch;
    const bool near = strcmp(r->mode, "nearest") == 0;
    m->in = a->in;
    m->out = a->out;
    m->taps = near || !a->named ? 1 : 2 * reach(r, a, &stretch);
    m->at = arena_array(arena, (size_t)mul_sat(m->out, m->taps), sizeof *m->at);
    m->weight = arena_array(arena, (size_t)mul_sat(m->out, m->taps), sizeof *m->weight);
    m->outside = r->crop && a->named ? NEW_ARRAY(arena, bool, m->out) : NULL;
    for (int64_t p = 0; p < m->out && m->in > 0; p++) {
        const float x = a->named ? position(mode, a, p) : (float)p;
        if (m->outside) m->outside[p] = x < 0 || x > (float)(a->in - 1);
        if (m->taps == 1) {
            m->at[p] = a->named ? nearest(r, x, a->in) : p;
            m->weight[p] = 1;
        } else {
            weigh(r, a, x, m->taps, m->at + p * m->taps, m->weight + p * m->taps);
        }
    }
    m->identity = is_identity(m);
}

static int mode_of(const Node *n, const Resize *r, Diag *d)
{
    if (strcmp(r->mode, "nearest") != 0 && strcmp(r->mode, "linear") != 0 &&
        strcmp(r->mode, "cubic") != 0)
        return node_error(d, n, "'mode' is '%s'", r->mode);
    for (int k = 0; k < COORDINATES; k++)
        if (strcmp(r->coordinates, coordinate_modes[k]) == 0) return k;
    return node_error(d, n, "'coordinate_transformation_mode' is '%s'", r->coordinates);
}

int resize_maps(ResizeMaps *m, const Node *n, Diag *d)
{
    Resize r;
    int known = resize_of(n, &r, d), mode;
    TRY(known);
    if (!known) return node_error(d, n, "its scales, sizes or region are not constant");
    mode = mode_of(n, &r, d);
    TRY(mode);
    m->rank = r.rank;
    for (int i = 0; i < r.rank; i++) fill_map(&r, &r.axis[i], mode, &m->axis[i], m->arena);
    return 0;
}
