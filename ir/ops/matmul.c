/* Matrix products: MatMul and Gemm. */
#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

static int inner_error(const Node *n, int64_t a, int64_t b, Diag *d)
{
    return node_error(d, n, "'%s' has %lld columns, '%s' has %lld rows", n->in[0]->name,
                      (long long)a, n->in[1]->name, (long long)b);
}

/* Broadcasts the batch dimensions (all but the last two). */
static int matmul_batch(const Node *n, const Type *a, const Type *b, Type *t, Diag *d)
{
    Value va = *n->in[0], vb = *n->in[1];
    Value *in[] = {&va, &vb};
    Node batch = *n;
    va.type = *a;
    vb.type = *b;
    va.type.rank -= 2;
    vb.type.rank -= 2;
    batch.in = in;
    return broadcast_inputs(&batch, 0, 2, t, d);
}

/* [.., n, k] x [.., k, m] -> [.., n, m]; a 1-D operand is a row or a column, and its axis of 1
 * is dropped from the result. */
int infer_matmul(Node *n, Diag *d)
{
    Type a = input_type(n, 0), b = input_type(n, 1), t;
    bool row = a.rank == 1, column = b.rank == 1;
    int64_t k;
    TRY(expect_same_dtype(n, 0, 1, d));
    if (a.rank < 0 || b.rank < 0) return infer_out(n, 0, type_unknown(a.dtype), d);
    if (a.rank == 0 || b.rank == 0)
        return node_error(d, n, "'%s' is a scalar", n->in[a.rank ? 1 : 0]->name);
    if (row) a = type_of(a.dtype, 2, (int64_t[]){1, a.dim[0]});
    if (column) b = type_of(b.dtype, 2, (int64_t[]){b.dim[0], 1});
    if (!dim_agree(a.dim[a.rank - 1], b.dim[b.rank - 2], &k))
        return inner_error(n, a.dim[a.rank - 1], b.dim[b.rank - 2], d);
    TRY(matmul_batch(n, &a, &b, &t, d));
    if (!row) t.dim[t.rank++] = a.dim[a.rank - 2];
    if (!column) t.dim[t.rank++] = b.dim[b.rank - 1];
    return infer_out(n, 0, t, d);
}

/* A or A' [n, k] times B or B' [k, m] plus C broadcast to [n, m]. */
int infer_gemm(Node *n, Diag *d)
{
    Type a = input_type(n, 0), b = input_type(n, 1), c = input_type(n, 2);
    int ta = node_int(n, "transA", 0) != 0, tb = node_int(n, "transB", 0) != 0;
    int64_t k;
    TRY(expect_same_dtype(n, 0, 1, d));
    TRY(expect_rank(n, 0, 2, d));
    TRY(expect_rank(n, 1, 2, d));
    if (a.rank < 0 || b.rank < 0) return infer_out(n, 0, type_unknown(a.dtype), d);
    if (!dim_agree(a.dim[1 - ta], b.dim[tb], &k))
        return inner_error(n, a.dim[1 - ta], b.dim[tb], d);
    Type t = type_of(a.dtype, 2, (int64_t[]){a.dim[ta], b.dim[1 - tb]});
    if (c.rank > 2) return node_error(d, n, "'%s' has rank %d, at most 2", n->in[2]->name, c.rank);
    for (int i = 1; i <= c.rank; i++) {
        int64_t have = c.dim[c.rank - i], need = t.dim[2 - i], both;
        if (have != 1 && !dim_agree(have, need, &both))
            return node_error(d, n, "bias '%s' has %lld elements, needs %lld", n->in[2]->name,
                              (long long)have, (long long)need);
    }
    return infer_out(n, 0, t, d);
}

static int64_t product_flops(const Node *n, int64_t inner)
{
    const Type *t = &n->out[0]->type;
    if (t->rank < 0 || n->in[0]->type.rank < 1) return 0;
    return mul_sat(2, mul_sat(dims_product(t, 0, t->rank), inner));
}

int64_t flops_matmul(const Node *n)
{
    const Type *a = &n->in[0]->type;
    return a->rank < 1 ? 0 : product_flops(n, dims_product(a, a->rank - 1, a->rank));
}

int64_t flops_gemm(const Node *n)
{
    const Type *a = &n->in[0]->type;
    int k = node_int(n, "transA", 0) != 0 ? 0 : 1;
    return a->rank != 2 ? 0 : product_flops(n, dims_product(a, k, k + 1));
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* ---- end of channels ---------------------------------------------------------------- */
