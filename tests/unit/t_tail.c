/* The tail: what cannot be planned is set aside and put back, byte for byte the same graph. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "ir/text.h"
#include "passes/passes.h"
#include "passes/tail.h"

typedef struct Setup {
    Arena *arena;
    Graph *g, *before;
    Tail *tail;
    char message[512];
    Diag diag;
} Setup;

static void keep(void *ctx, Severity sev, const char *text)
{
    Setup *s = ctx;
    if (sev == SEV_ERROR || sev == SEV_REMARK) snprintf(s->message, sizeof s->message, "%s", text);
}

static int set_up(Setup *s, const char *text)
{
    *s = (Setup){.arena = arena_new(), .diag = {.sink = keep, .ctx = s}};
    if (ir_parse(&s->g, s->arena, text, strlen(text), NULL, &s->diag) < 0)
        fail_msg("%s", s->message);
    s->before = graph_clone(s->g, s->arena, NULL);
    return tail_detach(&s->tail, s->g, true, s->arena, &s->diag);
}

static void expect_outputs(const Graph *g, const char *names)
{
    char have[256] = "";
    for (int o = 0; o < g->noutputs; o++)
        snprintf(have + strlen(have), sizeof have - strlen(have), "%s ", g->outputs[o]->name);
    assert_string_equal(have, names);
}

/* Attached to a copy, as writing does, the graph is what it was. */
static void expect_whole(Setup *s)
{
    char why[512] = "";
    Graph *whole = graph_clone(s->g, s->arena, NULL);
    if (tail_attach(whole, s->tail, &s->diag) < 0) fail_msg("%s", s->message);
    if (graph_verify(whole, &s->diag) < 0) fail_msg("%s", s->message);
    if (!graph_equal(s->before, whole, why, sizeof why)) fail_msg("%s", why);
}

/* Boxes and scores become outputs; what chooses among them waits. */
static void sizes_from_data(void **state)
{
    Setup s;
    (void)state;
    const int status =
        set_up(&s, "g (float[1,4,5] x) => (float[1,M,4] y, float[1,5,4] b) <int64 most = {3},\n"
                   "    int64[1] two = {2}, int64[1] three = {3}, int64[1] one = {1}> {\n"
                   "  b = Transpose <perm = [0, 2, 1]> (x)\n"
                   "  c = Sigmoid (x)\n"
                   "  [nms] at = NonMaxSuppression (b, c, most)\n"
                   "  row = Slice (at, two, three, one)\n"
                   "  i = Squeeze (row, one)\n"
                   "  y = Gather <axis = 1> (b, i)\n"
                   "}\n");
    assert_int_equal(status, 0);
    assert_non_null(s.tail);
    assert_int_equal(s.g->nnodes, 2);
    expect_outputs(s.g, "b c ");
    assert_non_null(strstr(s.message, "node 'nms' (NonMaxSuppression)"));
    expect_whole(&s);
    arena_free(s.arena);
}

/* Integers between QuantizeLinear and DequantizeLinear wait; a pair alone is a float. */
static void integers_wait(void **state)
{
    Setup s;
    (void)state;
    int status =
        set_up(&s, "g (float[1,4] x) => (float[1,4] y) <float s = {0.1}, uint8 z = {3}> {\n"
                   "  a = Relu (x)\n"
                   "  [q] b = QuantizeLinear (a, s, z)\n"
                   "  c = Identity (b)\n"
                   "  y = DequantizeLinear (c, s, z)\n"
                   "}\n");
    assert_int_equal(status, 0);
    assert_non_null(s.tail);
    expect_outputs(s.g, "a ");
    assert_non_null(strstr(s.message, "node 'q' (QuantizeLinear) is in integers already"));
    tail_name_readers(s.g, s.tail);
    assert_string_equal(s.g->outputs[0]->aside->name, "q");
    expect_whole(&s);
    arena_free(s.arena);
    status = set_up(&s, "g (float[1,4] x) => (float[1,4] y) <float s = {0.1}, uint8 z = {3}> {\n"
                        "  b = QuantizeLinear (x, s, z)\n"
                        "  y = DequantizeLinear (b, s, z)\n"
                        "}\n");
    assert_int_equal(status, 0);
    assert_null(s.tail);
    arena_free(s.arena);
}

/* An unknown op reads a value in the middle, and a graph input. */
static void unknown_op(void **state)
{
    Setup s;
    (void)state;
    assert_int_equal(set_up(&s, "g (float[N,4] x) => (y, float[N,4] a) {\n"
                                "  a = Relu (x)\n"
                                "  b = Sigmoid (a)\n"
                                "  #@ opaque\n"
                                "  [odd] z = com.example.Odd (b, x)\n"
                                "  y = Relu (z)\n"
                                "}\n"),
                     0);
    assert_non_null(s.tail);
    assert_int_equal(s.g->nnodes, 2);
    expect_outputs(s.g, "a b ");
    expect_whole(&s);
    arena_free(s.arena);
}

/* Symbols, and shapes that follow from those of the inputs, are no reason. */
static void nothing_to_set_aside(void **state)
{
    Setup s;
    (void)state;
    assert_int_equal(set_up(&s, "g (float[N,3,H,W] x) => (y) <int64[2] flat = {0, -1}> {\n"
                                "  p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)\n"
                                "  s = Shape (x)\n"
                                "  z = ConstantOfShape (s)\n"
                                "  f = Reshape (z, flat)\n"
                                "  q = Reshape (p, flat)\n"
                                "  y = Concat <axis = 1> (f, q)\n"
                                "}\n"),
                     0);
    assert_null(s.tail);
    arena_free(s.arena);
}

static void nothing_left(void **state)
{
    Setup s;
    (void)state;
    assert_int_equal(set_up(&s, "g (float[N,4] x) => (y) {\n"
                                "  #@ opaque\n"
                                "  [odd] z = com.example.Odd (x)\n"
                                "  y = Relu (z)\n"
                                "}\n"),
                     STATUS_NOTHING);
    assert_non_null(strstr(s.message, "nothing in front of it can be compressed"));
    arena_free(s.arena);
}

/* Where all outputs are integers, what makes them waits, and what they are made of is learned. */
static void ends_in_integers(void **state)
{
    Setup s;
    (void)state;
    const int status =
        set_up(&s, "g (float[N,4] x) => (int64[N] y) <float[4,3] w = {1, 2, 3, 4, 5, 6, 7, 8,\n"
                   "    9, 10, 11, 12}, int64 one = {1}> {\n"
                   "  [fc] z = MatMul (x, w)\n"
                   "  [best] i = ArgMax <axis = 1, keepdims = 0> (z)\n"
                   "  y = Add (i, one)\n"
                   "}\n");
    assert_int_equal(status, 0);
    assert_non_null(strstr(s.message, "node 'best' (ArgMax) is the end of what can be learned"));
    expect_outputs(s.g, "z ");
    assert_int_equal(s.g->nnodes, 1);
    expect_whole(&s);
    arena_free(s.arena);
}

/* A body reads what was moved before it was quantized. */
static void bodies_read_floats(void **state)
{
    Setup s;
    (void)state;
    set_up(&s, "g (float[2,3] x, bool c) => (float[3,2] y) <float s = {0.5}, uint8 z = {3}> {\n"
               "  q = QuantizeLinear (x, s, z)\n"
               "  d = DequantizeLinear (q, s, z)\n"
               "  t = Transpose <perm = [1, 0]> (d)\n"
               "  y = my.If (c, t)\n"
               "}\n");
    Graph *g = graph_clone(s.before, s.arena, NULL);
    g->nodes[3]->ncapture = 1;
    tail_free_bodies(g);
    const Node *transpose = g->nodes[4]->in[1]->def;
    assert_int_equal(transpose->op, OP_Transpose);
    assert_string_equal(transpose->in[0]->name, "x");
    assert_int_equal(graph_verify(g, &s.diag), 0);
    arena_free(s.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_from_data),    cmocka_unit_test(integers_wait),
        cmocka_unit_test(unknown_op),         cmocka_unit_test(nothing_to_set_aside),
        cmocka_unit_test(nothing_left),       cmocka_unit_test(ends_in_integers),
        cmocka_unit_test(bodies_read_floats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
