/* The pre-scan in front of protobuf-c: bombs are refused at once, honest files lose nothing. */
#include <time.h>

#include "onnx_build.h"

typedef struct Buffer {
    uint8_t *p;
    size_t n, cap;
} Buffer;

static void put(Buffer *b, const void *p, size_t n)
{
    if (b->cap - b->n < n) b->p = realloc(b->p, b->cap = 2 * b->cap + n + 64);
    if (n) memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void put_varint(Buffer *b, uint64_t v)
{
    uint8_t byte;
    for (; v >= 0x80; v >>= 7) byte = (uint8_t)(v | 0x80), put(b, &byte, 1);
    byte = (uint8_t)v;
    put(b, &byte, 1);
}

static void put_field(Buffer *b, uint32_t id, const void *p, size_t n)
{
    put_varint(b, id << 3 | 2);
    put_varint(b, n);
    put(b, p, n);
}

/* `unit` repeated to about n bytes, inside field `id` of whatever is around it. */
static Buffer repeated(const char *unit, size_t unit_size, size_t n)
{
    Buffer b = {0};
    while (b.n < n) put(&b, unit, unit_size);
    return b;
}

static Buffer inside(uint32_t id, Buffer inner)
{
    Buffer b = {0};
    put_field(&b, id, inner.p, inner.n);
    free(inner.p);
    return b;
}

enum { MODEL_GRAPH = 7, GRAPH_NODE = 1, GRAPH_INITIALIZER = 5, NODE_ATTR = 5, ATTR_GRAPH = 6 };

/* Refused with that message, within a second of CPU time. Takes over b. */
static void refused(Buffer b, const char *what)
{
    Caught c;
    Graph *g;
    Arena *a = arena_new();
    const clock_t start = clock();
    assert_int_equal(onnx_read_memory(&g, a, b.p, b.n, NULL, caught(&c)), -1);
    assert_true(clock() - start < CLOCKS_PER_SEC);
    assert_true(arena_bytes(a) < b.n + (1 << 20));
    assert_int_equal(c.d.errors, 1);
    assert_says(&c, what);
    arena_free(a);
    free(b.p);
}

static void nesting(void **state)
{
    (void)state;
    Buffer b = {0};
    for (int level = 0; level < 5000; level++)
        b = inside(GRAPH_NODE, inside(NODE_ATTR, inside(ATTR_GRAPH, b)));
    refused(inside(MODEL_GRAPH, b), "nested deeper than 64");
}

static void many_empty_messages(void **state)
{
    (void)state;
    refused(inside(MODEL_GRAPH, repeated("\x2a\x00", 2, 10 << 20)), "decoding would take more");
    refused(inside(MODEL_GRAPH, repeated("\x0a\x00", 2, 10 << 20)), "decoding would take more");
    refused(repeated("\xa2\x06\x00", 3, 9 << 20), "decoding would take more"); /* unknown field */
    Buffer dims = repeated("\x08\x01", 2, 10 << 20);
    refused(inside(MODEL_GRAPH, inside(GRAPH_INITIALIZER, dims)), "decoding would take more");
}

static void merging(void **state)
{
    (void)state;
    refused(repeated("\x3a\x02\x0a\x00", 4, 320 << 10), "field 'graph' of ModelProto occurs twice");
    Buffer tensor = repeated("\x10\x01", 2, 4);
    refused(inside(MODEL_GRAPH, inside(GRAPH_INITIALIZER, tensor)),
            "field 'data_type' of TensorProto occurs twice");
}

static void lengths(void **state)
{
    (void)state;
    static const char two31[] = "\x3a\xff\xff\xff\xff\x07\x0a", two63[] = "\x3a\xff\xff\xff\xff\xff"
                                                                          "\xff\xff\xff\x7f\x0a";
    refused(repeated(two31, sizeof two31 - 1, 1), "longer than what holds it");
    refused(repeated(two63, sizeof two63 - 1, 1), "longer than what holds it");
    refused(repeated("\x08", 1, 1), "an unfinished number");
    refused(repeated("\x3a\x05\x0a", 3, 1), "longer than what holds it");
    refused(repeated("\x3b\x3c", 2, 1), "an unknown wire type");
    refused(repeated("\x00\x01", 2, 1), "a bad tag");
    refused(repeated("\x3d\x01", 2, 1), "a truncated number");
    refused(repeated("\x38\x01", 2, 1), "field 'graph' of ModelProto has the wrong wire type");
    Buffer floats = {0};
    put_field(&floats, 4, "abcde", 5);
    refused(inside(MODEL_GRAPH, inside(GRAPH_INITIALIZER, floats)), "holds part of an element");
    refused(repeated("\x1f\x8b\x08 this is a gzip file", 20, 1), "not a valid ONNX file");
}

static void nul_in_name(void **state)
{
    (void)state;
    Buffer node = {0};
    put_field(&node, 4, "Re\0lu", 5);
    refused(inside(MODEL_GRAPH, inside(GRAPH_NODE, node)),
            "field 'op_type' of NodeProto holds a NUL");
}

/* Nothing is mistaken for a token: data of 16 bytes, repeated bytes, empty bytes. */
static void bytes_survive(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Caught c;
    Maker *k = maker_relu(a, 18);
    static const float four[4] = {1, 2, 3, 4};
    maker_tensor(k, "w", DT_F32, D(4), four, sizeof four);
    maker_tensor(k, "none", DT_F32, D(0), "", 0);
    maker_node(k, "Add", "w w", "sum");
    maker_node(k, "Concat", "none w", "cat");
    maker_int(k, k->nodes[2], "axis", 0);
    Onnx__NodeProto *n = maker_node(k, "Custom", "x", "z");
    n->domain = arena_strdup(a, "my.domain");
    Onnx__AttributeProto *p =
        maker_attr(k, n, "strings", ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRINGS);
    ProtobufCBinaryData strings[] = {{16, (uint8_t *)(uintptr_t) "0123456789abcdef"},
                                     {0, NULL},
                                     {3, (uint8_t *)(uintptr_t) "a\0b"}};
    p->n_strings = 3;
    p->strings = strings;
    maker_output(k, "sum", DT_F32, D(4));
    maker_output(k, "cat", DT_F32, D(4));
    maker_output(k, "z", DT_F32, -1, NULL);
    Graph *g = maker_read(k, &c);
    assert_non_null(g);
    assert_memory_equal(g->nodes[1]->in[0]->data, four, sizeof four);
    assert_non_null(g->nodes[2]->in[0]->data);
    const Attr *attr = node_attr(g->nodes[3], "strings");
    assert_int_equal(attr->kind, ATTR_STRINGS);
    assert_int_equal(attr->n, 3);
    assert_memory_equal(attr->strings[0].p, "0123456789abcdef", 16);
    assert_int_equal(attr->strings[1].n, 0);
    assert_memory_equal(attr->strings[2].p, "a\0b", 3);
    arena_free(a);
}

/* Large weights are not copied: loading takes less memory than the file. */
static void zero_copy(void **state)
{
    (void)state;
    enum { MIB = 32 };
    char path[] = "/tmp/ehapc-test-XXXXXX";
    Arena *a = arena_new(), *b = arena_new();
    Caught c;
    Maker *k = maker_new(a, 18);
    int64_t n = (int64_t)MIB << 18;
    maker_input(k, "x", DT_F32, 1, &n);
    maker_tensor(k, "w", DT_F32, 1, &n, NEW_ARRAY(a, float, n), (size_t)n * 4);
    maker_node(k, "Add", "x w", "y");
    maker_output(k, "y", DT_F32, 1, &n);
    int fd = mkstemp(path);
    FILE *f = fdopen(fd, "wb");
    Graph *g;
    /* Padding before the graph puts the data on a multiple of 4. */
    for (int pad = 0; pad < 4; pad++) {
        k->m.producer_name = arena_printf(a, "%.*s", pad + 1, "abcd");
        Bytes bytes = maker_bytes(k);

        rewind(f);
        assert_int_equal(fwrite(bytes.p, 1, bytes.n, f), bytes.n);
        assert_int_equal(fflush(f), 0);
        b = (arena_free(b), arena_new());
        assert_int_equal(onnx_read(&g, b, path, caught(&c)), 0);
        assert_int_equal((uintptr_t)g->nodes[0]->in[1]->data % 4, 0);
        if (arena_bytes(b) < 1 << 20) break;
    }
    assert_true(arena_bytes(b) < 1 << 20);
    fclose(f);
    unlink(path);
    arena_free(b);
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nesting),     cmocka_unit_test(many_empty_messages),
        cmocka_unit_test(merging),     cmocka_unit_test(lengths),
        cmocka_unit_test(nul_in_name), cmocka_unit_test(bytes_survive),
        cmocka_unit_test(zero_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
