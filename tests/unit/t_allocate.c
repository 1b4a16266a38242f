/* Budgets are met within a step, steps are kept, excluded layers stay, scores can be reused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

#include "passes/score/scores.h"
#include "tests/unit/wide_net.h"

static void keep_quiet(void *ctx, Severity sev, const char *text)
{
    (void)ctx, (void)sev, (void)text;
}

static double channels_of(const Graph *g, Arena *a)
{
    ScoredLayer *l;
    double sum = 0;
    int n = scored_layers(g, a, &l);
    for (int k = 0; k < n; k++) sum += (double)l[k].channels;
    return sum;
}

static double fraction(const Context *c, Budget b)
{
    const Graph *g = c->graph, *o = c->original;
    if (b == BUDGET_FLOPS) return (double)graph_flops(g) / (double)graph_flops(o);
    if (b == BUDGET_PARAMS) return (double)graph_params(g) / (double)graph_params(o);
    return channels_of(g, c->arena) / channels_of(o, c->arena);
}

/* What is left of the budgeted quantity after allocating and removing. */
static double pruned(Budget b, double keep, int align, const char *criterion, LayerReport *layers)
{
    static const char *const names[] = {"flops", "params", "channels"};
    Arena *a = arena_new();
    Diag d = {.sink = keep_quiet};
    Context c = wide_context(a, &d, false);
    c.opt.criterion = criterion;
    char opt[64];
    snprintf(opt, sizeof opt, "%s=%g;align=%d", names[b], keep, align);
    assert_int_equal(pass_sensitivity(&c, "batch=64"), 0);
    assert_int_equal(pass_allocate(&c, opt), 0);
    assert_int_equal(c.report.nlayers, 5);
    memcpy(layers, c.report.layers, 5 * sizeof *layers);
    assert_int_equal(pass_remove_channels(&c, ""), 0);
    assert_true(c.report.proof_max_diff < 1e-5);
    assert_string_equal(c.chosen_by->criterion, criterion); /* removal forgets the scores */
    double f = fraction(&c, b);
    arena_free(a);
    return f;
}

static void budgets_are_met(void **state)
{
    static const double keep[] = {0.8, 0.5, 0.3};
    (void)state;
    for (int b = BUDGET_FLOPS; b <= BUDGET_CHANNELS; b++)
        for (int k = 0; k < 3; k++) {
            LayerReport layers[5];
            double f = pruned((Budget)b, keep[k], 1, k ? "gate-ggn" : "l2", layers);
            if (f > keep[k] || f < keep[k] - 0.05)
                fail_msg("budget %d: %g asked, %g left", b, keep[k], f);
            for (int l = 0; l < 4; l++) assert_true(layers[l].after >= 1);
        }
}

static void channels_stay_in_steps(void **state)
{
    LayerReport l[5];
    (void)state;
    double f = pruned(BUDGET_FLOPS, 0.5, 8, "gate-ggn", l);
    assert_true(f <= 0.5 && f > 0.2);
    static const int step[] = {4, 8, 4, 4}; /* of 16, 32, 16 and 24 channels */
    for (int k = 0; k < 4; k++) assert_int_equal(l[k].after % step[k], 0);
    assert_int_equal(l[0].after, l[2].after); /* the two sides of the addition */
    assert_int_equal(l[4].after, NET_CLASSES);
    assert_non_null(l[4].pinned_by);
    assert_null(l[0].pinned_by);
}

static void excluded_layers_stay(void **state)
{
    Arena *a = arena_new();
    Diag d = {.sink = keep_quiet};
    Context c = wide_context(a, &d, false);
    (void)state;
    for (int i = 0; i < c.graph->nnodes; i++)
        if (strcmp(node_label(c.graph->nodes[i]), "b") == 0) c.graph->nodes[i]->name = "b,1";
    c.opt.exclude = "b\\,1";
    c.opt.keep_nodes = "c";
    assert_int_equal(pass_sensitivity(&c, "criterion=l1"), 0);
    assert_int_equal(pass_allocate(&c, "params=0.9;align=4"), 0);
    for (int k = 0; k < 3; k++) assert_true(c.report.layers[k].after == c.report.layers[k].before);
    assert_true(c.report.layers[3].after < c.report.layers[3].before);
    c.opt.exclude = "no such node";
    assert_int_equal(pass_allocate(&c, "params=0.9"), -1);
    c.opt.exclude = "a,b\\,1,d";
    assert_int_equal(pass_allocate(&c, "params=0.9"), STATUS_NOTHING);
    assert_int_equal(pass_allocate(&c, "params=1.5"), -1);
    arena_free(a);
}

/* Asked for, multiples are kept to, whatever that leaves; by default 16 channels go in steps of 4.
 */
static void an_alignment_asked_for_is_strict(void **state)
{
    LayerReport l[5];
    (void)state;
    pruned(BUDGET_FLOPS, 0.6, 16, "random", l);
    assert_int_equal(l[0].after, 16);
    assert_int_equal(l[1].after, 16);
    assert_int_equal(l[3].after, 16);
    pruned(BUDGET_FLOPS, 0.3, 0, "random", l);
    assert_true(l[0].after < 16 && l[0].after % 4 == 0);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* What layer k loses when only `kept` channels stay. */
static double loss(const Groups *gr, const double *score, int k, int kept)
{
    double x[64], sum = 0;
    int n = gr->first[k + 1] - gr->first[k];
    for (int c = 0; c < n; c++) x[c] = score[gr->of[gr->first[k] + c]];
    qsort(x, (size_t)n, sizeof *x, ascending);
    for (int i = 0; i < n - kept; i++) sum += x[i];
    return sum * n / kept;
}

/* Layers a, b and d decide: against all combinations of steps within the budget. */
static void choice_is_near_the_best(void **state)
{
    Arena *a = arena_new();
    Diag d = {.sink = keep_quiet};
    Context c = wide_context(a, &d, false);
    double *score;
    (void)state;
    assert_int_equal(pass_sensitivity(&c, "criterion=random"), 0);
    Groups *gr = groups_find(c.graph, NULL, a);
    assert_int_equal(groups_scores(&score, gr, c.scores, a, &d), 0);
    double whole = (double)graph_flops(c.graph);
    for (double keep = 0.8; keep > 0.2; keep -= 0.03) {
        double best = INFINITY;
        for (int m = 4; m <= 16; m += 4)
            for (int n = 8; n <= 32; n += 8)
                for (int k = 4; k <= 24; k += 4) {
                    double sum =
                        loss(gr, score, 0, m) + loss(gr, score, 1, n) + loss(gr, score, 3, k);
                    if (sum < best &&
                        (double)graph_flops(wide_net_of(a, false, m, n, k)) <= keep * whole)
                        best = sum;
                }
        char opt[32];
        snprintf(opt, sizeof opt, "flops=%g", keep);
        assert_int_equal(pass_allocate(&c, opt), 0);
        const LayerReport *l = c.report.layers;
        double ours = loss(gr, score, 0, (int)l[0].after) + loss(gr, score, 1, (int)l[1].after) +
                      loss(gr, score, 3, (int)l[3].after);
        if (ours > 1.02 * best) fail_msg("keep %g: loss %g, best %g", keep, ours, best);
    }
    arena_free(a);
}

/* The same scores serve many budgets, and a smaller one removes more. */
static void scores_serve_many_budgets(void **state)
{
    Arena *a = arena_new();
    Diag d = {.sink = keep_quiet};
    Context c = wide_context(a, &d, false);
    int before = 0;
    (void)state;
    assert_int_equal(pass_sensitivity(&c, "criterion=l2"), 0);
    for (double keep = 0.9; keep > 0.2; keep -= 0.2) {
        char opt[64];
        int removed = 0;
        snprintf(opt, sizeof opt, "flops=%g;align=1", keep);
        assert_int_equal(pass_allocate(&c, opt), 0);
        for (int k = 0; k < lanes_count_classes(c.lanes); k++) removed += c.removed[k];
        assert_true(removed > before);
        before = removed;
    }
    arena_free(a);
}

/* Two rounds: what survives is told in indices of the original. */
static void survivors_compose(void **state)
{
    Arena *a = arena_new();
    Diag d = {.sink = keep_quiet};
    Context c = wide_context(a, &d, false);
    (void)state;
    for (int round = 0; round < 2; round++) {
        assert_int_equal(pass_sensitivity(&c, "criterion=random"), 0);
        assert_int_equal(pass_allocate(&c, round ? "flops=0.4;align=1" : "flops=0.7;align=1"), 0);
        assert_int_equal(pass_remove_channels(&c, ""), 0);
    }
    int checked = 0;
    ScoredLayer *now, *old;
    int n = scored_layers(c.graph, a, &now);
    assert_int_equal(scored_layers(c.original, a, &old), n);
    for (int s = 0; s < c.nsurvivors; s++)
        for (int k = 0; k < n; k++) {
            const Value *w = now[k].weight, *bias = now[k].node->in[2];
            const Survivors *v = &c.survivors[s];
            if (strcmp(v->name, w->name) != 0 || v->axis != 0) continue;
            assert_int_equal(v->n, w->type.dim[0]);
            for (int64_t i = 0; i < v->n; i++)
                assert_true(((const float *)bias->data)[i] ==
                            ((const float *)old[k].node->in[2]->data)[v->index[i]]);
            checked++;
        }
    assert_true(checked >= 3);
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_alignment_asked_for_is_strict), cmocka_unit_test(budgets_are_met),
        cmocka_unit_test(channels_stay_in_steps),           cmocka_unit_test(excluded_layers_stay),
        cmocka_unit_test(scores_serve_many_budgets),        cmocka_unit_test(survivors_compose),
        cmocka_unit_test(choice_is_near_the_best),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
