/* Writes the bad model that its argument names to standard output: protobuf fields by hand, as no
 * library would write most of them. The models are x -> Conv 'conv1' -> y, each with one thing
 * wrong. */
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- wire format -------------------------------------------------------------------- */

typedef struct Message {
    uint8_t *p;
    size_t n, cap;
} Message;

static void put(Message *m, const void *p, size_t n)
{
    if (m->cap - m->n < n) {
        m->cap = 2 * m->cap + n + 64;
        m->p = realloc(m->p, m->cap);
        if (!m->p) abort();
    }
    if (n) memcpy(m->p + m->n, p, n);
    m->n += n;
}

static void put_varint(Message *m, uint64_t x)
{
    for (; x > 0x7f; x >>= 7) put(m, &(uint8_t){(uint8_t)(x | 0x80)}, 1);
    put(m, &(uint8_t){(uint8_t)x}, 1);
}

static void put_int(Message *m, unsigned id, int64_t x)
{
    put_varint(m, id << 3);
    put_varint(m, (uint64_t)x);
}

static void put_bytes(Message *m, unsigned id, const void *p, size_t n)
{
    put_varint(m, id << 3 | 2);
    put_varint(m, n);
    put(m, p, n);
}

static void put_text(Message *m, unsigned id, const char *s) { put_bytes(m, id, s, strlen(s)); }

/* Adds and frees a message. */
static void put_message(Message *m, unsigned id, Message *inner)
{
    put_bytes(m, id, inner->p, inner->n);
    free(inner->p);
    *inner = (Message){0};
}

/* ---- the model ---------------------------------------------------------------------- */

/* What a case changes. */
typedef struct Recipe {
    int64_t height;            /* of x [N, 3, height, 8]; the weight is [4, 3, 3, 3] */
    int64_t weight_dim;        /* its first dimension */
    size_t weight_bytes;       /* of raw data */
    float weight;              /* every element */
    const char *reads, *makes; /* by conv1 */
    const char *location;      /* of external data; NULL: inline */
    const char *conv_name;
    size_t conv_name_size;
} Recipe;

static void put_info(Message *graph, unsigned id, const char *name, int64_t channels,
                     int64_t height)
{
    Message shape = {0}, tensor = {0}, type = {0}, info = {0};
    const int64_t dims[] = {-1, channels, height, 8};
    for (int i = 0; i < 4; i++) {
        Message dim = {0};
        if (i)
            put_int(&dim, 1, dims[i]);
        else
            put_text(&dim, 2, "N");
        put_message(&shape, 1, &dim);
    }
    put_int(&tensor, 1, 1);
    put_message(&tensor, 2, &shape);
    put_message(&type, 1, &tensor);
    put_text(&info, 1, name);
    put_message(&info, 2, &type);
    put_message(graph, id, &info);
}

static void put_weight(Message *graph, const Recipe *r)
{
    const int64_t dims[] = {r->weight_dim, 3, 3, 3};
    Message t = {0};
    for (int i = 0; i < 4; i++) put_int(&t, 1, dims[i]);
    put_int(&t, 2, 1);
    put_text(&t, 8, "w");
    if (r->location) {
        Message entry = {0};
        put_text(&entry, 1, "location");
        put_text(&entry, 2, r->location);
        put_message(&t, 13, &entry);
        put_int(&t, 14, 1);
    } else {
        float *x = malloc(r->weight_bytes + sizeof *x);
        if (!x) abort();
        for (size_t k = 0; k <= r->weight_bytes / sizeof *x; k++) x[k] = r->weight;
        put_bytes(&t, 9, x, r->weight_bytes);
        free(x);
    }
    put_message(graph, 5, &t);
}

static void put_node(Message *graph, const Recipe *r)
{
    const int64_t pads[] = {1, 1, 1, 1};
    Message n = {0}, a = {0};
    put_text(&n, 1, r->reads);
    put_text(&n, 1, "w");
    put_text(&n, 2, r->makes);
    put_bytes(&n, 3, r->conv_name, r->conv_name_size);
    put_text(&n, 4, "Conv");
    put_text(&a, 1, "pads");
    for (int i = 0; i < 4; i++) put_int(&a, 8, pads[i]);
    put_int(&a, 20, 7);
    put_message(&n, 5, &a);
    put_message(graph, 1, &n);
}

static Message graph_of(const Recipe *r)
{
    Message g = {0};
    put_node(&g, r);
    put_text(&g, 2, "bad");
    put_weight(&g, r);
    put_info(&g, 11, "x", 3, r->height);
    put_info(&g, 12, "y", 4, r->height);
    return g;
}

static Message model_of(Message *graph)
{
    Message m = {0}, opset = {0};
    put_int(&m, 1, 8);
    put_message(&m, 7, graph);
    put_int(&opset, 2, 17);
    put_message(&m, 8, &opset);
    return m;
}

static const Recipe good = {.height = 8,
                            .weight_dim = 4,
                            .weight_bytes = 432,
                            .weight = 0.1f,
                            .reads = "x",
                            .makes = "y",
                            .conv_name = "conv1",
                            .conv_name_size = 5};

/* ---- bombs -------------------------------------------------------------------------- */

/* A TypeProto in a sequence type in a TypeProto …, deeper than any stack. */
static Message nested(void)
{
    enum { DEPTH = 20001 };
    Message inner = {0}, graph = {0}, info = {0};
    for (int k = 0; k < DEPTH; k++) {
        Message outer = {0};
        put_message(&outer, k % 2 ? 1 : 4, &inner);
        inner = outer;
    }
    put_text(&info, 1, "x");
    put_message(&info, 2, &inner);
    put_message(&graph, 11, &info);
    return model_of(&graph);
}

/* Two bytes in the file, a hundred or more in memory each. */
static Message empty_messages(void)
{
    Message g = graph_of(&good);
    for (int k = 0; k < 3000000; k++) put_bytes(&g, 1, "", 0);
    return model_of(&g);
}

/* One `graph` field after the other: a parser that merges copies all that it has so far. */
static Message merges(void)
{
    Message g = graph_of(&good), m;
    for (int k = 0; k < 20000; k++) put_text(&g, 10, "doc");
    m = model_of(&g);
    for (int k = 0; k < 200000; k++) {
        Message again = {0};
        put_text(&again, 10, "x");
        put_message(&m, 7, &again);
    }
    return m;
}

/* Small ones, but more than any network has. */
static Message many_nodes(void)
{
    Message g = graph_of(&good);
    for (int k = 0; k < 1 << 20; k++) {
        Message n = {0};
        put_text(&n, 4, "Relu");
        put_text(&n, 6, "so long that decoding is not refused");
        put_message(&g, 1, &n);
    }
    return model_of(&g);
}

/* y = the sum over what is made of a shape of 2^40 elements: never known before it is computed. */
static Message huge_constant(void)
{
    static const struct {
        const char *in, *out, *type;
    } nodes[] = {{"shape", "ones", "ConstantOfShape"}, {"ones", "y", "ReduceMax"}};
    const int64_t shape[] = {(int64_t)1 << 40};
    Message g = {0}, t = {0};
    for (int k = 0; k < 2; k++) {
        Message n = {0};
        put_text(&n, 1, nodes[k].in);
        put_text(&n, 2, nodes[k].out);
        put_text(&n, 4, nodes[k].type);
        put_message(&g, 1, &n);
    }
    put_text(&g, 2, "bad");
    put_int(&t, 1, 1);
    put_int(&t, 2, 7);
    put_text(&t, 8, "shape");
    put_bytes(&t, 9, shape, sizeof shape);
    put_message(&g, 5, &t);
    put_info(&g, 12, "y", 4, 8);
    return model_of(&g);
}

/* A field that says it is 10^9 bytes long. */
static Message long_field(void)
{
    Message m = {0};
    put_int(&m, 1, 8);
    put_varint(&m, 7 << 3 | 2);
    put_varint(&m, 1000000000);
    put(&m, "abc", 3);
    return m;
}

static Message random_bytes(void)
{
    Message m = {0};
    uint64_t x = 88172645463325252u;
    for (int k = 0; k < 4096; k++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        put(&m, &x, 1);
    }
    return m;
}

/* ---- cases -------------------------------------------------------------------------- */

static Message case_named(const char *name)
{
    static const struct {
        const char *name;
        Message (*make)(void);
    } bombs[] = {
        {"nested", nested},         {"empty-messages", empty_messages}, {"merges", merges},
        {"many-nodes", many_nodes}, {"huge-constant", huge_constant},   {"long-field", long_field},
        {"random", random_bytes}};
    Recipe r = good;
    for (size_t k = 0; k < sizeof bombs / sizeof *bombs; k++)
        if (strcmp(name, bombs[k].name) == 0) return bombs[k].make();
    if (strcmp(name, "negative-dim") == 0) r.height = -8;
    if (strcmp(name, "huge-dim") == 0) r.height = INT64_MAX;
    if (strcmp(name, "large-dim") == 0) r.height = (int64_t)1 << 40;
    if (strcmp(name, "negative-weight") == 0) r.weight_dim = -4;
    if (strcmp(name, "overflowing-weight") == 0) r.weight_dim = (int64_t)1 << 62;
    if (strcmp(name, "short-weight") == 0) r.weight_bytes = 400;
    if (strcmp(name, "nan-weight") == 0) r.weight = NAN;
    if (strcmp(name, "cycle") == 0) r.reads = "y";
    if (strcmp(name, "missing-input") == 0) r.reads = "nowhere";
    if (strcmp(name, "outside") == 0) r.location = "../outside.bin";
    if (strcmp(name, "absolute") == 0) r.location = "/etc/passwd";
    if (strcmp(name, "no-data-file") == 0) r.location = "none.bin";
    if (strcmp(name, "short-data-file") == 0) r.location = "short.bin";
    if (strcmp(name, "nul-in-name") == 0) r.conv_name = "con\0v", r.conv_name_size = 5;
    Message g = graph_of(&r);
    return model_of(&g);
}

int main(int argc, char **argv)
{
    Message m = case_named(argc > 1 ? argv[1] : "good");
    bool whole = fwrite(m.p, 1, m.n, stdout) == m.n && fflush(stdout) == 0;
    free(m.p);
    return whole ? 0 : 1;
}
