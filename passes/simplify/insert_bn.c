/* BatchNormalization, at the identity, behind every Conv that has none and whose output is not the
 * graph's: networks whose export folded it train better with it back. With mean 0, scale 1 and
 * variance 1 - epsilon it changes nothing but rounding; the convolution's bias becomes its bias, as
 * in a network that never was folded. Statistics are measured later (reconstruct, train). */
#include "passes/simplify/simplify.h"

/* Whether nobody normalizes the value already, and somebody inside the graph reads it. */
static bool wants_norm(const Value *y, const Uses *uses)
{
    for (int k = 0; k < uses->n[y->id]; k++) {
        const Node *reader = uses->at[y->id][k];
        if (!reader || reader->op == OP_BatchNormalization || reader->op == OP_BatchNormTrain)
            return false;
    }
    return uses->n[y->id] > 0;
}

static Value *filled(Graph *g, const char *base, const char *what, int64_t n, float x)
{
    float *data = NEW_ARRAY(g->arena, float, n);
    for (int64_t i = 0; i < n; i++) data[i] = x;
    return value_const(g, arena_printf(g->arena, "%s_%s", base, what), type_of(DT_F32, 1, &n),
                       data);
}

static bool is_plain_conv(const Node *n)
{
    if (n->op != OP_Conv || !n->out[0]) return false;
    const Value *w = n->in[1], *b = node_in(n, 2);
    const Type *y = &n->out[0]->type;
    return value_is_const(w) && w->type.dtype == DT_F32 && (!b || value_is_const(b)) &&
           w->type.rank >= 3 && y->rank == w->type.rank && y->dim[1] == w->type.dim[0];
}

static Value *normalized(Graph *g, Node *conv)
{
    enum { SHARE = 100000 }; /* epsilon = 1 / SHARE */
    const float epsilon = 1.0F / SHARE;
    Value *bias = node_in(conv, 2);
    const char *base = conv->out[0]->name;
    int64_t n = conv->in[1]->type.dim[0];
    if (bias) conv->nin = 2;
    g->at = conv;
    Value *y = build(g, OP_BatchNormalization,
                     IN(conv->out[0], filled(g, base, "scale", n, 1),
                        bias ? bias : filled(g, base, "bias", n, 0), filled(g, base, "mean", n, 0),
                        filled(g, base, "var", n, 1 - epsilon)),
                     ATTRS(attr_float("epsilon", epsilon)));
    value_swap_names(y, conv->out[0]); /* at the identity */
    return y;
}

int pass_insert_bn(Context *c, const char *opt)
{
    (void)opt;
    Graph *g = c->graph;
    Arena *s = arena_new();
    Uses uses = graph_uses(g, s);
    Value **to = NEW_ARRAY(s, Value *, g->nvalues);
    uint32_t known = g->nvalues;
    Node **old = g->nodes;
    int n = g->nnodes;
    g->nodes = NULL;
    g->nnodes = g->cap_nodes = 0;
    for (int i = 0; i < n; i++) {
        Node *node = old[i];
        for (int k = 0; k < node->nin; k++) {
            Value *x = node->in[k];
            if (x && x->id < known && to[x->id]) node->in[k] = to[x->id];
        }
        node_append(g, node);
        if (is_plain_conv(node) && wants_norm(node->out[0], &uses))
            to[node->out[0]->id] = normalized(g, node);
    }
    g->at = NULL;
    arena_free(s);
    return 0;
}
