/* GraphProto to Graph.
 *
 * First every name is declared with its value, so that helpers made while normalizing nodes can
 * never take a name that the file uses further down. Then nodes are put in topological order (the
 * file's own where that is one) and imported one by one, each with the types of its inputs known.
 */
#include "frontend/onnx_graph.h"

#include <stdlib.h>
#include <string.h>

#include "frontend/wire.h"

/* ---- types -------------------------------------------------------------------------- */

/* The symbol of that name; the table spares the graph's linear search. "?" is how Paddle writes
 * that it does not know: two of them need not be equal. Nor need a body's be the graph's of that
 * name. */
static int64_t symbol(Import *im, NameTable *symbols, const char *name)
{
    if (!name || !*name || strcmp(name, "?") == 0) return graph_symbol(im->g, NULL);
    NameEntry *e = table_find(symbols, name, false);
    if (e) return DIM_SYM_BASE + e->index;
    int64_t dim = graph_symbol(im->g, NULL);
    e = table_find(symbols, name, true);
    e->index = (int)(dim - DIM_SYM_BASE);
    if (!im->is_body) im->g->symbols[e->index] = arena_strdup(im->g->arena, name);
    return dim;
}

/* -1 is how some exporters write an open dimension. */
static int read_dim(Import *im, NameTable *symbols, const char *of, size_t i,
                    const Onnx__TensorShapeProto__Dimension *p, int64_t *out)
{
    if (p->value_case != ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE) {
        bool named = p->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
        *out = symbol(im, symbols, named ? p->dim_param : NULL);
        return 0;
    }
    if (p->dim_value < -1)
        return diag_error(im->d, "value '%s': dimension %zu is %lld", of, i,
                          (long long)p->dim_value);
    *out = p->dim_value < 0 ? symbol(im, symbols, NULL) : p->dim_value;
    return 0;
}

static int read_type(Import *im, NameTable *symbols, const Onnx__ValueInfoProto *info, Value *v)
{
    const Onnx__TypeProto *p = info->type;
    if (!p || p->value_case == ONNX__TYPE_PROTO__VALUE__NOT_SET) return 0;
    const Onnx__TypeProto__Tensor *t =
        p->value_case == ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE ? p->tensor_type : NULL;
    DType dtype = t ? tensor_dtype(t->elem_type) : DT_NONE;
    if (!t || !dtype || (t->shape && t->shape->n_dim > MAX_RANK)) {
        v->type = (Type){.dtype = dtype, .rank = -1};
        v->opaque_type = wire_pack(im->g->arena, &p->base);
        return 0;
    }
    Type type = {.dtype = dtype, .rank = t->shape ? (int)t->shape->n_dim : -1};
    for (int i = 0; i < type.rank; i++)
        TRY(read_dim(im, symbols, info->name, (size_t)i, t->shape->dim[i], &type.dim[i]));
    int64_t count = 1;
    for (int i = 0; i < type.rank; i++)
        if (type.dim[i] > 0 &&
            (__builtin_mul_overflow(count, type.dim[i], &count) || count > MAX_ELEMENTS))
            return diag_error(im->d, "value '%s': the product of its dimensions overflows",
                              info->name);
    v->type = type;
    return 0;
}

/* What the file says about a value. */
static int describe(Import *im, NameTable *symbols, const Onnx__ValueInfoProto *info, Value *v)
{
    TRY(read_type(im, symbols, info, v));
    if (info->type && !im->is_body) v->declared = wire_pack(im->g->arena, &info->type->base);
    if (info->doc_string && *info->doc_string)
        v->doc = arena_strdup(im->g->arena, info->doc_string);
    v->extra = unknown_fields(im, &info->base);
    return 0;
}

/* ---- names -------------------------------------------------------------------------- */

/* The entry of a new name; NULL after an error. */
static NameEntry *declare(Import *im, const char *name, int node)
{
    NameEntry *e = table_find(im->names, name, false);
    if (e && node < 0) {
        diag_error(im->d, "two inputs or initializers are named '%s'", name);
        return NULL;
    }
    if (e) {
        const char *who = e->node < 0 ? NULL : im->proto->node[e->node]->name;
        proto_error(im, im->proto->node[node], "output '%s' already exists%s%s%s", name,
                    who ? ": node '" : "", who ? who : "", who ? "' makes it" : "");
        return NULL;
    }
    e = table_find(im->names, name, true);
    e->node = node;
    return e;
}

static int declare_initializer(Import *im, Onnx__TensorProto *t, size_t i)
{
    Type type = {0};
    const void *data;
    if (!t->name || !*t->name) return diag_error(im->d, "initializer %zu has no name", i);
    NameEntry *e = declare(im, t->name, -1);
    if (!e) return -1;
    const char *what = arena_printf(im->tmp, "initializer '%s'", t->name);
    int status = tensor_read(&im->files, t, what, &type, &data);
    if (status == 0) {
        e->v = value_const(im->g, t->name, type, data);
        if (t->doc_string && *t->doc_string) e->v->doc = arena_strdup(im->g->arena, t->doc_string);
    }
    if (status > 0) {
        Onnx__AttributeProto value = ONNX__ATTRIBUTE_PROTO__INIT;
        value.name = (char[]){"value"};
        value.has_type = true;
        value.type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR;
        value.t = t;
        e->v = value_new(im->g, t->name, (Type){.rank = -1});
        return import_opaque_constant(im, t->name, &value);
    }
    return status;
}

static int declare_sparse(Import *im, Onnx__SparseTensorProto *s, size_t i)
{
    Onnx__AttributeProto value = ONNX__ATTRIBUTE_PROTO__INIT;
    const char *name = s->values ? s->values->name : NULL;
    if (!name || !*name) return diag_error(im->d, "sparse initializer %zu has no name", i);
    NameEntry *e = declare(im, name, -1);
    if (!e) return -1;
    e->v = value_new(im->g, name, (Type){.rank = -1});
    value.name = (char[]){"sparse_value"};
    value.has_type = true;
    value.type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__SPARSE_TENSOR;
    value.sparse_tensor = s;
    return import_opaque_constant(im, name, &value);
}

static int declare_initializers(Import *im)
{
    const Onnx__GraphProto *p = im->proto;
    for (size_t i = 0; i < p->n_initializer; i++)
        TRY(declare_initializer(im, p->initializer[i], i));
    for (size_t i = 0; i < p->n_sparse_initializer; i++)
        TRY(declare_sparse(im, p->sparse_initializer[i], i));
    return 0;
}

/* Behind the initializers: one that is also an input (IR 3 demands it) is a constant to us. */
static int declare_inputs(Import *im, NameTable *symbols)
{
    Onnx__GraphProto *p = im->proto;
    Graph *g = im->g;
    g->inputs = NEW_ARRAY(g->arena, Value *, p->n_input);
    for (size_t i = 0; i < p->n_input; i++) {
        Onnx__ValueInfoProto *info = p->input[i];
        if (!info->name || !*info->name) return diag_error(im->d, "input %zu has no name", i);
        NameEntry *e = table_find(im->names, info->name, false);
        if (e && e->v && !value_is_input(e->v)) {
            im->nconstants++;
            continue;
        }
        if (!(e = declare(im, info->name, -1))) return -1;
        e->v = value_new(g, info->name, (Type){.rank = -1});
        g->inputs[g->ninputs++] = e->v;
        TRY(describe(im, symbols, info, e->v));
    }
    return 0;
}

static int declare_node(Import *im, int k)
{
    const Onnx__NodeProto *n = im->proto->node[k];
    NameEntry *e;
    Type type = {0};
    const void *data;
    if (!n->op_type || !*n->op_type)
        return proto_error(im, n, "it has no op type (node %d of the file)", k);
    for (size_t o = 0; o < n->n_output; o++) {
        if (!*n->output[o]) continue;
        if (!(e = declare(im, n->output[o], k))) return -1;
        e->v = value_new(im->g, n->output[o], (Type){.rank = -1});
    }
    bool standard = !n->domain || !*n->domain || strcmp(n->domain, "ai.onnx") == 0;
    if (!standard || strcmp(n->op_type, "Constant") != 0 || n->n_output != 1) return 0;
    int status = constant_value(im, n, &type, &data);
    if (status == 0 && (e = table_find(im->names, n->output[0], false))) {
        e->v->type = type;
        e->v->data = data;
    }
    return status < 0 ? -1 : 0;
}

/* Types that the file gives to inner values: all there is to know of what opaque nodes make, and a
 * hint where inference sees only part. */
static int describe_inner(Import *im, NameTable *symbols)
{
    for (size_t i = 0; i < im->proto->n_value_info; i++) {
        const Onnx__ValueInfoProto *info = im->proto->value_info[i];
        const NameEntry *e = info->name ? table_find(im->names, info->name, false) : NULL;
        if (e && e->v && e->node >= 0 && !e->v->data) TRY(describe(im, symbols, info, e->v));
    }
    return 0;
}

static int declare_outputs(Import *im, NameTable *symbols)
{
    Onnx__GraphProto *p = im->proto;
    Graph *g = im->g;
    g->outputs = NEW_ARRAY(g->arena, Value *, p->n_output);
    for (size_t i = 0; i < p->n_output; i++) {
        const char *name = p->output[i]->name;
        const NameEntry *e = name && *name ? table_find(im->names, name, false) : NULL;
        if (!e)
            return diag_error(im->d,
                              "graph output %zu '%s' is made by no node, input or initializer", i,
                              name ? name : "");
        g->outputs[g->noutputs++] = e->v;
        if (value_is_input(e->v) && e->node < 0) continue; /* the input says it all */
        Type own = e->v->type;
        TRY(describe(im, symbols, p->output[i], e->v));
        if (e->v->data) e->v->type = own;
    }
    return 0;
}

/* ---- order -------------------------------------------------------------------------- */

/* Node indices so that every node comes after those it reads; Kahn's algorithm, queue in
 * file order. after[] lists, node by node, who waits for it. */
typedef struct Order {
    int n;
    int *waits;           /* unfinished inputs of each node */
    int *first, *readers; /* readers of node k: readers[first[k] .. first[k+1]) */
    int *queue;
    int ready;
} Order;

static int maker(Import *im, const char *name)
{
    const NameEntry *e = table_find(im->names, name, false);
    return e ? e->node : -1;
}

static void each_edge(Import *im, const Captures *captures, int k, void (*f)(Order *, int, int),
                      Order *o)
{
    const Onnx__NodeProto *n = im->proto->node[k];
    for (size_t i = 0; i < n->n_input; i++) {
        int m = maker(im, n->input[i]);
        if (m >= 0) f(o, m, k);
    }
    for (int i = 0; i < captures[k].n; i++) {
        const int m = captures[k].node[i];
        if (m >= 0) f(o, m, k);
    }
}

static void count_edge(Order *o, int from, int to)
{
    o->first[from + 1]++;
    o->waits[to]++;
}

static void fill_edge(Order *o, int from, int to) { o->readers[o->first[from]++] = to; }

static int cycle_error(Import *im, const Order *o, const Captures *captures)
{
    /* From a node that waits, walking to a maker that waits must close a cycle. */
    int k = 0;
    while (o->waits[k] <= 0) k++;
    for (int step = 0; step < o->n; step++) {
        const Onnx__NodeProto *n = im->proto->node[k];
        int next = -1;
        for (size_t i = 0; i < n->n_input && next < 0; i++) {
            int m = maker(im, n->input[i]);
            if (m >= 0 && o->waits[m] > 0) next = m;
        }
        for (int i = 0; i < captures[k].n && next < 0; i++) {
            const int m = captures[k].node[i];
            if (m >= 0 && o->waits[m] > 0) next = m;
        }
        k = next;
    }
    const Onnx__NodeProto *n = im->proto->node[k];
    return proto_error(im, n, "its output depends on itself: the graph has a cycle");
}

static int sort_nodes(Import *im, const Captures *captures, Order *o)
{
    int n = o->n, edges = 0;
    o->waits = NEW_ARRAY(im->tmp, int, n);
    o->first = NEW_ARRAY(im->tmp, int, n + 1);
    o->queue = NEW_ARRAY(im->tmp, int, n);
    for (int k = 0; k < n; k++) each_edge(im, captures, k, count_edge, o);
    for (int k = 0; k <= n; k++) {
        int c = o->first[k];
        edges += c;
        o->first[k] = edges;
    }
    o->readers = NEW_ARRAY(im->tmp, int, edges);
    /* first[k] is now where k's readers begin; filling moves it to where they end. */
    for (int k = 0; k < n; k++) each_edge(im, captures, k, fill_edge, o);
    for (int k = 0; k < n; k++)
        if (o->waits[k] == 0) o->queue[o->ready++] = k;
    for (int q = 0; q < o->ready; q++) {
        int k = o->queue[q];
        for (int r = k ? o->first[k - 1] : 0; r < o->first[k]; r++)
            if (--o->waits[o->readers[r]] == 0) o->queue[o->ready++] = o->readers[r];
    }
    return o->ready < n ? cycle_error(im, o, captures) : 0;
}

/* Whether the file's order is topological already: then it is kept. */
static bool is_sorted(Import *im, const Captures *captures)
{
    for (int k = 0; k < (int)im->proto->n_node; k++) {
        const Onnx__NodeProto *n = im->proto->node[k];
        for (size_t i = 0; i < n->n_input; i++)
            if (maker(im, n->input[i]) >= k) return false;
        for (int i = 0; i < captures[k].n; i++)
            if (captures[k].node[i] >= k) return false;
    }
    return true;
}

static int declare_nodes(Import *im)
{
    if (im->proto->n_node > MAX_NODES)
        return diag_error(im->d, "the graph has %zu nodes, at most %d are read", im->proto->n_node,
                          (int)MAX_NODES);
    for (int k = 0; k < (int)im->proto->n_node; k++) TRY(declare_node(im, k));
    return 0;
}

/* All names are declared: the nodes, in topological order. */
static int import_nodes(Import *im)
{
    Order order = {.n = (int)im->proto->n_node};
    Captures *captures = NEW_ARRAY(im->tmp, Captures, order.n);
    for (int k = 0; k < order.n; k++) TRY(body_captures(im, im->proto->node[k], &captures[k]));
    bool sorted = is_sorted(im, captures);
    if (!sorted) TRY(sort_nodes(im, captures, &order));
    for (int k = 0; k < order.n; k++) {
        int i = sorted ? k : order.queue[k];
        if (im->origin) {
            im->opset = im->origin[i].opset;
            im->function = im->origin[i].function;
        }
        TRY(import_node(im, im->proto->node[i], &captures[i]));
    }
    return 0;
}

int import_graph(Import *im)
{
    NameTable *symbols = table_new(im->tmp);
    TRY(declare_initializers(im));
    TRY(declare_inputs(im, symbols));
    TRY(declare_nodes(im));
    TRY(describe_inner(im, symbols));
    TRY(declare_outputs(im, symbols));
    return import_nodes(im);
}

/* The values that a body names as its outputs, outer ones among them. */
static int body_outputs(Import *im, NameTable *symbols, Value **out)
{
    const Onnx__GraphProto *p = im->proto;
    for (size_t i = 0; i < p->n_output; i++) {
        const char *name = p->output[i]->name;
        const NameEntry *e = name && *name ? table_find(im->names, name, false) : NULL;
        if (!e) return diag_error(im->d, "output %zu of a body is made by nothing in it", i);
        out[i] = e->v;
        if (e->node >= 0 && !e->v->data) TRY(describe(im, symbols, p->output[i], e->v));
    }
    return 0;
}

int import_body(Import *im, Value **out)
{
    NameTable *symbols = table_new(im->tmp);
    TRY(declare_initializers(im));
    TRY(declare_nodes(im));
    TRY(describe_inner(im, symbols));
    TRY(body_outputs(im, symbols, out));
    return import_nodes(im);
}
