/* The optimizer as part of a training program, for a device with memory of its own. */
#ifndef EHAP_PASSES_TRAIN_TRAIN_UPDATE_H
#define EHAP_PASSES_TRAIN_TRAIN_UPDATE_H

#include "passes/train/optimizer.h"
#include "passes/train/train_graph.h"

enum { STAGE_SHARD, STAGE_UPDATE };

/* What a value that is carried from run to run is, and of which parameter, scale, norm or sum. */
typedef enum StateKind {
    STATE_WEIGHT,
    STATE_MOMENT_1,
    STATE_MOMENT_2,
    STATE_SCALE,
    STATE_MEAN,
    STATE_VARIANCE,
    STATE_SUM, /* over the shards of a step */
} StateKind;

/* Moments begin anew where training goes back, and stay where they are when it ends. */
static inline bool is_moment(StateKind k) { return k == STATE_MOMENT_1 || k == STATE_MOMENT_2; }

typedef struct TrainState {
    StateKind kind;
    int index;
    int64_t count; /* floats */
} TrainState;

/* Input `rates`. */
enum {
    RATE,
    RATE_OF_RANGES,
    RATE_MOMENT_1,
    RATE_MOMENT_2,
    RATE_UNSCALE,
    RATE_SHARE, /* of a shard in the step: 1 / shards */
    RATES
};

/* Output 0: loss of the batch, square of the gradient's norm or what is not finite,
 * TrainGraph.judged of the batch, then least and largest of each TrainExtreme. */
enum { REPORT_LOSS, REPORT_SQUARES, REPORT_JUDGED, REPORT_EXTREMES };

typedef struct TrainUpdate {
    const uint8_t *stage; /* of the graph's inputs */
    int rates, fresh;     /* inputs; fresh: -1 where a step has one shard */
    int nreport;
    /* State k: output out[k] of stage carry[k] is the next input in[k]; those of the shard stage
     * come first. */
    TrainState *state;
    int *in, *out;
    RankOp *over; /* by sum: how those of several ranks become one */
    int nstate, nsums;
} TrainUpdate;

/* Appends to t->g, whose outputs become the report and the state. Stage 0, a shard, adds to sums
 * over the step's shards (with several ranks also where it is one); stage 1 updates parameters,
 * moments, scales and running statistics (their share `norm_momentum` of the new), each of them
 * unless the report's second number, or the loss, is not finite. */
int train_update_build(TrainUpdate *out, TrainGraph *t, Arena *a, const Optimizer *o,
                       int64_t shards, double norm_momentum);

/* The numbers of `rates` for the update after `updates` others. */
void train_update_rates(float *rates, const Optimizer *o, double lr, double range_lr,
                        double unscale, int64_t shards);

#endif
