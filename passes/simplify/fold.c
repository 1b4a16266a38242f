/* Constant folding. A node whose operands are all constants is run now. A value whose elements are
 * known from shapes (Shape, Gather, Concat … of dimensions that are numbers, whatever the batch) is
 * a constant, too. Types are inferred again where a new constant may have made them more precise,
 * so a chain of shape arithmetic folds in one walk. */
#include <string.h>

#include "passes/simplify/simplify.h"

enum { LARGEST = 64 << 20, SMALL = 64 << 10 };

bool *output_flags(const Graph *g, Arena *a)
{
    bool *flags = NEW_ARRAY(a, bool, g->nvalues);
    for (int o = 0; o < g->noutputs; o++) flags[g->outputs[o]->id] = true;
    return flags;
}

void replace_by_const(Rewrite *r, Value *v, const void *data, const bool *is_output)
{
    Value *c = value_const(r->g, v->name, v->type, data);
    if (!is_output[v->id]) {
        const char *name = v->name;
        v->name = c->name;
        c->name = name;
    }
    rewrite_replace(r, v, c);
}

/* ---- types -------------------------------------------------------------------------- */

/* What is known of a dimension: 0 nothing, 1 a name, 2 a number. */
static int precision(const Graph *g, int64_t d)
{
    if (!dim_is_sym(d)) return 2;
    return g->symbols[d - DIM_SYM_BASE] != NULL;
}

static bool refine_value(Value *v, const Type *old, const int64_t *old_elems)
{
    if (v->type.dtype == DT_NONE || v->type.rank < 0) {
        v->type = *old;
        return false;
    }
    for (int i = 0; i < v->type.rank && v->type.rank == old->rank; i++) {
        int known = precision(v->graph, v->type.dim[i]);
        if (known < 2 && known <= precision(v->graph, old->dim[i])) v->type.dim[i] = old->dim[i];
    }
    if (!v->elems) v->elems = old_elems;
    return !type_equal(&v->type, old) || (v->elems && !old_elems);
}

int refine_types(Node *n, bool *changed, Diag *d)
{
    enum { MANY = 64 };
    Type old[MANY];
    const int64_t *elems[MANY];
    *changed = false;
    if (n->op == OP_Opaque || n->nout > MANY) return 0;
    for (int o = 0; o < n->nout; o++)
        if (n->out[o]) {
            old[o] = n->out[o]->type;
            elems[o] = n->out[o]->elems;
        }
    TRY(node_infer(n, d));
    for (int o = 0; o < n->nout; o++)
        if (n->out[o]) *changed |= refine_value(n->out[o], &old[o], elems[o]);
    return 0;
}

/* ---- folding ------------------------------------------------------------------------ */

/* Quantization of a weight stays visible: it is what the file, or a training pass, wants there. */
static bool may_fold(const Node *n, const bool *is_output)
{
    if (op_info[n->op].flags & OPF_KEEP || n->op == OP_QuantizeLinear ||
        n->op == OP_DequantizeLinear || n->op == OP_FakeQuant)
        return false;
    /* What stands between a constant and an output only to carry its name. */
    return n->op != OP_Identity || !is_output[n->out[0]->id];
}

/* Bytes read and written; false unless all operands are constants and all sizes known. */
static bool is_constant(const Node *n, int64_t *in, int64_t *out)
{
    *in = *out = 0;
    for (int i = 0; i < n->nin; i++) {
        if (!n->in[i]) continue;
        if (!n->in[i]->data) return false;
        *in += type_bytes(&n->in[i]->type);
    }
    for (int o = 0; o < n->nout; o++) {
        if (!n->out[o]) continue;
        int64_t bytes = type_bytes(&n->out[o]->type);
        if (bytes < 0 || !dtype_size(n->out[o]->type.dtype) || bytes > LARGEST) return false;
        *out += bytes;
    }
    return n->nout > 0;
}

/* All outputs become constants, if the node is worth running: a large Expand is cheaper to
 * carry along than its result. */
static bool fold_node(Rewrite *r, const Node *n, const bool *is_output, Arena *scratch)
{
    int64_t in, out;
    if (!may_fold(n, is_output) || !is_constant(n, &in, &out)) return false;
    if (out > LARGEST || (out > SMALL && out / 2 > in)) return false;
    const void **data = NEW_ARRAY(scratch, const void *, n->nout);
    if (evaluate_const(r->g, n, data) < 0) return false;
    for (int o = 0; o < n->nout; o++)
        if (n->out[o]) replace_by_const(r, n->out[o], data[o], is_output);
    return true;
}

/* The elements of a value of a known shape computation, in its own type; NULL if symbolic. */
static const void *known_elements(const Value *v)
{
    int64_t n = type_count(&v->type);
    size_t size = dtype_size(v->type.dtype);
    if (!v->def || !v->elems || n < 0) return NULL;
    char *data = arena_array(v->graph->arena, (size_t)n, size);
    for (int64_t i = 0; i < n; i++) {
        if (dim_is_sym(v->elems[i])) return NULL;
        memcpy(data + (size_t)i * size, &v->elems[i], size); /* little-endian */
    }
    return data;
}

/* A node with one output whose elements are known. */
static bool fold_known(Rewrite *r, const Node *n, const bool *is_output)
{
    if (n->nout != 1 || !n->out[0] || !may_fold(n, is_output)) return false;
    const void *data = known_elements(n->out[0]);
    if (data) replace_by_const(r, n->out[0], data, is_output);
    return data != NULL;
}

typedef struct Folder {
    Rewrite r;
    const bool *is_output;
    bool *fresh; /* by value id: more is known of it than before */
    Arena *scratch;
    Diag *diag;
} Folder;

/* Takes over what is new about the operands. */
static int update_node(Folder *f, Node *n)
{
    bool look = false, changed = false;
    for (int k = 0; k < n->nin; k++) {
        const Value *v = n->in[k];
        look |= v && v->id < f->r.cap && (f->fresh[v->id] || f->r.to[v->id]);
    }
    rewrite_map_inputs(&f->r, n);
    if (look) TRY(refine_types(n, &changed, f->diag));
    for (int o = 0; changed && o < n->nout; o++)
        if (n->out[o]) f->fresh[n->out[o]->id] = true;
    return 0;
}

static int fold_all(Folder *f)
{
    for (int i = 0; i < f->r.nold; i++) {
        Node *n = f->r.old[i];
        TRY(update_node(f, n));
        if (!fold_known(&f->r, n, f->is_output) && !fold_node(&f->r, n, f->is_output, f->scratch))
            node_append(f->r.g, n);
    }
    return 0;
}

int simplify_fold(Graph *g, Arena *scratch, Diag *d)
{
    Folder f = {.scratch = scratch, .diag = d};
    f.is_output = output_flags(g, scratch);
    f.fresh = NEW_ARRAY(scratch, bool, g->nvalues);
    f.r = rewrite_begin(g);
    TRY(fold_all(&f));
    rewrite_end(&f.r);
    return 0;
}

Graph *simplify_specialize(const Graph *g, Arena *a, const int64_t *dims, Value ***map, Diag *d)
{
    Graph *bound = graph_specialize_mapped(g, a, dims, map, d);
    return bound && simplify_fold(bound, a, d) == 0 ? bound : NULL;
}

int pass_fold(Context *c, const char *opt)
{
    (void)opt;
    Arena *scratch = arena_new();
    int status = simplify_fold(c->graph, scratch, c->diag);
    arena_free(scratch);
    return status;
}
