/* Passes: IR to IR. One pass, one file; pass.c runs them and nobody else does. */
#ifndef EHAP_PASSES_H
#define EHAP_PASSES_H

#include <stdio.h>

#include "ir/ir.h"
#include "ir/lanes.h"
#include "ir/samples.h"
#include "runtime/runtime.h"

typedef enum Budget { BUDGET_FLOPS, BUDGET_PARAMS, BUDGET_CHANNELS } Budget;

/* What the command line says; zero values mean "choose". */
typedef struct Options {
    Budget budget;
    double keep;                             /* fraction kept of the budgeted quantity, (0, 1] */
    const char *criterion;                   /* a name from criteria.def */
    const char *precision, *train_precision; /* names of lower_precision.c; "auto"; NULL: fp32 */
    int probes;                              /* upper bound */
    int batch;
    int64_t steps;          /* training; <= 0: as epochs and seconds say, or choose */
    double epochs, seconds; /* --epochs, --time */
    float lr;               /* 0: choose */
    int rounds;             /* score-remove rounds; 0: choose */
    int align;              /* channels kept in multiples of this; 0: 8 */
    const char *shape;      /* --shape: "x=1x3x224x224,…" */
    const int64_t *dims; /* by symbol: what open dimensions are taken as (sizes.c); -1: nothing */
    int ndims;
    const char *keep_nodes, *exclude; /* node names, as name_list has them */
    const char *attention;   /* "heads": whole ones; NULL, "widths": of all together; "both" */
    const char *distill;     /* values to train on, comma-separated; NULL: the outputs */
    const char *target;      /* a name from targets.c; NULL: "ort" */
    double quant_drop;       /* largest relative error one layer may cost; 0: any */
    double least_sqnr;       /* dB that its own grids must leave a layer; 0: choose */
    double least_output;     /* dB that all grids must leave each output; 0: choose */
    const char *calibration; /* "mse", "entropy", …; NULL: "mse" */
    const char *ranges;      /* while training: "learned", …; NULL: "learned" */
    int weight_bits;         /* 7 or 8; 0: 7 */
    int64_t seed;
    int threads;        /* 0: all */
    const char *device; /* "cpu" */
    bool made_up;       /* samples were made from the model: a run without data is to be short */
    size_t memory;      /* bytes the run may take; 0: no limit */
    bool whole_process; /* plans, and `memory`, count the process's resident set; else just plans */
    bool verify;        /* the verifier after every pass */
    const char *dump_before, *dump_after, *dump_dir; /* a pass name, or "all" */
    bool time_passes;
    bool print_plan; /* of every program that a session runs */
} Options;

/* How many threads may run. */
static inline int options_threads(const Options *o)
{
    return o->threads > 0 ? o->threads : runtime_cpu_count();
}

/* One score per output channel of one weight, and its standard error. */
typedef struct LayerScores {
    const char *node, *weight;
    int n;
    double *score, *error;
} LayerScores;

typedef struct Scores {
    const char *criterion, *precision;
    int probes;
    double seconds;
    size_t peak_bytes;
    LayerScores *layers;
    int nlayers;
} Scores;

/* What a training pass came to: the loss of the outputs on samples that it did not train on, before
 * and with the weights that it left, which are those of step `kept` (0: as they were). */
typedef struct TrainRecord {
    int64_t samples, steps, kept; /* samples 0: it did not train */
    double before, after;
} TrainRecord;

typedef struct PassRecord {
    const char *name;
    double seconds;
    size_t peak_bytes; /* of the programs it planned; 0: none */
    TrainRecord train;
} PassRecord;

typedef struct LayerReport {
    const char *node;
    int64_t before, after;
    int64_t flops;         /* of the node before */
    const char *pinned_by; /* NULL: prunable */
} LayerReport;

/* What quantization costs a product, by passes/quant/sqnr.c. */
typedef struct QuantReport {
    const char *node;
    double sqnr;   /* dB, all products quantized */
    double own;    /* dB, by its own grids and those between it and the products before it */
    double cost;   /* relative error of the outputs with it alone quantized, < 0: not asked */
    bool in_float; /* kept there */
} QuantReport;

/* How the network does, in the order of the work. */
typedef enum Stage {
    STAGE_INPUT,
    STAGE_PRUNED,
    STAGE_RECONSTRUCTED,
    STAGE_TRAINED,
    STAGE_OUTPUT,
    STAGES
} Stage;
typedef struct StageReport {
    double accuracy; /* a fraction; < 0: not measured, or the outputs are no scores of classes */
    double error;    /* |y - y0| / |y0|, y0 the original's, of the output where it is largest */
} StageReport;

/* What happened, for --json and the table; checkpoint.c stores all of it. */
typedef struct Report {
    PassRecord *passes;
    int npasses, cap_passes;
    LayerReport *layers;
    int nlayers;
    QuantReport *quantized;
    int nquantized;
    double proof_max_diff; /* of the latest remove-channels; < 0: none ran */
    StageReport stage[STAGES];
    bool labelled; /* else accuracy is the agreement with the original */
} Report;

/* Which indices of an axis of the original's value `name` the graph's value of that name still
 * has. allocate notes it for every axis that has lost lanes. */
typedef struct Survivors {
    const char *name;
    int axis;
    int64_t n;
    const int64_t *index;
} Survivors;

/* What a pass returns, without an error, when there was nothing it could remove. */
enum { STATUS_NOTHING = 3 };

/* Everything a pass may see. Lives for one run of the tool. */
typedef struct Context {
    Arena *arena;               /* of the run */
    Graph *graph;               /* what passes rewrite; they may replace it by another */
    const Graph *original;      /* canonical, untouched: the teacher, and the proof's reference */
    const Graph *apart;         /* nodes compressed in another context; NULL: none */
    const Samples *data, *eval; /* eval NULL: none given */
    Options opt;
    Scores *scores;       /* of `graph`, by the latest sensitivity */
    Scores *chosen_by;    /* what the latest allocate went by; NULL: none ran */
    const bool *removed;  /* what allocate chose: a flag per lane class of `graph` */
    Lanes *lanes;         /* of `graph`, made by allocate, used by remove-channels */
    Survivors *survivors; /* of `original`, once what allocate chose is removed */
    int nsurvivors;
    Report report;
    Diag *diag;
    /* Progress of the running pass, 0..1, with a short text; may be NULL. */
    void (*progress)(void *ctx, const char *pass, double fraction, const char *text);
    void *progress_ctx;
    size_t peak_bytes; /* the running pass notes the largest plan here */
    /* Going on after an interruption (checkpoint.h); pass_run keeps all of it. */
    const char *checkpoint;     /* folder that receives the state after every pass; NULL: none */
    uint64_t checkpoint_key;    /* tells runs apart */
    int done, skip;             /* passes done; those still to come that an earlier process did */
    int depth;                  /* passes that are running */
    const struct Pass *running; /* the innermost; NULL: none */
    struct Context *safe;       /* as it was before the running pass, for the dump of a crash */
} Context;

typedef struct Pass {
    const char *name, *help;
    const char *options; /* "steps=N;lr=R": all that it knows, with what they take */
    bool samples;        /* runs the network on c->data */
    /* opt: the text between braces in --passes "name{…}", "" if none. -1 after an error,
     * STATUS_NOTHING when there was nothing to remove. */
    int (*run)(Context *c, const char *opt);
} Pass;

extern const Pass passes[]; /* from passes.def; ends with a NULL name */
const Pass *pass_find(const char *name);

/* Runs one pass: dump before, time, run, verify, dump after, record, checkpoint. A pass that an
 * earlier process has done is only counted. */
int pass_run(Context *c, const Pass *p, const char *opt);
typedef struct PassCall {
    const Pass *pass;
    const char *opt;
} PassCall;
/* "canonicalize,allocate{flops=0.5}": the number of calls, in the context's arena; -1 after an
 * error, as of an option that its pass does not know. */
int pipeline_parse(Context *c, const char *text, PassCall **calls);
/* All of it in order, if all of it can be parsed. */
int pass_run_pipeline(Context *c, const char *pipeline);
/* The value of key in "a=1;b=2", or NULL; copied into the arena. Within pass_run the pass must list
 * the key in passes.def. */
const char *pass_option(Context *c, const char *opt, const char *key);
/* The number behind key, within [least, most], whole for pass_int (below 2^31); without the key *x
 * stays what it is. Error: it is none. */
int pass_number(double *x, Context *c, const char *opt, const char *key, double least, double most);
int pass_int(int64_t *x, Context *c, const char *opt, const char *key, int64_t least);
/* The place of key's value among names, which end with NULL; without the key *k stays what it is.
 * Error: it is none of them. */
int pass_choice(int *k, Context *c, const char *opt, const char *key, const char *const *names);
void pass_progress(Context *c, double fraction, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define PASS(name, function, ...) int function(Context *c, const char *opt);
#include "passes/passes.def"
#undef PASS

/* ---- services that passes share ------------------------------------------------------ */

/* autodiff.c. Appends to g nodes that compute the gradient of the scalar `loss` by each
 * wrt[i]; NULL where the loss does not depend on it. Static shapes only. */
int ad_grad(Graph *g, Value *loss, int n, Value *const *wrt, Value **grad, Diag *d);
/* Cotangents of several outputs at once (dy given), instead of a scalar loss. */
int ad_vjp(Graph *g, int ny, Value *const *y, Value *const *dy, int n, Value *const *wrt,
           Value **dx, Diag *d);
/* Tangents of y[] when x[i] moves by dx[i]. NULL where zero. */
int ad_jvp(Graph *g, int nx, Value *const *x, Value *const *dx, int ny, Value *const *y, Value **dy,
           Diag *d);

/* loss.c. Sum over the batch of -sum_c t_c log softmax(z)_c, times 1/total; t is a graph value
 * [N, C] of target probabilities (one-hot for labels, the teacher's softmax otherwise). */
Value *loss_cross_entropy(Graph *g, Value *logits, Value *target, double total);
/* Sum over the batch of squared differences, times 1/total. */
Value *loss_mse(Graph *g, Value *y, Value *target, double total);

/* The classifier's logits: the value before the first final Softmax over a row per sample, else
 * what the first float output is made of likewise. It is F32 where one of the outputs is; NULL:
 * none is float at all. */
Value *graph_logits(const Graph *g);

/* fold.c, cse.c, dce.c, usable by any pass on any graph: what the passes of the same names do. */
int simplify_fold(Graph *g, Arena *scratch, Diag *d); /* constants and shape arithmetic */
/* graph_specialize_mapped, and the shape arithmetic that the bound dimensions settle folded: those
 * values of the map are read by nobody. */
Graph *simplify_specialize(const Graph *g, Arena *a, const int64_t *dims, Value ***map, Diag *d);
int simplify_cse(Graph *g, Arena *scratch);
int simplify_dce(Graph *g, Arena *scratch);

/* lower_precision.c: F16 or BF16 storage for every float activation and product; softmax and
 * reductions to few elements stay F32. */
int lower_precision(Graph *g, Arena *scratch, DType storage, Diag *d);
/* "fp32", "fp16", "bf16" as --precision gives them; DT_NONE: no such name. */
DType precision_named(const char *name);
const char *precision_name(DType storage);
/* The same, and for "auto" what is fastest on the device and ranks, or trains, as well: scores in
 * F16 on a GPU, training in BF16 on a CPU that multiplies it; else F32, as without a name. */
typedef enum PrecisionUse { PRECISION_SCORES, PRECISION_TRAINING } PrecisionUse;
DType precision_for(const char *name, PrecisionUse use, const char *device);

/* masks.c: whether v is made of constants that are -inf, or far below zero, in places: a mask, or
 * masked scores. */
bool value_is_masked(const Value *v);

/* sizes.c: numbers for dimensions that the model leaves open. */
/* Sets opt.dims for `graph`'s inputs by --shape or to usual numbers, which it says. */
int sizes_choose(Context *c);
/* Sets them as the samples are. */
void sizes_of_samples(Context *c, const Samples *s);
/* A clone of static shapes by opt.dims, as far as they go; map as of graph_clone. */
Graph *graph_sized(const Graph *g, const Options *o, Arena *a, Value ***map);
int64_t graph_flops_at(const Graph *g, const Options *o);
/* What a sample costs, in FLOPs: those of its products, and what moving the elements of all values
 * takes in the same time; *elements (may be NULL): how many those are. */
double graph_work_at(const Graph *g, const Options *o, double *elements);
/* `wanted`, or as many samples as g runs on in half a minute or so of two cores (samples that were
 * made up: a quarter of that), at least 64 (16). A GPU does 50 times as much. */
int64_t samples_affordable(const Graph *g, const Options *o, int64_t wanted);
/* Likewise training steps within half an hour or so (a minute), at least 1. */
double steps_affordable(const Graph *g, const Options *o, int64_t batch, double wanted);

/* allocate.c. STATUS_NOTHING, with the reasons as messages, if no channel of `graph` is free. */
int allocate_possible(Context *c);
/* Whether one of g is, without a word. */
bool allocate_free(const Graph *g, const Options *o);
/* How many layers of g have channels of their own. */
int allocate_layers(const Graph *g);
/* Of the original's value `name`, along `axis` (-1: any); NULL: it has lost nothing there. */
const Survivors *survivors_of(const Context *c, const char *name, int axis);

/* evaluate.c */
typedef struct Eval {
    double accuracy;  /* top-1 against labels; < 0 without labels */
    double agreement; /* top-1 against the reference graph's; < 0 without one */
    double error;     /* |y - ref| / |ref| of the float output where it is largest; likewise */
    double loss;
} Eval;
/* The reference's outputs by sample, where they are not too many. */
typedef struct Answers {
    Arena *arena; /* that they live in */
    float *y;
    bool complete;
} Answers;

/* Runs g over samples, and `reference` beside it when not NULL: that is left out if `known` (NULL:
 * none) has its answers from an earlier call on the same samples. */
int evaluate(Eval *out, const Graph *g, const Graph *reference, Answers *known, const Samples *s,
             const Options *o, Diag *d);

#endif
