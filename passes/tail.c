/* Setting aside what cannot be planned: see tail.h. */
#include "passes/tail.h"

#include <stdlib.h>
#include <string.h>

#include "ir/batch.h"
#include "passes/simplify/simplify.h"

/* ---- what has no fixed size --------------------------------------------------------- */

/* A copy with numbers for the symbols of the inputs: the batch 1, the rest `size`. Nothing that the
 * file declares of computed values is believed. NULL if the model does not allow those. */
static Graph *trial(const Graph *g, Arena *a, int64_t size)
{
    Diag quiet = {0};
    Graph *t = graph_clone(g, a, NULL);
    for (int k = 0; k < t->nnodes; k++)
        for (int o = 0; o < t->nodes[k]->nout; o++) {
            Value *v = t->nodes[k]->out[o];
            if (v && t->nodes[k]->op != OP_Opaque) v->type.rank = -1;
            if (v) v->elems = NULL;
        }
    const int *axes = batch_axes(g, a);
    for (int i = 0; i < t->ninputs; i++) {
        Type *type = &t->inputs[i]->type;
        for (int k = 0; k < type->rank; k++)
            if (dim_is_sym(type->dim[k])) type->dim[k] = k == axes[i] ? 1 : size;
    }
    return graph_infer(t, &quiet) == 0 && simplify_fold(t, a, &quiet) == 0 ? t : NULL;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names of values without a fixed size at any of the sizes tried, sorted. */
typedef struct Open {
    const char **name;
    int n;
} Open;

static Open open_values(const Graph *t, Arena *a)
{
    int most = 0;
    for (int k = 0; k < t->nnodes; k++) most += t->nodes[k]->nout;
    Open open = {NEW_ARRAY(a, const char *, most + 1), 0};
    for (int k = 0; k < t->nnodes; k++)
        for (int o = 0; o < t->nodes[k]->nout; o++) {
            const Value *v = t->nodes[k]->out[o];
            if (v && !type_is_static(&v->type)) open.name[open.n++] = v->name;
        }
    qsort(open.name, (size_t)open.n, sizeof *open.name, by_name);
    return open;
}

static Open find_open(const Graph *g, Arena *a)
{
    static const int64_t sizes[] = {224, 64, 32, 128, 512, 16, 1};
    Open best = {NULL, -1};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes && best.n != 0; k++) {
        const Graph *t = trial(g, a, sizes[k]);
        if (!t) continue;
        Open open = open_values(t, a);
        if (best.n < 0 || open.n < best.n) best = open;
    }
    return best;
}

static bool is_open(const Open *open, const Value *v)
{
    return v && open->n > 0 &&
           bsearch(&v->name, open->name, (size_t)open->n, sizeof *open->name, by_name);
}

/* Strings are carried, never computed. */
static bool is_text(const Value *v) { return v && v->type.dtype == DT_STRING; }

/* Rounds what is then computed on as integers: nothing in front of it could learn from what comes
 * behind. (The pair of QuantizeLinear and DequantizeLinear is a float in between.) */
static bool goes_integer(const Node *n, const Uses *u)
{
    bool pair = n->op == OP_QuantizeLinear;
    for (int k = 0; pair && k < u->n[n->out[0]->id]; k++) {
        const Node *r = u->at[n->out[0]->id][k];
        pair = r && r->op == OP_DequantizeLinear;
    }
    return n->op == OP_DynamicQuantizeLinear || (n->op == OP_QuantizeLinear && !pair);
}

/* By node index: what is not known, what has no fixed size, what goes integer if `integers` are to
 * be left alone, and what reads their results. */
static int mark_tail(const Graph *g, bool integers, bool *tail, Arena *a)
{
    const Open open = find_open(g, a);
    const Uses uses = graph_uses(g, a);
    bool *made = NEW_ARRAY(a, bool, g->nvalues); /* by value id: by the tail */
    int count = 0;
    for (int k = 0; k < g->nnodes; k++) {
        const Node *n = g->nodes[k];
        tail[k] = n->op == OP_Opaque || (integers && goes_integer(n, &uses));
        for (int i = 0; i < n->nin; i++)
            tail[k] |= is_text(n->in[i]) || (n->in[i] && made[n->in[i]->id]);
        for (int o = 0; o < n->nout; o++)
            tail[k] |= is_text(n->out[o]) || is_open(&open, n->out[o]);
        for (int o = 0; o < n->nout && tail[k]; o++)
            if (n->out[o]) made[n->out[o]->id] = true;
        count += tail[k];
    }
    return count;
}

static bool any_float(Value *const *v, int n, const bool *which)
{
    for (int k = 0; k < n; k++)
        if (v[k] && dtype_is_float(v[k]->type.dtype) && (!which || which[v[k]->id])) return true;
    return false;
}

/* Whether the rest would have a float output. */
static bool is_learnable(const Graph *g, const bool *tail, Arena *a)
{
    bool *rest = NEW_ARRAY(a, bool, g->nvalues); /* by value id: made in front */
    for (int k = 0; k < g->nnodes; k++)
        for (int o = 0; o < g->nodes[k]->nout && !tail[k]; o++)
            if (g->nodes[k]->out[o]) rest[g->nodes[k]->out[o]->id] = true;
    if (any_float(g->outputs, g->noutputs, NULL)) return true;
    for (int k = 0; k < g->nnodes; k++)
        if (tail[k] && any_float(g->nodes[k]->in, g->nodes[k]->nin, rest)) return true;
    return false;
}

/* Marks what makes integers of floats that end as integers, an ArgMax behind a classifier: what it
 * reads can be learned, its results cannot. */
static int mark_ends(const Graph *g, bool *tail, Arena *a)
{
    bool *leads = NEW_ARRAY(a, bool, g->nvalues); /* by value id: to a float */
    int count = 0;
    for (int k = g->nnodes - 1; k >= 0; k--) {
        const Node *n = g->nodes[k];
        bool ahead = any_float(n->out, n->nout, NULL);
        for (int o = 0; o < n->nout; o++) ahead |= n->out[o] && leads[n->out[o]->id];
        for (int i = 0; i < n->nin; i++)
            if (n->in[i]) leads[n->in[i]->id] |= ahead;
        if (!ahead && !tail[k]) tail[k] = true;
        count += tail[k];
    }
    return count;
}

/* ---- taking it out ------------------------------------------------------------------ */

typedef struct Split {
    Graph *g;
    bool *tail;      /* by node index */
    bool *in_tail;   /* by value id: made there */
    bool *is_output; /* by value id: of the rest */
    Arena *a;
} Split;

/* Values of the rest that the tail reads become outputs; those that the caller wants stay. */
static void set_outputs(Split *s)
{
    Graph *g = s->g;
    const int n = g->noutputs;
    Value **old = g->outputs;
    g->outputs = NULL;
    g->noutputs = 0;
    for (int o = 0; o < n; o++) {
        if (s->in_tail[old[o]->id] || s->is_output[old[o]->id]) continue;
        s->is_output[old[o]->id] = true;
        graph_add_output(g, old[o]);
    }
    for (int k = 0; k < g->nnodes; k++)
        for (int i = 0; i < g->nodes[k]->nin && s->tail[k]; i++) {
            Value *v = g->nodes[k]->in[i];
            if (!v || !v->def || s->in_tail[v->id] || s->is_output[v->id]) continue;
            s->is_output[v->id] = true;
            graph_add_output(g, v);
        }
}

/* The tail as a graph: a clone of everything, less the rest's nodes; what it read is its input. */
static Graph *tail_graph(const Split *s)
{
    Graph *t = graph_clone(s->g, s->a, NULL);
    bool *seen = NEW_ARRAY(s->a, bool, t->nvalues);
    Rewrite r = rewrite_begin(t);
    t->ninputs = 0;
    t->inputs = NULL;
    for (int k = 0; k < r.nold; k++) {
        Node *n = r.old[k];
        if (!s->tail[k]) continue;
        for (int o = 0; o < n->nout; o++)
            if (n->out[o]) seen[n->out[o]->id] = true;
        for (int i = 0; i < n->nin; i++) {
            Value *v = n->in[i];
            if (!v || v->data || seen[v->id]) continue;
            seen[v->id] = true;
            v->def = NULL;
            value_make_input(t, v);
        }
        node_append(t, n);
    }
    rewrite_end(&r);
    int n = 0;
    for (int o = 0; o < t->noutputs; o++)
        if (t->outputs[o]->def && seen[t->outputs[o]->id]) t->outputs[n++] = t->outputs[o];
    t->noutputs = n;
    return t;
}

/* Samples are not asked for what no sample can be and only the tail reads. */
static void drop_inputs(Split *s)
{
    Graph *g = s->g;
    const Uses uses = graph_uses(g, s->a);
    int n = 0;
    for (int i = 0; i < g->ninputs; i++) {
        const Type *t = &g->inputs[i]->type;
        const bool feedable = t->rank > 0 && dtype_size(t->dtype) > 0;
        if (feedable || uses.n[g->inputs[i]->id] > 0) g->inputs[n++] = g->inputs[i];
    }
    g->ninputs = n;
}

static void drop_nodes(Split *s)
{
    Rewrite r = rewrite_begin(s->g);
    for (int k = 0; k < r.nold; k++)
        if (!s->tail[k]) node_append(s->g, r.old[k]);
    rewrite_end(&r);
}

static Tail *detach(Split *s)
{
    Tail *t = NEW(s->a, Tail);
    Graph *g = s->g;
    s->in_tail = NEW_ARRAY(s->a, bool, g->nvalues);
    s->is_output = NEW_ARRAY(s->a, bool, g->nvalues);
    t->noutputs = g->noutputs;
    t->outputs = NEW_ARRAY(s->a, const char *, g->noutputs);
    for (int o = 0; o < g->noutputs; o++) t->outputs[o] = g->outputs[o]->name;
    for (int k = g->nnodes - 1; k >= 0; k--)
        for (int o = 0; o < g->nodes[k]->nout && s->tail[k]; o++) {
            if (g->nodes[k]->out[o]) s->in_tail[g->nodes[k]->out[o]->id] = true;
            if (o == 0) t->first = node_describe(g->nodes[k], s->a);
        }
    t->ninputs = g->ninputs;
    t->inputs = NEW_ARRAY(s->a, const char *, g->ninputs + 1);
    for (int i = 0; i < g->ninputs; i++) t->inputs[i] = g->inputs[i]->name;
    t->nodes = tail_graph(s);
    set_outputs(s);
    drop_nodes(s);
    drop_inputs(s);
    return t;
}

int tail_detach(Tail **out, Graph *g, bool integers, Arena *a, Diag *d)
{
    Split s = {.g = g, .tail = NEW_ARRAY(a, bool, g->nnodes), .a = a};
    int count = mark_tail(g, integers, s.tail, a);
    const bool ends = !is_learnable(g, s.tail, a);
    if (ends) count = mark_ends(g, s.tail, a);
    *out = NULL;
    if (count == 0) return 0;
    *out = detach(&s);
    const Op op = (*out)->nodes->nodes[0]->op;
    const bool rounds = op == OP_QuantizeLinear || op == OP_DynamicQuantizeLinear;
    const char *why = rounds ? "in integers already"
                      : ends ? "the end of what can be learned"
                             : "not known or of no fixed size";
    bool real = false;
    for (int o = 0; o < g->noutputs; o++) real |= dtype_is_float(g->outputs[o]->type.dtype);
    if (!real) {
        diag_remark(d, "%s is %s, and nothing in front of it can be compressed", (*out)->first,
                    why);
        return STATUS_NOTHING;
    }
    diag_remark(d, "%s is %s: it and what follows, %d node%s, stay as they are", (*out)->first, why,
                count, count == 1 ? "" : "s");
    return 0;
}

void tail_name_readers(Graph *g, const Tail *t)
{
    for (int o = 0; o < g->noutputs; o++) {
        Value *v = g->outputs[o];
        v->aside = NULL;
        for (int k = 0; k < t->nodes->nnodes && !v->aside; k++) {
            const Node *n = t->nodes->nodes[k];
            for (int i = 0; i < n->nin && !v->aside; i++)
                if (n->in[i] && strcmp(n->in[i]->name, v->name) == 0) v->aside = n;
        }
    }
}

/* ---- putting it back ---------------------------------------------------------------- */

static Value *named(const Graph *g, const char *name)
{
    for (int o = 0; o < g->noutputs; o++)
        if (strcmp(g->outputs[o]->name, name) == 0) return g->outputs[o];
    for (int i = 0; i < g->ninputs; i++)
        if (strcmp(g->inputs[i]->name, name) == 0) return g->inputs[i];
    return NULL;
}

/* Symbols of t, which counts those of `from`, as g counts them; to[]: those met so far, or 0. */
static void translate(Graph *g, const Graph *from, int64_t *to, Type *t)
{
    for (int k = 0; k < t->rank; k++) {
        const int64_t s = t->dim[k] - DIM_SYM_BASE;
        if (!dim_is_sym(t->dim[k])) continue;
        if (!to[s]) to[s] = graph_symbol(g, from->symbols[s]);
        t->dim[k] = to[s];
    }
}

/* An input that only the tail has. */
static Value *add_input(Graph *g, const Graph *from, int64_t *to, const Value *v)
{
    Type t = v->type;
    translate(g, from, to, &t);
    Value *in = graph_add_input(g, v->name, t);
    in->name = arena_strdup(g->arena, v->name);
    in->doc = v->doc;
    in->opaque_type = v->opaque_type;
    in->declared = v->declared;
    in->extra = v->extra;
    return in;
}

static bool is_model_input(const Tail *t, const char *name)
{
    for (int i = 0; i < t->ninputs; i++)
        if (strcmp(t->inputs[i], name) == 0) return true;
    return false;
}

/* Inputs as the model had them. */
static void order_inputs(Graph *g, const Tail *t)
{
    int at = 0;
    for (int i = 0; i < t->ninputs; i++)
        for (int k = at; k < g->ninputs; k++) {
            Value *v = g->inputs[k];
            if (strcmp(v->name, t->inputs[i]) != 0) continue;
            g->inputs[k] = g->inputs[at];
            g->inputs[at++] = v;
            break;
        }
}

int tail_attach(Graph *g, const Tail *t, Diag *d)
{
    const Graph *nodes = t->nodes;
    const int first = g->nnodes;
    bool changed;
    int64_t *to = NEW_ARRAY(g->arena, int64_t, nodes->nsymbols + 1);
    Value **in = NEW_ARRAY(g->arena, Value *, nodes->ninputs + 1);
    Value **made = NEW_ARRAY(g->arena, Value *, nodes->noutputs + 1);
    for (int i = 0; i < nodes->ninputs; i++) {
        const Value *v = nodes->inputs[i];
        if (!(in[i] = named(g, v->name)) && is_model_input(t, v->name))
            in[i] = add_input(g, nodes, to, v);
        if (!in[i]) return diag_error(d, "'%s', which %s reads, is gone", v->name, t->first);
    }
    order_inputs(g, t);
    graph_inline(g, nodes, in, made);
    for (int k = first; k < g->nnodes; k++) {
        Node *n = g->nodes[k];
        for (int o = 0; o < n->nout; o++) {
            if (!n->out[o]) continue;
            translate(g, nodes, to, &n->out[o]->type);
            n->out[o]->elems = NULL;
        }
        TRY(refine_types(n, &changed, d));
    }
    Value **outputs = NEW_ARRAY(g->arena, Value *, t->noutputs + 1);
    for (int o = 0; o < t->noutputs; o++) {
        outputs[o] = named(g, t->outputs[o]);
        for (int k = 0; k < nodes->noutputs && !outputs[o]; k++)
            if (strcmp(nodes->outputs[k]->name, t->outputs[o]) == 0) outputs[o] = made[k];
        if (!outputs[o]) return diag_error(d, "output '%s' is gone", t->outputs[o]);
    }
    g->noutputs = 0;
    for (int o = 0; o < t->noutputs; o++) graph_add_output(g, outputs[o]);
    return 0;
}

/* ---- what bodies read ----------------------------------------------------------------- */

/* v as it was before QuantizeLinear and DequantizeLinear, moved as behind them by copies of the
 * nodes that do; NULL: it does not come from there. */
static Value *before_grid(Graph *g, const Value *v)
{
    const Node *n = v->def, *q;
    if (!n) return NULL;
    if (n->op == OP_DequantizeLinear) {
        q = n->in[0]->def;
        return q && q->op == OP_QuantizeLinear ? q->in[0] : NULL;
    }
    if (!(op_info[n->op].flags & OPF_MOVES) && n->op != OP_MaxPool) return NULL;
    Value *x = before_grid(g, n->in[0]), *moved = NULL;
    if (!x) return NULL;
    Node *copy = node_new(g, n->op, n->nin, n->in, n->nout);
    copy->in[0] = x;
    for (int k = 0; k < n->nattrs; k++) node_set_attr(g, copy, n->attrs[k]);
    for (int o = 0; o < n->nout; o++) {
        if (!n->out[o]) continue;
        copy->out[o] = value_new(g, n->out[o]->name, n->out[o]->type);
        if (n->out[o] == v) moved = copy->out[o];
    }
    node_append(g, copy);
    return moved;
}

void tail_free_bodies(Graph *g)
{
    Rewrite r = rewrite_begin(g);
    for (int k = 0; k < r.nold; k++) {
        Node *n = r.old[k];
        for (int i = n->nin - n->ncapture; i < n->nin; i++) {
            const bool moved = n->in[i]->def && n->in[i]->def->op != OP_DequantizeLinear;
            Value *v = moved ? before_grid(g, n->in[i]) : NULL;
            if (v) n->in[i] = v;
        }
        node_append(g, n);
    }
    rewrite_end(&r);
}
