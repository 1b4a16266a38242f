/* Places FakeQuant nodes where the target's layout (placement.c) wants QuantizeLinear and
 * DequantizeLinear pairs, on grids from calibration.
 *
 * There is one FakeQuant per value, whoever reads it, so every edge has one Q. Values that share a
 * grid use the very same constants. Weights get one scale per output channel, symmetric, without
 * the most negative integer. What learning may do to a scale stands on the node: scale_min and
 * scale_max, where the range follows from the function (Sigmoid), where the grid must stay inside
 * a Clip to make it redundant, and where the target has a floor. */
#include <math.h>
#include <string.h>

#include "ir/op.h"
#include "passes/quant/fake_quant.h"
#include "passes/quant/placement.h"
#include "passes/quant/sqnr.h"

/* The constants of one grid, and what its scale must keep to (0: free). */
typedef struct GridNodes {
    Value *scale, *zero;
    float least, most;
} GridNodes;

typedef struct Quantizer {
    Placement p;
    Arena *scratch;
    GridKind kind;
    int weight_max;
    const Known *known; /* NULL: nothing */
    GridNodes *grid;    /* by root id */
    Value **quantized;  /* of constants, by id: their FakeQuant */
} Quantizer;

static bool is_float_const(const Value *v)
{
    return v && v->type.dtype == DT_F32 && value_is_const(v);
}

/* ---- nodes -------------------------------------------------------------------------- */

int name_head(const char *name)
{
    enum { MOST = 64 };
    int n = (int)strnlen(name, MOST + 1);
    if (n <= MOST) return n;
    for (n = MOST; n > 0 && ((unsigned char)name[n] & 0xc0) == 0x80; n--) {
    }
    return n;
}

static Value *float_const(Graph *g, const char *of, const char *suffix, int64_t n, const float *x)
{
    Type t = type_of(DT_F32, n ? 1 : 0, &n);
    return value_const(g, arena_printf(g->arena, "%.*s%s", name_head(of), of, suffix), t,
                       arena_memdup(g->arena, x, sizeof(float) * (size_t)(n ? n : 1)));
}

static GridNodes grid_nodes(Graph *g, const Value *v, Grid grid)
{
    return (GridNodes){.scale = float_const(g, v->name, "_scale", 0, &grid.scale),
                       .zero = float_const(g, v->name, "_zero", 0, &grid.zero)};
}

static Value *fake_quant(Graph *g, Value *v, const GridNodes *grid, int axis, int lo, int hi)
{
    int n = 2;
    Attr attrs[5] = {attr_int("qmin", lo), attr_int("qmax", hi)};
    if (axis >= 0) attrs[n++] = attr_int("axis", axis);
    if (grid->least > 0) attrs[n++] = attr_float("scale_min", grid->least);
    if (grid->most > 0) attrs[n++] = attr_float("scale_max", grid->most);
    Value *q = build(g, OP_FakeQuant, IN(v, grid->scale, grid->zero), n, attrs);
    q->def->name = arena_printf(g->arena, "%s_FakeQuant", v->name);
    /* Where v is a graph output the names change places. */
    q->name =
        value_new(g, arena_printf(g->arena, "%s_QuantizeLinear_Input", v->name), v->type)->name;
    return q;
}

static Value *quantize_weight(Quantizer *q, Value *w, int axis)
{
    Graph *g = q->p.g;
    int64_t n = w->type.dim[axis];
    float *scale = NEW_ARRAY(q->scratch, float, n), *zero = NEW_ARRAY(q->scratch, float, n);
    const KnownGrid *k = known_grid(q->known, w->name, q->kind);
    if (k && k->axis == axis && k->n == n && k->zero == 0 && k->qmax <= q->weight_max)
        memcpy(scale, k->scale, sizeof *scale * (size_t)n); /* the weights are on it */
    else
        grid_weight_scales(scale, w->data, &w->type, axis, q->weight_max);
    GridNodes grid = {.scale = float_const(g, w->name, "_scale", n, scale),
                      .zero = float_const(g, w->name, "_zero", n, zero)};
    return fake_quant(g, w, &grid, axis, -q->weight_max, q->weight_max);
}

/* A constant operand of arithmetic is an activation that never changes. */
static Value *quantize_constant(Quantizer *q, Value *v)
{
    const float *x = v->data;
    int64_t n = type_count(&v->type);
    Range r = {0, 0};
    Grid same;
    for (int64_t i = 0; i < n; i++) {
        r.lo = fminf(r.lo, x[i]);
        r.hi = fmaxf(r.hi, x[i]);
    }
    if (!known_as(known_grid(q->known, v->name, q->kind), q->kind, &same))
        same = grid_of_range(r, q->kind);
    GridNodes grid = grid_nodes(q->p.g, v, same);
    return fake_quant(q->p.g, v, &grid, -1, q->kind.qmin, q->kind.qmax);
}

static void quantize_operands(Quantizer *q, Node *n, bool arithmetic)
{
    int axis = quant_weight_axis(n);
    bool weighted = target_role(q->p.target, n->op) == QUANT_WEIGHTED;
    for (int k = 0; k < n->nin; k++) {
        Value *v = n->in[k], **done = v ? &q->quantized[v->id] : NULL;
        bool weight = weighted && k == 1 && axis >= 0;
        if (!is_float_const(v) || !(weight || arithmetic)) continue;
        if (!*done) *done = weight ? quantize_weight(q, v, axis) : quantize_constant(q, v);
        n->in[k] = *done;
    }
}

static void quantize_output(Quantizer *q, Rewrite *r, Value *v)
{
    if (!v || !q->p.grid[v->id]) return;
    const GridNodes *grid = &q->grid[placement_root(&q->p, v)];
    rewrite_replace(r, v, fake_quant(q->p.g, v, grid, -1, q->kind.qmin, q->kind.qmax));
}

/* The inputs become those of the grids, but where n wants the values from before. */
static void map_inputs(const Quantizer *q, const Rewrite *r, Node *n)
{
    for (int k = 0; k < n->nin; k++)
        if (n->in[k] && !relative_operand(&q->p.relative, n, k))
            n->in[k] = rewrite_value(r, n->in[k]);
}

static void place(Quantizer *q)
{
    Graph *g = q->p.g;
    bool *integer = NEW_ARRAY(q->scratch, bool, g->nnodes);
    bool *arithmetic = NEW_ARRAY(q->scratch, bool, g->nnodes);
    for (int i = 0; i < g->nnodes; i++) {
        integer[i] = placement_is_integer(&q->p, g->nodes[i]);
        arithmetic[i] = integer[i] && placement_role(&q->p, g->nodes[i]) == QUANT_ARITH;
    }
    Rewrite r = rewrite_begin(g);
    for (int i = 0; i < g->ninputs; i++) quantize_output(q, &r, g->inputs[i]);
    for (int i = 0; i < r.nold; i++) {
        Node *n = r.old[i];
        map_inputs(q, &r, n);
        g->at = n;
        if (integer[i]) quantize_operands(q, n, arithmetic[i]);
        node_append(g, n);
        for (int o = 0; o < n->nout; o++) quantize_output(q, &r, n->out[o]);
    }
    g->at = NULL;
    rewrite_end(&r);
}

/* ---- ranges ------------------------------------------------------------------------- */

/* A list of the sources, by the grid they share; home[k] is a value on grid k. */
typedef struct Sources {
    RangeGroups groups;
    Value **home;
    int *of_root; /* 1 + index of the grid, by root id */
} Sources;

static void add_source(Sources *s, const Placement *p, Value *v)
{
    if (!v || !p->grid[v->id]) return;
    uint32_t root = placement_root(p, v);
    if (!s->of_root[root]) {
        s->home[s->groups.groups++] = v;
        s->of_root[root] = s->groups.groups;
    }
    if (!placement_is_source(p, v)) return;
    s->groups.v[s->groups.n] = v;
    s->groups.group[s->groups.n++] = s->of_root[root] - 1;
}

static Sources find_sources(const Placement *p, Arena *a)
{
    Sources s = {.home = NEW_ARRAY(a, Value *, p->n), .of_root = NEW_ARRAY(a, int, p->n)};
    s.groups.v = NEW_ARRAY(a, Value *, p->n);
    s.groups.group = NEW_ARRAY(a, int, p->n);
    for (int i = 0; i < p->g->ninputs; i++) add_source(&s, p, p->g->inputs[i]);
    for (int i = 0; i < p->g->nnodes; i++)
        for (int o = 0; o < p->g->nodes[i]->nout; o++) add_source(&s, p, p->g->nodes[i]->out[o]);
    return s;
}

/* The range that all sources of grid k have by what computes them; false if there is none. */
static bool known_range(const Sources *s, int k, GridKind kind, Range *r)
{
    int seen = 0;
    for (int i = 0; i < s->groups.n; i++) {
        const Node *n = s->groups.v[i]->def;
        float lo, hi;
        if (s->groups.group[i] != k) continue;
        if (!n || !fixed_range(n->op, &lo, &hi)) return false;
        /* [0, 1) and [-1, 1) in steps of a power of two, as runtimes expect. */
        double steps =
            kind.symmetric || lo < 0 ? (kind.qmax - kind.qmin + 1) / 2 : kind.qmax - kind.qmin + 1;
        *r = (Range){seen++ ? fminf(r->lo, lo) : lo, hi - (float)(1 / steps)};
    }
    return seen > 0;
}

/* A Relu or Clip in front of the grid is only redundant if the grid stays inside it: the limits
 * that all sources of grid k have in common. */
static Range clip_of(const Sources *s, int k)
{
    Range all = {-INFINITY, INFINITY};
    bool first = true;
    for (int i = 0; i < s->groups.n; i++) {
        const Node *n = s->groups.v[i]->def;
        Range r = {-INFINITY, INFINITY};
        double x;
        if (s->groups.group[i] != k) continue;
        if (n && n->op == OP_Relu) r.lo = 0;
        if (n && n->op == OP_Clip && node_in(n, 1) && value_scalar(n->in[1], &x)) r.lo = (float)x;
        if (n && n->op == OP_Clip && node_in(n, 2) && value_scalar(n->in[2], &x)) r.hi = (float)x;
        all.lo = first ? r.lo : fminf(all.lo, r.lo);
        all.hi = first ? r.hi : fmaxf(all.hi, r.hi);
        first = false;
    }
    return all;
}

/* The grid that all sources of grid k are on already, where the target can have it. */
static bool one_known_grid(const Quantizer *q, const Sources *s, int k, Range clip, Grid *out)
{
    bool found = false;
    for (int i = 0; i < s->groups.n; i++) {
        const KnownGrid *g = known_grid(q->known, s->groups.v[i]->name, q->kind);
        Grid grid;
        if (s->groups.group[i] != k) continue;
        if (!known_as(g, q->kind, &grid)) return false;
        if (found && (grid.scale != out->scale || grid.zero != out->zero)) return false;
        Range r = known_extent(g);
        if (q->p.target->tight_relu && (r.lo < clip.lo || r.hi > clip.hi)) return false;
        *out = grid;
        found = true;
    }
    return found;
}

static GridNodes settle_grid(Quantizer *q, const Sources *s, int k, Range range)
{
    Range clip = clip_of(s, k);
    GridKind kind = q->kind;
    if (known_range(s, k, kind, &range)) {
        Grid grid = grid_of_range(range, kind);
        GridNodes fixed = grid_nodes(q->p.g, s->home[k], grid);
        fixed.least = fixed.most = grid.scale;
        return fixed;
    }
    Grid same;
    if (one_known_grid(q, s, k, clip, &same)) return grid_nodes(q->p.g, s->home[k], same);
    range.lo = fmaxf(range.lo, clip.lo);
    range.hi = fminf(range.hi, clip.hi);
    bool bounded = isfinite(clip.hi) && clip.hi > 0 && !kind.symmetric;
    float most, top = bounded ? clip.hi * (1 - 1e-6f) : 0;
    GridNodes nodes = grid_nodes(q->p.g, s->home[k], grid_below(range, kind, top, &most));
    nodes.least = kind.least_scale;
    nodes.most = most;
    return nodes;
}

/* Widens the ranges by those of the sources that are known; error: one is neither known nor
 * measured. */
static int take_known(Range *range, const Quantizer *q, Context *c, const Sources *s)
{
    int missing = 0;
    const char *names = "";
    for (int i = 0; i < s->groups.n; i++) {
        const Value *v = s->groups.v[i];
        const KnownGrid *k = known_grid(q->known, v->name, q->kind);
        Range *r = &range[s->groups.group[i]], none;
        if (k) {
            const Range e = known_extent(k);
            *r = (Range){fminf(r->lo, e.lo), fmaxf(r->hi, e.hi)};
        } else if (!c->data && !known_range(s, s->groups.group[i], q->kind, &none)) {
            if (missing++ < 5) names = arena_printf(q->scratch, "%s '%s'", names, v->name);
        }
    }
    if (!missing) return 0;
    diag_error(c->diag, "%d values need ranges that the model does not hold:%s%s", missing, names,
               missing > 5 ? " …" : "");
    diag_note(c->diag, "--data measures them; --exclude NODES leaves those that read or make them "
                       "in float");
    return -1;
}

/* Ranges from samples where there are any; known ones count before those. */
static int find_ranges(Range *range, const Quantizer *q, Context *c, const Sources *s)
{
    if (!q->known) return calibrate(range, c, q->p.g, &s->groups, CALIBRATION_SAMPLES, q->kind);
    if (c->data) {
        TRY(calibrate(range, c, q->p.g, &s->groups, CALIBRATION_SAMPLES, q->kind));
        for (int i = 0; i < s->groups.n; i++)
            if (known_grid(q->known, s->groups.v[i]->name, q->kind))
                range[s->groups.group[i]] = (Range){0, 0};
    }
    return take_known(range, q, c, s);
}

static int find_grids(Quantizer *q, Context *c)
{
    Sources s = find_sources(&q->p, q->scratch);
    Range *range = NEW_ARRAY(q->scratch, Range, s.groups.groups);
    TRY(find_ranges(range, q, c, &s));
    for (uint32_t root = 0; root < q->p.n; root++)
        if (s.of_root[root])
            q->grid[root] = settle_grid(q, &s, s.of_root[root] - 1, range[s.of_root[root] - 1]);
    return 0;
}

/* ---- the pass ----------------------------------------------------------------------- */

static void remark_small_convolutions(Context *c, const Target *t)
{
    int few = 0;
    for (int i = 0; i < c->graph->nnodes; i++) few += below_least_channels(t, c->graph->nodes[i]);
    if (few)
        diag_remark(c->diag, "%d convolutions of fewer than %d channels stay in float for '%s'",
                    few, t->least_channels, t->name);
}

static int check_graph(Context *c)
{
    for (int i = 0; i < c->graph->nnodes; i++) {
        const Node *n = c->graph->nodes[i];
        if (n->op == OP_FakeQuant) return node_error(c->diag, n, "the graph is quantized already");
    }
    return 0;
}

int place_fake_quant(Context *c, const Target *t, int bits, const char *exclude, const Known *known)
{
    Arena *scratch = arena_new();
    Quantizer q = {.p = placement_new(c->graph, t, exclude, scratch),
                   .scratch = scratch,
                   .kind = {t->activation_min, t->activation_max, t->symmetric, t->least_scale},
                   .weight_max = (1 << (bits - 1)) - 1,
                   .known = known};
    q.grid = NEW_ARRAY(scratch, GridNodes, q.p.n);
    q.quantized = NEW_ARRAY(scratch, Value *, q.p.n);
    int status = find_grids(&q, c);
    if (status == 0) place(&q);
    arena_free(scratch);
    return status;
}

int pass_fake_quant(Context *c, const char *opt)
{
    const Target *t = target_find(c->opt.target);
    if (!t) return diag_error(c->diag, "unknown target '%s'", c->opt.target);
    TRY(pass_number(&c->opt.least_sqnr, c, opt, "least-sqnr", -INFINITY, INFINITY));
    TRY(pass_number(&c->opt.least_output, c, opt, "least-output", -INFINITY, INFINITY));
    int bits = c->opt.weight_bits ? c->opt.weight_bits : t->weight_bits;
    if (bits < 2 || bits > 8)
        return diag_error(c->diag, "weights of %d bits, but 2 to 8 are possible", bits);
    TRY(check_graph(c));
    remark_small_convolutions(c, t);
    return quantize_measured(c, t, bits);
}
