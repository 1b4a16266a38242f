/* Which weights are scored: what may be removed has a score, and gates lie where samples and
 * channels are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lane_nets.h"
#include "passes/score/scores.h"

/* A network's free channels that no scored layer makes. */
static int unscored(const LaneNet *net)
{
    Arena *a = arena_new();
    Graph *g = graph_new(a, net->name);
    net->build(g);
    const Groups *gr = groups_find(g, NULL, a);
    bool *scored = NEW_ARRAY(a, bool, gr->n);
    int n = 0;
    for (int c = 0; c < gr->first[gr->nlayers]; c++) scored[gr->of[c]] = true;
    for (int c = 0; c < gr->nclasses; c++) n += group_is_free(gr, c) && !scored[c];
    arena_free(a);
    return n;
}

static void free_channels_have_scores(void **state)
{
    (void)state;
    for (int k = 0; k < LANE_NETS; k++) {
        /* Pad adds a channel of zeros, which nobody makes. */
        int padding = strcmp(lane_nets[k].name, "crop and squeeze") == 0;
        if (unscored(&lane_nets[k]) != padding)
            fail_msg("%s: %d free channels without a score", lane_nets[k].name,
                     unscored(&lane_nets[k]));
    }
}

static ScoredLayer *layers_of(Arena *a, void (*build_net)(Graph *g), int want)
{
    Graph *g = graph_new(a, "net");
    ScoredLayer *l;
    build_net(g);
    assert_int_equal(scored_layers(g, a, &l), want);
    return l;
}

/* y is [T, dirs, N, H]; the samples of a product follow those of its input. */
static void hidden_units_are_scored(void **state)
{
    (void)state;
    Arena *a = arena_new();
    const ScoredLayer *l = layers_of(a, net_stacked_states, 3);
    for (int k = 0; k < 2; k++) {
        assert_int_equal(l[k].node->op, OP_GRU);
        assert_int_equal(l[k].channels, 5);
        assert_int_equal(l[k].gate_axis, 3);
        assert_int_equal(l[k].sample_axis, 2);
    }
    assert_int_equal(l[2].node->op, OP_MatMul);
    assert_int_equal(l[2].sample_axis, 1);
    arena_free(a);
}

static void embeddings_are_scored(void **state)
{
    (void)state;
    Arena *a = arena_new();
    const ScoredLayer *l = layers_of(a, net_embedding, 3);
    assert_int_equal(l[0].node->op, OP_Gather);
    assert_int_equal(l[0].axis, 1);
    assert_int_equal(l[0].channels, 8);
    assert_int_equal(l[0].gate_axis, 2);
    assert_int_equal(l[0].sample_axis, 0);
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(free_channels_have_scores),
        cmocka_unit_test(hidden_units_are_scored),
        cmocka_unit_test(embeddings_are_scored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
