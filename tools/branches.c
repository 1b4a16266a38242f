/* Which branch of an If is taken, where that can be known: by constants and what --fix says of
 * inputs before any job, by the arrays given in `run`. The branch's nodes take the If's place. */
#include <string.h>

#include "passes/simplify/simplify.h"
#include "passes/synthesize.h"
#include "tools/session.h"

static bool any_if(const Graph *g)
{
    for (int k = 0; k < g->nnodes; k++)
        if (onnx_is_if(g->nodes[k])) return true;
    return false;
}

static int wrong_condition(const Node *n, const Type *t, Diag *d)
{
    char text[128];
    return node_error(d, n, "its condition is %s, not one bool",
                      type_print(NULL, t, text, sizeof text));
}

/* The branch that a condition of type t at `data` takes. */
static int branch_of(Branch *out, const Node *n, const Type *t, const void *data, Diag *d)
{
    if (t->dtype != DT_BOOL || type_count(t) != 1) return wrong_condition(n, t, d);
    *out = *(const uint8_t *)data ? BRANCH_THEN : BRANCH_ELSE;
    return 0;
}

/* ---- by constants ------------------------------------------------------------------- */

/* The number of Ifs that were decided; -1 after an error. */
static int take_constant(Graph *g, Arena *scratch, Diag *d)
{
    int count = 0;
    TRY(simplify_fold(g, scratch, d));
    Branch *taken = NEW_ARRAY(scratch, Branch, g->nnodes);
    for (int k = 0; k < g->nnodes; k++) {
        const Node *n = g->nodes[k];
        const Value *c = onnx_is_if(n) ? node_in(n, 0) : NULL;
        if (!c || !c->data) continue;
        TRY(branch_of(&taken[k], n, &c->type, c->data, d));
        count++;
    }
    if (count) TRY(onnx_take_branches(g, taken, d));
    return count;
}

/* Decided Ifs are replaced, those inside of them next. */
static int take_all_constant(Graph *g, int *total, Diag *d)
{
    int count = 1;
    for (*total = 0; count > 0 && any_if(g); *total += count) {
        Arena *scratch = arena_new();
        count = take_constant(g, scratch, d);
        arena_free(scratch);
        if (count < 0) return -1;
    }
    return 0;
}

/* ---- what decides those that are left ----------------------------------------------- */

/* By value id: whether v's elements go into what is `read`; with `sizes`, or its shape does. */
static void mark_read(const Graph *g, bool *read, bool sizes)
{
    for (int k = g->nnodes - 1; k >= 0; k--) {
        const Node *n = g->nodes[k];
        bool any = false;
        for (int o = 0; o < n->nout; o++) any |= n->out[o] && read[n->out[o]->id];
        if (!sizes && (n->op == OP_Shape || n->op == OP_Size)) continue;
        for (int i = 0; i < n->nin && any; i++)
            if (n->in[i]) read[n->in[i]->id] = true;
    }
}

/* "16000"; for sizes "?x?"; NULL: there is nothing to fix. */
static const char *suggested(const Graph *g, const Value *v, bool sizes, Arena *a)
{
    const char *text = "";
    if (!sizes) return fix_possible(g, v) ? arena_printf(a, "%.9g", synthesize_number(g, v)) : NULL;
    if (v->type.rank < 2 || type_is_static(&v->type)) return NULL;
    for (int k = 0; k < v->type.rank; k++) {
        const int64_t d = v->type.dim[k];
        text = arena_printf(a, "%s%s%s", text, k ? "x" : "",
                            dim_is_sym(d) ? "?" : arena_printf(a, "%lld", (long long)d));
    }
    return text;
}

/* "--fix sr=16000 --fix mode=1", if nothing but inputs that can be fixed decide n, or their sizes;
 * else NULL. */
static const char *what_to_fix(const Graph *g, const Node *n, bool sizes, Arena *a)
{
    bool *read = NEW_ARRAY(a, bool, g->nvalues);
    const char *text = NULL;
    if (node_in(n, 0)) read[n->in[0]->id] = true;
    mark_read(g, read, sizes);
    for (int i = 0; i < g->ninputs; i++) {
        const Value *v = g->inputs[i];
        const char *value = read[v->id] ? suggested(g, v, sizes, a) : NULL;
        if (read[v->id] && !value && !sizes) return NULL;
        if (value)
            text = arena_printf(a, "%s%s--fix %s=%s", text ? text : "", text ? " " : "", v->name,
                                value);
    }
    return text;
}

/* Whether n waits for no element of an input. */
static bool is_by_sizes(const Graph *g, const Node *n, Arena *a)
{
    bool *read = NEW_ARRAY(a, bool, g->nvalues), any = false;
    if (node_in(n, 0)) read[n->in[0]->id] = true;
    mark_read(g, read, false);
    for (int i = 0; i < g->ninputs; i++) any |= read[g->inputs[i]->id];
    return !any;
}

/* One remark for all that the same options would decide. */
static void suggest_fixes(const Graph *g, Arena *a, Diag *d)
{
    const char **said = NEW_ARRAY(a, const char *, g->nnodes);
    int n = 0;
    for (int k = 0; k < g->nnodes; k++) {
        const Node *node = g->nodes[k];
        const bool is_if = onnx_is_if(node), sizes = is_if && is_by_sizes(g, node, a);
        const char *fix = is_if ? what_to_fix(g, node, sizes, a) : NULL;
        bool again = false;
        for (int i = 0; i < n && fix; i++) again |= strcmp(said[i], fix) == 0;
        if (!fix || again) continue;
        said[n++] = fix;
        diag_remark(d,
                    "%s hangs on inputs' %s alone: where these are always the same, %s (%s) makes "
                    "what it does known, and it is compressed, too",
                    node_describe(node, a), sizes ? "open sizes" : "few numbers", fix,
                    sizes ? "with numbers" : "say");
    }
}

int branches_settle(ehap *e)
{
    int taken;
    if (e->settled) return EHAP_OK;
    if (e->fix && fix_inputs(&e->c.graph, e->fix, &e->diag) < 0) return EHAP_USAGE;
    Graph *g = e->c.graph;
    if (take_all_constant(g, &taken, &e->diag) < 0) return EHAP_BAD_INPUT;
    e->settled = true;
    if (taken)
        diag_remark(&e->diag,
                    "%d If node%s whose condition is known %s replaced by the branch taken", taken,
                    taken == 1 ? "" : "s", taken == 1 ? "is" : "are");
    if (any_if(g)) suggest_fixes(g, e->arena, &e->diag);
    return EHAP_OK;
}

/* ---- by the arrays given ------------------------------------------------------------ */

/* By node index: the Ifs that wait for nothing which cannot be run. */
static int mark_open(const Graph *g, bool *open, Arena *a)
{
    bool *blocked = NEW_ARRAY(a, bool, g->nvalues); /* by value id */
    int count = 0;
    for (int k = 0; k < g->nnodes; k++) {
        const Node *n = g->nodes[k];
        bool waits = n->op == OP_Opaque;
        for (int i = 0; i < n->nin; i++) waits |= n->in[i] && blocked[n->in[i]->id];
        for (int o = 0; o < n->nout; o++)
            if (n->out[o]) blocked[n->out[o]->id] = waits;
        open[k] = onnx_is_if(n) && node_in(n, 0) && !blocked[n->in[0]->id];
        count += open[k];
    }
    return count;
}

/* g with the conditions of the Ifs in open[] as its outputs, in the order of the nodes. */
static Graph *conditions_of(const Graph *g, const bool *open, Arena *a)
{
    Graph *c = graph_clone(g, a, NULL);
    c->noutputs = 0;
    c->outputs = NULL;
    for (int k = 0; k < c->nnodes; k++)
        if (open[k]) graph_add_output(c, c->nodes[k]->in[0]);
    return c;
}

static int read_branches(const Inference *r, const Graph *g, const bool *open, Branch *taken,
                         Diag *d)
{
    for (int k = 0, o = 0; k < g->nnodes; k++) {
        Type t;
        if (!open[k]) continue;
        const void *data = inference_output(r, o++, &t);
        TRY(branch_of(&taken[k], g->nodes[k], &t, data, d));
    }
    return 0;
}

/* The number of Ifs that were decided; -1 after an error. */
static int take_by_data(Graph *g, const Type *types, const void *const *data,
                        const InferenceOptions *o, Arena *scratch, Diag *d)
{
    bool *open = NEW_ARRAY(scratch, bool, g->nnodes);
    Branch *taken = NEW_ARRAY(scratch, Branch, g->nnodes);
    Inference *r;
    const int count = mark_open(g, open, scratch);
    if (!count) return 0;
    TRY(inference_new(&r, conditions_of(g, open, scratch), o, d));
    int status = inference_run(r, types, data, d);
    if (status == 0) status = read_branches(r, g, open, taken, d);
    inference_free(r);
    if (status == 0) status = onnx_take_branches(g, taken, d);
    return status < 0 ? -1 : count;
}

int branches_decide(Graph *g, const Type *types, const void *const *data, const InferenceOptions *o,
                    Diag *d)
{
    for (int count = 1; count > 0 && any_if(g);) {
        Arena *scratch = arena_new();
        count = take_by_data(g, types, data, o, scratch, d);
        arena_free(scratch);
        if (count < 0) return -1;
    }
    return 0;
}
