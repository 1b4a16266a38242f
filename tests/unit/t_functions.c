/* Local functions: which calls become nodes, under which names, with which attributes. */
#include "onnx_build.h"

static Graph *read_ok(Maker *k)
{
    Caught c;
    Graph *g = maker_read(k, &c);
    if (!g) fail_msg("%s", c.text);
    return g;
}

/* A function of domain "my" without nodes. */
static Onnx__FunctionProto *function(Maker *k, const char *name, const char *in, const char *out,
                                     int64_t opset)
{
    Onnx__FunctionProto *f = MESSAGE(k->a, Onnx__FunctionProto, ONNX__FUNCTION_PROTO__INIT);
    f->name = arena_strdup(k->a, name);
    f->domain = arena_strdup(k->a, "my");
    f->n_input = split_names(k->a, in, &f->input);
    f->n_output = split_names(k->a, out, &f->output);
    f->node = NEW_ARRAY(k->a, Onnx__NodeProto *, MOST);
    f->opset_import = NEW(k->a, Onnx__OperatorSetIdProto *);
    f->opset_import[0] = MESSAGE(k->a, Onnx__OperatorSetIdProto, ONNX__OPERATOR_SET_ID_PROTO__INIT);
    f->opset_import[0]->has_version = true;
    f->opset_import[0]->version = opset;
    f->n_opset_import = 1;
    if (!k->m.functions) k->m.functions = NEW_ARRAY(k->a, Onnx__FunctionProto *, MOST);
    return k->m.functions[k->m.n_functions++] = f;
}

static Onnx__NodeProto *inner(Maker *k, Onnx__FunctionProto *f, const char *op, const char *in,
                              const char *out)
{
    Onnx__NodeProto *n = maker_node(k, op, in, out);
    k->g.n_node--;
    n->name = arena_printf(k->a, "n%zu", f->n_node);
    return f->node[f->n_node++] = n;
}

static Onnx__NodeProto *own(Maker *k, Onnx__NodeProto *n)
{
    n->domain = arena_strdup(k->a, "my");
    return n;
}

/* x [N,2,4,4] -> z, with opsets of the default domain and "my"; the caller adds nodes. */
static Maker *model(Arena *a, int64_t opset)
{
    Maker *k = maker_new(a, opset);
    k->opsets[1] = MESSAGE(a, Onnx__OperatorSetIdProto, ONNX__OPERATOR_SET_ID_PROTO__INIT);
    k->opsets[1]->domain = arena_strdup(a, "my");
    k->opsets[1]->has_version = true;
    k->opsets[1]->version = 1;
    k->m.n_opset_import = 2;
    maker_input(k, "x", DT_F32, D(-1, 2, 4, 4));
    maker_output(k, "z", DT_F32, -1, NULL);
    return k;
}

static void silu(Maker *k)
{
    Onnx__FunctionProto *f = function(k, "Silu", "X", "Y", 18);
    inner(k, f, "Mul", "X s", "Y"); /* not in order */
    inner(k, f, "Sigmoid", "X", "s");
}

static void reference(Maker *k, Onnx__NodeProto *n, const char *name, const char *of)
{
    maker_attr(k, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT)->ref_attr_name =
        arena_strdup(k->a, of);
}

/* A field that onnx.proto did not have yet. */
static void late_field(Maker *k, ProtobufCMessage *m, unsigned tag, const void *p, size_t n)
{
    ProtobufCMessageUnknownField *u = NEW(k->a, ProtobufCMessageUnknownField);
    assert_true(n < 128);
    u->tag = tag;
    u->wire_type = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    u->len = n + 1;
    u->data = arena_alloc(k->a, n + 1);
    u->data[0] = (uint8_t)n;
    memcpy(u->data + 1, p, n);
    m->n_unknown_fields = 1;
    m->unknown_fields = u;
}

static int opaque_nodes(const Graph *g)
{
    int n = 0;
    for (int k = 0; k < g->nnodes; k++) n += g->nodes[k]->op == OP_Opaque;
    return n;
}

static void names_are_unique(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = model(a, 18);
    silu(k);
    Onnx__NodeProto *first = own(k, maker_node(k, "Silu", "x", "Silu0/s"));
    first->doc_string = arena_strdup(a, "a call");
    own(k, maker_node(k, "Silu", "Silu0/s", "z"))->name = first->name;
    Graph *g = read_ok(k);
    assert_int_equal(g->nnodes, 4);
    assert_int_equal(g->nodes[0]->op, OP_Sigmoid);
    assert_string_equal(g->nodes[0]->name, "Silu0/n1");
    assert_string_equal(g->nodes[0]->out[0]->name, "Silu0/s_1");
    assert_string_equal(g->nodes[0]->doc, "a call");
    assert_string_equal(g->nodes[2]->out[0]->name, "Silu0_1/s");
    assert_string_equal(g->outputs[0]->name, "z");
    assert_int_equal(g->info.extra.n, 0); /* the function is gone */
    arena_free(a);
}

static float alpha(Arena *a, bool by_default, bool given)
{
    Maker *k = model(a, 18);
    Onnx__FunctionProto *f = function(k, "Leaky", "X", "Y", 18);
    Onnx__FunctionProto *outer = function(k, "Outer", "X", "Y", 18);
    Onnx__AttributeProto def = ONNX__ATTRIBUTE_PROTO__INIT;
    uint8_t bytes[64];
    def.name = (char[]){"slope"};
    def.has_type = def.has_f = true;
    def.type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT;
    def.f = 0.5f;
    reference(k, inner(k, f, "LeakyRelu", "X", "Y"), "alpha", "slope");
    reference(k, own(k, inner(k, outer, "Leaky", "X", "Y")), "slope", "s");
    if (by_default) late_field(k, &f->base, 11, bytes, onnx__attribute_proto__pack(&def, bytes));
    Onnx__NodeProto *n = own(k, maker_node(k, "Outer", "x", "z"));
    if (given) maker_float(k, n, "s", 0.25f);
    Graph *g = read_ok(k);
    assert_int_equal(g->nnodes, 1);
    assert_int_equal(g->nodes[0]->op, OP_LeakyRelu);
    assert_string_equal(g->nodes[0]->name, "Outer0/n0/n0");
    return node_float(g->nodes[0], "alpha", -1);
}

static void attributes(void **state)
{
    (void)state;
    Arena *a = arena_new();
    assert_true(alpha(a, false, false) == -1);
    assert_true(alpha(a, true, false) == 0.5f);
    assert_true(alpha(a, true, true) == 0.25f);
    arena_free(a);
}

static void opset_of_the_function(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = model(a, 18);
    Onnx__FunctionProto *f = function(k, "Old", "X", "Y", 11);
    maker_ints(k, inner(k, f, "Unsqueeze", "X", "y"), "axes", 1, (int64_t[]){0});
    maker_float(k, inner(k, f, "Constant", "", "c"), "value_float", 2);
    inner(k, f, "Mul", "y c", "Y");
    own(k, maker_node(k, "Old", "x", "y"));
    maker_tensor(k, "axes", DT_I64, D(1), (int64_t[]){0}, 8);
    maker_node(k, "Squeeze", "y axes", "z");
    Graph *g = read_ok(k);
    assert_int_equal(g->nodes[0]->nin, 2);
    assert_int_equal(g->nodes[0]->nattrs, 0);
    assert_int_equal(g->outputs[0]->type.rank, 4);
    arena_free(a);
}

/* What stays opaque would mean something else in the model's opset, so its function is called as
 * before, and so is what calls that; the others become nodes. */
static void opset_of_what_stays(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = model(a, 18);
    Onnx__FunctionProto *f = function(k, "Old", "X S", "Y", 10);
    inner(k, f, "Resize", "X S", "Y");
    own(k, inner(k, function(k, "Outer", "X S", "Y", 18), "Old", "X S", "Y"));
    silu(k);
    maker_input(k, "s", DT_F32, D(4));
    own(k, maker_node(k, "Outer", "x s", "y"));
    own(k, maker_node(k, "Silu", "y", "z"));
    Graph *g = read_ok(k);
    assert_int_equal(g->nnodes, 3);
    assert_int_equal(opaque_nodes(g), 1);
    assert_string_equal(g->nodes[0]->op_type, "Outer");
    Onnx__ModelProto rest = ONNX__MODEL_PROTO__INIT;
    rest.n_functions = 2;
    rest.functions = k->m.functions;
    assert_int_equal(g->info.extra.n, onnx__model_proto__get_packed_size(&rest));
    assert_int_equal(g->info.nopsets, 2);
    arena_free(a);
}

/* Functions that are refused one after the other end the attempts before long. */
static void opsets_of_many(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = model(a, 18);
    const char *in = "x";
    for (int i = 0; i < 12; i++) { /* each hides the type of what the next one reads */
        Onnx__FunctionProto *f = function(k, arena_printf(a, "F%d", i), "X", "Y", 10);
        maker_float(k, inner(k, f, "Clip", "X", "Y"), "min", 0);
        const char *out = i == 11 ? "z" : arena_printf(a, "v%d", i);
        own(k, maker_node(k, f->name, in, out));
        in = out;
    }
    k->g.input[0]->type->tensor_type->elem_type = DT_F16;
    Graph *g = read_ok(k);
    assert_int_equal(opaque_nodes(g), 12);
    arena_free(a);
}

/* As metadata_props: field 9, of key and value. */
static void metadata_of_the_call(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = model(a, 18);
    silu(k);
    static const char of_node[] = "\n\1a\22\1n", of_call[] = "\n\1a\22\1c", more[] = "\n\1b\22\1c";
    late_field(k, &k->m.functions[0]->node[1]->base, 9, of_node, 6); /* Sigmoid */
    Onnx__NodeProto *call = own(k, maker_node(k, "Silu", "x", "z"));
    late_field(k, &call->base, 9, of_call, 6);
    ProtobufCMessageUnknownField *two = NEW_ARRAY(a, ProtobufCMessageUnknownField, 2);
    two[0] = call->base.unknown_fields[0];
    late_field(k, &call->base, 9, more, 6);
    two[1] = call->base.unknown_fields[0];
    call->base.unknown_fields = two;
    call->base.n_unknown_fields = 2;
    Graph *g = read_ok(k);
    assert_int_equal(g->nodes[0]->op, OP_Sigmoid);
    assert_int_equal(g->nodes[0]->extra.n, 2 * 8);
    assert_memory_equal(g->nodes[0]->extra.p, "J\6\n\1a\22\1nJ\6\n\1b\22\1c", 16);
    assert_memory_equal(g->nodes[1]->extra.p, "J\6\n\1a\22\1cJ\6\n\1b\22\1c", 16);
    arena_free(a);
}

static void overloads(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = model(a, 18);
    const char *ops[] = {"Neg", "Abs"}, *names[] = {"one", "two"};
    for (int i = 0; i < 2; i++) {
        Onnx__FunctionProto *f = function(k, "F", "X", "Y", 18);
        inner(k, f, ops[i], "X", "Y");
        late_field(k, &f->base, 13, names[i], 3);
    }
    late_field(k, &own(k, maker_node(k, "F", "x", "y"))->base, 8, "two", 3);
    late_field(k, &own(k, maker_node(k, "F", "y", "w"))->base, 8, "one", 3);
    own(k, maker_node(k, "F", "w", "z")); /* there is none without a name */
    Graph *g = read_ok(k);
    assert_int_equal(g->nodes[0]->op, OP_Abs);
    assert_int_equal(g->nodes[1]->op, OP_Neg);
    assert_int_equal(g->nodes[2]->op, OP_Opaque);
    arena_free(a);
}

/* An input that is an output, an output twice, an omitted output, and one input too few. */
static void inputs_and_outputs(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = model(a, 18);
    Onnx__FunctionProto *f = function(k, "F", "X low", "X Y Y s", 18);
    inner(k, f, "Clip", "X low", "Y");
    inner(k, f, "Neg", "Y", "s");
    own(k, maker_node(k, "F", "x", "a b c"));
    maker_node(k, "Add", "a b", "d");
    maker_node(k, "Add", "c d", "z");
    Graph *g = read_ok(k);
    assert_int_equal(opaque_nodes(g), 0);
    assert_int_equal(g->nnodes, 6);
    for (int i = 0; i < g->nnodes; i++)
        if (g->nodes[i]->op == OP_Clip) assert_int_equal(g->nodes[i]->nin, 1);
    assert_int_equal(g->outputs[0]->type.rank, 4);
    arena_free(a);
}

/* What is not known stays, with the functions it needs, as the file has it. */
static void what_stays(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = model(a, 18);
    silu(k);
    Onnx__FunctionProto *odd = function(k, "Odd", "X", "Y", 18);
    own(k, inner(k, odd, "Helper", "X", "s"));
    inner(k, odd, "Frob", "s", "Y");
    inner(k, function(k, "Helper", "X", "Y", 18), "Neg", "X", "Y");
    own(k, inner(k, function(k, "Forever", "X", "Y", 18), "Forever", "X", "Y"));
    inner(k, function(k, "Loose", "X", "Y", 18), "Add", "X nothing", "Y");
    inner(k, function(k, "New", "X", "Y", 99), "Neg", "X", "Y");
    inner(k, function(k, "Uncalled", "X", "Y", 18), "Neg", "X", "Y");
    const char *calls[] = {"Odd", "Forever", "Loose", "New", "Silu"};
    const char *in = "x";
    for (int i = 0; i < 5; i++) {
        const char *out = i == 4 ? "z" : arena_printf(a, "v%d", i);
        own(k, maker_node(k, calls[i], in, out));
        in = out;
    }
    Onnx__FunctionProto *want[] = {odd,
                                   k->m.functions[2],
                                   k->m.functions[3],
                                   k->m.functions[4],
                                   k->m.functions[5],
                                   k->m.functions[6]};
    Graph *g = read_ok(k);
    assert_int_equal(opaque_nodes(g), 4);
    assert_int_equal(g->nnodes, 6);
    Onnx__ModelProto rest = ONNX__MODEL_PROTO__INIT;
    rest.n_functions = 6;
    rest.functions = want;
    assert_int_equal(g->info.extra.n, onnx__model_proto__get_packed_size(&rest));
    uint8_t *bytes = arena_alloc(a, g->info.extra.n);
    onnx__model_proto__pack(&rest, bytes);
    assert_memory_equal(g->info.extra.p, bytes, g->info.extra.n);
    arena_free(a);
}

/* Each function calls the one before twice: 2^40 nodes. */
static void doubling(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = model(a, 18);
    inner(k, function(k, "F0", "X", "Y", 18), "Neg", "X", "Y");
    for (int i = 1; i <= 40; i++) {
        const char *before = arena_printf(a, "F%d", i - 1);
        Onnx__FunctionProto *f = function(k, arena_printf(a, "F%d", i), "X", "Y", 18);
        own(k, inner(k, f, before, "X", "s"));
        own(k, inner(k, f, before, "s", "Y"));
    }
    own(k, maker_node(k, "F3", "x", "y"));
    own(k, maker_node(k, "F40", "y", "z"));
    Graph *g = read_ok(k);
    assert_int_equal(g->nnodes, 9);
    assert_int_equal(opaque_nodes(g), 1);
    arena_free(a);
}

/* A body calls it: the function stays, and so does its name. */
static void calls_in_bodies(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = model(a, 18);
    silu(k);
    maker_input(k, "cond", DT_BOOL, D(1));
    Onnx__NodeProto *n = maker_node(k, "If", "cond", "y");
    for (int i = 0; i < 2; i++) {
        Onnx__GraphProto *g = MESSAGE(a, Onnx__GraphProto, ONNX__GRAPH_PROTO__INIT);
        const char *out = i ? "no" : "Silu1/s"; /* the name that the call would make */
        g->name = arena_strdup(a, "body");
        g->node = NEW(a, Onnx__NodeProto *);
        g->node[g->n_node++] = own(k, maker_node(k, "Silu", "x", out));
        k->g.n_node--;
        g->output = NEW(a, Onnx__ValueInfoProto *);
        g->output[g->n_output++] = maker_info(k, out, DT_F32, -1, NULL);
        maker_attr(k, n, i ? "else_branch" : "then_branch",
                   ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH)
            ->g = g;
    }
    own(k, maker_node(k, "Silu", "y", "z"));
    Graph *g = read_ok(k);
    assert_int_equal(g->nnodes, 3);
    assert_string_equal(g->nodes[1]->out[0]->name, "Silu1/s_1");
    assert_true(g->info.extra.n > 0);
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_unique),
        cmocka_unit_test(attributes),
        cmocka_unit_test(opset_of_the_function),
        cmocka_unit_test(opset_of_what_stays),
        cmocka_unit_test(opsets_of_many),
        cmocka_unit_test(metadata_of_the_call),
        cmocka_unit_test(overloads),
        cmocka_unit_test(inputs_and_outputs),
        cmocka_unit_test(what_stays),
        cmocka_unit_test(doubling),
        cmocka_unit_test(calls_in_bodies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
