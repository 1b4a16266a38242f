/* GridSample, RoiAlign (the average), their transposes, and DeformConv, for all channels of a place
 * at once: a place takes a few pixels, each with one weight (runtime/sample.h). */
#include "runtime/sample.h"

#include <string.h>

#include "ir/simd.h"
#include "ir/window.h"
#include "runtime/cpu/cpu.h"
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

enum { PLACES = 4 }; /* that share a walk over the weights */

typedef struct Deform {
    const Node *n;
    const Tensor *in, *out;
    Window w;
    int64_t taps, channels, groups, outputs; /* outputs: of a group */
    float *weight;                           /* [groups, taps, channels / groups, outputs] */
    float *found;                            /* [PLACES, taps, channels] */
    float *sum;                              /* [PLACES, outputs] */
} Deform;

/* What the taps find for output (h, w) of an image. */
static void find_taps(const Deform *d, int64_t image, int64_t h, int64_t w, float *found)
{
    const Tensor *x = d->in, *offset = &d->in[2], *mask = optional(d->n, d->in, 4);
    const int64_t groups = node_int(d->n, "offset_group", 1), each = d->channels / groups;
    Corner c[4];
    memset(found, 0, (size_t)(d->taps * d->channels) * sizeof *found);
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
        const float *from =
            (const float *)x->data + image * x->stride[0] + group * each * x->stride[1];
        for (int q = 0; q < n; q++)
            add_line(found + tap * d->channels + group * each, 1, from + c[q].at, x->stride[1],
                     each, (float)(c[q].weight * weight));
    }
}

/* sum[p, o] += found[p, i] weight[i, o]; places lie `step` apart in found. */
CLONES static void add_products(float *restrict sum, const float *found, int64_t step,
                                const float *weight, int64_t n, int64_t outputs)
{
    for (int64_t i = 0; i < n; i++, weight += outputs) {
        const float a = found[i], b = found[i + step], c = found[i + 2 * step],
                    d = found[i + 3 * step];
        INDEPENDENT
        for (int64_t o = 0; o < outputs; o++) {
            sum[o] += a * weight[o];
            sum[outputs + o] += b * weight[o];
            sum[2 * outputs + o] += c * weight[o];
            sum[3 * outputs + o] += d * weight[o];
        }
    }
}

/* The group's outputs at `count` places from (h, w) on. */
static void put_group(const Deform *d, int64_t group, int64_t image, int64_t h, int64_t w,
                      int64_t count)
{
    const Tensor *bias = optional(d->n, d->in, 3), *y = d->out;
    const int64_t each = d->channels / d->groups, first = group * d->outputs;
    for (int64_t k = 0; k < PLACES * d->outputs; k++)
        d->sum[k] = bias ? (float)ref_at(bias, first + k % d->outputs) : 0;
    for (int64_t tap = 0; tap < d->taps; tap++)
        add_products(d->sum, d->found + tap * d->channels + group * each, d->taps * d->channels,
                     d->weight + (group * d->taps + tap) * each * d->outputs, each, d->outputs);
    for (int64_t p = 0; p < count; p++)
        for (int64_t o = 0; o < d->outputs; o++)
            ((float *)y->data)[image * y->stride[0] + (first + o) * y->stride[1] +
                               h * y->stride[2] + (w + p) * y->stride[3]] =
                d->sum[p * d->outputs + o];
}

/* Parts of the scratch, in floats; their number. */
static int64_t deform_begin(Deform *d, const Node *n, const Tensor *in, const Tensor *out,
                            float *scratch)
{
    Diag quiet = {0};
    *d = (Deform){.n = n, .in = in, .out = out, .groups = node_int(n, "group", 1)};
    if (node_window(n, &d->w, &quiet) < 0) trap(TRAP_INTERNAL, "a convolution without a window");
    d->taps = d->w.kernel[0] * d->w.kernel[1];
    d->channels = in->dim[1];
    d->outputs = out->dim[1] / d->groups;
    const int64_t weights = tensor_count(&in[1]), found = PLACES * d->taps * d->channels;
    if (scratch) {
        d->weight = scratch;
        d->found = scratch + weights;
        d->sum = d->found + found;
    }
    return weights + found + PLACES * d->outputs;
}

CPU_PREPARE(deform_conv)
{
    Deform d;
    TRY(cpu_naive_prepare(p));
    const size_t bytes = (size_t)deform_begin(&d, p->node, p->in, p->out, NULL) * sizeof(float);
    if (p->scratch < bytes) p->scratch = bytes;
    return 0;
}

static void arrange_weight(const Deform *d)
{
    const Tensor *w = &d->in[1];
    FOR_EACH(at, w)
    {
        const int64_t group = at.i[0] / d->outputs, tap = at.i[2] * d->w.kernel[1] + at.i[3];
        d->weight[((group * d->taps + tap) * w->dim[1] + at.i[1]) * d->outputs +
                  at.i[0] % d->outputs] = (float)load(w, ref_index(w, &at));
    }
}

CPU_RUN(deform_conv)
{
    Deform d;
    if (in->dtype != DT_F32) {
        cpu_naive_run(n, state, in, out, scratch);
        return;
    }
    deform_begin(&d, n, in, out, scratch);
    arrange_weight(&d);
    for (int64_t k = 0; k < out->dim[0] * out->dim[2]; k++) {
        const int64_t image = k / out->dim[2], h = k % out->dim[2];
        for (int64_t w = 0; w < out->dim[3]; w += PLACES) {
            const int64_t left = out->dim[3] - w, count = left < PLACES ? left : PLACES;
            for (int64_t p = 0; p < count; p++)
                find_taps(&d, image, h, w + p, d.found + p * d.taps * d.channels);
            for (int64_t g = 0; g < d.groups; g++) put_group(&d, g, image, h, w, count);
        }
    }
}
