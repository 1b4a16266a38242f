/* Removing channels equals zeroing them: for every small network, each removable class on its own,
 * and random halves of all classes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lane_nets.h"
#include "passes/prune/remove_channels.h"

typedef struct Setup {
    Arena *arena;
    Graph *graph;
    Lanes *lanes;
    int classes;
    bool *removed;
    Diag diag;
} Setup;

static void keep_quiet(void *ctx, Severity sev, const char *text)
{
    (void)ctx, (void)sev, (void)text;
}

static Setup set_up_by(const LaneNet *net, bool heads)
{
    Setup s = {.arena = arena_new(), .diag = {.sink = keep_quiet}};
    s.graph = graph_new(s.arena, net->name);
    net->build(s.graph);
    s.lanes = lanes_new(s.graph, s.arena);
    if (heads) lanes_prefer_heads(s.lanes);
    lanes_run(s.lanes);
    s.classes = lanes_count_classes(s.lanes);
    s.removed = NEW_ARRAY(s.arena, bool, s.classes);
    return s;
}

static Setup set_up(const LaneNet *net) { return set_up_by(net, false); }

static bool removable(Setup *s, int c)
{
    bool pinned;
    lanes_pinned_by(s->lanes, c, &pinned);
    return !pinned;
}

/* Difference after removing what is flagged, against what `shown` flags being zeroed; < 0 if an
 * axis would be left empty. */
static double removal_error(Setup *s, const bool *shown)
{
    double worst = -1;
    Graph *before = channels_masked(s->graph, s->lanes, shown, s->arena);
    if (channels_remove(s->graph, s->lanes, s->removed, &s->diag) < 0) return -1;
    Diag loud = diag_stderr(NULL);
    assert_int_equal(graphs_differ(&worst, before, s->graph, NULL, 3, &loud), 0);
    return worst;
}

static void test_each_class(void **state)
{
    (void)state;
    for (int k = 0; k < LANE_NETS; k++) {
        int ran = 0, classes = 1;
        for (int c = 0; c < classes; c++) {
            Setup s = set_up(&lane_nets[k]);
            classes = s.classes;
            if (removable(&s, c)) {
                s.removed[c] = true;
                double e = removal_error(&s, s.removed);
                if (e > 1e-5) fail_msg("%s: class %d: off by %g", lane_nets[k].name, c, e);
                ran += e >= 0;
            }
            arena_free(s.arena);
        }
        if (ran != lane_nets[k].removable)
            fail_msg("%s: %d of %d classes removed", lane_nets[k].name, ran,
                     lane_nets[k].removable);
    }
}

static void test_random_halves(void **state)
{
    (void)state;
    for (int k = 0; k < LANE_NETS; k++) {
        int ran = 0;
        for (uint64_t seed = 0; seed < 8; seed++) {
            Setup s = set_up(&lane_nets[k]);
            Rng r = rng_new(seed, 1);
            for (int c = 0; c < s.classes; c++)
                s.removed[c] = removable(&s, c) && rng_below(&r, 2) != 0;
            double e = removal_error(&s, s.removed);
            if (e > 1e-5) fail_msg("%s: half %d: off by %g", lane_nets[k].name, (int)seed, e);
            ran += e >= 0;
            arena_free(s.arena);
        }
        if (ran == 0) fail_msg("%s: no half could be removed", lane_nets[k].name);
    }
}

/* One of two heads, with query, key and value. */
static void test_whole_heads(void **state)
{
    static const char *const names[] = {"heads", "packed attention, split",
                                        "packed attention, sliced", "packed attention, picked"};
    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        int net = 0;
        while (strcmp(lane_nets[net].name, names[k]) != 0) net++;
        for (int which = 0; which < 2; which++) {
            Setup s = set_up_by(&lane_nets[net], true);
            int found = 0;
            for (int c = 0; c < s.classes; c++)
                if (removable(&s, c)) s.removed[c] = found++ == which;
            if (found != 2) fail_msg("%s: %d heads", names[k], found);
            double e = removal_error(&s, s.removed);
            if (!(e >= 0 && e <= 1e-5)) fail_msg("%s: head %d: off by %g", names[k], which, e);
            arena_free(s.arena);
        }
    }
}

/* Zeroing one class and removing another must show. */
static void test_control(void **state)
{
    (void)state;
    Setup s = set_up(&lane_nets[0]);
    bool *shown = NEW_ARRAY(s.arena, bool, s.classes);
    int first = 0, second;
    while (!removable(&s, first)) first++;
    for (second = first + 1; !removable(&s, second);) second++;
    s.removed[first] = true;
    shown[second] = true;
    double e = removal_error(&s, shown);
    assert_true(e > 1e-3);
    arena_free(s.arena);
}

/* The last channel of an axis stays, with an error that names the node. */
static void test_last_channel(void **state)
{
    (void)state;
    Setup s = set_up(&lane_nets[0]);
    for (int c = 0; c < s.classes; c++) s.removed[c] = removable(&s, c);
    assert_int_equal(channels_remove(s.graph, s.lanes, s.removed, &s.diag), -1);
    assert_int_equal(s.diag.errors, 1);
    arena_free(s.arena);
}

/* Two networks that are not numbers are not equal. */
static void test_not_a_number(void **state)
{
    (void)state;
    Setup s = set_up(&lane_nets[0]);
    double worst;
    for (int i = 0; i < s.graph->nnodes; i++)
        for (int k = 1; k < s.graph->nodes[i]->nin; k++) {
            Value *v = s.graph->nodes[i]->in[k];
            if (v->data && v->type.rank == 4) memset((void *)(uintptr_t)v->data, 0xff, 4);
        }
    assert_int_equal(graphs_differ(&worst, s.graph, s.graph, NULL, 1, &s.diag), -1);
    assert_int_equal(s.diag.errors, 1);
    arena_free(s.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_class),   cmocka_unit_test(test_random_halves),
        cmocka_unit_test(test_control),      cmocka_unit_test(test_last_channel),
        cmocka_unit_test(test_not_a_number), cmocka_unit_test(test_whole_heads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
