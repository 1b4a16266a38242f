/* The parser: recursive descent (without recursion: graphs do not nest), one pass, each node's
 * types inferred as it is read. A value must be defined above its readers, so the graph comes out
 * in SSA form and topological order. */
#include "ir/parse.h"

#include <limits.h>
#include <string.h>

#include "ir/op.h"

enum { MAX_ATTRS = 4096 };

/* ---- tables ------------------------------------------------------------------------- */

Entry *entry_find(const Table *t, const char *name)
{
    return t->names ? names_get(t->names, name) : NULL;
}

Entry *entry_get(Parser *p, Table *t, const char *name)
{
    Arena *a = p->l.arena;
    Entry *e = entry_find(t, name);
    if (e) return e;
    if (!t->names) t->names = names_new(a);
    if (t->n == t->cap) {
        Entry **old = t->entry;
        t->cap = t->cap ? 2 * t->cap : 32;
        t->entry = NEW_ARRAY(a, Entry *, t->cap);
        if (t->n) memcpy(t->entry, old, t->n * sizeof *old);
    }
    e = NEW(a, Entry);
    e->name = name;
    e->at = p->l.p;
    t->entry[t->n++] = e;
    names_put(t->names, name, e);
    return e;
}

/* ---- the header --------------------------------------------------------------------- */

static int parse_opsets(Parser *p, ModelInfo *m)
{
    Text list = LIST(p);
    TRY(lex_expect(&p->l, '[', "before the opsets"));
    if (lex_eat(&p->l, ']')) return 0;
    do {
        OpsetImport o;
        TRY(lex_text(&p->l, &o.domain));
        TRY(lex_expect(&p->l, ':', "between domain and version"));
        TRY(lex_int(&p->l, &o.version));
        PUSH(list, o);
    } while (lex_eat(&p->l, ','));
    m->opsets = (OpsetImport *)(void *)list.p;
    m->nopsets = list.n / sizeof(OpsetImport);
    return lex_expect(&p->l, ']', "after the opsets");
}

static int parse_props(Parser *p, ModelInfo *m)
{
    Text list = LIST(p);
    TRY(lex_expect(&p->l, '[', "before the properties"));
    if (lex_eat(&p->l, ']')) return 0;
    do {
        KeyValue kv;
        TRY(lex_text(&p->l, &kv.key));
        TRY(lex_expect(&p->l, ':', "between key and value"));
        TRY(lex_text(&p->l, &kv.value));
        PUSH(list, kv);
    } while (lex_eat(&p->l, ','));
    m->props = (KeyValue *)(void *)list.p;
    m->nprops = list.n / sizeof(KeyValue);
    return lex_expect(&p->l, ']', "after the properties");
}

static int parse_field(Parser *p, ModelInfo *m)
{
    static const char *const keys[] = {"ir_version",       "opset_import",   "producer_name",
                                       "producer_version", "domain",         "model_version",
                                       "doc_string",       "metadata_props", NULL};
    const char *key, *at;
    lex_peek(&p->l);
    at = p->l.p;
    TRY(lex_name(&p->l, &key, "a field of the model"));
    TRY(lex_expect(&p->l, ':', "after the field's name"));
    if (strcmp(key, "ir_version") == 0) return lex_int(&p->l, &m->ir_version);
    if (strcmp(key, "opset_import") == 0) return parse_opsets(p, m);
    if (strcmp(key, "producer_name") == 0) return lex_text(&p->l, &m->producer_name);
    if (strcmp(key, "producer_version") == 0) return lex_text(&p->l, &m->producer_version);
    if (strcmp(key, "domain") == 0) return lex_text(&p->l, &m->domain);
    if (strcmp(key, "model_version") == 0) return lex_int(&p->l, &m->model_version);
    if (strcmp(key, "doc_string") == 0) return lex_text(&p->l, &m->doc);
    if (strcmp(key, "metadata_props") == 0) return parse_props(p, m);
    const char *near = nearest_name(key, keys);
    return near ? lex_error(&p->l, at, "unknown field '%s'; did you mean '%s'?", key, near)
                : lex_error(&p->l, at, "unknown field '%s'", key);
}

static int parse_header(Parser *p)
{
    if (!lex_eat(&p->l, '<')) return 0;
    do TRY(parse_field(p, &p->g->info));
    while (lex_eat(&p->l, ','));
    return lex_expect(&p->l, '>', "after the fields of the model");
}

/* ---- comments about the graph ------------------------------------------------------- */

static int note_text(Parser *p, const char **out)
{
    Bytes b;
    lex_peek(&p->l);
    const char *at = p->l.p;
    TRY(parse_bytes(p, &b));
    if (memchr(b.p, 0, b.n)) return lex_error(&p->l, at, "a NUL byte cannot stand in this string");
    char *s = arena_alloc(p->l.arena, b.n + 1);
    *out = memcpy(s, b.p, b.n);
    return 0;
}

/* value NAME (doc|type|declared|extra) S */
static int parse_value_note(Parser *p)
{
    const char *name, *at = p->l.p;
    TRY(lex_name(&p->l, &name, "the name of a value"));
    Entry *e = entry_get(p, &p->values, name);
    e->noted_at = at;
    if (lex_word(&p->l, "doc")) return note_text(p, &e->doc);
    if (lex_word(&p->l, "type")) return parse_bytes(p, &e->opaque_type);
    if (lex_word(&p->l, "declared")) return parse_bytes(p, &e->declared_type);
    if (lex_word(&p->l, "extra")) return parse_bytes(p, &e->extra);
    return lex_error(&p->l, p->l.p, "expected 'doc', 'type', 'declared' or 'extra'");
}

static int parse_graph_note(Parser *p)
{
    Graph *g = p->g;
    if (lex_word(&p->l, "value")) return parse_value_note(p);
    if (lex_word(&p->l, "graph_doc")) return note_text(p, &g->doc);
    if (lex_word(&p->l, "graph_extra")) return parse_bytes(p, &g->info.graph_extra);
    if (lex_word(&p->l, "model_extra")) return parse_bytes(p, &g->info.extra);
    if (!lex_word(&p->l, "external_data"))
        return lex_error(&p->l, p->l.p, "unknown comment about the graph");
    g->info.external_data = true;
    return 0;
}

static int parse_graph_notes(Parser *p)
{
    while (lex_note(&p->l, '@')) {
        TRY(parse_graph_note(p));
        TRY(lex_end_note(&p->l));
    }
    return 0;
}

/* ---- declarations ------------------------------------------------------------------- */

/* [TYPE] name */
static int parse_declaration(Parser *p, Type *type, Entry **out, const char **at)
{
    const char *name;
    *type = (Type){.rank = -1};
    if (at_type(p)) TRY(parse_type(p, type));
    lex_peek(&p->l);
    *at = p->l.p;
    TRY(lex_name(&p->l, &name, "the name of a value"));
    if (!*name) return lex_error(&p->l, *at, "a value must have a name");
    *out = entry_get(p, &p->values, name);
    return 0;
}

/* Makes the value of an entry; once only. */
static int define(Parser *p, Entry *e, Type type, const char *at)
{
    if (e->value) return lex_error(&p->l, at, "value '%s' is defined twice", e->name);
    e->value = value_new(p->g, e->name, type);
    e->value->doc = e->doc;
    e->value->opaque_type = e->opaque_type;
    e->value->declared = e->declared_type;
    e->value->extra = e->extra;
    return 0;
}

static void declare(Entry *e, const Type *type)
{
    e->declared = type->dtype != DT_NONE;
    e->type = *type;
}

/* An input with elements is a constant that the file also listed as an input. */
static int parse_inputs(Parser *p)
{
    Text list = LIST(p);
    TRY(lex_expect(&p->l, '(', "before the inputs of the graph"));
    if (lex_eat(&p->l, ')')) return 0;
    do {
        Type type;
        Entry *e;
        const char *at;
        TRY(parse_declaration(p, &type, &e, &at));
        TRY(define(p, e, type, at));
        if (lex_eat(&p->l, '='))
            TRY(parse_elements(p, &type, e->name, &e->value->data));
        else
            PUSH(list, e->value);
    } while (lex_eat(&p->l, ','));
    p->g->inputs = (Value **)(void *)list.p;
    p->g->ninputs = (int)(list.n / sizeof(Value *));
    return lex_expect(&p->l, ')', "after the inputs of the graph");
}

/* The entries of the outputs, whose values come later. */
static int parse_outputs(Parser *p, Text *entries)
{
    TRY(lex_expect(&p->l, '(', "before the outputs of the graph"));
    if (lex_eat(&p->l, ')')) return 0;
    do {
        Type type;
        Entry *e;
        const char *at;
        TRY(parse_declaration(p, &type, &e, &at));
        declare(e, &type);
        if (!e->value) e->at = at;
        PUSH(*entries, e);
    } while (lex_eat(&p->l, ','));
    return lex_expect(&p->l, ')', "after the outputs of the graph");
}

/* < float[2] w = {1, 2}, float[N,3] y >: constants, and types of values of the body. */
static int parse_constants(Parser *p)
{
    if (!lex_eat(&p->l, '<') || lex_eat(&p->l, '>')) return 0;
    do {
        Type type;
        Entry *e;
        const char *at;
        TRY(parse_declaration(p, &type, &e, &at));
        if (lex_eat(&p->l, '=')) {
            TRY(define(p, e, type, at));
            TRY(parse_elements(p, &type, e->name, &e->value->data));
        } else {
            declare(e, &type);
        }
    } while (lex_eat(&p->l, ','));
    return lex_expect(&p->l, '>', "after the constants");
}

/* ---- nodes -------------------------------------------------------------------------- */

/* What the comments before a node said. */
typedef struct Notes {
    const char *doc, *domain, *type;
    Bytes extra;
    bool opaque;
    Text captures; /* Value * */
    Text attrs;    /* PlacedAttr */
} Notes;

typedef struct PlacedAttr {
    int64_t place;
    Attr attr;
} PlacedAttr;

static int resolve(Parser *p, const char *name, const char *at, Value **out)
{
    Entry *e = entry_find(&p->values, name);
    *out = e ? e->value : NULL;
    if (*out) return 0;
    const char **names = NEW_ARRAY(p->l.arena, const char *, p->values.n + 1);
    size_t n = 0;
    for (size_t k = 0; k < p->values.n; k++)
        if (p->values.entry[k]->value) names[n++] = p->values.entry[k]->name;
    const char *near = nearest_name(name, names);
    return near ? lex_error(&p->l, at, "'%s' is not defined above; did you mean '%s'?", name, near)
                : lex_error(&p->l, at, "'%s' is not defined above", name);
}

static int parse_captures(Parser *p, Text *list)
{
    do {
        const char *name, *at;
        Value *v;
        lex_peek(&p->l);
        at = p->l.p;
        TRY(lex_name(&p->l, &name, "the name of a value"));
        TRY(resolve(p, name, at, &v));
        PUSH(*list, v);
    } while (lex_eat(&p->l, ','));
    return 0;
}

static int parse_node_note(Parser *p, Notes *n)
{
    if (lex_word(&p->l, "doc")) return note_text(p, &n->doc);
    if (lex_word(&p->l, "extra")) return parse_bytes(p, &n->extra);
    if (lex_word(&p->l, "captures")) return parse_captures(p, &n->captures);
    if (lex_word(&p->l, "op")) {
        TRY(lex_text(&p->l, &n->domain));
        return lex_text(&p->l, &n->type);
    }
    if (lex_word(&p->l, "attr")) {
        PlacedAttr a;
        TRY(lex_int(&p->l, &a.place));
        TRY(parse_attr(p, &a.attr));
        PUSH(n->attrs, a);
        return 0;
    }
    if (!lex_word(&p->l, "opaque")) return lex_error(&p->l, p->l.p, "unknown comment about a node");
    n->opaque = true;
    return 0;
}

static int parse_node_notes(Parser *p, Notes *n)
{
    *n = (Notes){.captures = LIST(p), .attrs = LIST(p)};
    while (lex_note(&p->l, '@')) {
        TRY(parse_node_note(p, n));
        TRY(lex_end_note(&p->l));
    }
    return 0;
}

/* A comma-separated list of names, "" or nothing between two commas being an omitted one; ends
 * before anything else. `each` gets NULL for those. */
static int parse_names(Parser *p, Text *list,
                       int (*each)(Parser *, const char *, const char *, Text *))
{
    for (;;) {
        char c = lex_peek(&p->l);
        const char *at = p->l.p, *name = NULL;
        bool given = c == '"' || c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (given) TRY(lex_name(&p->l, &name, "a name"));
        if (given || c == ',') TRY(each(p, name && *name ? name : NULL, at, list));
        if (!lex_eat(&p->l, ',')) return 0;
    }
}

typedef struct Output {
    Entry *entry; /* NULL: omitted */
    const char *at;
} Output;

static int add_output(Parser *p, const char *name, const char *at, Text *list)
{
    Output o = {name ? entry_get(p, &p->values, name) : NULL, at};
    PUSH(*list, o);
    return 0;
}

static int add_input(Parser *p, const char *name, const char *at, Text *list)
{
    Value *v = NULL;
    if (name) TRY(resolve(p, name, at, &v));
    PUSH(*list, v);
    return 0;
}

static int unknown_op(Parser *p, const char *domain, const char *type, const char *at)
{
    const char *names[OP_COUNT + 1] = {NULL};
    int n = 0;
    for (int op = 0; op < OP_COUNT; op++)
        if (op != OP_Opaque && strcmp(op_info[op].domain, domain) == 0)
            names[n++] = op_info[op].name;
    const char *near = nearest_name(type, names);
    if (near) return lex_error(&p->l, at, "unknown op '%s'; did you mean '%s'?", type, near);
    return lex_error(&p->l, at, "unknown op '%s'; '#@ opaque' above it carries it along", type);
}

/* [domain.]Op */
static int parse_op(Parser *p, const Notes *notes, Node *n)
{
    lex_peek(&p->l);
    const char *at = p->l.p, *domain = "", *type = lex_identifier(&p->l);
    if (!type) return lex_error(&p->l, at, "expected the name of an operator");
    while (lex_eat(&p->l, '.')) {
        domain = *domain ? arena_printf(p->l.arena, "%s.%s", domain, type) : type;
        type = lex_identifier(&p->l);
        if (!type) return lex_error(&p->l, p->l.p, "expected the name of an operator");
    }
    if (lex_peek(&p->l) == ':')
        return lex_error(&p->l, p->l.p, "overloads of functions cannot be read from text");
    if (notes->type) {
        domain = notes->domain;
        type = notes->type;
    }
    n->op = op_of_name(domain, type);
    bool ours =
        strcmp(domain, "") == 0 || strcmp(domain, "ehap") == 0 || strcmp(domain, "ai.onnx") == 0;
    bool opaque = notes->opaque || notes->type;
    if (!opaque && n->op == OP_COUNT && ours) return unknown_op(p, domain, type, at);
    if (!opaque && n->op != OP_COUNT) return 0;
    n->op = OP_Opaque;
    n->op_type = type;
    n->domain = domain;
    return 0;
}

static int push_attr(Parser *p, Text *list, const Attr *a, const char *at)
{
    const Attr *seen = (const Attr *)(const void *)list->p;
    size_t n = list->n / sizeof(Attr);
    if (n == MAX_ATTRS) return lex_error(&p->l, at, "more than %d attributes", MAX_ATTRS);
    for (size_t k = 0; k < n; k++)
        if (strcmp(seen[k].name, a->name) == 0)
            return lex_error(&p->l, at, "attribute '%s' is given twice", a->name);
    PUSH(*list, *a);
    return 0;
}

/* Those from comments go where they were, the others fill the places between. */
static int merge_attrs(Parser *p, const Notes *notes, const Text *plain, Node *n)
{
    const PlacedAttr *placed = (const PlacedAttr *)(const void *)notes->attrs.p;
    const Attr *attrs = (const Attr *)(const void *)plain->p;
    size_t nplaced = notes->attrs.n / sizeof *placed, nplain = plain->n / sizeof *attrs;
    Text list = LIST(p);
    for (size_t i = 0, j = 0; i < nplaced || j < nplain;) {
        bool here = i < nplaced && (j == nplain || placed[i].place <= (int64_t)(i + j));
        TRY(push_attr(p, &list, here ? &placed[i].attr : &attrs[j], p->l.p));
        if (here)
            i++;
        else
            j++;
    }
    n->attrs = (Attr *)(void *)list.p;
    n->nattrs = (int)(list.n / sizeof(Attr));
    return 0;
}

static int parse_attrs(Parser *p, Text *list)
{
    if (!lex_eat(&p->l, '<') || lex_eat(&p->l, '>')) return 0;
    do {
        Attr a;
        lex_peek(&p->l);
        const char *at = p->l.p;
        TRY(parse_attr(p, &a));
        TRY(push_attr(p, list, &a, at));
    } while (lex_eat(&p->l, ','));
    return lex_expect(&p->l, '>', "after the attributes");
}

/* ---- types of a node's outputs ------------------------------------------------------ */

/* int64[2] = {N, 64}: the known elements */
static int parse_elems(Parser *p, Value *v)
{
    Text list = LIST(p);
    const char *at = p->l.p;
    TRY(lex_expect(&p->l, '{', "before the known elements"));
    text_put(&list, "", 0);
    if (!lex_eat(&p->l, '}')) {
        do {
            int64_t d;
            TRY(parse_dim(p, &d));
            PUSH(list, d);
        } while (lex_eat(&p->l, ','));
        TRY(lex_expect(&p->l, '}', "after the known elements"));
    }
    bool integer = dtype_is_int(v->type.dtype) || v->type.dtype == DT_BOOL;
    if (!integer || (int64_t)(list.n / sizeof(int64_t)) != type_count(&v->type))
        return lex_error(&p->l, at, "'%s': the known elements do not fit the type", v->name);
    v->elems = (const int64_t *)(const void *)list.p;
    return 0;
}

static int parse_output_types(Parser *p, Node *n)
{
    bool first = true;
    for (int o = 0; o < n->nout; o++) {
        Value *v = n->out[o];
        if (!v) continue;
        if (!first) TRY(lex_expect(&p->l, ',', "between the types of two outputs"));
        first = false;
        TRY(parse_type(p, &v->type));
        if (lex_eat(&p->l, '=')) TRY(parse_elems(p, v));
    }
    if (lex_word(&p->l, "from")) TRY(lex_text(&p->l, &n->from));
    return lex_end_note(&p->l);
}

/* A declared type makes an inferred one more precise, and must not contradict it. */
static int merge_type(Parser *p, const Entry *e, Value *v, const char *at)
{
    char a[256], b[256];
    bool same = v->type.dtype == DT_NONE || v->type.dtype == e->type.dtype;
    if (v->type.rank >= 0 && e->type.rank >= 0) {
        same &= v->type.rank == e->type.rank;
        for (int i = 0; same && i < e->type.rank; i++)
            same &= v->type.dim[i] < 0 || e->type.dim[i] < 0 || v->type.dim[i] == e->type.dim[i];
    }
    if (!same)
        return lex_error(&p->l, at, "'%s' is declared as %s and computed as %s", v->name,
                         type_print(p->g, &e->type, a, sizeof a),
                         type_print(p->g, &v->type, b, sizeof b));
    v->type.dtype = e->type.dtype;
    if (v->type.rank < 0) v->type = e->type;
    for (int i = 0; i < e->type.rank; i++) {
        int64_t k = v->type.dim[i] - DIM_SYM_BASE;
        if (dim_is_sym(v->type.dim[i]) && !p->g->symbols[k]) v->type.dim[i] = e->type.dim[i];
    }
    return 0;
}

static int infer_outputs(Parser *p, Node *n, const Output *out, const char *at)
{
    Diag *d = p->l.diag;
    const char *file = d->file;
    d->file = lex_where(&p->l, at);
    int status = node_infer(n, d);
    d->file = file;
    TRY(status);
    for (int o = 0; o < n->nout; o++)
        if (n->out[o] && out[o].entry->declared)
            TRY(merge_type(p, out[o].entry, n->out[o], out[o].at));
    return 0;
}

static int define_outputs(Parser *p, Node *n, const Output *out)
{
    n->out = NEW_ARRAY(p->l.arena, Value *, n->nout);
    for (int o = 0; o < n->nout; o++) {
        if (!out[o].entry) continue;
        TRY(define(p, out[o].entry, (Type){.rank = -1}, out[o].at));
        n->out[o] = out[o].entry->value;
    }
    return 0;
}

/* [label] outputs = op <attributes> (inputs) */
static int parse_node(Parser *p, const Notes *notes)
{
    Node *n = NEW(p->l.arena, Node);
    Text outs = LIST(p), ins = LIST(p), attrs = LIST(p);
    lex_peek(&p->l);
    const char *at = p->l.p;
    if (lex_eat(&p->l, '[')) {
        TRY(lex_name(&p->l, &n->name, "the name of a node"));
        TRY(lex_expect(&p->l, ']', "after the name of the node"));
    }
    TRY(parse_names(p, &outs, add_output));
    TRY(lex_expect(&p->l, '=', "after the outputs of the node"));
    TRY(parse_op(p, notes, n));
    TRY(parse_attrs(p, &attrs));
    TRY(lex_expect(&p->l, '(', "before the inputs of the node"));
    TRY(parse_names(p, &ins, add_input));
    TRY(lex_expect(&p->l, ')', "after the inputs of the node"));
    if (!attrs.n) TRY(parse_attrs(p, &attrs));
    TRY(merge_attrs(p, notes, &attrs, n));
    n->ncapture = (int)(notes->captures.n / sizeof(Value *));
    if (n->ncapture) text_put(&ins, notes->captures.p, notes->captures.n);
    n->in = (Value **)(void *)ins.p;
    n->nin = (int)(ins.n / sizeof(Value *));
    n->nout = (int)(outs.n / sizeof(Output));
    n->doc = notes->doc;
    n->extra = notes->extra;
    const Output *out = (const Output *)(const void *)outs.p;
    TRY(define_outputs(p, n, out));
    node_append(p->g, n);
    if (lex_note(&p->l, ':')) return parse_output_types(p, n);
    return infer_outputs(p, n, out, at);
}

/* ---- the graph ---------------------------------------------------------------------- */

static int parse_body(Parser *p)
{
    TRY(lex_expect(&p->l, '{', "before the nodes"));
    for (;;) {
        Notes notes;
        TRY(parse_node_notes(p, &notes));
        if (lex_eat(&p->l, '}')) return 0;
        if (lex_at_end(&p->l)) return lex_error(&p->l, p->l.p, "expected '}' after the nodes");
        TRY(parse_node(p, &notes));
    }
}

static int finish_outputs(Parser *p, const Text *entries)
{
    Graph *g = p->g;
    Entry *const *e = (Entry *const *)(const void *)entries->p;
    g->noutputs = (int)(entries->n / sizeof *e);
    g->outputs = NEW_ARRAY(p->l.arena, Value *, g->noutputs);
    for (int o = 0; o < g->noutputs; o++) {
        g->outputs[o] = e[o]->value;
        if (!e[o]->value)
            return lex_error(&p->l, e[o]->at, "no node computes the graph's output '%s'",
                             e[o]->name);
    }
    return 0;
}

static int check_notes(Parser *p)
{
    for (size_t k = 0; k < p->values.n; k++) {
        const Entry *e = p->values.entry[k];
        if (e->noted_at && !e->value)
            return lex_error(&p->l, e->noted_at, "no value is called '%s'", e->name);
    }
    return 0;
}

static int parse_graph(Parser *p)
{
    const char *name;
    Text outputs = LIST(p);
    TRY(parse_header(p));
    TRY(parse_graph_notes(p));
    bool quoted = lex_peek(&p->l) == '"';
    TRY(lex_name(&p->l, &name, "the name of the graph"));
    p->g->name = !quoted && strcmp(name, "_") == 0 ? "" : name;
    TRY(parse_inputs(p));
    TRY(lex_expect(&p->l, '=', "('=>') after the inputs"));
    TRY(lex_expect(&p->l, '>', "('=>') after the inputs"));
    TRY(parse_outputs(p, &outputs));
    TRY(parse_constants(p));
    TRY(parse_body(p));
    if (!lex_at_end(&p->l)) return lex_error(&p->l, p->l.p, "unexpected text after the graph");
    TRY(finish_outputs(p, &outputs));
    return check_notes(p);
}

int ir_parse(Graph **out, Arena *a, const char *text, size_t n, const char *dir, Diag *d)
{
    Parser p = {.l = {.start = text, .p = text, .end = text + n, .arena = a, .diag = d},
                .dir = dir};
    if (n > INT_MAX)
        return diag_error(d, "the text has %zu bytes, at most %d can be read", n, INT_MAX);
    p.g = graph_new(a, "");
    TRY(parse_graph(&p));
    *out = p.g;
    return 0;
}
