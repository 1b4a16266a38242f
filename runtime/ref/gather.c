/* Reading and writing elements at given positions. */
#include <math.h>
#include <string.h>

#include "runtime/ref/ref.h"

/* Counted from the end if negative; any element rather than one outside. */
static int64_t wrapped(int64_t i, int64_t size)
{
    if (i < 0) i += size;
    return i < 0 || i >= size ? 0 : i;
}

static int64_t index_at(const Tensor *indices, const Index *at)
{
    return element_load_int(indices, ref_index(indices, at));
}

/* y[i, j] = x[index[i, j], j] for axis 0 */
REF_KERNEL(gather_elements)
{
    UNUSED_STATE;
    const int axis = ref_axis(node_int(n, "axis", 0), in->rank);
    if (tensor_count(in) == 0) {
        ref_fill(out, 0);
        return;
    }
    FOR_EACH(at, out)
    {
        Index from = at;
        from.i[axis] = wrapped(index_at(&in[1], &at), in->dim[axis]);
        ref_move(in, ref_index(in, &from), out, ref_index(out, &at));
    }
}

typedef enum Reduction { SET, ADD, MUL, MAX, MIN } Reduction;

static Reduction reduction_of(const Node *n)
{
    const char *s = node_str(n, "reduction", "none");
    return strcmp(s, "add") == 0   ? ADD
           : strcmp(s, "mul") == 0 ? MUL
           : strcmp(s, "max") == 0 ? MAX
           : strcmp(s, "min") == 0 ? MIN
                                   : SET;
}

static int64_t reduce_int(Reduction r, int64_t a, int64_t b)
{
    switch (r) {
    case ADD:
        return (int64_t)((uint64_t)a + (uint64_t)b);
    case MUL:
        return (int64_t)((uint64_t)a * (uint64_t)b);
    case MAX:
        return a > b ? a : b;
    case MIN:
        return a < b ? a : b;
    default:
        return b;
    }
}

static double reduce_real(Reduction r, double a, double b)
{
    return r == ADD ? a + b : r == MUL ? a * b : r == MAX ? fmax(a, b) : r == MIN ? fmin(a, b) : b;
}

/* y[to] and x[from] become one element. */
static void scatter_one(Reduction r, const Tensor *x, int64_t from, const Tensor *y, int64_t to)
{
    if (r == SET)
        ref_move(x, from, y, to);
    else if (is_exact_int(y))
        element_store_int(y, to, reduce_int(r, element_load_int(y, to), element_load_int(x, from)));
    else
        element_store(y, to, reduce_real(r, load(y, to), load(x, from)));
}

REF_KERNEL(scatter_elements)
{
    UNUSED_STATE;
    const int axis = ref_axis(node_int(n, "axis", 0), in->rank);
    const Reduction r = reduction_of(n);
    tensor_copy(in, out);
    if (tensor_count(out) == 0) return;
    FOR_EACH(at, &in[1])
    {
        Index to = at;
        to.i[axis] = wrapped(index_at(&in[1], &at), out->dim[axis]);
        scatter_one(r, &in[2], ref_index(&in[2], &at), out, ref_index(out, &to));
    }
}

/* The index of x that element `at` of `part` stands for: `batch` axes in common, then the position
 * that the last axis of `indices` holds, then the axes that it leaves open. */
static Index picked(const Tensor *indices, const Tensor *x, int batch, const Index *at)
{
    Index from = {{0}}, i = {{0}};
    const int last = indices->rank - 1, open = batch + (int)indices->dim[last];
    for (int a = 0; a < last; a++) i.i[a] = at->i[a];
    for (int a = 0; a < batch; a++) from.i[a] = at->i[a];
    for (int a = batch; a < open; a++) {
        i.i[last] = a - batch;
        from.i[a] = wrapped(index_at(indices, &i), x->dim[a]);
    }
    for (int a = open; a < x->rank; a++) from.i[a] = at->i[last + a - open];
    return from;
}

/* t from element `offset` on, without its first axes. */
static Tensor tail_of(const Tensor *t, int first, int64_t offset)
{
    Tensor v = tensor_at(t, offset);
    v.rank = t->rank - first;
    for (int a = 0; a < v.rank; a++) {
        v.dim[a] = t->dim[first + a];
        v.stride[a] = t->stride[first + a];
    }
    return v;
}

/* What the first axes of both leave open, from two elements on. */
static void copy_tail(const Tensor *x, int first_x, int64_t from, const Tensor *y, int first_y,
                      int64_t to)
{
    const Tensor part = tail_of(x, first_x, from), target = tail_of(y, first_y, to);
    if (part.rank == 0)
        ref_move(x, from, y, to);
    else
        tensor_copy(&part, &target);
}

/* One index for each position: what it leaves open is done together. */
static Tensor positions_of(const Tensor *part, int first)
{
    Tensor v = *part;
    for (int a = first; a < v.rank; a++) v.dim[a] = part->dim[a] > 0;
    return v;
}

REF_KERNEL(gather_nd)
{
    UNUSED_STATE;
    const int batch = (int)node_int(n, "batch_dims", 0), last = in[1].rank - 1;
    const int open = batch + (int)in[1].dim[last];
    const Tensor positions = positions_of(out, last);
    if (tensor_count(in) == 0) {
        ref_fill(out, 0);
        return;
    }
    FOR_EACH(at, &positions)
    {
        const Index from = picked(&in[1], in, batch, &at);
        copy_tail(in, open, ref_index(in, &from), out, last, ref_index(out, &at));
    }
}

REF_KERNEL(scatter_nd)
{
    UNUSED_STATE;
    const Reduction r = reduction_of(n);
    const int last = in[1].rank - 1, open = (int)in[1].dim[last];
    const Tensor positions = positions_of(&in[2], last);
    tensor_copy(in, out);
    if (tensor_count(out) == 0) return;
    if (r == SET) {
        FOR_EACH(at, &positions)
        {
            const Index to = picked(&in[1], out, 0, &at);
            copy_tail(&in[2], last, ref_index(&in[2], &at), out, open, ref_index(out, &to));
        }
        return;
    }
    FOR_EACH(at, &in[2])
    {
        const Index to = picked(&in[1], out, 0, &at);
        scatter_one(r, &in[2], ref_index(&in[2], &at), out, ref_index(out, &to));
    }
}
