/* gate-ggn: theta' G theta, the Gauss-Newton curvature along the gate of each coupled group, with
 * G = J' (diag p - p p') J per sample, averaged over samples; no labels. A classifier of few
 * classes gets it exactly, one backward pass per class; others by random signs. Networks that are
 * no classifiers, or have several outputs: G = sum over outputs y of J' J / |y|^2. */
#include "passes/score/criteria.h"

enum { EXACT_CLASSES = 16, DEFAULT_SIGNS = 8 };

static int float_outputs(const Graph *g)
{
    int n = 0;
    for (int i = 0; i < g->noutputs; i++) n += dtype_is_float(g->outputs[i]->type.dtype);
    return n;
}

int criterion_gate_ggn(Scoring *s)
{
    const Value *z = graph_logits(s->model);
    int draws = s->probes > 0 ? s->probes : DEFAULT_SIGNS;
    if (!s->classifier || dim_is_sym(z->type.dim[1]) || float_outputs(s->model) > 1)
        return gates_score(s, &(GateOptions){COTANGENT_OUTPUTS, draws, .weight = 1.0 / draws});
    int64_t classes = z->type.dim[1];
    if (classes <= EXACT_CLASSES)
        return gates_score(s, &(GateOptions){COTANGENT_CLASS, (int)classes, .weight = 1});
    return gates_score(s, &(GateOptions){COTANGENT_SIGNS, draws, .weight = 1.0 / draws});
}
