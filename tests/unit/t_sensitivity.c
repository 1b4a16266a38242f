/* Scores against their definitions: the Hessian by finite differences, gates by moving them; and
 * the same bytes for any number of threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "passes/score/scores.h"
#include "tests/unit/small_net.h"

enum { BATCH = 32 };

static Scores *score(Context *c, const char *opt)
{
    assert_int_equal(pass_sensitivity(c, opt), 0);
    return c->scores;
}

/* The mean loss over the first BATCH samples, in double precision (device "ref"). */
static double loss_of(const Context *c)
{
    Eval e;
    Samples some = *c->data;
    some.count = BATCH;
    assert_int_equal(evaluate(&e, c->graph, NULL, NULL, &some, &c->opt, c->diag), 0);
    return e.loss;
}

/* Replaces the constants of g by writable copies. */
static void own_constants(Graph *g)
{
    for (int i = 0; i < g->nnodes; i++)
        for (int k = 0; k < g->nodes[i]->nin; k++) {
            Value *v = g->nodes[i]->in[k];
            if (v && v->data)
                v->data = arena_memdup(g->arena, v->data, (size_t)type_bytes(&v->type));
        }
}

static float *weights(const ScoredLayer *l) { return (float *)(uintptr_t)l->weight->data; }

/* The trace of the Hessian block of channel ch of layer l, by second differences. */
static double trace_by_differences(const Context *c, const ScoredLayer *l, int64_t ch)
{
    const double h = 0.02;
    int64_t count = type_count(&l->weight->type) / l->channels;
    double trace = 0, middle = loss_of(c);
    for (int64_t i = 0; i < count; i++) {
        float *w = weights(l) + ch * count + i, old = *w;
        *w = old + (float)h;
        double up = loss_of(c);
        *w = old - (float)h;
        double down = loss_of(c);
        *w = old;
        trace += (up - 2 * middle + down) / (h * h);
    }
    return trace;
}

static void ehap_is_the_relative_trace(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    Context c = small_context(a, &d, false);
    own_constants(c.graph);
    const Scores *s = score(&c, "criterion=ehap;probes=100;batch=32");
    ScoredLayer *layers;
    assert_int_equal(scored_layers(c.graph, a, &layers), 3);
    assert_int_equal(s->nlayers, 3);
    for (int64_t ch = 0; ch < 2; ch++) { /* the last layer: smooth, so differences are exact */
        const ScoredLayer *l = &layers[2];
        int64_t numel = type_count(&l->weight->type) / l->channels;
        double norm = 0;
        for (int64_t i = 0; i < numel; i++)
            norm += (double)(weights(l)[ch * numel + i] * weights(l)[ch * numel + i]);
        double want = trace_by_differences(&c, l, ch) * norm / (double)numel;
        double got = s->layers[2].score[ch], error = s->layers[2].error[ch];
        if (fabs(got - want) > 5 * error + 0.02 * fabs(want))
            fail_msg("channel %d: %g +- %g, differences give %g", (int)ch, got, error, want);
    }
    arena_free(a);
}

/* logits of the first BATCH samples with group g's producers' outputs scaled by 1 + e. */
static float *gated_logits(const Context *c, Arena *a, const Groups *gr, int group, float e)
{
    int64_t count;
    Graph *g = graph_clone(c->graph, a, NULL);
    own_constants(g);
    ScoredLayer *l;
    int n = scored_layers(g, a, &l);
    for (int k = 0; k < n; k++)
        for (int64_t ch = 0; ch < l[k].channels; ch++) {
            if (gr->of[gr->first[k] + ch] != group) continue;
            int64_t numel = type_count(&l[k].weight->type) / l[k].channels;
            for (int64_t i = 0; i < numel; i++) weights(&l[k])[ch * numel + i] *= 1 + e;
            float *bias = (float *)(uintptr_t)l[k].node->in[2]->data;
            bias[ch] *= 1 + e;
        }
    return small_run(a, g, c->data, &count);
}

/* sum over samples of J' (diag p - p p') J with J = d logits / d gate, over samples. */
static double gate_curvature(const Context *c, Arena *a, const Groups *gr, int group)
{
    const float e = 0.01F;
    const float *z = gated_logits(c, a, gr, group, 0), *up = gated_logits(c, a, gr, group, e),
                *down = gated_logits(c, a, gr, group, -e);
    double sum = 0;
    for (int i = 0; i < BATCH; i++) {
        double p[NET_CLASSES], total = 0, mean = 0, square = 0;
        for (int k = 0; k < NET_CLASSES; k++) total += p[k] = exp((double)z[i * NET_CLASSES + k]);
        for (int k = 0; k < NET_CLASSES; k++) {
            int at = i * NET_CLASSES + k;
            double j = (double)(up[at] - down[at]) / (2 * (double)e);
            mean += p[k] / total * j;
            square += p[k] / total * j * j;
        }
        sum += square - mean * mean;
    }
    return sum / BATCH;
}

static void gate_ggn_is_the_curvature_of_coupled_gates(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    Context c = small_context(a, &d, false);
    const Scores *s = score(&c, "criterion=gate-ggn;batch=32");
    Groups *gr = groups_find(c.graph, NULL, a);
    /* The residual addition couples the two convolutions channel by channel. */
    assert_int_equal(gr->of[0], gr->of[NET_CHANNELS]);
    for (int ch = 0; ch < NET_CHANNELS; ch++) {
        double want = gate_curvature(&c, a, gr, gr->of[ch]), got = s->layers[0].score[ch];
        assert_true(got == s->layers[1].score[ch]);
        if (fabs(got - want) > 0.01 * want + 1e-4)
            fail_msg("channel %d: %g, not %g", ch, got, want);
    }
    arena_free(a);
}

/* Drawn labels and random signs estimate what the classes give exactly. */
static void estimates_rank_alike(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    Context c = small_context(a, &d, false);
    c.opt.device = test_device("cpu");
    Samples unlabelled = *c.data;
    unlabelled.labels = NULL;
    c.data = &unlabelled;
    const Scores *exact = score(&c, "criterion=gate-ggn;batch=256");
    const Scores *drawn = score(&c, "criterion=gate-fisher;batch=256");
    for (int ch = 0; ch < NET_CHANNELS; ch++) {
        double x = exact->layers[0].score[ch], y = drawn->layers[0].score[ch];
        if (fabs(x - y) > 5 * drawn->layers[0].error[ch]) fail_msg("%g, estimated as %g", x, y);
    }
    arena_free(a);
}

static void every_criterion_scores(void **state)
{
    static const char *const names[] = {"gate-ggn", "gate-fisher", "ehap", "ehap-ggn", "taylor",
                                        "apoz",     "l1",          "l2",   "bn-scale", "random"};
    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        Arena *a = arena_new();
        Diag d = diag_stderr("test");
        Context c = small_context(a, &d, true);
        c.opt.device = test_device("cpu");
        char opt[128];
        snprintf(opt, sizeof opt, "criterion=%s;probes=4;batch=64", names[k]);
        const Scores *s = score(&c, opt);
        assert_string_equal(s->criterion, names[k]);
        assert_int_equal(s->nlayers, 3);
        double sum = 0;
        for (int l = 0; l < 3; l++)
            for (int i = 0; i < s->layers[l].n; i++) {
                assert_true(isfinite(s->layers[l].score[i]) && s->layers[l].error[i] >= 0);
                sum += fabs(s->layers[l].score[i]);
            }
        assert_true(sum > 0);
        arena_free(a);
    }
}

static void threads_change_nothing(void **state)
{
    static const char *const names[] = {"gate-ggn", "ehap", "ehap-ggn", "taylor"};
    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        Arena *a = arena_new();
        Diag d = diag_stderr("test");
        Context c = small_context(a, &d, false);
        c.opt.device = test_device("cpu");
        char opt[128];
        snprintf(opt, sizeof opt, "criterion=%s;probes=3;batch=128", names[k]);
        const Scores *one = score(&c, opt);
        c.opt.threads = 3;
        const Scores *three = score(&c, opt);
        for (int l = 0; l < one->nlayers; l++)
            assert_memory_equal(one->layers[l].score, three->layers[l].score,
                                (size_t)one->layers[l].n * sizeof(double));
        arena_free(a);
    }
}

static void ranks_correlate(void **state)
{
    (void)state;
    Arena *a = arena_new();
    const double x[] = {1, 2, 3, 4}, y[] = {10, 20, 40, 30}, up[] = {2, 4, 6, 9};
    assert_true(fabs(rank_correlation(x, y, 4, a) - 0.8) < 1e-12);
    assert_true(fabs(rank_correlation(x, up, 4, a) - 1) < 1e-12);
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ehap_is_the_relative_trace),
        cmocka_unit_test(gate_ggn_is_the_curvature_of_coupled_gates),
        cmocka_unit_test(estimates_rank_alike),
        cmocka_unit_test(every_criterion_scores),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(ranks_correlate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
