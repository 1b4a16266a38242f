/* Looking at values inside a network while samples run through it. */
#ifndef EHAP_PASSES_OBSERVE_H
#define EHAP_PASSES_OBSERVE_H

#include "passes/passes.h"

/* What looks at values. `see` gets v[i]'s elements x, row-major, of `type` (of as many samples as
 * there are in the shard: the last may have fewer), and those of v[i - 1] (NULL for the first), and
 * notes in `part`, `bytes` bytes that are zero before a shard's first value, what it wants of the
 * shard; several threads call it at once, each with a part of its own. `add` takes the parts in the
 * order of shards, one at a time. */
typedef struct Observer {
    void (*see)(const void *ctx, int i, const Type *type, const float *x, const float *before,
                void *part);
    void (*add)(void *ctx, const void *part);
    void *ctx;
    size_t bytes;
} Observer;

/* Runs g over the first `limit` samples of s and shows values v[0..n), all float, shard by shard.
 * *bytes (may be NULL) is raised to what the program planned. */
int observe(const Graph *g, int n, Value *const *v, const Samples *s, int64_t limit,
            const Options *o, Diag *d, const Observer *by, size_t *bytes);

/* Mean and biased variance per channel (axis 1). */
typedef struct Moments {
    int64_t channels;
    double *mean, *variance;
} Moments;
/* Of n values of g, into out[0..n) in arena a. */
int measure_moments(Moments *out, Arena *a, const Graph *g, int n, Value *const *v,
                    const Samples *s, int64_t limit, const Options *o, Diag *d);

/* Changes every BatchNormalization of c->graph so that its running statistics are those of its
 * input on at most `limit` samples, without changing what the network computes: with new mean m and
 * variance v, scale and bias absorb the difference. Training mode, which uses the batch's own
 * statistics, then starts from the same function. */
int settle_norms(Context *c, int64_t limit);

#endif
