/* Common subexpressions: nodes of equal op, attributes and operands compute the same, so the later
 * one's readers take the first one's results. A hash table over the nodes kept so far; operands are
 * compared after replacement, so one walk merges whole chains. Constants count as equal when they
 * are small integers or single numbers of equal value; weights are never merged (equal today, they
 * may be trained apart tomorrow). */
#include <string.h>

#include "passes/simplify/simplify.h"

static bool same_const(const Value *a, const Value *b)
{
    int64_t n = type_count(&a->type);
    if (!a->data || !b->data || !type_equal(&a->type, &b->type)) return false;
    if (n > 1 && (dtype_is_float(a->type.dtype) || n > 64)) return false;
    return memcmp(a->data, b->data, (size_t)type_bytes(&a->type)) == 0;
}

static bool same_operand(const Value *a, const Value *b)
{
    return a == b || (a && b && same_const(a, b));
}

static bool same_operands(const Node *a, const Node *b)
{
    if (a->nin != b->nin) return false;
    int i = 0;
    while (i < a->nin && same_operand(a->in[i], b->in[i])) i++;
    if (i == a->nin) return true;
    return a->nin == 2 && op_info[a->op].flags & OPF_COMMUTES && same_operand(a->in[0], b->in[1]) &&
           same_operand(a->in[1], b->in[0]);
}

static bool same_list(const Attr *a, const Attr *b)
{
    if (a->n != b->n) return false;
    if (a->kind == ATTR_INTS) return !a->n || !memcmp(a->ints, b->ints, a->n * sizeof *a->ints);
    if (a->kind == ATTR_FLOATS)
        return !a->n || !memcmp(a->floats, b->floats, a->n * sizeof *a->floats);
    return a->kind != ATTR_STRINGS || a->n == 0;
}

static bool same_attr(const Attr *a, const Attr *b)
{
    return strcmp(a->name, b->name) == 0 && a->kind == b->kind && a->i == b->i &&
           memcmp(&a->f, &b->f, sizeof a->f) == 0 && type_equal(&a->type, &b->type) &&
           a->s.n == b->s.n && (!a->s.n || !memcmp(a->s.p, b->s.p, a->s.n)) && same_list(a, b);
}

static bool same_node(const Node *a, const Node *b)
{
    if (a->op != b->op || a->nattrs != b->nattrs || a->nout != b->nout || !same_operands(a, b))
        return false;
    for (int k = 0; k < a->nattrs; k++)
        if (!same_attr(&a->attrs[k], &b->attrs[k])) return false;
    for (int o = 0; o < a->nout; o++)
        if (!a->out[o] != !b->out[o]) return false;
    return true;
}

/* Operands enter by a sum, so that commuted ones meet; constants by their number of elements. */
static size_t hash_node(const Node *n)
{
    size_t h = (size_t)n->op * 0x9e3779b97f4a7c15u + (size_t)n->nattrs;
    for (int i = 0; i < n->nin; i++) {
        const Value *v = n->in[i];
        size_t key = !v ? 1 : v->data ? (size_t)type_count(&v->type) : v->id + 2;
        h += key * 0xff51afd7ed558ccdu;
    }
    return h ^ (h >> 29);
}

int simplify_cse(Graph *g, Arena *scratch)
{
    size_t cap = 16;
    while (cap < 2 * (size_t)g->nnodes) cap *= 2;
    Node **table = NEW_ARRAY(scratch, Node *, cap);
    Rewrite r = rewrite_begin(g);
    for (int i = 0; i < r.nold; i++) {
        Node *n = r.old[i];
        rewrite_map_inputs(&r, n);
        size_t k = hash_node(n) & (cap - 1);
        if (n->op != OP_Opaque) /* what it does is not known */
            while (table[k] && !same_node(table[k], n)) k = (k + 1) & (cap - 1);
        if (n->op == OP_Opaque || !table[k]) {
            if (n->op != OP_Opaque) table[k] = n;
            node_append(g, n);
            continue;
        }
        for (int o = 0; o < n->nout; o++)
            if (n->out[o]) rewrite_replace(&r, n->out[o], table[k]->out[o]);
    }
    rewrite_end(&r);
    return 0;
}

int pass_cse(Context *c, const char *opt)
{
    (void)opt;
    return simplify_pass(c, simplify_cse);
}
