/* What counts as a mask, and that masks are neither quantized nor trained. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "lane_nets.h"
#include "passes/passes.h"

/* Self-attention of two heads whose scores get a mask: a constant, or (made) what an input of zeros
 * and ones says. */
static Value *masked_scores(Graph *g, float least, bool made)
{
    Value *x = tokens(g, 4, 8), *mask;
    float *m = NEW_ARRAY(g->arena, float, 16);
    for (int i = 0; i < 16; i++) m[i] = i % 4 > i / 4 ? least : 0;
    if (made) {
        Value *seen =
            graph_add_input(g, "seen", type_of(DT_F32, 3, D(g->inputs[0]->type.dim[0], 1, 4)));
        mask = binary(g, OP_Mul, binary(g, OP_Sub, const_f32(g, 1), seen), const_f32(g, least));
    } else {
        mask = value_const(g, "mask", type_of(DT_F32, 2, D(4, 4)), m);
    }
    Value *q = product(g, x, "q", 8), *k = transpose(g, product(g, x, "k", 8), 3, D(0, 2, 1));
    Value *scores = binary(g, OP_Add, binary(g, OP_MatMul, q, k), mask);
    Value *p = build(g, OP_Softmax, IN(scores), ATTRS(attr_int("axis", -1)));
    graph_add_output(g, product(g, binary(g, OP_MatMul, p, product(g, x, "v", 8)), "o", 8));
    return scores;
}

static void masks_are_far_below_zero(void **state)
{
    (void)state;
    static const float least[] = {-INFINITY, -3.4028235e38f, -1e9f, -10000, -100, 3};
    for (int k = 0; k < 6; k++)
        for (int made = 0; made < 2; made++) {
            Arena *a = arena_new();
            Value *scores = masked_scores(graph_new(a, "net"), least[k], made);
            assert_int_equal(value_is_masked(scores), k < 4);
            assert_false(value_is_masked(scores->graph->outputs[0]));
            arena_free(a);
        }
}

/* In every layout the sum is left in float, and products around it are integers. */
static void masked_scores_have_no_grid(void **state)
{
    (void)state;
    static const char *const targets[] = {"ort", "tensorrt", "openvino", "qnn", "portable"};
    for (int k = 0; k < 5; k++) {
        Arena *a = arena_new();
        Diag d = diag_stderr(targets[k]);
        Graph *g = graph_new(a, "net");
        masked_scores(g, -INFINITY, false);
        int64_t n = 8;
        float *x = NEW_ARRAY(a, float, n * 32);
        Rng r = rng_new(1, 1);
        for (int64_t i = 0; i < n * 32; i++) x[i] = rng_normal(&r);
        SampleInput in = {.type = type_of(DT_F32, 2, D(4, 8)), .data = x, .channel_axis = -1};
        Samples s = {.count = n, .ninputs = 1, .inputs = &in};
        Context c = {.arena = a, .graph = g, .diag = &d, .data = &s};
        c.opt = (Options){.device = "cpu", .threads = 1, .batch = 8, .target = targets[k]};
        c.original = graph_clone(g, a, NULL);
        sizes_of_samples(&c, &s);
        assert_int_equal(pass_run_pipeline(&c, "fake-quant"), 0);
        int grids = 0;
        for (int i = 0; i < c.graph->nnodes; i++) {
            const Node *m = c.graph->nodes[i];
            grids += m->op == OP_FakeQuant;
            if (m->op == OP_FakeQuant) assert_false(m->in[0]->def && m->in[0]->def->op == OP_Add);
            for (int o = 0; m->op == OP_Add && o < m->nin; o++)
                assert_false(strcmp(m->in[o]->name, "mask_FakeQuant") == 0);
        }
        assert_true(grids > 3);
        arena_free(a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_are_far_below_zero),
        cmocka_unit_test(masked_scores_have_no_grid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
