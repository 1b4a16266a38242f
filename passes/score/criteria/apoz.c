/* apoz: the share of positions where the channel's activation is above zero after the first Relu
 * behind its gate (Hu et al. 2016, who remove channels of many zeros). A channel without a Relu
 * scores 1. Programs count by ReduceMean over the sign of the Relu. */
#include "passes/score/criteria.h"

/* The Relu that v reaches alone or through additions; NULL if there is none. */
static Value *relu_behind(const Uses *u, Value *v)
{
    for (int depth = 0; depth < 8; depth++) {
        Value *next = NULL;
        for (int k = 0; k < u->n[v->id]; k++) {
            const Node *n = u->at[v->id][k];
            if (n && n->op == OP_Relu) return n->out[0];
            if (n && (n->op == OP_Add || n->op == OP_BatchNormalization)) next = n->out[0];
        }
        if (!next) break;
        v = next;
    }
    return NULL;
}

/* Per channel, the mean over a shard of [y > 0]. */
static Value *positive_share(Graph *g, Value *y, int axis)
{
    int64_t axes[MAX_RANK];
    int n = 0;
    for (int k = 0; k < y->type.rank; k++)
        if (k != axis) axes[n++] = k;
    Value *on = build(g, OP_Greater, IN(y, const_f32(g, 0)), NO_ATTRS);
    Value *one = build(g, OP_Cast, IN(on), ATTRS(attr_int("to", DT_F32)));
    return build(g, OP_ReduceMean, IN(one, const_ints(g, n, axes)), ATTRS(attr_int("keepdims", 0)));
}

typedef struct Apoz {
    Scoring *s;
    Session *session;
    Feed *feed;
    int *layer; /* of each output */
    int noutputs;
    float *x;
    Moments *m;
} Apoz;

static int reduce(void *ctx, int64_t shard, Instance *inst)
{
    Apoz *q = ctx;
    const Groups *gr = q->s->groups;
    (void)shard;
    for (int o = 0; o < q->noutputs; o++) {
        int k = q->layer[o];
        instance_read(inst, o, q->x);
        for (int64_t c = 0; c < gr->layers[k].channels; c++)
            moments_add(&q->m[gr->first[k] + c], (double)q->x[c]);
    }
    return 0;
}

static int build_shard(ShardGraph *out, void *ctx, int64_t shard, Arena *a, Diag *d)
{
    Apoz *q = ctx;
    Scoring *s = q->s;
    ScoredLayer *layers;
    s->shard = shard;
    TRY(shard_specialize(&out->g, s->model, a, s->c->data, shard, d));
    Graph *g = out->g;
    int n = scored_layers(g, a, &layers);
    Uses u = graph_uses(g, a);
    q->layer = NEW_ARRAY(a, int, n);
    q->noutputs = g->noutputs = 0;
    for (int k = 0; k < n; k++) {
        Value *y = relu_behind(&u, layers[k].gate);
        if (!y || y->type.dim[layers[k].gate_axis] != layers[k].channels) continue;
        q->layer[q->noutputs++] = k;
        graph_add_output(g, positive_share(g, y, layers[k].gate_axis));
    }
    return simplify_dce(g, a);
}

int criterion_apoz(Scoring *s)
{
    const Context *c = s->c;
    const Groups *gr = s->groups;
    int channels = gr->first[gr->nlayers];
    Apoz q = {.s = s, .x = NEW_ARRAY(s->arena, float, channels)};
    q.m = NEW_ARRAY(s->arena, Moments, channels);
    for (int i = 0; i < channels; i++) s->score[i] = 1;
    TRY(session_open(&q.session, s->arena, s->model, c->data, 0, build_shard, &q, &c->opt,
                     c->diag));
    if (!q.noutputs) return 0;
    q.feed = feed_new(s->arena, q.session, c->data, s->n, NULL);
    int status = feed_run(q.feed, reduce, &q);
    s->bytes = q.session->bytes;
    session_close(q.session);
    for (int i = 0; i < channels; i++)
        if (q.m[i].n) s->score[i] = q.m[i].mean, s->error[i] = moments_error(&q.m[i]);
    return status;
}
