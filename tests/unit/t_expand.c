/* Operators that are read as others: which forms are known, and that the rest is carried along.
 * That they compute the same is for tests/e2e/node_cases.py and attention.py. */
#include "onnx_build.h"

static Graph *read_ok(Maker *k)
{
    Caught c;
    Graph *g = maker_read(k, &c);
    if (!g) fail_msg("%s", c.text);
    return g;
}

static int count(const Graph *g, Op op)
{
    int n = 0;
    for (int i = 0; i < g->nnodes; i++) n += g->nodes[i]->op == op;
    return n;
}

static void assert_shape(const Value *v, int rank, const int64_t *dim)
{
    assert_int_equal(v->type.rank, rank);
    for (int k = 0; k < rank; k++)
        if (dim[k] >= 0) assert_int_equal(v->type.dim[k], dim[k]);
}

/* q [N, 6, 8], k and v [N, 5, 8]: two heads of 4 over two or one of keys. */
static Maker *attention(Arena *a, int64_t shared, Onnx__NodeProto **node)
{
    Maker *k = maker_new(a, 23);
    maker_input(k, "q", DT_F32, D(-1, 6, 8));
    maker_input(k, "k", DT_F32, D(-1, 5, 4 * shared));
    maker_input(k, "v", DT_F32, D(-1, 5, 4 * shared));
    *node = maker_node(k, "Attention", "q k v", "y");
    maker_int(k, *node, "q_num_heads", 2);
    maker_int(k, *node, "kv_num_heads", shared);
    maker_output(k, "y", DT_F32, D(-1, 6, 8));
    return k;
}

static void attention_is_products_and_a_softmax(void **state)
{
    (void)state;
    for (int64_t shared = 1; shared <= 2; shared++) {
        Arena *a = arena_new();
        Onnx__NodeProto *n;
        Maker *k = attention(a, shared, &n);
        maker_int(k, n, "is_causal", 1);
        Graph *g = read_ok(k);
        assert_int_equal(count(g, OP_MatMul), 2);
        assert_int_equal(count(g, OP_Softmax), 1);
        assert_int_equal(count(g, OP_Opaque), 0);
        assert_string_equal(g->outputs[0]->name, "y");
        assert_shape(g->outputs[0], D(-1, 6, 8));
        arena_free(a);
    }
}

/* Heads that do not divide, or inputs of no known rank. */
static void other_forms_are_carried_along(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Onnx__NodeProto *n;
    Caught c;
    Maker *k = attention(a, 2, &n);
    n->attribute[0]->i = 3;
    Graph *g = read_ok(k);
    assert_int_equal(g->nnodes, 1);
    assert_int_equal(g->nodes[0]->op, OP_Opaque);
    assert_true(written(a, g, NULL, caught(&c)).n > 0);
    k = attention(a, 2, &n);
    k->inputs[0] = maker_info(k, "q", DT_F32, -1, NULL);
    assert_int_equal(count(read_ok(k), OP_Opaque), 1);
    arena_free(a);
}

/* Keys of another batch: the error names the node. */
static void wrong_sizes_are_errors(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Onnx__NodeProto *n;
    Caught c;
    Maker *k = attention(a, 2, &n);
    k->inputs[0] = maker_info(k, "q", DT_F32, D(3, 6, 8));
    k->inputs[1] = maker_info(k, "k", DT_F32, D(2, 5, 8));
    assert_null(maker_read(k, &c));
    assert_says(&c, "Attention0");
    arena_free(a);
}

static void sizes_must_be_known(void **state)
{
    (void)state;
    static const int64_t image[] = {3, 4}, block[] = {2, 2}, size[] = {2, 3, 5, 6};
    for (int constant = 0; constant < 2; constant++) {
        Arena *a = arena_new();
        Maker *k = maker_new(a, 20);
        maker_input(k, "x", DT_F32, D(-1, 8, 6));
        maker_input(k, "theta", DT_F32, D(2, 2, 3));
        if (constant) {
            maker_tensor(k, "image", DT_I64, D(2), image, sizeof image);
            maker_tensor(k, "size", DT_I64, D(4), size, sizeof size);
        } else {
            maker_input(k, "image", DT_I64, D(2));
            maker_input(k, "size", DT_I64, D(4));
        }
        maker_tensor(k, "block", DT_I64, D(2), block, sizeof block);
        maker_node(k, "Col2Im", "x image block", "y");
        maker_node(k, "AffineGrid", "theta size", "g");
        maker_output(k, "y", DT_F32, -1, NULL);
        maker_output(k, "g", DT_F32, -1, NULL);
        Graph *g = read_ok(k);
        assert_int_equal(count(g, OP_Opaque), constant ? 0 : 2);
        if (constant) assert_shape(g->outputs[0], D(-1, 2, 3, 4));
        if (constant) assert_shape(g->outputs[1], D(2, 5, 6, 2));
        arena_free(a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_is_products_and_a_softmax),
        cmocka_unit_test(other_forms_are_carried_along),
        cmocka_unit_test(wrong_sizes_are_errors),
        cmocka_unit_test(sizes_must_be_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
