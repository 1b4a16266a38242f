/* Matrix products: MatMul with broadcasting leading dimensions, and Gemm.
 *
 * Operands go to the library as they lie if one of their last two axes is dense, transposed or not;
 * else, or if their type is another, a dense copy of them does. Leading dimensions become one
 * strided batch; what does not fit one stride is a loop. Gemm's C is put where the product will be
 * added to it. */
#include <stdlib.h>
#include <string.h>

#include "runtime/cuda/cuda.h"
#include "runtime/cuda/loops.h"

enum { A, B, Y };

typedef struct Matmul {
    Tensor view[3];  /* a, b, y with equal ranks, no data */
    Tensor dense[3]; /* the staged form */
    bool staged[3];
    Convert convert[3];
    size_t scratch[3];
    GpuGemm gemm;
    Loops outer; /* operands a, b, y; the innermost loop is the batch */
    bool has_c;
    Tensor c;
    Convert preload;
} Matmul;

static void insert_axis(Tensor *t, int at)
{
    for (int i = t->rank; i > at; i--) t->dim[i] = t->dim[i - 1], t->stride[i] = t->stride[i - 1];
    t->dim[at] = 1;
    t->stride[at] = 1;
    t->rank++;
}

static void swap_last(Tensor *t)
{
    const int i = t->rank - 1, j = t->rank - 2;
    const int64_t d = t->dim[i], s = t->stride[i];
    t->dim[i] = t->dim[j], t->stride[i] = t->stride[j];
    t->dim[j] = d, t->stride[j] = s;
}

static void set_views(Tensor *v, const Node *n, const Tensor *in, const Tensor *out)
{
    v[A] = in[0];
    v[B] = in[1];
    v[Y] = out[0];
    for (int k = 0; k < 3; k++) v[k].data = NULL;
    if (n->op == OP_Gemm) {
        if (node_int(n, "transA", 0)) swap_last(&v[A]);
        if (node_int(n, "transB", 0)) swap_last(&v[B]);
        return;
    }
    const bool row = v[A].rank == 1, column = v[B].rank == 1;
    if (row) insert_axis(&v[A], 0);
    if (column) insert_axis(&v[B], 1);
    if (column) insert_axis(&v[Y], v[Y].rank);
    if (row) insert_axis(&v[Y], v[Y].rank - 1);
    while (v[A].rank < v[Y].rank) insert_axis(&v[A], 0);
    while (v[B].rank < v[Y].rank) insert_axis(&v[B], 0);
}

bool matmul_can(const Device *d, const Node *n, const Tensor *in, const Tensor *out)
{
    const Tensor *t[] = {&in[0], &in[1], &out[0]};
    (void)d;
    for (int k = 0; k < 3; k++)
        if (!cuda_is_float(t[k]->dtype) || tensor_count(t[k]) == 0 ||
            tensor_count(t[k]) > INT32_MAX)
            return false;
    return out[0].rank < MAX_RANK - 1 &&
           (n->nin < 3 || in[2].rank < 0 || cuda_is_float(in[2].dtype));
}

/* The leading dimension of a matrix in the last two axes; *transposed: its columns are dense. 0 if
 * neither axis is. */
static int64_t leading(const Tensor *t, bool *transposed)
{
    const int i = t->rank - 1, j = t->rank - 2;
    const int64_t rows = t->dim[j], cols = t->dim[i];
    *transposed = false;
    if (cols == 1 || t->stride[i] == 1) {
        const int64_t ld = rows == 1 ? cols : t->stride[j];
        if (ld >= cols && (cols > 1 || t->stride[i] == 1 || ld == 1)) return ld;
    }
    *transposed = true;
    if (rows == 1 || t->stride[j] == 1) {
        const int64_t ld = cols == 1 ? rows : t->stride[i];
        if (ld >= rows) return ld;
    }
    return 0;
}

static void stage(Matmul *s, int k, DType storage, size_t *at)
{
    bool transposed;
    const int64_t ld = leading(&s->view[k], &transposed);
    s->dense[k] = s->view[k];
    s->staged[k] =
        s->view[k].dtype != storage || ld == 0 || ld > INT32_MAX || (k == Y && transposed);
    if (!s->staged[k]) return;
    s->dense[k].dtype = storage;
    tensor_set_strides(&s->dense[k], false);
    s->scratch[k] = *at;
    *at += ((size_t)tensor_count(&s->dense[k]) * dtype_size(storage) + 255) & ~(size_t)255;
    if (k == Y)
        convert_make(&s->convert[k], &s->view[k], &s->dense[k]);
    else
        convert_make(&s->convert[k], &s->dense[k], &s->view[k]);
}

/* Loops over the leading dimensions, innermost last; at least one. */
static void set_batch(Matmul *s)
{
    Tensor lead[3];
    const Tensor *t[3];
    Loops l;
    for (int k = 0; k < 3; k++) {
        lead[k] = s->dense[k];
        lead[k].rank -= 2;
        t[(k + 1) % 3] = &lead[k]; /* y leads */
    }
    loops_make(&l, 3, t);
    s->outer = l;
    for (int i = 0; i < l.n; i++)
        for (int k = 0; k < 3; k++) s->outer.stride[k][i] = l.stride[(k + 1) % 3][i];
}

static void set_gemm(Matmul *s, const Node *n, bool tf32)
{
    const int rank = s->dense[Y].rank, in = s->outer.n - 1;
    GpuGemm *g = &s->gemm;
    bool transposed;
    const int64_t ldy = leading(&s->dense[Y], &transposed);
    g->lda = (int)leading(&s->dense[A], &g->ta);
    g->ldb = (int)leading(&s->dense[B], &g->tb);
    g->ldy = (int)ldy;
    g->storage = s->dense[A].dtype;
    g->result = s->dense[Y].dtype;
    g->tf32 = tf32;
    g->m = (int)s->dense[Y].dim[rank - 2];
    g->n = (int)s->dense[Y].dim[rank - 1];
    g->k = (int)s->dense[A].dim[rank - 1];
    g->batch = (int)s->outer.dim[in];
    g->stride_a = s->outer.stride[A][in];
    g->stride_b = s->outer.stride[B][in];
    g->stride_y = s->outer.stride[Y][in];
    g->alpha = n->op == OP_Gemm ? node_float(n, "alpha", 1) : 1;
    g->beta = s->has_c ? node_float(n, "beta", 1) : 0;
    /* [batch, m, k] times one [k, n]: one tall product */
    if (g->batch > 1 && g->stride_b == 0 && !g->ta && g->stride_a == (int64_t)g->m * g->lda &&
        g->stride_y == (int64_t)g->m * g->ldy && (int64_t)g->m * g->batch <= INT32_MAX) {
        g->m *= g->batch;
        g->batch = 1;
    }
}

int cuda_matmul_prepare(Prepare *p)
{
    Matmul *s = cuda_state(sizeof *s);
    size_t at = 0;
    p->state = s;
    set_views(s->view, p->node, p->in, p->out);
    const bool alike = p->in[0].dtype == p->in[1].dtype && gpu_multiplies(p->in[0].dtype);
    const DType in = alike ? p->in[0].dtype : DT_F32;
    const bool same = p->out[0].dtype == in || p->out[0].dtype == DT_F32;
    stage(s, A, in, &at);
    stage(s, B, in, &at);
    stage(s, Y, same ? p->out[0].dtype : DT_F32, &at);
    s->has_c = p->nin > 2 && p->in[2].rank >= 0;
    if (s->has_c) {
        s->c = p->in[2];
        convert_make(&s->preload, &s->dense[Y], &s->c);
    }
    set_batch(s);
    set_gemm(s, p->node, p->device->tf32);
    p->scratch = at;
    return 0;
}

static char *staged_at(const Matmul *s, int k, const Tensor *own, char *scratch)
{
    return s->staged[k] ? scratch + s->scratch[k] : own->data;
}

static void multiply(const Matmul *s, char *const *data)
{
    const int loops = s->outer.n - 1;
    const size_t size_in = dtype_size(s->gemm.storage), size_out = dtype_size(s->gemm.result);
    int64_t index[MAX_RANK] = {0}, at[3] = {0};
    for (;;) {
        gpu_gemm(&s->gemm, data[A] + at[A] * (int64_t)size_in, data[B] + at[B] * (int64_t)size_in,
                 data[Y] + at[Y] * (int64_t)size_out);
        int i = loops - 1;
        for (; i >= 0; i--) {
            const bool carry = ++index[i] == s->outer.dim[i];
            const int64_t steps = carry ? 1 - s->outer.dim[i] : 1;
            for (int k = 0; k < 3; k++) at[k] += steps * s->outer.stride[k][i];
            if (!carry) break;
            index[i] = 0;
        }
        if (i < 0) return;
    }
}

void cuda_matmul_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                     void *scratch)
{
    const Matmul *s = state;
    char *data[3] = {staged_at(s, A, &in[0], scratch), staged_at(s, B, &in[1], scratch),
                     staged_at(s, Y, &out[0], scratch)};
    (void)n;
    for (int k = A; k <= B; k++) {
        if (!s->staged[k]) continue;
        Tensor from = s->view[k], to = s->dense[k];
        from.data = in[k].data;
        to.data = data[k];
        convert_run(&s->convert[k], &to, &from);
    }
    Tensor y = s->dense[Y], own = s->view[Y], c = s->c;
    y.data = data[Y];
    own.data = out[0].data;
    if (s->has_c) {
        c.data = in[2].data;
        convert_run(&s->preload, &y, &c);
    }
    multiply(s, data);
    if (s->staged[Y]) convert_run(&s->convert[Y], &own, &y);
}
