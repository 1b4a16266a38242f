/* Einsum as MatMul, where it is one: two operands, one index that is summed over and in both.
 *
 *   a [batch, rows, k] times b [batch, k, columns], transposed to the order of the result
 *
 * An index of the result that both operands have is a batch axis. Of those that only one has, the
 * last is its row or column, the others are batch axes along which the other operand broadcasts. */
#include "ir/einsum.h"

#include "passes/simplify.h"

typedef struct Product {
    const Einsum *e;
    int batch[MAX_RANK], nbatch;
    int k, row, column; /* labels; -1: none */
} Product;

static bool repeats(const Einsum *e, int i)
{
    for (int k = 0; k < e->rank[i]; k++)
        for (int m = 0; m < k; m++)
            if (e->label[i][m] == e->label[i][k]) return true;
    return false;
}

static int64_t dim_of(const Node *n, const Einsum *e, int i, int label)
{
    for (int k = 0; k < e->rank[i]; k++)
        if (e->label[i][k] == label) return n->in[i]->type.dim[k];
    return 1;
}

static bool is_product(const Node *n, const Einsum *e, Product *p)
{
    *p = (Product){.e = e, .k = -1, .row = -1, .column = -1};
    if (e->nin != 2 || repeats(e, 0) || repeats(e, 1)) return false;
    for (int label = 0; label < e->nlabels; label++) {
        if (einsum_out_has(e, label)) continue;
        if (p->k >= 0 || !einsum_has(e, 0, label) || !einsum_has(e, 1, label)) return false;
        p->k = label;
    }
    if (p->k < 0 || dim_of(n, e, 0, p->k) != dim_of(n, e, 1, p->k)) return false;
    for (int o = 0; o < e->out_rank; o++) {
        bool a = einsum_has(e, 0, e->out[o]), b = einsum_has(e, 1, e->out[o]);
        if (a && !b) p->row = e->out[o];
        if (b && !a) p->column = e->out[o];
    }
    for (int o = 0; o < e->out_rank; o++)
        if (e->out[o] != p->row && e->out[o] != p->column) p->batch[p->nbatch++] = e->out[o];
    return p->nbatch + 2 <= MAX_RANK;
}

static int axis_of_label(int n, const int *label, int wanted)
{
    for (int k = 0; k < n; k++)
        if (label[k] == wanted) return k;
    return -1;
}

/* v, whose axes have `have` labels, with axes in the order of `want`; those that it lacks (labels
 * of others, or -1) are of size 1, or left out in front of matrices. */
static Value *arranged(Graph *g, Value *v, int nhave, const int *have, int nwant, const int *want)
{
    int64_t perm[MAX_RANK], lacking[MAX_RANK];
    int n = 0, nlacking = 0;
    bool moved = false;
    while (nwant > 2 && axis_of_label(nhave, have, *want) < 0) want++, nwant--;
    for (int k = 0; k < nwant; k++) {
        int axis = axis_of_label(nhave, have, want[k]);
        if (axis < 0)
            lacking[nlacking++] = k;
        else
            perm[n++] = axis;
    }
    for (int k = 0; k < n; k++) moved |= perm[k] != k;
    if (moved) v = build(g, OP_Transpose, IN(v), ATTRS(attr_ints("perm", (size_t)n, perm)));
    if (nlacking) v = build(g, OP_Unsqueeze, IN(v, const_ints(g, nlacking, lacking)), NO_ATTRS);
    return v;
}

static Value *lowered(Graph *g, const Node *n, const Product *p)
{
    const Einsum *e = p->e;
    int a[MAX_RANK], b[MAX_RANK], y[MAX_RANK], rank = p->nbatch, ny = p->nbatch;
    int64_t lacking[2];
    int nlacking = 0;
    for (int k = 0; k < rank; k++) a[k] = b[k] = y[k] = p->batch[k];
    a[rank] = p->row;
    a[rank + 1] = b[rank] = p->k;
    b[rank + 1] = p->column;
    Value *c = build(g, OP_MatMul,
                     IN(arranged(g, n->in[0], e->rank[0], e->label[0], rank + 2, a),
                        arranged(g, n->in[1], e->rank[1], e->label[1], rank + 2, b)),
                     NO_ATTRS);
    if (p->row < 0)
        lacking[nlacking++] = rank;
    else
        y[ny++] = p->row;
    if (p->column < 0)
        lacking[nlacking++] = rank + 1;
    else
        y[ny++] = p->column;
    if (nlacking) c = build(g, OP_Squeeze, IN(c, const_ints(g, nlacking, lacking)), NO_ATTRS);
    return arranged(g, c, ny, y, e->out_rank, e->out);
}

void simplify_einsum(Graph *g)
{
    Diag quiet = {0};
    Rewrite r = rewrite_begin(g);
    for (int i = 0; i < r.nold; i++) {
        Node *n = r.old[i];
        Einsum e;
        Product p;
        rewrite_map_inputs(&r, n);
        if (n->op == OP_Einsum && einsum_parse(n, &e, &quiet) == 1 && is_product(n, &e, &p)) {
            g->at = n;
            rewrite_replace(&r, n->out[0], lowered(g, n, &p));
            g->at = NULL;
        } else {
            node_append(g, n);
        }
    }
    rewrite_end(&r);
}
