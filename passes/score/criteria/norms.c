/* l1, l2: the size of the channel's weights. */
#include <math.h>

#include "passes/score/criteria.h"

static int score_norms(Scoring *s, bool squares)
{
    const Groups *gr = s->groups;
    for (int k = 0; k < gr->nlayers; k++)
        for (int64_t c = 0; c < gr->layers[k].channels; c++)
            s->score[gr->first[k] + c] = squares ? sqrt(channel_norm2(&gr->layers[k], c, NULL))
                                                 : channel_norm1(&gr->layers[k], c);
    return 0;
}

int criterion_l1(Scoring *s) { return score_norms(s, false); }

int criterion_l2(Scoring *s) { return score_norms(s, true); }
