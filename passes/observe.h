/* Looking at values inside a network while samples run through it. */
#ifndef EHAP_PASSES_OBSERVE_H
#define EHAP_PASSES_OBSERVE_H

#include "passes/passes.h"

/* Runs g over the first `limit` samples of s and shows values v[0..n), all float, shard by shard
 * in order: see(ctx, i, type, x) gets v[i]'s elements, row-major, of `type` (batch first; rows that
 * fill up the last shard are repeated samples). *bytes (may be NULL): what the program planned. */
typedef void Observer(void *ctx, int i, const Type *type, const float *x);
int observe(const Graph *g, int n, Value *const *v, const Samples *s, int64_t limit,
            const Options *o, Diag *d, Observer *see, void *ctx, size_t *bytes);

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
