/* What a network answers, sample by sample: see batches.h. */
#include <math.h>

#include "ir/batch.h"
#include "passes/batches.h"

/* one_more: the type at shards of one sample more; NULL: there is none. */
static int output_axis(const Type *t, const Type *one_more, int64_t shard)
{
    for (int k = 0; one_more && k < t->rank && k < one_more->rank; k++)
        if (t->dim[k] != one_more->dim[k] && t->dim[k] % shard == 0) return k;
    return !one_more && t->rank > 0 && t->dim[0] % shard == 0 ? 0 : -1;
}

int *output_axes(Arena *a, const Session *s, ShardBuilder *make, void *ctx)
{
    Diag quiet = {0};
    ShardGraph more = {0};
    Arena *scratch = arena_new();
    const bool open = make(&more, ctx, s->shard + 1, scratch, &quiet) == 0;
    int *axis = NEW_ARRAY(a, int, s->g->noutputs);
    for (int o = 0; o < s->g->noutputs; o++)
        axis[o] =
            output_axis(&s->g->outputs[o]->type, open ? &more.g->outputs[o]->type : NULL, s->shard);
    arena_free(scratch);
    return axis;
}

int64_t largest_output(const Graph *g)
{
    int64_t largest = 0;
    for (int o = 0; o < g->noutputs; o++) {
        const int64_t size = type_count(&g->outputs[o]->type);
        if (size > largest) largest = size;
    }
    return largest;
}

void softmax_rows(float *x, int64_t n, int64_t classes)
{
    for (int64_t i = 0; i < n; i++, x += classes) {
        float top = x[0];
        double sum = 0;
        for (int64_t c = 1; c < classes; c++) top = fmaxf(top, x[c]);
        for (int64_t c = 0; c < classes; c++) sum += exp((double)(x[c] - top));
        for (int64_t c = 0; c < classes; c++) x[c] = (float)(exp((double)(x[c] - top)) / sum);
    }
}

/* Which rows of what. */
typedef struct RowsOf {
    const Graph *g;
    const Value *of;
    const Samples *samples;
    int64_t n;
    Feed *feed;
    Rows *out;
    int64_t outer, shard;
    float *batch; /* the output of the shard in hand */
} RowsOf;

static int keep_rows(void *ctx, int64_t shard, Instance *inst)
{
    const RowsOf *r = ctx;
    instance_read(inst, 0, r->batch);
    for (int64_t i = 0; i < feed_rows(r->feed, shard); i++)
        batch_get(r->out->x + (shard * r->shard + i) * r->out->row, r->batch, r->outer, i, r->shard,
                  (size_t)r->out->row * sizeof(float));
    return 0;
}

static int build_forward(ShardGraph *out, void *ctx, int64_t shard, Arena *a, Diag *d)
{
    const RowsOf *f = ctx;
    TRY(shard_specialize(&out->g, f->g, a, f->samples, shard, d));
    Graph *p = out->g;
    Value *y = f->of ? graph_computed(p, f->of->name) : NULL;
    if (!y) y = graph_logits(p);
    if (!y) return diag_error(d, "the model has no float output");
    if (y->type.dtype != DT_F32)
        return diag_error(d, "value '%s' is %s, not float", y->name, dtype_name(y->type.dtype));
    p->noutputs = 0;
    graph_add_output(p, y);
    const Type *t = &p->outputs[0]->type;
    const int64_t row = (type_count(t) + shard - 1) / shard;
    out->shared = (size_t)(f->n * row + type_count(t)) * sizeof(float);
    return simplify_dce(p, a);
}

int forward_rows(Rows *out, Arena *a, const Graph *g, const Value *of, const Samples *s, int64_t n,
                 const int64_t *index, const Options *o, Diag *d)
{
    Session *session;
    RowsOf f = {.g = g, .of = of, .samples = s, .n = n, .out = out};
    TRY(session_open(&session, a, g, s, 0, build_forward, &f, o, d));
    const Type *t = &session->g->outputs[0]->type;
    const int64_t total = type_count(t);
    f.shard = session->shard;
    out->axis = *output_axes(a, session, build_forward, &f);
    out->row = out->axis < 0 ? total : total / f.shard;
    out->x = NEW_ARRAY(a, float, n * out->row);
    f.outer = batch_outer(t, out->axis);
    f.batch = NEW_ARRAY(a, float, total);
    f.feed = feed_new(a, session, s, n, index);
    int status = feed_run(f.feed, keep_rows, &f);
    session_close(session);
    return status;
}
