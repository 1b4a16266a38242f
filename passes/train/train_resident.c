/* A training step whose state lives on a device with memory of its own (train_update.c): samples,
 * labels and rates go up, a report comes down, and the next step's samples are on their way before
 * it is waited for. Over several ranks each runs its shards, the sums become one between the
 * devices, and every rank takes the same step. */
#include <math.h>
#include <string.h>

#include "passes/train/trainer.h"

static float *home_of(Trainer *t, const TrainState *s, Arena *a)
{
    switch (s->kind) {
    case STATE_WEIGHT:
        return t->params[s->index].data;
    case STATE_MOMENT_1:
        return t->params[s->index].m;
    case STATE_MOMENT_2:
        return t->params[s->index].v;
    case STATE_SCALE:
        return t->scales[s->index];
    case STATE_MEAN:
        return t->running[s->index].mean;
    case STATE_VARIANCE:
        return t->running[s->index].variance;
    case STATE_SUM:
        break;
    }
    return NEW_ARRAY(a, float, s->count);
}

void resident_start(Trainer *t, Arena *a)
{
    const TrainUpdate *u = &t->update;
    t->push = true;
    t->report = NEW_ARRAY(a, float, u->nreport);
    t->home = NEW_ARRAY(a, float *, u->nstate);
    t->saved = NEW_ARRAY(a, int, u->nstate);
    for (int k = 0; k < u->nstate; k++) {
        t->home[k] = home_of(t, &u->state[k], a);
        if (resident_is_saved(u->state[k].kind)) t->saved[t->nsaved++] = u->in[k];
    }
}

/* Element by element: the feed reads `index` where it is. */
static void swap_batches(Trainer *t)
{
    for (int64_t i = 0; i < t->recipe.setup.batch; i++) {
        const int64_t x = t->index[i];
        t->index[i] = t->next[i];
        t->next[i] = x;
    }
}

/* Draws and sends the next step's first shard while the device works on this step. Not before a
 * state is left for --resume, in which that draw would have happened. */
static void send_next(Trainer *t, Instance *inst)
{
    if (t->c->checkpoint && (t->step + 1) % t->recipe.state_every == 0) return;
    if (!t->drawn_next) trainer_draw(t, t->next);
    swap_batches(t);
    t->step++;
    trainer_bind_samples(t, ranks_index(), inst);
    t->step--;
    swap_batches(t);
    instance_send(inst);
    t->drawn_next = t->sent_next = true;
}

bool resident_is_saved(StateKind kind)
{
    return kind == STATE_WEIGHT || kind == STATE_SCALE || kind == STATE_MEAN ||
           kind == STATE_VARIANCE;
}

static void push_state(Trainer *t, Instance *inst)
{
    const TrainUpdate *u = &t->update;
    if (t->instance != inst) {
        const int rest = u->nstate - u->nsums;
        instance_carry(inst, STAGE_SHARD, u->nsums, u->out, u->in);
        instance_carry(inst, STAGE_UPDATE, rest, u->out + u->nsums, u->in + u->nsums);
        instance_bind(inst, u->rates, t->rates);
    }
    t->instance = inst;
    for (int k = 0; k < u->nstate; k++) instance_bind(inst, u->in[k], t->home[k]);
    t->push = false;
}

void resident_pull(Trainer *t, bool moments)
{
    const TrainUpdate *u = &t->update;
    if (!t->ahead) return;
    for (int k = u->nsums; k < u->nstate; k++) {
        if (moments || !is_moment(u->state[k].kind))
            instance_read(t->instance, u->out[k], t->home[k]);
    }
}

int resident_work(void *ctx, int64_t shard, Instance *inst)
{
    static const uint8_t fresh[2] = {0, 1};
    Trainer *t = ctx;
    if (t->push) push_state(t, inst);
    const bool first = shard < ranks_count(); /* of this rank's */
    if (!first || !t->sent_next) trainer_bind_samples(t, shard, inst);
    t->sent_next = false;
    if (first) trainer_bind_numbers(t, inst);
    if (t->update.fresh >= 0) instance_bind(inst, t->update.fresh, &fresh[first]);
    instance_run(inst, STAGE_SHARD);
    return 0;
}

/* The update finds gradients that are no numbers, and leaves all state as it is. */
double resident_judge(Trainer *t, int64_t shard)
{
    static const uint8_t fresh = 1;
    Instance *inst = session_instance(t->session);
    if (t->push) push_state(t, inst);
    trainer_bind_samples(t, shard, inst);
    trainer_bind_numbers(t, inst);
    if (t->update.fresh >= 0) instance_bind(inst, t->update.fresh, &fresh);
    instance_run(inst, STAGE_SHARD);
    train_update_rates(t->rates, &t->optimizer, 0, 0, (double)NAN, 1);
    instance_bind(inst, t->update.rates, t->rates);
    instance_run(inst, STAGE_UPDATE);
    instance_read(inst, 0, t->report);
    t->sent_next = false; /* other samples lie there */
    return (double)t->report[REPORT_JUDGED];
}

void resident_update(Trainer *t)
{
    Instance *inst = t->instance;
    if (ranks_count() > 1)
        instance_over_ranks(inst, t->update.nsums, t->update.out, t->update.over);
    train_update_rates(t->rates, &t->optimizer, t->lr, t->range_lr, 1 / (double)t->loss_scale.value,
                       feed_shards(t->feed));
    instance_bind(inst, t->update.rates, t->rates);
    instance_run(inst, STAGE_UPDATE);
    send_next(t, inst);
    instance_read(inst, 0, t->report);
    t->loss = (double)t->report[REPORT_LOSS];
    for (int i = 0; i < t->t.nextremes; i++) {
        const float *e = t->report + REPORT_EXTREMES + (ptrdiff_t)2 * i;
        moving_range_see(&t->ranges[t->t.extremes[i].range], e[0], e[1]);
    }
}
