/* Two networks side by side up to given values: see prefix.h. */
#include "passes/prune/prefix.h"

#include <string.h>

Prefix *prefix_new(Arena *a, const Graph *g, const Graph *original, const Samples *s, int64_t n,
                   const Options *o, size_t limit, Diag *d)
{
    Prefix *p = NEW(a, Prefix);
    *p = (Prefix){.arena = a,
                  .side = {g, original},
                  .samples = s,
                  .opt = *o,
                  .n = n,
                  .shard = shard_size(g, s, shard_for(n / HELD_EVERY)),
                  .limit = limit,
                  .diag = d};
    for (int k = 0; k < SIDES; k++) p->done[k] = NEW_ARRAY(a, bool, p->side[k]->nnodes);
    return p;
}

void prefix_free(Prefix *p)
{
    for (Kept *k = p->kept, *next; k; k = next) {
        next = k->next;
        arena_free(k->arena); /* holds k itself */
    }
    p->kept = NULL;
}

/* Back to the inputs, with shards of another size: kept values are cut up by the old one. */
static void start_over(Prefix *p, int64_t shard)
{
    prefix_free(p);
    for (int k = 0; k < SIDES; k++)
        memset(p->done[k], 0, (size_t)p->side[k]->nnodes * sizeof(bool));
    p->shard = shard;
}

static Kept *find_kept(Kept *list, int side, const char *name)
{
    for (; list; list = list->next)
        if (list->side == side && strcmp(list->name, name) == 0) return list;
    return NULL;
}

static Value *find_value(const Graph *g, const char *name)
{
    for (int i = 0; i < g->ninputs; i++)
        if (strcmp(g->inputs[i]->name, name) == 0) return g->inputs[i];
    return graph_computed(g, name);
}

/* ---- the cut ------------------------------------------------------------------------ */

/* Marks the node that makes v and all before it. Nodes are in order, so one sweep back does. */
static void mark_ancestors(const Graph *g, int n, const char *const *names, bool *done)
{
    bool *wanted = NEW_ARRAY(g->arena, bool, g->nvalues);
    for (int k = 0; k < n; k++) {
        const Value *v = find_value(g, names[k]);
        if (v) wanted[v->id] = true;
    }
    for (int i = g->nnodes - 1; i >= 0; i--) {
        const Node *m = g->nodes[i];
        bool makes = done[i];
        for (int o = 0; o < m->nout; o++) makes |= m->out[o] && wanted[m->out[o]->id];
        if (!makes) continue;
        done[i] = true;
        for (int k = 0; k < m->nin; k++)
            if (m->in[k]) wanted[m->in[k]->id] = true;
    }
}

/* The values that nodes marked as done make and others read. */
static int crossing(const Graph *g, const bool *done, Value **out)
{
    int *maker = NEW_ARRAY(g->arena, int, g->nvalues), n = 0;
    bool *seen = NEW_ARRAY(g->arena, bool, g->nvalues);
    for (int i = 0; i < g->nnodes; i++)
        for (int o = 0; o < g->nodes[i]->nout; o++)
            if (g->nodes[i]->out[o]) maker[g->nodes[i]->out[o]->id] = i + 1;
    for (int i = 0; i < g->nnodes; i++)
        for (int k = 0; !done[i] && k < g->nodes[i]->nin; k++) {
            Value *v = g->nodes[i]->in[k];
            if (!v || seen[v->id] || !maker[v->id] || !done[maker[v->id] - 1]) continue;
            seen[v->id] = true;
            out[n++] = v;
        }
    return n;
}

/* Makes kept values inputs of g. */
static void cut_at_kept(Graph *g, const Kept *list, int side)
{
    for (const Kept *kept = list; kept; kept = kept->next) {
        if (kept->side != side) continue;
        Value *v = find_value(g, kept->name);
        Value *in = graph_add_input(g, kept->name, v->type);
        for (int i = 0; i < g->nnodes; i++)
            for (int k = 0; k < g->nodes[i]->nin; k++)
                if (g->nodes[i]->in[k] == v) g->nodes[i]->in[k] = in;
        for (int o = 0; o < g->noutputs; o++)
            if (g->outputs[o] == v) g->outputs[o] = in;
    }
}

/* ---- one step ----------------------------------------------------------------------- */

typedef struct Step {
    PrefixStep pub;
    Prefix *prefix;
    Graph *part[SIDES];
    bool *done[SIDES];
    Value **crossing[SIDES];
    int ncrossing[SIDES];
    const Kept **bound; /* per input of the program; NULL: of the samples */
    Kept *fresh;        /* what to store of this step, in the order of the outputs beyond `asked` */
    size_t staged;      /* bytes of those of one shard */
    char *staging;      /* [threads, staged] */
    int asked;          /* values[i] of side[i] */
    Value *const *values;
    const int *side;
    bool keep; /* what crosses the cut is stored */
    const PrefixCalls *calls;
    void *ctx;
} Step;

/* Bytes of a value of type t for all samples. */
static size_t kept_bytes(const Prefix *p, const Type *t)
{
    return (size_t)((p->n + p->shard - 1) / p->shard) * (size_t)type_bytes(t);
}

static bool crosses(const Step *s, const Kept *k)
{
    for (int i = 0; i < s->ncrossing[k->side]; i++)
        if (strcmp(s->crossing[k->side][i]->name, k->name) == 0) return true;
    return false;
}

/* Appends v of `side` to what the step stores, in the memory of a value that crosses no longer
 * where one has that size: shard by shard the old data are read before the new ones are written. */
static void store(Step *s, int side, const Value *v, Kept ***tail)
{
    Prefix *p = s->prefix;
    Kept *k = NEW(s->pub.arena, Kept);
    *k = (Kept){.side = side, .name = v->name, .type = v->type};
    k->type.dtype = p->dtype;
    for (Kept *old = p->kept; old && !k->heir_of; old = old->next)
        if (!old->inherited && type_bytes(&old->type) == type_bytes(&k->type) && !crosses(s, old)) {
            k->heir_of = old;
            old->inherited = true;
        }
    **tail = k;
    *tail = &k->next;
}

/* Lists what is to be stored; the bytes beyond those that are kept now. */
static size_t plan_fresh(Step *s)
{
    const Prefix *p = s->prefix;
    Kept **tail = &s->fresh;
    size_t more = 0;
    s->fresh = NULL;
    s->staged = 0;
    for (Kept *k = p->kept; k; k = k->next) k->inherited = false;
    for (int side = 0; side < SIDES; side++)
        for (int k = 0; k < s->ncrossing[side]; k++)
            if (!find_kept(p->kept, side, s->crossing[side][k]->name))
                store(s, side, s->crossing[side][k], &tail);
    for (const Kept *k = s->fresh; k; k = k->next) {
        s->staged += (size_t)type_bytes(&k->type);
        if (!k->heir_of) more += kept_bytes(p, &k->type);
    }
    return more;
}

/* Whether all that crosses the new cut can be kept for all samples, in half the bytes if need be.
 * *more: the bytes of what is new. */
static bool affordable(Step *s, size_t *more)
{
    static const DType dtypes[] = {DT_F32, DT_BF16};
    Prefix *p = s->prefix;
    size_t now = 0;
    for (const Kept *k = p->kept; k; k = k->next) now += kept_bytes(p, &k->type);
    for (int side = 0; side < SIDES; side++)
        for (int k = 0; k < s->ncrossing[side]; k++)
            if (s->crossing[side][k]->type.dtype != DT_F32) return false;
    for (int k = 0; k < 2; k++) {
        p->dtype = dtypes[k];
        *more = plan_fresh(s);
        if (now + *more <= p->limit) return true;
    }
    return false;
}

static int specialize(Step *s)
{
    Prefix *p = s->prefix;
    int n = s->asked;
    Arena *a = s->pub.arena;
    for (int k = 0; k < SIDES; k++) {
        TRY(shard_specialize(&s->part[k], p->side[k], a, p->samples, p->shard, p->diag));
        const char **names = NEW_ARRAY(a, const char *, n);
        int count = 0;
        for (int i = 0; i < n; i++)
            if (s->side[i] == k) names[count++] = s->values[i]->name;
        int nodes = s->part[k]->nnodes;
        s->done[k] = NEW_ARRAY(a, bool, nodes);
        memcpy(s->done[k], p->done[k], (size_t)nodes * sizeof(bool));
        mark_ancestors(s->part[k], count, names, s->done[k]);
        s->crossing[k] = NEW_ARRAY(a, Value *, s->part[k]->nvalues);
        s->ncrossing[k] = crossing(s->part[k], s->done[k], s->crossing[k]);
    }
    return 0;
}

/* Outputs of both parts: the values asked for, then what is to be stored. */
static void choose_outputs(Step *s)
{
    for (int k = 0; k < SIDES; k++) {
        Graph *g = s->part[k];
        g->noutputs = 0;
        for (int i = 0; i < s->asked; i++)
            if (s->side[i] == k) graph_add_output(g, find_value(g, s->values[i]->name));
        for (const Kept *f = s->keep ? s->fresh : NULL; f; f = f->next)
            if (f->side == k) graph_add_output(g, find_value(g, f->name));
        cut_at_kept(g, s->prefix->kept, k);
        simplify_dce(g, s->pub.arena);
    }
}

static Value *as(Graph *g, Value *v, DType dtype)
{
    return v->type.dtype == dtype ? v : build(g, OP_Cast, IN(v), ATTRS(attr_int("to", dtype)));
}

/* Puts the part of `side` into g, whose first inputs are the model's; adds inputs for what is kept.
 */
static void inline_part(const Step *s, Graph *g, int side, Value **out)
{
    const Graph *part = s->part[side];
    Value **in = NEW_ARRAY(s->pub.arena, Value *, part->ninputs + 1);
    int n = s->prefix->side[0]->ninputs;
    memcpy(in, g->inputs, (size_t)n * sizeof(Value *));
    for (const Kept *k = s->prefix->kept; k; k = k->next)
        if (k->side == side) in[n++] = as(g, graph_add_input(g, k->name, k->type), DT_F32);
    graph_inline(g, part, in, out);
}

/* An output that is an input of the program would be no result of it. */
static void add_output(Graph *g, Value *v)
{
    graph_add_output(g, value_is_input(v) ? build(g, OP_Identity, IN(v), NO_ATTRS) : v);
}

/* One graph of both parts; outputs in the order asked for, then what is to be stored. */
static void combine(Step *s)
{
    Graph *g = graph_new(s->pub.arena, "prefix");
    Value **made[SIDES];
    int at[SIDES] = {0, 0};
    for (int k = 0; k < s->prefix->side[0]->ninputs; k++)
        graph_add_input(g, s->part[0]->inputs[k]->name, s->part[0]->inputs[k]->type);
    for (int k = 0; k < SIDES; k++) {
        made[k] = NEW_ARRAY(s->pub.arena, Value *, s->part[k]->noutputs + 1);
        inline_part(s, g, k, made[k]);
    }
    for (int i = 0; i < s->asked; i++) add_output(g, made[s->side[i]][at[s->side[i]]++]);
    for (const Kept *f = s->keep ? s->fresh : NULL; f; f = f->next)
        add_output(g, as(g, made[f->side][at[f->side]++], f->type.dtype));
    s->pub.g = g;
}

/* Which kept value feeds each input: the network's follow its inputs, then the original's. */
static void match_inputs(Step *s)
{
    int k = s->prefix->side[0]->ninputs;
    s->bound = NEW_ARRAY(s->pub.arena, const Kept *, s->pub.g->ninputs + 1);
    for (int side = 0; side < SIDES; side++)
        for (const Kept *kept = s->prefix->kept; kept; kept = kept->next)
            if (kept->side == side) s->bound[k++] = kept;
}

static char *kept_shard(const Kept *k, int64_t shard)
{
    return k->data + shard * type_bytes(&k->type);
}

/* All is read before any is stored: an heir overwrites what outputs may be views of. */
static void store_shard(const Step *s, int64_t shard, Instance *inst)
{
    char *staging = s->staging + (size_t)session_slot(s->pub.session, inst) * s->staged,
         *from = staging;
    int o = s->asked;
    for (const Kept *k = s->fresh; k; from += type_bytes(&k->type), k = k->next)
        instance_read(inst, o++, from);
    from = staging;
    for (const Kept *k = s->fresh; k; from += type_bytes(&k->type), k = k->next)
        memcpy(kept_shard(k, shard), from, (size_t)type_bytes(&k->type));
}

static int run_shard(void *ctx, int64_t shard, Instance *inst)
{
    Step *s = ctx;
    feed_bind(s->pub.feed, shard, inst);
    for (int k = 0; k < s->pub.g->ninputs; k++)
        if (s->bound[k]) instance_bind(inst, k, kept_shard(s->bound[k], shard));
    instance_run_all(inst);
    TRY(s->calls->take(s->ctx, shard, &s->pub, inst));
    if (s->keep) store_shard(s, shard, inst);
    return 0;
}

static int reduce_shard(void *ctx, int64_t shard, Instance *inst)
{
    Step *s = ctx;
    return s->calls->reduce(s->ctx, shard, &s->pub, inst);
}

/* Memory for what the step stores. */
static void make_fresh(Step *s)
{
    const Prefix *p = s->prefix;
    s->staging = arena_alloc(s->pub.arena, (size_t)s->pub.session->threads * s->staged);
    for (Kept **at = &s->fresh; *at; at = &(*at)->next) {
        Kept *heir_of = (*at)->heir_of;
        Arena *a = heir_of ? heir_of->arena : arena_new();
        Kept *k = NEW(a, Kept);
        *k = **at;
        k->arena = a;
        k->name = arena_strdup(a, k->name);
        k->data = heir_of ? heir_of->data : arena_alloc(a, kept_bytes(p, &k->type));
        *at = k;
    }
}

/* After an error. What heirs took over is still its owner's. */
static void drop_fresh(Step *s)
{
    for (Kept *k = s->fresh, *next; k; k = next) {
        next = k->next;
        if (!k->heir_of) arena_free(k->arena);
    }
}

/* The cut moves: kept values that no longer cross it are freed unless inherited, new ones join. */
static void advance(Step *s)
{
    Prefix *p = s->prefix;
    for (Kept *k = p->kept, *next; k; k = next) {
        next = k->next;
        if (crosses(s, k)) {
            k->next = s->fresh;
            s->fresh = k;
        } else if (!k->inherited) {
            arena_free(k->arena);
        }
    }
    p->kept = s->fresh;
    for (int k = 0; k < SIDES; k++)
        memcpy(p->done[k], s->done[k], (size_t)p->side[k]->nnodes * sizeof(bool));
}

static int build_shard(ShardGraph *out, void *ctx, int64_t shard, Arena *a, Diag *d)
{
    Step *s = ctx;
    (void)a, (void)d; /* the step has both */
    if (shard != s->prefix->shard) start_over(s->prefix, shard);
    TRY(specialize(s));
    size_t more = 0;
    s->keep = affordable(s, &more);
    if (!s->keep) s->staged = 0;
    choose_outputs(s);
    combine(s);
    match_inputs(s);
    *out = (ShardGraph){.g = s->pub.g};
    s->calls->plan(s->ctx, &s->pub, out);
    out->each += s->staged;
    out->shared += s->keep ? more : 0;
    return 0;
}

static int run_step(Step *s, size_t *peak)
{
    Prefix *p = s->prefix;
    Arena *a = s->pub.arena;
    TRY(session_open(&s->pub.session, a, p->side[0], p->samples, p->shard, build_shard, s, &p->opt,
                     p->diag));
    if (s->keep) make_fresh(s);
    s->calls->begin(s->ctx, &s->pub);
    s->pub.feed = feed_new(a, s->pub.session, p->samples, p->n, NULL);
    int status = session_run(s->pub.session, feed_shards(s->pub.feed), run_shard, reduce_shard, s);
    if (s->pub.session->bytes > *peak) *peak = s->pub.session->bytes;
    session_close(s->pub.session);
    if (s->keep && status == 0) advance(s);
    if (s->keep && status < 0) drop_fresh(s);
    return status;
}

int prefix_run(Prefix *p, int n, Value *const *values, const int *side, const PrefixCalls *calls,
               void *ctx, size_t *peak_bytes)
{
    Step s = {.pub.arena = arena_new(),
              .prefix = p,
              .asked = n,
              .values = values,
              .side = side,
              .calls = calls,
              .ctx = ctx};
    int status = run_step(&s, peak_bytes);
    arena_free(s.pub.arena);
    return status;
}
