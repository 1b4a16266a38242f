/* bn-scale: |gamma| of the BatchNormalization that alone reads the layer (network slimming). Where
 * there is none, 1: such channels are as good as an unscaled one. */
#include <math.h>

#include "passes/score/criteria.h"

int criterion_bn_scale(Scoring *s)
{
    const Groups *gr = s->groups;
    int found = 0;
    for (int k = 0; k < gr->nlayers; k++) {
        const ScoredLayer *l = &gr->layers[k];
        const Node *n = l->gate->def;
        bool norm = n && n->op == OP_BatchNormalization && value_is_const(n->in[1]) &&
                    type_count(&n->in[1]->type) == l->channels;
        const float *gamma = norm ? n->in[1]->data : NULL;
        for (int64_t c = 0; c < l->channels; c++)
            s->score[gr->first[k] + c] = gamma ? fabs((double)gamma[c]) : 1;
        found += norm;
    }
    if (!found)
        return diag_error(s->c->diag, "bn-scale needs BatchNormalization nodes and the network "
                                      "has none (folded into the weights?): use l2");
    return 0;
}
