/* Making and reading values, nodes and attributes. */
#include <stdio.h>
#include <string.h>

#include "ir/names.h"
#include "ir/op.h"

Graph *graph_new(Arena *a, const char *name)
{
    Graph *g = NEW(a, Graph);
    g->arena = a;
    g->name = arena_strdup(a, name ? name : "main");
    g->names = names_new(a);
    g->info.ir_version = 8;
    return g;
}

/* Room for one more element of an arena array that doubles. */
static void *grown(Arena *a, void *array, int n, int *cap, size_t size)
{
    if (n < *cap) return array;
    *cap = *cap ? *cap * 2 : 8;
    void *p = arena_array(a, (size_t)*cap, size);
    return n ? memcpy(p, array, (size_t)n * size) : p;
}

int64_t graph_symbol(Graph *g, const char *name)
{
    for (int k = 0; name && k < g->nsymbols; k++)
        if (g->symbols[k] && strcmp(g->symbols[k], name) == 0) return DIM_SYM_BASE + k;
    g->symbols = grown(g->arena, g->symbols, g->nsymbols, &g->cap_symbols, sizeof *g->symbols);
    g->symbols[g->nsymbols] = arena_strdup(g->arena, name);
    return DIM_SYM_BASE + g->nsymbols++;
}

/* `name`, or the first of name_1, name_2 … that is free. */
static const char *unique_name(Graph *g, const char *name)
{
    const char *base = name && *name ? name : "t";
    char *s = arena_strdup(g->arena, base);
    for (uint32_t k = g->nvalues; names_get(g->names, s); k++)
        s = arena_printf(g->arena, "%s_%u", base, k);
    names_put(g->names, s, s);
    return s;
}

Value *value_new(Graph *g, const char *name, Type type)
{
    Value *v = NEW(g->arena, Value);
    *v = (Value){.id = g->nvalues++, .name = unique_name(g, name), .type = type, .graph = g};
    return v;
}

Value *value_const(Graph *g, const char *name, Type type, const void *data)
{
    Value *v = value_new(g, name, type);
    v->data = data;
    return v;
}

/* The lists of inputs and outputs are short: a copy per addition is fine. */
static Value **appended(Arena *a, Value **list, int n, Value *v)
{
    Value **p = NEW_ARRAY(a, Value *, n + 1);
    if (n) memcpy(p, list, (size_t)n * sizeof *p);
    p[n] = v;
    return p;
}

Value *graph_add_input(Graph *g, const char *name, Type type)
{
    Value *v = value_new(g, name, type);
    g->inputs = appended(g->arena, g->inputs, g->ninputs++, v);
    return v;
}

void graph_add_output(Graph *g, Value *v)
{
    g->outputs = appended(g->arena, g->outputs, g->noutputs++, v);
}

void value_make_input(Graph *g, Value *v)
{
    v->data = NULL;
    v->elems = NULL;
    g->inputs = appended(g->arena, g->inputs, g->ninputs++, v);
}

Value *const_f32(Graph *g, float x)
{
    return value_const(g, "c", type_of(DT_F32, 0, NULL), arena_memdup(g->arena, &x, sizeof x));
}

Value *const_ints(Graph *g, int n, const int64_t *x)
{
    int64_t dim = n;
    return value_const(g, "c", type_of(DT_I64, 1, &dim),
                       arena_memdup(g->arena, x, (size_t)n * sizeof *x));
}

Node *node_new(Graph *g, Op op, int nin, Value *const *in, int nout)
{
    Node *n = NEW(g->arena, Node);
    n->op = op;
    n->nin = nin;
    n->in = arena_memdup(g->arena, in, (size_t)nin * sizeof *in);
    n->nout = nout;
    n->out = NEW_ARRAY(g->arena, Value *, nout);
    if (g->at) n->from = g->at->name ? g->at->name : g->at->from;
    return n;
}

void node_append(Graph *g, Node *n)
{
    g->nodes = grown(g->arena, g->nodes, g->nnodes, &g->cap_nodes, sizeof *g->nodes);
    g->nodes[g->nnodes++] = n;
    for (int o = 0; o < n->nout; o++)
        if (n->out[o]) n->out[o]->def = n;
}

static Attr attr_copy(Arena *a, Attr x)
{
    x.name = arena_strdup(a, x.name);
    if (x.s.p) { /* NUL-terminated beyond n */
        char *s = arena_alloc(a, x.s.n + 1);
        x.s.p = memcpy(s, x.s.p, x.s.n);
    }
    if (x.ints) x.ints = arena_memdup(a, x.ints, x.n * sizeof *x.ints);
    if (x.floats) x.floats = arena_memdup(a, x.floats, x.n * sizeof *x.floats);
    if (x.strings) x.strings = arena_memdup(a, x.strings, x.n * sizeof *x.strings);
    return x;
}

void node_set_attr(Graph *g, Node *n, Attr x)
{
    int k = 0;
    while (k < n->nattrs && strcmp(n->attrs[k].name, x.name) != 0) k++;
    if (k == n->nattrs) {
        Attr *attrs = NEW_ARRAY(g->arena, Attr, n->nattrs + 1);
        if (n->nattrs) memcpy(attrs, n->attrs, (size_t)n->nattrs * sizeof *attrs);
        n->attrs = attrs;
        n->nattrs++;
    }
    n->attrs[k] = attr_copy(g->arena, x);
}

void node_remove_attr(Node *n, const char *name)
{
    int kept = 0;
    for (int k = 0; k < n->nattrs; k++)
        if (strcmp(n->attrs[k].name, name) != 0) n->attrs[kept++] = n->attrs[k];
    n->nattrs = kept;
}

Attr attr_int(const char *name, int64_t i)
{
    return (Attr){.name = name, .kind = ATTR_INT, .i = i};
}

Attr attr_float(const char *name, float f)
{
    return (Attr){.name = name, .kind = ATTR_FLOAT, .f = f};
}

Attr attr_str(const char *name, const char *s)
{
    return (Attr){.name = name, .kind = ATTR_STRING, .s = {s, strlen(s)}};
}

Attr attr_ints(const char *name, size_t n, const int64_t *ints)
{
    return (Attr){.name = name, .kind = ATTR_INTS, .n = n, .ints = ints};
}

Node *build_multi(Graph *g, Op op, int nout, int nin, Value *const *in, int nattrs,
                  const Attr *attrs)
{
    char text[1024] = "";
    Diag quiet = {0};
    Node *n = node_new(g, op, nin, in, nout);
    for (int k = 0; k < nattrs; k++) node_set_attr(g, n, attrs[k]);
    for (int o = 0; o < nout; o++) n->out[o] = value_new(g, NULL, (Type){.rank = -1});
    if (node_infer(n, &quiet) < 0) {
        size_t used = 0;
        for (int i = 0; i < nin && used < sizeof text; i++) {
            char t[128];
            used += (size_t)snprintf(text + used, sizeof text - used, " %s:%s",
                                     in[i] ? in[i]->name : "-",
                                     in[i] ? type_print(g, &in[i]->type, t, sizeof t) : "");
        }
        trap(TRAP_INTERNAL, "a pass built an ill-typed %s (from '%s') of%s", op_info[op].name,
             n->from ? n->from : "?", text);
    }
    node_append(g, n);
    return n;
}

Value *build(Graph *g, Op op, int nin, Value *const *in, int nattrs, const Attr *attrs)
{
    return build_multi(g, op, 1, nin, in, nattrs, attrs)->out[0];
}

Value *build_gemm(Graph *g, Value *a, Value *b, float alpha, bool ta, bool tb)
{
    Attr attrs[3];
    int n = 0;
    if (alpha != 1) attrs[n++] = attr_float("alpha", alpha);
    if (ta) attrs[n++] = attr_int("transA", 1);
    if (tb) attrs[n++] = attr_int("transB", 1);
    return build(g, OP_Gemm, IN(a, b), n, attrs);
}

const Attr *node_attr(const Node *n, const char *name)
{
    for (int k = 0; k < n->nattrs; k++)
        if (strcmp(n->attrs[k].name, name) == 0) return &n->attrs[k];
    return NULL;
}

int64_t node_int(const Node *n, const char *name, int64_t otherwise)
{
    const Attr *a = node_attr(n, name);
    return a && a->kind == ATTR_INT ? a->i : otherwise;
}

float node_float(const Node *n, const char *name, float otherwise)
{
    const Attr *a = node_attr(n, name);
    return a && a->kind == ATTR_FLOAT ? a->f : otherwise;
}

const int64_t *node_ints(const Node *n, const char *name, size_t *count)
{
    static const int64_t empty[1];
    const Attr *a = node_attr(n, name);
    if (!a || a->kind != ATTR_INTS) return NULL;
    *count = a->n;
    return a->n ? a->ints : empty;
}

const char *node_str(const Node *n, const char *name, const char *otherwise)
{
    const Attr *a = node_attr(n, name);
    return a && a->kind == ATTR_STRING && a->s.p ? a->s.p : otherwise;
}

Value *node_in(const Node *n, int i) { return i < n->nin ? n->in[i] : NULL; }

Value *graph_computed(const Graph *g, const char *name)
{
    for (int i = 0; i < g->nnodes; i++)
        for (int o = 0; o < g->nodes[i]->nout; o++)
            if (g->nodes[i]->out[o] && strcmp(g->nodes[i]->out[o]->name, name) == 0)
                return g->nodes[i]->out[o];
    return NULL;
}

bool value_is_const(const Value *v) { return v->data != NULL; }
bool value_is_input(const Value *v) { return !v->data && !v->def; }

static int64_t int_element(DType t, const void *data, int64_t i)
{
    switch (t) {
    case DT_U8:
    case DT_BOOL:
        return ((const uint8_t *)data)[i];
    case DT_I8:
        return ((const int8_t *)data)[i];
    case DT_U16:
        return ((const uint16_t *)data)[i];
    case DT_I16:
        return ((const int16_t *)data)[i];
    case DT_I32:
        return ((const int32_t *)data)[i];
    case DT_U32:
        return ((const uint32_t *)data)[i];
    default:
        return ((const int64_t *)data)[i];
    }
}

int value_ints(const Value *v, int64_t *out, int max)
{
    int64_t n = v ? type_count(&v->type) : -1;
    bool readable = dtype_is_int(v ? v->type.dtype : DT_NONE) || (v && v->type.dtype == DT_BOOL);
    if (n < 0 || n > max || !readable || (!v->data && !v->elems)) return -1;
    for (int64_t i = 0; i < n; i++)
        out[i] = v->data ? int_element(v->type.dtype, v->data, i) : v->elems[i];
    return (int)n;
}

int value_floats(const Value *v, double *out, int max)
{
    int64_t ints[64], count = v ? type_count(&v->type) : -1;
    if (count < 0 || count > max || count > 64) return -1;
    if (v->data && v->type.dtype == DT_F32) {
        for (int64_t i = 0; i < count; i++) out[i] = (double)((const float *)v->data)[i];
    } else if (v->data && v->type.dtype == DT_F64) {
        for (int64_t i = 0; i < count; i++) out[i] = ((const double *)v->data)[i];
    } else {
        if (value_ints(v, ints, 64) != count) return -1;
        for (int64_t i = 0; i < count; i++) {
            if (dim_is_sym(ints[i])) return -1;
            out[i] = (double)ints[i];
        }
    }
    return (int)count;
}

bool value_scalar(const Value *v, double *out) { return value_floats(v, out, 1) == 1; }

const char *node_label(const Node *n)
{
    if (n->name && *n->name) return n->name;
    for (int o = 0; o < n->nout; o++)
        if (n->out[o]) return n->out[o]->name;
    return "";
}

const char *node_describe(const Node *n, Arena *a)
{
    return arena_printf(a, n->name ? "node '%s' (%s)" : "node of '%s' (%s)", node_label(n),
                        node_op_name(n));
}

const char *node_op_name(const Node *n)
{
    return n->op == OP_Opaque && n->op_type ? n->op_type : op_info[n->op].name;
}

int node_error(Diag *d, const Node *n, const char *fmt, ...)
{
    char where[512];
    const char *name = n->name ? n->name : n->from;
    va_list ap;
    if (name && *name)
        snprintf(where, sizeof where, "node '%s' (%s)", name, node_op_name(n));
    else
        snprintf(where, sizeof where, "node of '%s' (%s)", node_label(n), node_op_name(n));
    va_start(ap, fmt);
    diag_vreport(d, SEV_ERROR, where, fmt, ap);
    va_end(ap);
    return -1;
}
