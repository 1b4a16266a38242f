/* Budgets are met within a step, steps are kept, excluded layers stay, scores can be reused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "passes/scores.h"
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
    for (int k = 0; k < 4; k++) assert_int_equal(l[k].after % 8, 0);
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
    c.opt.exclude = "b";
    c.opt.keep_nodes = "c";
    assert_int_equal(pass_sensitivity(&c, "criterion=l1"), 0);
    assert_int_equal(pass_allocate(&c, "params=0.9;align=4"), 0);
    for (int k = 0; k < 3; k++) assert_true(c.report.layers[k].after == c.report.layers[k].before);
    assert_true(c.report.layers[3].after < c.report.layers[3].before);
    c.opt.exclude = "no such node";
    assert_int_equal(pass_allocate(&c, "params=0.9"), -1);
    c.opt.exclude = "a,b,d";
    assert_int_equal(pass_allocate(&c, "params=0.9"), STATUS_NOTHING);
    assert_int_equal(pass_allocate(&c, "params=1.5"), -1);
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
        cmocka_unit_test(budgets_are_met),      cmocka_unit_test(channels_stay_in_steps),
        cmocka_unit_test(excluded_layers_stay), cmocka_unit_test(scores_serve_many_budgets),
        cmocka_unit_test(survivors_compose),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
