/* Half precision: worked on in float, and what it was again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "ir/text.h"
#include "passes/halves.h"
#include "passes/simplify/simplify.h"

typedef struct Setup {
    Arena *a;
    Graph *g, *before;
    Halves *h;
    Diag d;
} Setup;

static void widen(Setup *s, const char *text)
{
    *s = (Setup){.a = arena_new(), .d = diag_stderr("test")};
    assert_int_equal(ir_parse(&s->g, s->a, text, strlen(text), NULL, &s->d), 0);
    s->before = graph_clone(s->g, s->a, NULL);
    assert_int_equal(halves_widen(&s->h, s->g, s->a, &s->d), 0);
    assert_int_equal(graph_verify(s->g, &s->d), 0);
}

static void narrow(Setup *s, bool inside)
{
    assert_int_equal(halves_narrow(s->g, s->h, inside, &s->d), 0);
    assert_int_equal(simplify_dce(s->g, s->a), 0);
    assert_int_equal(graph_verify(s->g, &s->d), 0);
}

/* b is 1, 2; a custom operator in the middle and a cast to float at the end. */
static const char mixed[] =
    "g (float16[N,2] x) => (float16[N,2] y, float[N,2] z) <float16[2] b = {15360, 16384}> {\n"
    "  a = Add (x, b)\n"
    "  c = my.Odd (a, b)\n"
    "  y = Relu (a)\n"
    "  e = Cast <to = 1> (y)\n"
    "  z = Sigmoid (e)\n"
    "}\n";

static void all_is_float(void **state)
{
    Setup s;
    (void)state;
    widen(&s, mixed);
    assert_non_null(s.h);
    assert_int_equal(s.g->inputs[0]->type.dtype, DT_F32);
    for (int k = 0; k < s.g->nnodes; k++) {
        const Node *n = s.g->nodes[k];
        if (n->op == OP_Opaque) {
            assert_int_equal(n->in[0]->type.dtype, DT_F16); /* behind a Cast */
            continue;
        }
        if (n->op == OP_Add) assert_true(((const float *)n->in[1]->data)[1] == 2);
        if (n->op != OP_Cast) assert_int_equal(n->out[0]->type.dtype, DT_F32);
    }
    arena_free(s.a);
}

static void and_half_again(void **state)
{
    Setup s;
    (void)state;
    widen(&s, mixed);
    narrow(&s, true);
    int casts = 0;
    for (int k = 0; k < s.g->nnodes; k++) {
        const Node *n = s.g->nodes[k];
        casts += n->op == OP_Cast && n->in[0]->type.dtype != n->out[0]->type.dtype;
        if (n->op == OP_Add || n->op == OP_Relu) assert_int_equal(n->out[0]->type.dtype, DT_F16);
        if (n->op == OP_Add) assert_int_equal(((const uint16_t *)n->in[1]->data)[1], 0x4000);
        if (n->op == OP_Sigmoid) assert_int_equal(n->out[0]->type.dtype, DT_F32);
    }
    assert_int_equal(casts, 1);
    assert_int_equal(s.g->inputs[0]->type.dtype, DT_F16);
    assert_string_equal(s.g->outputs[0]->name, "y");
    assert_int_equal(s.g->outputs[0]->type.dtype, DT_F16);
    assert_int_equal(s.g->outputs[1]->type.dtype, DT_F32);
    arena_free(s.a);
}

static void only_at_the_borders(void **state)
{
    Setup s;
    (void)state;
    widen(&s, mixed);
    narrow(&s, false);
    assert_int_equal(s.g->inputs[0]->type.dtype, DT_F16);
    assert_int_equal(s.g->outputs[0]->type.dtype, DT_F16);
    assert_int_equal(s.g->outputs[0]->def->op, OP_Cast);
    assert_string_equal(s.g->outputs[0]->name, "y");
    for (int k = 0; k < s.g->nnodes; k++)
        if (s.g->nodes[k]->op == OP_Add)
            assert_int_equal(s.g->nodes[k]->out[0]->type.dtype, DT_F32);
    arena_free(s.a);
}

static void nothing_to_do(void **state)
{
    Setup s;
    char why[256];
    (void)state;
    widen(&s, "g (float[N,2] x) => (y) {\n  y = Relu (x)\n}\n");
    assert_null(s.h);
    assert_true(graph_equal(s.before, s.g, why, sizeof why));
    arena_free(s.a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_is_float),
        cmocka_unit_test(and_half_again),
        cmocka_unit_test(only_at_the_borders),
        cmocka_unit_test(nothing_to_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
