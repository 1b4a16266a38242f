/* The nodes of the text form: their comments, names and attributes; the types of their outputs,
 * which are inferred as they are read and must be those that were given. */
#include <string.h>

#include "ir/op.h"
#include "ir/parse.h"

enum { MAX_ATTRS = 4096 };

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
    if (lex_word(&p->l, "doc")) return parse_text(p, &n->doc);
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
        TRY(entry_define(p, out[o].entry, (Type){.rank = -1}, out[o].at));
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

int parse_nodes(Parser *p)
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
