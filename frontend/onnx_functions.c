/* Local functions: a call of one whose operators are all known becomes its nodes, before the graph
 * is imported. What they make is named after the call. Functions that call others count as known
 * if those are; what is known is decided once per function. The rest stays a call. */
#include "frontend/onnx_functions.h"

#include <string.h>

#include "frontend/wire.h"
#include "ir/names.h"

enum { MOST_NODES = 1 << 16, MOST_DEPTH = 64 }; /* that one call may become; of calls in calls */
enum { ATTRIBUTE_DEFAULTS = 11, OVERLOAD_OF_FUNCTION = 13, OVERLOAD_OF_NODE = 8 };

typedef enum State { UNSEEN, OPEN, KNOWN, UNKNOWN } State;

typedef struct Functions {
    Import *im;
    Onnx__ModelProto *m;
    int depth;
    State *state;
    int64_t *size;       /* nodes in the end, of those that are known */
    bool *used, *called; /* expanded somewhere; still called somewhere */
    Names *taken, *by_name;
    int *queue, queued; /* called functions whose own calls are to be looked at */
    Onnx__NodeProto **out;
    size_t nout, cap;
} Functions;

/* ---- which can be ------------------------------------------------------------------- */

static bool has_unknown_field(const ProtobufCMessage *m, uint32_t tag)
{
    for (unsigned k = 0; k < m->n_unknown_fields; k++)
        if (m->unknown_fields[k].tag == tag) return true;
    return false;
}

static bool is_default(const char *domain)
{
    return !domain || !*domain || strcmp(domain, "ai.onnx") == 0;
}

static bool same(const char *a, const char *b) { return strcmp(a ? a : "", b ? b : "") == 0; }

static char *key_of(Functions *f, const char *domain, const char *name)
{
    return arena_printf(f->im->tmp, "%s:%s", domain ? domain : "", name ? name : "");
}

static void index_functions(Functions *f)
{
    for (size_t k = 0; k < f->m->n_functions; k++) {
        const Onnx__FunctionProto *p = f->m->functions[k];
        const char *key = key_of(f, p->domain, p->name);
        if (names_get(f->by_name, key))
            f->state[k] = UNKNOWN; /* one of several of that name */
        else
            names_put(f->by_name, key, &f->state[k]);
    }
    for (size_t k = 0; k < f->m->n_functions; k++) {
        const Onnx__FunctionProto *p = f->m->functions[k];
        State *first = names_get(f->by_name, key_of(f, p->domain, p->name));
        if (first != &f->state[k]) *first = UNKNOWN;
    }
}

/* The function that n calls; -1: none. */
static int callee(Functions *f, const Onnx__NodeProto *n)
{
    if (is_default(n->domain)) return -1;
    const State *s = names_get(f->by_name, key_of(f, n->domain, n->op_type));
    return s ? (int)(s - f->state) : -1;
}

static bool has_bodies(const Onnx__NodeProto *n)
{
    for (size_t k = 0; k < n->n_attribute; k++)
        if (n->attribute[k]->g || n->attribute[k]->n_graphs) return true;
    return false;
}

/* Operators mean what they mean in the model. */
static bool same_opset(const Functions *f, const Onnx__FunctionProto *p)
{
    for (size_t k = 0; k < p->n_opset_import; k++)
        if (is_default(p->opset_import[k]->domain) && p->opset_import[k]->version != f->im->opset)
            return false;
    return true;
}

static bool is_known(Functions *f, int k);

static bool node_is_known(Functions *f, const Onnx__NodeProto *n, int64_t *size)
{
    const int called = callee(f, n);
    if (has_bodies(n) || has_unknown_field(&n->base, OVERLOAD_OF_NODE)) return false;
    if (called < 0) {
        *size += 1;
        return is_default(n->domain) && import_knows(f->im, n->op_type);
    }
    if (!is_known(f, called)) return false;
    *size += f->size[called];
    return *size <= MOST_NODES;
}

/* Whether a node makes it: what is passed through would need a node of its own. */
static bool is_made(const Onnx__FunctionProto *p, const char *name)
{
    for (size_t k = 0; k < p->n_node; k++)
        for (size_t o = 0; o < p->node[k]->n_output; o++)
            if (strcmp(p->node[k]->output[o], name) == 0) return true;
    return false;
}

static bool form_is_known(const Functions *f, const Onnx__FunctionProto *p)
{
    bool known = same_opset(f, p) && !has_unknown_field(&p->base, ATTRIBUTE_DEFAULTS) &&
                 !has_unknown_field(&p->base, OVERLOAD_OF_FUNCTION);
    for (size_t o = 0; known && o < p->n_output; o++) known = is_made(p, p->output[o]);
    return known;
}

/* A function that calls itself is none. */
static bool is_known(Functions *f, int k)
{
    const Onnx__FunctionProto *p = f->m->functions[k];
    if (f->state[k] != UNSEEN || f->depth == MOST_DEPTH) return f->state[k] == KNOWN;
    f->state[k] = OPEN;
    f->depth++;
    bool known = form_is_known(f, p);
    for (size_t i = 0; known && i < p->n_node; i++)
        known = node_is_known(f, p->node[i], &f->size[k]);
    f->depth--;
    f->state[k] = known ? KNOWN : UNKNOWN;
    return known;
}

/* ---- names -------------------------------------------------------------------------- */

static void take(Functions *f, const char *name)
{
    if (name && *name && !names_get(f->taken, name)) names_put(f->taken, name, f);
}

static void take_all(Functions *f)
{
    const Onnx__GraphProto *g = f->m->graph;
    for (size_t k = 0; k < g->n_input; k++) take(f, g->input[k]->name);
    for (size_t k = 0; k < g->n_initializer; k++) take(f, g->initializer[k]->name);
    for (size_t k = 0; k < g->n_sparse_initializer; k++)
        if (g->sparse_initializer[k]->values) take(f, g->sparse_initializer[k]->values->name);
    for (size_t k = 0; k < g->n_node; k++)
        for (size_t o = 0; o < g->node[k]->n_output; o++) take(f, g->node[k]->output[o]);
}

static char *fresh(Functions *f, const char *call, const char *name)
{
    char *full = arena_printf(f->im->tmp, "%s/%s", call, name);
    for (int k = 1; names_get(f->taken, full); k++)
        full = arena_printf(f->im->tmp, "%s/%s_%d", call, name, k);
    take(f, full);
    return full;
}

/* ---- calls -------------------------------------------------------------------------- */

/* What stands for a name of the function's in the graph; formal parameters stand for the call's. */
typedef struct Scope {
    Functions *f;
    const char *call; /* prefix of what is new */
    Names *map;
} Scope;

static char *translated(Scope *s, const char *name)
{
    if (!*name) return arena_strdup(s->f->im->tmp, "");
    char *to = names_get(s->map, name);
    if (!to) names_put(s->map, name, to = fresh(s->f, s->call, name));
    return to;
}

static char **translate_all(Scope *s, char **name, size_t n)
{
    char **to = NEW_ARRAY(s->f->im->tmp, char *, n);
    for (size_t k = 0; k < n; k++) to[k] = translated(s, name[k]);
    return to;
}

/* Parameters are what the call gives; an input that it omits is omitted inside, an output that it
 * does not want is one like any other. */
static void bind(Scope *s, char **formal, size_t n, char **actual, size_t given, bool inputs)
{
    for (size_t k = 0; k < n; k++) {
        bool has = k < given && *actual[k];
        if (*formal[k] && (has || inputs) && !names_get(s->map, formal[k]))
            names_put(s->map, formal[k], has ? actual[k] : arena_strdup(s->f->im->tmp, ""));
    }
}

/* Attributes that refer to one of the call's take its value, and are left out where it has none. */
static void bind_attributes(Functions *f, Onnx__NodeProto *n, const Onnx__NodeProto *call)
{
    Onnx__AttributeProto **from = n->attribute;
    const size_t count = n->n_attribute;
    n->attribute = NEW_ARRAY(f->im->tmp, Onnx__AttributeProto *, count);
    n->n_attribute = 0;
    for (size_t k = 0; k < count; k++) {
        if (!from[k]->ref_attr_name || !*from[k]->ref_attr_name) {
            n->attribute[n->n_attribute++] = from[k];
            continue;
        }
        for (size_t i = 0; i < call->n_attribute; i++) {
            if (!same(call->attribute[i]->name, from[k]->ref_attr_name)) continue;
            Onnx__AttributeProto *a =
                arena_memdup(f->im->tmp, call->attribute[i], sizeof *call->attribute[i]);
            a->name = from[k]->name;
            n->attribute[n->n_attribute++] = a;
            break;
        }
    }
}

static void push(Functions *f, Onnx__NodeProto *n)
{
    if (f->nout == f->cap) {
        f->cap = 2 * f->cap + 64;
        Onnx__NodeProto **more = NEW_ARRAY(f->im->tmp, Onnx__NodeProto *, f->cap);
        if (f->nout) memcpy(more, f->out, f->nout * sizeof *more);
        f->out = more;
    }
    f->out[f->nout++] = n;
}

static bool expands(Functions *f, int k)
{
    return k >= 0 && is_known(f, k) && f->nout + (size_t)f->size[k] <= MAX_NODES;
}

/* The node, or those that its call means. */
static void expand(Functions *f, Onnx__NodeProto *call)
{
    const int k = has_unknown_field(&call->base, OVERLOAD_OF_NODE) ? -1 : callee(f, call);
    if (!expands(f, k)) {
        push(f, call);
        return;
    }
    const Onnx__FunctionProto *p = f->m->functions[k];
    const char *name = call->name && *call->name ? call->name : p->name;
    Scope s = {f, name, names_new(f->im->tmp)};
    f->used[k] = true;
    bind(&s, p->input, p->n_input, call->input, call->n_input, true);
    bind(&s, p->output, p->n_output, call->output, call->n_output, false);
    for (size_t i = 0; i < p->n_node; i++) {
        Onnx__NodeProto *n = arena_memdup(f->im->tmp, p->node[i], sizeof *n);
        const char *own = n->name && *n->name ? n->name : n->op_type;
        n->name = arena_printf(f->im->tmp, "%s/%s", name, own);
        n->input = translate_all(&s, n->input, n->n_input);
        n->output = translate_all(&s, n->output, n->n_output);
        bind_attributes(f, n, call);
        expand(f, n);
    }
}

/* ---- what is left ------------------------------------------------------------------- */

static int mark_called(void *ctx, ProtobufCMessage *node)
{
    Functions *f = ctx;
    const int k = callee(f, (const Onnx__NodeProto *)node);
    if (k < 0 || f->called[k]) return 0;
    f->called[k] = true;
    f->queue[f->queued++] = k;
    return 0;
}

static int mark_calls(Functions *f, ProtobufCMessage *m)
{
    return wire_each(m, &onnx__node_proto__descriptor, mark_called, f);
}

/* Functions all of whose calls have gone go. */
static int drop_uncalled(Functions *f)
{
    size_t n = 0;
    TRY(mark_calls(f, &f->m->graph->base));
    for (size_t k = 0; k < f->m->n_functions; k++)
        if (!f->used[k]) TRY(mark_calls(f, &f->m->functions[k]->base));
    for (int i = 0; i < f->queued; i++) TRY(mark_calls(f, &f->m->functions[f->queue[i]]->base));
    for (size_t k = 0; k < f->m->n_functions; k++)
        if (!f->used[k] || f->called[k]) f->m->functions[n++] = f->m->functions[k];
    f->m->n_functions = n;
    return 0;
}

int inline_functions(Import *im, Onnx__ModelProto *m)
{
    const size_t n = m->n_functions;
    Onnx__GraphProto *g = m->graph;
    if (n == 0 || !im->opset) return 0;
    Functions f = {.im = im, .m = m, .taken = names_new(im->tmp), .by_name = names_new(im->tmp)};
    f.state = NEW_ARRAY(im->tmp, State, n);
    f.size = NEW_ARRAY(im->tmp, int64_t, n);
    f.used = NEW_ARRAY(im->tmp, bool, n);
    f.called = NEW_ARRAY(im->tmp, bool, n);
    f.queue = NEW_ARRAY(im->tmp, int, n);
    index_functions(&f);
    take_all(&f);
    for (size_t k = 0; k < g->n_node; k++) expand(&f, g->node[k]);
    g->node = f.out;
    g->n_node = f.nout;
    return drop_uncalled(&f);
}
