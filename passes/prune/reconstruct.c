/* Least-squares refit of what reads removed channels.
 *
 * Front to back, every convolution (ungrouped) and matrix product whose input has changed gets the
 * weights and bias that bring its output closest, over calibration samples, to what the original
 * computes at the same place, given the inputs that the already refitted part delivers:
 *
 *     min over W, b of  sum over samples and positions | W x + b - t |^2 + lambda |W - W0|^2.
 *
 * A layer that ends in a residual addition is fitted to the original's sum minus the other operand
 * as it is now, so that it also makes up for what the shortcut has lost. A BatchNormalization
 * behind the layer is part of the fit: its mean and variance become those of the refitted
 * layer's output and its scale and bias what keeps the fitted function.
 *
 * Where x is too wide for normal equations (MOST_COLUMNS), what is added to W is the same for a
 * group of neighbouring columns, the taps of a channel first: the unknowns are D with W = W0 + D S,
 * S summing groups, and the fit is of D S x + b to what W0 x + b0 leaves of t.
 *
 * Here is which layers, and towards what; one layer's fit is in refit.c, its activations come from
 * prefix.c: memory does not grow with the samples. */
#include "passes/prune/refit.h"

enum { MOST_COLUMNS = 4608 };
static const size_t KEEP_LIMIT = (size_t)192 << 20;

typedef struct Refit {
    Context *c;
    Arena *arena;
    Uses uses;
    Fit *fits;
    int nfits;
    bool *changed; /* by value id of c->graph: differs from the original's */
    int64_t most_columns;
    size_t bytes;
} Refit;

/* ---- which layers, towards what ----------------------------------------------------- */

/* A value has changed if a constant before it has lost lanes. */
static void find_changed(Refit *r)
{
    const Graph *g = r->c->graph;
    r->changed = NEW_ARRAY(r->arena, bool, g->nvalues);
    for (int i = 0; i < g->nnodes; i++) {
        const Node *n = g->nodes[i];
        bool changed = false;
        for (int k = 0; k < n->nin; k++) {
            const Value *v = n->in[k];
            if (v) changed |= r->changed[v->id] || (v->data && survivors_of(r->c, v->name, -1));
        }
        for (int o = 0; changed && o < n->nout; o++)
            if (n->out[o]) r->changed[n->out[o]->id] = true;
    }
}

static bool own_constant(const Refit *r, const Value *v)
{
    return v && v->data && v->type.dtype == DT_F32 && r->uses.n[v->id] == 1;
}

/* Whether every layer that v depends on comes before fit `at`. */
static bool ready(const Refit *r, const Value *v, int at)
{
    const Graph *g = r->c->graph;
    bool *wanted = NEW_ARRAY(r->arena, bool, g->nvalues);
    wanted[v->id] = true;
    for (int i = g->nnodes - 1; i >= 0; i--) {
        const Node *n = g->nodes[i];
        bool makes = false;
        for (int o = 0; o < n->nout; o++) makes |= n->out[o] && wanted[n->out[o]->id];
        for (int k = at; makes && k < r->nfits; k++)
            if (r->fits[k].node == n) return false;
        for (int k = 0; makes && k < n->nin; k++)
            if (n->in[k]) wanted[n->in[k]->id] = true;
    }
    return true;
}

static bool describe_conv(const Refit *r, Fit *f)
{
    const Node *n = f->node;
    const Type *w = &n->in[1]->type;
    if (node_int(n, "group", 1) != 1) return false;
    f->conv = f->intercept = true;
    f->outputs = w->dim[0];
    f->columns = type_count(w) / w->dim[0];
    return !node_in(n, 2) || own_constant(r, n->in[2]);
}

static bool describe_product(const Refit *r, Fit *f)
{
    const Node *n = f->node;
    const Type *w = &n->in[1]->type;
    bool transposed = n->op == OP_Gemm && node_int(n, "transB", 0);
    if (w->rank != 2) return false;
    f->outputs = w->dim[!transposed];
    f->columns = w->dim[transposed];
    f->intercept = n->op == OP_Gemm || f->norm;
    if (n->op == OP_MatMul) return true;
    const Value *b = node_in(n, 2);
    bool plain = !node_int(n, "transA", 0) && node_float(n, "alpha", 1) == 1 &&
                 node_float(n, "beta", 1) == 1;
    return plain && (!b || (own_constant(r, b) && type_count(&b->type) == f->outputs));
}

/* What the layer is and what stands behind it; false: not one to refit. */
static bool describe(const Refit *r, Node *n, Fit *f)
{
    bool conv = n->op == OP_Conv, product = n->op == OP_Gemm || n->op == OP_MatMul;
    if ((!conv && !product) || !own_constant(r, n->in[1]) || !r->changed[n->in[0]->id])
        return false;
    *f = (Fit){.node = n, .x = n->in[0], .z = n->out[0]};
    Node *next = only_reader(&r->uses, f->z);
    bool norm = next && next->op == OP_BatchNormalization && next->in[0] == f->z &&
                (conv || f->z->type.rank == 2); /* else its channels are not the outputs */
    for (int k = 1; norm && k < 5; k++) norm = own_constant(r, next->in[k]);
    if (norm) {
        f->norm = next;
        f->z = next->out[0];
    }
    return conv ? describe_conv(r, f) : describe_product(r, f);
}

/* The value of the original to come close to, behind the addition if there is one. */
static bool find_target(const Refit *r, Fit *f, int at)
{
    const Context *c = r->c;
    Node *add = only_reader(&r->uses, f->z);
    Value *sum = f->z;
    if (add && add->op == OP_Add) {
        Value *other = add->in[add->in[0] == f->z];
        bool fits = other != f->z && !other->data && type_equal(&other->type, &f->z->type);
        if (fits && ready(r, other, at)) {
            f->other = other;
            sum = add->out[0];
        }
    }
    f->target = graph_computed(c->original, sum->name);
    int axis = f->conv ? 1 : sum->type.rank - 1;
    const Survivors *s = survivors_of(c, sum->name, axis);
    f->lanes = s ? s->index : NULL;
    return f->target && (!s || s->n == f->outputs);
}

/* The fewest neighbouring columns to an unknown that leave few enough of those: the taps of a
 * convolution together first. */
static int64_t group_columns(const Refit *r, const Fit *f)
{
    const int64_t most = r->most_columns,
                  taps = f->conv ? f->columns / f->node->in[1]->type.dim[1] : 1;
    if (f->columns <= most) return 1;
    const int64_t channels = f->columns / taps, group = taps * ((channels + most - 1) / most);
    diag_remark(r->c->diag, "reconstruct: '%s' reads %lld inputs: refitted by groups of %lld",
                node_label(f->node), (long long)f->columns, (long long)group);
    return group;
}

static void find_fits(Refit *r)
{
    const Graph *g = r->c->graph;
    r->fits = NEW_ARRAY(r->arena, Fit, g->nnodes);
    for (int i = 0; i < g->nnodes; i++)
        if (describe(r, g->nodes[i], &r->fits[r->nfits])) r->nfits++;
    int n = 0;
    for (int k = 0; k < r->nfits; k++) {
        Fit f = r->fits[k];
        if (!find_target(r, &f, k)) continue;
        f.group = group_columns(r, &f);
        r->fits[n++] = f;
    }
    r->nfits = n;
}

/* ---- the pass ------------------------------------------------------------------------ */

static int refit(Refit *r, int64_t n)
{
    Context *c = r->c;
    r->uses = graph_uses(c->graph, r->arena);
    find_changed(r);
    find_fits(r);
    size_t limit = c->opt.memory ? c->opt.memory / 4 : KEEP_LIMIT;
    Prefix *prefix =
        prefix_new(r->arena, c->graph, c->original, c->data, n, &c->opt, limit, c->diag);
    int status = 0;
    for (int k = 0; k < r->nfits && status == 0; k++) {
        const Node *node = r->fits[k].node;
        pass_progress(c, (double)k / r->nfits, "refitting %s", node_label(node));
        status = refit_layer(c, prefix, &r->fits[k], n, &r->bytes);
    }
    prefix_free(prefix);
    return status;
}

int pass_reconstruct(Context *c, const char *opt)
{
    int64_t n = samples_affordable(c->graph, &c->opt, REFIT_SAMPLES), columns = MOST_COLUMNS;
    if (!c->original) return diag_error(c->diag, "reconstruct: there is no original to follow");
    if (!c->data || c->data->count == 0)
        return diag_error(c->diag, "reconstruct: there are no samples");
    TRY(pass_int(&n, c, opt, "samples", 1));
    TRY(pass_int(&columns, c, opt, "columns", 1));
    if (n > c->data->count) n = c->data->count;
    Refit r = {.c = c, .arena = arena_new(), .most_columns = columns};
    int status = refit(&r, n);
    if (r.bytes > c->peak_bytes) c->peak_bytes = r.bytes;
    arena_free(r.arena);
    return status;
}
