/* --fix: values of every type, what is refused, and that the input stays, unread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "ir/text.h"
#include "passes/simplify/simplify.h"

static char said[1024];

static void keep(void *ctx, Severity sev, const char *text)
{
    (void)ctx, (void)sev;
    snprintf(said + strlen(said), sizeof said - strlen(said), "%s\n", text);
}

static Diag diag = {.sink = keep};

/* x of that type goes through Identity to y; other is [N,3]. */
static Graph *net(Arena *a, const char *type)
{
    Graph *g;
    char text[256];
    snprintf(text, sizeof text,
             "g (%s x, float[N,3] other) => (y, o) { y = Identity (x)  o = Neg (other) }", type);
    said[0] = '\0';
    if (ir_parse(&g, a, text, strlen(text), NULL, &diag) < 0) fail_msg("%s", said);
    return g;
}

static void takes(const char *type, const char *list, size_t n, const void *bytes)
{
    Arena *a = arena_new();
    Graph *g = net(a, type);
    if (fix_inputs(&g, list, &diag) < 0) fail_msg("%s", said);
    const Value *v = g->nodes[0]->in[0];
    assert_non_null(v->data);
    assert_int_equal(type_bytes(&v->type), n);
    assert_memory_equal(v->data, bytes, n);
    assert_false(value_is_read(g, g->inputs[0]));
    assert_string_equal(g->inputs[0]->name, "x");
    assert_int_equal(v->type.rank, g->inputs[0]->type.rank);
    if (graph_verify(g, &diag) < 0) fail_msg("%s", said);
    arena_free(a);
}

static void refuses(const char *type, const char *list, const char *says)
{
    Arena *a = arena_new();
    Graph *g = net(a, type);
    assert_int_equal(fix_inputs(&g, list, &diag), -1);
    if (!strstr(said, says)) fail_msg("%s %s: %s", type, list, said);
    arena_free(a);
}

#define TAKES(type, list, T, ...)                                                                  \
    takes(type, list, sizeof((T[]){__VA_ARGS__}), (const T[]){__VA_ARGS__})

static void numbers(void **state)
{
    (void)state;
    TAKES("int64", "x=16000", int64_t, 16000);
    TAKES("int64", "x=-9223372036854775808", int64_t, INT64_MIN);
    TAKES("uint64", "x=18446744073709551615", uint64_t, UINT64_MAX);
    TAKES("int8[1]", "x=-128", int8_t, -128);
    TAKES("uint8[1,1]", "x=255", uint8_t, 255);
    TAKES("int32[3]", "x=1:-2:3", int32_t, 1, -2, 3);
    TAKES("uint16[K]", "x=7:8", uint16_t, 7, 8);
    TAKES("float", "x=0.25", float, 0.25F);
    TAKES("double[2]", "x=1e300:-0.5", double, 1e300, -0.5);
    TAKES("float16", "x=1.5", uint16_t, 0x3e00);
    TAKES("bfloat16", "x=-2", uint16_t, 0xc000);
    TAKES("bool[2]", "x=true:0", uint8_t, 1, 0);
}

static void nonsense(void **state)
{
    (void)state;
    refuses("int64", "z=1", "the model has no input 'z'");
    refuses("int64", "x", "NAME=VALUE, not 'x'");
    refuses("int64", "x=1,x=1", "input 'x' is fixed twice");
    refuses("int64", "x=1:2", "gives '1:2', input 'x' is int64");
    refuses("int64[3]", "x=1:2", "input 'x' is int64[3]");
    refuses("int64", "other=1", "input 'other' is float[N,3]");
    refuses("int64[N]", "x=1", "input 'x' is int64[N]"); /* its length is that of `other` */
    refuses("float[65]", "x=1", "vectors of up to 64");
    refuses("string", "x=1", "input 'x' is string");
    refuses("int64", "x=9223372036854775808", "'9223372036854775808' of input 'x' is no int64");
    refuses("int64", "x=", "'' of input 'x'");
    refuses("int64", "x=1.5", "'1.5'");
    refuses("uint64", "x=-1", "'-1'");
    refuses("uint8", "x=256", "'256'");
    refuses("int8", "x=-129", "'-129'");
    refuses("int32", "x=2147483648", "'2147483648'");
    refuses("bool", "x=2", "'2'");
    refuses("float", "x=nan", "'nan'");
    refuses("float", "x=inf", "'inf'");
    refuses("float", "x=1e39", "'1e39'");
    refuses("float16", "x=65520", "'65520'");
    refuses("double", "x=1e400", "'1e400'");
}

static void sizes(void **state)
{
    static const int64_t want[] = {4, 3}; /* of the other, which shares N */
    (void)state;
    Arena *a = arena_new();
    Graph *g = net(a, "float[N,M,K]");
    if (fix_inputs(&g, "x=4x576x?", &diag) < 0) fail_msg("%s", said);
    assert_int_equal(g->inputs[0]->type.dim[1], 576);
    assert_true(dim_is_sym(g->inputs[0]->type.dim[2]));
    assert_memory_equal(g->inputs[1]->type.dim, want, sizeof want);
    assert_memory_equal(g->outputs[1]->type.dim, want, sizeof want);
    assert_true(value_is_read(g, g->inputs[0]));
    arena_free(a);
    refuses("float[N,8]", "x=1x9", "gives '1x9', input 'x' is float[N,8]");
    refuses("float[N,8]", "x=1x8x1", "gives '1x8x1'");
    refuses("float[N,8]", "x=ax8", "gives 'ax8'");
    refuses("float[N,8]", "x=0x8", "gives '0x8'");
    refuses("float[N,8]", "x=1x8,other=2x3", "gives '2x3'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers),
        cmocka_unit_test(nonsense),
        cmocka_unit_test(sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
