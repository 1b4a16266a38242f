/* If whose branch is known: its nodes in the graph, by names that nobody else has, with outer
 * values and bodies inside. */
#include "onnx_build.h"

/* A graph of nodes made by inner(), of which the names are outputs. */
static Onnx__GraphProto *body(Maker *k, const char *outputs)
{
    char **names;
    Onnx__GraphProto *g = MESSAGE(k->a, Onnx__GraphProto, ONNX__GRAPH_PROTO__INIT);
    g->name = arena_strdup(k->a, "body");
    g->node = NEW_ARRAY(k->a, Onnx__NodeProto *, MOST);
    g->output = NEW_ARRAY(k->a, Onnx__ValueInfoProto *, MOST);
    g->initializer = NEW_ARRAY(k->a, Onnx__TensorProto *, MOST);
    const size_t n = split_names(k->a, outputs, &names);
    for (size_t i = 0; i < n; i++)
        g->output[g->n_output++] = maker_info(k, names[i], DT_F32, -1, NULL);
    return g;
}

static Onnx__NodeProto *inner(Maker *k, Onnx__GraphProto *g, const char *op, const char *in,
                              const char *out)
{
    Onnx__NodeProto *n = maker_node(k, op, in, out);
    k->g.n_node--;
    n->name = arena_printf(k->a, "in_%s", op);
    return g->node[g->n_node++] = n;
}

static void weight(Maker *k, Onnx__GraphProto *g, const char *name)
{
    maker_weight(k, name, D(1));
    g->initializer[g->n_initializer++] = k->tensors[--k->g.n_initializer];
}

static void branches(Maker *k, Onnx__NodeProto *n, Onnx__GraphProto *then, Onnx__GraphProto *other)
{
    maker_attr(k, n, "then_branch", ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH)->g = then;
    maker_attr(k, n, "else_branch", ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH)->g = other;
}

/* x [N,2,4,4] -> r = Relu(x); y, z by an If on c, which the caller adds. */
static Maker *model(Arena *a)
{
    Maker *k = maker_new(a, 17);
    maker_input(k, "x", DT_F32, D(-1, 2, 4, 4));
    maker_input(k, "c", DT_BOOL, 0, NULL);
    maker_output(k, "y", DT_F32, D(-1, 2, 4, 4));
    maker_output(k, "z", DT_F32, -1, NULL);
    maker_node(k, "Relu", "x", "r");
    return k;
}

static Graph *read_ok(Maker *k)
{
    Caught c;
    Graph *g = maker_read(k, &c);
    if (!g) fail_msg("%s", c.text);
    return g;
}

/* Takes one branch of all Ifs; what comes out is whole, and can be written and read. */
static Graph *take(Graph *g, Branch which)
{
    Caught c;
    Branch *taken = NEW_ARRAY(g->arena, Branch, g->nnodes);
    for (int i = 0; i < g->nnodes; i++) taken[i] = onnx_is_if(g->nodes[i]) ? which : BRANCH_NONE;
    if (onnx_take_branches(g, taken, caught(&c)) < 0 || graph_verify(g, &c.d) < 0)
        fail_msg("%s", c.text);
    Graph *again;
    const Bytes b = written(g->arena, g, &(EmitOptions){0}, &c.d);
    if (!b.n || onnx_read_memory(&again, g->arena, b.p, b.n, NULL, &c.d) < 0)
        fail_msg("%s", c.text);
    assert_string_equal(again->outputs[0]->name, "y");
    assert_string_equal(again->outputs[1]->name, "z");
    assert_string_equal(again->inputs[1]->name, "c");
    return g;
}

static void expect_ops(const Graph *g, const char *ops)
{
    char have[256] = "";
    for (int i = 0; i < g->nnodes; i++)
        snprintf(have + strlen(have), sizeof have - strlen(have), "%s%s", i ? " " : "",
                 node_op_name(g->nodes[i]));
    assert_string_equal(have, ops);
}

/* Both bodies call their values a and w; the first is not in order. */
static Maker *two_sided(Arena *a)
{
    Maker *k = model(a);
    Onnx__GraphProto *then = body(k, "b w"), *other = body(k, "a x");
    inner(k, then, "Add", "a w", "b");
    inner(k, then, "Neg", "r", "a");
    weight(k, then, "w");
    inner(k, other, "Abs", "r", "a");
    branches(k, maker_node(k, "If", "c", "y z"), then, other);
    return k;
}

static void taken(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = take(read_ok(two_sided(a)), BRANCH_THEN);
    expect_ops(g, "Relu Neg Add Identity"); /* z is a constant under its name */
    assert_ptr_equal(g->nodes[1]->in[0]->def, g->nodes[0]);
    assert_int_equal(g->outputs[0]->type.rank, 4);
    g = take(read_ok(two_sided(a)), BRANCH_ELSE);
    expect_ops(g, "Relu Abs Identity"); /* z is the input */
    assert_ptr_equal(g->outputs[1]->def->in[0], g->inputs[0]);
    arena_free(a);
}

/* A body in a body reads a value of that one, which is renamed, one of the graph, and its own. */
static void nested(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = model(a);
    Onnx__GraphProto *then = body(k, "m n"), *deep = body(k, "s t"), *other = body(k, "r r");
    inner(k, then, "Neg", "r", "a");
    inner(k, deep, "Abs", "r", "own");
    inner(k, deep, "Add", "a own", "s");
    inner(k, deep, "Mul", "s x", "t");
    branches(k, inner(k, then, "If", "c", "m n"), deep, other);
    branches(k, maker_node(k, "If", "c", "y z"), then, other);
    Graph *g = take(read_ok(k), BRANCH_THEN);
    expect_ops(g, "Relu Neg If");
    assert_int_equal(g->nodes[2]->ncapture, 3);
    Graph *both = take(graph_clone(g, a, NULL), BRANCH_THEN);
    expect_ops(both, "Relu Neg Abs Add Mul");
    assert_ptr_equal(both->nodes[3]->in[0]->def, both->nodes[1]);
    assert_ptr_equal(both->nodes[4]->in[1], both->inputs[0]);
    expect_ops(take(g, BRANCH_ELSE), "Relu Neg Identity"); /* y and z are one value */
    arena_free(a);
}

static void expect_error(Maker *k, const char *says)
{
    Caught c;
    Graph *g = read_ok(k);
    Branch all[MOST];
    for (int i = 0; i < g->nnodes; i++)
        all[i] = onnx_is_if(g->nodes[i]) ? BRANCH_THEN : BRANCH_NONE;
    assert_int_equal(onnx_take_branches(g, all, caught(&c)), -1);
    assert_says(&c, says);
}

static void errors(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = model(a);
    Onnx__GraphProto *then = body(k, "b");
    inner(k, then, "Neg", "r", "b");
    branches(k, maker_node(k, "If", "c", "y z"), then, then);
    expect_error(k, "'If1' (If): its then_branch has 1 outputs, 2 are read");

    k = model(a);
    then = body(k, "b b");
    then->input = NEW(a, Onnx__ValueInfoProto *);
    then->input[then->n_input++] = maker_info(k, "i", DT_F32, -1, NULL);
    inner(k, then, "Neg", "i", "b");
    branches(k, maker_node(k, "If", "c", "y z"), then, then);
    expect_error(k, "its then_branch has inputs");

    k = model(a);
    maker_node(k, "If", "c", "y z");
    expect_error(k, "it has no then_branch");

    k = model(a);
    then = body(k, "b b");
    inner(k, then, "Conv", "r", "b");
    branches(k, maker_node(k, "If", "c", "y z"), then, then);
    expect_error(k, "'in_Conv' (Conv): has 1 inputs");

    k = model(a);
    then = body(k, "b b");
    inner(k, then, "Neg", "d", "b");
    inner(k, then, "Neg", "b", "d");
    branches(k, maker_node(k, "If", "c", "y z"), then, then);
    expect_error(k, "the graph has a cycle");
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taken),
        cmocka_unit_test(nested),
        cmocka_unit_test(errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
