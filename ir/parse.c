/* The parser: recursive descent (without recursion: graphs do not nest), one pass, each node's
 * types inferred as it is read. A value must be defined above its readers, so the graph comes out
 * in SSA form and topological order. */
#include "ir/parse.h"

#include <limits.h>
#include <string.h>

#include "ir/op.h"

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

int entry_define(Parser *p, Entry *e, Type type, const char *at)
{
    if (e->value) return lex_error(&p->l, at, "value '%s' is defined twice", e->name);
    e->value = value_new(p->g, e->name, type);
    e->value->doc = e->doc;
    e->value->opaque_type = e->opaque_type;
    e->value->declared = e->declared_type;
    e->value->extra = e->extra;
    return 0;
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

/* value NAME (doc|type|declared|extra) S */
static int parse_value_note(Parser *p)
{
    const char *name, *at = p->l.p;
    TRY(lex_name(&p->l, &name, "the name of a value"));
    Entry *e = entry_get(p, &p->values, name);
    e->noted_at = at;
    if (lex_word(&p->l, "doc")) return parse_text(p, &e->doc);
    if (lex_word(&p->l, "type")) return parse_bytes(p, &e->opaque_type);
    if (lex_word(&p->l, "declared")) return parse_bytes(p, &e->declared_type);
    if (lex_word(&p->l, "extra")) return parse_bytes(p, &e->extra);
    return lex_error(&p->l, p->l.p, "expected 'doc', 'type', 'declared' or 'extra'");
}

static int parse_graph_note(Parser *p)
{
    Graph *g = p->g;
    if (lex_word(&p->l, "value")) return parse_value_note(p);
    if (lex_word(&p->l, "graph_doc")) return parse_text(p, &g->doc);
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
        TRY(entry_define(p, e, type, at));
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
            TRY(entry_define(p, e, type, at));
            TRY(parse_elements(p, &type, e->name, &e->value->data));
        } else {
            declare(e, &type);
        }
    } while (lex_eat(&p->l, ','));
    return lex_expect(&p->l, '>', "after the constants");
}

/* ---- the graph ---------------------------------------------------------------------- */

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
    TRY(parse_nodes(p));
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
