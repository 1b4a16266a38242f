/* Top-1 accuracy, agreement with a reference and loss over samples. The reference runs in the
 * same program as the graph, on the same inputs, shard by shard, so nothing is stored. */
#include <math.h>
#include <string.h>

#include "passes/batches.h"

typedef struct Tally {
    Feed *feed;
    const Samples *samples;
    bool reference;
    int32_t *kept; /* the reference's top-1 by sample and position, read or written; or NULL */
    int64_t rows, classes, inner; /* outputs are [rows, classes, inner] */
    float *y, *ref;               /* of the shard in hand */
    int64_t hits, agreements, compared;
    double loss;
} Tally;

static int64_t top1(const float *x, int64_t classes, int64_t stride)
{
    int64_t best = 0;
    for (int64_t c = 1; c < classes; c++)
        if (x[c * stride] > x[best * stride]) best = c;
    return best;
}

static double log_sum_exp(const float *x, int64_t classes, int64_t stride)
{
    double top = (double)x[top1(x, classes, stride) * stride], sum = 0;
    for (int64_t c = 0; c < classes; c++) sum += exp((double)x[c * stride] - top);
    return top + log(sum);
}

/* Cross entropy against the reference's softmax. */
static double soft_loss(const float *y, const float *ref, int64_t classes, int64_t stride)
{
    double ly = log_sum_exp(y, classes, stride), lr = log_sum_exp(ref, classes, stride), loss = 0;
    for (int64_t c = 0; c < classes; c++)
        loss += exp((double)ref[c * stride] - lr) * (ly - (double)y[c * stride]);
    return loss;
}

static void tally_row(Tally *t, int64_t sample, const float *y, const float *ref)
{
    int64_t label = t->samples->labels ? t->samples->labels[sample] : -1;
    for (int64_t p = 0; p < t->inner; p++) {
        int64_t top = top1(y + p, t->classes, t->inner);
        t->compared++;
        if (label >= 0 && label < t->classes) {
            t->hits += top == label;
            t->loss += log_sum_exp(y + p, t->classes, t->inner) - (double)y[p + label * t->inner];
        }
        int32_t *kept = t->kept ? &t->kept[sample * t->inner + p] : NULL;
        if (!ref && kept) t->agreements += top == *kept;
        if (!ref) continue;
        int64_t answer = top1(ref + p, t->classes, t->inner);
        if (kept) *kept = (int32_t)answer;
        t->agreements += top == answer;
        if (!t->samples->labels) t->loss += soft_loss(y + p, ref + p, t->classes, t->inner);
    }
}

static int tally_shard(void *ctx, int64_t shard, Instance *inst)
{
    Tally *t = ctx;
    int64_t row = t->classes * t->inner;
    instance_read(inst, 0, t->y);
    if (t->reference) instance_read(inst, 1, t->ref);
    for (int64_t i = 0; i < feed_rows(t->feed, shard); i++)
        tally_row(t, feed_sample(t->feed, shard, i), t->y + i * row,
                  t->reference ? t->ref + i * row : NULL);
    return 0;
}

typedef struct Pair {
    Arena *arena;
    const Graph *g, *reference;
    const Samples *samples;
    Diag *d;
} Pair;

/* g's logits, and the reference's beside them, as outputs of one graph. */
static int side_by_side(ShardGraph *out, void *ctx, int64_t shard)
{
    const Pair *pair = ctx;
    Diag *d = pair->d;
    TRY(shard_specialize(&out->g, pair->g, pair->arena, pair->samples, shard, d));
    Graph *p = out->g;
    Value *y = graph_logits(p);
    p->noutputs = 0;
    graph_add_output(p, y);
    if (pair->reference) {
        Graph *r;
        TRY(shard_specialize(&r, pair->reference, pair->arena, pair->samples, shard, d));
        r->outputs[0] = graph_logits(r);
        r->noutputs = 1;
        Value *ref;
        graph_inline(p, r, p->inputs, &ref);
        graph_add_output(p, ref);
    }
    simplify_dce(p, pair->arena);
    const Type *t = &y->type;
    if (t->rank < 2 || t->dtype != DT_F32)
        return diag_error(d, "output '%s' is no float tensor of [batch, classes]", y->name);
    if (pair->reference && !type_equal(t, &p->outputs[1]->type))
        return diag_error(d, "outputs '%s' of the two networks differ in shape", y->name);
    return 0;
}

/* The room for the answers, if they are few enough; they are known once they have been written. */
static int32_t *answers_kept(Answers *known, int64_t n)
{
    enum { MOST = 1 << 22 };
    if (!known) return NULL;
    if (!known->top && n <= MOST) known->top = NEW_ARRAY(known->arena, int32_t, n);
    return known->top;
}

static int evaluate_in(Arena *a, Eval *out, const Graph *g, const Graph *reference, Answers *known,
                       const Samples *s, const Options *o, Diag *d)
{
    Session *session;
    const bool compared = reference != NULL;
    if (known && known->complete) reference = NULL;
    Pair pair = {a, g, reference, s, d};
    TRY(session_open(&session, a, g, shard_for(s->count), side_by_side, &pair, o, d));
    const Type *type = &session->g->outputs[0]->type;
    int64_t total = type_count(type);
    Tally t = {.feed = feed_new(a, session, s, s->count, NULL),
               .samples = s,
               .reference = reference,
               .classes = type->dim[1],
               .inner = total / (session->shard * type->dim[1]),
               .y = NEW_ARRAY(a, float, total),
               .ref = NEW_ARRAY(a, float, total)};
    t.kept = answers_kept(compared ? known : NULL, s->count * t.inner);
    int status = feed_run(t.feed, tally_shard, &t);
    double n = (double)t.compared;
    out->accuracy = s->labels ? (double)t.hits / n : -1;
    out->agreement = compared ? (double)t.agreements / n : -1;
    out->loss = t.loss / n;
    if (t.kept) known->complete = status == 0;
    return status;
}

int evaluate(Eval *out, const Graph *g, const Graph *reference, Answers *known, const Samples *s,
             const Options *o, Diag *d)
{
    *out = (Eval){.accuracy = -1, .agreement = -1};
    if (s->count == 0) return diag_error(d, "no samples to evaluate on");
    Arena *a = arena_new();
    int status = evaluate_in(a, out, g, reference, known, s, o, d);
    arena_free(a);
    return status;
}
