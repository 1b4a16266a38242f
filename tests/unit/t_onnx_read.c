/* Reading: what is kept, how older opsets become the IR's form, what is refused. */
#include "onnx_build.h"

#include <math.h>

static Graph *read_ok(Maker *k)
{
    Caught c;
    Graph *g = maker_read(k, &c);
    if (!g) fail_msg("%s", c.text);
    assert_int_equal(graph_infer(g, caught(&c)), 0);
    return g;
}

static void read_fails(Maker *k, const char *what)
{
    Caught c;
    assert_null(maker_read(k, &c));
    assert_int_equal(c.d.errors, 1);
    assert_says(&c, what);
}

static void ints_are(const Value *v, int n, const int64_t *want)
{
    int64_t got[16];
    assert_non_null(v);
    assert_int_equal(value_ints(v, got, 16), n);
    for (int i = 0; i < n; i++) assert_int_equal(got[i], want[i]);
}

/* ---- what is kept ------------------------------------------------------------------- */

static void model_info(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = maker_relu(a, 17);
    Onnx__StringStringEntryProto prop = ONNX__STRING_STRING_ENTRY_PROTO__INIT, *props[] = {&prop};
    prop.key = arena_strdup(a, "author");
    prop.value = arena_strdup(a, "me");
    k->m.metadata_props = props;
    k->m.n_metadata_props = 1;
    k->m.producer_name = arena_strdup(a, "pytorch");
    k->m.has_model_version = true;
    k->m.model_version = 5;
    k->m.doc_string = arena_strdup(a, "a model");
    k->nodes[0]->doc_string = arena_strdup(a, "a node");
    k->inputs[0]->doc_string = arena_strdup(a, "an input");
    Graph *g = read_ok(k);
    assert_string_equal(g->info.producer_name, "pytorch");
    assert_string_equal(g->info.doc, "a model");
    assert_int_equal(g->info.model_version, 5);
    assert_int_equal(g->info.nprops, 1);
    assert_string_equal(g->info.props[0].value, "me");
    assert_string_equal(g->nodes[0]->doc, "a node");
    assert_string_equal(g->nodes[0]->name, "Relu0");
    assert_string_equal(g->inputs[0]->doc, "an input");
    assert_string_equal(g->symbols[g->inputs[0]->type.dim[0] - DIM_SYM_BASE], "N");
    assert_int_equal(g->info.opsets[0].version, 17);
    arena_free(a);
}

static void constants(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = maker_relu(a, 13);
    Onnx__AttributeProto *p;
    maker_float(k, maker_node(k, "Constant", "", "f"), "value_float", 1.5f);
    maker_ints(k, maker_node(k, "Constant", "", "i"), "value_ints", D(3, 4));
    k->nodes[1]->n_input = k->nodes[2]->n_input = 0;
    maker_node(k, "Add", "y f", "z");
    maker_node(k, "Reshape", "f i", "r");
    maker_output(k, "z", DT_F32, D(-1, 2, 4, 4));
    Onnx__NodeProto *s = maker_node(k, "Constant", "", "s");
    s->n_input = 0;
    p = maker_attr(k, s, "value_string", ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING);
    p->has_s = true;
    p->s = (ProtobufCBinaryData){2, (uint8_t *)(uintptr_t) "hi"};
    k->nodes[4]->op_type = arena_strdup(a, "Identity"); /* not a reshape: f is a scalar */
    k->nodes[4]->n_input = 1;
    Graph *g = read_ok(k);
    double x;
    assert_int_equal(g->nnodes, 4);
    assert_true(value_scalar(g->nodes[1]->in[1], &x) && x == 1.5);
    assert_int_equal(g->nodes[3]->op, OP_Opaque);
    assert_string_equal(g->nodes[3]->op_type, "Constant");
    arena_free(a);
}

/* Typed arrays become plain elements; misaligned raw data is moved. */
static void tensor_storage(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = maker_relu(a, 13);
    static const int64_t wide[3] = {1, -2, INT64_MAX};
    Onnx__TensorProto *t = maker_tensor(k, "h", DT_F16, D(2), "", 0);
    t->has_raw_data = false;
    t->n_int32_data = 2;
    t->int32_data = (int32_t[]){0x3c00, 0xbc00};
    t = maker_tensor(k, "b", DT_I8, D(2), "", 0);
    t->has_raw_data = false;
    t->n_int32_data = 2;
    t->int32_data = (int32_t[]){-128, 127};
    maker_tensor(k, "w", DT_I64, D(3), wide, sizeof wide);
    maker_node(k, "Identity", "h", "h2");
    maker_node(k, "Identity", "b", "b2");
    maker_node(k, "Identity", "w", "w2");
    for (int pad = 0; pad < 8; pad++) {
        k->m.producer_name = arena_printf(a, "%.*s", pad, "abcdefgh");
        Graph *g = read_ok(k);
        assert_memory_equal(g->nodes[1]->in[0]->data, ((uint16_t[]){0x3c00, 0xbc00}), 4);
        assert_memory_equal(g->nodes[2]->in[0]->data, ((int8_t[]){-128, 127}), 2);
        assert_memory_equal(g->nodes[3]->in[0]->data, wide, sizeof wide);
        assert_int_equal((uintptr_t)g->nodes[3]->in[0]->data % 8, 0);
    }
    t = k->tensors[1];
    t->int32_data = (int32_t[]){0, 128};
    read_fails(k, "initializer 'b': an element does not fit its type int8");
    arena_free(a);
}

static void initializers_as_inputs(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = maker_relu(a, 8);
    k->m.ir_version = 3;
    maker_input(k, "w", DT_F32, D(2, 1, 1));
    maker_weight(k, "w", D(2, 1, 1));
    maker_node(k, "Mul", "y w", "z");
    Graph *g = read_ok(k);
    assert_int_equal(g->ninputs, 1);
    assert_non_null(g->nodes[1]->in[1]->data);
    arena_free(a);
}

static void unsorted_nodes(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = maker_new(a, 13);
    maker_input(k, "x", DT_F32, D(4));
    maker_node(k, "Add", "b a", "y");
    maker_node(k, "Relu", "a", "b");
    maker_node(k, "Neg", "x", "a");
    maker_output(k, "y", DT_F32, D(4));
    Graph *g = read_ok(k);
    assert_int_equal(g->nodes[0]->op, OP_Neg);
    assert_int_equal(g->nodes[1]->op, OP_Relu);
    assert_int_equal(g->nodes[2]->op, OP_Add);
    arena_free(a);
}

/* If with two bodies that read x and w from outside. */
static Onnx__GraphProto *body(Maker *k, const char *in, const char *out)
{
    Onnx__GraphProto *g = MESSAGE(k->a, Onnx__GraphProto, ONNX__GRAPH_PROTO__INIT);
    g->name = arena_strdup(k->a, out);
    g->n_node = 1;
    g->node = NEW_ARRAY(k->a, Onnx__NodeProto *, 1);
    g->node[0] = maker_node(k, "Mul", in, out);
    k->g.n_node--;
    g->n_output = 1;
    g->output = NEW_ARRAY(k->a, Onnx__ValueInfoProto *, 1);
    g->output[0] = maker_info(k, out, DT_F32, -1, NULL);
    return g;
}

static void captures(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = maker_relu(a, 13);
    maker_weight(k, "w", D(1));
    maker_input(k, "cond", DT_BOOL, D(1));
    Onnx__GraphProto *then = body(k, "y w", "inner"), *other = body(k, "w w", "inner2");
    Onnx__NodeProto *n = maker_node(k, "If", "cond", "z");
    maker_attr(k, n, "then_branch", ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH)->g = then;
    maker_attr(k, n, "else_branch", ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH)->g = other;
    maker_output(k, "z", DT_F32, -1, NULL);
    Graph *g = read_ok(k);
    const Node *f = g->nodes[1];
    assert_int_equal(f->op, OP_Opaque);
    assert_int_equal(f->nin, 3);
    assert_int_equal(f->ncapture, 2);
    assert_string_equal(f->in[1]->name, "y");
    assert_string_equal(f->in[2]->name, "w");
    /* New values may not shadow the body's. */
    assert_string_not_equal(value_new(g, "inner", type_of(DT_F32, 0, NULL))->name, "inner");
    then->node[0]->input[0] = arena_strdup(a, "nowhere");
    read_fails(k, "node 'If1' (If): its body reads 'nowhere', which nothing makes");
    arena_free(a);
}

/* ---- older opsets ------------------------------------------------------------------- */

static void attributes_become_inputs(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = maker_new(a, 9);
    maker_input(k, "x", DT_F32, D(2, 3, 4, 1));
    Onnx__NodeProto *n = maker_node(k, "Slice", "x", "slice");
    maker_ints(k, n, "starts", D(1));
    maker_ints(k, n, "ends", D(3));
    maker_ints(k, n, "axes", D(2));
    n = maker_node(k, "Clip", "slice", "clip");
    maker_float(k, n, "max", 6);
    n = maker_node(k, "Pad", "clip", "pad");
    maker_ints(k, n, "pads", D(0, 0, 0, 0, 0, 1, 0, 0));
    maker_float(k, n, "value", 2);
    maker_ints(k, maker_node(k, "ReduceMean", "pad", "mean"), "axes", D(0));
    maker_ints(k, maker_node(k, "ReduceSum", "mean", "sum"), "axes", D(1));
    maker_ints(k, maker_node(k, "Squeeze", "sum", "squeeze"), "axes", D(0, 1));
    maker_ints(k, maker_node(k, "Unsqueeze", "squeeze", "unsqueeze"), "axes", D(0));
    maker_float(k, maker_node(k, "Dropout", "unsqueeze", "drop"), "ratio", 0.25f);
    maker_ints(k, maker_node(k, "Split", "x", "s1 s2"), "split", D(1, 1));
    maker_node(k, "Split", "s1", "s3");
    maker_output(k, "drop", DT_F32, D(1, 2, 1));
    Graph *g = read_ok(k);
    double x;
    ints_are(node_in(g->nodes[0], 1), D(1));
    ints_are(node_in(g->nodes[0], 2), D(3));
    ints_are(node_in(g->nodes[0], 3), D(2));
    assert_null(node_in(g->nodes[1], 1));
    assert_true(value_scalar(node_in(g->nodes[1], 2), &x) && x == 6);
    ints_are(node_in(g->nodes[2], 1), D(0, 0, 0, 0, 0, 1, 0, 0));
    assert_true(value_scalar(node_in(g->nodes[2], 2), &x) && x == 2);
    for (int i = 3; i < 7; i++) assert_int_equal(g->nodes[i]->nin, 2);
    assert_true(value_scalar(node_in(g->nodes[7], 1), &x) && x == 0.25);
    ints_are(node_in(g->nodes[8], 1), D(1, 1));
    assert_int_equal(node_int(g->nodes[9], "num_outputs", 0), 1);
    for (int i = 0; i < 8; i++) assert_int_equal(g->nodes[i]->nattrs, 0);
    Type want = type_of(DT_F32, D(1, 2, 1));
    assert_true(type_equal(&g->outputs[0]->type, &want));
    arena_free(a);
}

/* A softmax over the last axes at once is spelled out; one over a single long axis stays. */
static void flat_softmax(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = maker_new(a, 11);
    maker_input(k, "x", DT_F32, D(2, 3, 4));
    maker_input(k, "v", DT_F32, D(2, 3, 1, 1));
    maker_node(k, "Softmax", "x", "y");
    maker_node(k, "LogSoftmax", "v", "w");
    maker_output(k, "y", DT_F32, D(2, 3, 4));
    maker_output(k, "w", DT_F32, D(2, 3, 1, 1));
    Graph *g = read_ok(k);
    static const Op want[] = {OP_Flatten, OP_Shape, OP_Softmax, OP_Reshape, OP_LogSoftmax};
    assert_int_equal(g->nnodes, 5);
    for (int i = 0; i < 5; i++) assert_int_equal(g->nodes[i]->op, want[i]);
    assert_string_equal(g->nodes[3]->out[0]->name, "y");
    assert_int_equal(node_int(g->nodes[4], "axis", 0), 1);
    assert_int_equal(g->outputs[0]->type.rank, 3);
    k->opset.version = 13;
    assert_int_equal(read_ok(k)->nnodes, 2);
    arena_free(a);
}

static void batch_norm(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = maker_relu(a, 7);
    for (int i = 0; i < 4; i++) maker_weight(k, (const char *[]){"s", "b", "m", "v"}[i], D(2));
    Onnx__NodeProto *n = maker_node(k, "BatchNormalization", "y s b m v", "z");
    maker_int(k, n, "spatial", 1);
    assert_int_equal(read_ok(k)->nodes[1]->op, OP_BatchNormalization);
    assert_null(node_attr(read_ok(k)->nodes[1], "spatial"));
    n->attribute[0]->i = 0;
    assert_int_equal(read_ok(k)->nodes[1]->op, OP_Opaque);
    n->n_attribute = 0;
    n->n_output = split_names(a, "z m2 v2", &n->output);
    assert_int_equal(read_ok(k)->nodes[1]->op, OP_Opaque);
    arena_free(a);
}

static void opsets(void **state)
{
    (void)state;
    Arena *a = arena_new();
    read_fails(maker_relu(a, 6), "opset 6; the oldest that is read is 7");
    read_fails(maker_relu(a, 1000), "opset 1000; the newest known is");
    read_ok(maker_relu(a, 7));
    read_ok(maker_relu(a, 24));
    Maker *k = maker_relu(a, 13);
    k->opset.domain = arena_strdup(a, "other");
    read_fails(k, "node 'Relu0' (Relu): the model imports no opset of the default domain");
    k = maker_relu(a, 13);
    k->nodes[0]->domain = arena_strdup(a, "ehap");
    read_fails(k, "domain 'ehap' is internal");
    arena_free(a);
}

/* ---- what is refused ---------------------------------------------------------------- */

static void names(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = maker_relu(a, 13);
    maker_node(k, "Neg", "y", "y");
    read_fails(k, "node 'Neg1' (Neg): output 'y' already exists: node 'Relu0' makes it");
    k = maker_relu(a, 13);
    maker_node(k, "Neg", "lost", "z");
    read_fails(k, "node 'Neg1' (Neg): input 'lost' is made by no node, input or initializer");
    k = maker_relu(a, 13);
    maker_output(k, "lost", DT_F32, D(1));
    read_fails(k, "graph output 1 'lost' is made by no node");
    k = maker_relu(a, 13);
    maker_weight(k, "w", D(1));
    maker_weight(k, "w", D(1));
    read_fails(k, "two inputs or initializers are named 'w'");
    k = maker_relu(a, 13);
    maker_input(k, "x", DT_F32, D(1));
    read_fails(k, "two inputs or initializers are named 'x'");
    k = maker_relu(a, 13);
    k->nodes[0]->op_type = NULL;
    read_fails(k, "it has no op type");
    k = maker_relu(a, 13);
    k->m.graph = NULL;
    read_fails(k, "it holds no graph");
    arena_free(a);
}

static void cycle(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = maker_relu(a, 13);
    maker_node(k, "Add", "y c", "a");
    maker_node(k, "Neg", "a", "b");
    maker_node(k, "Neg", "b", "c");
    maker_node(k, "Neg", "c", "d");
    read_fails(k, "the graph has a cycle");
    arena_free(a);
}

static void shapes(void **state)
{
    (void)state;
    Arena *a = arena_new();
    static const float x[4] = {1, 2, 3, 4};
    Maker *k = maker_relu(a, 13);
    maker_tensor(k, "w", DT_F32, D(2, 3), x, sizeof x);
    read_fails(k, "initializer 'w': shape float[2,3] needs 24 bytes, the file has 16");
    k = maker_relu(a, 13);
    maker_tensor(k, "w", DT_F32, D(3), x, sizeof x);
    read_fails(k, "initializer 'w': shape float[3] needs 12 bytes, the file has 16");
    k = maker_relu(a, 13);
    maker_tensor(k, "w", DT_F32, D(-4), x, sizeof x);
    read_fails(k, "initializer 'w': dimension 0 is -4");
    k = maker_relu(a, 13);
    maker_tensor(k, "w", DT_F32, D(1LL << 40, 1LL << 40), x, sizeof x);
    read_fails(k, "initializer 'w': the product of its dimensions overflows");
    k = maker_relu(a, 13);
    maker_tensor(k, "w", DT_F32, D(1LL << 58), "", 0);
    read_fails(k, "initializer 'w': shape float[288230376151711744] needs");
    k = maker_relu(a, 13);
    maker_input(k, "big", DT_F32, D(1LL << 62, 4));
    read_fails(k, "value 'big': the product of its dimensions overflows");
    k = maker_relu(a, 13);
    maker_input(k, "neg", DT_F32, D(2, -7));
    read_fails(k, "value 'neg': dimension 1 is -7");
    arena_free(a);
}

static void bad_weights(void **state)
{
    (void)state;
    Arena *a = arena_new();
    float x[2] = {1, NAN};
    uint16_t h[2] = {0x3c00, 0x7e00};
    for (int kind = 0; kind < 3; kind++) {
        Maker *k = maker_relu(a, 13);
        x[1] = kind == 1 ? INFINITY : NAN;
        if (kind < 2) maker_tensor(k, "w", DT_F32, D(1, 2, 1, 1), x, sizeof x);
        if (kind == 2) maker_tensor(k, "w", DT_F16, D(2, 1, 1), h, sizeof h);
        if (kind == 2) maker_int(k, maker_node(k, "Cast", "y", "y2"), "to", DT_F16);
        maker_node(k, kind < 2 ? "Conv" : "Mul", kind < 2 ? "y w" : "y2 w", "z");
        k->nodes[k->g.n_node - 1]->name = arena_strdup(a, "conv1");
        read_fails(k, kind == 0   ? "node 'conv1' (Conv): weight 'w' holds NaN"
                      : kind == 1 ? "node 'conv1' (Conv): weight 'w' holds infinity"
                                  : "node 'conv1' (Mul): weight 'w' holds NaN");
    }
    /* A node without a name and a first result. */
    const float nan[6] = {NAN};
    Maker *k = maker_new(a, 14);
    maker_input(k, "x", DT_F32, D(3, 4, 2));
    maker_tensor(k, "w", DT_F32, D(1, 3, 2), nan, sizeof nan);
    maker_tensor(k, "r", DT_F32, D(1, 3, 1), nan, sizeof *nan * 3);
    Onnx__NodeProto *gru = maker_node(k, "GRU", "x w r", "- h");
    gru->name = NULL;
    maker_int(k, gru, "hidden_size", 1);
    maker_output(k, "h", DT_F32, D(1, 4, 1));
    read_fails(k, "node of 'h' (GRU): weight 'w' holds NaN");
    /* An infinite bound is meant. */
    k = maker_relu(a, 13);
    x[0] = INFINITY;
    maker_tensor(k, "hi", DT_F32, 0, NULL, x, sizeof *x);
    maker_node(k, "Clip", "y - hi", "z");
    read_ok(k);
    arena_free(a);
}

static void arity(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = maker_relu(a, 13);
    maker_node(k, "Conv", "y", "z");
    read_fails(k, "node 'Conv1' (Conv)");
    k = maker_relu(a, 13);
    maker_node(k, "Neg", "y y", "z");
    read_fails(k, "node 'Neg1' (Neg)");
    k = maker_relu(a, 13);
    maker_node(k, "Concat", "y - y", "z");
    maker_int(k, k->nodes[1], "axis", 0);
    read_fails(k, "input 1 is missing");
    k = maker_relu(a, 13);
    maker_int(k, maker_node(k, "Softmax", "y", "z"), "axis", 1);
    maker_int(k, k->nodes[1], "axis", 1);
    read_fails(k, "attribute 'axis' occurs twice");
    arena_free(a);
}

static void files(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Caught c;
    Graph *g;
    assert_int_equal(onnx_read(&g, a, "/nonexistent/model.onnx", caught(&c)), -1);
    assert_says(&c, "/nonexistent/model.onnx: cannot open");
    assert_int_equal(onnx_read(&g, a, "/dev/zero", caught(&c)), -1);
    assert_says(&c, "not a regular file");
    assert_int_equal(onnx_read(&g, a, "/tmp", caught(&c)), -1);
    assert_says(&c, "not a regular file");
    char path[] = "/tmp/ehapc-test-XXXXXX";
    close(mkstemp(path));
    assert_int_equal(onnx_read(&g, a, path, caught(&c)), -1);
    assert_says(&c, "the file is empty");
    unlink(path);
    arena_free(a);
}

static void tensor_files(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Caught c;
    Graph *g = graph_new(a, "g");
    Value *v;
    Onnx__TensorProto t = ONNX__TENSOR_PROTO__INIT;
    uint8_t bytes[256];
    char path[] = "/tmp/ehapc-test-XXXXXX";
    t.has_data_type = true;
    t.data_type = DT_F32;
    t.n_dims = 1;
    t.dims = (int64_t[]){3};
    t.n_float_data = 3;
    t.float_data = (float[]){1, 2, 3};
    size_t n = onnx__tensor_proto__pack(&t, bytes);
    FILE *f = fdopen(mkstemp(path), "wb");
    fwrite(bytes, 1, n, f);
    fclose(f);
    assert_int_equal(onnx_read_tensor(&v, g, path, caught(&c)), 0);
    assert_int_equal(v->type.dim[0], 3);
    assert_memory_equal(v->data, t.float_data, 12);
    f = fopen(path, "wb");
    fwrite(bytes, 1, n - 1, f);
    fclose(f);
    assert_int_equal(onnx_read_tensor(&v, g, path, caught(&c)), -1);
    assert_says(&c, "not a valid ONNX file");
    unlink(path);
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(model_info),
        cmocka_unit_test(constants),
        cmocka_unit_test(tensor_storage),
        cmocka_unit_test(initializers_as_inputs),
        cmocka_unit_test(unsorted_nodes),
        cmocka_unit_test(captures),
        cmocka_unit_test(attributes_become_inputs),
        cmocka_unit_test(flat_softmax),
        cmocka_unit_test(batch_norm),
        cmocka_unit_test(opsets),
        cmocka_unit_test(names),
        cmocka_unit_test(cycle),
        cmocka_unit_test(shapes),
        cmocka_unit_test(bad_weights),
        cmocka_unit_test(arity),
        cmocka_unit_test(files),
        cmocka_unit_test(tensor_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
