/* The verifier. A graph is well formed when
 *
 *  1. every input, output and operand is a value of this graph, with an id below nvalues that no
 *     other value has;
 *  2. names are unique and not empty;
 *  3. a value has one origin: it is a graph input (no data, no producer), a constant (data, no
 *     producer) or the output of the one node that its `def` names;
 *  4. nodes are in topological order: an operand is an input, a constant, or made above;
 *  5. graph inputs are listed once; graph outputs are inputs, constants or made by a node;
 *  6. operands and attributes are as many as the op takes, required ones are there, attribute names
 *     are unique, captures are not omitted, an opaque node says its operator;
 *  7. dimensions are >= 0 or symbols of the graph; a constant has a static shape whose bytes can be
 *     counted; known elements belong to an integer or bool tensor of static shape;
 *  8. output types are what inference gives for the operands' types: equal element type and rank,
 *     no two different numbers for one dimension or known element (a symbol against a number, or
 *     another symbol, is a matter of precision, not an error).
 *
 * All violations are reported, then the graph is printed with each beside its node. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/op.h"
#include "ir/text.h"

typedef struct Verifier {
    const Graph *g;
    Arena *a; /* scratch */
    Diag *diag;
    const char **remark; /* by node */
    const Value **by_id;
    bool *made;  /* by id: defined so far */
    int node;    /* being checked; -1: none */
    bool broken; /* not even fit to be printed */
} Verifier;

static void remember(Verifier *v, const char *text)
{
    if (v->node < 0) return;
    const char *old = v->remark[v->node];
    v->remark[v->node] = old ? arena_printf(v->a, "%s\n  # error: %s", old, text)
                             : arena_printf(v->a, "error: %s", text);
}

__attribute__((format(printf, 2, 3))) static void complain(Verifier *v, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    remember(v, text);
    if (v->node >= 0)
        node_error(v->diag, v->g->nodes[v->node], "%s", text);
    else
        diag_error(v->diag, "graph '%s': %s", v->g->name ? v->g->name : "", text);
}

/* ---- values ------------------------------------------------------------------------- */

/* 1: whether the value may be looked at further. */
static bool check_member(Verifier *v, const Value *x, const char *role)
{
    if (x->graph != v->g) {
        complain(v, "%s '%s' belongs to another graph", role, x->name);
    } else if (x->id >= v->g->nvalues) {
        complain(v, "%s '%s' has id %u, the graph has %u values", role, x->name, x->id,
                 v->g->nvalues);
    } else if (v->by_id[x->id] && v->by_id[x->id] != x) {
        complain(v, "'%s' and '%s' have the same id %u", x->name, v->by_id[x->id]->name, x->id);
    } else {
        v->by_id[x->id] = x;
        return true;
    }
    v->broken = true;
    return false;
}

static void check_type(Verifier *v, const Value *x)
{
    const Type *t = &x->type;
    if (t->rank < -1 || t->rank > MAX_RANK) {
        complain(v, "'%s' has rank %d", x->name, t->rank);
        v->broken = true;
        return;
    }
    for (int i = 0; i < t->rank; i++) {
        if (dim_is_sym(t->dim[i]) && t->dim[i] - DIM_SYM_BASE >= v->g->nsymbols)
            complain(v, "'%s': dimension %d is a symbol of another graph", x->name, i);
        if (!dim_is_sym(t->dim[i]) && t->dim[i] < 0)
            complain(v, "'%s': dimension %d is %lld", x->name, i, (long long)t->dim[i]);
    }
    if (x->data && (!dtype_size(t->dtype) || type_bytes(t) < 0)) {
        complain(v, "constant '%s' has no known size", x->name);
        v->broken = true;
    }
    bool countable = (dtype_is_int(t->dtype) || t->dtype == DT_BOOL) && type_count(t) >= 0;
    if (x->elems && !countable) {
        complain(v, "'%s' has known elements, but is no integer or bool tensor of known shape",
                 x->name);
        v->broken = true;
    }
}

static void check_operand(Verifier *v, const Value *x, const char *role)
{
    if (!check_member(v, x, role)) return;
    if (value_is_const(x) && x->def) complain(v, "constant '%s' has a producer", x->name);
    if (!value_is_const(x) && !v->made[x->id])
        complain(v,
                 x->def ? "%s '%s' is made further down"
                        : "%s '%s' is neither an input, a constant, nor made by a node",
                 role, x->name);
    if (value_is_const(x)) check_type(v, x);
}

/* ---- nodes -------------------------------------------------------------------------- */

static void check_attrs(Verifier *v, const Node *n)
{
    for (int k = 0; k < n->nattrs; k++)
        for (int j = 0; j < k; j++)
            if (strcmp(n->attrs[k].name, n->attrs[j].name) == 0)
                complain(v, "attribute '%s' is given twice", n->attrs[k].name);
}

static void check_node(Verifier *v, const Node *n)
{
    if ((unsigned)n->op >= OP_COUNT || n->ncapture < 0 || n->ncapture > n->nin) {
        diag_error(v->diag, "node %d: op %d, %d inputs, %d captures", v->node, (int)n->op, n->nin,
                   n->ncapture);
        v->broken = true;
        return;
    }
    if (n->op == OP_Opaque && (!n->op_type || !*n->op_type)) complain(v, "has no operator");
    for (int i = 0; i < n->nin; i++) {
        if (n->in[i]) check_operand(v, n->in[i], "input");
        if (!n->in[i] && i >= n->nin - n->ncapture) complain(v, "capture %d is omitted", i);
    }
    for (int o = 0; o < n->nout; o++) {
        const Value *y = n->out[o];
        if (!y || !check_member(v, y, "output")) continue;
        if (y->data) complain(v, "output '%s' is a constant", y->name);
        if (v->made[y->id]) complain(v, "output '%s' is made twice", y->name);
        if (y->def != n) complain(v, "output '%s' names another node as its producer", y->name);
        v->made[y->id] = true;
        check_type(v, y);
    }
    check_attrs(v, n);
}

static void check_nodes(Verifier *v)
{
    for (int i = 0; i < v->g->nnodes; i++) {
        v->node = i;
        check_node(v, v->g->nodes[i]);
    }
    v->node = -1;
}

static void check_inputs(Verifier *v)
{
    for (int i = 0; i < v->g->ninputs; i++) {
        const Value *x = v->g->inputs[i];
        if (!check_member(v, x, "input")) continue;
        if (x->data || x->def) complain(v, "input '%s' is computed or a constant", x->name);
        if (v->made[x->id]) complain(v, "input '%s' is listed twice", x->name);
        v->made[x->id] = true;
        check_type(v, x);
    }
}

/* 2. Duplicates are found after sorting by name. */
static int by_name(const void *a, const void *b)
{
    const Value *x = *(const Value *const *)a, *y = *(const Value *const *)b;
    return strcmp(x->name, y->name);
}

static void check_names(Verifier *v)
{
    size_t n = 0;
    const Value **list = NEW_ARRAY(v->a, const Value *, v->g->nvalues);
    for (uint32_t id = 0; id < v->g->nvalues; id++) {
        if (!v->by_id[id]) continue;
        if (!v->by_id[id]->name || !*v->by_id[id]->name) {
            complain(v, "value %u has no name", id);
            v->broken |= !v->by_id[id]->name;
            continue;
        }
        list[n++] = v->by_id[id];
    }
    qsort(list, n, sizeof *list, by_name);
    for (size_t i = 1; i < n; i++)
        if (strcmp(list[i - 1]->name, list[i]->name) == 0)
            complain(v, "two values are called '%s'", list[i]->name);
}

/* ---- types -------------------------------------------------------------------------- */

static bool contradicts(const Value *has, const Value *inferred)
{
    const Type *a = &has->type, *b = &inferred->type;
    if (b->dtype != DT_NONE && a->dtype != b->dtype) return true;
    if (b->rank < 0) return false;
    if (a->rank != b->rank) return true;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] >= 0 && b->dim[i] >= 0 && a->dim[i] != b->dim[i]) return true;
    return false;
}

static bool elems_contradict(const Value *has, const Value *inferred)
{
    int64_t n = type_count(&has->type);
    if (!has->elems || !inferred->elems || n != type_count(&inferred->type)) return false;
    for (int64_t i = 0; i < n; i++) {
        int64_t a = has->elems[i], b = inferred->elems[i];
        if (!dim_is_sym(a) && !dim_is_sym(b) && a != b) return true;
    }
    return false;
}

static void compare_output(Verifier *v, const Value *y, const Value *inferred, const Graph *c)
{
    char has[256], wants[256];
    if (contradicts(y, inferred))
        complain(v, "output '%s' is %s, its inputs give %s", y->name,
                 type_print(v->g, &y->type, has, sizeof has),
                 type_print(c, &inferred->type, wants, sizeof wants));
    else if (elems_contradict(y, inferred))
        complain(v, "output '%s' has other known elements than its inputs give", y->name);
}

/* The message of an inference rule goes on to the user and beside the node. */
static void relay(void *ctx, Severity sev, const char *text)
{
    Verifier *v = ctx;
    const char *tail = strstr(text, "): ");
    remember(v, tail ? tail + 3 : text);
    v->diag->errors += sev == SEV_ERROR;
    if (v->diag->sink) v->diag->sink(v->diag->ctx, sev, text);
}

/* 8, and arity: each rule runs on a clone, whose types are put back for the next node. */
static void check_inference(Verifier *v)
{
    Graph *c = graph_clone(v->g, v->a, NULL);
    Diag d = {.file = v->diag->file, .sink = relay, .ctx = v};
    for (int i = 0; i < c->nnodes; i++) {
        Node *n = c->nodes[i];
        const Node *old = v->g->nodes[i];
        v->node = i;
        int status = node_infer(n, &d);
        for (int o = 0; o < n->nout; o++) {
            if (!n->out[o]) continue;
            if (status == 0) compare_output(v, old->out[o], n->out[o], c);
            n->out[o]->type = old->out[o]->type;
            n->out[o]->elems = old->out[o]->elems;
        }
    }
    v->node = -1;
}

static void show(Verifier *v)
{
    PrintOptions o = {.remark = v->remark};
    if (v->diag->sink) v->diag->sink(v->diag->ctx, SEV_NOTE, ir_print(v->g, v->a, &o));
}

int graph_verify(const Graph *g, Diag *d)
{
    Arena *a = arena_new();
    Verifier v = {.g = g, .a = a, .diag = d, .node = -1};
    int errors = d->errors;
    v.remark = NEW_ARRAY(a, const char *, g->nnodes);
    v.by_id = NEW_ARRAY(a, const Value *, g->nvalues);
    v.made = NEW_ARRAY(a, bool, g->nvalues);
    check_inputs(&v);
    check_nodes(&v);
    for (int o = 0; o < g->noutputs; o++) check_operand(&v, g->outputs[o], "output");
    check_names(&v);
    if (d->errors == errors) check_inference(&v);
    if (d->errors != errors && !v.broken) show(&v);
    arena_free(a);
    return d->errors == errors ? 0 : -1;
}
