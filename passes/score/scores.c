/* Coupled groups of scored channels, and what scores say about them. */
#include "passes/score/scores.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "passes/score/criteria.h"

Groups *groups_find(const Graph *g, const Options *o, Arena *a)
{
    Groups *gr = NEW(a, Groups);
    gr->lanes = lanes_new(g, a);
    if (o && o->attention && strcmp(o->attention, "heads") == 0) lanes_prefer_heads(gr->lanes);
    lanes_run(gr->lanes);
    gr->nclasses = lanes_count_classes(gr->lanes);
    gr->nlayers = scored_layers(g, a, &gr->layers);
    gr->first = NEW_ARRAY(a, int, gr->nlayers + 1);
    for (int k = 0; k < gr->nlayers; k++)
        gr->first[k + 1] = gr->first[k] + (int)gr->layers[k].channels;
    gr->of = NEW_ARRAY(a, int, gr->first[gr->nlayers]);
    gr->n = gr->nclasses;
    for (int k = 0; k < gr->nlayers; k++)
        for (int c = gr->first[k]; c < gr->first[k + 1]; c++) {
            const ScoredLayer *l = &gr->layers[k];
            int class_ = lanes_class(gr->lanes, l->weight, l->axis, c - gr->first[k]);
            gr->of[c] = class_ >= 0 ? class_ : gr->n++;
        }
    return gr;
}

bool group_is_free(const Groups *gr, int group)
{
    bool pinned = group >= gr->nclasses;
    if (!pinned) lanes_pinned_by(gr->lanes, group, &pinned);
    return !pinned;
}

static const LayerScores *scores_of(const Scores *s, const char *weight)
{
    for (int k = 0; k < s->nlayers; k++)
        if (strcmp(s->layers[k].weight, weight) == 0) return &s->layers[k];
    return NULL;
}

int groups_scores(double **out, const Groups *gr, const Scores *s, Arena *a, Diag *d)
{
    const Criterion *criterion = criterion_find(s->criterion);
    bool grouped = criterion && criterion->grouped;
    double *sum = *out = NEW_ARRAY(a, double, gr->n);
    int found = 0;
    for (int g = 0; g < gr->n; g++) sum[g] = (double)NAN;
    for (int k = 0; k < gr->nlayers; k++) {
        const ScoredLayer *l = &gr->layers[k];
        const LayerScores *ls = scores_of(s, l->weight->name);
        if (!ls) continue;
        if (ls->n != l->channels)
            return diag_error(d, "there are %d scores for '%s', which has %lld channels", ls->n,
                              ls->weight, (long long)l->channels);
        found++;
        for (int c = 0; c < ls->n; c++) {
            double *x = &sum[gr->of[gr->first[k] + c]];
            *x = isnan(*x) || grouped ? ls->score[c] : *x + ls->score[c];
        }
    }
    if (gr->nlayers && !found)
        return diag_error(d, "the scores are of another network: no weight has one");
    return 0;
}

/* ---- rank correlation --------------------------------------------------------------- */

typedef struct Ranked {
    double value;
    int index;
} Ranked;

static int by_value(const void *a, const void *b)
{
    const Ranked *x = a, *y = b;
    if (x->value != y->value) return x->value < y->value ? -1 : 1;
    return x->index - y->index;
}

static double *ranks(const double *x, int n, Arena *a)
{
    Ranked *r = NEW_ARRAY(a, Ranked, n);
    double *rank = NEW_ARRAY(a, double, n);
    for (int i = 0; i < n; i++) r[i] = (Ranked){x[i], i};
    qsort(r, (size_t)n, sizeof *r, by_value);
    for (int i = 0, j; i < n; i = j) {
        for (j = i; j < n && r[j].value == r[i].value; j++)
            ;
        for (int k = i; k < j; k++) rank[r[k].index] = (i + j - 1) / 2.0;
    }
    return rank;
}

double rank_correlation(const double *x, const double *y, int n, Arena *a)
{
    const double *p = ranks(x, n, a), *q = ranks(y, n, a);
    double mean = (n - 1) / 2.0, pp = 0, qq = 0, pq = 0;
    for (int i = 0; i < n; i++) {
        pp += (p[i] - mean) * (p[i] - mean);
        qq += (q[i] - mean) * (q[i] - mean);
        pq += (p[i] - mean) * (q[i] - mean);
    }
    return pp > 0 && qq > 0 ? pq / sqrt(pp * qq) : 0;
}
