/* Running graphs whose shapes depend on data, piece by piece.
 *
 * Each round takes all nodes whose operands are there and whose shapes are fixed as one piece, and
 * runs it as a Program. When no node is left whose shapes are fixed, inference is shown the data
 * computed so far, and knows more. So a graph of fixed shapes is one piece, and its data does not
 * matter. Programs are kept: a piece of the same nodes, types and known numbers is planned once. */
#include <string.h>

#include "ir/op.h"
#include "runtime/program.h"

enum { MAX_PIECES = 64, SMALL = 64 /* elements of what may become a constant */ };

/* What tells pieces apart: nodes, types, known numbers. */
typedef struct Key {
    int64_t *word;
    size_t n, cap;
    Arena *arena;
} Key;

typedef struct Piece {
    Arena *arena; /* of all below */
    Key key;
    Program *program;
    Instance *instance;
} Piece;

struct Inference {
    const Graph *base;
    InferenceOptions options;
    bool eager; /* some kernel wants to know numbers when it is planned */
    Piece piece[MAX_PIECES];
    int npieces, next; /* which one gives way */
    Arena *base_arena; /* holds this */
    Arena *arena;      /* of the latest run */
    Graph *g;          /* its graph */
    const void **data; /* by value id: what is computed, and the inputs */
};

/* ---- keys --------------------------------------------------------------------------- */

static void key_add(Key *k, int64_t word)
{
    if (k->n == k->cap) {
        k->cap = k->cap ? 2 * k->cap : 256;
        int64_t *grown = NEW_ARRAY(k->arena, int64_t, k->cap);
        if (k->n) memcpy(grown, k->word, k->n * sizeof *grown);
        k->word = grown;
    }
    k->word[k->n++] = word;
}

static void key_add_type(Key *k, const Value *v)
{
    key_add(k, v ? (int64_t)v->type.dtype : -1);
    if (!v) return;
    key_add(k, v->type.rank);
    for (int i = 0; i < v->type.rank; i++) key_add(k, v->type.dim[i]);
    for (int64_t i = 0; v->elems && i < type_count(&v->type); i++) key_add(k, v->elems[i]);
}

static bool key_equal(const Key *a, const Key *b)
{
    return a->n == b->n && memcmp(a->word, b->word, a->n * sizeof *a->word) == 0;
}

/* ---- one round ---------------------------------------------------------------------- */

typedef struct Round {
    const Inference *r;
    Graph *g; /* values that inference has been shown have data */
    const Device *device;
    bool *needed, *done, *ready; /* by node index */
    bool *made;                  /* by value id: computed by this piece */
    Value **in, **out;           /* what the piece reads and gives */
    int nin, nout;
    Arena *arena;
} Round;

static bool is_fixed(const Value *v)
{
    return !v || (dtype_size(v->type.dtype) > 0 && type_bytes(&v->type) >= 0);
}

static bool is_there(const Round *q, const Value *v) { return v->data || q->r->data[v->id]; }

static bool is_ready(const Round *q, const Node *n)
{
    if (!q->device->kernels[n->op].run) return false;
    for (int i = 0; i < n->nin; i++)
        if (n->in[i] && !is_there(q, n->in[i]) && !q->made[n->in[i]->id]) return false;
    for (int i = 0; i < n->nin; i++)
        if (!is_fixed(n->in[i])) return false;
    for (int o = 0; o < n->nout; o++)
        if (!is_fixed(n->out[o])) return false;
    return true;
}

static int mark_ready(Round *q)
{
    int count = 0;
    memset(q->made, 0, q->g->nvalues * sizeof *q->made);
    for (int k = 0; k < q->g->nnodes; k++) {
        const Node *n = q->g->nodes[k];
        q->ready[k] = q->needed[k] && !q->done[k] && is_ready(q, n);
        count += q->ready[k];
        for (int o = 0; o < n->nout && q->ready[k]; o++)
            if (n->out[o]) q->made[n->out[o]->id] = true;
    }
    return count;
}

/* Backwards from the outputs: the nodes whose results somebody reads. */
static void mark_needed(Round *q)
{
    bool *read = NEW_ARRAY(q->arena, bool, q->g->nvalues);
    for (int o = 0; o < q->g->noutputs; o++) read[q->g->outputs[o]->id] = true;
    for (int k = q->g->nnodes - 1; k >= 0; k--) {
        const Node *n = q->g->nodes[k];
        for (int o = 0; o < n->nout; o++) q->needed[k] |= n->out[o] && read[n->out[o]->id];
        for (int i = 0; i < n->nin && q->needed[k]; i++)
            if (n->in[i]) read[n->in[i]->id] = true;
    }
}

/* Computed before (not a constant of the model), and not yet listed. */
static void list_inputs(Round *q, bool *seen)
{
    for (int k = 0; k < q->g->nnodes; k++)
        for (int i = 0; i < q->g->nodes[k]->nin && q->ready[k]; i++) {
            Value *v = q->g->nodes[k]->in[i];
            if (!v || seen[v->id] || q->made[v->id] || q->r->base->nodes[k]->in[i]->data) continue;
            seen[v->id] = true;
            q->in[q->nin++] = v;
        }
}

/* Of the values made here: those that nodes left for later, or the caller, read. */
static void list_outputs(Round *q, bool *seen)
{
    for (int k = 0; k <= q->g->nnodes; k++) {
        const bool last = k == q->g->nnodes;
        if (!last && (!q->needed[k] || q->done[k] || q->ready[k])) continue;
        Value **v = last ? q->g->outputs : q->g->nodes[k]->in;
        const int n = last ? q->g->noutputs : q->g->nodes[k]->nin;
        for (int i = 0; i < n; i++) {
            if (!v[i] || !q->made[v[i]->id] || seen[v[i]->id]) continue;
            seen[v[i]->id] = true;
            q->out[q->nout++] = v[i];
        }
    }
}

static void list_border(Round *q)
{
    bool *seen = NEW_ARRAY(q->arena, bool, q->g->nvalues);
    q->nin = q->nout = 0;
    list_inputs(q, seen);
    list_outputs(q, seen);
}

/* ---- pieces ------------------------------------------------------------------------- */

/* A small border value that inference was shown: a constant of the piece, for kernels want to know
 * axes, amounts and scales when they are planned. */
static bool is_number(const Value *v) { return v->data && type_count(&v->type) <= SMALL; }

static void key_add_data(Key *key, const Value *v)
{
    const size_t size = dtype_size(v->type.dtype);
    for (int64_t e = 0; e < type_count(&v->type); e++) {
        int64_t word = 0;
        memcpy(&word, (const char *)v->data + (size_t)e * size, size);
        key_add(key, word);
    }
}

static Key key_of(const Round *q)
{
    Key key = {.arena = q->arena};
    for (int k = 0; k < q->g->nnodes; k++) {
        const Node *n = q->g->nodes[k];
        if (!q->ready[k]) continue;
        key_add(&key, k);
        for (int i = 0; i < n->nin; i++) key_add_type(&key, n->in[i]);
        for (int o = 0; o < n->nout; o++) key_add_type(&key, n->out[o]);
    }
    for (int o = 0; o < q->nout; o++) key_add(&key, (int64_t)q->out[o]->id);
    for (int i = 0; i < q->nin; i++) {
        key_add(&key, is_number(q->in[i]));
        if (is_number(q->in[i])) key_add_data(&key, q->in[i]);
    }
    return key;
}

/* v in the piece's graph: a constant, made there, or an input. */
static Value *piece_value(const Round *q, Graph *p, Value **map, const Value *v, const Value *base)
{
    const size_t count = v && type_count(&v->type) > 0 ? (size_t)type_count(&v->type) : 0;
    if (!v || map[v->id]) return v ? map[v->id] : NULL;
    if (base->data) {
        map[v->id] = value_const(p, base->name, v->type, base->data);
    } else if (q->made[v->id]) {
        map[v->id] = value_new(p, base->name, v->type);
        if (v->elems) map[v->id]->elems = arena_memdup(p->arena, v->elems, count * sizeof(int64_t));
    } else if (is_number(v)) {
        const void *data = arena_memdup(p->arena, v->data, (size_t)type_bytes(&v->type));
        map[v->id] = value_const(p, base->name, v->type, data);
    } else {
        map[v->id] = graph_add_input(p, base->name, v->type);
    }
    return map[v->id];
}

/* The ready nodes as a graph of their own, of values with the types that they have now. */
static Graph *piece_graph(const Round *q, Arena *a)
{
    Graph *p = graph_new(a, q->g->name);
    Value **map = NEW_ARRAY(q->arena, Value *, q->g->nvalues);
    for (int k = 0; k < q->g->nnodes; k++) {
        const Node *n = q->g->nodes[k], *base = q->r->base->nodes[k];
        if (!q->ready[k]) continue;
        Node *m = NEW(a, Node);
        *m = *base; /* its attributes live as long as the inference */
        m->in = NEW_ARRAY(a, Value *, n->nin);
        m->out = NEW_ARRAY(a, Value *, n->nout);
        for (int i = 0; i < n->nin; i++) m->in[i] = piece_value(q, p, map, n->in[i], base->in[i]);
        for (int o = 0; o < n->nout; o++)
            m->out[o] = piece_value(q, p, map, n->out[o], base->out[o]);
        node_append(p, m);
    }
    for (int o = 0; o < q->nout; o++) graph_add_output(p, map[q->out[o]->id]);
    return p;
}

static void piece_free(Piece *p)
{
    if (p->instance) instance_free(p->instance);
    if (p->program) program_free(p->program);
    if (p->arena) arena_free(p->arena);
    *p = (Piece){0};
}

static Piece *piece_find(Inference *r, const Key *key)
{
    for (int k = 0; k < r->npieces; k++)
        if (r->piece[k].instance && key_equal(&r->piece[k].key, key)) return &r->piece[k];
    return NULL;
}

static int piece_make(Inference *r, const Round *q, Key key, Piece **out, Diag *d)
{
    Piece *p = &r->piece[r->next];
    piece_free(p);
    r->next = (r->next + 1) % MAX_PIECES;
    if (r->npieces < MAX_PIECES) r->npieces++;
    p->arena = arena_new();
    p->key = key;
    p->key.word = arena_memdup(p->arena, key.word, key.n * sizeof *key.word);
    const ProgramOptions options = {.device = r->options.device};
    TRY(program_compile(&p->program, piece_graph(q, p->arena), &options, d));
    const size_t bytes = program_peak_bytes(p->program);
    if (r->options.allow) TRY(r->options.allow(r->options.ctx, bytes, d));
    TRY(instance_new(&p->instance, p->program, d));
    *out = p;
    return 0;
}

static int piece_for(Inference *r, const Round *q, Piece **out, Diag *d)
{
    const Key key = key_of(q);
    *out = piece_find(r, &key);
    return *out ? 0 : piece_make(r, q, key, out, d);
}

static void piece_run(const Round *q, const Piece *p)
{
    for (int i = 0, k = 0; i < q->nin; i++)
        if (!is_number(q->in[i])) instance_bind(p->instance, k++, q->r->data[q->in[i]->id]);
    instance_run_all(p->instance);
    for (int o = 0; o < q->nout; o++) {
        void *data = arena_alloc(q->arena, (size_t)type_bytes(&q->out[o]->type) + 8);
        instance_read(p->instance, o, data);
        q->r->data[q->out[o]->id] = data;
    }
}

/* ---- runs --------------------------------------------------------------------------- */

static void release_pieces(void *inference)
{
    Inference *r = inference;
    for (int k = 0; k < r->npieces; k++) piece_free(&r->piece[k]);
    arena_free(r->arena);
}

int inference_new(Inference **out, const Graph *g, const InferenceOptions *o, Diag *d)
{
    Arena *a = arena_new();
    Inference *r = NEW(a, Inference);
    r->base_arena = a;
    r->base = g;
    r->options = *o;
    arena_defer(a, release_pieces, r);
    if (!r->options.device) r->options.device = "cpu";
    *out = device_find(r->options.device, d) ? r : NULL;
    if (!*out) inference_free(r);
    return *out ? 0 : -1;
}

void inference_free(Inference *r)
{
    if (r) arena_free(r->base_arena); /* holds r itself */
}

/* The symbols' numbers by the given types. */
static int bind_symbols(const Graph *g, const Type *types, int64_t *dims, Diag *d)
{
    char a[128], b[128];
    for (int k = 0; k < g->nsymbols; k++) dims[k] = -1;
    for (int i = 0; i < g->ninputs; i++) {
        const Type *have = &types[i], *want = &g->inputs[i]->type;
        bool fits = have->dtype == want->dtype && (want->rank < 0 || have->rank == want->rank);
        for (int k = 0; fits && k < want->rank; k++) {
            int64_t *bound = dim_is_sym(want->dim[k]) ? &dims[want->dim[k] - DIM_SYM_BASE] : NULL;
            if (bound && *bound < 0) *bound = have->dim[k];
            fits = have->dim[k] == (bound ? *bound : want->dim[k]);
        }
        if (!fits)
            return diag_error(d, "input '%s' takes %s, the array given is %s", g->inputs[i]->name,
                              type_print(g, want, a, sizeof a),
                              type_print(NULL, have, b, sizeof b));
    }
    return 0;
}

/* A copy in which nothing that the file declares is believed of the shapes that nodes compute. */
static int graph_for(Inference *r, const Type *types, const void *const *data, Diag *d)
{
    int64_t *dims = NEW_ARRAY(r->arena, int64_t, r->base->nsymbols + 1);
    TRY(bind_symbols(r->base, types, dims, d));
    r->g = graph_clone(r->base, r->arena, NULL);
    r->data = NEW_ARRAY(r->arena, const void *, r->g->nvalues);
    for (int i = 0; i < r->g->ninputs; i++) {
        r->g->inputs[i]->type = types[i];
        r->data[r->g->inputs[i]->id] = data[i];
    }
    for (int k = 0; k < r->g->nnodes; k++)
        for (int o = 0; o < r->g->nodes[k]->nout; o++) {
            Value *v = r->g->nodes[k]->out[o];
            if (v && r->g->nodes[k]->op != OP_Opaque) v->type.rank = -1;
            if (v) v->elems = NULL;
        }
    return 0;
}

/* Types of the outputs of nodes that are still to run. */
static int infer_rest(const Round *q, Diag *d)
{
    for (int k = 0; k < q->g->nnodes; k++)
        if (q->needed[k] && !q->done[k]) TRY(node_infer(q->g->nodes[k], d));
    return 0;
}

/* Shows inference the data of what nodes that are still to run read; false if it knew all. */
static bool reveal(const Round *q)
{
    bool more = false;
    for (int k = 0; k < q->g->nnodes; k++)
        for (int i = 0; i < q->g->nodes[k]->nin && q->needed[k] && !q->done[k]; i++) {
            Value *v = q->g->nodes[k]->in[i];
            if (!v || v->data || !q->r->data[v->id]) continue;
            v->data = q->r->data[v->id];
            more = true;
        }
    return more;
}

/* The first node that waits for nothing, and still cannot run. */
static int stuck(const Round *q, Diag *d)
{
    for (int k = 0; k < q->g->nnodes; k++) {
        const Node *n = q->g->nodes[k];
        bool waits = !q->needed[k] || q->done[k];
        for (int i = 0; i < n->nin; i++) waits |= n->in[i] && !is_there(q, n->in[i]);
        if (waits) continue;
        if (n->op == OP_Opaque)
            return node_error(d, n, "what it does is not known, or not settled: it cannot be run");
        if (!q->device->kernels[n->op].run)
            return node_error(d, n, "device '%s' has no kernel for this operator", q->device->name);
        return node_error(d, n, "the shape of its result does not follow from its operands");
    }
    return diag_error(d, "the network cannot be run");
}

static bool all_done(const Round *q)
{
    for (int k = 0; k < q->g->nnodes; k++)
        if (q->needed[k] && !q->done[k]) return false;
    return true;
}

/* Runs what is ready. */
static int run_round(Inference *r, Round *q, Diag *d)
{
    Piece *p;
    Diag quiet = {0};
    TRY(infer_rest(q, d));
    if (mark_ready(q) == 0) return reveal(q) ? 0 : stuck(q, d);
    list_border(q);
    if (piece_for(r, q, &p, r->eager ? d : &quiet) < 0) {
        if (r->eager || !reveal(q)) return piece_for(r, q, &p, d);
        r->eager = true; /* and once more */
        return 0;
    }
    piece_run(q, p);
    for (int k = 0; k < q->g->nnodes; k++) q->done[k] |= q->ready[k];
    if (r->eager) reveal(q);
    return 0;
}

int inference_run(Inference *r, const Type *types, const void *const *data, Diag *d)
{
    arena_free(r->arena);
    r->arena = NULL;
    r->arena = arena_new();
    TRY(graph_for(r, types, data, d));
    Graph *g = r->g;
    int operands = g->ninputs;
    for (int k = 0; k < g->nnodes; k++) operands += g->nodes[k]->nin + g->nodes[k]->nout;
    Round q = {.r = r, .g = g, .device = device_find(r->options.device, d), .arena = r->arena};
    q.needed = NEW_ARRAY(r->arena, bool, g->nnodes);
    q.done = NEW_ARRAY(r->arena, bool, g->nnodes);
    q.ready = NEW_ARRAY(r->arena, bool, g->nnodes);
    q.made = NEW_ARRAY(r->arena, bool, g->nvalues);
    q.in = NEW_ARRAY(r->arena, Value *, operands);
    q.out = NEW_ARRAY(r->arena, Value *, operands);
    mark_needed(&q);
    if (r->eager) reveal(&q);
    while (!all_done(&q)) TRY(run_round(r, &q, d));
    return 0;
}

const void *inference_output(const Inference *r, int output, Type *type)
{
    const Value *v = r->g->outputs[output];
    *type = v->type;
    return r->data[v->id] ? r->data[v->id] : v->data;
}
