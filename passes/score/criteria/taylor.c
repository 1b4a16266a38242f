/* taylor: (sum over a batch of the gradient by the group's gate)^2, a batch being one shard,
 * averaged over shards (Molchanov et al. 2019). Without labels, the network's top class is the
 * label: against soft labels of its own the gradient would be zero. */
#include "passes/score/criteria.h"

typedef struct Taylor {
    int n;
    Moments *m;
} Taylor;

static void observe(void *ctx, int64_t shard, int64_t rows, const float *x)
{
    Taylor *t = ctx;
    (void)shard;
    for (int g = 0; g < t->n; g++) {
        double sum = 0;
        for (int64_t r = 0; r < rows; r++) sum += (double)x[r * t->n + g];
        moments_add(&t->m[g], sum / (double)rows * (sum / (double)rows));
    }
}

int criterion_taylor(Scoring *s)
{
    float *targets = NULL;
    if (!s->classifier) return diag_error(s->c->diag, "taylor needs an output of [batch, classes]");
    if (!s->c->data->labels) TRY(own_labels(&targets, s, true));
    Taylor t = {.n = s->groups->n};
    t.m = NEW_ARRAY(s->arena, Moments, t.n);
    GateOptions o = {COTANGENT_LOSS, 1, false, targets, observe, &t};
    TRY(gates_run(s, &o));
    gates_finish(s, t.m);
    return 0;
}
