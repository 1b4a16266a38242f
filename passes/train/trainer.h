/* What training holds: shared by train.c, train_state.c, held_out.c and, for devices with memory of
 * their own, train_resident.c. */
#ifndef EHAP_PASSES_TRAIN_TRAINER_H
#define EHAP_PASSES_TRAIN_TRAINER_H

#include "passes/batches.h"
#include "passes/train/augment.h"
#include "passes/train/loss_scale.h"
#include "passes/train/moving_range.h"
#include "passes/train/optimizer.h"
#include "passes/train/train_recipe.h"
#include "passes/train/train_update.h"

/* Running statistics of one normalization, kept beside the graph until the end. */
typedef struct Running {
    float *mean, *variance;         /* the averages */
    float *sum_mean, *sum_variance; /* of this step's shards */
    int64_t channels;
} Running;

/* The samples that training is judged by. */
typedef struct HeldOut {
    int64_t *index, n;
    bool apart; /* it does not see them; else there are too few to do without */
    double sum; /* of the loss over shards */
} HeldOut;

typedef struct Trainer {
    Context *c;
    Arena *arena;
    TrainRecipe recipe;
    TrainGraph t;
    Session *session;
    Feed *feed;
    Augment augment;
    bool augmented;
    HeldOut held;
    bool judging; /* samples are those held out, as they are */
    int64_t step, drawn;
    int64_t *order, *index;     /* the epoch's permutation, behind it what is held out; the batch */
    int64_t seen;               /* samples in the permutation */
    int64_t *next;              /* the batch after it, drawn while a device worked … */
    bool drawn_next, sent_next; /* … and its first shard sent */
    Rng shuffle;
    Optimizer optimizer;
    Parameter *params;
    Running *running;
    MovingRange *ranges;
    float **scales; /* per TrainScale */
    float *buffer;  /* one output, or one varied image per thread's turn */
    float *scratch; /* images being varied: one per shard */
    LossScale loss_scale;
    double loss;   /* of the step in hand */
    bool resident; /* state lives on the device */
    bool push;     /* … and the host's, which is newer, has to go there */
    bool ahead;    /* … and is newer than the host's */
    TrainUpdate update;
    bool *nothing;      /* nothing in the network can be trained */
    Instance *instance; /* … of which there is one */
    float rates[RATES], *report;
    float **home;        /* by TrainUpdate.state */
    int *saved, nsaved;  /* … the inputs of which a snapshot is kept there */
    double lr, range_lr; /* of the step in hand */
} Trainer;

/* train.c: the next batch's samples into index[batch]; a shard's samples and labels; what ranges
 * and the loss scale are now; all that a program on the host reads. */
void trainer_draw(Trainer *t, int64_t *index);
void trainer_bind_samples(Trainer *t, int64_t shard, Instance *inst);
void trainer_bind_numbers(Trainer *t, Instance *inst);
void trainer_bind_all(Trainer *t, int64_t shard, Instance *inst);
/* The grids that follow ranges; weights too. */
void trainer_update_ranges(Trainer *t);
void trainer_update_grids(Trainer *t);

/* train_state.c */
/* Weights, statistics and ranges at a step to which training may go back; moments begin anew. */
typedef struct TrainSnapshot {
    float *values;
    int64_t size;
    int64_t step;
    bool on_device; /* all but the ranges */
} TrainSnapshot;
TrainSnapshot snapshot_new(Trainer *t, Arena *a); /* of now */
void snapshot_save(Trainer *t, TrainSnapshot *s);
void snapshot_restore(Trainer *t, const TrainSnapshot *s);
/* The same in the host's memory, wherever the state is; and back there, for the end. */
void snapshot_bring(Trainer *t, TrainSnapshot *s);
void snapshot_end_with(Trainer *t, const TrainSnapshot *s);
/* Puts what was learned into the graph's constants. */
void trainer_take_home(Trainer *t);

/* The loss over the last steps, and the best it has been. */
typedef struct TrainWatch {
    double average, best;
    int64_t steps; /* in the average */
} TrainWatch;

/* The losses on held-out samples so far. */
typedef struct TrainBest {
    double first, least;      /* before the first step; of the best state, at `step` */
    double latest;            /* at step `at` */
    int64_t step, at, judged; /* judged: how often */
} TrainBest;

/* What the next step depends on, besides arrays. */
typedef struct TrainLoop {
    int64_t step, drawn, updates, good_step;
    Rng shuffle;
    LossScale loss_scale;
    TrainWatch watch;
    TrainBest best;
    double factor, seconds, start; /* of the rate; spent so far, counted from `start` */
    double due;                    /* the part of the way at which the state is judged next */
    int64_t retreats;
} TrainLoop;
/* The last good state, and the best that was judged so far. */
typedef struct TrainStates {
    TrainSnapshot good, best;
} TrainStates;
/* Leaves all of it in the folder of --resume; takes it up if an earlier process was stopped in this
 * pass. */
int trainer_leave(Trainer *t, TrainLoop *loop, TrainStates *s);
void trainer_take_up(Trainer *t, TrainLoop *loop, TrainStates *s);

/* held_out.c */
/* Holds samples out: the last of t->order, of which training then sees the first t->seen. */
void held_out_choose(Trainer *t, Arena *a);
/* Judges the state in hand, and keeps it in *best if none was better. */
int held_out_judge(Trainer *t, TrainBest *b, TrainSnapshot *best);
/* Whether the state judged last is much worse than the best. */
bool held_out_far(const TrainBest *b);
/* Puts the best state into the graph, and says which one where it is not the last. */
void held_out_decide(Trainer *t, const TrainBest *b, const TrainSnapshot *best);

/* train_resident.c */
void resident_start(Trainer *t, Arena *a);                   /* once params are made */
int resident_work(void *ctx, int64_t shard, Instance *inst); /* of session_run: a shard of a step */
/* After a step's shards: the sums of all ranks, the update, and what the host has to know of it. */
void resident_update(Trainer *t);
/* The loss of the outputs on a shard of what t->index names; no state changes. */
double resident_judge(Trainer *t, int64_t shard);
/* The host's copy of the device's state; of moments only where they are wanted. */
void resident_pull(Trainer *t, bool moments);
/* Whether the state kind is part of a snapshot: moments begin anew, sums with every step. */
bool resident_is_saved(StateKind kind);

#endif
