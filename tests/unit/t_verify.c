/* The verifier on graphs that no text can express: wrong links, foreign values, cycles. The
 * invariants that a text can break are in tests/text/errors/verifier.onnxtxt. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "ir/op.h"
#include "ir/text.h"

/* x -> Relu a -> Tanh y, with a constant c added to a. */
typedef struct Net {
    Graph *g;
    Value *x, *a, *c, *y;
    Node *relu, *add, *tanh;
    Arena *arena;
    char messages[4096];
} Net;

static void note_message(void *ctx, Severity sev, const char *text)
{
    Net *n = ctx;
    size_t used = strlen(n->messages);
    (void)sev;
    snprintf(n->messages + used, sizeof n->messages - used, "%s\n", text);
}

static void net_make(Net *n)
{
    const int64_t dim[] = {2, 3};
    *n = (Net){.arena = arena_new()};
    n->g = graph_new(n->arena, "net");
    n->x = graph_add_input(n->g, "x", type_of(DT_F32, 2, dim));
    n->a = build(n->g, OP_Relu, IN(n->x), NO_ATTRS);
    n->c = const_f32(n->g, 2);
    Value *sum = build(n->g, OP_Add, IN(n->a, n->c), NO_ATTRS);
    n->y = build(n->g, OP_Tanh, IN(sum), NO_ATTRS);
    graph_add_output(n->g, n->y);
    n->relu = n->g->nodes[0];
    n->add = n->g->nodes[1];
    n->tanh = n->g->nodes[2];
}

/* The graph is refused with a message that contains `text`; "" means that it is fine. */
static void expect(Net *n, const char *text)
{
    Diag d = {.sink = note_message, .ctx = n};
    int status = graph_verify(n->g, &d);
    if (!*text && status == 0) {
        arena_free(n->arena);
        return;
    }
    if (status == 0 || !*text || !strstr(n->messages, text))
        fail_msg("wanted '%s', got '%s'", text, n->messages);
    arena_free(n->arena);
}

static void test_good(void **state)
{
    Net n;
    (void)state;
    net_make(&n);
    expect(&n, "");
}

static void test_order(void **state)
{
    Net n;
    (void)state;
    net_make(&n);
    n.g->nodes[0] = n.add;
    n.g->nodes[1] = n.relu;
    expect(&n, "is made further down");
    net_make(&n);
    n.relu->in[0] = n.y;
    expect(&n, "is made further down");
    net_make(&n);
    n.tanh->in[0] = value_new(n.g, "lost", n.x->type);
    expect(&n, "input 'lost' is neither an input, a constant, nor made by a node");
}

static void test_membership(void **state)
{
    Net n, other;
    (void)state;
    net_make(&n);
    net_make(&other);
    n.tanh->in[0] = other.x;
    expect(&n, "input 'x' belongs to another graph");
    expect(&other, "");
    net_make(&n);
    n.c->id = n.x->id;
    expect(&n, "have the same id");
    net_make(&n);
    n.c->id = 1000;
    expect(&n, "has id 1000, the graph has 5 values");
}

static void test_names(void **state)
{
    Net n;
    (void)state;
    net_make(&n);
    n.a->name = "x";
    expect(&n, "two values are called 'x'");
    net_make(&n);
    n.a->name = "";
    expect(&n, "has no name");
}

static void test_origin(void **state)
{
    Net n;
    (void)state;
    net_make(&n);
    n.a->def = n.tanh;
    expect(&n, "output 't' names another node as its producer");
    net_make(&n);
    n.x->def = n.relu;
    expect(&n, "input 'x' is computed or a constant");
    net_make(&n);
    n.tanh->out[0] = n.a;
    expect(&n, "is made twice");
    net_make(&n);
    n.g->inputs = (Value *[]){n.x, n.x};
    n.g->ninputs = 2;
    expect(&n, "input 'x' is listed twice");
    net_make(&n);
    n.c->def = n.relu;
    expect(&n, "constant 'c' has a producer");
}

static void test_types(void **state)
{
    Net n;
    (void)state;
    net_make(&n);
    n.a->type.dim[0] = -5;
    expect(&n, "dimension 0 is -5");
    net_make(&n);
    n.a->type.dim[0] = DIM_SYM_BASE + 9;
    expect(&n, "dimension 0 is a symbol of another graph");
    net_make(&n);
    n.a->type.rank = 99;
    expect(&n, "has rank 99");
    net_make(&n);
    n.c->type.dtype = DT_NONE;
    expect(&n, "constant 'c' has no known size");
    net_make(&n);
    n.a->elems = (int64_t[]){1};
    expect(&n, "has known elements, but is no integer or bool tensor of known shape");
    net_make(&n);
    n.a->type.dim[1] = 4;
    expect(&n, "# error: output 't' is float[2,4], its inputs give float[2,3]");
}

static void test_nodes(void **state)
{
    Net n;
    Attr twice[] = {attr_int("axis", 0), attr_int("axis", 1)};
    (void)state;
    net_make(&n);
    n.relu->attrs = twice;
    n.relu->nattrs = 2;
    expect(&n, "attribute 'axis' is given twice");
    net_make(&n);
    n.relu->op = OP_Opaque;
    expect(&n, "has no operator");
    net_make(&n);
    n.relu->op = (Op)12345;
    expect(&n, "op 12345");
    net_make(&n);
    n.relu->ncapture = 3;
    expect(&n, "3 captures");
    net_make(&n);
    n.add->in[1] = NULL;
    n.add->ncapture = 1;
    expect(&n, "capture 1 is omitted");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),       cmocka_unit_test(test_order),
        cmocka_unit_test(test_membership), cmocka_unit_test(test_names),
        cmocka_unit_test(test_origin),     cmocka_unit_test(test_types),
        cmocka_unit_test(test_nodes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
