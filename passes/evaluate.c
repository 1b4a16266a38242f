/* Top-1 accuracy, agreement with a reference, error of the outputs against it, and loss, over
 * samples. The reference runs in the same program as the graph, on the same inputs, shard by shard.
 */
#include <math.h>
#include <string.h>

#include "ir/batch.h"
#include "passes/batches.h"

/* Elements per sample of the logits, then of every float output; the reference's likewise. */
typedef struct Tally {
    Feed *feed;
    const Samples *samples;
    bool compared;  /* there is a reference … */
    bool reference; /* … and it runs in the program */
    float *kept;    /* what it yields by sample, `row` elements each, read or written; or NULL */
    int n;          /* of outputs looked at, the logits first */
    int64_t *at;    /* of each in a sample's row; at[n] = row */
    int64_t *outer; /* of each: elements before its batch axis */
    int64_t shard;
    int64_t row;
    int64_t classes, inner;  /* logits are [rows, classes, inner] */
    float *buffer, *y, *ref; /* of the shard in hand: one output; rows of both */
    int64_t hits, agreements, compared_rows;
    double loss, *signal, *noise; /* per output */
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

static void tally_logits(Tally *t, int64_t sample, const float *y, const float *ref)
{
    int64_t label = t->samples->labels ? t->samples->labels[sample] : -1;
    for (int64_t p = 0; p < t->inner; p++) {
        int64_t top = top1(y + p, t->classes, t->inner);
        t->compared_rows++;
        if (label >= 0 && label < t->classes) {
            t->hits += top == label;
            t->loss += log_sum_exp(y + p, t->classes, t->inner) - (double)y[p + label * t->inner];
        }
        if (!ref) continue;
        t->agreements += top == top1(ref + p, t->classes, t->inner);
        if (!t->samples->labels) t->loss += soft_loss(y + p, ref + p, t->classes, t->inner);
    }
}

static void tally_outputs(Tally *t, const float *y, const float *ref)
{
    for (int o = 1; o < t->n; o++)
        for (int64_t k = t->at[o]; k < t->at[o + 1]; k++) {
            double e = (double)y[k] - (double)ref[k];
            t->signal[o] += (double)ref[k] * (double)ref[k];
            t->noise[o] += e * e;
        }
}

/* Outputs first … first + n - 1 of the program as a row per sample. */
static void read_rows(const Tally *t, Instance *inst, int first, float *rows, int64_t batch)
{
    for (int o = 0; o < t->n; o++) {
        const int64_t size = t->at[o + 1] - t->at[o];
        instance_read(inst, first + o, t->buffer);
        for (int64_t i = 0; i < batch; i++)
            batch_get(rows + i * t->row + t->at[o], t->buffer, t->outer[o], i, t->shard,
                      (size_t)size * sizeof *rows);
    }
}

static int tally_shard(void *ctx, int64_t shard, Instance *inst)
{
    Tally *t = ctx;
    const int64_t rows = feed_rows(t->feed, shard);
    read_rows(t, inst, 0, t->y, rows);
    if (t->reference) read_rows(t, inst, t->n, t->ref, rows);
    for (int64_t i = 0; i < rows; i++) {
        const int64_t sample = feed_sample(t->feed, shard, i);
        float *kept = t->kept ? t->kept + sample * t->row : NULL;
        const float *y = t->y + i * t->row, *ref = t->reference ? t->ref + i * t->row : kept;
        if (t->reference && kept) memcpy(kept, ref, (size_t)t->row * sizeof *ref);
        tally_logits(t, sample, y, ref);
        if (ref) tally_outputs(t, y, ref);
    }
    return 0;
}

typedef struct Pair {
    const Graph *g, *reference; /* NULL: none, or its answers are known */
    bool compared;
    const Samples *samples;
} Pair;

/* Makes its logits and, if all, every float output the outputs of p. Error: it has none. */
static int look_at(Graph *p, bool all, Diag *d)
{
    Value *y = graph_logits(p), **old = p->outputs;
    const int n = p->noutputs;
    if (!y) return diag_error(d, "the model has no float output to evaluate");
    p->outputs = NULL;
    p->noutputs = 0;
    graph_add_output(p, y);
    for (int o = 0; o < n && all; o++)
        if (old[o]->type.dtype == DT_F32 && old[o]->type.rank > 0) graph_add_output(p, old[o]);
    return 0;
}

/* g's outputs in question, and the reference's behind them, as outputs of one graph. */
static int side_by_side(ShardGraph *out, void *ctx, int64_t shard, Arena *a, Diag *d)
{
    const Pair *pair = ctx;
    TRY(shard_specialize(&out->g, pair->g, a, pair->samples, shard, d));
    Graph *p = out->g, *r;
    TRY(look_at(p, pair->compared, d));
    const int n = p->noutputs;
    if (pair->reference) {
        TRY(shard_specialize(&r, pair->reference, a, pair->samples, shard, d));
        TRY(look_at(r, true, d));
        Value **ref = NEW_ARRAY(a, Value *, r->noutputs);
        graph_inline(p, r, p->inputs, ref);
        for (int o = 0; o < r->noutputs; o++) graph_add_output(p, ref[o]);
    }
    simplify_dce(p, a);
    const Value *y = p->outputs[0];
    if (y->type.dtype != DT_F32 || (pair->samples->labels && y->type.rank < 2))
        return diag_error(d, "output '%s' is no float tensor of [batch, classes]", y->name);
    for (int o = n; o < p->noutputs; o++)
        if (!type_equal(&p->outputs[o]->type, &p->outputs[o - n]->type))
            return diag_error(d, "outputs '%s' of the two networks differ in shape",
                              p->outputs[o - n]->name);
    return 0;
}

/* The room for the answers, if they are few enough; they are known once they have been written. */
static float *answers_kept(Answers *known, int64_t n)
{
    enum { MOST = 1 << 22 };
    if (!known) return NULL;
    if (!known->y && n <= MOST) known->y = NEW_ARRAY(known->arena, float, n);
    return known->y;
}

/* Where the samples' rows are in each output. */
static void find_rows(Tally *t, Arena *a, const Session *session, Pair *pair)
{
    const int *axis = output_axes(a, session, side_by_side, pair);
    t->at = NEW_ARRAY(a, int64_t, t->n + 1);
    t->outer = NEW_ARRAY(a, int64_t, t->n);
    for (int o = 0; o < t->n; o++) {
        const Type *y = &session->g->outputs[o]->type;
        t->at[o + 1] = t->at[o] + type_count(y) / (axis[o] < 0 ? 1 : t->shard);
        t->outer[o] = batch_outer(y, axis[o]);
    }
}

static Tally tally_new(Arena *a, const Session *session, Pair *pair)
{
    const Graph *g = session->g;
    const bool reference = pair->reference != NULL;
    const Type *logits = &g->outputs[0]->type;
    Tally t = {.samples = pair->samples,
               .compared = pair->compared,
               .reference = reference,
               .shard = session->shard,
               .n = reference ? g->noutputs / 2 : g->noutputs};
    find_rows(&t, a, session, pair);
    t.row = t.at[t.n];
    t.classes = t.outer[0] == 1 && logits->rank > 1 && logits->dim[1] > 0 ? logits->dim[1] : 1;
    t.inner = t.at[1] / t.classes;
    t.buffer = NEW_ARRAY(a, float, largest_output(g));
    t.y = NEW_ARRAY(a, float, session->shard *t.row);
    t.ref = NEW_ARRAY(a, float, session->shard *t.row);
    t.signal = NEW_ARRAY(a, double, t.n);
    t.noise = NEW_ARRAY(a, double, t.n);
    return t;
}

static double largest_error(const Tally *t)
{
    double most = -1;
    for (int o = 1; o < t->n && t->compared; o++)
        most = fmax(most, sqrt(t->noise[o] / fmax(t->signal[o], 1e-30)));
    return most;
}

static int evaluate_in(Arena *a, Eval *out, const Graph *g, const Graph *reference, Answers *known,
                       const Samples *s, const Options *o, Diag *d)
{
    Session *session;
    const bool compared = reference != NULL;
    if (known && known->complete) reference = NULL;
    Pair pair = {g, reference, compared, s};
    TRY(session_open(&session, a, g, s, shard_for(s->count), side_by_side, &pair, o, d));
    Tally t = tally_new(a, session, &pair);
    t.feed = feed_new(a, session, s, s->count, NULL);
    t.kept = answers_kept(compared ? known : NULL, s->count * t.row);
    int status = feed_run(t.feed, tally_shard, &t);
    double n = (double)t.compared_rows;
    out->accuracy = s->labels ? (double)t.hits / n : -1;
    out->agreement = compared ? (double)t.agreements / n : -1;
    out->error = largest_error(&t);
    out->loss = t.loss / n;
    if (t.kept) known->complete = status == 0;
    return status;
}

int evaluate(Eval *out, const Graph *g, const Graph *reference, Answers *known, const Samples *s,
             const Options *o, Diag *d)
{
    *out = (Eval){.accuracy = -1, .agreement = -1, .error = -1};
    if (s->count == 0) return diag_error(d, "no samples to evaluate on");
    Arena *a = arena_new();
    int status = evaluate_in(a, out, g, reference, known, s, o, d);
    arena_free(a);
    return status;
}
