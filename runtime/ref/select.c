/* Joining, cutting, padding and picking. */
#include "ir/select.h"
#include "runtime/blocks.h"
#include "runtime/ref/ref.h"

#include <string.h>

static void shift(Index *at, int axis, int64_t by) { at->i[axis] += by; }

REF_KERNEL(concat)
{
    UNUSED_STATE;
    const int axis = ref_axis(node_int(n, "axis", 0), out->rank);
    int64_t start = 0;
    for (int i = 0; i < n->nin; i++) {
        FOR_EACH(at, &in[i])
        {
            Index to = at;
            shift(&to, axis, start);
            ref_move(&in[i], ref_index(&in[i], &at), out, ref_index(out, &to));
        }
        start += in[i].dim[axis];
    }
}

REF_KERNEL(split)
{
    UNUSED_STATE;
    const int axis = ref_axis(node_int(n, "axis", 0), in->rank);
    int64_t start = 0;
    for (int o = 0; o < n->nout; o++) {
        if (out[o].rank < 0) continue;
        FOR_EACH(at, &out[o])
        {
            Index from = at;
            shift(&from, axis, start);
            ref_move(in, ref_index(in, &from), &out[o], ref_index(&out[o], &at));
        }
        start += out[o].dim[axis];
    }
}

/* Per axis of the tensor that is cut: index = start + k * step. */
typedef struct Cut {
    int64_t start[MAX_RANK], step[MAX_RANK];
} Cut;

static int64_t element_int(const Tensor *t, int64_t k)
{
    return element_load_int(t, ref_offset(t, k));
}

/* From inputs 1 … 4 (starts, ends, axes, steps); ends show only in the size of the result. */
static Cut read_cut(const Node *n, const Tensor *in, const Tensor *whole)
{
    Cut c;
    for (int a = 0; a < MAX_RANK; a++) c.start[a] = 0, c.step[a] = 1;
    for (int64_t k = 0; k < tensor_count(&in[1]); k++) {
        const int64_t axis = node_in(n, 3) ? element_int(&in[3], k) : k;
        const int a = ref_axis(axis, whole->rank);
        const int64_t size = whole->dim[a], step = node_in(n, 4) ? element_int(&in[4], k) : 1;
        int64_t start = element_int(&in[1], k);
        if (start < 0) start += size;
        const int64_t top = step < 0 ? size - 1 : size;
        c.start[a] = start < 0 ? 0 : start > top ? top : start;
        c.step[a] = step;
    }
    return c;
}

static Index cut_index(const Cut *c, const Index *at, int rank)
{
    Index i = *at;
    for (int a = 0; a < rank; a++) i.i[a] = c->start[a] + at->i[a] * c->step[a];
    return i;
}

REF_KERNEL(slice)
{
    UNUSED_STATE;
    const Cut c = read_cut(n, in, in);
    FOR_EACH(at, out)
    {
        const Index from = cut_index(&c, &at, in->rank);
        ref_move(in, ref_index(in, &from), out, ref_index(out, &at));
    }
}

/* The transpose of Slice: dy into zeros. */
REF_KERNEL(slice_grad)
{
    UNUSED_STATE;
    const Cut c = read_cut(n, in, out);
    ref_fill(out, 0);
    FOR_EACH(at, in)
    {
        const Index to = cut_index(&c, &at, in->rank);
        ref_move(in, ref_index(in, &at), out, ref_index(out, &to));
    }
}

/* pads: begins, then ends, of the given axes (all by default); negative ones cut. */
static void read_pads(const Node *n, const Tensor *in, int64_t begin[MAX_RANK])
{
    const int64_t axes = tensor_count(&in[1]) / 2;
    for (int a = 0; a < MAX_RANK; a++) begin[a] = 0;
    for (int64_t k = 0; k < axes; k++) {
        const int64_t axis = node_in(n, 3) ? element_int(&in[3], k) : k;
        begin[ref_axis(axis, in->rank)] = element_int(&in[1], k);
    }
}

REF_KERNEL(pad)
{
    UNUSED_STATE;
    const char *mode = node_str(n, "mode", "constant");
    const bool has_value = node_in(n, 2) && tensor_count(&in[2]) > 0;
    int64_t begin[MAX_RANK];
    read_pads(n, in, begin);
    FOR_EACH(at, out)
    {
        Index from = at;
        bool inside = true;
        for (int a = 0; a < in->rank; a++) {
            from.i[a] = pad_source(mode, at.i[a] - begin[a], in->dim[a]);
            inside = inside && from.i[a] >= 0;
        }
        const int64_t to = ref_index(out, &at);
        if (inside)
            ref_move(in, ref_index(in, &from), out, to);
        else if (has_value)
            ref_move(&in[2], 0, out, to);
        else
            element_store(out, to, 0);
    }
}

/* The index of x that output index `at` of Gather means: axes before `axis`, the index read at the
 * next ones, the rest. */
static Index gathered(const Tensor *indices, int axis, int64_t size, int rank, const Index *at)
{
    Index from = {{0}}, i = {{0}};
    for (int a = 0; a < indices->rank; a++) i.i[a] = at->i[axis + a];
    int64_t k = element_load_int(indices, ref_index(indices, &i));
    if (k < 0) k += size;
    if (k < 0 || k >= size) k = 0; /* out of range: any element, never outside */
    for (int a = 0; a < rank; a++)
        from.i[a] = a < axis ? at->i[a] : a == axis ? k : at->i[a - 1 + indices->rank];
    return from;
}

REF_KERNEL(gather)
{
    UNUSED_STATE;
    const int axis = ref_axis(node_int(n, "axis", 0), in->rank);
    FOR_EACH(at, out)
    {
        const Index from = gathered(&in[1], axis, in->dim[axis], in->rank, &at);
        ref_move(in, ref_index(in, &from), out, ref_index(out, &at));
    }
}

/* The transpose of Gather: rows of dy added into zeros. */
REF_KERNEL(gather_grad)
{
    UNUSED_STATE;
    const int axis = ref_axis(node_int(n, "axis", 0), out->rank);
    ref_fill(out, 0);
    FOR_EACH(at, in)
    {
        const Index index = gathered(&in[1], axis, out->dim[axis], out->rank, &at);
        const int64_t to = ref_index(out, &index);
        element_store(out, to, load(out, to) + load(in, ref_index(in, &at)));
    }
}

/* DepthToSpace, SpaceToDepth */
REF_KERNEL(blocks)
{
    UNUSED_STATE;
    Tensor from, to;
    block_views(n, in, out, &from, &to);
    FOR_EACH(at, &to) ref_move(&from, ref_index(&from, &at), &to, ref_index(&to, &at));
}
