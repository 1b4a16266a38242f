/* ehap: the relative Hessian trace. score_c = mean over probes of v_c' (Hv)_c * |w_c|^2 / numel,
 * v = +-1 per weight over all weights at once, H the Hessian of the mean loss over the batch. */
#include "passes/score/criteria.h"

static int build_program(Hvp *out, const Scoring *s)
{
    HvpOptions o = {.loss = s->classifier ? LOSS_CROSS_ENTROPY : LOSS_MSE,
                    .total = (double)s->n,
                    .probe = PROBE_WEIGHT,
                    .precision = s->precision};
    return hvp_build(out, s->model, s->arena, s->shard, &o, s->c->diag);
}

int criterion_ehap(Scoring *s) { return probes_run(s, build_program, true, relative_norms(s, 1)); }
