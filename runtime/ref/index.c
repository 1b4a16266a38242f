/* Positions of large elements, and choosing by positions. */
#include <math.h>
#include <stdlib.h>

#include "ir/dynamic.h"
#include "runtime/ref/ref.h"

/* ---- searching along an axis -------------------------------------------------------- */

typedef struct Candidate {
    double real;
    int64_t whole, at; /* the element as an integer; its position */
} Candidate;

/* Largest first, NaN before all, equal ones by position. */
static int by_falling(const void *p, const void *q)
{
    const Candidate *a = p, *b = q;
    if (isnan(a->real) != isnan(b->real)) return isnan(a->real) ? -1 : 1;
    if (a->real != b->real && !isnan(a->real)) return a->real < b->real ? 1 : -1;
    if (a->whole != b->whole) return a->whole < b->whole ? 1 : -1;
    return (a->at > b->at) - (a->at < b->at);
}

static int by_rising(const void *p, const void *q)
{
    const Candidate *a = p, *b = q;
    if (isnan(a->real) != isnan(b->real)) return isnan(a->real) ? 1 : -1;
    if (a->real != b->real && !isnan(a->real)) return a->real > b->real ? 1 : -1;
    if (a->whole != b->whole) return a->whole > b->whole ? 1 : -1;
    return (a->at > b->at) - (a->at < b->at);
}

/* Integers compare as integers: 64 bits do not fit a double. */
static Candidate candidate(const Tensor *t, int64_t offset, int64_t at)
{
    Candidate c = {.at = at};
    if (is_exact_int(t))
        c.whole = element_load_int(t, offset) ^ (t->dtype == DT_U64 ? INT64_MIN : 0);
    else
        c.real = load(t, offset);
    return c;
}

typedef int Order(const void *p, const void *q);

/* Moves element i of a heap whose first is the last in order to where it belongs. */
static void sift_down(Candidate *heap, int64_t n, int64_t i, Order *order)
{
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && order(&heap[child + 1], &heap[child]) > 0) child++;
        if (order(&heap[child], &heap[i]) <= 0) return;
        const Candidate c = heap[i];
        heap[i] = heap[child];
        heap[child] = c;
    }
}

/* The first k of a line, in order. */
static void first_of_line(Candidate *first, int64_t k, const Tensor *t, int64_t from, int64_t size,
                          int64_t step, Order *order)
{
    for (int64_t i = 0; i < k; i++) first[i] = candidate(t, from + i * step, i);
    for (int64_t i = k / 2 - 1; i >= 0; i--) sift_down(first, k, i, order);
    for (int64_t i = k; i < size; i++) {
        const Candidate c = candidate(t, from + i * step, i);
        if (order(&c, first) > 0) continue;
        first[0] = c;
        sift_down(first, k, 0, order);
    }
    qsort(first, (size_t)k, sizeof *first, order);
}

int ref_topk_prepare(Prepare *p)
{
    const int axis = ref_axis(node_int(p->node, "axis", -1), p->in->rank);
    p->scratch = (size_t)p->out->dim[axis] * sizeof(Candidate);
    return 0;
}

REF_KERNEL(topk)
{
    UNUSED_STATE;
    const int axis = ref_axis(node_int(n, "axis", -1), in->rank);
    const bool largest = node_int(n, "largest", 1) != 0;
    const int64_t size = in->dim[axis], k = out->dim[axis];
    Candidate *line = scratch;
    Tensor lines = *out; /* one index per line */
    lines.dim[axis] = k > 0;
    FOR_EACH(at, &lines)
    {
        const int64_t from = ref_index(in, &at), to = ref_index(out, &at);
        first_of_line(line, k, in, from, size, in->stride[axis], largest ? by_falling : by_rising);
        for (int64_t i = 0; i < k; i++) {
            ref_move(in, from + line[i].at * in->stride[axis], out, to + i * out->stride[axis]);
            if (n->nout > 1 && !omitted(&out[1]))
                element_store_int(&out[1], ref_index(&out[1], &at) + i * out[1].stride[axis],
                                  line[i].at);
        }
    }
}

/* Where the largest or smallest element is: the first, or the last of equal ones. */
REF_KERNEL(arg)
{
    UNUSED_STATE;
    const int axis = ref_axis(node_int(n, "axis", 0), in->rank);
    const bool keep = node_int(n, "keepdims", 1) != 0, last = node_int(n, "select_last_index", 0);
    Order *const order = n->op == OP_ArgMax ? by_falling : by_rising;
    FOR_EACH(at, out)
    {
        Index from = {{0}};
        Candidate best = {0};
        for (int a = 0; a < in->rank; a++)
            from.i[a] = a == axis ? 0 : at.i[a < axis || keep ? a : a - 1];
        const int64_t start = ref_index(in, &from);
        for (int64_t i = 0; i < in->dim[axis]; i++) {
            const Candidate c = candidate(in, start + i * in->stride[axis], last ? -i : i);
            if (i == 0 || order(&c, &best) < 0) best = c;
        }
        element_store_int(out, ref_index(out, &at), last ? -best.at : best.at);
    }
}

/* (indices, depth, [off, on]) */
REF_KERNEL(one_hot)
{
    UNUSED_STATE;
    const int axis = ref_axis(node_int(n, "axis", -1), out->rank);
    const int64_t depth = out->dim[axis];
    FOR_EACH(at, out)
    {
        Index i = {{0}};
        for (int a = 0; a < in->rank; a++) i.i[a] = at.i[a < axis ? a : a + 1];
        int64_t k = element_load_int(in, ref_index(in, &i));
        if (k < 0) k += depth;
        ref_move(&in[2], (k == at.i[axis]) * in[2].stride[0], out, ref_index(out, &at));
    }
}

/* ---- results whose size depends on data --------------------------------------------- */

/* Column k of the result is the index of the k-th element that is not zero. */
REF_KERNEL(nonzero)
{
    UNUSED_STATE;
    int64_t k = 0;
    FOR_EACH(at, in)
    {
        if (!element_is_set(in->data, in->dtype, ref_index(in, &at)) || k == out->dim[1]) continue;
        for (int a = 0; a < out->dim[0]; a++)
            element_store_int(out, a * out->stride[0] + k * out->stride[1], at.i[a]);
        k++;
    }
}

REF_KERNEL(compress)
{
    UNUSED_STATE;
    const bool whole = !node_attr(n, "axis");
    const int axis = whole ? 0 : ref_axis(node_int(n, "axis", 0), in->rank);
    const int64_t count = tensor_count(&in[1]);
    int64_t k = 0;
    for (int64_t i = 0; i < count && k < out->dim[axis]; i++) {
        if (!element_load_int(&in[1], i * in[1].stride[0])) continue;
        Tensor row = *out;
        row.dim[axis] = 1;
        FOR_EACH(at, &row)
        {
            Index from = at, to = at;
            from.i[axis] = i;
            to.i[axis] = k;
            ref_move(in, whole ? ref_offset(in, i) : ref_index(in, &from), out,
                     ref_index(out, &to));
        }
        k++;
    }
}

int ref_unique_prepare(Prepare *p)
{
    p->scratch = 3 * ((size_t)tensor_count(p->in) + 1) * sizeof(int64_t);
    return 0;
}

/* rep[i]: the first slice that equals slice i. */
static void find_equals(const Slices *s, int64_t *order, int64_t *rep)
{
    slices_sort(s, order);
    for (int64_t i = 0; i < s->n; i++) {
        const bool same = i > 0 && slices_compare(s, order[i - 1], order[i]) == 0;
        rep[order[i]] = same ? rep[order[i - 1]] : order[i];
    }
}

static void put(const Tensor *t, int64_t k, int64_t x)
{
    if (!omitted(t)) element_store_int(t, k * t->stride[0], x);
}

/* x -> y, first position, inverse, counts; row-major operands. Groups of equal slices are in order
 * of value, or (sorted = 0) of first occurrence. */
REF_KERNEL(unique)
{
    UNUSED_STATE;
    const bool whole = !node_attr(n, "axis"), sorted = node_int(n, "sorted", 1) != 0;
    const int axis = whole ? 0 : ref_axis(node_int(n, "axis", 0), in->rank);
    Slices s = {in->data, in->dtype, 1, whole ? tensor_count(in) : in->dim[axis], 1};
    for (int a = 0; a < axis; a++) s.outer *= in->dim[a];
    for (int a = axis + 1; a < in->rank && !whole; a++) s.inner *= in->dim[a];
    const Tensor none = {.rank = -1};
    const Tensor first = n->nout > 1 ? out[1] : none, inverse = n->nout > 2 ? out[2] : none,
                 counts = n->nout > 3 ? out[3] : none;
    int64_t *order = scratch, *rep = order + s.n, *number = rep + s.n, groups = 0;
    find_equals(&s, order, rep);
    for (int64_t i = 0; i < s.n; i++) {
        const int64_t k = sorted ? order[i] : i;
        if (rep[k] == k) number[k] = groups++;
    }
    for (int64_t g = 0; g < groups; g++) put(&counts, g, 0);
    for (int64_t i = 0; i < s.n; i++) {
        const int64_t g = number[rep[i]];
        put(&inverse, i, g);
        if (!omitted(&counts)) put(&counts, g, element_load_int(&counts, g * counts.stride[0]) + 1);
        if (rep[i] != i) continue;
        put(&first, g, i);
        for (int64_t o = 0; o < s.outer; o++)
            for (int64_t e = 0; e < s.inner; e++)
                ref_move(in, (o * s.n + i) * s.inner + e, out, (o * groups + g) * s.inner + e);
    }
}

/* Row-major operands. */
REF_KERNEL(nms)
{
    UNUSED_STATE;
    Nms s;
    const void *arg[3];
    for (int i = 0; i < 3; i++) arg[i] = node_in(n, i + 2) ? in[i + 2].data : NULL;
    if (!nms_args(n, in[0].data, in[1].data, arg[0], arg[1], arg[2], &s)) return;
    int64_t *rows = out->data;
    if (tensor_count(out) > 0) nms_select(&s, rows);
}
