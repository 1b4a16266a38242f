/* Structural equality, the other half of parse(print(g)) == g. Values are compared where they are
 * used, by name; symbols by name, unnamed ones by a bijection that grows as they are met. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ir/op.h"
#include "ir/text.h"

typedef struct Comparison {
    const Graph *a, *b;
    Arena *scratch;
    int64_t *to, *from; /* unnamed symbols of a and b; -1: not met */
    bool *seen;         /* by value id of a */
    char *why;
    size_t size;
} Comparison;

__attribute__((format(printf, 2, 3))) static bool differ(Comparison *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (c->size) vsnprintf(c->why, c->size, fmt, ap);
    va_end(ap);
    return false;
}

/* Absent and empty are the same. */
static bool same_text(const char *a, const char *b) { return strcmp(a ? a : "", b ? b : "") == 0; }

static bool same_bytes(Bytes a, Bytes b) { return a.n == b.n && (!a.n || !memcmp(a.p, b.p, a.n)); }

static bool same_f32(float a, float b)
{
    return (isnan(a) && isnan(b)) || memcmp(&a, &b, sizeof a) == 0;
}

static bool same_elements(DType t, const void *a, const void *b, size_t n)
{
    if (memcmp(a, b, n) == 0) return true;
    const float *x = a, *y = b;
    const double *xd = a, *yd = b;
    for (size_t i = 0; t == DT_F32 && i < n / sizeof *x; i++)
        if (!same_f32(x[i], y[i])) return false;
    for (size_t i = 0; t == DT_F64 && i < n / sizeof *xd; i++)
        if (memcmp(&xd[i], &yd[i], sizeof *xd) != 0 && !(isnan(xd[i]) && isnan(yd[i])))
            return false;
    return t == DT_F32 || t == DT_F64;
}

static bool same_dim(Comparison *c, int64_t x, int64_t y)
{
    if (!dim_is_sym(x) || !dim_is_sym(y)) return x == y;
    int64_t i = x - DIM_SYM_BASE, j = y - DIM_SYM_BASE;
    const char *p = c->a->symbols[i], *q = c->b->symbols[j];
    if (p || q) return p && q && strcmp(p, q) == 0;
    if (c->to[i] < 0 && c->from[j] < 0) {
        c->to[i] = j;
        c->from[j] = i;
    }
    return c->to[i] == j && c->from[j] == i;
}

static bool same_type(Comparison *c, const Type *s, const Type *t)
{
    if (s->dtype != t->dtype || s->rank != t->rank) return false;
    for (int i = 0; i < s->rank; i++)
        if (!same_dim(c, s->dim[i], t->dim[i])) return false;
    return true;
}

static bool same_elems(Comparison *c, const Value *x, const Value *y)
{
    if (!x->def) return true; /* a constant's elements are its data */
    if (!x->elems != !y->elems) return false;
    int64_t n = x->elems ? type_count(&x->type) : 0;
    for (int64_t i = 0; i < n; i++)
        if (!same_dim(c, x->elems[i], y->elems[i])) return false;
    return true;
}

static bool same_value(Comparison *c, const Value *x, const Value *y)
{
    char s[256], t[256];
    if (!x || !y) return x == y || differ(c, "'%s' is omitted in one", x ? x->name : y->name);
    if (strcmp(x->name, y->name) != 0) return differ(c, "'%s' against '%s'", x->name, y->name);
    if (c->seen[x->id]) return true;
    c->seen[x->id] = true;
    if (!same_type(c, &x->type, &y->type))
        return differ(c, "'%s' is %s against %s", x->name, type_print(c->a, &x->type, s, sizeof s),
                      type_print(c->b, &y->type, t, sizeof t));
    if (!x->data != !y->data || !x->def != !y->def)
        return differ(c, "'%s' is of another origin", x->name);
    if (x->data && !same_elements(x->type.dtype, x->data, y->data, (size_t)type_bytes(&x->type)))
        return differ(c, "constant '%s' has other elements", x->name);
    if (!same_elems(c, x, y)) return differ(c, "'%s' has other known elements", x->name);
    if (!same_text(x->doc, y->doc)) return differ(c, "'%s' has another doc string", x->name);
    if (!same_bytes(x->opaque_type, y->opaque_type) || !same_bytes(x->extra, y->extra) ||
        !same_bytes(x->declared, y->declared))
        return differ(c, "'%s' has other bytes kept along", x->name);
    return true;
}

static bool same_values(Comparison *c, Value *const *x, int nx, Value *const *y, int ny,
                        const char *what)
{
    if (nx != ny) return differ(c, "%d %s against %d", nx, what, ny);
    for (int i = 0; i < nx; i++)
        if (!same_value(c, x[i], y[i])) return false;
    return true;
}

static bool same_list(const Attr *x, const Attr *y)
{
    for (size_t i = 0; i < x->n; i++) {
        if (x->kind == ATTR_INTS && x->ints[i] != y->ints[i]) return false;
        if (x->kind == ATTR_FLOATS && !same_f32(x->floats[i], y->floats[i])) return false;
        if (x->kind == ATTR_STRINGS && !same_bytes(x->strings[i], y->strings[i])) return false;
    }
    return true;
}

static bool same_attr(Comparison *c, const Attr *x, const Attr *y)
{
    if (strcmp(x->name, y->name) != 0 || x->kind != y->kind || x->n != y->n) return false;
    switch (x->kind) {
    case ATTR_INT:
        return x->i == y->i;
    case ATTR_FLOAT:
        return same_f32(x->f, y->f);
    case ATTR_STRING:
    case ATTR_OPAQUE:
        return same_bytes(x->s, y->s);
    case ATTR_TENSOR:
        return same_type(c, &x->type, &y->type) && x->s.n == y->s.n &&
               same_elements(x->type.dtype, x->s.p, y->s.p, x->s.n);
    default:
        return same_list(x, y);
    }
}

static bool same_node(Comparison *c, const Node *x, const Node *y)
{
    const char *name = x->nout && x->out[0] ? x->out[0]->name : "";
    if (x->op != y->op || (x->op == OP_Opaque && (!same_text(x->op_type, y->op_type) ||
                                                  !same_text(x->domain, y->domain))))
        return differ(c, "'%s' is made by %s against %s", name, node_op_name(x), node_op_name(y));
    if (!same_text(x->name, y->name) || !same_text(x->from, y->from))
        return differ(c, "the node of '%s' has another name", name);
    if (!same_text(x->doc, y->doc) || !same_bytes(x->extra, y->extra))
        return differ(c, "the node of '%s' carries other text or bytes", name);
    if (x->nattrs != y->nattrs || x->ncapture != y->ncapture)
        return differ(c, "the node of '%s' has other attributes or captures", name);
    for (int k = 0; k < x->nattrs; k++)
        if (!same_attr(c, &x->attrs[k], &y->attrs[k]))
            return differ(c, "attribute '%s' of the node of '%s' differs", x->attrs[k].name, name);
    return same_values(c, x->in, x->nin, y->in, y->nin, "inputs of a node") &&
           same_values(c, x->out, x->nout, y->out, y->nout, "outputs of a node");
}

static bool same_info(Comparison *c, const ModelInfo *x, const ModelInfo *y)
{
    bool same = x->ir_version == y->ir_version && x->model_version == y->model_version &&
                same_text(x->producer_name, y->producer_name) &&
                same_text(x->producer_version, y->producer_version) &&
                same_text(x->domain, y->domain) && same_text(x->doc, y->doc) &&
                same_bytes(x->extra, y->extra) && same_bytes(x->graph_extra, y->graph_extra) &&
                x->external_data == y->external_data && x->nopsets == y->nopsets &&
                x->nprops == y->nprops;
    for (size_t i = 0; same && i < x->nopsets; i++)
        same = same_text(x->opsets[i].domain, y->opsets[i].domain) &&
               x->opsets[i].version == y->opsets[i].version;
    for (size_t i = 0; same && i < x->nprops; i++)
        same = same_text(x->props[i].key, y->props[i].key) &&
               same_text(x->props[i].value, y->props[i].value);
    return same || differ(c, "the fields of the model differ");
}

static bool same_graph(Comparison *c)
{
    const Graph *a = c->a, *b = c->b;
    if (!same_info(c, &a->info, &b->info)) return false;
    if (!same_text(a->name, b->name) || !same_text(a->doc, b->doc))
        return differ(c, "the graphs have another name or doc string");
    if (!same_values(c, a->inputs, a->ninputs, b->inputs, b->ninputs, "graph inputs")) return false;
    if (a->nnodes != b->nnodes) return differ(c, "%d nodes against %d", a->nnodes, b->nnodes);
    for (int i = 0; i < a->nnodes; i++)
        if (!same_node(c, a->nodes[i], b->nodes[i])) return false;
    return same_values(c, a->outputs, a->noutputs, b->outputs, b->noutputs, "graph outputs");
}

static int64_t *unmet(Arena *a, int n)
{
    int64_t *p = NEW_ARRAY(a, int64_t, n);
    for (int i = 0; i < n; i++) p[i] = -1;
    return p;
}

bool graph_equal(const Graph *a, const Graph *b, char *why, size_t size)
{
    Arena *s = arena_new();
    Comparison c = {
        a,   b,   s, unmet(s, a->nsymbols), unmet(s, b->nsymbols), NEW_ARRAY(s, bool, a->nvalues),
        why, size};
    bool same = same_graph(&c);
    arena_free(s);
    return same;
}
