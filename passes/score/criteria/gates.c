/* Gradients by the gates of coupled groups, sample by sample.
 *
 * A gate m multiplies every output of the layers that produce a group's channels; dL/dm at 1 is
 * the sum over producers and positions of A dA. A depthwise
 * convolution only passes its input's groups on, which are gated already: it is left out. */
#include <string.h>

#include "passes/score/criteria.h"

enum { MAX_SCALE_STEPS = 8 };

typedef struct Gates {
    Scoring *s;
    const GateOptions *o;
    Hvp h;
    Session *session;
    Feed *feed;
    int *group;          /* per flat channel; -1: not a producer */
    int64_t widest;      /* elements of the largest output */
    float *sums, *layer; /* per thread: [shard, groups], [widest] */
    Moments *m;          /* per group */
} Gates;

/* ---- what belongs to what ----------------------------------------------------------- */

static void find_producers(Gates *q)
{
    const Groups *gr = q->s->groups;
    q->group = NEW_ARRAY(q->s->arena, int, gr->first[gr->nlayers]);
    for (int k = 0; k < gr->nlayers; k++) {
        const Node *n = gr->layers[k].node;
        bool depthwise =
            n->op == OP_Conv && node_int(n, "group", 1) > 1 && n->in[1]->type.dim[1] == 1;
        for (int c = gr->first[k]; c < gr->first[k + 1]; c++)
            q->group[c] = depthwise ? -1 : gr->of[c];
    }
}

/* ---- one shard ---------------------------------------------------------------------- */

static float *own_part(const Gates *q, float *all, Instance *inst, int64_t size)
{
    return all + session_slot(q->session, inst) * size;
}

/* Adds one layer's [rows, channels] to sums [shard, groups]; several rows may be one sample, and
 * where rows are not samples at all (of a model whose batch is fixed, on another axis) they spread.
 */
static void add_layer(const Gates *q, int k, const float *x, float *sums)
{
    const Groups *gr = q->s->groups;
    int64_t channels = gr->layers[k].channels;
    int64_t rows = q->h.g->outputs[q->h.out_layer[k]]->type.dim[0];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < channels; c++) {
            int g = q->group[gr->first[k] + c];
            if (g >= 0) sums[r * q->s->shard / rows * gr->n + g] += x[r * channels + c];
        }
}

static bool collect(const Gates *q, Instance *inst, float *layer, float *sums)
{
    const Groups *gr = q->s->groups;
    memset(sums, 0, (size_t)(q->s->shard * gr->n) * sizeof *sums);
    for (int k = 0; k < gr->nlayers; k++) {
        const Value *y = q->h.g->outputs[q->h.out_layer[k]];
        instance_read(inst, q->h.out_layer[k], layer);
        if (hvp_overflowed(layer, type_count(&y->type))) return false;
        add_layer(q, k, layer, sums);
    }
    return true;
}

static void bind_pass(const Gates *q, Instance *inst, int64_t shard, int pass)
{
    if (q->h.in_class >= 0) {
        float *one = feed_buffer(q->feed, inst, q->h.in_class);
        memset(one, 0, (size_t)type_bytes(&q->h.g->inputs[q->h.in_class]->type));
        one[pass] = 1;
        instance_bind(inst, q->h.in_class, one);
    }
    if (q->h.in_key >= 0) {
        int64_t *key = feed_buffer(q->feed, inst, q->h.in_key);
        key[0] = (int64_t)q->s->c->opt.seed;
        key[1] = pass * feed_shards(q->feed) + shard;
        instance_bind(inst, q->h.in_key, key);
    }
}

static bool run_passes(const Gates *q, int64_t shard, Instance *inst, float scale)
{
    const Groups *gr = q->s->groups;
    int64_t size = q->s->shard * gr->n;
    float *sums = own_part(q, q->sums, inst, size), *total = instance_result(inst);
    float *layer = own_part(q, q->layer, inst, q->widest);
    float *bound = feed_buffer(q->feed, inst, q->h.in_loss_scale);
    *bound = scale;
    instance_bind(inst, q->h.in_loss_scale, bound);
    memset(total, 0, (size_t)size * sizeof *total);
    for (int pass = 0; pass < q->o->passes; pass++) {
        bind_pass(q, inst, shard, pass);
        for (int stage = pass ? 2 : 0; stage <= 2; stage++) instance_run(inst, stage);
        if (!collect(q, inst, layer, sums)) return false;
        for (int64_t i = 0; i < size; i++) total[i] += q->o->of_means ? sums[i] : sums[i] * sums[i];
    }
    return true;
}

/* In FP16 the cotangents are scaled up; when something overflows, less so, and once more. */
static int work(void *ctx, int64_t shard, Instance *inst)
{
    Gates *q = ctx;
    float scale = q->s->precision == DT_F16 ? 256.0F : 1.0F;
    feed_bind(q->feed, shard, inst);
    if (q->h.in_target >= 0)
        feed_bind_targets(q->feed, shard, inst, q->h.in_target, q->s->target_axis, q->o->targets);
    for (int k = 0; k < MAX_SCALE_STEPS; k++, scale /= 8)
        if (run_passes(q, shard, inst, scale)) return 0;
    return diag_error(q->s->c->diag, "the gradients are infinite or not numbers");
}

/* Takes in what a shard says of group g: x[r n] for r < rows. */
static void observe(const GateOptions *o, Moments *m, const float *x, int64_t rows, int64_t n)
{
    double sum = 0;
    for (int64_t r = 0; r < rows; r++) {
        if (!o->of_means) moments_add(m, o->weight * (double)x[r * n]);
        sum += (double)x[r * n];
    }
    if (o->of_means) moments_add(m, sum / (double)rows * (sum / (double)rows));
}

static int reduce(void *ctx, int64_t shard, Instance *inst)
{
    const Gates *q = ctx;
    const float *x = instance_result(inst);
    const int n = q->s->groups->n;
    for (int g = 0; g < n; g++) observe(q->o, &q->m[g], x + g, feed_rows(q->feed, shard), n);
    pass_progress(q->s->c, (double)(shard + 1) / (double)feed_shards(q->feed), "scoring");
    return 0;
}

/* ---- all shards --------------------------------------------------------------------- */

static int build_shard(ShardGraph *out, void *ctx, int64_t shard, Arena *a, Diag *d)
{
    Gates *q = ctx;
    Scoring *s = q->s;
    GradientOptions o = {q->o->cotangent, GRADIENT_GATES, s->precision};
    s->shard = shard;
    TRY(gradient_build(&q->h, s->model, a, shard, &o, d));
    for (int k = 0; k < q->h.nlayers; k++) {
        int64_t count = type_count(&q->h.g->outputs[q->h.out_layer[k]]->type);
        if (count > q->widest) q->widest = count;
    }
    const size_t sums = (size_t)(shard * s->groups->n) * sizeof(float);
    *out = (ShardGraph){.g = q->h.g,
                        .stage = q->h.stage,
                        .result_bytes = sums,
                        .each = sums + (size_t)q->widest * sizeof(float)};
    return 0;
}

static void finish(const Gates *q)
{
    const Groups *gr = q->s->groups;
    for (int c = 0; c < gr->first[gr->nlayers]; c++) {
        q->s->score[c] = q->m[gr->of[c]].mean;
        q->s->error[c] = moments_error(&q->m[gr->of[c]]);
    }
}

int gates_score(Scoring *s, const GateOptions *o)
{
    Gates q = {.s = s, .o = o};
    const int64_t most = shard_for_device(&s->c->opt, s->n);
    TRY(session_open(&q.session, s->arena, s->model, s->c->data, most, build_shard, &q, &s->c->opt,
                     s->c->diag));
    find_producers(&q);
    q.feed = feed_new(s->arena, q.session, s->c->data, s->n, NULL);
    q.sums = NEW_ARRAY(s->arena, float, s->shard * s->groups->n * q.session->threads);
    q.layer = NEW_ARRAY(s->arena, float, q.widest *q.session->threads);
    q.m = NEW_ARRAY(s->arena, Moments, s->groups->n);
    int status = session_run(q.session, feed_shards(q.feed), work, reduce, &q);
    s->bytes = q.session->bytes;
    s->used = o->passes;
    session_close(q.session);
    if (status == 0) finish(&q);
    return status;
}
