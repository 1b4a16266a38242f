/* gate-fisher: per sample, the squared gradient of its own loss by each group's gate. Without
 * labels they are drawn from the network's own distribution, which makes it an unbiased estimate
 * of gate-ggn (one label per sample). */
#include "passes/score/criteria.h"

int own_labels(float **out, Scoring *s, bool top)
{
    const Context *c = s->c;
    Rows y;
    TRY(forward_rows(&y, s->arena, c->graph, NULL, c->data, s->n, NULL, &c->opt, c->diag));
    const int64_t classes = y.row;
    float *p = y.x;
    softmax_rows(p, s->n, classes);
    for (int64_t i = 0; i < s->n; i++) {
        float *row = p + i * classes;
        Rng rng = rng_new(c->opt.seed, (uint64_t)i);
        float u = rng_uniform(&rng), sum = 0;
        int64_t label = 0, best = 0;
        for (int64_t k = 0; k < classes; sum += row[k++]) {
            if (sum <= u) label = k;
            if (row[k] > row[best]) best = k;
        }
        if (top) label = best;
        for (int64_t k = 0; k < classes; k++) row[k] = k == label ? 1.0F : 0.0F;
    }
    *out = p;
    return 0;
}

int criterion_gate_fisher(Scoring *s)
{
    float *targets = NULL;
    if (!s->classifier)
        return diag_error(s->c->diag, "gate-fisher needs an output of [batch, classes]");
    if (!s->c->data->labels) TRY(own_labels(&targets, s, false));
    return gates_score(s, &(GateOptions){COTANGENT_LOSS, 1, .weight = 1, .targets = targets});
}
