/* What fine-tuning is to do. */
#ifndef EHAP_PASSES_TRAIN_TRAIN_RECIPE_H
#define EHAP_PASSES_TRAIN_TRAIN_RECIPE_H

#include "passes/train/optimizer.h"
#include "passes/train/train_graph.h"

/* What to do, from options, defaults and the graph. */
typedef struct TrainRecipe {
    TrainSetup setup;
    int64_t most; /* samples of a shard where the graph leaves it open; 0: the usual */
    OptimizerKind optimizer;
    double lr; /* as given; < 0: train_rate chooses */
    double range_lr, range_momentum;
    double total;   /* steps of the float and the integer phase; 0: only time counts */
    int64_t steps;  /* of this phase; likewise */
    double seconds; /* 0: only steps count */
    bool augment;
    double loss_scale;   /* to begin with, in half precision; 0: the usual */
    int64_t held_out;    /* samples that judge; 0: none, the last state is taken; < 0: choose */
    int64_t state_every; /* steps between states left for --resume */
} TrainRecipe;

/* All but the learning rate. Errors: an option's value that does not exist. */
int train_recipe(TrainRecipe *out, Context *c, const char *opt);
/* The rate of the steps; `norms`: normalizations are trained. */
double train_rate(const TrainRecipe *r, const Context *c, bool norms);

#endif
