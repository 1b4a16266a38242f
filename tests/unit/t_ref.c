/* Reference kernels against numbers worked out by hand or published. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/kernel.h"
#include "runtime/philox.h"
#include "runtime/scalar.h"
#include "tests/types.h"

static Arena *arena;
static Graph *g;

static int setup(void **state)
{
    (void)state;
    arena = arena_new();
    g = graph_new(arena, "ref");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_free(arena);
    return 0;
}

/* Runs the graph, whose inputs are all constants, and reads output k. */
static void run(int output, void *out)
{
    Diag d = diag_stderr(NULL);
    Program *p;
    Instance *i;
    assert_int_equal(program_compile(&p, g, &(ProgramOptions){.device = "ref"}, &d), 0);
    assert_int_equal(instance_new(&i, p, &d), 0);
    instance_run_all(i);
    instance_read(i, output, out);
    instance_free(i);
    program_free(p);
}

static void expect_floats(int n, const float *want)
{
    float got[64];
    run(0, got);
    for (int k = 0; k < n; k++) assert_float_equal(got[k], want[k], 1e-6);
}

#define FLOATS(...)                                                                                \
    sizeof((float[]){__VA_ARGS__}) / sizeof(float), (float[]) { __VA_ARGS__ }

static void test_conv(void **state)
{
    (void)state;
    const float x[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, w[4] = {1, 0, 0, -1}, b[1] = {10};
    graph_add_output(g, build(g, OP_Conv,
                              IN(value_const(g, "x", TYPE(DT_F32, 1, 1, 3, 3), x),
                                 value_const(g, "w", TYPE(DT_F32, 1, 1, 2, 2), w),
                                 value_const(g, "b", TYPE(DT_F32, 1), b)),
                              ATTRS(attr_ints("pads", 4, (int64_t[]){1, 0, 0, 0}))));
    /* Row 0 sees the zero row above: -x[0][1], -x[0][2]; then x[i][j] - x[i+1][j+1] = -4. */
    expect_floats(FLOATS(8, 7, 6, 6, 6, 6));
}

static void test_quantize_rounds_to_even(void **state)
{
    (void)state;
    const float x[8] = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 300, -300, -2.5f}, one = 1;
    const uint8_t zero = 128, want[8] = {128, 130, 130, 128, 126, 255, 0, 126};
    uint8_t got[8];
    graph_add_output(g, build(g, OP_QuantizeLinear,
                              IN(value_const(g, "x", TYPE(DT_F32, 8), x),
                                 value_const(g, "s", type_of(DT_F32, 0, NULL), &one),
                                 value_const(g, "z", type_of(DT_U8, 0, NULL), &zero)),
                              NO_ATTRS));
    run(0, got);
    assert_memory_equal(got, want, 8);
}

static void test_fake_quant_is_quantize_dequantize(void **state)
{
    (void)state;
    const float x[6] = {0.013f, -0.51f, 0.26f, 9, -9, 0}, s = 0.02f, z = 3;
    const int8_t zero = 3;
    Value *v = value_const(g, "x", TYPE(DT_F32, 6), x);
    Value *scale = value_const(g, "s", type_of(DT_F32, 0, NULL), &s);
    Value *point = value_const(g, "z", type_of(DT_I8, 0, NULL), &zero);
    Value *q = build(g, OP_QuantizeLinear, IN(v, scale, point), NO_ATTRS);
    graph_add_output(g, build(g, OP_DequantizeLinear, IN(q, scale, point), NO_ATTRS));
    graph_add_output(g, build(g, OP_FakeQuant,
                              IN(v, scale, value_const(g, "f", type_of(DT_F32, 0, NULL), &z)),
                              ATTRS(attr_int("qmin", -128), attr_int("qmax", 127))));
    float a[6], b[6];
    run(0, a);
    run(1, b);
    assert_memory_equal(a, b, sizeof a);
}

static void test_max_pool_indices(void **state)
{
    (void)state;
    const float x[8] = {1, 3, 2, 9, 5, 4, 9, 0};
    const int64_t want[2] = {3, 6};
    int64_t got[2];
    Node *n = build_multi(g, OP_MaxPool, 2, IN(value_const(g, "x", TYPE(DT_F32, 2, 1, 4), x)),
                          ATTRS(attr_ints("kernel_shape", 1, (int64_t[]){4})));
    graph_add_output(g, n->out[1]);
    run(0, got);
    assert_memory_equal(got, want, sizeof got);
}

static void test_softmax_of_large_numbers(void **state)
{
    (void)state;
    const float x[3] = {1000, 1000, -1000};
    graph_add_output(
        g, build(g, OP_Softmax, IN(value_const(g, "x", TYPE(DT_F32, 1, 3), x)), NO_ATTRS));
    expect_floats(FLOATS(0.5f, 0.5f, 0));
}

/* Beyond 2^53 doubles would be off by one; division truncates. */
static void test_integers_are_exact(void **state)
{
    (void)state;
    Value *x = graph_add_input(g, "x", TYPE(DT_I64, 2)),
          *y = graph_add_input(g, "y", TYPE(DT_I64, 2));
    graph_add_output(g, build(g, OP_Add, IN(x, y), NO_ATTRS));
    graph_add_output(g, build(g, OP_Div, IN(x, y), NO_ATTRS));
    const int64_t a[2] = {(1LL << 60) + 1, -7}, b[2] = {2, 2};
    int64_t sum[2], quotient[2];
    Diag d = diag_stderr(NULL);
    Program *p;
    Instance *i;
    assert_int_equal(program_compile(&p, g, &(ProgramOptions){.device = "ref"}, &d), 0);
    assert_int_equal(instance_new(&i, p, &d), 0);
    instance_bind(i, 0, a);
    instance_bind(i, 1, b);
    instance_run_all(i);
    instance_read(i, 0, sum);
    instance_read(i, 1, quotient);
    assert_true(sum[0] == (1LL << 60) + 3 && sum[1] == -5);
    assert_true(quotient[0] == 1LL << 59 && quotient[1] == -3);
    instance_free(i);
    program_free(p);
}

/* Salmon et al.'s known answers for philox4x32-10. */
static void test_philox_known_answers(void **state)
{
    (void)state;
    const uint32_t zero[4] = {0}, ones[4] = {~0u, ~0u, ~0u, ~0u};
    const uint32_t pi[4] = {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344};
    const uint32_t want[3][4] = {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
                                 {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
                                 {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}};
    uint32_t got[4];
    philox4x32(zero, 0, got);
    assert_memory_equal(got, want[0], sizeof got);
    philox4x32(ones, ~0ull, got);
    assert_memory_equal(got, want[1], sizeof got);
    philox4x32(pi, 0x299f31d0a4093822ull, got);
    assert_memory_equal(got, want[2], sizeof got);
}

static void test_rademacher(void **state)
{
    (void)state;
    float x[300];
    uint32_t words[4];
    graph_add_output(g,
                     build(g, OP_Rademacher, IN(CONST_INTS(g, 42, 7)),
                           ATTRS(attr_ints("shape", 1, (int64_t[]){300}), attr_int("stream", 5))));
    run(0, x);
    double sum = 0;
    for (unsigned k = 0; k < 300; k++) {
        rademacher_block(42, 7, 5, k / 128, words);
        assert_float_equal(x[k], rademacher_sign(words, k % 128), 0);
        sum += (double)x[k];
    }
    assert_true(fabs(sum) < 70); /* four standard deviations */
}

/* The float polynomials against libm in double. */
static void test_float_functions(void **state)
{
    (void)state;
    for (float x = -86.5f; x < 88.7f; x += 0.0137f) {
        assert_true(fabs((double)scalar_expf(x) / exp((double)x) - 1) < 3e-7);
        assert_true(fabs((double)scalar_tanhf(x) / tanh((double)x) - 1) < 3e-7);
    }
    assert_true(isinf(scalar_expf(89)) && scalar_expf(-100) >= 0 && isnan(scalar_expf(NAN)));
    assert_true(isnan(scalar_tanhf(NAN)) && scalar_tanhf(100) >= 1 && scalar_tanhf(-100) <= -1);
    assert_true(isnan(scalar_Relu0_float(NAN, 0, 0)) && isnan(scalar_Max_float(1, NAN)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_conv, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quantize_rounds_to_even, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fake_quant_is_quantize_dequantize, setup, teardown),
        cmocka_unit_test_setup_teardown(test_max_pool_indices, setup, teardown),
        cmocka_unit_test_setup_teardown(test_softmax_of_large_numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_integers_are_exact, setup, teardown),
        cmocka_unit_test(test_philox_known_answers),
        cmocka_unit_test_setup_teardown(test_rademacher, setup, teardown),
        cmocka_unit_test(test_float_functions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
