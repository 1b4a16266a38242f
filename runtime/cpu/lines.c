/* Ops that go along an axis or pick by position, on dense row-major tensors seen as
 * [outer, n, inner]: ArgMax, ArgMin, TopK, CumSum, OneHot, GatherElements, GatherND and
 * their kin, Trilu, ReverseSequence. Types that are too rare for a loop of their own go to the
 * reference kernels. */
#include <string.h>

#include "ir/simd.h"
#include "runtime/cpu/cpu.h"

typedef struct Lines {
    int64_t outer, n, inner;
} Lines;

static Lines lines_of(const Tensor *t, int axis)
{
    Lines l = {1, t->dim[axis], 1};
    for (int a = 0; a < axis; a++) l.outer *= t->dim[a];
    for (int a = axis + 1; a < t->rank; a++) l.inner *= t->dim[a];
    return l;
}

/* ---- ArgMax, ArgMin ------------------------------------------------------------------ */

/* Integers in the order of the floats: both zeros alike, NaN above all. */
static inline int32_t ordered(float x)
{
    int32_t bits;
    const float y = x + 0.f;
    memcpy(&bits, &y, sizeof bits);
    return x != x ? INT32_MAX : bits ^ (bits >> 31 & INT32_MAX);
}

/* Where the largest ordered(x) ^ flip of a dense line is: the first, or the last. */
CLONES static int64_t arg_of_line(const float *x, int64_t n, int32_t flip, bool last)
{
    int32_t best = INT32_MIN;
    for (int64_t i = 0; i < n; i++) {
        const int32_t k = ordered(x[i]) ^ flip;
        best = k > best ? k : best;
    }
    int64_t i = last ? n - 1 : 0;
    while ((ordered(x[i]) ^ flip) != best) i += last ? -1 : 1;
    return i;
}

/* One step along the axis for all lines beside each other. */
CLONES static void arg_step(const float *x, int64_t i, int64_t n, int32_t flip, bool last,
                            int32_t *restrict best, int64_t *restrict at)
{
    for (int64_t j = 0; j < n; j++) {
        const int32_t k = ordered(x[j]) ^ flip;
        const bool take = i == 0 || k > best[j] || (last && k == best[j]);
        best[j] = take ? k : best[j];
        at[j] = take ? i : at[j];
    }
}

CPU_PREPARE(arg)
{
    const Lines l = lines_of(p->in, axis_index(node_int(p->node, "axis", 0), p->in->rank));
    p->scratch = (size_t)l.inner * sizeof(int32_t);
    return 0;
}

CPU_RUN(arg)
{
    const Lines l = lines_of(in, axis_index(node_int(n, "axis", 0), in->rank));
    const bool last = node_int(n, "select_last_index", 0) != 0;
    const int32_t flip = n->op == OP_ArgMin ? -1 : 0;
    const float *x = in->data;
    int64_t *y = out->data;
    if (in->dtype != DT_F32 || l.n == 0) {
        cpu_naive_run(n, state, in, out, scratch);
        return;
    }
    for (int64_t o = 0; o < l.outer; o++, x += l.n * l.inner, y += l.inner)
        if (l.inner == 1)
            *y = arg_of_line(x, l.n, flip, last);
        else
            for (int64_t i = 0; i < l.n; i++)
                arg_step(x + i * l.inner, i, l.inner, flip, last, scratch, y);
}

/* 1 at the first maximum of each line, 0 elsewhere. */
CPU_RUN(hardmax)
{
    const Lines l = lines_of(in, axis_index(node_int(n, "axis", -1), in->rank));
    float *y = out->data;
    if (in->dtype != DT_F32 || l.inner != 1 || l.n == 0) {
        cpu_naive_run(n, state, in, out, scratch);
        return;
    }
    cpu_fill_zero(out);
    for (int64_t o = 0; o < l.outer; o++)
        y[o * l.n + arg_of_line((const float *)in->data + o * l.n, l.n, 0, false)] = 1;
}

/* ---- TopK ---------------------------------------------------------------------------- */

/* Moves key i of a heap, whose first is the least, to where it belongs. */
static void sift_down(int64_t *heap, int64_t n, int64_t i)
{
    const int64_t key = heap[i];
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= key) break;
        heap[i] = heap[child];
    }
    heap[i] = key;
}

/* Larger for what comes first: the order of the floats, and among equal ones of their positions. */
static inline int64_t key_of(float x, int64_t i, int32_t flip)
{
    return (int64_t)(ordered(x) ^ flip) * ((int64_t)1 << 32) + (int64_t)(UINT32_MAX - (uint64_t)i);
}

/* The keys of the first k of a line, in order. */
static void first_of_line(int64_t *key, int64_t k, const float *x, int64_t n, int64_t step,
                          int32_t flip)
{
    for (int64_t i = 0; i < k; i++) key[i] = key_of(x[i * step], i, flip);
    for (int64_t i = k / 2 - 1; i >= 0; i--) sift_down(key, k, i);
    for (int64_t i = k; i < n; i++) {
        const int64_t other = key_of(x[i * step], i, flip);
        if (other <= key[0]) continue;
        key[0] = other;
        sift_down(key, k, 0);
    }
    for (int64_t left = k - 1; left > 0; left--) {
        const int64_t least = key[0];
        key[0] = key[left];
        sift_down(key, left, 0);
        key[left] = least;
    }
}

CPU_RUN(topk)
{
    const int axis = axis_index(node_int(n, "axis", -1), in->rank);
    const Lines l = lines_of(in, axis);
    const int64_t k = out->dim[axis], *key = scratch;
    const int32_t flip = node_int(n, "largest", 1) ? 0 : -1;
    if (in->dtype != DT_F32 || k == 0 || l.n > UINT32_MAX) {
        cpu_naive_run(n, state, in, out, scratch);
        return;
    }
    for (int64_t o = 0; o < l.outer * l.inner; o++) {
        const float *x = (const float *)in->data + o / l.inner * l.n * l.inner + o % l.inner;
        const int64_t to = o / l.inner * k * l.inner + o % l.inner;
        first_of_line(scratch, k, x, l.n, l.inner, flip);
        for (int64_t i = 0; i < k; i++) {
            const int64_t at = (int64_t)(UINT32_MAX - (uint32_t)key[i]);
            ((float *)out->data)[to + i * l.inner] = x[at * l.inner];
            if (n->nout > 1 && out[1].rank >= 0) ((int64_t *)out[1].data)[to + i * l.inner] = at;
        }
    }
}

/* ---- CumSum -------------------------------------------------------------------------- */

CLONES static void add_rows(float *y, const float *a, const float *b, int64_t n)
{
    INDEPENDENT
    for (int64_t j = 0; j < n; j++) y[j] = a[j] + b[j];
}

static void sum_line(float *y, const float *x, int64_t n, int64_t step, bool exclusive)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++, x += step, y += step) {
        const double before = sum;
        sum += (double)*x;
        *y = (float)(exclusive ? before : sum);
    }
}

/* y[i] = x[0] + … + x[i], without x[i] if exclusive, from the end if reverse. */
CPU_RUN(cumsum)
{
    const bool exclusive = node_int(n, "exclusive", 0) != 0, reverse = node_int(n, "reverse", 0);
    if (in->dtype != DT_F32 || tensor_count(in) == 0) {
        cpu_naive_run(n, state, in, out, scratch);
        return;
    }
    const Lines l = lines_of(in, axis_index(element_load_int(&in[1], 0), in->rank));
    const int64_t step = reverse ? -l.inner : l.inner, first = reverse ? (l.n - 1) * l.inner : 0;
    const float *x = (const float *)in->data + first;
    float *y = (float *)out->data + first;
    for (int64_t o = 0; o < l.outer; o++, x += l.n * l.inner, y += l.n * l.inner) {
        if (l.inner == 1) {
            sum_line(y, x, l.n, step, exclusive);
            continue;
        }
        for (int64_t j = 0; j < l.inner; j++) y[j] = exclusive ? 0 : x[j];
        for (int64_t i = 1; i < l.n; i++)
            add_rows(y + i * step, y + (i - 1) * step, x + (i - exclusive) * step, l.inner);
    }
}

/* ---- by position --------------------------------------------------------------------- */

static inline int64_t position(const Tensor *indices, int64_t k, int64_t size)
{
    int64_t i = indices->dtype == DT_I64   ? ((const int64_t *)indices->data)[k]
                : indices->dtype == DT_I32 ? ((const int32_t *)indices->data)[k]
                                           : element_load_int(indices, k);
    if (i < 0) i += size;
    return i;
}

static inline void move_element(char *to, const char *from, size_t size)
{
    if (size == 4)
        memcpy(to, from, 4);
    else if (size == 8)
        memcpy(to, from, 8);
    else
        memcpy(to, from, size);
}

/* (indices, depth, [off, on]) */
CPU_RUN(one_hot)
{
    const Lines l = lines_of(out, axis_index(node_int(n, "axis", -1), out->rank));
    const size_t size = dtype_size(out->dtype);
    const char *on = (const char *)in[2].data + size;
    const Tensor off = {.dtype = out->dtype, .data = in[2].data};
    (void)state, (void)scratch;
    cpu_copy(out, &off);
    for (int64_t k = 0; k < l.outer * l.inner; k++) {
        const int64_t i = position(in, k, l.n);
        const int64_t at = (k / l.inner * l.n + i) * l.inner + k % l.inner;
        if (i >= 0 && i < l.n) move_element((char *)out->data + at * (int64_t)size, on, size);
    }
}

/* Where the elements of `small`, the shape of the indices, lie in `big` if position 0 is meant:
 * lines of the last axis, `step` apart in big. */
typedef struct Picks {
    Nest nest;
    NestPos pos;
    int axis;
    int64_t n, step, along, size;
} Picks;

static void picks_begin(Picks *p, const Node *n, const Tensor *indices, const Tensor *big)
{
    const int last = indices->rank - 1;
    Tensor small = *indices, from = *big;
    p->axis = axis_index(node_int(n, "axis", 0), big->rank);
    p->n = indices->dim[last];
    p->along = big->stride[p->axis];
    p->step = p->axis == last ? 0 : big->stride[last];
    p->size = big->dim[p->axis];
    p->pos = (NestPos){0};
    small.dim[last] = 1;
    for (int a = 0; a <= last; a++) from.dim[a] = small.dim[a];
    from.stride[p->axis] = 0;
    const Tensor *t[] = {&small, &from};
    nest_make(&p->nest, 2, t);
}

static bool picks_next(Picks *p) { return nest_next(&p->nest, p->nest.loops, &p->pos); }

/* Element j of the line, in big; any element rather than one outside. */
static inline int64_t picked(const Picks *p, const Tensor *indices, int64_t j)
{
    const int64_t i = position(indices, p->pos.offset[0] + j, p->size);
    return p->pos.offset[1] + j * p->step + (i < 0 || i >= p->size ? 0 : i) * p->along;
}

CPU_RUN(gather_elements)
{
    const int64_t size = (int64_t)dtype_size(in->dtype);
    const char *x = in->data;
    char *y = out->data;
    Picks p;
    if (tensor_count(in) == 0 || tensor_count(out) == 0 || out->rank == 0) {
        cpu_naive_run(n, state, in, out, scratch);
        return;
    }
    picks_begin(&p, n, &in[1], in);
    do
        for (int64_t j = 0; j < p.n; j++)
            move_element(y + (p.pos.offset[0] + j) * size, x + picked(&p, &in[1], j) * size,
                         (size_t)size);
    while (picks_next(&p));
}

CPU_RUN(scatter_elements)
{
    const char *reduction = node_str(n, "reduction", "none");
    const bool set = strcmp(reduction, "none") == 0, add = strcmp(reduction, "add") == 0;
    const int64_t size = (int64_t)dtype_size(out->dtype);
    Picks p;
    if (tensor_count(&in[1]) == 0 || tensor_count(out) == 0 || out->rank == 0 ||
        !(set || (add && out->dtype == DT_F32))) {
        cpu_naive_run(n, state, in, out, scratch);
        return;
    }
    cpu_copy(out, in);
    picks_begin(&p, n, &in[1], out);
    do
        for (int64_t j = 0; j < p.n; j++) {
            const int64_t to = picked(&p, &in[1], j), from = p.pos.offset[0] + j;
            if (set)
                move_element((char *)out->data + to * size, (char *)in[2].data + from * size,
                             (size_t)size);
            else
                ((float *)out->data)[to] += ((const float *)in[2].data)[from];
        }
    while (picks_next(&p));
}

/* The element of x that numbers k … k + depth - 1 of the indices name on its axes from `first` on.
 */
static int64_t named(const Tensor *x, int first, const Tensor *indices, int64_t k, int64_t depth)
{
    int64_t at = 0;
    for (int a = 0; a < depth; a++) {
        const int64_t size = x->dim[first + a], i = position(indices, k + a, size);
        at += (i < 0 || i >= size ? 0 : i) * x->stride[first + a];
    }
    return at;
}

/* Elements that stay together: what `axes` leading axes leave open. */
static int64_t rest_of(const Tensor *x, int axes)
{
    int64_t n = 1;
    for (int a = axes; a < x->rank; a++) n *= x->dim[a];
    return n;
}

CPU_RUN(gather_nd)
{
    const int batch = (int)node_int(n, "batch_dims", 0);
    const int64_t depth = in[1].dim[in[1].rank - 1], size = (int64_t)dtype_size(in->dtype);
    if (tensor_count(in) == 0 || tensor_count(out) == 0) {
        cpu_naive_run(n, state, in, out, scratch);
        return;
    }
    const int64_t each = rest_of(in, batch + (int)depth), part = rest_of(in, batch);
    const int64_t count = tensor_count(out) / each, per = count / (tensor_count(in) / part);
    for (int64_t k = 0; k < count; k++) {
        const int64_t from = k / per * part + named(in, batch, &in[1], k * depth, depth);
        memcpy((char *)out->data + k * each * size, (const char *)in->data + from * size,
               (size_t)(each * size));
    }
}

CPU_RUN(scatter_nd)
{
    const char *reduction = node_str(n, "reduction", "none");
    const bool set = strcmp(reduction, "none") == 0, add = strcmp(reduction, "add") == 0;
    const int64_t depth = in[1].dim[in[1].rank - 1], size = (int64_t)dtype_size(out->dtype);
    if (tensor_count(&in[2]) == 0 || tensor_count(out) == 0 ||
        !(set || (add && out->dtype == DT_F32))) {
        cpu_naive_run(n, state, in, out, scratch);
        return;
    }
    const int64_t each = rest_of(in, (int)depth), count = tensor_count(&in[2]) / each;
    cpu_copy(out, in);
    for (int64_t k = 0; k < count; k++) {
        const int64_t to = named(out, 0, &in[1], k * depth, depth);
        float *y = out->data;
        const float *x = in[2].data;
        if (set)
            memcpy((char *)out->data + to * size, (const char *)in[2].data + k * each * size,
                   (size_t)(each * size));
        else
            add_rows(y + to, y + to, x + k * each, each);
    }
}

/* The slices that a condition chooses, of any layout; elements where no axis is given. */
CPU_RUN(compress)
{
    const int axis = axis_index(node_int(n, "axis", 0), in->rank);
    const int64_t count = tensor_count(&in[1]);
    if (!node_attr(n, "axis")) {
        cpu_naive_run(n, state, in, out, scratch);
        return;
    }
    for (int64_t i = 0, k = 0; i < count && k < out->dim[axis]; i++) {
        if (!element_load_int(&in[1], i * in[1].stride[0])) continue;
        const Tensor to = tensor_section(out, axis, k++, 1), from = tensor_section(in, axis, i, 1);
        cpu_copy(&to, &from);
    }
}

/* ---- whole rows ---------------------------------------------------------------------- */

/* Upper: columns from row + k on; lower: columns up to row + k. */
CPU_RUN(trilu)
{
    const int64_t size = (int64_t)dtype_size(in->dtype), rows = in->dim[in->rank - 2],
                  columns = in->dim[in->rank - 1];
    const int64_t k = node_in(n, 1) ? element_load_int(&in[1], 0) : 0, count = tensor_count(in);
    const bool upper = node_int(n, "upper", 1) != 0;
    const char *x = in->data;
    char *y = out->data;
    (void)state, (void)scratch;
    for (int64_t r = 0; r * columns < count; r++, x += columns * size, y += columns * size) {
        int64_t edge = k > columns ? columns : k < -rows ? 0 : r % rows + k + !upper;
        edge = (edge < 0 ? 0 : edge > columns ? columns : edge) * size;
        const int64_t rest = columns * size - edge;
        memset(upper ? y : y + edge, 0, (size_t)(upper ? edge : rest));
        if (upper)
            memcpy(y + edge, x + edge, (size_t)rest);
        else
            memcpy(y, x, (size_t)edge);
    }
}

/* The first `length` elements of each sample in reverse. */
CPU_RUN(reverse_sequence)
{
    const int batch = (int)node_int(n, "batch_axis", 1);
    const int64_t times = in->dim[!batch], rows = in->dim[0], each = in->dim[1];
    const int64_t size = lines_of(in, 1).inner * (int64_t)dtype_size(in->dtype);
    (void)state, (void)scratch;
    for (int64_t k = 0; k < rows * each; k++) {
        const int64_t row = k / each, column = k % each, t = batch ? row : column;
        const int64_t length = element_load_int(&in[1], batch ? column : row);
        const int64_t from = length <= times && t < length ? length - 1 - t : t;
        memcpy((char *)out->data + k * size,
               (const char *)in->data + (batch ? from * each + column : row * each + from) * size,
               (size_t)size);
    }
}
