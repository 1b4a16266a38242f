/* taylor: (sum over a batch of the gradient by the group's gate)^2, a batch being one shard,
 * averaged over shards (Molchanov et al. 2019). Without labels, the network's top class is the
 * label: against soft labels of its own the gradient would be zero. */
#include "passes/score/criteria.h"

int criterion_taylor(Scoring *s)
{
    float *targets = NULL;
    if (!s->classifier) return diag_error(s->c->diag, "taylor needs an output of [batch, classes]");
    if (!s->c->data->labels) TRY(own_labels(&targets, s, true));
    return gates_score(
        s, &(GateOptions){
               .cotangent = COTANGENT_LOSS, .passes = 1, .targets = targets, .of_means = true});
}
