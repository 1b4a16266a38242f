/* Resize and its transpose, element by element: a sum over the product of the axes' taps. */
#include "ir/resample.h"
#include "runtime/ref/ref.h"

int ref_resize_prepare(Prepare *p)
{
    Arena *a = arena_new();
    ResizeMaps *m = NEW(a, ResizeMaps);
    m->arena = a;
    p->state = m;
    p->scratch = (size_t)tensor_count(p->out) * sizeof(double);
    return resize_maps(m, p->node, p->diag);
}

void ref_resize_release(void *state)
{
    if (state) arena_free(((ResizeMaps *)state)->arena);
}

static bool is_outside(const ResizeMaps *maps, int rank, const Index *at)
{
    for (int a = 0; a < rank; a++)
        if (maps->axis[a].outside && maps->axis[a].outside[at->i[a]]) return true;
    return false;
}

static double gather(const ResizeMaps *maps, const Tensor *x, const Index *at, int axis,
                     int64_t offset)
{
    if (axis == x->rank) return load(x, offset);
    const Resample *m = &maps->axis[axis];
    double sum = 0;
    for (int64_t k = at->i[axis] * m->taps; k < (at->i[axis] + 1) * m->taps; k++)
        if (m->weight[k] != 0)
            sum +=
                m->weight[k] * gather(maps, x, at, axis + 1, offset + m->at[k] * x->stride[axis]);
    return sum;
}

REF_KERNEL(resize)
{
    UNUSED_STATE;
    const double outside = (double)node_float(n, "extrapolation_value", 0);
    FOR_EACH(at, out)
    {
        const bool beyond = is_outside(state, out->rank, &at);
        element_store(out, ref_index(out, &at), beyond ? outside : gather(state, in, &at, 0, 0));
    }
}

/* Adds v to the taps of one output position; sum is row-major in the shape of x. */
static void scatter(const ResizeMaps *maps, double *sum, int rank, const Index *at, int axis,
                    int64_t offset, double v)
{
    if (axis == rank) {
        sum[offset] += v;
        return;
    }
    const Resample *m = &maps->axis[axis];
    for (int64_t k = at->i[axis] * m->taps; k < (at->i[axis] + 1) * m->taps; k++)
        if (m->weight[k] != 0)
            scatter(maps, sum, rank, at, axis + 1, offset * m->in + m->at[k], v * m->weight[k]);
}

/* dy -> dx */
REF_KERNEL(resize_grad)
{
    UNUSED_STATE;
    double *sum = scratch;
    for (int64_t k = 0; k < tensor_count(out); k++) sum[k] = 0;
    FOR_EACH(at, in)
    if (!is_outside(state, in->rank, &at))
        scatter(state, sum, in->rank, &at, 0, 0, load(in, ref_index(in, &at)));
    FOR_EACH(at, out) element_store(out, ref_index(out, &at), *sum++);
}
