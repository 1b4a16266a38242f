/* The printer: one walk over the graph. Constants are listed in the order in which nodes first
 * read them; everything else stands where the graph has it. The syntax is described in text.h. */
#include "ir/literal.h"

#include <string.h>

#include "ir/op.h"

enum { MAX_INLINE = 32, MAX_INLINE_BYTES = 512, SIDE_ALIGN = 64 };

typedef struct Printer {
    Text t;
    const Graph *g;
    const PrintOptions *o;
    int64_t max_inline;
    const char *sep; /* of the list being written */
    bool in_note;    /* inside one of our comments, which end with the line */
} Printer;

/* ---- types -------------------------------------------------------------------------- */

static void put_dim(Printer *p, int64_t d)
{
    int64_t k = d - DIM_SYM_BASE;
    const char *name = dim_is_sym(d) && k < p->g->nsymbols ? p->g->symbols[k] : NULL;
    if (!dim_is_sym(d))
        text_printf(&p->t, "%lld", (long long)d);
    else if (!name)
        text_printf(&p->t, "_%lld", (long long)k);
    else if (is_identifier(name) && !is_numbered(name))
        text_printf(&p->t, "%s", name);
    else if (p->in_note)
        put_escaped(&p->t, name, strlen(name));
    else
        put_quoted(&p->t, name, strlen(name));
}

/* float: a scalar; float[]: of unknown rank; ?: of unknown element type. */
static void put_type(Printer *p, const Type *type)
{
    bool known = dtype_of_name(dtype_name(type->dtype)) != DT_NONE;
    text_printf(&p->t, "%s", known ? dtype_name(type->dtype) : "?");
    if (type->rank < 0 && known) text_printf(&p->t, "[]");
    for (int i = 0; i < type->rank; i++) {
        text_printf(&p->t, i ? "," : "[");
        put_dim(p, type->dim[i]);
    }
    if (type->rank > 0) text_printf(&p->t, "]");
}

/* "float[N,3] x" in a signature; a type that is no tensor has no stock spelling. */
static void put_declaration(Printer *p, const Value *v)
{
    if (dtype_of_name(dtype_name(v->type.dtype)) != DT_NONE) {
        put_type(p, &v->type);
        text_printf(&p->t, " ");
    }
    put_name(&p->t, v->name);
}

/* ---- data --------------------------------------------------------------------------- */

/* An external reference, with the bytes appended to the side file. */
static void put_external(Printer *p, const void *data, size_t n)
{
    static const char zeros[SIDE_ALIGN];
    Text *side = p->o->side;
    size_t offset = side ? (side->n + SIDE_ALIGN - 1) / SIDE_ALIGN * SIDE_ALIGN : 0;
    text_printf(&p->t, "[\"location\" : ");
    put_quoted(&p->t, p->o->side_name ? p->o->side_name : "-",
               strlen(p->o->side_name ? p->o->side_name : "-"));
    text_printf(&p->t, ", \"offset\" : \"%zu\", \"length\" : \"%zu\"]", offset, n);
    if (!side) return;
    text_put(side, zeros, offset - side->n);
    text_put(side, data, n);
}

/* The elements in braces, or elsewhere. */
static void put_elements(Printer *p, const Type *type, const void *data)
{
    int64_t n = type_count(type);
    if (n > p->max_inline) {
        put_external(p, data, (size_t)type_bytes(type));
        return;
    }
    text_printf(&p->t, "{");
    for (int64_t i = 0; i < n; i++) {
        if (i) text_printf(&p->t, ", ");
        put_element(&p->t, type->dtype, data, i);
    }
    text_printf(&p->t, "}");
}

/* Opaque bytes in one of our comments. */
static void put_bytes(Printer *p, const void *data, size_t n)
{
    if (n > MAX_INLINE_BYTES && p->max_inline != INT64_MAX)
        put_external(p, data, n);
    else
        put_escaped(&p->t, data, n);
}

/* ---- attributes --------------------------------------------------------------------- */

static bool attr_is_stock(const Attr *a)
{
    if (!is_identifier(a->name) || a->kind == ATTR_OPAQUE) return false;
    if (a->kind == ATTR_STRING) return is_plain_text(a->s.p, a->s.n);
    if (a->kind == ATTR_TENSOR) return dtype_size(a->type.dtype) > 0 && type_bytes(&a->type) >= 0;
    for (size_t i = 0; a->kind == ATTR_STRINGS && i < a->n; i++)
        if (!is_plain_text(a->strings[i].p, a->strings[i].n)) return false;
    return true;
}

static void put_attr_string(Printer *p, Bytes s, bool stock)
{
    if (stock)
        put_quoted(&p->t, s.p, s.n);
    else
        put_escaped(&p->t, s.p, s.n);
}

static const char *const kind_name[] = {
    [ATTR_INT] = "int",       [ATTR_FLOAT] = "float",   [ATTR_STRING] = "string",
    [ATTR_INTS] = "ints",     [ATTR_FLOATS] = "floats", [ATTR_STRINGS] = "strings",
    [ATTR_TENSOR] = "tensor", [ATTR_OPAQUE] = "opaque",
};

static void put_attr_list(Printer *p, const Attr *a, bool stock)
{
    text_printf(&p->t, "[");
    for (size_t i = 0; i < a->n; i++) {
        if (i) text_printf(&p->t, ", ");
        if (a->kind == ATTR_INTS) text_printf(&p->t, "%lld", (long long)a->ints[i]);
        if (a->kind == ATTR_FLOATS) put_f32(&p->t, a->floats[i], true);
        if (a->kind == ATTR_STRINGS) put_attr_string(p, a->strings[i], stock);
    }
    text_printf(&p->t, "]");
}

static void put_attr_value(Printer *p, const Attr *a, bool stock)
{
    switch (a->kind) {
    case ATTR_INT:
        text_printf(&p->t, "%lld", (long long)a->i);
        break;
    case ATTR_FLOAT:
        put_f32(&p->t, a->f, true);
        break;
    case ATTR_STRING:
        put_attr_string(p, a->s, stock);
        break;
    case ATTR_TENSOR:
        put_type(p, &a->type);
        text_printf(&p->t, " = ");
        put_elements(p, &a->type, a->s.p);
        break;
    case ATTR_OPAQUE:
        put_bytes(p, a->s.p, a->s.n);
        break;
    default:
        put_attr_list(p, a, stock);
        break;
    }
}

/* alpha = 0.5; an empty list needs its kind: axes: ints = [] */
static void put_attr(Printer *p, const Attr *a, bool stock)
{
    bool list = a->kind == ATTR_INTS || a->kind == ATTR_FLOATS || a->kind == ATTR_STRINGS;
    if (stock) text_printf(&p->t, "%s", a->name);
    if (!stock) put_escaped(&p->t, a->name, strlen(a->name));
    if (!stock || (list && a->n == 0)) text_printf(&p->t, ": %s", kind_name[a->kind]);
    text_printf(&p->t, " = ");
    put_attr_value(p, a, stock);
}

/* ---- nodes -------------------------------------------------------------------------- */

static bool same_domain(const char *a, const char *b)
{
    if (strcmp(a, "ai.onnx") == 0) a = "";
    if (strcmp(b, "ai.onnx") == 0) b = "";
    return strcmp(a, b) == 0;
}

static bool is_our_domain(const char *domain)
{
    return same_domain(domain, "") || same_domain(domain, "ehap");
}

/* identifier(.identifier)* */
static bool is_dotted(Arena *a, const char *s)
{
    char *copy = arena_strdup(a, s), *dot;
    for (; (dot = strchr(copy, '.')); copy = dot + 1) {
        *dot = 0;
        if (!is_identifier(copy)) return false;
    }
    return is_identifier(copy);
}

/* The comments before a node: what stock syntax has no place for. */
static void put_annotations(Printer *p, const Node *n, const char *domain, const char *type,
                            bool spelt)
{
    if (n->doc) {
        text_printf(&p->t, "  #@ doc ");
        put_bytes(p, n->doc, strlen(n->doc));
        text_printf(&p->t, "\n");
    }
    if (n->extra.n) {
        text_printf(&p->t, "  #@ extra ");
        put_bytes(p, n->extra.p, n->extra.n);
        text_printf(&p->t, "\n");
    }
    if (n->op == OP_Opaque && spelt && is_our_domain(domain)) text_printf(&p->t, "  #@ opaque\n");
    if (!spelt) {
        text_printf(&p->t, "  #@ op ");
        put_escaped(&p->t, domain, strlen(domain));
        text_printf(&p->t, " ");
        put_escaped(&p->t, type, strlen(type));
        text_printf(&p->t, "\n");
    }
    for (int i = n->nin - n->ncapture; i < n->nin; i++) {
        const char *name = n->in[i] ? n->in[i]->name : "";
        text_printf(&p->t, i == n->nin - n->ncapture ? "  #@ captures " : ", ");
        put_escaped(&p->t, name, strlen(name));
    }
    if (n->ncapture) text_printf(&p->t, "\n");
    for (int k = 0; k < n->nattrs; k++) {
        if (attr_is_stock(&n->attrs[k])) continue;
        text_printf(&p->t, "  #@ attr %d ", k);
        put_attr(p, &n->attrs[k], false);
        text_printf(&p->t, "\n");
    }
}

static void put_operands(Printer *p, Value *const *v, int n)
{
    for (int i = 0; i < n; i++) {
        if (i) text_printf(&p->t, ", ");
        if (v[i])
            put_name(&p->t, v[i]->name);
        else
            text_printf(&p->t, "\"\"");
    }
}

static void put_elems(Printer *p, const Value *v)
{
    int64_t n = type_count(&v->type);
    text_printf(&p->t, " = {");
    for (int64_t i = 0; i < n; i++) {
        if (i) text_printf(&p->t, ", ");
        put_dim(p, v->elems[i]);
    }
    text_printf(&p->t, "}");
}

/* #: float[N,3] from conv1 */
static void put_output_types(Printer *p, const Node *n)
{
    const char *sep = "  #: ";
    p->in_note = true;
    for (int o = 0; o < n->nout; o++) {
        if (!n->out[o]) continue;
        text_printf(&p->t, "%s", sep);
        put_type(p, &n->out[o]->type);
        if (n->out[o]->elems) put_elems(p, n->out[o]);
        sep = ", ";
    }
    p->in_note = false;
    if (!n->from || *sep == ' ') return;
    text_printf(&p->t, " from ");
    put_escaped(&p->t, n->from, strlen(n->from));
}

static void put_node(Printer *p, const Node *n)
{
    bool opaque = n->op == OP_Opaque;
    const char *domain = opaque ? n->domain : op_info[n->op].domain;
    const char *type = opaque ? n->op_type : op_info[n->op].name;
    if (!domain) domain = "";
    if (!type) type = "";
    bool spelt = is_identifier(type) && (!*domain || is_dotted(p->t.arena, domain));
    put_annotations(p, n, domain, type, spelt);
    text_printf(&p->t, "  ");
    if (n->name && *n->name) {
        text_printf(&p->t, "[");
        put_name(&p->t, n->name);
        text_printf(&p->t, "] ");
    }
    put_operands(p, n->out, n->nout);
    text_printf(&p->t, "%s= ", n->nout ? " " : "");
    if (!spelt)
        text_printf(&p->t, "custom.Op");
    else
        text_printf(&p->t, "%s%s%s", domain, *domain ? "." : "", type);
    const char *sep = " <";
    for (int k = 0; k < n->nattrs; k++) {
        if (!attr_is_stock(&n->attrs[k])) continue;
        text_printf(&p->t, "%s", sep);
        put_attr(p, &n->attrs[k], true);
        sep = ", ";
    }
    text_printf(&p->t, "%s (", *sep == ',' ? ">" : "");
    put_operands(p, n->in, n->nin - n->ncapture);
    text_printf(&p->t, ")");
    if (!p->o->no_types) put_output_types(p, n);
    text_printf(&p->t, "\n");
}

/* ---- the rest of the model ---------------------------------------------------------- */

static void put_field(Printer *p, const char *key)
{
    text_printf(&p->t, "%s%s: ", p->sep, key);
    p->sep = ",\n  ";
}

static void put_text_field(Printer *p, const char *key, const char *s)
{
    if (!s) return;
    put_field(p, key);
    put_quoted(&p->t, s, strlen(s));
}

static void put_int_field(Printer *p, const char *key, int64_t i)
{
    if (!i) return;
    put_field(p, key);
    text_printf(&p->t, "%lld", (long long)i);
}

static void put_header(Printer *p)
{
    const ModelInfo *m = &p->g->info;
    size_t start = p->t.n;
    p->sep = "<\n  ";
    put_int_field(p, "ir_version", m->ir_version);
    size_t version_only = m->ir_version == 8 ? p->t.n : 0;
    if (m->nopsets) put_field(p, "opset_import");
    for (size_t i = 0; i < m->nopsets; i++) {
        text_printf(&p->t, i ? ", " : "[");
        put_quoted(&p->t, m->opsets[i].domain, strlen(m->opsets[i].domain));
        text_printf(&p->t, " : %lld", (long long)m->opsets[i].version);
    }
    if (m->nopsets) text_printf(&p->t, "]");
    put_text_field(p, "producer_name", m->producer_name);
    put_text_field(p, "producer_version", m->producer_version);
    put_text_field(p, "domain", m->domain);
    put_int_field(p, "model_version", m->model_version);
    put_text_field(p, "doc_string", m->doc);
    if (m->nprops) put_field(p, "metadata_props");
    for (size_t i = 0; i < m->nprops; i++) {
        text_printf(&p->t, i ? ", " : "[");
        put_quoted(&p->t, m->props[i].key, strlen(m->props[i].key));
        text_printf(&p->t, " : ");
        put_quoted(&p->t, m->props[i].value, strlen(m->props[i].value));
    }
    if (m->nprops) text_printf(&p->t, "]");
    if (p->t.n == version_only) p->t.n = start; /* what a text without header means */
    if (p->t.n > start) text_printf(&p->t, "\n>\n");
}

static void put_note(Printer *p, const char *key, const void *data, size_t n)
{
    if (!data) return;
    text_printf(&p->t, "#@ %s ", key);
    put_bytes(p, data, n);
    text_printf(&p->t, "\n");
}

static void put_value_note(Printer *p, const Value *v, const char *key, const void *data, size_t n)
{
    if (!data) return;
    text_printf(&p->t, "#@ value ");
    put_escaped(&p->t, v->name, strlen(v->name));
    text_printf(&p->t, " %s ", key);
    put_bytes(p, data, n);
    text_printf(&p->t, "\n");
}

static void put_value_bytes(Printer *p, const Value *v, const char *key, Bytes b)
{
    put_value_note(p, v, key, b.n ? b.p : NULL, b.n);
}

static void put_value_notes(Printer *p, const Value *v)
{
    put_value_note(p, v, "doc", v->doc, v->doc ? strlen(v->doc) : 0);
    put_value_bytes(p, v, "type", v->opaque_type);
    put_value_bytes(p, v, "declared", v->declared);
    put_value_bytes(p, v, "extra", v->extra);
}

typedef struct Values {
    Value **v;
    size_t n;
} Values;

static void visit(Values *list, bool *seen, Value *v)
{
    if (!v || seen[v->id]) return;
    seen[v->id] = true;
    list->v[list->n++] = v;
}

/* Every value, in the order of appearance. */
static Values all_values(const Graph *g, Arena *a)
{
    Values list = {NEW_ARRAY(a, Value *, g->nvalues), 0};
    bool *seen = NEW_ARRAY(a, bool, g->nvalues);
    for (int i = 0; i < g->ninputs; i++) visit(&list, seen, g->inputs[i]);
    for (int i = 0; i < g->nnodes; i++) {
        const Node *n = g->nodes[i];
        for (int k = 0; k < n->nin; k++) visit(&list, seen, n->in[k]);
        for (int k = 0; k < n->nout; k++) visit(&list, seen, n->out[k]);
    }
    for (int o = 0; o < g->noutputs; o++) visit(&list, seen, g->outputs[o]);
    return list;
}

static void put_constants(Printer *p, const Values *all)
{
    const char *sep = " <\n  ";
    for (size_t i = 0; i < all->n; i++) {
        const Value *v = all->v[i];
        if (!value_is_const(v)) continue;
        text_printf(&p->t, "%s", sep);
        put_declaration(p, v);
        text_printf(&p->t, " = ");
        put_elements(p, &v->type, v->data);
        sep = ",\n  ";
    }
    if (*sep == ',') text_printf(&p->t, "\n>");
}

static void put_signature(Printer *p)
{
    const Graph *g = p->g;
    if (g->name && strcmp(g->name, "_") != 0 && *g->name)
        put_name(&p->t, g->name);
    else
        text_printf(&p->t, g->name && *g->name ? "\"_\"" : "_");
    text_printf(&p->t, " (");
    for (int i = 0; i < g->ninputs; i++) {
        if (i) text_printf(&p->t, ", ");
        put_declaration(p, g->inputs[i]);
    }
    text_printf(&p->t, ") => (");
    for (int o = 0; o < g->noutputs; o++) {
        if (o) text_printf(&p->t, ", ");
        put_declaration(p, g->outputs[o]);
    }
    text_printf(&p->t, ")");
}

char *ir_print(const Graph *g, Arena *a, const PrintOptions *o)
{
    static const PrintOptions plain;
    Printer p = {.t = {.arena = a}, .g = g, .o = o ? o : &plain};
    p.max_inline = p.o->max_inline < 0 ? INT64_MAX : p.o->max_inline ? p.o->max_inline : MAX_INLINE;
    Values all = all_values(g, a);
    put_header(&p);
    if (g->info.external_data) text_printf(&p.t, "#@ external_data\n");
    put_note(&p, "model_extra", g->info.extra.n ? g->info.extra.p : NULL, g->info.extra.n);
    put_note(&p, "graph_extra", g->info.graph_extra.n ? g->info.graph_extra.p : NULL,
             g->info.graph_extra.n);
    put_note(&p, "graph_doc", g->doc, g->doc ? strlen(g->doc) : 0);
    for (size_t i = 0; i < all.n; i++) put_value_notes(&p, all.v[i]);
    put_signature(&p);
    put_constants(&p, &all);
    text_printf(&p.t, " {\n");
    for (int i = 0; i < g->nnodes; i++) {
        if (p.o->remark && p.o->remark[i]) text_printf(&p.t, "  # %s\n", p.o->remark[i]);
        put_node(&p, g->nodes[i]);
    }
    text_printf(&p.t, "}\n");
    return p.t.p;
}
