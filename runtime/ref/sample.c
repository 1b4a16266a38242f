/* GridSample and RoiAlign, and their transposes. */
#include "runtime/sample.h"

#include <math.h>
#include <string.h>

#include "runtime/ref/ref.h"

/* ---- GridSample ---------------------------------------------------------------------- */

REF_KERNEL(grid_sample)
{
    UNUSED_STATE;
    const GridMode m = grid_mode(n);
    Corner c[MAX_CORNERS];
    FOR_EACH(at, out)
    {
        const int64_t from = at.i[0] * in->stride[0] + at.i[1] * in->stride[1];
        const int count = grid_corners(&m, in, &in[1], at.i, c);
        double sum = 0;
        for (int k = 0; k < count; k++) sum += c[k].weight * load(in, from + c[k].at);
        element_store(out, ref_index(out, &at), sum);
    }
}

/* An image of doubles in scratch, all 0. */
static Tensor zero_sums(const Tensor *like, void *scratch)
{
    Tensor t = *like;
    t.dtype = DT_F64;
    t.data = scratch;
    tensor_set_strides(&t, false);
    memset(scratch, 0, (size_t)tensor_count(&t) * sizeof(double));
    return t;
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
    const Tensor sums = zero_sums(out, scratch);
    Corner c[MAX_CORNERS];
    FOR_EACH(at, in)
    {
        double *to = (double *)scratch + at.i[0] * sums.stride[0] + at.i[1] * sums.stride[1];
        const int count = grid_corners(&m, &sums, &in[1], at.i, c);
        const double d = load(in, ref_index(in, &at));
        for (int k = 0; k < count; k++) to[c[k].at] += d * c[k].weight;
    }
    tensor_copy(&sums, out);
}

/* ---- RoiAlign ------------------------------------------------------------------------ */

/* The weighed pixels of a sample: their sum, or their largest. */
static double roi_sample(const Tensor *x, int64_t from, const Corner *c, int count, bool max)
{
    double sum = 0, most = -INFINITY;
    if (count == 0) return 0;
    for (int k = 0; k < count; k++) {
        const double v = c[k].weight * load(x, from + c[k].at);
        sum += v;
        most = fmax(most, v);
    }
    return max ? most : sum;
}

REF_KERNEL(roi_align)
{
    UNUSED_STATE;
    const bool max = strcmp(node_str(n, "mode", "avg"), "max") == 0;
    Corner c[4];
    FOR_EACH(at, out)
    {
        const Roi r = roi_of(n, in, at.i[0], out->dim + 2, in->dim[0]);
        const int64_t from = r.image * in->stride[0] + at.i[1] * in->stride[1];
        const int64_t samples = r.image < 0 ? 0 : r.h.samples * r.w.samples;
        double sum = 0, most = samples ? -INFINITY : 0;
        for (int64_t k = 0; k < samples; k++) {
            const int count = roi_corners(&r, in, at.i[2], at.i[3], k, c);
            const double v = roi_sample(in, from, c, count, max);
            sum += v;
            most = fmax(most, v);
        }
        element_store(out, ref_index(out, &at), max ? most : sum / fmax((double)samples, 1));
    }
}

/* (dy, rois, images) -> dx: every neighbour takes what it weighed in the average. */
REF_KERNEL(roi_align_grad)
{
    UNUSED_STATE;
    const Tensor sums = zero_sums(out, scratch);
    Corner c[4];
    FOR_EACH(at, in)
    {
        const Roi r = roi_of(n, in, at.i[0], in->dim + 2, out->dim[0]);
        const int64_t samples = r.image < 0 ? 0 : r.h.samples * r.w.samples;
        const double d = load(in, ref_index(in, &at)) / fmax((double)samples, 1);
        double *to = (double *)scratch + r.image * sums.stride[0] + at.i[1] * sums.stride[1];
        for (int64_t k = 0; k < samples; k++) {
            const int count = roi_corners(&r, &sums, at.i[2], at.i[3], k, c);
            for (int i = 0; i < count; i++) to[c[i].at] += d * c[i].weight;
        }
    }
    tensor_copy(&sums, out);
}
