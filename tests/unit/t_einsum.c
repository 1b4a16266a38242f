/* Einsum as other operators computes the same, and its weights are layers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lane_nets.h"
#include "passes/derive/hvp.h"
#include "passes/passes.h"
#include "passes/prune/remove_channels.h"
#include "passes/simplify/simplify.h"

typedef struct Equation {
    const char *text;
    int rank[3];
    int64_t dim[3][4];
    int constants; /* a bit for each operand that is one */
} Equation;

static const Equation equations[] = {
    {"bij,bjk->bik", {3, 3}, {{2, 3, 4}, {2, 4, 5}}, 0},
    {"ij->ji", {2}, {{3, 4}}, 0},
    {"ij->", {2}, {{3, 4}}, 0},
    {"ij->ij", {2}, {{3, 4}}, 0},
    {"i,j->ij", {1, 1}, {{3}, {4}}, 0},
    {"i,ij->ji", {1, 2}, {{3}, {3, 4}}, 0},
    {"ij,ij->", {2, 2}, {{3, 4}, {3, 4}}, 0},
    {"ij,ji->", {2, 2}, {{3, 4}, {4, 3}}, 0},
    {"btd,dhk->bthk", {3, 3}, {{2, 5, 6}, {6, 2, 3}}, 2},
    {"btd,dhk->hbkt", {3, 3}, {{2, 5, 6}, {6, 2, 3}}, 2},
    {"bthk,hkd->btd", {4, 3}, {{2, 5, 2, 3}, {2, 3, 6}}, 2},
    {"oi,bij->boj", {2, 3}, {{5, 4}, {2, 4, 3}}, 1},
    {"bhwc,wck->bhwk", {4, 3}, {{2, 3, 4, 5}, {4, 5, 6}}, 2},
    {"wck,bhwc->bhwk", {3, 4}, {{4, 5, 6}, {2, 3, 4, 5}}, 1},
    {"bijk,bjkl->bil", {4, 4}, {{2, 3, 4, 5}, {2, 4, 5, 6}}, 0},
    {"bijk,bljk->bil", {4, 4}, {{2, 3, 4, 5}, {2, 6, 4, 5}}, 0},
    {"bijk,bjk->bi", {4, 3}, {{2, 3, 4, 5}, {2, 4, 5}}, 0},
    {"nij,jk,kl->nil", {3, 2, 2}, {{2, 6, 4}, {4, 5}, {5, 3}}, 6},
    {"nij,nij,nj->nj", {3, 3, 2}, {{2, 3, 4}, {2, 3, 4}, {2, 4}}, 0},
    {"ab,cd,bc->ad", {2, 2, 2}, {{2, 3}, {4, 5}, {3, 4}}, 0},
    {"...ij,...jk", {3, 3}, {{2, 3, 4}, {1, 4, 2}}, 0},
    {"...ij,jk->...ik", {4, 2}, {{2, 3, 4, 5}, {5, 6}}, 0},
    {"ab,bc->c", {2, 2}, {{3, 4}, {4, 5}}, 2},
};

static Graph *net(const Equation *e, Arena *a)
{
    Graph *g = graph_new(a, "net");
    Value *in[3];
    int n = 0;
    for (; n < 3 && e->rank[n]; n++)
        in[n] = e->constants >> n & 1
                    ? weight(g, "w", e->rank[n], e->dim[n])
                    : graph_add_input(g, "x", type_of(DT_F32, e->rank[n], e->dim[n]));
    graph_add_output(g, build(g, OP_Einsum, n, in, ATTRS(attr_str("equation", e->text))));
    return g;
}

static void test_equations(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof equations / sizeof *equations; k++) {
        Arena *a = arena_new();
        Diag d = diag_stderr(equations[k].text);
        double worst = -1;
        Graph *g = net(&equations[k], a), *lowered = net(&equations[k], a);
        simplify_einsum(lowered);
        assert_int_equal(graph_verify(lowered, &d), 0);
        for (int i = 0; i < lowered->nnodes; i++)
            assert_int_not_equal(lowered->nodes[i]->op, OP_Einsum);
        assert_int_equal(graphs_differ(&worst, g, lowered, NULL, 3, &d), 0);
        if (!(worst <= 1e-5)) fail_msg("%s: differs by %g", equations[k].text, worst);
        arena_free(a);
    }
}

static Value *einsum(Graph *g, const char *equation, Value *x, Value *y)
{
    return build(g, OP_Einsum, IN(x, y), ATTRS(attr_str("equation", equation)));
}

/* Attention as Keras writes it. */
static Graph *attention(Arena *a)
{
    static const char *const names[] = {"q", "k", "v"};
    Graph *g = graph_new(a, "attention");
    Value *x = tokens(g, 5, 6), *part[3];
    for (int i = 0; i < 3; i++)
        part[i] = einsum(g, "abc,cde->abde", x, weight(g, names[i], 3, D(6, 2, 4)));
    Value *s = einsum(g, "aecd,abcd->acbe", part[1], part[0]);
    Value *y = einsum(g, "acbe,aecd->abcd", unary(g, OP_Softmax, s), part[2]);
    graph_add_output(g, einsum(g, "abcd,cde->abe", y, weight(g, "o", 3, D(2, 4, 6))));
    return g;
}

static void test_layers(void **state)
{
    (void)state;
    Arena *a = arena_new();
    ScoredLayer *layers;
    Graph *g = attention(a);
    simplify_einsum(g);
    assert_int_equal(simplify_fold(g, a, NULL), 0);
    assert_int_equal(scored_layers(g, a, &layers), 4);
    Lanes *l = lanes_new(g, a);
    lanes_run(l);
    assert_int_equal(count_removable(l), 4 + 4); /* of queries and keys, and of values */
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equations),
        cmocka_unit_test(test_layers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
