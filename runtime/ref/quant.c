/* Quantization to integers and its simulation in float. Rounding is to nearest, ties to even. */
#include "runtime/ref/ref.h"

#include <math.h>

static double clamp(double x, double lo, double hi) { return x < lo ? lo : x > hi ? hi : x; }

/* The range of an 8, 16 or 32 bit integer type. */
static void range_of(DType t, double *lo, double *hi)
{
    const bool is_signed = t == DT_I8 || t == DT_I16 || t == DT_I32;
    const double span = ldexp(1, (int)(8 * dtype_size(t)));
    *lo = is_signed ? -span / 2 : 0;
    *hi = *lo + span - 1;
}

/* The axis of per-channel parameters. */
static int axis_of(const Node *n, const Tensor *x)
{
    const int64_t axis =
        node_int(n, "axis", n->op == OP_FakeQuant || n->op == OP_FakeQuantGrad ? -1 : 1);
    return node_attr(n, "axis") || axis >= 0 ? ref_axis(axis, x->rank) : -1;
}

/* The division is in float, as ONNX Runtime does it: ties fall the same way. */
static double steps(double x, double scale) { return rint((double)((float)x / (float)scale)); }

/* y = saturate(round(x / scale) + zero_point) */
REF_KERNEL(quantize)
{
    UNUSED_STATE;
    double lo, hi;
    const int axis = axis_of(n, in);
    const bool has_zero = node_in(n, 2) != NULL;
    const Tensor scale = ref_broadcast_axis(&in[1], axis, out);
    const Tensor zero = has_zero ? ref_broadcast_axis(&in[2], axis, out) : scale;
    range_of(out->dtype, &lo, &hi);
    FOR_EACH(at, out)
    {
        const double z = has_zero ? load(&zero, ref_index(&zero, &at)) : 0;
        const double q = steps(load(in, ref_index(in, &at)), load(&scale, ref_index(&scale, &at)));
        element_store(out, ref_index(out, &at), clamp(q + z, lo, hi));
    }
}

/* y = (x - zero_point) scale */
REF_KERNEL(dequantize)
{
    UNUSED_STATE;
    const int axis = axis_of(n, in);
    const bool has_zero = node_in(n, 2) != NULL;
    const Tensor scale = ref_broadcast_axis(&in[1], axis, out);
    const Tensor zero = has_zero ? ref_broadcast_axis(&in[2], axis, out) : scale;
    FOR_EACH(at, out)
    {
        const double z = has_zero ? load(&zero, ref_index(&zero, &at)) : 0;
        const double s = load(&scale, ref_index(&scale, &at));
        element_store(out, ref_index(out, &at), (load(in, ref_index(in, &at)) - z) * s);
    }
}

/* y = saturate(round(sum a_scale b_scale / y_scale) + zero_point), in float as ONNX Runtime. */
void ref_requantize(const Tensor *y, int64_t offset, double sum, double a_scale, double b_scale,
                    const Tensor *grid)
{
    double lo, hi;
    const float factor = (float)a_scale * (float)b_scale / (float)ref_at(&grid[0], 0);
    range_of(y->dtype, &lo, &hi);
    element_store(y, offset,
                  clamp(rint((double)((float)sum * factor)) + ref_at(&grid[1], 0), lo, hi));
}

/* x -> y, scale, zero point: the range of x and 0 onto 0 … 255. */
REF_KERNEL(dynamic_quantize)
{
    UNUSED_STATE;
    double least = 0, most = 0;
    FOR_EACH(at, in)
    {
        least = fmin(least, load(in, ref_index(in, &at)));
        most = fmax(most, load(in, ref_index(in, &at)));
    }
    const float scale = most > least ? ((float)most - (float)least) / 255.f : 1.f;
    const double zero = clamp(rint((double)((0.f - (float)least) / scale)), 0, 255);
    FOR_EACH(at, out)
    element_store(out, ref_index(out, &at),
                  clamp(steps(load(in, ref_index(in, &at)), (double)scale) + zero, 0, 255));
    if (n->nout > 1 && !omitted(&out[1])) element_store(&out[1], 0, (double)scale);
    if (n->nout > 2 && !omitted(&out[2])) element_store(&out[2], 0, zero);
}

/* (x, scale, zero_point) -> (clamp(round(x / scale) + zero_point, qmin, qmax) - zero_point) scale
 */
REF_KERNEL(fake_quant)
{
    UNUSED_STATE;
    const int axis = axis_of(n, in);
    const double lo = (double)node_int(n, "qmin", 0), hi = (double)node_int(n, "qmax", 255);
    const Tensor scale = ref_broadcast_axis(&in[1], axis, out);
    const Tensor zero = ref_broadcast_axis(&in[2], axis, out);
    FOR_EACH(at, out)
    {
        const double s = load(&scale, ref_index(&scale, &at)),
                     z = load(&zero, ref_index(&zero, &at));
        const double q = clamp(steps(load(in, ref_index(in, &at)), s) + z, lo, hi);
        element_store(out, ref_index(out, &at), (q - z) * s);
    }
}

/* (dy, x, scale, zero_point) -> dx = dy where the step lies in the range, else 0; and dscale = sum
 * of dy times (round(x / scale) - x / scale), qmin - zero_point below, qmax - zero_point above. */
REF_KERNEL(fake_quant_grad)
{
    UNUSED_STATE;
    const int axis = axis_of(n, in);
    const double lo = (double)node_int(n, "qmin", 0), hi = (double)node_int(n, "qmax", 255);
    const Tensor scale = ref_broadcast_axis(&in[2], axis, out);
    const Tensor zero = ref_broadcast_axis(&in[3], axis, out);
    const bool wants_scale = n->nout > 1 && out[1].rank >= 0;
    double *sum = scratch;
    for (int64_t k = 0; wants_scale && k < tensor_count(&out[1]); k++) sum[k] = 0;
    FOR_EACH(at, out)
    {
        const double s = load(&scale, ref_index(&scale, &at)),
                     z = load(&zero, ref_index(&zero, &at));
        const double x = load(&in[1], ref_index(&in[1], &at)), dy = load(in, ref_index(in, &at));
        const double q = steps(x, s) + z;
        const bool inside = q >= lo && q <= hi;
        element_store(out, ref_index(out, &at), inside ? dy : 0);
        if (wants_scale)
            sum[tensor_count(&out[1]) > 1 ? at.i[axis] : 0] +=
                dy * (inside ? q - z - x / s : clamp(q, lo, hi) - z);
    }
    for (int64_t k = 0; wants_scale && k < tensor_count(&out[1]); k++)
        element_store(&out[1], ref_offset(&out[1], k), sum[k]);
}

int ref_fake_quant_grad_prepare(Prepare *p)
{
    if (p->nout > 1 && p->out[1].rank >= 0)
        p->scratch = (size_t)tensor_count(&p->out[1]) * sizeof(double);
    return 0;
}
