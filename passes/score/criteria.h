/* What every criterion sees, and the pieces that several share.
 *
 * sensitivity.c prepares a Scoring, calls the criterion, and turns what it left in `score` and
 * `error` into the Scores of the context. Adding a criterion: its line in criteria.def, its
 * file in criteria/. */
#ifndef EHAP_PASSES_SCORE_CRITERIA_H
#define EHAP_PASSES_SCORE_CRITERIA_H

#include "passes/batches.h"
#include "passes/score/scores.h"

typedef struct Scoring {
    Context *c;
    Arena *arena; /* dies with the scoring */
    Graph *model; /* sizes bound to the samples', the batch left open; names as in c->graph */
    Groups *groups;
    DType precision; /* DT_F32, DT_F16 or DT_BF16 */
    int probes;      /* at most */
    int64_t n;       /* samples to use, the first n */
    int64_t shard;   /* samples; the program of the criterion settles it */
    /* What the loss is taken against, rows of float [n, outputs per sample]: NULL when the
     * samples have labels and the criterion is content with them. */
    const float *soft;
    int target_axis; /* of the output: the one that runs over samples */
    bool classifier; /* the output is [batch, classes] */
    /* results */
    double *score, *error; /* per flat channel */
    int used;              /* probes or backward passes per sample */
    size_t bytes;          /* planned memory of all instances */
} Scoring;

typedef struct Criterion {
    const char *name;
    int (*run)(Scoring *s);
    bool grouped, data;
    const char *help;
} Criterion;

extern const Criterion criteria[]; /* ends with a NULL name */
const Criterion *criterion_find(const char *name);

#define CRITERION(name, function, grouped, data, help) int function(Scoring *s);
#include "passes/score/criteria.def"
#undef CRITERION

/* Mean and variance of observations as they come (Welford). */
typedef struct Moments {
    int64_t n;
    double mean, m2;
} Moments;
void moments_add(Moments *m, double x);
double moments_error(const Moments *m); /* standard error of the mean; 0 below two */

/* Squared Frobenius norm of the slice of weight that makes channel c, and its elements. */
double channel_norm2(const ScoredLayer *l, int64_t c, int64_t *numel);
double channel_norm1(const ScoredLayer *l, int64_t c);

/* |w_c|^2 / numel(w_c) times `scale`, per flat channel. */
const double *relative_norms(Scoring *s, double scale);

/* Scores by the gradients of the groups' gates (criteria/gates.c): every channel gets the mean of
 * its group's observations and its standard error. An observation is a sample's gradient squared,
 * added over the passes, times `weight`: their curvature. */
typedef struct GateOptions {
    CotangentKind cotangent;
    int passes; /* backward passes, each with a cotangent of its own */
    double weight;
    const float *targets; /* COTANGENT_LOSS: [n, classes]; NULL: the labels */
    bool of_means;        /* instead: the square of the gradient's mean over a shard, of one pass */
} GateOptions;
int gates_score(Scoring *s, const GateOptions *o);

/* One-hot rows drawn from the network's own distribution (or its top class), for criteria that
 * need labels where there are none: [n, classes]. */
int own_labels(float **out, Scoring *s, bool top);

/* Probes in rounds until the choice is stable (criteria/probes.c). `make` makes the program for
 * s->shard; observation k of a channel is the sum over shards of output out_layer for probe k,
 * and factor[flat] scales it into a score. same_key: one direction for all shards. */
typedef int HvpBuilder(Hvp *out, const Scoring *s);
int probes_run(Scoring *s, HvpBuilder *make, bool same_key, const double *factor);

#endif
