/* Sampling an image at computed places: GridSample, RoiAlign. */
#include <string.h>

#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

static int one_of(const Node *n, const char *attr, const char *otherwise, const char *const *names,
                  int count, Diag *d)
{
    const char *s = node_str(n, attr, otherwise);
    for (int k = 0; k < count; k++)
        if (strcmp(s, names[k]) == 0) return 0;
    return node_error(d, n, "'%s' is '%s'", attr, s);
}

static int grid_modes(const Node *n, Diag *d)
{
    static const char *const modes[] = {"linear", "bilinear", "nearest", "cubic", "bicubic"};
    static const char *const paddings[] = {"zeros", "border", "reflection"};
    TRY(one_of(n, "mode", "linear", modes, 5, d));
    return one_of(n, "padding_mode", "zeros", paddings, 3, d);
}

/* The grid [N, out…, r] lists r coordinates in each place. */
static int grid_shape(const Node *n, const Type *x, Type *out, Diag *d)
{
    const Type grid = input_type(n, 1);
    int64_t both;
    if (x->rank < 3 || x->rank > 5)
        return node_error(d, n, "input has rank %d, needs 3 to 5", x->rank);
    TRY(expect_rank(n, 1, x->rank, d));
    for (int i = 2; i < x->rank; i++) out->dim[i] = grid.rank < 0 ? DIM_UNKNOWN : grid.dim[i - 1];
    if (grid.rank < 0) return 0;
    if (!dim_agree(x->dim[0], grid.dim[0], &both))
        return node_error(d, n, "the grid is for %lld images, there are %lld",
                          (long long)grid.dim[0], (long long)x->dim[0]);
    if (!dim_agree(grid.dim[x->rank - 1], x->rank - 2, &both))
        return node_error(d, n, "the grid has %lld coordinates, needs %d",
                          (long long)grid.dim[x->rank - 1], x->rank - 2);
    return 0;
}

int infer_grid_sample(Node *n, Diag *d)
{
    Type x = input_type(n, 0), t = x;
    TRY(grid_modes(n, d));
    if (x.rank >= 0) TRY(grid_shape(n, &x, &t, d));
    return infer_out(n, 0, t, d);
}

/* (dy, grid) -> the shape of x */
int infer_grid_sample_grad(Node *n, Diag *d)
{
    size_t rank = 0;
    const int64_t *dim = node_ints(n, "input_shape", &rank);
    TRY(grid_modes(n, d));
    if (!dim || rank < 3 || rank > 5) return node_error(d, n, "has no usable 'input_shape'");
    Type x = type_of(input_type(n, 0).dtype, (int)rank, dim), y = x;
    TRY(expect_rank(n, 0, (int)rank, d));
    TRY(grid_shape(n, &x, &y, d));
    for (int i = 0; i < y.rank && n->in[0]->type.rank >= 0; i++) {
        int64_t both, have = n->in[0]->type.dim[i];
        if (!dim_agree(y.dim[i], have, &both))
            return node_error(d, n, "dy has %lld on axis %d, not %lld", (long long)have, i,
                              (long long)y.dim[i]);
    }
    return infer_out(n, 0, x, d);
}

static int roi_modes(const Node *n, Diag *d)
{
    static const char *const modes[] = {"avg", "max"};
    static const char *const coordinates[] = {"half_pixel", "output_half_pixel"};
    TRY(one_of(n, "mode", "avg", modes, 2, d));
    TRY(one_of(n, "coordinate_transformation_mode", "half_pixel", coordinates, 2, d));
    if (node_int(n, "sampling_ratio", 0) < 0 || node_int(n, "sampling_ratio", 0) > 1 << 15)
        return node_error(d, n, "'sampling_ratio' is out of range");
    return 0;
}

/* (x [N, C, H, W], rois [R, 4], images [R]) -> [R, C, output_height, output_width] */
int infer_roi_align(Node *n, Diag *d)
{
    Type x = input_type(n, 0), rois = input_type(n, 1);
    int64_t both, h = node_int(n, "output_height", 1), w = node_int(n, "output_width", 1);
    TRY(roi_modes(n, d));
    TRY(expect_rank(n, 0, 4, d));
    TRY(expect_rank(n, 1, 2, d));
    if (h < 1 || w < 1) return node_error(d, n, "makes %lld x %lld", (long long)h, (long long)w);
    if (x.rank < 0 || rois.rank < 0) return infer_out(n, 0, type_unknown(x.dtype), d);
    if (!dim_agree(rois.dim[1], 4, &both))
        return node_error(d, n, "regions have %lld numbers, need 4", (long long)rois.dim[1]);
    TRY(expect_vector(n, 2, rois.dim[0], "list of images", d));
    return infer_out(n, 0, (Type){x.dtype, 4, {rois.dim[0], x.dim[1], h, w}}, d);
}

/* (dy, rois, images) -> the shape of x */
int infer_roi_align_grad(Node *n, Diag *d)
{
    size_t rank = 0;
    const int64_t *dim = node_ints(n, "input_shape", &rank);
    TRY(roi_modes(n, d));
    if (!dim || rank != 4) return node_error(d, n, "has no usable 'input_shape'");
    for (int i = 0; i < 2; i++) TRY(expect_rank(n, i, i ? 2 : 4, d));
    return infer_out(n, 0, type_of(input_type(n, 0).dtype, 4, dim), d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

static int fixed_grid(const Ad *ad, const Node *n)
{
    if (!ad_wants(ad, n->in[1])) return 0;
    return node_error(ad->diag, n, "has no gradient by its grid");
}

/* An axis of an image while it is sampled, for all places at once: [N, 1, places]. */
typedef struct SampledAxis {
    Value *place; /* in pixels */
    Value *below; /* the pixel below it */
    int64_t size;
} SampledAxis;

/* Pixels from -1 to 1: of the centres of the outermost ones, or of their edges. */
static SampledAxis sampled_axis(Ad *ad, const Node *n, int64_t which, int64_t size)
{
    Graph *g = ad->g;
    const Type *t = &n->in[1]->type;
    bool align = node_int(n, "align_corners", 0) != 0;
    Value *at = CONST_INTS(g, which), *p;
    p = build(g, OP_Gather, IN(n->in[1], at), ATTRS(attr_int("axis", 3)));
    p = ad_reshape(ad, p, 3, (int64_t[]){t->dim[0], 1, t->dim[1] * t->dim[2]});
    double half = (double)(align ? size - 1 : size) / 2, middle = (double)(size - 1) / 2;
    p = ad_plus(ad, ad_scale(ad, p, half), const_f32(g, (float)middle));
    if (strcmp(node_str(n, "padding_mode", "zeros"), "border") == 0)
        p = build(g, OP_Clip, IN(p, const_f32(g, 0), const_f32(g, (float)(size - 1))), NO_ATTRS);
    return (SampledAxis){p, build(g, OP_Floor, IN(p), NO_ATTRS), size};
}

/* The pixel below the place (k = 0) or above it: its number, inside the image, and what it weighs:
 * nothing if it is outside. */
static Value *corner(Ad *ad, const SampledAxis *a, int k, Value **weight)
{
    Graph *g = ad->g;
    Value *away = ad_sub(ad, a->place, a->below), *at = a->below;
    if (k) at = ad_plus(ad, at, const_f32(g, 1));
    Value *inside =
        build(g, OP_Clip, IN(at, const_f32(g, 0), const_f32(g, (float)(a->size - 1))), NO_ATTRS);
    Value *is_inside = build(g, OP_Equal, IN(at, inside), NO_ATTRS);
    is_inside = build(g, OP_Cast, IN(is_inside), ATTRS(attr_int("to", DT_F32)));
    *weight = ad_mul(ad, k ? away : ad_sub(ad, const_f32(g, 1), away), is_inside);
    return build(g, OP_Cast, IN(inside), ATTRS(attr_int("to", DT_I64)));
}

/* y = sum over the four pixels around each place of weight x[pixel], for images [N, C, H, W]. */
static int bilinear(Ad *ad, const Node *n, Value **out)
{
    Graph *g = ad->g;
    const Type *x = &n->in[0]->type, *y = &n->out[0]->type;
    int64_t pixels = x->dim[2] * x->dim[3], places = y->dim[2] * y->dim[3];
    Value *flat = ad_reshape(ad, n->in[0], 3, (int64_t[]){x->dim[0], x->dim[1], pixels});
    const SampledAxis w = sampled_axis(ad, n, 0, x->dim[3]), h = sampled_axis(ad, n, 1, x->dim[2]);
    Value *sum = NULL;
    for (int k = 0; k < 4; k++) {
        Value *wh, *ww, *row = corner(ad, &h, k / 2, &wh), *col = corner(ad, &w, k % 2, &ww);
        Value *width = CONST_INTS(g, x->dim[3]);
        Value *pixel = ad_plus(ad, ad_mul(ad, row, width), col);
        pixel =
            build(g, OP_Expand, IN(pixel, CONST_INTS(g, x->dim[0], x->dim[1], places)), NO_ATTRS);
        Value *v = build(g, OP_GatherElements, IN(flat, pixel), ATTRS(attr_int("axis", 2)));
        sum = ad_plus(ad, sum, ad_mul(ad, v, ad_mul(ad, wh, ww)));
    }
    out[0] = ad_reshape(ad, sum, 4, y->dim);
    return 0;
}

/* Whether bilinear() says it: what a gradient by the grid needs. */
static bool is_bilinear(const Node *n)
{
    const char *mode = node_str(n, "mode", "linear");
    return n->in[0]->type.rank == 4 && n->in[0]->type.dtype == DT_F32 &&
           (strcmp(mode, "linear") == 0 || strcmp(mode, "bilinear") == 0) &&
           strcmp(node_str(n, "padding_mode", "zeros"), "reflection") != 0;
}

/* The op's attributes for its transpose: with the shape of x; or back, without. */
static Value *transposed(Ad *ad, const Node *n, Op op, Value *dy, const Type *x)
{
    Node *m = node_new(ad->g, op, n->nin, n->in, 1);
    for (int k = 0; k < n->nattrs; k++) node_set_attr(ad->g, m, n->attrs[k]);
    if (x)
        node_set_attr(ad->g, m, attr_ints("input_shape", (size_t)x->rank, x->dim));
    else
        node_remove_attr(m, "input_shape");
    return build(ad->g, op, n->nin, ad_inputs(ad, n, dy), m->nattrs, m->attrs);
}

int vjp_grid_sample(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    if (ad_wants(ad, n->in[1]) && is_bilinear(n)) return vjp_expanded(ad, n, bilinear, dy, dx);
    TRY(fixed_grid(ad, n));
    dx[0] = transposed(ad, n, OP_GridSampleGrad, dy[0], &n->in[0]->type);
    return 0;
}

int vjp_grid_sample_grad(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    TRY(fixed_grid(ad, n));
    dx[0] = transposed(ad, n, OP_GridSample, dy[0], NULL);
    return 0;
}

/* The average of samples is linear in the image; the largest is not. */
static int averages(const Ad *ad, const Node *n)
{
    if (strcmp(node_str(n, "mode", "avg"), "avg") == 0) return fixed_grid(ad, n);
    return node_error(ad->diag, n, "has no derivative in mode 'max'");
}

int vjp_roi_align(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    TRY(averages(ad, n));
    dx[0] = transposed(ad, n, OP_RoiAlignGrad, dy[0], &n->in[0]->type);
    return 0;
}

int vjp_roi_align_grad(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    TRY(averages(ad, n));
    dx[0] = transposed(ad, n, OP_RoiAlign, dy[0], NULL);
    return 0;
}

/* Of both: linear in the image. */
int jvp_grid_sample(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    if (dx[1] && n->op == OP_GridSample && is_bilinear(n))
        return jvp_expanded(ad, n, bilinear, dx, dy);
    if (dx[1]) return node_error(ad->diag, n, "has no tangent by its grid");
    if (dx[0]) dy[0] = ad_again(ad, n, ad_inputs(ad, n, dx[0]));
    return 0;
}

int jvp_roi_align(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    TRY(averages(ad, n));
    return jvp_grid_sample(ad, n, dx, dy);
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

void rule_lanes_sample(Lanes *l, const Node *n)
{
    if (n->in[0]->type.rank >= 2) lanes_pass(l, n->in[0], 1, n->out[0], 1);
}

/* ---- end of channels ---------------------------------------------------------------- */
