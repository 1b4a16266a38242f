/* Two networks side by side up to given values: see prefix.h. */
#include "passes/prefix.h"

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
                  .shard = shard_size(g, 0),
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
    for (int i = 0; i < g->nnodes; i++)
        for (int o = 0; o < g->nodes[i]->nout; o++)
            if (g->nodes[i]->out[o] && strcmp(g->nodes[i]->out[o]->name, name) == 0)
                return g->nodes[i]->out[o];
    return NULL;
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
    Kept **stored;      /* per output beyond `asked`; NULL: not this one */
    int asked;          /* values[i] of side[i] */
    Value *const *values;
    const int *side;
    bool keep; /* what crosses the cut is stored */
    const PrefixCalls *calls;
    void *ctx;
} Step;

static Kept *new_kept(const Prefix *p, int side, const Value *v)
{
    Arena *a = arena_new();
    Kept *k = NEW(a, Kept);
    int64_t shards = (p->n + p->shard - 1) / p->shard;
    *k = (Kept){.side = side, .name = arena_strdup(a, v->name), .type = v->type, .arena = a};
    k->data = NEW_ARRAY(a, float, shards *type_count(&v->type));
    return k;
}

/* Bytes of a value of type t for all samples. */
static size_t kept_bytes(const Prefix *p, const Type *t)
{
    return (size_t)((p->n + p->shard - 1) / p->shard) * (size_t)type_bytes(t);
}

/* Whether all that crosses the new cut can be kept for all samples, beside what is kept now, which
 * the step reads. *more: the bytes of what is new. */
static bool affordable(const Step *s, size_t *more)
{
    const Prefix *p = s->prefix;
    size_t now = 0;
    *more = 0;
    for (const Kept *k = p->kept; k; k = k->next) now += kept_bytes(p, &k->type);
    for (int side = 0; side < SIDES; side++)
        for (int k = 0; k < s->ncrossing[side]; k++) {
            const Value *v = s->crossing[side][k];
            if (v->type.dtype != DT_F32) return false;
            if (!find_kept(p->kept, side, v->name)) *more += kept_bytes(p, &v->type);
        }
    return now + *more <= p->limit;
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

/* Outputs of both parts: the values asked for, then what is to be stored and is not yet. */
static void choose_outputs(Step *s)
{
    for (int k = 0; k < SIDES; k++) {
        Graph *g = s->part[k];
        g->noutputs = 0;
        for (int i = 0; i < s->asked; i++)
            if (s->side[i] == k) graph_add_output(g, find_value(g, s->values[i]->name));
        for (int i = 0; s->keep && i < s->ncrossing[k]; i++)
            if (!find_kept(s->prefix->kept, k, s->crossing[k][i]->name))
                graph_add_output(g, s->crossing[k][i]);
        cut_at_kept(g, s->prefix->kept, k);
        simplify_dce(g, s->pub.arena);
    }
}

/* An output that is an input of the program would be no result of it. */
static void add_output(Graph *g, Value *v)
{
    graph_add_output(g, value_is_input(v) ? build(g, OP_Identity, IN(v), NO_ATTRS) : v);
}

/* One graph: the network's part with the original's inlined; outputs in the order asked for. */
static void combine(Step *s)
{
    Prefix *p = s->prefix;
    Graph *g = graph_clone(s->part[0], s->pub.arena, NULL), *d = s->part[1];
    int nx = p->side[0]->ninputs;
    Value **in = NEW_ARRAY(s->pub.arena, Value *, d->ninputs + 1);
    Value **theirs = NEW_ARRAY(s->pub.arena, Value *, d->noutputs + 1);
    Value **ours = g->outputs;
    int count[SIDES] = {g->noutputs, d->noutputs}, at[SIDES] = {0, 0};
    for (int k = 0; k < d->ninputs; k++)
        in[k] = k < nx ? g->inputs[k] : graph_add_input(g, d->inputs[k]->name, d->inputs[k]->type);
    graph_inline(g, d, in, theirs);
    g->outputs = NULL;
    g->noutputs = 0;
    for (int i = 0; i < s->asked; i++) add_output(g, s->side[i] ? theirs[at[1]++] : ours[at[0]++]);
    while (at[0] < count[0]) add_output(g, ours[at[0]++]);
    while (at[1] < count[1]) add_output(g, theirs[at[1]++]);
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

static int run_shard(void *ctx, int64_t shard, Instance *inst)
{
    Step *s = ctx;
    const Graph *g = s->pub.g;
    feed_bind(s->pub.feed, shard, inst);
    for (int k = 0; k < g->ninputs; k++)
        if (s->bound[k])
            instance_bind(inst, k, s->bound[k]->data + shard * type_count(&s->bound[k]->type));
    instance_run_all(inst);
    for (int o = s->asked; o < g->noutputs; o++) {
        Kept *kept = s->stored[o - s->asked];
        instance_read(inst, o, kept->data + shard * type_count(&kept->type));
    }
    return s->calls->take(s->ctx, shard, &s->pub, inst);
}

static int reduce_shard(void *ctx, int64_t shard, Instance *inst)
{
    Step *s = ctx;
    return s->calls->reduce(s->ctx, shard, &s->pub, inst);
}

/* New values to keep, in the order of the outputs. */
static Kept *make_kept(Step *s)
{
    Kept *list = NULL;
    int n = 0;
    s->stored = NEW_ARRAY(s->pub.arena, Kept *, s->ncrossing[0] + s->ncrossing[1] + 1);
    for (int side = 0; side < SIDES; side++)
        for (int i = 0; i < s->ncrossing[side]; i++) {
            const Value *v = s->crossing[side][i];
            if (find_kept(s->prefix->kept, side, v->name)) continue;
            Kept *k = s->stored[n++] = new_kept(s->prefix, side, v);
            k->next = list;
            list = k;
        }
    return list;
}

/* The cut moves: kept values that no longer cross it are freed, new ones join. */
static void advance(Step *s, Kept *fresh)
{
    Prefix *p = s->prefix;
    for (Kept *k = p->kept, *next; k; k = next) {
        bool crosses = false;
        next = k->next;
        for (int i = 0; i < s->ncrossing[k->side]; i++)
            crosses |= strcmp(s->crossing[k->side][i]->name, k->name) == 0;
        if (crosses) {
            k->next = fresh;
            fresh = k;
        } else {
            arena_free(k->arena);
        }
    }
    p->kept = fresh;
    for (int k = 0; k < SIDES; k++)
        memcpy(p->done[k], s->done[k], (size_t)p->side[k]->nnodes * sizeof(bool));
}

static int build_shard(ShardGraph *out, void *ctx, int64_t shard)
{
    Step *s = ctx;
    if (shard != s->prefix->shard) start_over(s->prefix, shard);
    TRY(specialize(s));
    size_t more;
    s->keep = affordable(s, &more);
    /* Types of crossing values are wanted after the parts have been cut: they stay. */
    choose_outputs(s);
    combine(s);
    match_inputs(s);
    *out = (ShardGraph){.g = s->pub.g};
    s->calls->plan(s->ctx, &s->pub, out);
    out->shared += samples_unread(s->prefix->samples, s->prefix->n) + (s->keep ? more : 0);
    return 0;
}

static int run_step(Step *s, size_t *peak)
{
    Prefix *p = s->prefix;
    Arena *a = s->pub.arena;
    TRY(session_open(&s->pub.session, a, p->side[0], p->shard, build_shard, s, &p->opt, p->diag));
    Kept *fresh = s->keep ? make_kept(s) : NULL;
    s->calls->begin(s->ctx, &s->pub);
    s->pub.feed = feed_new(a, s->pub.session, p->samples, p->n, NULL);
    int status = session_run(s->pub.session, feed_shards(s->pub.feed), run_shard, reduce_shard, s);
    if (s->pub.session->bytes > *peak) *peak = s->pub.session->bytes;
    session_close(s->pub.session);
    if (s->keep) advance(s, fresh);
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
