/* Which channels go together: the number of removable classes of every small network, and the
 * classes themselves where they are easy to say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lane_nets.h"

static Graph *made(Arena *a, void (*build_net)(Graph *))
{
    Graph *g = graph_new(a, "net");
    build_net(g);
    return g;
}

static Lanes *lanes_of(Graph *g)
{
    Lanes *l = lanes_new(g, g->arena);
    lanes_run(l);
    return l;
}

static const Value *find(const Graph *g, const char *name)
{
    for (int i = 0; i < g->nnodes; i++)
        for (int k = 0; k < g->nodes[i]->nin; k++)
            if (g->nodes[i]->in[k] && strcmp(g->nodes[i]->in[k]->name, name) == 0)
                return g->nodes[i]->in[k];
    return NULL;
}

static int class_of(Lanes *l, const Graph *g, const char *name, int axis, int64_t i)
{
    return lanes_class(l, find(g, name), axis, i);
}

static void test_counts(void **state)
{
    (void)state;
    for (int k = 0; k < LANE_NETS; k++) {
        Arena *a = arena_new();
        int n = count_removable(lanes_of(made(a, lane_nets[k].build)));
        if (n != lane_nets[k].removable)
            fail_msg("%s: %d removable classes, wanted %d", lane_nets[k].name, n,
                     lane_nets[k].removable);
        arena_free(a);
    }
}

/* Channel k of the narrow stage is channel k + 2 of the wide one. */
static void test_option_a(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = made(a, net_option_a);
    Lanes *l = lanes_of(g);
    for (int64_t k = 0; k < 4; k++) {
        assert_int_equal(class_of(l, g, "a", 0, k), class_of(l, g, "c", 0, k + 2));
        assert_int_equal(class_of(l, g, "a", 0, k), class_of(l, g, "a_b", 0, k));
        assert_int_equal(class_of(l, g, "a", 0, k), class_of(l, g, "b", 1, k));
        assert_int_equal(class_of(l, g, "c", 0, k), class_of(l, g, "fc", 1, k));
    }
    assert_int_not_equal(class_of(l, g, "c", 0, 0), class_of(l, g, "c", 0, 6));
    assert_int_equal(class_of(l, g, "a", 2, 0), -1);
    arena_free(a);
}

static void test_groups(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = made(a, net_grouped);
    Lanes *l = lanes_of(g);
    for (int64_t k = 0; k < 4; k++) {
        assert_int_equal(class_of(l, g, "a", 0, k), class_of(l, g, "a", 0, k + 4));
        assert_int_equal(class_of(l, g, "a", 0, k), class_of(l, g, "b", 1, k));
    }
    for (int64_t k = 0; k < 6; k++)
        assert_int_equal(class_of(l, g, "b", 0, k), class_of(l, g, "b", 0, k + 6));
    arena_free(a);
}

static void test_flatten(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = made(a, net_flatten);
    Lanes *l = lanes_of(g);
    for (int64_t k = 0; k < 16; k++)
        assert_int_equal(class_of(l, g, "h", 1, k), class_of(l, g, "a", 0, k / 4));
    arena_free(a);
}

static void test_pin_reasons(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "net");
    bool pinned;
    Value *x = conv(g, image(g, 3, 4), "a", 4, 3, 1, 1);
    Node *n = node_new(g, OP_Opaque, 1, &x, 1);
    n->name = "mystery";
    n->op_type = "Mystery";
    n->domain = "com.example";
    n->out[0] = value_new(g, "m", x->type);
    node_append(g, n);
    classify(g, relu(g, conv(g, n->out[0], "b", 5, 3, 1, 1)));
    Lanes *l = lanes_of(g);
    assert_ptr_equal(lanes_pinned_by(l, class_of(l, g, "a", 0, 2), &pinned), n);
    assert_true(pinned);
    assert_ptr_equal(lanes_pinned_by(l, class_of(l, g, "b", 1, 2), &pinned), n);
    assert_null(lanes_pinned_by(l, class_of(l, g, "a", 1, 0), &pinned)); /* the graph's input */
    assert_true(pinned);
    assert_null(lanes_pinned_by(l, class_of(l, g, "fc", 0, 0), &pinned)); /* its output */
    assert_true(pinned);
    assert_null(lanes_pinned_by(l, class_of(l, g, "b", 0, 0), &pinned));
    assert_false(pinned);
    assert_int_equal(count_removable(l), 5);
    arena_free(a);
}

/* A constant that is read whole elsewhere, before or after, holds its channels. */
static void test_constant_with_two_readers(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++) {
        Arena *a = arena_new();
        Graph *g = graph_new(a, "net");
        Value *x = image(g, 3, 4);
        Value *c = weight(g, "c", 3, D(4, 1, 1));
        Value *y = NULL, *z = NULL;
        for (int step = 0; step < 2; step++) {
            if ((step == 0) == (late == 0))
                z = unary(g, OP_Shape, build(g, OP_Softmax, IN(c), ATTRS(attr_int("axis", 0))));
            else
                y = binary(g, OP_Mul, conv(g, x, "a", 4, 3, 1, 1), c);
        }
        graph_add_output(g, z);
        classify(g, y);
        assert_int_equal(count_removable(lanes_of(g)), 0);
        arena_free(a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),      cmocka_unit_test(test_option_a),
        cmocka_unit_test(test_groups),      cmocka_unit_test(test_flatten),
        cmocka_unit_test(test_pin_reasons), cmocka_unit_test(test_constant_with_two_readers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
