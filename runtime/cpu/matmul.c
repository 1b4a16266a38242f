/* Matrix products by oneDNN, and Gemm's alpha, beta and C in one pass afterwards.
 *
 * Operands are described by their strides, so transposition costs nothing; leading dimensions
 * broadcast where one side has 1. An operand that is dense along neither of its last two axes
 * is reordered in scratch. */
#include "ir/simd.h"
#include "runtime/cpu/cpu.h"
#include "runtime/cpu/primitive.h"

#include <stdlib.h>
#include <string.h>

/* a, b, y as matrices with equal numbers of leading dimensions. */
typedef struct Product {
    Tensor a, b, y;
} Product;

static void insert_axis(Tensor *t, int at)
{
    for (int i = t->rank; i > at; i--) t->dim[i] = t->dim[i - 1], t->stride[i] = t->stride[i - 1];
    t->dim[at] = 1;
    t->stride[at] = at + 1 <= t->rank ? t->stride[at + 1] * t->dim[at + 1] : 1;
    t->rank++;
}

static void swap_last(Tensor *t)
{
    int i = t->rank - 1, j = t->rank - 2;
    int64_t d = t->dim[i], s = t->stride[i];
    t->dim[i] = t->dim[j], t->stride[i] = t->stride[j];
    t->dim[j] = d, t->stride[j] = s;
}

static Product product_of(const Node *n, const Tensor *in, const Tensor *out)
{
    Product p = {in[0], in[1], out[0]};
    bool row = p.a.rank == 1, column = p.b.rank == 1;
    if (n->op == OP_Gemm) {
        if (node_int(n, "transA", 0)) swap_last(&p.a);
        if (node_int(n, "transB", 0)) swap_last(&p.b);
        return p;
    }
    if (row) insert_axis(&p.a, 0);
    if (column) insert_axis(&p.b, 1);
    if (column) insert_axis(&p.y, p.y.rank);
    if (row) insert_axis(&p.y, p.y.rank - 1);
    while (p.a.rank < p.y.rank) insert_axis(&p.a, 0);
    while (p.b.rank < p.y.rank) insert_axis(&p.b, 0);
    return p;
}

static int describe(MemDesc *md, const Tensor *t)
{
    dnnl_dims_t dim = {0}, stride = {0};
    for (int i = 0; i < t->rank; i++) dim[i] = t->dim[i], stride[i] = t->stride[i];
    return md_strided(md, t->rank, dim, dnnl_f32, stride) == dnnl_success ? 0 : -1;
}

/* Whether a row of t lies densely, and rows do not overlap. */
static bool has_dense_rows(const Tensor *t)
{
    const int i = t->rank - 1;
    for (int a = 0; a < t->rank; a++)
        if (t->stride[a] < 1) return false;
    return t->stride[i] == 1 && t->stride[i - 1] >= t->dim[i];
}

/* A layout that oneDNN multiplies fast: the tensor's own if it is made of matrices whose rows or
 * columns lie densely; else dense. */
static Tensor wanted(const Tensor *t, bool may_be_strided)
{
    Tensor w = *t, dense = *t;
    tensor_set_strides(&dense, false);
    if (tensor_is_row_major(t)) return dense;
    swap_last(&w);
    if (may_be_strided && tensor_is_row_major(&w)) {
        tensor_set_strides(&w, false);
        swap_last(&w);
        return w;
    }
    return may_be_strided && (has_dense_rows(t) || has_dense_rows(&w)) ? *t : dense;
}

typedef struct ProductDescs {
    MemDesc user[3], want[3]; /* a, b, y */
} ProductDescs;

static int create(Primitive *q, const Tensor *const *t, ProductDescs *d,
                  const void *const *constants)
{
    static const int arg[3] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    if (dnnl_engine_create(&q->engine, dnnl_cpu, 0) != dnnl_success) return -1;
    for (int k = 0; k < 3; k++) {
        Tensor w = wanted(t[k], k < 2), own = *t[k];
        if (tensor_same_layout(&w, &own)) own = w; /* strides of axes of 1 as oneDNN likes them */
        TRY(describe(&d->user[k], &own));
        TRY(describe(&d->want[k], &w));
    }
    if (primitive_attr(&attr) != dnnl_success) return -1;
    dnnl_status_t s = matmul_desc(&pd, q->engine, &d->want[0], &d->want[1], &d->want[2], attr);
    dnnl_primitive_attr_destroy(attr);
    if (s != dnnl_success) return -1;
    int status = 0;
    for (int k = 0; k < 3 && status == 0; k++)
        status =
            primitive_operand(q, pd, arg[k], &d->user[k], k < 2 && constants ? constants[k] : NULL);
    if (status == 0) status = primitive_finish(q, pd);
    dnnl_primitive_desc_destroy(pd);
    return status;
}

bool cpu_product_make(Primitive *p, const Tensor *a, const Tensor *b, const Tensor *y,
                      const void *const *constants)
{
    const Tensor *t[3] = {a, b, y};
    ProductDescs d = {0};
    const bool empty = tensor_count(a) == 0 || tensor_count(b) == 0;
    const int threads = single_thread_begin();
    const bool made = !empty && create(p, t, &d, constants) == 0;
    single_thread_end(threads);
    for (int k = 0; k < 3; k++) md_free(&d.user[k]), md_free(&d.want[k]);
    primitive_check_memory(p);
    return made;
}

int cpu_matmul_prepare(Prepare *p)
{
    PrimitiveState *s = calloc(1, sizeof *s);
    if (!s) trap(TRAP_NO_MEMORY, "out of memory for a matrix product");
    p->state = s;
    const Product m = product_of(p->node, p->in, p->out);
    s->naive =
        p->in[0].dtype != DT_F32 || !cpu_product_make(&s->prim, &m.a, &m.b, &m.y, p->const_data);
    p->scratch = s->naive ? 0 : s->prim.scratch;
    return 0;
}

typedef struct Blend {
    float alpha, beta;
} Blend;

CLONES static void blend(const void *ctx, int n, float *y, const float *const *x)
{
    const Blend k = *(const Blend *)ctx;
    const float *p = x[0], *c = x[1];
    INDEPENDENT
    for (int i = 0; i < n; i++) y[i] = p[i] * k.alpha + c[i] * k.beta;
}

void cpu_matmul_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                    void *scratch)
{
    const PrimitiveState *s = state;
    if (s->naive) {
        cpu_naive_run(n, NULL, in, out, scratch);
        return;
    }
    void *data[] = {in[0].data, in[1].data, out[0].data};
    primitive_run(&s->prim, data, scratch);
    if (n->op != OP_Gemm) return;
    const Tensor *c = optional(n, in, 2);
    Blend k = {node_float(n, "alpha", 1), c ? node_float(n, "beta", 1) : 0};
    const Tensor *t[] = {&out[0], &out[0], c ? c : &out[0]};
    if (c || k.alpha != 1.f) block_map(3, t, blend, &k);
}
