/* MaxUnpool, LpPool, GlobalLpPool. */
#include <math.h>

#include "ir/window.h"
#include "runtime/ref/ref.h"

/* Where position k of the window's own output lies in y, which may be larger. */
static int64_t unpooled(const Window *w, const Tensor *y, int64_t k)
{
    Index at = {{0}};
    for (int a = y->rank - 1; a >= 0; a--) {
        const int64_t size = a < 2 ? y->dim[a] : w->out[a - 2];
        at.i[a] = a ? k % size : k;
        k /= size;
    }
    return at.i[0] < y->dim[0] ? ref_index(y, &at) : -1;
}

REF_KERNEL(max_unpool)
{
    UNUSED_STATE;
    Window w;
    Diag silent = {0};
    if (node_window(n, &w, &silent) < 0) trap(TRAP_INTERNAL, "ref: a window without a shape");
    ref_fill(out, 0);
    if (tensor_count(out) == 0) return;
    FOR_EACH(at, in)
    {
        const int64_t k = element_load_int(&in[1], ref_index(&in[1], &at));
        const int64_t to = k < 0 ? -1 : unpooled(&w, out, k);
        if (to >= 0) ref_move(in, ref_index(in, &at), out, to);
    }
}

/* (sum of |x|^p)^(1/p) over each window */
REF_KERNEL(lppool)
{
    UNUSED_STATE;
    const Tensor x = ref_image(in), y = ref_image(out);
    const RefWindow w = ref_window(n);
    const double p = (double)node_int(n, "p", 2);
    FOR_EACH(at, &y)
    {
        double sum = 0;
        for (int64_t kd = 0; kd < w.kernel[0]; kd++)
            for (int64_t kh = 0; kh < w.kernel[1]; kh++)
                for (int64_t kw = 0; kw < w.kernel[2]; kw++) {
                    const Index from = {{at.i[0], at.i[1],
                                         ref_input_at(&w, 0, at.i[2], kd, x.dim[2]),
                                         ref_input_at(&w, 1, at.i[3], kh, x.dim[3]),
                                         ref_input_at(&w, 2, at.i[4], kw, x.dim[4])}};
                    if (from.i[2] >= 0 && from.i[3] >= 0 && from.i[4] >= 0)
                        sum += pow(fabs(load(&x, ref_index(&x, &from))), p);
                }
        element_store(&y, ref_index(&y, &at), pow(sum, 1 / p));
    }
}

/* The same over all axes from 2 on. */
REF_KERNEL(global_lppool)
{
    UNUSED_STATE;
    const double p = (double)node_int(n, "p", 2);
    FOR_EACH(at, out)
    {
        Tensor x = *in;
        const int64_t offset = at.i[0] * in->stride[0] + at.i[1] * in->stride[1];
        double sum = 0;
        x.data = (char *)in->data + (size_t)offset * dtype_size(in->dtype);
        x.dim[0] = x.dim[1] = 1;
        FOR_EACH(k, &x) sum += pow(fabs(load(&x, ref_index(&x, &k))), p);
        element_store(out, ref_index(out, &at), pow(sum, 1 / p));
    }
}
