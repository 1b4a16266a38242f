/* Which values of a float graph get a grid on a target.
 *
 * An op is *integer* if its role is QUANT_WEIGHTED with a constant weight, or if it is arithmetic
 * fed by an integer op with an integer product somewhere behind it: what follows the last product
 * (decoding of boxes, a Concat of boxes and scores, a final sum) stays in float, where one scale
 * for all would cost more than the integers save.
 *
 * Where the target wants grids on outputs, a value gets one if an integer op made it (unless the
 * one op that reads it is a Relu or Clip that dissolves in the grid behind it), or if an integer
 * op reads it, at either end of what only moves elements. Elsewhere only what integer ops read
 * gets one. Values that were only moved share the grid of the value they came from; so do, where
 * the target says so, the operands and the result of a Concat. What a grid of equal steps would
 * spoil (relative.h) is computed in float. */
#include "passes/quant/placement.h"

#include <string.h>

#include "ir/op.h"
#include "ir/text.h"

static bool is_activation(const Value *v)
{
    return v && v->type.dtype == DT_F32 && !value_is_const(v);
}

QuantRole placement_role(const Placement *p, const Node *n)
{
    bool in_float = name_listed(p->exclude, node_label(n)) || relative_result(&p->relative, n);
    return in_float ? QUANT_FLOAT : quant_role(p->target, n);
}

static bool fed_by_integer(const Placement *p, const Node *n)
{
    for (int i = 0; i < n->nin; i++)
        if (is_activation(n->in[i]) && p->integer[n->in[i]->id]) return true;
    return false;
}

static bool any_output(const Node *n, const bool *flag)
{
    for (int o = 0; o < n->nout; o++)
        if (n->out[o] && flag[n->out[o]->id]) return true;
    return false;
}

bool placement_is_integer(const Placement *p, const Node *n)
{
    QuantRole role = placement_role(p, n);
    if (role == QUANT_WEIGHTED && is_activation(n->in[0]))
        return quant_weight_axis(n) >= 0 || (n->op == OP_MatMul && is_activation(n->in[1]) &&
                                             fed_by_integer(p, n) && !p->target->constant_factor);
    return role == QUANT_ARITH && fed_by_integer(p, n) && any_output(n, p->leads);
}

/* Products whose weights are activations count too: whether they are integer hangs on what feeds
 * them, which does not matter to what `leads` is for. */
static void mark_leads(Placement *p)
{
    for (int i = p->g->nnodes - 1; i >= 0; i--) {
        const Node *n = p->g->nodes[i];
        if (placement_role(p, n) != QUANT_WEIGHTED && !any_output(n, p->leads)) continue;
        for (int k = 0; k < n->nin; k++)
            if (n->in[k]) p->leads[n->in[k]->id] = true;
    }
}

static void mark_integer(Placement *p)
{
    for (int i = 0; i < p->g->nnodes; i++) {
        const Node *n = p->g->nodes[i];
        QuantRole role = placement_role(p, n);
        bool passes_on = role_moves(role) || role == QUANT_ABSORBED || role == QUANT_THROUGH ||
                         role == QUANT_RESIDUAL;
        bool yes = placement_is_integer(p, n) || (passes_on && fed_by_integer(p, n));
        for (int o = 0; o < n->nout; o++)
            if (n->out[o]) p->integer[n->out[o]->id] = yes && n->out[o]->type.dtype == DT_F32;
    }
}

/* The product that a sum is the epilogue of, through a normalization at most: the operand that
 * needs no grid; -1: none. */
static int epilogue_operand(const Placement *p, const Node *sum)
{
    for (int k = 0; k < sum->nin; k++) {
        const Value *v = sum->in[k];
        if (!is_activation(v) || !v->def || p->uses.n[v->id] != 1) continue;
        if (placement_role(p, v->def) == QUANT_WEIGHTED && placement_is_integer(p, v->def))
            return k;
    }
    return -1;
}

/* Which inputs of the node must be on grids. */
static bool wants_input(const Placement *p, const Node *n, int k)
{
    QuantRole role = placement_role(p, n);
    bool behind = any_output(n, p->wanted);
    if (!is_activation(n->in[k])) return false;
    if (role == QUANT_WEIGHTED)
        return placement_is_integer(p, n) && (k == 0 || (k == 1 && n->op == OP_MatMul));
    if (role == QUANT_ARITH && n->op == OP_Concat && !p->target->output_grids)
        return behind && placement_is_integer(p, n);
    if (role == QUANT_ARITH) return placement_is_integer(p, n);
    if (role == QUANT_RESIDUAL) {
        int product = any_output(n, p->leads) ? epilogue_operand(p, n) : -1;
        return product >= 0 && k != product;
    }
    return role_moves(role) && p->target->output_grids && behind && k == 0;
}

static void mark_wanted(Placement *p)
{
    for (int i = p->g->nnodes - 1; i >= 0; i--) {
        const Node *n = p->g->nodes[i];
        for (int k = 0; k < n->nin; k++)
            if (wants_input(p, n, k)) p->wanted[n->in[k]->id] = true;
    }
}

/* The only reader of v is a Relu or Clip that the grid behind it makes redundant. */
static bool is_absorbed(const Placement *p, const Value *v)
{
    const Node *n = p->uses.n[v->id] == 1 ? p->uses.at[v->id][0] : NULL;
    return n && placement_role(p, n) == QUANT_ABSORBED;
}

/* Between a DequantizeLinear and a QuantizeLinear of the model's own, values are on grids as it is.
 */
static bool has_own_grid(const Placement *p, const Value *v)
{
    bool own = p->uses.n[v->id] > 0;
    if (v->def && v->def->op == OP_DequantizeLinear) return true;
    for (int k = 0; k < p->uses.n[v->id]; k++) {
        const Node *n = p->uses.at[v->id][k];
        own &= n && n->op == OP_QuantizeLinear;
    }
    return own;
}

static bool needs_grid(const Placement *p, const Value *v)
{
    const Target *t = p->target;
    bool wanted = p->wanted[v->id], integer = p->integer[v->id];
    if (!is_activation(v) || has_own_grid(p, v)) return false;
    if (!v->def) return wanted;
    QuantRole role = placement_role(p, v->def);
    if (!t->output_grids)
        return wanted ||
               (role == QUANT_ARITH && v->def->op != OP_Concat && placement_is_integer(p, v->def));
    if (role == QUANT_ABSORBED) return wanted || integer;
    if (!integer || role_moves(role) || role == QUANT_THROUGH) return wanted;
    if (is_absorbed(p, v)) return false;
    bool product = v->def->op == OP_Gemm || v->def->op == OP_MatMul;
    return wanted || !(t->float_result && product);
}

/* ---- values that share a grid -------------------------------------------------------- */

uint32_t placement_root(const Placement *p, const Value *v)
{
    uint32_t i = v->id;
    while (p->root[i] != i) i = p->root[i] = p->root[p->root[i]];
    return i;
}

/* The earlier value stands for both. */
static void share(Placement *p, const Value *v, const Value *w)
{
    uint32_t a = placement_root(p, v), b = placement_root(p, w);
    if (a < b)
        p->root[b] = a;
    else
        p->root[a] = b;
}

static void share_concat(Placement *p, const Node *n)
{
    for (int k = 0; k < n->nin; k++)
        if (is_activation(n->in[k]) && p->grid[n->in[k]->id]) share(p, n->out[0], n->in[k]);
}

static void mark_grids(Placement *p)
{
    for (int i = 0; i < p->g->ninputs; i++)
        p->grid[p->g->inputs[i]->id] = needs_grid(p, p->g->inputs[i]);
    for (int i = 0; i < p->g->nnodes; i++) {
        const Node *n = p->g->nodes[i];
        for (int o = 0; o < n->nout; o++) {
            Value *v = n->out[o];
            if (!v) continue;
            p->grid[v->id] = needs_grid(p, v);
            if (role_moves(placement_role(p, n)) && p->grid[n->in[0]->id]) share(p, v, n->in[0]);
        }
        if (n->op == OP_Concat && p->target->shared_concat && n->out[0] && p->grid[n->out[0]->id] &&
            placement_is_integer(p, n))
            share_concat(p, n);
    }
}

Placement placement_new(Graph *g, const Target *t, const char *exclude, Arena *a)
{
    Placement p = {.g = g, .target = t, .exclude = name_list(a, exclude), .n = g->nvalues};
    p.uses = graph_uses(g, a);
    p.relative = relative_find(g, a);
    p.leads = NEW_ARRAY(a, bool, p.n);
    p.integer = NEW_ARRAY(a, bool, p.n);
    p.wanted = NEW_ARRAY(a, bool, p.n);
    p.grid = NEW_ARRAY(a, bool, p.n);
    p.root = NEW_ARRAY(a, uint32_t, p.n);
    for (uint32_t i = 0; i < p.n; i++) p.root[i] = i;
    mark_leads(&p);
    mark_integer(&p);
    mark_wanted(&p);
    mark_grids(&p);
    return p;
}

bool placement_is_source(const Placement *p, const Value *v)
{
    const Node *n = v->def;
    if (!n) return true;
    QuantRole role = placement_role(p, n);
    if (role_moves(role)) return !p->grid[n->in[0]->id];
    bool joined = n->op == OP_Concat;
    for (int k = 0; joined && k < n->nin; k++)
        joined = p->grid[n->in[k]->id] && placement_root(p, n->in[k]) == placement_root(p, v);
    return !joined;
}
