/* random: one uniform number per group, from the seed. */
#include "passes/score/criteria.h"

int criterion_random(Scoring *s)
{
    const Groups *gr = s->groups;
    double *x = NEW_ARRAY(s->arena, double, gr->n);
    Rng rng = rng_new(s->c->opt.seed, 0x72616e64);
    for (int g = 0; g < gr->n; g++) x[g] = (double)rng_uniform(&rng);
    for (int c = 0; c < gr->first[gr->nlayers]; c++) s->score[c] = x[gr->of[c]];
    return 0;
}
