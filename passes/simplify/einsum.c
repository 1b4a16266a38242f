/* Einsum as the operators that it is made of: ReduceSum of what only one operand has, Mul of what
 * is not summed over, else MatMul, operand by operand:
 *
 *   a [batch, rows, k] times b [batch, k, columns], transposed to the order of the result
 *
 * An index that both operands and the result have is a batch axis; all that are summed over
 * together are k. Where b is of known size and there is no batch, its columns are merged into one
 * axis, so that it is a weight like any other: "btd,dhe->bthe" is MatMul by [d, h e], reshaped.
 * Else the last index that only one operand has is its row or column, and the others are batch axes
 * along which the other operand broadcasts. An operand that has an index twice stays as it is. */
#include "ir/einsum.h"

#include "passes/simplify/simplify.h"

/* A value and what its axes are called. */
typedef struct Term {
    Value *v;
    int n, label[MAX_RANK];
} Term;

static int axis_of_label(int n, const int *label, int wanted)
{
    for (int k = 0; k < n; k++)
        if (label[k] == wanted) return k;
    return -1;
}

static bool has(const Term *t, int label) { return axis_of_label(t->n, t->label, label) >= 0; }

static void add_label(Term *t, int label) { t->label[t->n++] = label; }

/* t with axes in the order of `want`; those that it lacks (labels of others, or -1) are of size 1,
 * or left out in front of the last `kept`. */
static Value *arranged(Graph *g, const Term *t, int nwant, const int *want, int kept)
{
    int64_t perm[MAX_RANK], lacking[MAX_RANK];
    int n = 0, nlacking = 0;
    bool moved = false;
    Value *v = t->v;
    while (nwant > kept && !has(t, *want)) want++, nwant--;
    for (int k = 0; k < nwant; k++) {
        int axis = axis_of_label(t->n, t->label, want[k]);
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

/* Sums over the labels that are not wanted. */
static Term summed(Graph *g, const Term *t, const bool *wanted)
{
    Term out = {.v = t->v};
    int64_t axes[MAX_RANK];
    int n = 0;
    for (int k = 0; k < t->n; k++)
        if (wanted[t->label[k]])
            add_label(&out, t->label[k]);
        else
            axes[n++] = k;
    if (n)
        out.v = build(g, OP_ReduceSum, IN(t->v, const_ints(g, n, axes)),
                      ATTRS(attr_int("keepdims", 0)));
    return out;
}

/* Which labels of two terms are what. */
typedef struct Roles {
    Term batch, rows, columns, k;
} Roles;

static Roles roles_of(const Term *a, const Term *b, const bool *wanted)
{
    Roles r = {.k = {.n = 0}};
    for (int i = 0; i < a->n; i++) {
        const int label = a->label[i];
        add_label(!has(b, label) ? &r.rows : wanted[label] ? &r.batch : &r.k, label);
    }
    for (int i = 0; i < b->n; i++)
        if (!has(a, b->label[i])) add_label(&r.columns, b->label[i]);
    return r;
}

static void add_labels(Term *t, const Term *from, int n)
{
    for (int i = 0; i < n; i++) add_label(t, from->label[i]);
}

static Value *reshaped(Graph *g, Value *v, int n, const int64_t *target)
{
    return build(g, OP_Reshape, IN(v, const_ints(g, n, target)), NO_ATTRS);
}

/* The last `count` axes of v as one. */
static Value *merged(Graph *g, Value *v, int count)
{
    int64_t target[MAX_RANK] = {0};
    int rank = v->type.rank - count + 1;
    if (count == 1) return v;
    target[rank - 1] = -1;
    return reshaped(g, v, rank, target);
}

/* [rows, k] by [k, columns], a matrix of known size. */
static Term by_matrix(Graph *g, const Term *a, const Term *b, const Roles *r)
{
    Term x = {.n = 0}, w = {.n = 0}, y = {.n = 0};
    int64_t target[MAX_RANK] = {0}, size[2] = {1, 1};
    add_labels(&x, &r->rows, r->rows.n);
    add_labels(&x, &r->k, r->k.n);
    add_labels(&w, &r->k, r->k.n);
    add_labels(&w, &r->columns, r->columns.n);
    add_labels(&y, &r->rows, r->rows.n);
    add_labels(&y, &r->columns, r->columns.n);
    w.v = arranged(g, b, w.n, w.label, w.n);
    for (int i = 0; i < w.n; i++) size[i >= r->k.n] *= w.v->type.dim[i];
    for (int i = 0; i < r->columns.n; i++) target[r->rows.n + i] = w.v->type.dim[r->k.n + i];
    if (w.n > 2) w.v = reshaped(g, w.v, 2, size);
    x.v = merged(g, arranged(g, a, x.n, x.label, x.n), r->k.n);
    y.v = build(g, OP_MatMul, IN(x.v, w.v), NO_ATTRS);
    if (r->columns.n > 1) y.v = reshaped(g, y.v, y.n, target);
    return y;
}

/* [batch, rows, k] by [batch, k, columns]. */
static Term by_batch(Graph *g, const Term *a, const Term *b, const Roles *r)
{
    const int k = r->k.n, row = r->rows.n ? r->rows.label[r->rows.n - 1] : -1,
              column = r->columns.n ? r->columns.label[r->columns.n - 1] : -1;
    Term x = r->batch, w, y;
    Value *right;
    int64_t lacking[2], perm[MAX_RANK];
    int nlacking = 0;
    add_labels(&x, &r->rows, r->rows.n - 1);
    add_labels(&x, &r->columns, r->columns.n - 1);
    w = y = x;
    add_label(&x, row);
    add_labels(&x, &r->k, k);
    if (k == 1) add_label(&w, r->k.label[0]);
    add_label(&w, column);
    if (k > 1) add_labels(&w, &r->k, k);
    right = merged(g, arranged(g, b, w.n, w.label, 1 + k), k > 1 ? k : 1);
    for (int i = 0, n = right->type.rank; i < n; i++)
        perm[i] = i == n - 1 ? n - 2 : i == n - 2 ? n - 1 : i;
    if (k > 1)
        right = build(g, OP_Transpose, IN(right),
                      ATTRS(attr_ints("perm", (size_t)right->type.rank, perm)));
    y.v =
        build(g, OP_MatMul, IN(merged(g, arranged(g, a, x.n, x.label, 1 + k), k), right), NO_ATTRS);
    if (row < 0)
        lacking[nlacking++] = y.n;
    else
        add_label(&y, row);
    if (column < 0)
        lacking[nlacking++] = x.n - k;
    else
        add_label(&y, column);
    if (nlacking) y.v = build(g, OP_Squeeze, IN(y.v, const_ints(g, nlacking, lacking)), NO_ATTRS);
    return y;
}

/* Of two terms, of whose labels the wanted ones stay. A constant is the right-hand operand. */
static Term product(Graph *g, const Term *a, const Term *b, const bool *wanted)
{
    if (value_is_const(a->v) && !value_is_const(b->v)) return product(g, b, a, wanted);
    const Roles r = roles_of(a, b, wanted);
    const bool sums = !r.rows.n && !r.columns.n;
    if (r.k.n && !r.batch.n && r.columns.n && type_is_static(&b->v->type))
        return by_matrix(g, a, b, &r);
    if (r.k.n && !sums) return by_batch(g, a, b, &r);
    Term y = *a;
    add_labels(&y, &r.columns, r.columns.n);
    y.v = build(g, OP_Mul, IN(arranged(g, a, y.n, y.label, 0), arranged(g, b, y.n, y.label, 0)),
                NO_ATTRS);
    return summed(g, &y, wanted);
}

/* Whether no operand has an index twice, what is summed over does not broadcast, and ranks suffice.
 */
static bool is_plain(const Node *n, const Einsum *e)
{
    if (e->nlabels + 1 > MAX_RANK || !dtype_is_float(n->out[0]->type.dtype)) return false;
    for (int i = 0; i < e->nin; i++)
        for (int k = 0; k < e->rank[i]; k++) {
            const int label = e->label[i][k];
            const int64_t dim = n->in[i]->type.dim[k];
            if (dim == 0 || axis_of_label(k, e->label[i], label) >= 0) return false;
            if (!einsum_out_has(e, label) && dim != e->size[label]) return false;
        }
    return true;
}

/* Labels of the result and of the terms from `from` on, but `but`. */
static void find_wanted(const Einsum *e, const Term *t, int from, int but, bool *wanted)
{
    for (int label = 0; label < e->nlabels; label++) {
        wanted[label] = einsum_out_has(e, label);
        for (int i = from; i < e->nin; i++) wanted[label] |= i != but && has(&t[i], label);
    }
}

static Value *lowered(Graph *g, const Node *n, const Einsum *e)
{
    Term t[EINSUM_INPUTS];
    bool wanted[EINSUM_LABELS];
    for (int i = 0; i < e->nin; i++) {
        t[i] = (Term){.v = n->in[i], .n = e->rank[i]};
        for (int k = 0; k < t[i].n; k++) t[i].label[k] = e->label[i][k];
    }
    for (int i = 0; i < e->nin; i++) {
        find_wanted(e, t, 0, i, wanted);
        t[i] = summed(g, &t[i], wanted);
    }
    for (int i = 1; i < e->nin; i++) {
        find_wanted(e, t, i + 1, -1, wanted);
        t[0] = product(g, &t[0], &t[i], wanted);
    }
    Value *y = arranged(g, &t[0], e->out_rank, e->out, e->out_rank);
    return y == n->in[0] ? build(g, OP_Identity, IN(y), NO_ATTRS) : y;
}

void simplify_einsum(Graph *g)
{
    Diag quiet = {0};
    Rewrite r = rewrite_begin(g);
    for (int i = 0; i < r.nold; i++) {
        Node *n = r.old[i];
        Einsum e;
        rewrite_map_inputs(&r, n);
        if (n->op == OP_Einsum && einsum_parse(n, &e, &quiet) == 1 && is_plain(n, &e)) {
            g->at = n;
            rewrite_replace(&r, n->out[0], lowered(g, n, &e));
            g->at = NULL;
        } else {
            node_append(g, n);
        }
    }
    rewrite_end(&r);
}
