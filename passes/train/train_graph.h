/* The program of one training shard: student, teacher, loss and gradients as one graph. */
#ifndef EHAP_PASSES_TRAIN_TRAIN_GRAPH_H
#define EHAP_PASSES_TRAIN_TRAIN_GRAPH_H

#include "passes/quant/calibrate.h"

/* Where scale and zero point of activations' grids come from while training. */
typedef enum RangeMode { RANGES_LEARNED, RANGES_MOVING_AVERAGE, RANGES_FIXED } RangeMode;

typedef struct TrainSetup {
    int64_t batch;  /* samples per update: the loss is their mean */
    int64_t shard;  /* samples per run of the program */
    double distill; /* weight of the teacher's labels, in [0, 1]; the rest is for the given ones */
    double temperature; /* of the teacher's soft labels */
    double hints;       /* weight of the distance to the teacher's residual sums */
    RangeMode ranges;   /* of activations; learned ones are parameters */
    DType precision;    /* of activations and products: DT_F16, DT_BF16; else float */
    bool freeze_norms;  /* BatchNormalization keeps its running statistics */
} TrainSetup;

/* A constant of the trained graph that is an input of the training graph. */
typedef struct TrainParam {
    Value *home;       /* in the trained graph */
    int input, output; /* of the training graph: the parameter, its gradient */
    bool decay, scale; /* weight decay; a positive scale of a grid */
    float least, most; /* bounds of a scale; 0: none */
} TrainParam;

/* The scales of a weight's grid, recomputed from the weight before every step. */
typedef struct TrainScale {
    Value *home;
    int input, param, axis, qmax;
} TrainScale;

/* A normalization in training mode: its outputs are the shard's statistics. */
typedef struct TrainNorm {
    Value *mean, *variance; /* in the trained graph */
    int mean_output, variance_output;
    double correction; /* n / (n - 1) for the n elements that a shard averages per channel */
} TrainNorm;

/* The grid of activations whose range follows the data: both constants are inputs. */
typedef struct TrainRange {
    Value *scale, *zero; /* in the trained graph */
    int scale_input, zero_input;
    GridKind kind;
    float top; /* the grid does not pass it (a Clip's limit); 0: no such bound */
} TrainRange;

/* The least and largest element, in the shard, of one of the activations on a TrainRange. */
typedef struct TrainExtreme {
    int range, least_output, most_output;
} TrainExtreme;

typedef struct TrainGraph {
    Graph *g; /* output 0: this shard's share of the batch's mean loss */
    int64_t shard;
    int judged;     /* output: the loss without hints; 0: the loss is that */
    int labels;     /* input for one-hot labels, -1: none */
    int loss_scale; /* input, a number: gradients are of so many losses; -1: of one */
    TrainParam *params;
    TrainScale *scales;
    TrainNorm *norms;
    TrainRange *ranges;
    TrainExtreme *extremes;
    int nparams, nscales, nnorms, nranges, nextremes;
    bool classifies; /* cross-entropy; else mean squared difference to the original's outputs */
} TrainGraph;

/* Builds it from c->graph (trained), c->original (teacher) and c->data in arena a. Classifiers
 * ([batch, classes] outputs) learn by cross-entropy from labels where the data has them, and from
 * the teacher's softmax; anything else by squared differences to the teacher. -1 without a message:
 * it has nothing to train. */
int train_graph_build(TrainGraph *out, Context *c, Arena *a, const TrainSetup *setup);

/* Whether the graph holds FakeQuant nodes. */
bool graph_is_fake_quantized(const Graph *g);

#endif
