/* Reductions: over any axes of any layout, accumulated in double.
 *
 * The input is walked in memory order (nest.h), so over N, H, W of a channels-last tensor a
 * block is rows of C floats that are added column by column; over the last axis of a
 * row-major one it is summed along the row in LANES lanes. The lanes are part of the program, not
 * of the machine: every instruction set adds in the same order. */
#include "ir/simd.h"
#include "runtime/cpu/cpu.h"
#include "runtime/scalar.h"

#include <math.h>
#include <string.h>

typedef struct Accumulate {
    Reduction r;
    MapFn *term;
    const void *ctx;
    double *first, *second; /* second: of the products */
} Accumulate;

/* ---- kernels over one row ----------------------------------------------------------- */

/* As many sums as hide the latency of an addition in the widest vectors. */
enum { LANES = 32 };

static double sum_of_lanes(double *lane)
{
    for (int n = LANES / 2; n > 0; n /= 2)
        for (int k = 0; k < n; k++) lane[k] += lane[k + n];
    return lane[0];
}

CLONES double cpu_row_sum(const float *x, int n)
{
    double lane[LANES] = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++) lane[k] += (double)x[i + k];
    for (; i < n; i++) lane[i % LANES] += (double)x[i];
    return sum_of_lanes(lane);
}

CLONES static double row_dot(const float *x, const float *y, int n)
{
    double lane[LANES] = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++) lane[k] += (double)x[i + k] * (double)y[i + k];
    for (; i < n; i++) lane[i % LANES] += (double)x[i] * (double)y[i];
    return sum_of_lanes(lane);
}

static double larger(double a, double b) { return a != a || a > b ? a : b; }
static double smaller(double a, double b) { return a != a || a < b ? a : b; }

static void reduce_row(const Accumulate *a, const float *x, const float *y, int n, int64_t at)
{
    switch (a->r) {
    case REDUCE_DOT:
        a->second[at] += row_dot(x, y, n); /* fall through */
    case REDUCE_SUM:
        a->first[at] += cpu_row_sum(x, n);
        break;
    case REDUCE_MAX:
        for (int i = 0; i < n; i++) a->first[at] = larger((double)x[i], a->first[at]);
        break;
    default:
        for (int i = 0; i < n; i++) a->first[at] = smaller((double)x[i], a->first[at]);
    }
}

/* ---- kernels over columns: one accumulator per column ------------------------------- */

/* Four rows at a time: the accumulators go through memory, and their latency would show. */
CLONES static void columns_sum(double *restrict sum, const float *restrict x, int rows, int cols)
{
    int r = 0;
    for (; r + 4 <= rows; r += 4, x += 4 * (int64_t)cols)
        for (int c = 0; c < cols; c++)
            sum[c] += ((double)x[c] + (double)x[c + cols]) +
                      ((double)x[c + 2 * cols] + (double)x[c + 3 * cols]);
    for (; r < rows; r++, x += cols)
        for (int c = 0; c < cols; c++) sum[c] += (double)x[c];
}

static inline double product(const float *x, const float *y, int i)
{
    return (double)x[i] * (double)y[i];
}

CLONES static void columns_dot(double *restrict sum, double *restrict dot, const float *x,
                               const float *y, int rows, int cols)
{
    int r = 0;
    for (; r + 4 <= rows; r += 4, x += 4 * (int64_t)cols, y += 4 * (int64_t)cols)
        for (int c = 0; c < cols; c++) {
            sum[c] += ((double)x[c] + (double)x[c + cols]) +
                      ((double)x[c + 2 * cols] + (double)x[c + 3 * cols]);
            dot[c] += (product(x, y, c) + product(x, y, c + cols)) +
                      (product(x, y, c + 2 * cols) + product(x, y, c + 3 * cols));
        }
    for (; r < rows; r++, x += cols, y += cols)
        for (int c = 0; c < cols; c++) {
            sum[c] += (double)x[c];
            dot[c] += product(x, y, c);
        }
}

CLONES static void columns_max(double *restrict acc, const float *restrict x, int rows, int cols)
{
    for (int r = 0; r < rows; r++, x += cols)
        for (int c = 0; c < cols; c++) acc[c] = larger((double)x[c], acc[c]);
}

CLONES static void columns_min(double *restrict acc, const float *restrict x, int rows, int cols)
{
    for (int r = 0; r < rows; r++, x += cols)
        for (int c = 0; c < cols; c++) acc[c] = smaller((double)x[c], acc[c]);
}

static void reduce_columns(const Accumulate *a, const float *x, const float *y, int rows, int cols,
                           int64_t at)
{
    switch (a->r) {
    case REDUCE_DOT:
        columns_dot(a->first + at, a->second + at, x, y, rows, cols);
        break;
    case REDUCE_SUM:
        columns_sum(a->first + at, x, rows, cols);
        break;
    case REDUCE_MAX:
        columns_max(a->first + at, x, rows, cols);
        break;
    default:
        columns_min(a->first + at, x, rows, cols);
    }
}

/* ---- walking ------------------------------------------------------------------------ */

/* Element (r, c) of a block goes to accumulator at + r * outer + c * inner. */
static void reduce_strided(const Accumulate *a, const float *x, const float *y, int rows, int cols,
                           int64_t at, int64_t inner, int64_t outer)
{
    if (inner == 1 && (outer == 0 || rows == 1)) {
        reduce_columns(a, x, y, rows, cols, at);
    } else if (inner == 0 && outer == 0) {
        reduce_row(a, x, y, rows * cols, at);
    } else if (inner == 0) {
        for (int r = 0; r < rows; r++)
            reduce_row(a, x + (int64_t)r * cols, y + (int64_t)r * cols, cols, at + r * outer);
    } else {
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < cols; c++) {
                const int64_t i = (int64_t)r * cols + c;
                reduce_row(a, x + i, y + i, 1, at + r * outer + c * inner);
            }
    }
}

/* The accumulator is the last operand of the nest. */
static void reduce_block(void *ctx, const Block *b, const Nest *n)
{
    const Accumulate *a = ctx;
    const int last = n->operands - 1, in = n->loops - 1;
    const float *x = b->x[0];
    float terms[BLOCK];
    if (a->term) {
        a->term(a->ctx, b->rows * b->cols, terms, b->x);
        x = terms;
    }
    reduce_strided(a, x, last > 1 ? b->x[1] : x, b->rows, b->cols, b->at[last], n->stride[last][in],
                   in > 0 ? n->stride[last][in - 1] : 0);
}

void cpu_sum_block(double *acc, const float *x, int rows, int cols, int64_t inner, int64_t outer)
{
    const Accumulate a = {.r = REDUCE_SUM, .first = acc};
    reduce_strided(&a, x, x, rows, cols, 0, inner, outer);
}

void cpu_accumulate(Reduction r, MapFn *term, const void *ctx, int operands, const Tensor *const *t,
                    const Tensor *kept, double *acc)
{
    const Tensor *all[MAP_BLOCKS];
    Tensor places = dense_like(kept, DT_F64, NULL);
    int64_t count = tensor_count(kept);
    double start = r == REDUCE_MAX ? -INFINITY : r == REDUCE_MIN ? INFINITY : 0;
    Accumulate a = {r, term, ctx, acc, acc + count};
    Nest n;
    for (int64_t i = 0; i < count * (r == REDUCE_DOT ? 2 : 1); i++) acc[i] = start;
    for (int k = 0; k < operands; k++) all[k] = t[k];
    all[operands] = &places;
    nest_make(&n, operands + 1, all);
    block_read(&n, all, reduce_block, &a);
}

/* ---- the ops ------------------------------------------------------------------------ */

/* The output with its reduced axes kept as 1. */
static Tensor kept_shape(const Node *n, const Tensor *in)
{
    const Tensor *x = &in[0], *axes = optional(n, in, 1);
    Tensor kept = *x;
    int64_t count = axes ? tensor_count(axes) : 0;
    if (count == 0 && node_int(n, "noop_with_empty_axes", 0)) return kept;
    for (int i = 0; i < x->rank && count == 0; i++) kept.dim[i] = 1;
    for (int64_t i = 0; i < count; i++)
        kept.dim[axis_index(element_load_int(axes, i * axes->stride[0]), x->rank)] = 1;
    return kept;
}

void store_doubles(const Tensor *dst, double *x)
{
    Tensor src = dense_like(dst, DT_F64, x);
    if (dst->dtype != DT_F32 || !tensor_is_row_major(dst)) {
        tensor_copy(&src, dst);
        return;
    }
    float *y = dst->data;
    for (int64_t i = 0; i < tensor_count(dst); i++) y[i] = (float)x[i];
}

int cpu_reduce_prepare(Prepare *p)
{
    p->scratch = (size_t)tensor_count(&p->out[0]) * sizeof(double);
    return 0;
}

CLONES static void products(const void *ctx, int n, float *y, const float *const *x)
{
    const float *restrict a = x[0], *restrict b = x[1];
    (void)ctx;
    for (int i = 0; i < n; i++) y[i] = a[i] * b[i];
}

CLONES static void magnitudes(const void *ctx, int n, float *y, const float *const *x)
{
    const float *a = x[0];
    (void)ctx;
    for (int i = 0; i < n; i++) y[i] = fabsf(a[i]);
}

static double mean(double sum, double each) { return sum / each; }
static double root(double sum, double each) { return (void)each, sqrt(sum); }
static double logarithm(double sum, double each) { return (void)each, log(sum); }

/* ReduceSum and what sums by way of another function: a sum of terms, and what becomes of it. */
int cpu_reduce_map(MapLoop *l, const Prepare *p)
{
    const Op op = p->node->op;
    const bool square = op == OP_ReduceSumSquare || op == OP_ReduceL2;
    if (!block_float(p->in[0].dtype)) return 0;
    if (p->nin > 1 && p->in[1].rank >= 0 && !p->in[1].data) return 0; /* axes, not yet known */
    l->sums = true;
    l->term = square ? products : op == OP_ReduceL1 ? magnitudes : NULL;
    l->finish = op == OP_ReduceMean     ? mean
                : op == OP_ReduceL2     ? root
                : op == OP_ReduceLogSum ? logarithm
                                        : NULL;
    l->kept = kept_shape(p->node, p->in);
    loop_operand(l, p->in[0], 0);
    if (square) loop_operand(l, p->in[0], 0);
    return 1;
}

void cpu_reduce_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                    void *scratch)
{
    Tensor kept = kept_shape(n, in);
    const Tensor *x[] = {&in[0]};
    (void)state;
    if (!block_float(in[0].dtype)) {
        cpu_naive_run(n, NULL, in, out, scratch);
        return;
    }
    cpu_accumulate(n->op == OP_ReduceMax ? REDUCE_MAX : REDUCE_MIN, NULL, NULL, 1, x, &kept,
                   scratch);
    store_doubles(&out[0], scratch);
}

CLONES static void exponentials(const void *ctx, int n, float *y, const float *const *x)
{
    const float *a = x[0], *max = x[1];
    (void)ctx;
    for (int i = 0; i < n; i++) y[i] = scalar_expf(a[i] - max[i]);
}

int cpu_logsumexp_prepare(Prepare *p)
{
    p->scratch = (size_t)tensor_count(&p->out[0]) * (sizeof(double) + sizeof(float));
    return 0;
}

/* Relative to the largest: y = max + log(sum of exp(x - max)) */
void cpu_logsumexp_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                       void *scratch)
{
    int64_t count = tensor_count(&out[0]);
    double *acc = scratch;
    float *max = (float *)(void *)(acc + count);
    Tensor kept = kept_shape(n, in), largest = dense_like(&kept, DT_F32, max);
    const Tensor *x[] = {&in[0], &largest};
    (void)state;
    if (!block_float(in[0].dtype)) {
        cpu_naive_run(n, NULL, in, out, scratch);
        return;
    }
    cpu_accumulate(REDUCE_MAX, NULL, NULL, 1, x, &kept, acc);
    for (int64_t i = 0; i < count; i++) max[i] = isinf(acc[i]) ? 0 : (float)acc[i];
    cpu_accumulate(REDUCE_SUM, exponentials, NULL, 2, x, &kept, acc);
    for (int64_t i = 0; i < count; i++) acc[i] = (double)max[i] + log(acc[i]);
    store_doubles(&out[0], acc);
}

int cpu_sum_product_map(MapLoop *l, const Prepare *p)
{
    size_t count = 0;
    const int64_t *axes = node_ints(p->node, "axes", &count);
    if (!block_float(p->in[0].dtype) || !block_float(p->in[1].dtype)) return 0;
    loop_over(l, NULL, p, 2);
    l->sums = true;
    l->term = products;
    l->kept = p->in[0];
    for (size_t k = 0; k < count; k++) l->kept.dim[axis_index(axes[k], l->kept.rank)] = 1;
    return 1;
}
