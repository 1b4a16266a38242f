/* Loop nests and their blocks. */
#include "runtime/cpu/nest.h"

#include <stdlib.h>
#include <string.h>

/* Stride of operand t along dimension i of a shape of `rank`; 0 where it broadcasts. */
static int64_t stride_at(const Tensor *t, int rank, int i)
{
    int k = i - (rank - t->rank);
    return k < 0 || t->dim[k] == 1 ? 0 : t->stride[k];
}

static int64_t magnitude(int64_t x) { return x < 0 ? -x : x; }

/* Insertion sort of the loops by the lead's stride, largest first; stable, so that loops over
 * which the lead is constant keep their order. */
static void sort_loops(Nest *n)
{
    for (int i = 1; i < n->loops; i++)
        for (int j = i; j > 0; j--) {
            if (magnitude(n->stride[0][j - 1]) >= magnitude(n->stride[0][j])) break;
            int64_t d = n->dim[j];
            n->dim[j] = n->dim[j - 1], n->dim[j - 1] = d;
            for (int k = 0; k < n->operands; k++) {
                int64_t s = n->stride[k][j];
                n->stride[k][j] = n->stride[k][j - 1], n->stride[k][j - 1] = s;
            }
        }
}

static bool runs_on(const Nest *n, int outer, int inner)
{
    for (int k = 0; k < n->operands; k++)
        if (n->stride[k][outer] != n->stride[k][inner] * n->dim[inner]) return false;
    return true;
}

static void merge_loops(Nest *n)
{
    int last = 0;
    for (int i = 1; i < n->loops; i++) {
        bool merge = runs_on(n, last, i);
        int to = merge ? last : ++last;
        n->dim[to] = merge ? n->dim[last] * n->dim[i] : n->dim[i];
        for (int k = 0; k < n->operands; k++) n->stride[k][to] = n->stride[k][i];
    }
    n->loops = last + 1;
}

void nest_make(Nest *n, int operands, const Tensor *const *t)
{
    int rank = t[0]->rank;
    memset(n, 0, sizeof *n);
    n->operands = operands;
    for (int i = 0; i < rank; i++) {
        if (t[0]->dim[i] == 1) continue;
        n->dim[n->loops] = t[0]->dim[i];
        for (int k = 0; k < operands; k++) n->stride[k][n->loops] = stride_at(t[k], rank, i);
        n->loops++;
    }
    if (n->loops == 0) { /* one element, dense in every operand */
        n->dim[n->loops++] = 1;
        for (int k = 0; k < operands; k++) n->stride[k][0] = 1;
    }
    sort_loops(n);
    merge_loops(n);
}

bool nest_next(const Nest *n, int upto, NestPos *pos)
{
    for (int i = upto - 1; i >= 0; i--) {
        bool carry = ++pos->index[i] == n->dim[i];
        int64_t steps = carry ? 1 - n->dim[i] : 1;
        for (int k = 0; k < n->operands; k++) pos->offset[k] += steps * n->stride[k][i];
        if (!carry) return true;
        pos->index[i] = 0;
    }
    return false;
}

/* ---- operands as dense blocks ------------------------------------------------------- */

const float *source_block(Source *s, int64_t at, int rows, int cols)
{
    bool dense = s->inner == 1 && (rows == 1 || s->outer == cols);
    if (dense && s->t->dtype == DT_F32) return (const float *)s->t->data + at;
    if (s->at == at && s->cols == cols && s->rows >= rows) return s->buffer;
    if (dense) {
        load_line(s->buffer, s->t, at, 1, rows * cols);
    } else {
        for (int r = 0; r < rows; r++) {
            if (r > 0 && s->outer == 0)
                memcpy(s->buffer + (int64_t)r * cols, s->buffer, (size_t)cols * sizeof(float));
            else
                load_line(s->buffer + (int64_t)r * cols, s->t, at + r * s->outer, s->inner, cols);
        }
    }
    s->at = at, s->rows = rows, s->cols = cols;
    return s->buffer;
}

void source_store(const Source *s, int64_t at, const float *src, int rows, int cols)
{
    if (s->inner == 1 && (rows == 1 || s->outer == cols)) {
        store_line(s->t, at, 1, src, rows * cols);
        return;
    }
    for (int r = 0; r < rows; r++)
        store_line(s->t, at + r * s->outer, s->inner, src + (int64_t)r * cols, cols);
}

/* ---- walking ------------------------------------------------------------------------ */

void walk_begin(Walk *w, const Nest *n, const Tensor *const *t, float *buffers)
{
    int in = n->loops - 1;
    w->n = n;
    w->cols = n->dim[in];
    w->rows = in > 0 ? n->dim[in - 1] : 1;
    w->step_c = w->cols < BLOCK ? w->cols : BLOCK;
    w->step_r = w->cols < BLOCK && w->cols > 0 ? BLOCK / w->cols : 1;
    for (int k = 0; k < n->operands; k++)
        w->src[k] = (Source){.t = t[k],
                             .inner = n->stride[k][in],
                             .outer = in > 0 ? n->stride[k][in - 1] : 0,
                             .at = -1,
                             .rows = -1,
                             .buffer = buffers ? buffers + (size_t)k * BLOCK : NULL};
}

static int smaller(int64_t a, int64_t b) { return (int)(a < b ? a : b); }

void walk(Walk *w, BlockFn *f, void *ctx)
{
    const Nest *n = w->n;
    int outer = n->loops > 2 ? n->loops - 2 : 0;
    NestPos pos = {0};
    for (int i = 0; i < n->loops; i++)
        if (n->dim[i] == 0) return;
    do {
        for (int64_t r = 0; r < w->rows; r += w->step_r)
            for (int64_t c = 0; c < w->cols; c += w->step_c) {
                int64_t at[NEST_OPERANDS];
                for (int k = 0; k < n->operands; k++)
                    at[k] = pos.offset[k] + r * w->src[k].outer + c * w->src[k].inner;
                f(w, ctx, at, smaller(w->step_r, w->rows - r), smaller(w->step_c, w->cols - c));
            }
    } while (nest_next(n, outer, &pos));
}

typedef struct ReadCall {
    ReadFn *f;
    void *ctx;
} ReadCall;

static void read_block(Walk *w, void *ctx, const int64_t *at, int rows, int cols)
{
    const ReadCall *call = ctx;
    Block b = {.rows = rows, .cols = cols};
    for (int k = 0; k < w->n->operands; k++) {
        b.at[k] = at[k];
        if (w->src[k].t->data) b.x[k] = source_block(&w->src[k], at[k], rows, cols);
    }
    call->f(call->ctx, &b, w->n);
}

void block_read(const Nest *n, const Tensor *const *t, ReadFn *f, void *ctx)
{
    float buffers[MAP_BLOCKS * BLOCK] __attribute__((aligned(64)));
    Walk w;
    ReadCall call = {f, ctx};
    walk_begin(&w, n, t, buffers);
    walk(&w, read_block, &call);
}

typedef struct MapCall {
    MapFn *f;
    const void *ctx;
} MapCall;

static void map_block(Walk *w, void *ctx, const int64_t *at, int rows, int cols)
{
    const MapCall *call = ctx;
    const Source *y = &w->src[0];
    const float *x[NEST_OPERANDS];
    bool direct = y->t->dtype == DT_F32 && y->inner == 1 && (rows == 1 || y->outer == cols);
    for (int k = 1; k < w->n->operands; k++) x[k - 1] = source_block(&w->src[k], at[k], rows, cols);
    float *dst = direct ? (float *)y->t->data + at[0] : y->buffer;
    call->f(call->ctx, rows * cols, dst, x);
    if (!direct) source_store(y, at[0], dst, rows, cols);
}

void block_map(int operands, const Tensor *const *t, MapFn *f, const void *ctx)
{
    float buffers[MAP_BLOCKS * BLOCK] __attribute__((aligned(64)));
    Nest n;
    Walk w;
    MapCall call = {f, ctx};
    nest_make(&n, operands, t);
    walk_begin(&w, &n, t, buffers);
    walk(&w, map_block, &call);
}

static void map_copy(const void *ctx, int n, float *y, const float *const *x)
{
    (void)ctx;
    memcpy(y, x[0], (size_t)n * sizeof *y);
}

/* Without a block in between where one side is float and both lie alike. */
static bool convert_dense(const Tensor *dst, const Tensor *src)
{
    int64_t n = tensor_count(dst);
    if (!tensor_same_layout(dst, src) || (dst->dtype != DT_F32 && src->dtype != DT_F32))
        return false;
    if (dst->dtype == DT_F32)
        load_floats(dst->data, src->data, src->dtype, n);
    else
        store_floats(dst->data, src->data, dst->dtype, n);
    return true;
}

void cpu_convert(const Tensor *dst, const Tensor *src)
{
    if (convert_dense(dst, src)) return;
    const Tensor *t[] = {dst, src};
    block_map(2, t, map_copy, NULL);
}
