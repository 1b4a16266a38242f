/* The contraction of contract.h: pattern ReduceSum<keepdims=0>(Mul(v, h), all axes but one), h a
 * tree of Add over ConvWgrad and Gemm. Each leaf is an inner product <v, h> per channel of a map
 * that is bilinear in h's two operands, so v can be moved to the other side. */
#include "passes/simplify/contract.h"

#include "ir/op.h"
#include "passes/passes.h"

/* The one axis that a ReduceSum keeps (and drops no dims of rank but those summed), or -1. */
static int kept_axis(const Node *n)
{
    int64_t axes[MAX_RANK];
    bool summed[MAX_RANK] = {false};
    int rank = n->in[0]->type.rank,
        count = node_in(n, 1) ? value_ints(n->in[1], axes, MAX_RANK) : 0;
    if (n->op != OP_ReduceSum || node_int(n, "keepdims", 1) || count != rank - 1) return -1;
    for (int k = 0; k < count; k++) summed[axes[k] < 0 ? axes[k] + rank : axes[k]] = true;
    for (int i = 0; i < rank; i++)
        if (!summed[i]) return i;
    return -1;
}

/* Sum over all axes but `keep` of a * b. */
static Value *channel_dot(Graph *g, Value *a, Value *b, int keep)
{
    int64_t axes[MAX_RANK];
    int n = 0;
    Value *p = build(g, OP_Mul, IN(a, b), NO_ATTRS);
    for (int i = 0; i < p->type.rank; i++)
        if (i != keep) axes[n++] = i;
    return build(g, OP_ReduceSum, IN(p, const_ints(g, n, axes)), ATTRS(attr_int("keepdims", 0)));
}

/* ConvWgrad(x, dy) by output channel, axis 0 of the weight. */
static Value *contract_conv(Graph *g, Value *v, const Node *h)
{
    Value *y = build(g, OP_Conv, IN(h->in[0], v), h->nattrs, h->attrs);
    return channel_dot(g, y, h->in[1], 1);
}

/* h = alpha A B with A = op(a) [rows, k], B = op(b) [k, columns]. By row r:
 *   sum_c v[r,c] h[r,c] = sum_k A[r,k] (alpha v B')[r,k],
 * by column c: sum_k B[k,c] (alpha A' v)[k,c]; the product is formed in the stored orientation of
 * the operand that it meets. */
static Value *contract_gemm(Graph *g, Value *v, const Node *h, int axis)
{
    Value *a = h->in[0], *b = h->in[1];
    bool ta = node_int(h, "transA", 0), tb = node_int(h, "transB", 0);
    float alpha = node_float(h, "alpha", 1);
    if (axis == 0 && ta) return channel_dot(g, a, build_gemm(g, b, v, alpha, tb, true), 1);
    if (axis == 0) return channel_dot(g, a, build_gemm(g, v, b, alpha, false, !tb), 0);
    if (!tb) return channel_dot(g, b, build_gemm(g, a, v, alpha, !ta, false), 1);
    return channel_dot(g, b, build_gemm(g, v, a, alpha, true, ta), 0);
}

static bool contractible(const Value *h, int axis)
{
    const Node *n = h->def;
    if (!n) return false;
    if (n->op == OP_Add && type_equal(&n->in[0]->type, &n->in[1]->type))
        return contractible(n->in[0], axis) || contractible(n->in[1], axis);
    return (n->op == OP_ConvWgrad && axis == 0) || (n->op == OP_Gemm && n->nin == 2);
}

static Value *contract(Graph *g, Value *v, Value *h, int axis)
{
    const Node *n = h->def;
    if (!contractible(h, axis)) return channel_dot(g, v, h, axis);
    if (n->op == OP_ConvWgrad) return contract_conv(g, v, n);
    if (n->op == OP_Gemm) return contract_gemm(g, v, n, axis);
    return build(g, OP_Add, IN(contract(g, v, n->in[0], axis), contract(g, v, n->in[1], axis)),
                 NO_ATTRS);
}

/* The contracted form of a ReduceSum node, or NULL if it is no such sum. */
static Value *contracted(Graph *g, const Node *n, const Uses *uses)
{
    (void)uses;
    int axis = n->op == OP_ReduceSum ? kept_axis(n) : -1;
    const Node *m = axis >= 0 ? n->in[0]->def : NULL;
    if (!m || m->op != OP_Mul || !type_equal(&m->in[0]->type, &m->in[1]->type)) return NULL;
    for (int i = 0; i < 2; i++)
        if (contractible(m->in[i], axis)) return contract(g, m->in[1 - i], m->in[i], axis);
    return NULL;
}

/* Replaces the output of every node for which f gives a value. */
static void rewrite_each(Graph *g, Value *(*f)(Graph *, const Node *, const Uses *), const Uses *u)
{
    Rewrite r = rewrite_begin(g);
    for (int i = 0; i < r.nold; i++) {
        Node *n = r.old[i];
        rewrite_map_inputs(&r, n);
        g->at = n;
        Value *y = f(g, n, u);
        if (y)
            rewrite_replace(&r, n->out[0], y);
        else
            node_append(g, n);
    }
    g->at = NULL;
    rewrite_end(&r);
}

void contract_channel_sums(Graph *g) { rewrite_each(g, contracted, NULL); }

/* ---- sums of products --------------------------------------------------------------- */

static Value *fused(Graph *g, const Node *n, const Uses *uses)
{
    int64_t axes[MAX_RANK];
    const Node *m = n->op == OP_ReduceSum ? n->in[0]->def : NULL;
    if (!m || m->op != OP_Mul || !type_equal(&m->in[0]->type, &m->in[1]->type)) return NULL;
    if (uses->n[n->in[0]->id] != 1) return NULL;
    const Type *x = &m->in[0]->type, *y = &n->out[0]->type;
    int count = node_in(n, 1) ? value_ints(n->in[1], axes, MAX_RANK) : 0;
    if (count < 0 || x->dtype != DT_F32 || !type_is_static(y)) return NULL;
    if (count == 0 && node_int(n, "noop_with_empty_axes", 0)) return NULL;
    if (count == 0)
        while (count < x->rank) {
            axes[count] = count;
            count++;
        }
    Value *s = build(g, OP_SumProduct, IN(m->in[0], m->in[1]),
                     ATTRS(attr_ints("axes", (size_t)count, axes)));
    if (s->type.rank == y->rank) return s;
    return build(g, OP_Reshape, IN(s, const_ints(g, y->rank, y->dim)), NO_ATTRS);
}

void fuse_sum_products(Graph *g, Arena *scratch)
{
    Uses uses = graph_uses(g, scratch);
    rewrite_each(g, fused, &uses);
}

int pass_contract(Context *c, const char *opt)
{
    (void)opt;
    Arena *scratch = arena_new();
    contract_channel_sums(c->graph);
    fuse_sum_products(c->graph, scratch);
    arena_free(scratch);
    return 0;
}
