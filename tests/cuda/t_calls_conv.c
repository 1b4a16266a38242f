/* What the module asks of cuDNN and cuBLAS, on functions of the same names that record their
 * arguments: descriptors, choice of algorithms, operand order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/cuda/stubs.h"

static void *address(int n) { return (void *)(intptr_t)n; }

static GpuConv problem(GpuConvKind kind, DType storage)
{
    GpuConv c;
    memset(&c, 0, sizeof c);
    c.kind = kind;
    c.storage = storage;
    c.n = 4, c.c = 8, c.h = c.w = 16, c.o = 24, c.p = c.q = 8, c.kh = c.kw = 3, c.group = 1;
    c.stride[0] = c.stride[1] = 2, c.dilation[0] = c.dilation[1] = 1, c.pad[0] = c.pad[1] = 1;
    return c;
}

static void test_half_descriptors(void **state)
{
    (void)state;
    forget();
    size_t scratch;
    GpuConv c = problem(GPU_FORWARD, DT_F16);
    c.deterministic = true;
    GpuConvPlan *p = gpu_conv_create(&c, &scratch);
    must_say("tensor nhwc half 4,8,16,16\n");
    must_say("tensor nhwc half 4,24,8,8\n");
    must_say("filter nhwc 24,8,3,3\n");
    must_say("convolution pad 1,1 stride 2,2 dilation 1,1 cross sums float\n");
    must_say("math tensor\n");
    assert_int_equal(scratch, 1000);
    gpu_conv_run(p, address(10), address(11), 1, address(12), NULL);
    must_say("forward algorithm 1 operands 10,11 -> 12 beta 1 workspace 1000\n");
    gpu_conv_destroy(p);
}

/* Without TF32 a float convolution must not use the offered tensor math. */
static void test_float_is_float(void **state)
{
    (void)state;
    static const char *const line[] = {
        "forward algorithm 3 operands 1,2 -> 3 beta 0 workspace 2000\n",
        "data algorithm 3 operands 1,2 -> 3 beta 0 workspace 2000\n",
        "filter algorithm 3 operands 1,2 -> 3 beta 0 workspace 2000\n"};
    for (int kind = 0; kind < 3; kind++) {
        forget();
        size_t scratch;
        GpuConv c = problem((GpuConvKind)kind, DT_F32);
        c.deterministic = true;
        GpuConvPlan *p = gpu_conv_create(&c, &scratch);
        must_say("math fma\n");
        assert_null(strstr(log_text, "math default"));
        gpu_conv_run(p, address(1), address(2), 0, address(3), NULL);
        must_say(line[kind]);
        gpu_conv_destroy(p);
    }
}

static void test_tf32_on_request(void **state)
{
    (void)state;
    forget();
    size_t scratch;
    GpuConv c = problem(GPU_FORWARD, DT_F32);
    c.tf32 = c.deterministic = true;
    GpuConvPlan *p = gpu_conv_create(&c, &scratch);
    gpu_conv_run(p, address(1), address(2), 0, address(3), NULL);
    must_say("forward algorithm 1");
    gpu_conv_destroy(p);
}

static void test_choices_are_kept(void **state)
{
    (void)state;
    size_t scratch;
    GpuConv c = problem(GPU_BY_DATA, DT_F16);
    gpu_conv_destroy(gpu_conv_create(&c, &scratch));
    forget();
    gpu_conv_destroy(gpu_conv_create(&c, &scratch));
    assert_null(strstr(log_text, "heuristic"));
    c.group = 2;
    gpu_conv_destroy(gpu_conv_create(&c, &scratch));
    must_say("measured\n");
    must_say("groups 2\n");
}

/* Measured, the first algorithm wins though it is not deterministic; else the heuristic's first
 * that is. What does not fit in a quarter of the memory is passed over. */
static void test_deterministic(void **state)
{
    (void)state;
    size_t scratch;
    GpuConv c = problem(GPU_BY_WEIGHTS, DT_F16);
    forget();
    c.dilation[0] = 3;
    gpu_conv_destroy(gpu_conv_create(&c, &scratch));
    assert_int_equal(scratch, 0);
    assert_null(strstr(log_text, "heuristic"));
    forget();
    c.deterministic = true;
    gpu_conv_destroy(gpu_conv_create(&c, &scratch));
    assert_int_equal(scratch, 1000);
    must_say("heuristic\n");
    assert_null(strstr(log_text, "measured"));
    left = 4 * 999;
    c.dilation[0] = 2;
    assert_null(gpu_conv_create(&c, &scratch));
    left = (size_t)1 << 30;
}

/* No memory to measure with: the heuristic. */
static void test_no_memory_to_measure(void **state)
{
    (void)state;
    size_t scratch;
    GpuConv c = problem(GPU_FORWARD, DT_F16);
    forget();
    c.dilation[0] = 4;
    no_memory = true;
    gpu_conv_destroy(gpu_conv_create(&c, &scratch));
    no_memory = false;
    must_say("measured\nheuristic\n");
}

/* An algorithm that the list has but the library refuses in the math at hand is passed over, and so
 * is one whose workspace is too large; that nothing fits is not remembered. */
static void test_next_algorithm(void **state)
{
    (void)state;
    size_t scratch;
    GpuConv c = problem(GPU_FORWARD, DT_F16);
    c.deterministic = true;
    c.dilation[0] = 5;
    refused = 1;
    gpu_conv_destroy(gpu_conv_create(&c, &scratch));
    assert_int_equal(scratch, 2000);
    refused = -1;
    c.dilation[0] = 6;
    left = 4 * 999;
    assert_null(gpu_conv_create(&c, &scratch));
    left = (size_t)1 << 30;
    gpu_conv_destroy(gpu_conv_create(&c, &scratch));
    assert_int_equal(scratch, 1000);
}

/* Row-major [5,7] x [7,3] is column-major [3,7] x [7,5]. */
static void test_gemm(void **state)
{
    (void)state;
    forget();
    GpuGemm g = {.storage = DT_F16,
                 .result = DT_F32,
                 .m = 5,
                 .n = 3,
                 .k = 7,
                 .lda = 7,
                 .ldb = 3,
                 .ldy = 3,
                 .batch = 2,
                 .stride_a = 35,
                 .stride_b = 0,
                 .stride_y = 15,
                 .alpha = 1};
    gpu_gemm(&g, address(1), address(2), address(3));
    must_say(
        "gemm 00 3,5,7 a 2 ld 3/0 b 1 ld 7/35 c 3 ld 3/15 batch 2 float sums in half out float\n");
    forget();
    g.tb = true;
    g.ldb = 7;
    gpu_gemm(&g, address(1), address(2), address(3));
    must_say("gemm 10 3,5,7 a 2 ld 7/0");
}

/* ---- failures ---------------------------------------------------------------------------------
 */

static void a_convolution(void)
{
    static int dilation = 10; /* a problem that is not known yet */
    size_t scratch;
    GpuConv c = problem((GpuConvKind)(dilation % 3), DT_F16);
    c.dilation[0] = dilation++;
    GpuConvPlan *p = gpu_conv_create(&c, &scratch);
    gpu_conv_destroy(p);
}

static GpuConvPlan *a_plan;

static void running(void)
{
    const GpuGemm g = {.storage = DT_F16, .result = DT_F16, .m = 1, .n = 1, .k = 1, .batch = 1};
    gpu_conv_run(a_plan, address(1), address(2), 0, address(3), NULL);
    gpu_gemm(&g, address(1), address(2), address(3));
}

static void test_every_call_fails(void **state)
{
    (void)state;
    size_t scratch;
    const GpuConv c = problem(GPU_FORWARD, DT_F16);
    every_call_fails(a_convolution, 10);
    a_plan = gpu_conv_create(&c, &scratch);
    every_call_fails(running, 2);
    gpu_conv_destroy(a_plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_half_descriptors), cmocka_unit_test(test_float_is_float),
        cmocka_unit_test(test_tf32_on_request),  cmocka_unit_test(test_choices_are_kept),
        cmocka_unit_test(test_deterministic),    cmocka_unit_test(test_no_memory_to_measure),
        cmocka_unit_test(test_next_algorithm),   cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_every_call_fails),
    };
    if (*gpu_open()) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
