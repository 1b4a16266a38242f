/* Running two networks side by side up to given values, ever further on.
 *
 * reconstruct refits one layer after the other; each time it wants activations of the network
 * being refitted and of the original, over all samples. What both have computed on the way is
 * kept for the next step as soon as it fits into a limit: the values that cross the cut between
 * what has been computed and the rest. Else the next step starts from the last cut that was
 * kept, at first the inputs; so memory is bounded by the limit, not by the samples. Values are kept
 * in bfloat16 where float does not fit. */
#ifndef EHAP_PASSES_PRUNE_PREFIX_H
#define EHAP_PASSES_PRUNE_PREFIX_H

#include "passes/batches.h"

enum { SIDES = 2 }; /* 0: the network, 1: the original */
/* Shards are so small that one of so many can be held out, where the samples are that many. */
enum { HELD_EVERY = 4 };

/* A value kept for all samples: [shards, elements per shard]. */
typedef struct Kept {
    int side;
    const char *name;
    Type type; /* of one shard, as stored */
    char *data;
    struct Kept *heir_of; /* the value whose memory it takes over, or NULL */
    bool inherited;       /* another takes over its memory */
    Arena *arena;
    struct Kept *next;
} Kept;

typedef struct Prefix {
    Arena *arena;
    const Graph *side[SIDES];
    bool *done[SIDES]; /* by node index: before the cut */
    Kept *kept;
    const Samples *samples;
    Options opt;
    int64_t n, shard;
    size_t limit; /* bytes of kept values */
    DType dtype;  /* that new ones are stored in */
    Diag *diag;
} Prefix;

Prefix *prefix_new(Arena *a, const Graph *g, const Graph *original, const Samples *s, int64_t n,
                   const Options *o, size_t limit, Diag *d);
void prefix_free(Prefix *p); /* its kept values */

typedef struct PrefixStep {
    Arena *arena; /* of the step */
    Graph *g;     /* outputs: the values asked for, in order, then what is kept */
    Session *session;
    Feed *feed;
} PrefixStep;

/* What happens during a step: `plan` when step->g is known, to say in `made` what memory the calls
 * will take (again, should shards become smaller); `begin` once the session is open; `take` per
 * shard, on several threads; `reduce` after it, in shard order. Outputs 0 … n-1 of the instance are
 * the values. */
typedef struct PrefixCalls {
    void (*plan)(void *ctx, const PrefixStep *step, ShardGraph *made);
    void (*begin)(void *ctx, const PrefixStep *step);
    int (*take)(void *ctx, int64_t shard, const PrefixStep *step, Instance *inst);
    int (*reduce)(void *ctx, int64_t shard, const PrefixStep *step, Instance *inst);
} PrefixCalls;

/* Computes values[k] of the graph of side[k] over all shards. Constants of the network are read
 * anew each time. *peak_bytes is raised to what the program planned. */
int prefix_run(Prefix *p, int n, Value *const *values, const int *side, const PrefixCalls *calls,
               void *ctx, size_t *peak_bytes);

#endif
