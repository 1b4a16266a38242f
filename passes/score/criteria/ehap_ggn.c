/* ehap-ggn: EHAP's formula with the trace of the Gauss-Newton matrix. With cotangents
 * u_n = sqrt(p) r - p (sqrt(p) . r), r = +-1 per sample, E[u u'] = diag p - p p', and the squares
 * of dW = sum over n of J_n' u_n estimate the trace: terms of different samples vanish on average.
 * First-order passes only. */
#include "passes/score/criteria.h"

static int build_program(Hvp *out, const Scoring *s)
{
    GradientOptions o = {COTANGENT_SIGNS, GRADIENT_SQUARES, s->precision};
    return gradient_build(out, s->model, s->arena, s->shard, &o, s->c->diag);
}

int criterion_ehap_ggn(Scoring *s)
{
    if (!s->classifier)
        return diag_error(s->c->diag, "ehap-ggn needs an output of [batch, classes]");
    return probes_run(s, build_program, false, relative_norms(s, 1.0 / (double)s->n));
}
