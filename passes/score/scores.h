/* Scores, the coupled groups they belong to, and the choice of a set within a budget. */
#ifndef EHAP_PASSES_SCORE_SCORES_H
#define EHAP_PASSES_SCORE_SCORES_H

#include "passes/derive/hvp.h"
#include "passes/passes.h"

/* The scored channels of a graph, numbered flat over its layers, and which of them go
 * together. Lane classes are groups of the same number; a channel whose axis no rule opened
 * (it is never removed) is a group of its own beyond them. */
typedef struct Groups {
    Lanes *lanes;
    ScoredLayer *layers;
    int nlayers;
    int *first; /* [nlayers + 1]: flat number of a layer's channel 0 */
    int *of;    /* [first[nlayers]]: group of a flat channel */
    int n, nclasses;
} Groups;

/* o NULL: the usual. */
Groups *groups_find(const Graph *g, const Options *o, Arena *a);
/* Whether the group may be removed; */
bool group_is_free(const Groups *gr, int group);

/* One score per group: that of any member when the criterion scores groups, the sum over
 * members otherwise; NaN where no member has one. Error: the scores are of another network. */
int groups_scores(double **out, const Groups *gr, const Scores *s, Arena *a, Diag *d);

/* Spearman's rank correlation of two lists, average ranks for ties; 0 if one is constant. */
double rank_correlation(const double *x, const double *y, int n, Arena *a);

typedef struct Selection {
    bool *removed;                  /* per lane class */
    int nremoved;                   /* classes */
    double flops, params, channels; /* fractions of `original` that remain */
    bool reachable;                 /* false: floors and pins keep more than the budget */
    bool possible;                  /* false: no group at all can go */
} Selection;

/* Chooses groups to remove until the budgeted quantity is at most keep times that of
 * `original`: see select_groups.c. Groups of a NaN score and those that `fixed` flags stay. */
void select_groups(Selection *out, const Graph *g, const Graph *original, const Groups *gr,
                   const double *score, const bool *fixed, const Options *o, Arena *a);

#endif
