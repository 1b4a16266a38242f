/* Places FakeQuant nodes where the target's layout (targets.c) wants QuantizeLinear and
 * DequantizeLinear pairs.
 *
 * An op is *integer* if its role is QUANT_WEIGHTED with a constant weight, or if it is arithmetic
 * fed by an integer op. A value gets a grid if an integer op made it (unless the one op that
 * reads it is a Relu or Clip that dissolves in the grid behind it), or if an integer op reads it.
 * There is one FakeQuant per value, whoever reads it, so every edge has one Q. Values that were
 * only moved (slices, pads, pools of maxima) use the very constants of the value they came from.
 * Weights get one scale per output channel, symmetric, without the most negative integer. */
#include <math.h>
#include <string.h>

#include "ir/op.h"
#include "passes/calibrate.h"
#include "passes/targets.h"

enum { CALIBRATION_SAMPLES = 1024 };

typedef struct Placement {
    Graph *g;
    const Target *target;
    Arena *scratch;
    int weight_max;
    Uses uses;
    bool *integer;         /* by value id: made by an integer op, perhaps moved since */
    bool *wanted;          /* an integer op reads it, perhaps moved */
    bool *grid;            /* gets a FakeQuant */
    Value **root;          /* the value whose grid it is on */
    Value **scale, **zero; /* of roots and of constants: the FakeQuant's constants */
    Value **quantised;     /* of constants: their FakeQuant */
    uint32_t n;            /* values when the tables were made */
    const char *exclude;   /* nodes that stay in float, comma-separated; or NULL */
} Placement;

static bool is_float(const Value *v) { return v && v->type.dtype == DT_F32; }
static bool is_activation(const Value *v) { return is_float(v) && !value_is_const(v); }

static bool listed(const char *list, const char *name)
{
    size_t n = name ? strlen(name) : 0;
    for (const char *at = list; n && at && *at; at += strcspn(at, ","), at += *at == ',')
        if (strcspn(at, ",") == n && strncmp(at, name, n) == 0) return true;
    return false;
}

/* The role of a node, given its operands: zero must survive what only moves. */
static QuantRole role_of(const Placement *p, const Node *n)
{
    QuantRole role = target_role(p->target, n->op);
    double x;
    if (listed(p->exclude, n->name)) return QUANT_FLOAT;
    if (!n->nout || !is_float(n->out[0]) || !is_float(node_in(n, 0))) return QUANT_FLOAT;
    if (n->op == OP_Pad) {
        if (node_in(n, 2) && (!value_scalar(n->in[2], &x) || x != 0)) return QUANT_FLOAT;
    } else if (n->op == OP_Clip) {
        if (node_in(n, 1) && (!value_scalar(n->in[1], &x) || x > 0)) return QUANT_FLOAT;
        if (node_in(n, 2) && (!value_scalar(n->in[2], &x) || x < 0)) return QUANT_FLOAT;
    }
    return role;
}

static bool fed_by_integer(const Placement *p, const Node *n)
{
    for (int i = 0; i < n->nin; i++)
        if (is_activation(n->in[i]) && p->integer[n->in[i]->id]) return true;
    return false;
}

static bool is_integer_op(const Placement *p, const Node *n)
{
    QuantRole role = role_of(p, n);
    if (role == QUANT_WEIGHTED && is_activation(n->in[0]))
        return quant_weight_axis(n) >= 0 || fed_by_integer(p, n);
    return role == QUANT_ARITH && fed_by_integer(p, n);
}

static void mark_integer(Placement *p)
{
    for (int i = 0; i < p->g->nnodes; i++) {
        const Node *n = p->g->nodes[i];
        QuantRole role = role_of(p, n);
        bool moved = role == QUANT_SAME || role == QUANT_ABSORBED;
        bool yes = is_integer_op(p, n) || (moved && p->integer[n->in[0]->id]);
        for (int o = 0; o < n->nout; o++)
            if (n->out[o]) p->integer[n->out[o]->id] = yes && is_float(n->out[o]);
    }
}

static bool any_output_wanted(const Placement *p, const Node *n)
{
    for (int o = 0; o < n->nout; o++)
        if (n->out[o] && p->wanted[n->out[o]->id]) return true;
    return false;
}

static void mark_wanted(Placement *p)
{
    for (int i = p->g->nnodes - 1; i >= 0; i--) {
        const Node *n = p->g->nodes[i];
        bool arithmetic = is_integer_op(p, n);
        bool moves = role_of(p, n) == QUANT_SAME && any_output_wanted(p, n);
        for (int k = 0; k < n->nin; k++) {
            bool data = k == 0 || (k == 1 && n->op == OP_MatMul) ||
                        target_role(p->target, n->op) == QUANT_ARITH;
            if (is_activation(n->in[k]) && data && (arithmetic || (moves && k == 0)))
                p->wanted[n->in[k]->id] = true;
        }
    }
}

/* The only reader of v is a Relu or Clip that the grid behind it makes redundant. */
static bool is_absorbed(const Placement *p, const Value *v)
{
    const Node *n = p->uses.n[v->id] == 1 ? p->uses.at[v->id][0] : NULL;
    return n && role_of(p, n) == QUANT_ABSORBED;
}

static bool needs_grid(const Placement *p, const Value *v)
{
    bool wanted = p->wanted[v->id];
    if (!is_activation(v)) return false;
    QuantRole role = v->def ? role_of(p, v->def) : QUANT_FLOAT;
    if (role == QUANT_ABSORBED) return wanted || p->integer[v->id];
    if (!p->integer[v->id] || role == QUANT_SAME) return wanted;
    if (is_absorbed(p, v)) return false;
    bool product = v->def->op == OP_Gemm || v->def->op == OP_MatMul;
    return wanted || !(p->target->float_result && product);
}

static void mark_grids(Placement *p)
{
    for (int i = 0; i < p->g->ninputs; i++) {
        Value *v = p->g->inputs[i];
        p->grid[v->id] = needs_grid(p, v);
        p->root[v->id] = v;
    }
    for (int i = 0; i < p->g->nnodes; i++) {
        const Node *n = p->g->nodes[i];
        for (int o = 0; o < n->nout; o++) {
            Value *v = n->out[o];
            if (!v) continue;
            bool same = role_of(p, n) == QUANT_SAME && p->grid[n->in[0]->id];
            p->grid[v->id] = needs_grid(p, v);
            p->root[v->id] = same ? p->root[n->in[0]->id] : v;
        }
    }
}

static Placement placement_new(Context *c, Arena *scratch, const Target *t)
{
    Graph *g = c->graph;
    int bits = c->opt.weight_bits ? c->opt.weight_bits : t->weight_bits;
    Placement p = {
        .g = g, .target = t, .scratch = scratch, .n = g->nvalues, .exclude = c->opt.exclude};
    p.weight_max = (1 << (bits - 1)) - 1;
    p.uses = graph_uses(g, scratch);
    p.integer = NEW_ARRAY(scratch, bool, p.n);
    p.wanted = NEW_ARRAY(scratch, bool, p.n);
    p.grid = NEW_ARRAY(scratch, bool, p.n);
    p.root = NEW_ARRAY(scratch, Value *, p.n);
    p.scale = NEW_ARRAY(scratch, Value *, p.n);
    p.zero = NEW_ARRAY(scratch, Value *, p.n);
    p.quantised = NEW_ARRAY(scratch, Value *, p.n);
    mark_integer(&p);
    mark_wanted(&p);
    mark_grids(&p);
    return p;
}

static Value *float_const(Graph *g, const char *of, const char *suffix, int64_t n, const float *x)
{
    Type t = type_of(DT_F32, n ? 1 : 0, &n);
    return value_const(g, arena_printf(g->arena, "%s%s", of, suffix), t,
                       arena_memdup(g->arena, x, sizeof(float) * (size_t)(n ? n : 1)));
}

static void set_grid(Placement *p, const Value *v, Grid grid)
{
    p->scale[v->id] = float_const(p->g, v->name, "_scale", 0, &grid.scale);
    p->zero[v->id] = float_const(p->g, v->name, "_zero", 0, &grid.zero);
}

static Value *fake_quant(Placement *p, Value *v, Value *scale, Value *zero, int axis, int lo,
                         int hi)
{
    Graph *g = p->g;
    Attr attrs[] = {attr_int("qmin", lo), attr_int("qmax", hi), attr_int("axis", axis)};
    Value *q = build(g, OP_FakeQuant, IN(v, scale, zero), axis < 0 ? 2 : 3, attrs);
    q->def->name = arena_printf(g->arena, "%s_FakeQuant", v->name);
    return q;
}

static Value *quantise_weight(Placement *p, Value *w, int axis)
{
    if (p->quantised[w->id]) return p->quantised[w->id];
    int64_t n = w->type.dim[axis];
    float *scale = NEW_ARRAY(p->scratch, float, n), *zero = NEW_ARRAY(p->scratch, float, n);
    grid_weight_scales(scale, w->data, &w->type, axis, p->weight_max);
    p->scale[w->id] = float_const(p->g, w->name, "_scale", n, scale);
    p->zero[w->id] = float_const(p->g, w->name, "_zero", n, zero);
    return p->quantised[w->id] = fake_quant(p, w, p->scale[w->id], p->zero[w->id], axis,
                                            -p->weight_max, p->weight_max);
}

/* A constant operand of arithmetic is an activation that never changes. */
static Value *quantise_constant(Placement *p, Value *v)
{
    if (p->quantised[v->id]) return p->quantised[v->id];
    const float *x = v->data;
    int64_t n = type_count(&v->type);
    Range r = {0, 0};
    for (int64_t i = 0; i < n; i++) {
        r.lo = fminf(r.lo, x[i]);
        r.hi = fmaxf(r.hi, x[i]);
    }
    const Target *t = p->target;
    set_grid(p, v, grid_of_range(r, t->activation_min, t->activation_max));
    return p->quantised[v->id] = fake_quant(p, v, p->scale[v->id], p->zero[v->id], -1,
                                            t->activation_min, t->activation_max);
}

static void quantise_operands(Placement *p, Node *n, bool arithmetic)
{
    int axis = quant_weight_axis(n);
    bool weighted = target_role(p->target, n->op) == QUANT_WEIGHTED;
    for (int k = 0; k < n->nin; k++) {
        Value *v = n->in[k];
        if (!is_float(v) || !value_is_const(v)) continue;
        if (weighted && k == 1 && axis >= 0)
            n->in[k] = quantise_weight(p, v, axis);
        else if (arithmetic)
            n->in[k] = quantise_constant(p, v);
    }
}

static void quantise_output(Placement *p, Rewrite *r, Value *v)
{
    if (!v || !p->grid[v->id]) return;
    const Value *root = p->root[v->id];
    const Target *t = p->target;
    rewrite_replace(r, v,
                    fake_quant(p, v, p->scale[root->id], p->zero[root->id], -1, t->activation_min,
                               t->activation_max));
}

static void place(Placement *p)
{
    bool *integer = NEW_ARRAY(p->scratch, bool, p->g->nnodes);
    bool *arithmetic = NEW_ARRAY(p->scratch, bool, p->g->nnodes);
    for (int i = 0; i < p->g->nnodes; i++) {
        integer[i] = is_integer_op(p, p->g->nodes[i]);
        arithmetic[i] = integer[i] && role_of(p, p->g->nodes[i]) == QUANT_ARITH;
    }
    Rewrite r = rewrite_begin(p->g);
    for (int i = 0; i < p->g->ninputs; i++) quantise_output(p, &r, p->g->inputs[i]);
    for (int i = 0; i < r.nold; i++) {
        Node *n = r.old[i];
        rewrite_map_inputs(&r, n);
        p->g->at = n;
        if (integer[i]) quantise_operands(p, n, arithmetic[i]);
        node_append(p->g, n);
        for (int o = 0; o < n->nout; o++) quantise_output(p, &r, n->out[o]);
    }
    p->g->at = NULL;
    rewrite_end(&r);
}

/* A Clip in front of the grid is only redundant if the grid stays inside it. */
static Range inside_clip(const Value *v, Range r)
{
    double x;
    if (!v->def || v->def->op != OP_Clip) return r;
    if (node_in(v->def, 1) && value_scalar(v->def->in[1], &x)) r.lo = fmaxf(r.lo, (float)x);
    if (node_in(v->def, 2) && value_scalar(v->def->in[2], &x))
        r.hi = fminf(r.hi, (float)x * (1 - 1e-6f));
    return r;
}

static int find_ranges(Placement *p, Context *c)
{
    Value **roots = NEW_ARRAY(p->scratch, Value *, p->n);
    bool *seen = NEW_ARRAY(p->scratch, bool, p->n);
    int n = 0;
    for (int k = -p->g->ninputs; k < p->g->nnodes; k++) {
        Value **out = k < 0 ? &p->g->inputs[k + p->g->ninputs] : p->g->nodes[k]->out;
        for (int o = 0; o < (k < 0 ? 1 : p->g->nodes[k]->nout); o++)
            if (out[o] && p->grid[out[o]->id] && !seen[p->root[out[o]->id]->id]) {
                seen[p->root[out[o]->id]->id] = true;
                roots[n++] = p->root[out[o]->id];
            }
    }
    Range *range = NEW_ARRAY(p->scratch, Range, n);
    int lo = p->target->activation_min, hi = p->target->activation_max;
    TRY(calibrate(range, c, p->g, n, roots, CALIBRATION_SAMPLES, hi - lo));
    for (int i = 0; i < n; i++)
        set_grid(p, roots[i], grid_of_range(inside_clip(roots[i], range[i]), lo, hi));
    return 0;
}

int pass_fake_quant(Context *c, const char *opt)
{
    (void)opt;
    const Target *t = target_find(c->opt.target);
    int bits = c->opt.weight_bits;
    if (!t) return diag_error(c->diag, "unknown target '%s'", c->opt.target);
    if (bits != 0 && (bits < 2 || bits > 8))
        return diag_error(c->diag, "weights of %d bits, but 2 to 8 are possible", bits);
    for (int i = 0; i < c->graph->nnodes; i++)
        if (c->graph->nodes[i]->op == OP_FakeQuant || c->graph->nodes[i]->op == OP_QuantizeLinear)
            return node_error(c->diag, c->graph->nodes[i], "the graph is quantised already");
    Arena *scratch = arena_new();
    Placement p = placement_new(c, scratch, t);
    int status = find_ranges(&p, c);
    if (status == 0) place(&p);
    arena_free(scratch);
    return status;
}
