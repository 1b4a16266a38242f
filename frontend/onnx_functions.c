/* Local functions: calls of those whose nodes are all known become those nodes.
 *
 * In a copy of the function's nodes its inputs and outputs are those of the call, every other name
 * is made unique ("call/name"), and an attribute that refers to one of the call takes that value,
 * else the function's default, else is left out. Doc string and metadata of the call are those of
 * its nodes where they have none of their own. Functions that functions call go the same way.
 * What stays as it is: functions with an operator that is not known, with a body, with a name that
 * nothing makes, that call themselves; calls that do not fit their function or exceed the limits;
 * calls in bodies; functions of another opset with a node that has no form in the model's (which
 * only importing it tells: then the file is read again, with the function in im->kept).
 * Functions that are not called afterwards are dropped, opset imports are not: a domain may be
 * imported without a use of it. This happens to the decoded message, before anything else sees the
 * graph. */
#include "frontend/onnx_functions.h"
#include "frontend/onnx_expand.h"

#include <string.h>

#include "frontend/wire.h"
#include "ir/names.h"

enum { MAX_DEPTH = 64, MAX_BYTES = 1 << 30 };
/* Fields that came after the oldest onnx.proto that we build with. */
enum {
    NODE_OVERLOAD = 8,
    NODE_METADATA = 9,
    FUNCTION_ATTRIBUTE_PROTO = 11,
    FUNCTION_OVERLOAD = 13
};

typedef struct Function {
    Onnx__FunctionProto *p;
    int64_t opset; /* of the default domain; 0: it imports none */
    Onnx__AttributeProto **defaults;
    size_t ndefaults;
    enum { FRESH, OPEN, KNOWN, UNKNOWN } state;
    int64_t nodes, names, bytes; /* that a call adds, with what it calls in turn */
    bool gone;                   /* a call of it has become nodes */
    bool called;
    struct Function *next; /* on the list of those */
} Function;

typedef struct Inline {
    Import *im;
    Onnx__ModelProto *m;
    Function *list;
    Names *functions; /* by key() */
    NameTable *taken; /* names of values; index is the last number tried */
    NameTable *calls; /* likewise of calls */
    Onnx__NodeProto **out;
    Origin *origin; /* by node of `out` */
    size_t n, cap;
    Function *called; /* functions whose calls are still to be followed */
} Inline;

/* ---- fields that came late: unknown to the generated code (wire.c) ------------------ */

/* A field of length n behind its length; NULL if that is damaged. */
static const uint8_t *payload(const ProtobufCMessageUnknownField *u, size_t *n)
{
    uint64_t len = 0;
    for (size_t i = 0; i < u->len && i < 5; i++) {
        len |= (uint64_t)(u->data[i] & 0x7f) << (7 * i);
        if (u->data[i] & 0x80) continue;
        *n = u->len - i - 1;
        return len == *n ? u->data + i + 1 : NULL;
    }
    return NULL;
}

static bool is_late(const ProtobufCMessageUnknownField *u, unsigned tag)
{
    return u->tag == tag && u->wire_type == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
}

static const char *late_string(Inline *il, const ProtobufCMessage *m, unsigned tag)
{
    size_t n;
    for (unsigned i = 0; i < m->n_unknown_fields; i++) {
        const ProtobufCMessageUnknownField *u = &m->unknown_fields[i];
        const uint8_t *p = is_late(u, tag) ? payload(u, &n) : NULL;
        if (p) return arena_printf(il->im->tmp, "%.*s", (int)n, (const char *)p);
    }
    return "";
}

/* The attributes with defaults. Their tensors may outlive the decoded message. */
static int read_defaults(Inline *il, Function *f)
{
    const ProtobufCMessage *m = &f->p->base;
    f->defaults = NEW_ARRAY(il->im->tmp, Onnx__AttributeProto *, m->n_unknown_fields);
    for (unsigned i = 0; i < m->n_unknown_fields; i++) {
        const ProtobufCMessageUnknownField *u = &m->unknown_fields[i];
        size_t n;
        const uint8_t *p = is_late(u, FUNCTION_ATTRIBUTE_PROTO) ? payload(u, &n) : NULL;
        ProtobufCMessage *a;
        if (!p) continue;
        TRY(wire_read(&a, il->im->tmp, &onnx__attribute_proto__descriptor,
                      (Bytes){arena_memdup(il->im->g->arena, p, n), n}, il->im->d));
        f->defaults[f->ndefaults++] = (Onnx__AttributeProto *)a;
    }
    return 0;
}

/* ---- which functions are known ------------------------------------------------------ */

static const char *default_domain(const char *domain)
{
    return !domain || strcmp(domain, "ai.onnx") == 0 ? "" : domain;
}

static const char *key(Inline *il, const char *domain, const char *name, const char *overload)
{
    domain = default_domain(domain);
    return arena_printf(il->im->tmp, "%zu:%zu:%s%s%s", strlen(domain), strlen(name), domain, name,
                        overload);
}

/* What a node calls, or NULL. Operators of the standard cannot be redefined. */
static Function *callee(Inline *il, const Onnx__NodeProto *n, int64_t opset)
{
    if (!n->op_type || !*n->op_type) return NULL;
    if (!*default_domain(n->domain) && standard_op(n->op_type, opset) != OP_Opaque) return NULL;
    return names_get(il->functions,
                     key(il, n->domain, n->op_type, late_string(il, &n->base, NODE_OVERLOAD)));
}

static bool has_body(const Onnx__NodeProto *n)
{
    for (size_t i = 0; i < n->n_attribute; i++) {
        const Onnx__AttributeProto *a = n->attribute[i];
        if (a->g || a->n_graphs || a->type == ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH ||
            a->type == ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPHS)
            return true;
    }
    return false;
}

/* Every name of a function is made once, and what is read is made. */
static bool names_hold(Inline *il, const Onnx__FunctionProto *p)
{
    Names *made = names_new(il->im->tmp);
    for (size_t i = 0; i < p->n_input; i++) {
        if (!*p->input[i] || names_get(made, p->input[i])) return false;
        names_put(made, p->input[i], il);
    }
    for (size_t k = 0; k < p->n_node; k++)
        for (size_t o = 0; o < p->node[k]->n_output; o++) {
            const char *name = p->node[k]->output[o];
            if (*name && names_get(made, name)) return false;
            if (*name) names_put(made, name, il);
        }
    for (size_t k = 0; k < p->n_node; k++)
        for (size_t i = 0; i < p->node[k]->n_input; i++)
            if (*p->node[k]->input[i] && !names_get(made, p->node[k]->input[i])) return false;
    for (size_t o = 0; o < p->n_output; o++)
        if (!names_get(made, p->output[o])) return false;
    return true;
}

static const char *call_name(const Onnx__NodeProto *n)
{
    return n->name && *n->name ? n->name : n->op_type;
}

/* So that products do not overflow. */
static int64_t capped(int64_t n) { return n < INT32_MAX ? n : INT32_MAX; }

/* Bytes that the names take which a call makes: they begin with its own. */
static int64_t longer_names(const Function *f, const Onnx__NodeProto *call)
{
    return f->names * capped((int64_t)strlen(call_name(call)) + 1);
}

static bool known(Inline *il, Function *f, int depth);

static bool fits(Inline *il, const Onnx__NodeProto *n, Function *to, int depth)
{
    return n->n_input <= to->p->n_input && n->n_output <= to->p->n_output && !has_body(n) &&
           known(il, to, depth);
}

/* Whether node n of function f can be inlined; adds what it costs. */
static bool known_node(Inline *il, Function *f, const Onnx__NodeProto *n, int depth)
{
    Function *to = callee(il, n, f->opset);
    if (to) {
        if (!fits(il, n, to, depth + 1)) return false;
        f->nodes = capped(f->nodes + to->nodes);
        f->names = capped(f->names + to->names);
        f->bytes = capped(f->bytes + to->bytes + longer_names(to, n));
        return true;
    }
    bool standard = n->op_type && !*default_domain(n->domain) && f->opset;
    if (!standard || has_body(n)) return false;
    if (strcmp(n->op_type, "Constant") != 0 && standard_op(n->op_type, f->opset) == OP_Opaque &&
        !is_expanded(n->op_type))
        return false;
    f->nodes = capped(f->nodes + 1);
    f->names = capped(f->names + 1 + (int64_t)n->n_output);
    f->bytes = capped(f->bytes + (int64_t)protobuf_c_message_get_packed_size(&n->base));
    return true;
}

static bool known(Inline *il, Function *f, int depth)
{
    if (f->state != FRESH) return f->state == KNOWN;
    f->state = OPEN;                    /* met again: it calls itself */
    f->nodes = (int64_t)f->p->n_output; /* it may take as many copies */
    bool good = depth < MAX_DEPTH && names_hold(il, f->p) &&
                (!f->opset || (f->opset >= OLDEST_OPSET && f->opset <= NEWEST_OPSET));
    for (size_t k = 0; k < f->p->n_node && good; k++)
        good = known_node(il, f, f->p->node[k], depth);
    f->state = good ? KNOWN : UNKNOWN;
    return good;
}

/* ---- copies ------------------------------------------------------------------------- */

static const char *unique(Inline *il, NameTable *taken, const char *name)
{
    NameEntry *e = table_find(taken, name, false);
    const char *other = name;
    while (e && table_find(taken, other, false))
        other = arena_printf(il->im->tmp, "%s_%d", name, ++e->index);
    table_find(taken, other, true);
    return other;
}

static void push(Inline *il, Onnx__NodeProto *n, int64_t opset, const Function *from)
{
    if (il->n == il->cap) {
        size_t cap = il->cap ? 2 * il->cap : 64;
        Onnx__NodeProto **out = NEW_ARRAY(il->im->tmp, Onnx__NodeProto *, cap);
        Origin *origin = NEW_ARRAY(il->im->tmp, Origin, cap);
        if (il->n) memcpy(out, il->out, il->n * sizeof *out);
        if (il->n) memcpy(origin, il->origin, il->n * sizeof *origin);
        il->out = out;
        il->origin = origin;
        il->cap = cap;
    }
    il->out[il->n] = n;
    il->origin[il->n++] = (Origin){opset, from ? (int)(from - il->list) : -1};
}

/* The generated code has no const; nothing writes there. */
static char *literal(const char *s) { return (char *)(uintptr_t)s; }

/* Outer names of the inputs and outputs of a function. An output that is also an input, or stands
 * twice, is a copy. */
static void bind(Inline *il, Names *outer, const Onnx__NodeProto *call, const Function *f)
{
    const Onnx__FunctionProto *p = f->p;
    for (size_t i = 0; i < p->n_input; i++)
        names_put(outer, p->input[i], i < call->n_input ? call->input[i] : literal(""));
    for (size_t o = 0; o < call->n_output; o++) {
        char *was = names_get(outer, p->output[o]), *to = call->output[o];
        if (!*to) continue;
        if (!was) {
            names_put(outer, p->output[o], to);
            continue;
        }
        Onnx__NodeProto *copy = NEW(il->im->tmp, Onnx__NodeProto);
        onnx__node_proto__init(copy);
        copy->op_type = literal("Identity");
        copy->n_input = copy->n_output = 1;
        copy->input = arena_memdup(il->im->tmp, &was, sizeof was);
        copy->output = arena_memdup(il->im->tmp, &to, sizeof to);
        push(il, copy, il->im->opset ? il->im->opset : f->opset, f);
    }
}

static char **renamed(Inline *il, Names *outer, char *const *names, size_t n)
{
    char **to = NEW_ARRAY(il->im->tmp, char *, n);
    for (size_t i = 0; i < n; i++) to[i] = *names[i] ? names_get(outer, names[i]) : names[i];
    return to;
}

static const Onnx__AttributeProto *find_attr(Onnx__AttributeProto *const *list, size_t n,
                                             const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (list[i]->name && strcmp(list[i]->name, name) == 0) return list[i];
    return NULL;
}

/* The attributes of `copy`, which are those of the function, as this call gives them. */
static void resolve(Inline *il, Onnx__NodeProto *copy, const Onnx__NodeProto *call,
                    const Function *f)
{
    Onnx__AttributeProto **was = copy->attribute;
    size_t n = copy->n_attribute;
    copy->n_attribute = 0;
    copy->attribute = NEW_ARRAY(il->im->tmp, Onnx__AttributeProto *, n);
    for (size_t i = 0; i < n; i++) {
        const char *name = was[i]->ref_attr_name;
        Onnx__AttributeProto *a = was[i];
        if (name && *name) {
            const Onnx__AttributeProto *given = find_attr(call->attribute, call->n_attribute, name);
            if (!given) given = find_attr(f->defaults, f->ndefaults, name);
            if (!given) continue;
            a = arena_memdup(il->im->tmp, given, sizeof *given);
            a->name = was[i]->name;
        }
        copy->attribute[copy->n_attribute++] = a;
    }
}

/* Of an entry of metadata_props; NULL: it has none, or is damaged. */
static const char *metadata_key(Inline *il, const ProtobufCMessageUnknownField *u)
{
    Diag quiet = {0};
    ProtobufCMessage *m;
    size_t n;
    const uint8_t *p = is_late(u, NODE_METADATA) ? payload(u, &n) : NULL;
    const ProtobufCMessageDescriptor *desc = &onnx__string_string_entry_proto__descriptor;
    if (!p || wire_read(&m, il->im->tmp, desc, (Bytes){p, n}, &quiet) < 0) return NULL;
    return ((Onnx__StringStringEntryProto *)m)->key;
}

/* Metadata of the call under keys that the node has not. */
static void add_metadata(Inline *il, Onnx__NodeProto *copy, const Onnx__NodeProto *call)
{
    const ProtobufCMessage *from = &call->base;
    ProtobufCMessage *to = &copy->base;
    unsigned own = to->n_unknown_fields;
    ProtobufCMessageUnknownField *all =
        NEW_ARRAY(il->im->tmp, ProtobufCMessageUnknownField, own + from->n_unknown_fields);
    Names *keys = names_new(il->im->tmp);
    if (from->n_unknown_fields == 0) return;
    for (unsigned i = 0; i < own; i++) {
        const char *key = metadata_key(il, &to->unknown_fields[i]);
        all[i] = to->unknown_fields[i];
        if (key) names_put(keys, key, il);
    }
    to->unknown_fields = all;
    for (unsigned i = 0; i < from->n_unknown_fields; i++) {
        const char *key = metadata_key(il, &from->unknown_fields[i]);
        if (key && !names_get(keys, key)) all[to->n_unknown_fields++] = from->unknown_fields[i];
    }
}

/* The K-th node of f for this call. What it says of itself is kept; where it says nothing, what the
 * call says holds. */
static Onnx__NodeProto *copy_node(Inline *il, const Function *f, size_t k, Names *outer,
                                  const char *prefix, const Onnx__NodeProto *call)
{
    const Onnx__NodeProto *n = f->p->node[k];
    Onnx__NodeProto *copy = arena_memdup(il->im->tmp, n, sizeof *n);
    copy->name = arena_printf(il->im->tmp, "%s/%s", prefix, call_name(n));
    if (!n->doc_string || !*n->doc_string) copy->doc_string = call->doc_string;
    add_metadata(il, copy, call);
    copy->input = renamed(il, outer, n->input, n->n_input);
    copy->output = renamed(il, outer, n->output, n->n_output);
    resolve(il, copy, call, f);
    return copy;
}

static void expand(Inline *il, const Onnx__NodeProto *call, Function *f)
{
    f->gone = true;
    Names *outer = names_new(il->im->tmp);
    const char *prefix = unique(il, il->calls, call_name(call));
    bind(il, outer, call, f);
    for (size_t k = 0; k < f->p->n_node; k++)
        for (size_t o = 0; o < f->p->node[k]->n_output; o++) {
            const char *name = f->p->node[k]->output[o];
            if (!*name || names_get(outer, name)) continue;
            const char *inner = arena_printf(il->im->tmp, "%s/%s", prefix, name);
            names_put(outer, name, literal(unique(il, il->taken, inner)));
        }
    for (size_t k = 0; k < f->p->n_node; k++) {
        Onnx__NodeProto *copy = copy_node(il, f, k, outer, prefix, call);
        Function *inner = callee(il, copy, f->opset);
        if (inner)
            expand(il, copy, inner);
        else
            push(il, copy, f->opset, f);
    }
}

/* ---- the model ---------------------------------------------------------------------- */

static int take_outputs(void *ctx, ProtobufCMessage *m)
{
    const Onnx__NodeProto *n = (const Onnx__NodeProto *)m;
    for (size_t o = 0; o < n->n_output; o++) table_find(ctx, n->output[o], true);
    return 0;
}

static int take_tensor(void *ctx, ProtobufCMessage *m)
{
    const char *name = ((const Onnx__TensorProto *)m)->name;
    if (name) table_find(ctx, name, true);
    return 0;
}

static int take_info(void *ctx, ProtobufCMessage *m)
{
    const char *name = ((const Onnx__ValueInfoProto *)m)->name;
    if (name) table_find(ctx, name, true);
    return 0;
}

static int take_names(Inline *il)
{
    ProtobufCMessage *g = &il->m->graph->base;
    il->taken = table_new(il->im->tmp);
    il->calls = table_new(il->im->tmp);
    TRY(wire_each(g, &onnx__node_proto__descriptor, take_outputs, il->taken));
    TRY(wire_each(g, &onnx__tensor_proto__descriptor, take_tensor, il->taken));
    return wire_each(g, &onnx__value_info_proto__descriptor, take_info, il->taken);
}

static int read_functions(Inline *il)
{
    il->functions = names_new(il->im->tmp);
    il->list = NEW_ARRAY(il->im->tmp, Function, il->m->n_functions);
    for (size_t i = 0; i < il->m->n_functions; i++) {
        Function *f = &il->list[i];
        f->p = il->m->functions[i];
        for (size_t k = 0; k < f->p->n_opset_import; k++)
            if (!*default_domain(f->p->opset_import[k]->domain))
                f->opset = f->p->opset_import[k]->version;
        if (il->im->kept[i]) f->state = UNKNOWN;
        if (!f->p->name) continue;
        const char *overload = late_string(il, &f->p->base, FUNCTION_OVERLOAD);
        const char *name = key(il, f->p->domain, f->p->name, overload);
        Function *twin = names_get(il->functions, name);
        if (twin)
            twin->state = UNKNOWN; /* which of them is meant? */
        else
            names_put(il->functions, name, f);
        TRY(read_defaults(il, f));
    }
    return 0;
}

static void inline_calls(Inline *il)
{
    const Onnx__GraphProto *g = il->m->graph;
    int64_t nodes = MAX_NODES - (int64_t)g->n_node, room = MAX_BYTES;
    for (size_t k = 0; k < g->n_node; k++) {
        Onnx__NodeProto *n = g->node[k];
        Function *f = callee(il, n, il->im->opset);
        bool good = f && fits(il, n, f, 0);
        int64_t bytes = good ? f->bytes + longer_names(f, n) : 0;
        if (!good || f->nodes > nodes || bytes > room) {
            push(il, n, il->im->opset, NULL);
            continue;
        }
        nodes -= f->nodes;
        room -= bytes;
        il->im->ncalls++;
        expand(il, n, f);
    }
}

static int mark_called(void *ctx, ProtobufCMessage *m)
{
    Inline *il = ctx;
    const Onnx__NodeProto *n = (const Onnx__NodeProto *)m;
    if (!n->op_type) return 0;
    Function *f = names_get(
        il->functions, key(il, n->domain, n->op_type, late_string(il, &n->base, NODE_OVERLOAD)));
    if (!f || f->called) return 0;
    f->called = true;
    f->next = il->called;
    il->called = f;
    return 0;
}

static int mark_calls(Inline *il, ProtobufCMessage *m)
{
    return wire_each(m, &onnx__node_proto__descriptor, mark_called, il);
}

/* What nobody has called stays, with what it calls. */
static int drop_uncalled(Inline *il)
{
    size_t n = il->m->n_functions, kept = 0;
    il->m->n_functions = 0;
    TRY(mark_calls(il, &il->m->base));
    for (size_t i = 0; i < n; i++)
        if (!il->list[i].gone) TRY(mark_calls(il, &il->list[i].p->base));
    while (il->called) {
        const Function *f = il->called;
        il->called = f->next;
        TRY(mark_calls(il, &f->p->base));
    }
    for (size_t i = 0; i < n; i++)
        if (!il->list[i].gone || il->list[i].called) il->m->functions[kept++] = il->list[i].p;
    il->m->n_functions = kept;
    return 0;
}

int inline_functions(Import *im, Onnx__ModelProto *m)
{
    Inline il = {.im = im, .m = m};
    if (m->n_functions == 0) return 0;
    TRY(take_names(&il));
    TRY(read_functions(&il));
    inline_calls(&il);
    m->graph->node = il.out;
    m->graph->n_node = il.n;
    im->origin = il.origin;
    return drop_uncalled(&il);
}
