/* Verdicts on graphs with QuantizeLinear and DequantizeLinear, one rule at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ir/text.h"
#include "passes/quant/lint.h"

/* x on grid q, a convolution of it with bias `b`, what `tail` makes of it. */
static const char *conv_with(Arena *a, const char *type, int zero, const char *b, const char *tail)
{
    return arena_printf(
        a,
        "g (float[1,1,2,2] x) => (float[1,1,2,2] y) <float s = {0.5}, %s z = {%d}, %s z3 = {3}, "
        "float r = {0.25}, int8[1,1,1,1] wq = {2}, float[1] ws = {0.5}, int8[1] wz = {0}, "
        "float[1] f = {1}, int32[1] bq = {3}, float[1] bs = {0.25}, float[1] bt = {0.75}, "
        "int32[1] bz = {0}, float lo = {0}, float hi = {6}> {\n"
        "  q = QuantizeLinear (x, s, z)\n  d = DequantizeLinear (q, s, z)\n"
        "  w = DequantizeLinear <axis = 0> (wq, ws, wz)\n"
        "  b = DequantizeLinear <axis = 0> (bq, bs, bz)\n"
        "  b2 = DequantizeLinear <axis = 0> (bq, bt, bz)\n"
        "  [c] c = Conv (%s)\n%s}\n",
        type, zero, type, b, tail);
}

/* Why node `name` stays in float on the target; "" if it runs in integers, "-" if it has none. */
static const char *why(Arena *a, const char *text, const char *target, const char *name)
{
    Diag d = diag_stderr("text");
    Graph *g;
    LintNode *list;
    assert_int_equal(ir_parse(&g, a, text, strlen(text), NULL, &d), 0);
    int n = lint(&list, g, target_find(target), a);
    for (int i = 0; i < n; i++)
        if (list[i].node->name && strcmp(list[i].node->name, name) == 0)
            return list[i].why ? list[i].why : "";
    return "-";
}

/* A product whose result a logarithm reads is no loss in float. */
static void products_for_logarithms(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("text");
    const char *const functions[] = {"Log", "Relu"};
    for (int k = 0; k < 2; k++) {
        Graph *g;
        LintNode *list;
        const char *text = arena_printf(a,
                                        "g (float[1,1,4] x) => (float[1,1,1] y) "
                                        "<float[1,1,2] w = {1, -1}, float[1,1,3] v = {1, 2, 3}> {\n"
                                        "[a] a = Conv (x, w)\nb = %s (a)\n[y] y = Conv (b, v)\n}",
                                        functions[k]);
        assert_int_equal(ir_parse(&g, a, text, strlen(text), NULL, &d), 0);
        assert_int_equal(lint(&list, g, target_find("ort"), a), 2);
        assert_non_null(list[0].why);
        assert_true(list[0].spare == (k == 0));
        assert_false(list[1].spare);
    }
    arena_free(a);
}

#define TAIL_Q "  p = QuantizeLinear (c, s, z)\n  y = DequantizeLinear (p, s, z)\n"

static void convolutions(void **state)
{
    (void)state;
    Arena *a = arena_new();
    const struct {
        const char *target, *type, *in, *tail, *why;
        int zero;
    } cases[] = {
        {"ort", "uint8", "d, w, b", TAIL_Q, "", 0},
        {"ort", "uint8", "d, w, f", TAIL_Q, "", 0},
        {"ort", "uint8", "x, w, f", TAIL_Q, "its input 'x' does not come from a DequantizeLinear",
         0},
        {"ort", "uint8", "d, w, b2", TAIL_Q,
         "scale 0.75 of its bias is not that of input times weight, 0.25", 0},
        {"ort", "uint8", "d, w, b", "  y = Sqrt (c)\n",
         "its output also goes to 'y' (Sqrt), not to one QuantizeLinear", 0},
        {"openvino", "uint8", "d, w, b", "  y = Sqrt (c)\n", "", 0},
        {"tensorrt", "int8", "d, w, b", "  y = Sqrt (c)\n",
         "fewer than 16 channels are not worth integers", 0},
        {"ort", "uint8", "d, w",
         "  e = Relu (c)\n  p = QuantizeLinear (e, s, z3)\n  y = DequantizeLinear (p, s, z3)\n",
         "Relu after it is not absorbed because its Q has zero_point 3 != qmin 0", 0},
        {"ort", "uint8", "d, w",
         "  e = Clip (c, lo, hi)\n  p = QuantizeLinear (e, s, z)\n  y = DequantizeLinear (p, s, "
         "z)\n",
         "Clip after it is not absorbed because its Q reaches beyond it", 0},
        {"openvino", "uint8", "d, w",
         "  e = Relu (c)\n  p = QuantizeLinear (e, s, z3)\n  y = DequantizeLinear (p, s, z3)\n", "",
         0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *text = conv_with(a, cases[i].type, cases[i].zero, cases[i].in, cases[i].tail);
        assert_string_equal(why(a, text, cases[i].target, "c"), cases[i].why);
    }
    arena_free(a);
}

/* A product on 16 channels, whose weight is all one number, through the target's eyes. */
static void zero_points(void **state)
{
    (void)state;
    Arena *a = arena_new();
    const char *text =
        "g (float[1,4] x) => (float[1,4] y) <float s = {0.5}, int8 z = {3}, "
        "int8[4,4] wq = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, "
        "float[4] ws = {1, 1, 1, 1}, int8[4] wz = {0, 0, 0, 0}> {\n"
        "  q = QuantizeLinear (x, s, z)\n  d = DequantizeLinear (q, s, z)\n"
        "  w = DequantizeLinear <axis = 1> (wq, ws, wz)\n  [m] y = MatMul (d, w)\n}\n";
    assert_string_equal(why(a, text, "tensorrt", "m"),
                        "'d' is int8 with zero point 3: int8 with 0 is wanted");
    assert_string_equal(why(a, text, "ort", "m"), ""); /* MatMul may deliver float */
    assert_string_equal(why(a, text, "qnn", "m"), "its output 'y' is a graph output");
    arena_free(a);
}

static void what_moves_stays_on_its_grid(void **state)
{
    (void)state;
    Arena *a = arena_new();
    const char *text = "g (float[1,1,2,2] x) => (float[1,4] y) <float s = {0.5}, uint8 z = {3}, "
                       "float r = {0.25}> {\n"
                       "  q = QuantizeLinear (x, s, z)\n  d = DequantizeLinear (q, s, z)\n"
                       "  [m] m = MaxPool <kernel_shape = [1, 1]> (d)\n"
                       "  p = QuantizeLinear (m, r, z)\n  e = DequantizeLinear (p, r, z)\n"
                       "  [f] f = Flatten (e)\n"
                       "  t = QuantizeLinear (f, r, z)\n  y = DequantizeLinear (t, r, z)\n}\n";
    assert_string_equal(why(a, text, "ort", "m"), "its output is on another grid than its input");
    assert_string_equal(why(a, text, "ort", "f"), "");
    arena_free(a);
}

static void concats_of_input_targets_have_one_scale(void **state)
{
    (void)state;
    Arena *a = arena_new();
    const char *text = "g (float[1,1] x) => (float[1,2] y) <float s = {0.5}, int8 z = {0}, "
                       "float r = {0.25}> {\n"
                       "  q = QuantizeLinear (x, s, z)\n  d = DequantizeLinear (q, s, z)\n"
                       "  p = QuantizeLinear (x, r, z)\n  e = DequantizeLinear (p, r, z)\n"
                       "  [j] j = Concat <axis = 1> (d, e)\n"
                       "  t = QuantizeLinear (j, r, z)\n  y = DequantizeLinear (t, r, z)\n}\n";
    assert_string_equal(why(a, text, "tensorrt", "j"), "'d' and 'e' are on different scales");
    assert_string_equal(why(a, text, "ort", "j"), "");
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions),
        cmocka_unit_test(products_for_logarithms),
        cmocka_unit_test(zero_points),
        cmocka_unit_test(what_moves_stays_on_its_grid),
        cmocka_unit_test(concats_of_input_targets_have_one_scale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
