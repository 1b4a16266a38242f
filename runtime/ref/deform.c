/* DeformConv of images: ir/ops/deform.c. */
#include "ir/window.h"
#include "runtime/ref/ref.h"
#include "runtime/sample.h"

/* x at (h, w) in channel c, between pixels linearly, zero outside. */
static double between(const Tensor *x, int64_t image, int64_t c, double h, double w)
{
    Corner corner[4];
    const int count = pixel_corners(x, h, w, corner);
    const int64_t from = image * x->stride[0] + c * x->stride[1];
    double sum = 0;
    for (int k = 0; k < count; k++) sum += corner[k].weight * load(x, from + corner[k].at);
    return sum;
}

/* What tap (i, j) finds in channel c at output position at[2], at[3], masked. */
static double tap(const Node *n, const Tensor *in, const Window *w, const Index *at, int64_t c,
                  int64_t i, int64_t j)
{
    const int64_t each = in[0].dim[1] / node_int(n, "offset_group", 1);
    const int64_t taps = w->kernel[0] * w->kernel[1];
    const int64_t k = c / each * taps + i * w->kernel[1] + j;
    const Index dh = {{at->i[0], 2 * k, at->i[2], at->i[3]}};
    const Index dw = {{at->i[0], 2 * k + 1, at->i[2], at->i[3]}};
    const Index m = {{at->i[0], k, at->i[2], at->i[3]}};
    const double h = (double)(at->i[2] * w->stride[0] + i * w->dilation[0] - w->pad[0]);
    const double v = (double)(at->i[3] * w->stride[1] + j * w->dilation[1] - w->pad[1]);
    const double x = between(&in[0], at->i[0], c, h + load(&in[2], ref_index(&in[2], &dh)),
                             v + load(&in[2], ref_index(&in[2], &dw)));
    return node_in(n, 4) ? x * load(&in[4], ref_index(&in[4], &m)) : x;
}

int ref_deform_conv_prepare(Prepare *p)
{
    p->scratch = (size_t)p->out->dim[1] * sizeof(double);
    return 0;
}

/* All output channels of a position at once: what a tap finds serves those of its group. */
static void position(const Node *n, const Tensor *in, const Window *w, const Index *at, double *sum,
                     int64_t channels)
{
    const int64_t groups = node_int(n, "group", 1), per_group = channels / groups;
    for (int64_t m = 0; m < channels; m++) sum[m] = node_in(n, 3) ? ref_at(&in[3], m) : 0;
    for (int64_t c = 0; c < in[0].dim[1]; c++) {
        const int64_t group = c / in[1].dim[1];
        for (int64_t k = 0; k < w->kernel[0] * w->kernel[1]; k++) {
            const int64_t i = k / w->kernel[1], j = k % w->kernel[1];
            const double x = tap(n, in, w, at, c, i, j);
            for (int64_t m = group * per_group; m < (group + 1) * per_group; m++) {
                const Index weight = {{m, c % in[1].dim[1], i, j}};
                sum[m] += load(&in[1], ref_index(&in[1], &weight)) * x;
            }
        }
    }
}

REF_KERNEL(deform_conv)
{
    UNUSED_STATE;
    Window w;
    Diag quiet = {0};
    if (node_window(n, &w, &quiet) < 0) trap(TRAP_INTERNAL, "a convolution without a window");
    Tensor places = *out; /* one index per position */
    places.dim[1] = out->dim[1] > 0;
    FOR_EACH(at, &places)
    {
        double *sum = scratch;
        position(n, in, &w, &at, sum, out->dim[1]);
        for (int64_t m = 0; m < out->dim[1]; m++)
            element_store(out, ref_index(out, &at) + m * out->stride[1], sum[m]);
    }
}
