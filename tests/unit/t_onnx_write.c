/* Writing: the way back to the opset of the file, what the checker refuses, atomic files,
 * external data and attacks through it. */
#include <sys/resource.h>
#include <sys/stat.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "ehap.h"
#include "ir/process.h"
#include "onnx_build.h"
#include "passes/passes.h"

static Graph *read_ok(Maker *k)
{
    Caught c;
    Graph *g = maker_read(k, &c);
    if (!g) fail_msg("%s", c.text);
    return g;
}

/* What the graph is written as, unpacked. */
static Onnx__ModelProto *write_ok(Arena *a, const Graph *g, const EmitOptions *o)
{
    Caught c;
    Bytes b = written(a, g, o, caught(&c));
    if (!b.n) fail_msg("%s", c.text);
    Onnx__ModelProto *m = onnx__model_proto__unpack(NULL, b.n, b.p);
    assert_non_null(m);
    return m;
}

static void free_model(Onnx__ModelProto *m) { onnx__model_proto__free_unpacked(m, NULL); }

static void write_fails(const Graph *g, const EmitOptions *o, const char *what)
{
    Caught c;
    void *p;
    size_t n;
    assert_int_equal(onnx_serialize(g, o, &p, &n, caught(&c)), -1);
    assert_says(&c, what);
    assert_int_equal(onnx_check(g, o, caught(&c)), -1);
}

/* ---- the model around the graph ----------------------------------------------------- */

static void header(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = maker_relu(a, 11);
    k->m.ir_version = 6;
    k->m.producer_name = arena_strdup(a, "pytorch");
    k->m.producer_version = arena_strdup(a, "2.1");
    KeyValue props[] = {{"ehapc.version", "1"}};
    EmitOptions o = {.props = props, .nprops = 1};
    Graph *g = read_ok(k);
    Onnx__ModelProto *m = write_ok(a, g, &o);
    assert_int_equal(m->ir_version, 6);
    assert_string_equal(m->producer_name, "ehapc");
    assert_int_equal(m->n_metadata_props, 2);
    assert_string_equal(m->metadata_props[0]->key, "ehapc.source_producer");
    assert_string_equal(m->metadata_props[0]->value, "pytorch 2.1");
    assert_string_equal(m->metadata_props[1]->key, "ehapc.version");
    assert_int_equal(m->opset_import[0]->version, 11);
    assert_string_equal(m->graph->input[0]->type->tensor_type->shape->dim[0]->dim_param, "N");
    free_model(m);
    o.min_opset = 13;
    m = write_ok(a, g, &o);
    assert_int_equal(m->ir_version, 7);
    assert_int_equal(m->opset_import[0]->version, 13);
    free_model(m);
    arena_free(a);
}

/* Fields that the schema does not know come out as they went in, here metadata of a node (9), of a
 * graph (16) and of the model (99). */
static void unknown_fields(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = maker_relu(a, 13);
    ProtobufCMessageUnknownField extra[3];
    for (int i = 0; i < 3; i++)
        extra[i] = (ProtobufCMessageUnknownField){(uint32_t[]){97, 98, 99}[i],
                                                  PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED, 4,
                                                  (uint8_t *)(uintptr_t) "\3abc"};
    ProtobufCMessage *at[3] = {&k->nodes[0]->base, &k->g.base, &k->m.base};
    for (int i = 0; i < 3; i++) {
        at[i]->n_unknown_fields = 1;
        at[i]->unknown_fields = &extra[i];
    }
    Onnx__ModelProto *m = write_ok(a, read_ok(k), NULL);
    ProtobufCMessage *out[3] = {&m->graph->node[0]->base, &m->graph->base, &m->base};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(out[i]->n_unknown_fields, 1);
        assert_int_equal(out[i]->unknown_fields[0].tag, extra[i].tag);
        assert_memory_equal(out[i]->unknown_fields[0].data, "\3abc", 4);
    }
    free_model(m);
    arena_free(a);
}

/* Dimension names of an output differ from the inferred ones and stay; denotations too. */
static void declared_types(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = maker_relu(a, 13);
    Onnx__TypeProto *t = k->outputs[0]->type;
    t->tensor_type->shape->dim[0]->dim_param = arena_strdup(a, "batch_out");
    t->denotation = arena_strdup(a, "IMAGE");
    Onnx__ModelProto *m = write_ok(a, read_ok(k), NULL);
    t = m->graph->output[0]->type;
    assert_string_equal(t->tensor_type->shape->dim[0]->dim_param, "batch_out");
    assert_string_equal(t->denotation, "IMAGE");
    free_model(m);
    arena_free(a);
}

/* ---- opsets ------------------------------------------------------------------------- */

static const Onnx__AttributeProto *attr_of(const Onnx__NodeProto *n, const char *name)
{
    for (size_t i = 0; i < n->n_attribute; i++)
        if (strcmp(n->attribute[i]->name, name) == 0) return n->attribute[i];
    return NULL;
}

static Maker *old_ops(Arena *a)
{
    Maker *k = maker_new(a, 9);
    maker_input(k, "x", DT_F32, D(2, 3, 4, 1));
    Onnx__NodeProto *n = maker_node(k, "Slice", "x", "slice");
    maker_ints(k, n, "starts", D(1));
    maker_ints(k, n, "ends", D(3));
    n = maker_node(k, "Clip", "slice", "clip");
    maker_float(k, n, "max", 6);
    n = maker_node(k, "Pad", "clip", "pad");
    maker_ints(k, n, "pads", D(0, 0, 0, 0, 0, 1, 0, 0));
    maker_ints(k, maker_node(k, "ReduceMean", "pad", "mean"), "axes", D(0));
    maker_ints(k, maker_node(k, "Squeeze", "mean", "squeeze"), "axes", D(0));
    maker_node(k, "Split", "x", "s1 s2");
    maker_int(k, maker_node(k, "Softmax", "s1", "soft"), "axis", 3);
    maker_output(k, "squeeze", DT_F32, D(4, 4, 1));
    maker_output(k, "soft", DT_F32, D(1, 3, 4, 1));
    return k;
}

static void same_opset(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Onnx__ModelProto *m = write_ok(a, read_ok(old_ops(a)), NULL);
    Onnx__GraphProto *g = m->graph;
    assert_int_equal(g->n_initializer, 0);
    for (size_t i = 0; i < g->n_node; i++) assert_int_equal(g->node[i]->n_input, 1);
    assert_int_equal(attr_of(g->node[0], "starts")->ints[0], 1);
    assert_int_equal(attr_of(g->node[0], "ends")->ints[0], 3);
    assert_true(attr_of(g->node[1], "max")->f == 6);
    assert_null(attr_of(g->node[1], "min"));
    assert_int_equal(attr_of(g->node[2], "pads")->n_ints, 8);
    assert_int_equal(attr_of(g->node[3], "axes")->ints[0], 0);
    assert_null(attr_of(g->node[5], "num_outputs"));
    free_model(m);
    arena_free(a);
}

static void raised_opset(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Onnx__ModelProto *m = write_ok(a, read_ok(old_ops(a)), &(EmitOptions){.min_opset = 13});
    Onnx__GraphProto *g = m->graph;
    assert_int_equal(g->node[0]->n_input, 3);
    assert_int_equal(g->node[1]->n_input, 3);
    assert_string_equal(g->node[1]->input[1], "");
    assert_int_equal(g->node[3]->n_input, 1);
    assert_int_equal(attr_of(g->node[3], "axes")->ints[0], 0);
    assert_int_equal(g->node[4]->n_input, 2);
    free_model(m);
    m = write_ok(a, read_ok(old_ops(a)), &(EmitOptions){.min_opset = 18});
    assert_int_equal(m->graph->node[3]->n_input, 2);
    assert_int_equal(attr_of(m->graph->node[5], "num_outputs")->i, 2);
    free_model(m);
    arena_free(a);
}

static void carried_ops(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = maker_relu(a, 8);
    maker_node(k, "Scan", "y", "scanned");
    maker_output(k, "scanned", DT_F32, D(-1, 2, 4, 4));
    Graph *g = read_ok(k);
    free_model(write_ok(a, g, NULL));
    write_fails(g, &(EmitOptions){.min_opset = 13},
                "node 'Scan1' (Scan): Scan changed its meaning in opset 9");
    arena_free(a);
}

/* It is Resize by its later name. */
static void upsample(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = maker_relu(a, 9);
    static const float scales[4] = {1, 1, 2, 2};
    maker_tensor(k, "scales", DT_F32, D(4), scales, sizeof scales);
    maker_node(k, "Upsample", "y scales", "up");
    maker_output(k, "up", DT_F32, D(-1, 2, 8, 8));
    Onnx__ModelProto *m = write_ok(a, read_ok(k), NULL);
    const Onnx__NodeProto *n = m->graph->node[1];
    assert_string_equal(n->op_type, "Upsample");
    assert_int_equal(n->n_input, 2);
    assert_int_equal(n->n_attribute, 1);
    free_model(m);
    m = write_ok(a, read_ok(k), &(EmitOptions){.min_opset = 13});
    n = m->graph->node[1];
    assert_string_equal(n->op_type, "Resize");
    assert_int_equal(n->n_input, 3);
    assert_string_equal(n->input[2], "scales");
    assert_memory_equal(attr_of(n, "nearest_mode")->s.data, "floor", 5);
    assert_int_equal(m->graph->n_initializer, 2);
    free_model(m);
    arena_free(a);
}

/* A body is written with the present names of what it captures. */
static void bodies(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Maker *k = maker_relu(a, 11);
    maker_input(k, "cond", DT_BOOL, D(1));
    Onnx__NodeProto *inner = maker_node(k, "Squeeze", "y", "inner");
    maker_ints(k, inner, "axes", D(0));
    k->g.n_node--;
    Onnx__GraphProto b = ONNX__GRAPH_PROTO__INIT;
    b.name = arena_strdup(a, "body");
    b.n_node = b.n_output = 1;
    b.node = &inner;
    b.output = (Onnx__ValueInfoProto *[]){maker_info(k, "inner", DT_F32, -1, NULL)};
    Onnx__NodeProto *n = maker_node(k, "If", "cond", "z");
    maker_attr(k, n, "then_branch", ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH)->g = &b;
    maker_attr(k, n, "else_branch", ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH)->g = &b;
    maker_output(k, "z", DT_F32, -1, NULL);
    Graph *g = read_ok(k);
    assert_int_equal(g->nodes[1]->ncapture, 1);
    g->nodes[1]->in[1]->name = "renamed";
    Onnx__ModelProto *m = write_ok(a, g, NULL);
    assert_int_equal(m->graph->node[1]->n_input, 1);
    for (int i = 0; i < 2; i++)
        assert_string_equal(m->graph->node[1]->attribute[i]->g->node[0]->input[0], "renamed");
    free_model(m);
    write_fails(g, &(EmitOptions){.min_opset = 13}, "Squeeze changed its meaning in opset 13");
    arena_free(a);
}

/* ---- the checker -------------------------------------------------------------------- */

static void checker(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = read_ok(maker_relu(a, 13));
    Value *y = build(g, OP_Derivative, IN(g->inputs[0], g->inputs[0]),
                     ATTRS(attr_str("of", "Relu"), attr_int("order", 1)));
    graph_add_output(g, y);
    write_fails(g, NULL, "an op of ehapc's own is left in the model");
    g = read_ok(maker_relu(a, 13));
    g->nodes[0]->out[0]->name = "x";
    write_fails(g, NULL, "value 'x' shares its name with another value");
    g = read_ok(maker_relu(a, 13));
    g->nnodes = 0;
    write_fails(g, NULL, "value 'y' is a graph output that nothing makes");
    g = read_ok(maker_relu(a, 13));
    Value *h = build(g, OP_HardSwish, IN(g->outputs[0]), NO_ATTRS);
    graph_add_output(g, h);
    Onnx__ModelProto *m = write_ok(a, g, NULL); /* raised as far as the op needs */
    assert_int_equal(m->opset_import[0]->version, 14);
    free_model(m);
    g = read_ok(maker_relu(a, 13));
    g->nodes[0]->in[0] = value_new(g, "loose", type_of(DT_F32, 0, NULL));
    write_fails(g, NULL, "input 'loose' is not defined before it");
    arena_free(a);
}

/* ---- files -------------------------------------------------------------------------- */

static void remove_folder(const char *path)
{
    DIR *dir = opendir(path);
    char name[512];
    for (struct dirent *e; dir && (e = readdir(dir));) {
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        unlink(name);
    }
    if (dir) closedir(dir);
    rmdir(path);
}

/* The one file BASE.….data in a folder. */
static char *data_file(Arena *a, const char *path, const char *base)
{
    char *found = NULL;
    DIR *dir = opendir(path);
    for (struct dirent *e; (e = readdir(dir));) {
        size_t n = strlen(e->d_name), b = strlen(base);
        if (strncmp(e->d_name, base, b) != 0 || n == b) continue;
        assert_null(found);
        assert_int_equal(n, b + 1 + 16 + 5);
        found = arena_printf(a, "%s/%s", path, e->d_name);
    }
    closedir(dir);
    assert_non_null(found);
    return found;
}

static int entries(const char *path)
{
    int n = 0;
    DIR *dir = opendir(path);
    while (readdir(dir)) n++;
    closedir(dir);
    return n - 2;
}

static Maker *big_model(Arena *a)
{
    Maker *k = maker_new(a, 13);
    maker_input(k, "x", DT_F32, D(64, 64));
    maker_weight(k, "w", D(64, 64));
    maker_weight(k, "v", D(512, 1024));
    maker_weight(k, "small", D(1));
    maker_node(k, "MatMul", "x w", "y");
    maker_node(k, "Add", "y small", "z");
    maker_node(k, "Identity", "v", "v2");
    maker_output(k, "z", DT_F32, D(64, 64));
    maker_output(k, "v2", DT_F32, D(512, 1024));
    return k;
}

static void external_data(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Caught c;
    char dir[] = "/tmp/ehapc-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char *path = arena_printf(a, "%s/m.onnx", dir), *second = arena_printf(a, "%s/n.onnx", dir);
    Graph *g = read_ok(big_model(a)), *h;
    /* Weights of too large a model go beside it by themselves. */
    assert_int_equal(onnx_write(g, path, &(EmitOptions){.largest = 10000000}, caught(&c)), 0);
    assert_int_equal(entries(dir), 1);
    assert_int_equal(onnx_write(g, path, &(EmitOptions){.largest = 100000}, caught(&c)), 0);
    assert_says(&c, "its weights go to a file beside it");
    assert_int_equal(entries(dir), 2);
    assert_int_equal(onnx_write(g, path, &(EmitOptions){.external_data = true}, caught(&c)), 0);
    assert_int_equal(entries(dir), 2);
    struct stat st;
    char *data = data_file(a, dir, "m.onnx");
    stat(data, &st);
    assert_int_equal(st.st_size, 4 * 64 * 64 + 4 * 512 * 1024); /* 16 KiB, a multiple of 4096 */
    stat(path, &st);
    assert_true(st.st_size < 1000);
    assert_int_equal(onnx_read(&h, a, path, caught(&c)), 0);
    assert_true(h->info.external_data);
    const uint64_t stamp = h->info.external_stamp;
    assert_int_equal(onnx_read(&h, a, path, caught(&c)), 0);
    assert_true(h->info.external_stamp == stamp);
    utimensat(AT_FDCWD, data, (struct timespec[]){{1, 0}, {1, 0}}, 0);
    assert_int_equal(onnx_read(&h, a, path, caught(&c)), 0);
    assert_true(h->info.external_stamp != stamp); /* the data may be another */
    for (int i = 0; i < 3; i += 2) {
        const Value *v = g->nodes[i]->in[i == 0], *w = h->nodes[i]->in[i == 0];
        assert_memory_equal(v->data, w->data, (size_t)type_bytes(&v->type));
    }
    /* External in, external out, same bytes; also onto itself. */
    assert_int_equal(onnx_write(h, second, NULL, caught(&c)), 0);
    assert_int_equal(onnx_write(h, path, NULL, caught(&c)), 0);
    assert_int_equal(onnx_read(&h, a, second, caught(&c)), 0);
    assert_int_equal(onnx_read(&h, a, path, caught(&c)), 0);
    assert_memory_equal(g->nodes[2]->in[0]->data, h->nodes[2]->in[0]->data, 4 * 512 * 1024);
    assert_int_equal(entries(dir), 4);
    assert_string_equal(data, data_file(a, dir, "m.onnx"));
    /* Other weights have another file, and the one before goes. */
    float *other = arena_memdup(a, h->nodes[2]->in[0]->data, 4 * 512 * 1024);
    other[7]++;
    h->nodes[2]->in[0]->data = other;
    assert_int_equal(onnx_write(h, path, NULL, caught(&c)), 0);
    assert_string_not_equal(data, data_file(a, dir, "m.onnx"));
    assert_int_equal(onnx_read(&h, a, path, caught(&c)), 0);
    assert_memory_equal(other, h->nodes[2]->in[0]->data, 4 * 512 * 1024);
    data = data_file(a, dir, "m.onnx");
    truncate(data, 4 * 64 * 64 + 5);
    assert_int_equal(onnx_read(&h, a, path, caught(&c)), -1);
    assert_says(&c, arena_printf(a, "of '%s' are wanted, which has 16389", strrchr(data, '/') + 1));
    remove_folder(dir);
    arena_free(a);
}

static void write_file(const char *path, Bytes b)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(b.p, 1, b.n, f), b.n);
    fclose(f);
}

static void make_external(Arena *a, Onnx__TensorProto *t, const char *location, const char *offset,
                          const char *length)
{
    const char *keys[] = {"location", "offset", "length"}, *values[] = {location, offset, length};
    t->has_raw_data = false;
    t->has_data_location = true;
    t->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
    t->external_data = NEW_ARRAY(a, Onnx__StringStringEntryProto *, 3);
    for (int v = 0; v < 3; v++) {
        if (!values[v]) continue;
        Onnx__StringStringEntryProto *kv = NEW(a, Onnx__StringStringEntryProto);
        onnx__string_string_entry_proto__init(kv);
        kv->key = arena_strdup(a, keys[v]);
        kv->value = arena_strdup(a, values[v]);
        t->external_data[t->n_external_data++] = kv;
    }
}

static void external_attacks(void **state)
{
    (void)state;
    static const struct {
        const char *location, *offset, *length, *says;
    } cases[] = {
        {"/etc/passwd", NULL, NULL, "is not a plain path below the model's folder"},
        {"../secret", NULL, NULL, "is not a plain path below the model's folder"},
        {"sub/../../secret", NULL, NULL, "is not a plain path below the model's folder"},
        {"link", NULL, NULL, "is not a plain path below the model's folder"},
        {"", NULL, NULL, "is not a plain path below the model's folder"},
        {".", NULL, NULL, "is not a plain path below the model's folder"},
        {"missing", NULL, NULL, "cannot open external data 'missing'"},
        {"data", "12", NULL, "bytes 12 to 28 of 'data' are wanted, which has 16"},
        {"data", "18446744073709551615", NULL, "of 'data' are wanted, which has 16"},
        {"data", "18446744073709551616", NULL, "a bad offset or length"},
        {"data", "-4", NULL, "a bad offset or length"},
        {"data", "0", "8", "needs 16 bytes, the file has 8"},
        {NULL, NULL, NULL, "has no location"},
        {"data", "0", "16", NULL},
        {"data", NULL, NULL, NULL},
    };
    Arena *a = arena_new();
    Caught c;
    Graph *g;
    char dir[] = "/tmp/ehapc-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char *path = arena_printf(a, "%s/m.onnx", dir);
    write_file(arena_printf(a, "%s/data", dir), (Bytes){"0123456789abcdef", 16});
    assert_int_equal(symlink("data", arena_printf(a, "%s/link", dir)), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Maker *k = maker_relu(a, 13);
        Onnx__TensorProto *t = maker_tensor(k, "w", DT_F32, D(4), "", 0);
        make_external(a, t, cases[i].location, cases[i].offset, cases[i].length);
        maker_node(k, "Neg", "w", "z");
        maker_output(k, "z", DT_F32, D(4));
        write_file(path, maker_bytes(k));
        int status = onnx_read(&g, a, path, caught(&c));
        assert_int_equal(status, cases[i].says ? -1 : 0);
        if (cases[i].says) assert_says(&c, cases[i].says);
        if (!cases[i].says) assert_memory_equal(g->nodes[1]->in[0]->data, "0123456789abcdef", 16);
        /* From memory there is no folder. */
        assert_int_equal(maker_read(k, &c) == NULL, true);
    }
    remove_folder(dir);
    arena_free(a);
}

/* What the commands that only look at a model do. */
static void look_at(const char *path)
{
    ehap *e = ehap_new(NULL, NULL);
    assert_int_equal(ehap_load(e, path), EHAP_OK);
    assert_int_equal(ehap_lint(e), EHAP_NOTHING);
    assert_int_equal(ehap_inspect(e), EHAP_OK);
    ehap_free(e);
}

/* 1 GiB of weights, none of them needed: they stay in their file. */
static void large_weights(void **state)
{
    (void)state;
    enum { SIDE = 16384 };
    Arena *a = arena_new();
    Caught c;
    Context x = {.arena = a};
    char dir[] = "/tmp/ehapc-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char *path = arena_printf(a, "%s/m.onnx", dir), *data = arena_printf(a, "%s/data", dir);
    write_file(data, (Bytes){"", 0});
    assert_int_equal(truncate(data, (off_t)SIDE * SIDE * sizeof(float)), 0);
    Maker *k = maker_new(a, 13);
    maker_input(k, "x", DT_F32, D(-1, SIDE));
    make_external(a, maker_tensor(k, "w", DT_F32, D(SIDE, SIDE), "", 0), "data", NULL, NULL);
    maker_node(k, "MatMul", "x w", "y");
    maker_output(k, "y", DT_F32, D(-1, SIDE));
    write_file(path, maker_bytes(k));
    const int64_t before = (int64_t)process_resident();
    assert_int_equal(onnx_read(&x.graph, a, path, caught(&c)), 0);
    x.diag = &c.d;
    assert_int_equal(pass_canonicalize(&x, ""), 0);
    assert_int_equal(graph_params(x.graph), (int64_t)SIDE * SIDE);
    assert_in_range((int64_t)process_resident() - before, 0, 100 << 20);
    assert_true(before > 0);
    look_at(path);
    assert_in_range((int64_t)process_resident() - before, 0, 100 << 20);
    remove_folder(dir);
    arena_free(a);
}

/* Whatever goes wrong, nothing is left behind and what was there stays. */
static void failures(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Caught c;
    char dir[] = "/tmp/ehapc-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char *path = arena_printf(a, "%s/m.onnx", dir);
    Graph *g = read_ok(big_model(a));
    assert_int_equal(onnx_write(g, arena_printf(a, "%s/no/m.onnx", dir), NULL, caught(&c)), -1);
    assert_says(&c, "no/m.onnx': No such file or directory");
    assert_int_equal(onnx_write(g, dir, NULL, caught(&c)), -1);
    assert_says(&c, "it is not a regular file");
    assert_int_equal(onnx_write(g, "/dev/full", NULL, caught(&c)), -1);
    assert_int_equal(entries(dir), 0);
    write_file(path, (Bytes){"old", 3});
    /* A file size limit stands in for a full disk. */
    struct rlimit old, limit;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    limit = old;
    limit.rlim_cur = 100000;
    setrlimit(RLIMIT_FSIZE, &limit);
    int inlined = onnx_write(g, path, NULL, caught(&c));
    int external = onnx_write(g, path, &(EmitOptions){.external_data = true}, &c.d);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(inlined, -1);
    assert_int_equal(external, -1);
    assert_says(&c, "m.onnx': File too large");
    assert_says(&c, ".data': File too large");
    assert_int_equal(entries(dir), 1);
    struct stat st;
    stat(path, &st);
    assert_int_equal(st.st_size, 3);
    remove_folder(dir);
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header),           cmocka_unit_test(unknown_fields),
        cmocka_unit_test(declared_types),   cmocka_unit_test(same_opset),
        cmocka_unit_test(raised_opset),     cmocka_unit_test(carried_ops),
        cmocka_unit_test(upsample),         cmocka_unit_test(bodies),
        cmocka_unit_test(checker),          cmocka_unit_test(external_data),
        cmocka_unit_test(external_attacks), cmocka_unit_test(large_weights),
        cmocka_unit_test(failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
