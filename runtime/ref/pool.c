/* Pooling and its derivatives. Windows as for convolutions; ceil_mode shows only in the size of
 * the output. */
#include "runtime/ref/ref.h"

#include <math.h>

/* Calls body for each input position (di, hi, wi) of the window at output index `at`. */
#define FOR_WINDOW(win, x, at)                                                                     \
    for (int64_t kd = 0; kd < (win)->kernel[0]; kd++)                                              \
        for (int64_t kh = 0; kh < (win)->kernel[1]; kh++)                                          \
            for (int64_t kw = 0; kw < (win)->kernel[2]; kw++)

/* The input index that element (kd, kh, kw) of the window meets; false in the padding. */
static bool meet(const RefWindow *w, const Tensor *x, const Index *at, int64_t kd, int64_t kh,
                 int64_t kw, Index *from)
{
    *from = *at;
    from->i[2] = ref_input_at(w, 0, at->i[2], kd, x->dim[2]);
    from->i[3] = ref_input_at(w, 1, at->i[3], kh, x->dim[3]);
    from->i[4] = ref_input_at(w, 2, at->i[4], kw, x->dim[4]);
    return from->i[2] >= 0 && from->i[3] >= 0 && from->i[4] >= 0;
}

/* Where the window's first maximum is; NaN wins. false if the window is all padding. */
static bool argmax(const RefWindow *w, const Tensor *x, const Index *at, Index *best)
{
    double max = 0;
    bool any = false;
    Index from;
    FOR_WINDOW(w, x, at)
    {
        if (!meet(w, x, at, kd, kh, kw, &from)) continue;
        const double v = load(x, ref_index(x, &from));
        if (any && !(v > max || (isnan(v) && !isnan(max)))) continue;
        max = v;
        *best = from;
        any = true;
    }
    return any;
}

/* Position of the maximum in x as ONNX counts: over all of N, C and space, row-major, or with
 * the spatial axes in reverse order (storage_order 1). */
static int64_t linear(const Tensor *x, const Index *i, bool column_major)
{
    int64_t k = i->i[0] * x->dim[1] + i->i[1];
    if (column_major)
        return ((k * x->dim[4] + i->i[4]) * x->dim[3] + i->i[3]) * x->dim[2] + i->i[2];
    return ((k * x->dim[2] + i->i[2]) * x->dim[3] + i->i[3]) * x->dim[4] + i->i[4];
}

REF_KERNEL(maxpool)
{
    UNUSED_STATE;
    const Tensor x = ref_image(in), y = ref_image(out);
    const RefWindow w = ref_window(n);
    const bool indices = n->nout > 1 && out[1].rank >= 0;
    const bool column_major = node_int(n, "storage_order", 0);
    const Tensor ix = indices ? ref_image(&out[1]) : y;
    FOR_EACH(at, &y)
    {
        Index best = {{0}};
        const bool any = argmax(&w, &x, &at, &best);
        if (!any)
            element_store(&y, ref_index(&y, &at), -INFINITY);
        else
            ref_move(&x, ref_index(&x, &best), &y, ref_index(&y, &at));
        if (indices) element_store_int(&ix, ref_index(&ix, &at), linear(&x, &best, column_major));
    }
}

/* (dy, x) -> dx: dy goes to the first maximum of its window. */
REF_KERNEL(maxpool_grad)
{
    UNUSED_STATE;
    const Tensor dy = ref_image(&in[0]), x = ref_image(&in[1]), dx = ref_image(out);
    const RefWindow w = ref_window(n);
    ref_fill(out, 0);
    FOR_EACH(at, &dy)
    {
        Index best;
        if (!argmax(&w, &x, &at, &best)) continue;
        const int64_t to = ref_index(&dx, &best);
        element_store(&dx, to, load(&dx, to) + load(&dy, ref_index(&dy, &at)));
    }
}

/* (dx, x) -> dy: the tangent at the first maximum of each window. */
REF_KERNEL(maxpool_pick)
{
    UNUSED_STATE;
    const Tensor dx = ref_image(&in[0]), x = ref_image(&in[1]), dy = ref_image(out);
    const RefWindow w = ref_window(n);
    FOR_EACH(at, &dy)
    {
        Index best;
        const double v = argmax(&w, &x, &at, &best) ? load(&dx, ref_index(&dx, &best)) : 0;
        element_store(&dy, ref_index(&dy, &at), v);
    }
}

/* What an average divides by: elements of the window inside the image, or, with count_include_pad,
 * inside the padded image. */
static double divisor(const RefWindow *w, const Tensor *x, const Index *at, bool include_pad)
{
    double count = 1;
    for (int a = 0; a < 3; a++) {
        const int64_t size = x->dim[2 + a];
        int64_t inside = 0;
        for (int64_t k = 0; k < w->kernel[a]; k++) {
            const int64_t i = at->i[2 + a] * w->stride[a] + k * w->dilation[a] - w->pad[a];
            inside += include_pad ? i < size + w->pad_end[a] : i >= 0 && i < size;
        }
        count *= (double)inside;
    }
    return count;
}

REF_KERNEL(avgpool)
{
    UNUSED_STATE;
    const Tensor x = ref_image(in), y = ref_image(out);
    const RefWindow w = ref_window(n);
    const bool include_pad = node_int(n, "count_include_pad", 0);
    FOR_EACH(at, &y)
    {
        double sum = 0;
        Index from;
        FOR_WINDOW(&w, &x, &at)
        if (meet(&w, &x, &at, kd, kh, kw, &from)) sum += load(&x, ref_index(&x, &from));
        element_store(&y, ref_index(&y, &at), sum / divisor(&w, &x, &at, include_pad));
    }
}

/* dy -> dx: every element of a window gets its share. Sums in double, element by element of dx. */
REF_KERNEL(avgpool_grad)
{
    UNUSED_STATE;
    const Tensor dy = ref_image(in), dx = ref_image(out);
    const RefWindow w = ref_window(n);
    const bool include_pad = node_int(n, "count_include_pad", 0);
    double *sum = scratch;
    for (int64_t k = 0; k < tensor_count(&dx); k++) sum[k] = 0;
    FOR_EACH(at, &dy)
    {
        const double share = load(&dy, ref_index(&dy, &at)) / divisor(&w, &dx, &at, include_pad);
        Index to;
        FOR_WINDOW(&w, &dx, &at)
        if (meet(&w, &dx, &at, kd, kh, kw, &to)) sum[linear(&dx, &to, false)] += share;
    }
    FOR_EACH(at, &dx) element_store(&dx, ref_index(&dx, &at), sum[linear(&dx, &at, false)]);
}

int ref_avgpool_grad_prepare(Prepare *p)
{
    p->scratch = (size_t)tensor_count(p->out) * sizeof(double);
    return 0;
}
