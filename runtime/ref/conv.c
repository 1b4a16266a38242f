/* Convolution, its transpose and its weight gradient.
 * x [N, Ci, in…], w [Co, Ci/group, k…], y [N, Co, out…]; in = out * stride + k * dilation - pad. */
#include "runtime/ref/ref.h"

/* The sum over the input channels and window of one output element, of (x - x0) (w - w0). */
static double correlate(const Tensor *x, double x0, const Tensor *w, double w0,
                        const RefWindow *win, const Index *at, int64_t first_channel)
{
    double sum = 0;
    for (int64_t c = 0; c < w->dim[1]; c++)
        for (int64_t kd = 0; kd < win->kernel[0]; kd++) {
            const int64_t d = ref_input_at(win, 0, at->i[2], kd, x->dim[2]);
            for (int64_t kh = 0; kh < win->kernel[1] && d >= 0; kh++) {
                const int64_t h = ref_input_at(win, 1, at->i[3], kh, x->dim[3]);
                for (int64_t kw = 0; kw < win->kernel[2] && h >= 0; kw++) {
                    const int64_t v = ref_input_at(win, 2, at->i[4], kw, x->dim[4]);
                    const Index from = {{at->i[0], first_channel + c, d, h, v}};
                    const Index weight = {{at->i[1], c, kd, kh, kw}};
                    if (v >= 0)
                        sum += (load(x, ref_index(x, &from)) - x0) *
                               (load(w, ref_index(w, &weight)) - w0);
                }
            }
        }
    return sum;
}

REF_KERNEL(conv)
{
    UNUSED_STATE;
    const Tensor x = ref_image(&in[0]), w = ref_image(&in[1]), y = ref_image(out);
    const RefWindow win = ref_window(n);
    const int64_t per_group = y.dim[1] / node_int(n, "group", 1);
    FOR_EACH(at, &y)
    {
        const double bias = node_in(n, 2) ? ref_at(&in[2], at.i[1]) : 0;
        const int64_t first = at.i[1] / per_group * w.dim[1];
        element_store(&y, ref_index(&y, &at), bias + correlate(&x, 0, &w, 0, &win, &at, first));
    }
}

/* Sums of 8-bit products are exact in double. */
REF_KERNEL(conv_integer)
{
    UNUSED_STATE;
    const Tensor x = ref_image(&in[0]), w = ref_image(&in[1]), y = ref_image(out);
    const RefWindow win = ref_window(n);
    const int64_t per_group = y.dim[1] / node_int(n, "group", 1);
    const double x0 = node_in(n, 2) ? ref_at(&in[2], 0) : 0;
    FOR_EACH(at, &y)
    {
        const double w0 = node_in(n, 3) ? ref_number(&in[3], at.i[1]) : 0;
        const int64_t first = at.i[1] / per_group * w.dim[1];
        element_store(&y, ref_index(&y, &at), correlate(&x, x0, &w, w0, &win, &at, first));
    }
}

REF_KERNEL(qlinear_conv)
{
    UNUSED_STATE;
    const Tensor x = ref_image(&in[0]), w = ref_image(&in[3]), y = ref_image(out);
    const RefWindow win = ref_window(n);
    const int64_t per_group = y.dim[1] / node_int(n, "group", 1);
    FOR_EACH(at, &y)
    {
        const int64_t filter = at.i[1], first = filter / per_group * w.dim[1];
        const double bias = node_in(n, 8) ? ref_at(&in[8], filter) : 0;
        const double sum =
            correlate(&x, ref_at(&in[2], 0), &w, ref_number(&in[5], filter), &win, &at, first);
        ref_requantize(&y, ref_index(&y, &at), bias + sum, ref_at(&in[1], 0),
                       ref_number(&in[4], filter), &in[6]);
    }
}

/* The output position whose window meets input i with kernel element k, or -1. */
static int64_t position(const RefWindow *w, int a, int64_t i, int64_t k, int64_t size)
{
    const int64_t p = i + w->pad[a] - k * w->dilation[a];
    return p >= 0 && p % w->stride[a] == 0 && p / w->stride[a] < size ? p / w->stride[a] : -1;
}

/* Transposed: x [N, Ci, small…], w [Ci, Co/group, k…], y [N, Co, large…];
 * y[large] = sum over k, small with large = small * stride + k * dilation - pad. */
static double scatter(const Tensor *x, const Tensor *w, const RefWindow *win, const Index *at,
                      int64_t first_channel, int64_t channels)
{
    double sum = 0;
    for (int64_t c = first_channel; c < first_channel + channels; c++)
        for (int64_t kd = 0; kd < win->kernel[0]; kd++) {
            const int64_t d = position(win, 0, at->i[2], kd, x->dim[2]);
            for (int64_t kh = 0; kh < win->kernel[1] && d >= 0; kh++) {
                const int64_t h = position(win, 1, at->i[3], kh, x->dim[3]);
                for (int64_t kw = 0; kw < win->kernel[2] && h >= 0; kw++) {
                    const int64_t v = position(win, 2, at->i[4], kw, x->dim[4]);
                    const Index from = {{at->i[0], c, d, h, v}};
                    const Index weight = {{c, at->i[1] % w->dim[1], kd, kh, kw}};
                    if (v >= 0)
                        sum += load(x, ref_index(x, &from)) * load(w, ref_index(w, &weight));
                }
            }
        }
    return sum;
}

REF_KERNEL(conv_transpose)
{
    UNUSED_STATE;
    const Tensor x = ref_image(&in[0]), w = ref_image(&in[1]), y = ref_image(out);
    const RefWindow win = ref_window(n);
    const int64_t channels = x.dim[1] / node_int(n, "group", 1);
    FOR_EACH(at, &y)
    {
        const double bias = node_in(n, 2) ? ref_at(&in[2], at.i[1]) : 0;
        const int64_t first = at.i[1] / w.dim[1] * channels;
        element_store(&y, ref_index(&y, &at), bias + scatter(&x, &w, &win, &at, first, channels));
    }
}

/* dw[o, i, k] = sum over n, p of dy[n, o, p] x[n, i, p * stride + k * dilation - pad] */
static double weight_grad(const Tensor *x, const Tensor *dy, const RefWindow *win, const Index *at,
                          int64_t channel)
{
    double sum = 0;
    for (int64_t b = 0; b < x->dim[0]; b++)
        for (int64_t pd = 0; pd < dy->dim[2]; pd++) {
            const int64_t d = ref_input_at(win, 0, pd, at->i[2], x->dim[2]);
            for (int64_t ph = 0; ph < dy->dim[3] && d >= 0; ph++) {
                const int64_t h = ref_input_at(win, 1, ph, at->i[3], x->dim[3]);
                for (int64_t pw = 0; pw < dy->dim[4] && h >= 0; pw++) {
                    const int64_t v = ref_input_at(win, 2, pw, at->i[4], x->dim[4]);
                    const Index from = {{b, channel, d, h, v}}, to = {{b, at->i[0], pd, ph, pw}};
                    if (v >= 0) sum += load(x, ref_index(x, &from)) * load(dy, ref_index(dy, &to));
                }
            }
        }
    return sum;
}

REF_KERNEL(conv_wgrad)
{
    UNUSED_STATE;
    const Tensor x = ref_image(&in[0]), dy = ref_image(&in[1]), dw = ref_image(out);
    const RefWindow win = ref_window(n);
    const int64_t per_group = dw.dim[0] / node_int(n, "group", 1);
    FOR_EACH(at, &dw)
    {
        const int64_t channel = at.i[0] / per_group * dw.dim[1] + at.i[1];
        element_store(&dw, ref_index(&dw, &at), weight_grad(&x, &dy, &win, &at, channel));
    }
}
