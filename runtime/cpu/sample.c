/* GridSample, RoiAlign (the average), their transposes, and DeformConv, for all channels of a place
 * at once: a place takes a few pixels, each with one weight (runtime/sample.h). */
#include "runtime/sample.h"

#include <stdlib.h>
#include <string.h>

#include "ir/simd.h"
#include "ir/window.h"
#include "runtime/cpu/cpu.h"
#include "runtime/cpu/primitive.h"
#include "runtime/ref/ref.h"

/* y += w x, elements y_step and x_step apart. */
CLONES static void add_line(float *y, int64_t y_step, const float *x, int64_t x_step, int64_t n,
                            float w)
{
    if (y_step == 1 && x_step == 1) {
        INDEPENDENT
        for (int64_t i = 0; i < n; i++) y[i] += w * x[i];
    } else {
        for (int64_t i = 0; i < n; i++) y[i * y_step] += w * x[i * x_step];
    }
}

/* A sampling op, forwards or transposed: which of its tensors is the image. */
typedef struct Sampling {
    const Tensor *image, *result;
    bool grad;
} Sampling;

static Sampling sampling(const Node *n, const Tensor *in, const Tensor *out)
{
    const bool grad = n->op == OP_GridSampleGrad || n->op == OP_RoiAlignGrad;
    return (Sampling){grad ? out : in, grad ? in : out, grad};
}

/* One index per place: all channels of it are done together. */
static Tensor places_of(const Tensor *t)
{
    Tensor p = *t;
    p.dim[1] = t->dim[1] > 0;
    return p;
}

/* The channels of the result at offset `at` from (or to) those of the image's pixels. */
static void add_corners(const Sampling *s, int64_t at, int64_t image, const Corner *c, int n,
                        double factor)
{
    float *y = (float *)s->result->data + at, *x = (float *)s->image->data + image;
    const int64_t channels = s->image->dim[1], xs = s->image->stride[1], ys = s->result->stride[1];
    for (int k = 0; k < n; k++)
        if (s->grad)
            add_line(x + c[k].at, xs, y, ys, channels, (float)(c[k].weight * factor));
        else
            add_line(y, ys, x + c[k].at, xs, channels, (float)(c[k].weight * factor));
}

CPU_RUN(grid_sample)
{
    const GridMode m = grid_mode(n);
    const Sampling s = sampling(n, in, out);
    const Tensor places = places_of(s.result);
    Corner c[MAX_CORNERS];
    if (in->dtype != DT_F32) {
        cpu_naive_run(n, state, in, out, scratch);
        return;
    }
    cpu_fill_zero(out);
    FOR_EACH(at, &places)
    {
        const int count = grid_corners(&m, s.image, &in[1], at.i, c);
        add_corners(&s, ref_index(&places, &at), at.i[0] * s.image->stride[0], c, count, 1);
    }
}

CPU_RUN(roi_align)
{
    const Sampling s = sampling(n, in, out);
    const Tensor places = places_of(s.result);
    Corner c[4];
    if (in->dtype != DT_F32 || strcmp(node_str(n, "mode", "avg"), "max") == 0) {
        cpu_naive_run(n, state, in, out, scratch);
        return;
    }
    cpu_fill_zero(out);
    FOR_EACH(at, &places)
    {
        const Roi r = roi_of(n, in, at.i[0], places.dim + 2, s.image->dim[0]);
        const int64_t samples = r.image < 0 ? 0 : r.h.samples * r.w.samples;
        for (int64_t k = 0; k < samples; k++) {
            const int count = roi_corners(&r, s.image, at.i[2], at.i[3], k, c);
            add_corners(&s, ref_index(&places, &at), r.image * s.image->stride[0], c, count,
                        1 / (double)samples);
        }
    }
}

/* ---- DeformConv ---------------------------------------------------------------------- */

/* What the taps find at some places of an image, for each group as a matrix, times the weights. */
typedef struct Deform {
    const Node *n;
    const Tensor *in, *out;
    Window w;
    int64_t taps, channels, groups, each, outputs; /* each, outputs: channels of a group */
    int64_t places;                                /* at a time */
    float *weight;                                 /* [groups, taps, each, outputs] */
    float *found;                                  /* [groups, places, taps, each] */
    float *sum;                                    /* [places, outputs] */
    float *scratch;                                /* of the product */
} Deform;

/* Parts of the scratch, in floats; their number. */
static int64_t deform_begin(Deform *d, const Node *n, const Tensor *in, const Tensor *out,
                            float *scratch)
{
    enum { PLACES = 64 };
    Diag quiet = {0};
    *d = (Deform){.n = n, .in = in, .out = out, .groups = node_int(n, "group", 1)};
    if (node_window(n, &d->w, &quiet) < 0) trap(TRAP_INTERNAL, "a convolution without a window");
    d->taps = d->w.kernel[0] * d->w.kernel[1];
    d->channels = in->dim[1];
    d->each = d->channels / d->groups;
    d->outputs = out->dim[1] / d->groups;
    d->places = out->dim[2] * out->dim[3] < PLACES ? out->dim[2] * out->dim[3] : PLACES;
    const int64_t weights = (tensor_count(&in[1]) + 15) & ~(int64_t)15,
                  found = (d->places * d->taps * d->channels + 15) & ~(int64_t)15,
                  sums = (d->places * d->outputs + 15) & ~(int64_t)15;
    if (scratch) {
        d->weight = scratch;
        d->found = scratch + weights;
        d->sum = d->found + found;
        d->scratch = d->sum + sums;
    }
    return weights + found + sums;
}

static Tensor matrix(int64_t rows, int64_t columns, void *data)
{
    return (Tensor){
        .dtype = DT_F32, .rank = 2, .dim = {rows, columns}, .stride = {columns, 1}, .data = data};
}

CPU_PREPARE(deform_conv)
{
    Deform d;
    PrimitiveState *s = calloc(1, sizeof *s);
    if (!s) trap(TRAP_NO_MEMORY, "out of memory for a convolution");
    p->state = s;
    const size_t bytes = (size_t)deform_begin(&d, p->node, p->in, p->out, NULL) * sizeof(float);
    const Tensor a = matrix(d.places, d.taps * d.each, NULL),
                 b = matrix(d.taps * d.each, d.outputs, NULL),
                 y = matrix(d.places, d.outputs, NULL);
    s->naive = p->in->dtype != DT_F32 || !cpu_product_make(&s->prim, &a, &b, &y, NULL);
    if (s->naive) return cpu_naive_prepare(p);
    p->scratch = bytes + s->prim.scratch;
    return 0;
}

/* Adds `weight` times a pixel to what tap `tap` finds at a place, channels first … first + n - 1:
 * they may be of several groups. */
static void add_pixel(const Deform *d, int64_t place, int64_t tap, const float *pixel,
                      int64_t first, int64_t n, float weight)
{
    const int64_t step = d->in->stride[1];
    for (int64_t c = first, some; c < first + n; c += some) {
        const int64_t group = c / d->each, end = (group + 1) * d->each;
        some = (end < first + n ? end : first + n) - c;
        float *to = d->found + ((group * d->places + place) * d->taps + tap) * d->each;
        add_line(to + c % d->each, 1, pixel + c * step, step, some, weight);
    }
}

/* What the taps find for output (h, w) of an image. */
static void find_taps(const Deform *d, int64_t place, int64_t image, int64_t h, int64_t w)
{
    const Tensor *x = d->in, *offset = &d->in[2], *mask = optional(d->n, d->in, 4);
    const int64_t groups = node_int(d->n, "offset_group", 1), each = d->channels / groups;
    const float *pixels = (const float *)x->data + image * x->stride[0];
    Corner c[4];
    for (int64_t k = 0; k < groups * d->taps; k++) {
        const int64_t group = k / d->taps, tap = k % d->taps;
        const Index dy = {{image, 2 * k, h, w}}, dx = {{image, 2 * k + 1, h, w}},
                    m = {{image, k, h, w}};
        const int64_t i = tap / d->w.kernel[1], j = tap % d->w.kernel[1];
        const int64_t row = h * d->w.stride[0] + i * d->w.dilation[0] - d->w.pad[0],
                      col = w * d->w.stride[1] + j * d->w.dilation[1] - d->w.pad[1];
        const int n = pixel_corners(x, (double)row + load(offset, ref_index(offset, &dy)),
                                    (double)col + load(offset, ref_index(offset, &dx)), c);
        const double weight = mask ? load(mask, ref_index(mask, &m)) : 1;
        for (int q = 0; q < n; q++)
            add_pixel(d, place, tap, pixels + c[q].at, group * each, each,
                      (float)(c[q].weight * weight));
    }
}

static void arrange_weight(const Deform *d)
{
    const Tensor *w = &d->in[1];
    FOR_EACH(at, w)
    {
        const int64_t group = at.i[0] / d->outputs, tap = at.i[2] * d->w.kernel[1] + at.i[3];
        d->weight[((group * d->taps + tap) * d->each + at.i[1]) * d->outputs +
                  at.i[0] % d->outputs] = (float)load(w, ref_index(w, &at));
    }
}

/* The group's outputs at places first … first + count - 1 of an image. */
static void put_group(const Deform *d, int64_t group, int64_t image, int64_t first, int64_t count)
{
    const Tensor *bias = optional(d->n, d->in, 3), *y = d->out;
    for (int64_t o = 0; o < d->outputs; o++) {
        const int64_t channel = group * d->outputs + o;
        const float add = bias ? (float)ref_at(bias, channel) : 0;
        float *to = (float *)y->data + image * y->stride[0] + channel * y->stride[1];
        for (int64_t k = 0; k < count; k++)
            to[(first + k) / y->dim[3] * y->stride[2] + (first + k) % y->dim[3] * y->stride[3]] =
                d->sum[k * d->outputs + o] + add;
    }
}

/* Places first … of an image; beyond the last one there are zeros. */
static void put_places(const Deform *d, const Primitive *product, int64_t image, int64_t first)
{
    const int64_t width = d->out->dim[3], left = d->out->dim[2] * width - first;
    const int64_t count = left < d->places ? left : d->places, row = d->taps * d->each;
    memset(d->found, 0, (size_t)(d->places * d->taps * d->channels) * sizeof *d->found);
    for (int64_t k = 0; k < count; k++)
        find_taps(d, k, image, (first + k) / width, (first + k) % width);
    for (int64_t g = 0; g < d->groups; g++) {
        void *data[] = {d->found + g * d->places * row, d->weight + g * row * d->outputs, d->sum};
        primitive_run(product, data, d->scratch);
        put_group(d, g, image, first, count);
    }
}

CPU_RUN(deform_conv)
{
    const PrimitiveState *s = state;
    Deform d;
    if (s->naive) {
        cpu_naive_run(n, NULL, in, out, scratch);
        return;
    }
    deform_begin(&d, n, in, out, scratch);
    arrange_weight(&d);
    for (int64_t image = 0; image < out->dim[0]; image++)
        for (int64_t k = 0; k < out->dim[2] * out->dim[3]; k += d.places)
            put_places(&d, &s->prim, image, k);
}
