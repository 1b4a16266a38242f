/* Arguments of Slice and Pad. */
#include "ir/select.h"

#include "ir/ops/common.h"

/* The list of input i, of `count` elements; `otherwise` (or 0, 1, 2 … if -1) where it is omitted.
 * 1: known, 0: not. */
static int slice_list(const Node *n, int i, int count, int64_t otherwise, int64_t *out, Diag *d)
{
    if (!node_in(n, i)) {
        for (int k = 0; k < count; k++) out[k] = otherwise < 0 ? k : otherwise;
        return 1;
    }
    int have = value_ints(n->in[i], out, MAX_RANK);
    if (have >= 0 && have != count)
        return node_error(d, n, "'%s' has %d elements, needs %d", n->in[i]->name, have, count);
    return have >= 0;
}

int slice_args(const Node *n, int rank, SliceArgs *s, Diag *d)
{
    int64_t axes[MAX_RANK];
    bool seen[MAX_RANK] = {0};
    s->n = value_ints(node_in(n, 1), s->start, MAX_RANK);
    if (s->n < 0) return s->n = 0;
    int ends = slice_list(n, 2, s->n, 0, s->end, d);
    TRY(ends);
    int listed = slice_list(n, 3, s->n, -1, axes, d);
    TRY(listed);
    int steps = slice_list(n, 4, s->n, 1, s->step, d);
    TRY(steps);
    if (!ends || !listed || !steps) return s->n = 0;
    for (int k = 0; k < s->n; k++) {
        TRY(axis_of(n, axes[k], rank, &s->axis[k], d));
        if (s->step[k] == 0) return node_error(d, n, "the step on axis %d is 0", s->axis[k]);
        if (seen[s->axis[k]]) return node_error(d, n, "axis %d is listed twice", s->axis[k]);
        seen[s->axis[k]] = true;
    }
    return 1;
}

static int64_t clamped(int64_t x, int64_t dim, int64_t low, int64_t high)
{
    if (x < 0) x = x < -dim ? low : x + dim;
    return x < low ? low : x > high ? high : x;
}

void slice_clamp(int64_t dim, int64_t *start, int64_t *end, int64_t step)
{
    int64_t high = step > 0 ? dim : dim - 1;
    *start = clamped(*start, dim, 0, high);
    *end = clamped(*end, dim, step > 0 ? 0 : -1, high);
    if (*start > high) *start = high; /* dim is 0 */
}

int64_t slice_count(int64_t start, int64_t end, int64_t step)
{
    /* Both lie in [-1, dim], so the difference is safe; |step| may be any number. */
    if (step > 0) return end <= start ? 0 : (end - start - 1) / step + 1;
    return start <= end ? 0 : (end - start + 1) / step + 1;
}

int pad_amounts(const Node *n, int rank, int64_t *before, int64_t *after, Diag *d)
{
    int64_t list[2 * MAX_RANK], axes[MAX_RANK];
    int have = value_ints(node_in(n, 1), list, 2 * MAX_RANK), count = rank;
    if (have < 0) return 0;
    for (int i = 0; i < rank; i++) {
        axes[i] = i;
        before[i] = after[i] = 0;
    }
    if (node_in(n, 3) && (count = value_ints(n->in[3], axes, MAX_RANK)) < 0) return 0;
    if (have != 2 * count)
        return node_error(d, n, "'%s' has %d elements, needs %d", n->in[1]->name, have, 2 * count);
    for (int k = 0; k < have; k++)
        if (dim_is_sym(list[k])) return 0;
    for (int k = 0; k < count; k++) {
        int axis = 0;
        TRY(axis_of(n, axes[k], rank, &axis, d));
        before[axis] = list[k];
        after[axis] = list[count + k];
    }
    return 1;
}
