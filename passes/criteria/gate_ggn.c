/* gate-ggn: theta' G theta, the Gauss-Newton curvature along the gate of each coupled group, with
 * G = J' (diag p - p p') J per sample, averaged over samples; no labels. A classifier of few
 * classes gets it exactly, one backward pass per class; others by random signs. */
#include "passes/criteria.h"

enum { EXACT_CLASSES = 16, DEFAULT_SIGNS = 8 };

int criterion_gate_ggn(Scoring *s)
{
    const Value *z = graph_logits(s->model);
    if (!s->classifier || dim_is_sym(z->type.dim[1]))
        return diag_error(s->c->diag, "gate-ggn needs an output of [batch, classes], '%s' is none",
                          z ? z->name : "?");
    int64_t classes = z->type.dim[1];
    if (classes <= EXACT_CLASSES) return gates_curvature(s, COTANGENT_CLASS, (int)classes, 1, NULL);
    int draws = s->probes > 0 ? s->probes : DEFAULT_SIGNS;
    return gates_curvature(s, COTANGENT_SIGNS, draws, 1.0 / draws, NULL);
}
