/* FP16 and BF16 to float and back: see halves.h. Nodes keep their names and so do values, by which
 * the way back knows them; conversions between the types become Casts of float to float, which
 * canonicalize drops. */
#include "passes/halves.h"

#include <string.h>

#include "ir/names.h"
#include "ir/op.h"
#include "runtime/runtime.h"

struct Halves {
    Names *type; /* the DType of each, by name */
};

static bool is_half(DType t) { return t == DT_F16 || t == DT_BF16; }

static DType half_named(const Halves *h, const Value *v)
{
    return v ? (DType)(uintptr_t)names_get(h->type, v->name) : DT_NONE;
}

/* n elements of type `from` as `to`, one of them DT_F32. */
static const void *converted(Arena *a, const void *p, int64_t n, DType from, DType to)
{
    void *out = arena_array(a, (size_t)n, dtype_size(to));
    const float *x = p;
    const uint16_t *half = p;
    for (int64_t i = 0; i < n; i++) {
        if (from == DT_F16) ((float *)out)[i] = f16_to_f32(half[i]);
        if (from == DT_BF16) ((float *)out)[i] = bf16_to_f32(half[i]);
        if (to == DT_F16) ((uint16_t *)out)[i] = f32_to_f16(x[i]);
        if (to == DT_BF16) ((uint16_t *)out)[i] = f32_to_bf16(x[i]);
    }
    return out;
}

static void retype(Graph *g, Value *v, DType to)
{
    if (v->data) v->data = converted(g->arena, v->data, type_count(&v->type), v->type.dtype, to);
    v->type.dtype = to;
    v->declared = (Bytes){0};
}

/* ---- to float ------------------------------------------------------------------------ */

static bool names_type(const Attr *a)
{
    static const char *const names[] = {"to", "dtype", "output_dtype", "output_datatype"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (a->kind == ATTR_INT && strcmp(a->name, names[i]) == 0) return true;
    return false;
}

/* Attributes that name a type, or hold a tensor. */
static void widen_attrs(Graph *g, Node *n)
{
    for (int k = 0; k < n->nattrs; k++) {
        Attr *a = &n->attrs[k];
        if (a->kind == ATTR_TENSOR && is_half(a->type.dtype)) {
            const int64_t count = type_count(&a->type);
            a->s = (Bytes){converted(g->arena, a->s.p, count, a->type.dtype, DT_F32),
                           (size_t)count * sizeof(float)};
            a->type.dtype = DT_F32;
        }
        if (names_type(a) && is_half((DType)a->i)) a->i = DT_F32;
    }
}

static void widen_value(Halves *h, Graph *g, Value *v)
{
    if (!v || !is_half(v->type.dtype)) return;
    names_put(h->type, v->name, (void *)(uintptr_t)v->type.dtype);
    retype(g, v, DT_F32);
}

static Value *cast(Graph *g, Value *v, DType to)
{
    return build(g, OP_Cast, IN(v), ATTRS(attr_int("to", to)));
}

/* What an opaque node reads and makes is as it was, behind and in front of Casts. */
static void fence(Rewrite *r, const Halves *h, Node *n)
{
    for (int i = 0; i < n->nin; i++) {
        Value *v = n->in[i];
        if (!v || is_half(v->type.dtype)) continue; /* of another one */
        const DType was = half_named(h, v);
        v = rewrite_value(r, v);
        n->in[i] = was ? cast(r->g, v, was) : v;
    }
    node_append(r->g, n);
    for (int o = 0; o < n->nout; o++) {
        Value *v = n->out[o];
        if (!v || !is_half(v->type.dtype)) continue;
        rewrite_replace(r, v, cast(r->g, v, DT_F32));
    }
}

static void widen_all(Halves *h, Graph *g)
{
    for (int i = 0; i < g->ninputs; i++) widen_value(h, g, g->inputs[i]);
    for (int k = 0; k < g->nnodes; k++) {
        Node *n = g->nodes[k];
        for (int i = 0; i < n->nin; i++)
            if (n->in[i] && (!n->in[i]->def || n->in[i]->def->op != OP_Opaque))
                widen_value(h, g, n->in[i]);
        if (n->op == OP_Opaque) continue;
        widen_attrs(g, n);
        for (int o = 0; o < n->nout; o++) widen_value(h, g, n->out[o]);
    }
    for (int o = 0; o < g->noutputs; o++) {
        Value *v = g->outputs[o];
        if (is_half(v->type.dtype) && !half_named(h, v)) /* its Cast will have the name */
            names_put(h->type, v->name, (void *)(uintptr_t)v->type.dtype);
    }
}

/* An input or constant that is an output, too, has one type only: then all stays as it is. */
static bool has_halves(const Graph *g)
{
    for (int o = 0; o < g->noutputs; o++)
        if (!g->outputs[o]->def && is_half(g->outputs[o]->type.dtype)) return false;
    for (int i = 0; i < g->ninputs; i++)
        if (is_half(g->inputs[i]->type.dtype)) return true;
    for (int k = 0; k < g->nnodes; k++) {
        const Node *n = g->nodes[k];
        for (int i = 0; i < n->nin; i++)
            if (n->in[i] && is_half(n->in[i]->type.dtype)) return true;
        for (int o = 0; o < n->nout; o++)
            if (n->out[o] && is_half(n->out[o]->type.dtype)) return true;
    }
    return false;
}

int halves_widen(Halves **out, Graph *g, Arena *a, Diag *d)
{
    *out = NULL;
    if (!has_halves(g)) return 0;
    Halves *h = *out = NEW(a, Halves);
    h->type = names_new(a);
    widen_all(h, g);
    Rewrite r = rewrite_begin(g);
    for (int k = 0; k < r.nold; k++) {
        Node *n = r.old[k];
        if (n->op == OP_Opaque) {
            fence(&r, h, n);
            continue;
        }
        rewrite_map_inputs(&r, n);
        node_append(g, n);
    }
    rewrite_end(&r);
    return graph_infer(g, d);
}

/* ---- and back ------------------------------------------------------------------------ */

/* Inputs that are float whatever the data is. */
static bool always_float(const Node *n, int i) { return n->op == OP_Resize && i > 0; }

/* The type in which n computes: that which its result had; for a result of no float, that of what
 * it reads. */
static DType type_of_node(const Halves *h, const Node *n)
{
    const Value *y = n->out[0];
    if (n->op == OP_Opaque || !y) return DT_NONE;
    for (int k = 0; k < n->nattrs; k++)
        if (names_type(&n->attrs[k]) || n->attrs[k].kind == ATTR_TENSOR) return DT_NONE;
    if (y->type.dtype == DT_F32) return half_named(h, y);
    for (int i = 0; i < n->nin; i++)
        if (n->in[i] && !n->in[i]->data && is_half(n->in[i]->type.dtype))
            return n->in[i]->type.dtype;
    return DT_NONE;
}

/* v as a value of type `to`. */
static Value *as_type(Graph *g, Value *v, DType to)
{
    if (v->type.dtype == to || !(v->type.dtype == DT_F32 || is_half(v->type.dtype))) return v;
    if (!v->data) return cast(g, v, to);
    Type t = v->type;
    t.dtype = to;
    Value *w = value_const(g, v->name, t,
                           converted(g->arena, v->data, type_count(&v->type), v->type.dtype, to));
    w->doc = v->doc;
    const char *name = w->name; /* what is in the file's type has the file's name */
    w->name = v->name;
    v->name = name;
    return w;
}

/* Whether n takes input i in whatever type it comes: opaque nodes have Casts in front of what they
 * want in half. */
static bool takes_any(const Node *n, int i)
{
    const Value *v = n->in[i];
    const bool fenced = v && (v->data || (v->def && v->def->op == OP_Cast));
    return !v || n->op == OP_Cast || (n->op == OP_Opaque && fenced);
}

static void narrow_node(Rewrite *r, const Halves *h, Node *n)
{
    const DType type = type_of_node(h, n);
    Graph *g = r->g;
    for (int i = 0; i < n->nin; i++) {
        if (takes_any(n, i)) continue;
        Value *x = n->in[i], *y = as_type(g, x, type && !always_float(n, i) ? type : DT_F32);
        if (x->data && x != y) rewrite_replace(r, x, y);
        n->in[i] = y;
    }
    if (type)
        for (int o = 0; o < n->nout; o++)
            if (n->out[o] && n->out[o]->type.dtype == DT_F32) retype(g, n->out[o], type);
    node_append(g, n);
}

/* The inputs have their types again; inside they are what `Cast` makes of them, unless all is. */
static void narrow_inputs(Rewrite *r, const Halves *h, bool inside)
{
    Graph *g = r->g;
    for (int i = 0; i < g->ninputs; i++) {
        Value *v = g->inputs[i];
        const DType was = half_named(h, v);
        if (!was) continue;
        retype(g, v, was);
        if (!inside) rewrite_replace(r, v, cast(g, v, DT_F32));
    }
}

static void narrow_outputs(Graph *g, const Halves *h)
{
    for (int o = 0; o < g->noutputs; o++) {
        Value *v = g->outputs[o];
        const DType was = half_named(h, v);
        if (!was || v->type.dtype == was) continue;
        Value *w = cast(g, v, was);
        const char *name = w->name;
        w->name = v->name;
        v->name = name;
        w->doc = v->doc;
        w->extra = v->extra;
        g->outputs[o] = w;
    }
}

int halves_narrow(Graph *g, const Halves *h, bool inside, Diag *d)
{
    Rewrite r = rewrite_begin(g);
    narrow_inputs(&r, h, inside);
    for (int k = 0; k < r.nold; k++) {
        Node *n = r.old[k];
        rewrite_map_inputs(&r, n);
        if (inside)
            narrow_node(&r, h, n);
        else
            node_append(g, n);
    }
    rewrite_end(&r);
    narrow_outputs(g, h);
    return graph_infer(g, d);
}
