/* Einsum: products and sums in index notation. And Det. */
#include "ir/einsum.h"

#include <stdio.h>

#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

int infer_einsum(Node *n, Diag *d)
{
    Einsum e;
    Type t = type_unknown(input_type(n, 0).dtype);
    for (int i = 1; i < n->nin; i++) TRY(expect_same_dtype(n, 0, i, d));
    int known = einsum_parse(n, &e, d);
    TRY(known);
    if (known) t.rank = e.out_rank;
    for (int k = 0; k < t.rank; k++) t.dim[k] = e.size[e.out[k]];
    return infer_out(n, 0, t, d);
}

/* 2 per product of two. */
int64_t flops_einsum(const Node *n)
{
    Einsum e;
    Diag quiet = {0};
    int64_t count = 2 * (int64_t)(n->nin - 1);
    if (einsum_parse(n, &e, &quiet) != 1) return 0;
    for (int k = 0; k < e.nlabels; k++)
        if (e.size[k] >= 0) count = mul_sat(count, e.size[k]);
    return count;
}

/* Of the matrices on the last two axes. */
int infer_det(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    int64_t both;
    if (t.rank < 0) return infer_out(n, 0, t, d);
    if (t.rank < 2 || !dim_agree(t.dim[t.rank - 1], t.dim[t.rank - 2], &both))
        return node_error(d, n, "'%s' holds no square matrices", n->in[0]->name);
    t.rank -= 2;
    return infer_out(n, 0, t, d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* An equation while it is put together, and its operands. */
typedef struct Equation {
    char text[EINSUM_INPUTS * (MAX_RANK + 4)];
    int len;
    Value *in[EINSUM_INPUTS * 2];
    int nin;
} Equation;

static void put(Equation *q, char c)
{
    q->text[q->len++] = c;
    q->text[q->len] = '\0';
}

static char label_name(int k) { return (char)(k < 26 ? 'a' + k : 'A' + k - 26); }

static void add_term(Equation *q, Value *v, int rank, const int *label)
{
    if (q->nin) put(q, ',');
    for (int k = 0; k < rank; k++) put(q, label_name(label[k]));
    q->in[q->nin++] = v;
}

static bool elsewhere(const Einsum *e, int i, int label)
{
    bool found = einsum_out_has(e, label);
    for (int j = 0; j < e->nin; j++) found |= j != i && einsum_has(e, j, label);
    return found;
}

/* Ones along a label, or (two labels) on the diagonal. */
static Value *ones(Graph *g, int64_t size, int rank)
{
    Type t = type_of(DT_F32, rank, (int64_t[]){size, size});
    float *x = NEW_ARRAY(g->arena, float, type_count(&t));
    for (int64_t i = 0; i < size; i++) x[rank == 2 ? i * size + i : i] = 1;
    return value_const(g, "ones", t, x);
}

/* dy times all other operands, summed over what x_i lacks: einsum again. An index that only x_i
 * has meets ones; one that x_i has twice is told apart by a unit matrix. */
static Value *operand_grad(Ad *ad, const Node *n, Einsum *e, int i, Value *dy)
{
    Equation q = {.len = 0};
    int result[MAX_RANK];
    add_term(&q, dy, e->out_rank, e->out);
    for (int j = 0; j < e->nin; j++)
        if (j != i) add_term(&q, n->in[j], e->rank[j], e->label[j]);
    for (int k = 0; k < e->rank[i]; k++) {
        int label = e->label[i][k], again = 0;
        for (int m = 0; m < k; m++) again |= e->label[i][m] == label;
        result[k] = again ? e->nlabels++ : label;
        if (again)
            add_term(&q, ones(ad->g, e->size[label], 2), 2, (int[]){label, result[k]});
        else if (!elsewhere(e, i, label))
            add_term(&q, ones(ad->g, e->size[label], 1), 1, &label);
    }
    put(&q, '-');
    put(&q, '>');
    for (int k = 0; k < e->rank[i]; k++) put(&q, label_name(result[k]));
    return build(ad->g, OP_Einsum, q.nin, q.in,
                 ATTRS(attr_str("equation", arena_strdup(ad->g->arena, q.text))));
}

int vjp_einsum(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    Einsum e;
    TRY(einsum_parse(n, &e, ad->diag));
    if (e.nlabels + MAX_RANK > EINSUM_LABELS || n->nin + MAX_RANK > EINSUM_INPUTS)
        return node_error(ad->diag, n, "has no gradient: too many operands or indices");
    for (int i = 0; i < n->nin; i++) {
        Einsum copy = e;
        if (ad_wants(ad, n->in[i])) dx[i] = operand_grad(ad, n, &copy, i, dy[0]);
    }
    return 0;
}

int jvp_einsum(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    return jvp_multilinear(ad, n, dx, dy, n->nin);
}

/* C[i,j] = (-1)^(i+j) det(x without row i and column j): of all matrices of x at once, as
 * determinants of [.., n, n, n-1, n-1]. No inverse, so it holds for singular matrices, too. */
static int cofactors(Ad *ad, const Node *n, Value **out)
{
    enum { LARGEST = 16 };
    Graph *g = ad->g;
    Value *x = n->in[0];
    int r = x->type.rank;
    int64_t size = x->type.dim[r - 1], perm[MAX_RANK];
    if (size > LARGEST || r + 2 > MAX_RANK)
        return node_error(ad->diag, n, "has no derivative at this size");
    Type rest = type_of(DT_I64, 2, (int64_t[]){size, size - 1});
    Type signs = type_of(DT_F32, 2, (int64_t[]){size, size});
    int64_t *at = NEW_ARRAY(g->arena, int64_t, size * size);
    float *sign = NEW_ARRAY(g->arena, float, size *size);
    for (int64_t k = 0; k < size * (size - 1); k++) {
        int64_t left_out = k / (size - 1), i = k % (size - 1);
        at[k] = i + (i >= left_out);
    }
    for (int64_t k = 0; k < size * size; k++) sign[k] = (k / size + k % size) % 2 ? -1 : 1;
    *out = value_const(g, "signs", signs, sign);
    if (size == 1) return 0;
    Value *others = value_const(g, "others", rest, at);
    Value *rows = build(g, OP_Gather, IN(x, others), ATTRS(attr_int("axis", r - 2)));
    Value *minors = build(g, OP_Gather, IN(rows, others), ATTRS(attr_int("axis", r)));
    for (int k = 0; k < r + 2; k++) perm[k] = k == r - 1 ? r : k == r ? r - 1 : k;
    minors = build(g, OP_Transpose, IN(minors), ATTRS(attr_ints("perm", (size_t)(r + 2), perm)));
    *out = ad_mul(ad, build(g, OP_Det, IN(minors), NO_ATTRS), *out);
    return 0;
}

int vjp_det(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    int64_t r = n->in[0]->type.rank;
    Value *c;
    TRY(cofactors(ad, n, &c));
    dx[0] = ad_mul(
        ad, build(ad->g, OP_Unsqueeze, IN(dy[0], CONST_INTS(ad->g, r - 2, r - 1)), NO_ATTRS), c);
    return 0;
}

int jvp_det(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    int64_t r = n->in[0]->type.rank;
    Value *c;
    TRY(cofactors(ad, n, &c));
    dy[0] = ad_sum(ad, ad_mul(ad, dx[0], c), CONST_INTS(ad->g, r - 2, r - 1), false);
    return 0;
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* Where a label stands. */
typedef struct Places {
    const Value *v[EINSUM_INPUTS + 1];
    int axis[EINSUM_INPUTS + 1], n;
    bool open;     /* an operand has lanes there, or is a weight */
    bool computed; /* not only constants have it: those nothing zeroes */
} Places;

/* False if v has the label twice, or broadcasts along it. */
static bool find_label(const Lanes *l, Places *p, const Einsum *e, int label, const Value *v,
                       int rank, const int *labels)
{
    bool found = false;
    for (int k = 0; k < rank; k++) {
        if (labels[k] != label) continue;
        if (found || v->type.dim[k] != e->size[label]) return false;
        found = true;
        p->v[p->n] = v;
        p->axis[p->n++] = k;
        p->open |= lanes_open(l, v, k) || (value_is_const(v) && dtype_is_float(v->type.dtype));
        p->computed |= !value_is_const(v);
    }
    return true;
}

/* A label is the same lanes wherever it stands, for products with zeros and sums over zeros are
 * zero. */
void rule_lanes_einsum(Lanes *l, const Node *n)
{
    Einsum e;
    Diag quiet = {0};
    if (einsum_parse(n, &e, &quiet) != 1) return;
    for (int label = 0; label < e.nlabels; label++) {
        Places p = {.n = 0};
        bool plain = true;
        for (int i = 0; i < n->nin && plain; i++)
            plain = find_label(l, &p, &e, label, n->in[i], e.rank[i], e.label[i]);
        plain = plain && find_label(l, &p, &e, label, n->out[0], e.out_rank, e.out);
        for (int k = 0; k < p.n && plain && p.open && p.computed; k++)
            lanes_tie_axis(l, p.v[0], p.axis[0], p.v[k], p.axis[k]);
    }
}

/* The axes in front of the matrices. */
void rule_lanes_det(Lanes *l, const Node *n)
{
    for (int k = 0; k < n->in[0]->type.rank - 2; k++) lanes_pass(l, n->in[0], k, n->out[0], k);
}

/* ---- end of channels ---------------------------------------------------------------- */
