/* Ranges of activations that follow the data while training, instead of being learned. */
#ifndef EHAP_PASSES_TRAIN_MOVING_RANGE_H
#define EHAP_PASSES_TRAIN_MOVING_RANGE_H

#include "passes/train/train_graph.h"

typedef struct MovingRange {
    float ends[2]; /* lo <= 0 <= hi: the average, all that training has to remember */
    Range batch;   /* of this step's shards so far, and 0 */
    Grid grid;     /* of the average */
    float most;    /* bound of its scale, as `scale_max` of FakeQuant; 0: none */
} MovingRange;

/* Begins with what the grid in the graph covers. */
void moving_range_start(MovingRange *m, const TrainRange *r);
/* A new step; then its shards' extremes, in any order. */
void moving_range_begin_step(MovingRange *m);
void moving_range_see(MovingRange *m, float lo, float hi);
/* ends <- momentum ends + (1 - momentum) batch; a batch that is not finite, or nothing but
 * zeros, changes nothing. */
void moving_range_follow(MovingRange *m, float momentum);
/* The grid from the average. */
void moving_range_settle(MovingRange *m, const TrainRange *r);
/* Puts the grid into the constants that it came from, and its bound on the nodes that read them. */
void moving_range_take_home(const MovingRange *m, const TrainRange *r);

#endif
