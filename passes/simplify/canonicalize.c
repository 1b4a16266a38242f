/* One form for each idea, so that other passes need to know only one: constants and shape
 * arithmetic folded, nodes that change nothing dropped, Einsum as MatMul where it is one, Reshape
 * with at most one symbolic size given a constant shape (0 and -1), Compress by a constant as
 * Gather, recurrent layers without the zeros that they start from, duplicates merged, dead nodes
 * gone. The steps enable each other, so they are repeated until none finds anything. */
#include "ir/op.h"
#include "ir/recurrent.h"
#include "passes/simplify/simplify.h"

enum { MAX_ROUNDS = 32 };

/* ---- nodes that change nothing ------------------------------------------------------- */

static bool same_shape(const Node *n)
{
    const Type *x = &n->in[0]->type;
    return x->rank >= 0 && x->dtype != DT_NONE && type_equal(x, &n->out[0]->type);
}

/* Dropout of inference: training_mode absent or false. */
static bool idle_dropout(const Node *n)
{
    double training = 0;
    const Value *mode = node_in(n, 2);
    return !mode || (value_scalar(mode, &training) && training == 0);
}

static bool idle_transpose(const Node *n)
{
    size_t count = 0;
    const int64_t *perm = node_ints(n, "perm", &count);
    for (size_t i = 0; perm && i < count; i++)
        if (perm[i] != (int64_t)i) return false;
    return perm || n->in[0]->type.rank == 1 || n->in[0]->type.rank == 0;
}

/* All of v's elements are constants and `wanted`. */
static bool all_equal(const Value *v, int64_t wanted)
{
    int64_t x[2 * MAX_RANK];
    int n = v && v->data ? value_ints(v, x, 2 * MAX_RANK) : -1;
    for (int i = 0; i < n; i++)
        if (x[i] != wanted) return false;
    return n >= 0;
}

static bool idle_pad(const Node *n) { return all_equal(node_in(n, 1), 0); }

/* As many elements as before, taken forward: all of them. */
static bool idle_slice(const Node *n)
{
    return (!node_in(n, 4) || all_equal(node_in(n, 4), 1)) && same_shape(n);
}

static bool always(const Node *n)
{
    (void)n;
    return true;
}

static bool only_operand(const Node *n) { return n->nin == 1; }

static const struct {
    Op op;
    bool (*idle)(const Node *n);
} idle_rules[] = {
    {OP_Identity, always},      {OP_Dropout, idle_dropout}, {OP_Cast, same_shape},
    {OP_Reshape, same_shape},   {OP_Flatten, same_shape},   {OP_Squeeze, same_shape},
    {OP_Unsqueeze, same_shape}, {OP_Expand, same_shape},    {OP_Transpose, idle_transpose},
    {OP_Pad, idle_pad},         {OP_Slice, idle_slice},     {OP_Concat, only_operand},
    {OP_Sum, only_operand},     {OP_Max, only_operand},     {OP_Min, only_operand},
};

/* Whether out[0] is in[0] and nobody reads another output. */
static bool is_idle(const Node *n, const int *uses)
{
    for (int o = 1; o < n->nout; o++)
        if (n->out[o] && uses[n->out[o]->id]) return false;
    if (n->nout < 1 || !n->out[0] || n->nin < 1 || !n->in[0]) return false;
    for (size_t k = 0; k < sizeof idle_rules / sizeof *idle_rules; k++)
        if (idle_rules[k].op == n->op) return idle_rules[k].idle(n);
    return false;
}

static void drop_idle(Graph *g, Arena *scratch)
{
    const int *uses = graph_uses(g, scratch).n;
    bool *is_output = output_flags(g, scratch);
    Rewrite r = rewrite_begin(g);
    for (int i = 0; i < r.nold; i++) {
        Node *n = r.old[i];
        rewrite_map_inputs(&r, n);
        Value *x = n->nin ? n->in[0] : NULL, *y = n->nout ? n->out[0] : NULL;
        bool idle = is_idle(n, uses);
        /* An output that is an input, a constant or another output needs a node of its own. */
        bool carries = idle && is_output[y->id] && (!x->def || is_output[x->id]);
        if (idle && !carries) {
            rewrite_replace(&r, y, x);
            /* From here on x bears the output's name. */
            is_output[x->id] |= is_output[y->id];
        } else {
            node_append(g, n);
        }
    }
    rewrite_end(&r);
}

/* ---- Reshape ------------------------------------------------------------------------ */

/* The target with 0 for "as the input's" and -1 for the one other size that is symbolic. */
static bool plain_target(const Node *n, int64_t *target, int *rank)
{
    const Type *x = &n->in[0]->type;
    int unknown = 0;
    *rank = value_ints(n->in[1], target, MAX_RANK);
    if (n->in[1]->data || *rank < 0 || node_int(n, "allowzero", 0)) return false;
    for (int i = 0; i < *rank; i++) {
        if (target[i] == 0) return false;
        if (!dim_is_sym(target[i])) {
            unknown += target[i] == -1;
        } else if (i < x->rank && x->dim[i] == target[i]) {
            target[i] = 0;
        } else {
            target[i] = -1;
            unknown++;
        }
    }
    return unknown <= 1;
}

static int plain_reshapes(Graph *g)
{
    int changed = 0;
    for (int i = 0; i < g->nnodes; i++) {
        Node *n = g->nodes[i];
        int64_t target[MAX_RANK];
        int rank;
        if (n->op != OP_Reshape || !plain_target(n, target, &rank)) continue;
        n->in[1] = const_ints(g, rank, target);
        changed++;
    }
    return changed;
}

/* ---- Compress ----------------------------------------------------------------------- */

/* The positions that a constant condition chooses. */
static Value *chosen_positions(Graph *g, const Value *condition)
{
    int64_t n = type_count(&condition->type), count = 0;
    int64_t *at = NEW_ARRAY(g->arena, int64_t, n);
    for (int64_t i = 0; i < n; i++)
        if (((const uint8_t *)condition->data)[i]) at[count++] = i;
    return const_ints(g, (int)count, at);
}

/* Where the condition is known it is a Gather. */
static int plain_compress(Graph *g)
{
    int changed = 0;
    Rewrite r = rewrite_begin(g);
    for (int i = 0; i < r.nold; i++) {
        Node *n = r.old[i];
        rewrite_map_inputs(&r, n);
        if (n->op != OP_Compress || !value_is_const(n->in[1])) {
            node_append(g, n);
            continue;
        }
        g->at = n;
        Value *x = n->in[0];
        if (!node_attr(n, "axis")) x = build(g, OP_Reshape, IN(x, CONST_INTS(g, -1)), NO_ATTRS);
        rewrite_replace(&r, n->out[0],
                        build(g, OP_Gather, IN(x, chosen_positions(g, n->in[1])),
                              ATTRS(attr_int("axis", node_int(n, "axis", 0)))));
        g->at = NULL;
        changed++;
    }
    rewrite_end(&r);
    return changed;
}

/* ---- initial states ----------------------------------------------------------------- */

static bool zero_bytes(const void *p, int64_t n)
{
    const unsigned char *b = p;
    for (int64_t i = 0; i < n; i++)
        if (b[i]) return false;
    return n >= 0;
}

/* Whether v is computed from zeros alone, by at most `depth` nodes in a row. */
static bool is_zero(const Value *v, int depth)
{
    const Node *n = v ? v->def : NULL;
    if (v && v->data) return zero_bytes(v->data, type_bytes(&v->type));
    if (!n || depth == 0) return false;
    if (n->op == OP_ConstantOfShape) {
        const Attr *value = node_attr(n, "value");
        return !value || zero_bytes(value->s.p, (int64_t)value->s.n);
    }
    bool moves = (op_info[n->op].flags & OPF_MOVES) && n->op != OP_Pad;
    if (!moves && n->op != OP_Cast) return false;
    for (int i = 0; i < (n->op == OP_Concat ? n->nin : 1); i++)
        if (!is_zero(n->in[i], depth - 1)) return false;
    return true;
}

/* A state that starts at zero need not be given: exporters make one for every batch size, and one
 * for all layers, whose hidden units would hang together by it. */
static void drop_zero_states(Graph *g)
{
    enum { DEPTH = 8 };
    for (int i = 0; i < g->nnodes; i++) {
        Node *n = g->nodes[i];
        bool recurrent = n->op == OP_LSTM || n->op == OP_GRU || n->op == OP_RNN;
        for (int k = IN_H; recurrent && k <= IN_C; k++)
            if (k < n->nin && is_zero(n->in[k], DEPTH)) n->in[k] = NULL;
        while (recurrent && !n->in[n->nin - 1]) n->nin--;
    }
}

/* ---- the pass ----------------------------------------------------------------------- */

static int one_round(Graph *g, Arena *scratch, bool *changed, Diag *d)
{
    int before = g->nnodes;
    TRY(simplify_fold(g, scratch, d));
    simplify_einsum(g);
    drop_zero_states(g);
    *changed = plain_reshapes(g) + plain_compress(g) > 0;
    drop_idle(g, scratch);
    TRY(simplify_cse(g, scratch));
    TRY(simplify_dce(g, scratch));
    *changed |= g->nnodes != before;
    return 0;
}

int simplify_canonicalize(Graph *g, Diag *d)
{
    bool changed = true;
    for (int round = 0; changed && round < MAX_ROUNDS; round++) {
        Arena *scratch = arena_new();
        int status = one_round(g, scratch, &changed, d);
        arena_free(scratch);
        TRY(status);
    }
    return 0;
}

int simplify_pass(Context *c, int (*f)(Graph *g, Arena *scratch))
{
    Arena *scratch = arena_new();
    int status = f(c->graph, scratch);
    arena_free(scratch);
    return status;
}

int pass_canonicalize(Context *c, const char *opt)
{
    (void)opt;
    return simplify_canonicalize(c->graph, c->diag);
}
