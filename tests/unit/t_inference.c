/* Inference: graphs whose shapes depend on data run piece by piece; plans are kept by shapes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "ir/ir.h"
#include "ir/text.h"
#include "runtime/runtime.h"

typedef struct Setup {
    Arena *arena;
    Graph *g;
    Inference *run;
    int plans; /* how many have been made */
    char message[256];
    Diag diag;
} Setup;

static void keep(void *ctx, Severity sev, const char *text)
{
    Setup *s = ctx;
    if (sev == SEV_ERROR) snprintf(s->message, sizeof s->message, "%s", text);
}

static int count_plan(const void *ctx, size_t bytes, Diag *d)
{
    (void)bytes, (void)d;
    ++*(int *)(uintptr_t)ctx;
    return 0;
}

static void set_up(Setup *s, const char *text)
{
    *s = (Setup){.arena = arena_new(), .diag = {.sink = keep, .ctx = s}};
    assert_int_equal(ir_parse(&s->g, s->arena, text, strlen(text), NULL, &s->diag), 0);
    const InferenceOptions o = {.device = "cpu", .allow = count_plan, .ctx = &s->plans};
    assert_int_equal(inference_new(&s->run, s->g, &o, &s->diag), 0);
}

static void tear_down(Setup *s)
{
    inference_free(s->run);
    arena_free(s->arena);
}

/* Runs on one float vector and expects another. */
static void expect(Setup *s, int n, const float *x, int m, const float *y)
{
    const Type in = type_of(DT_F32, 1, (int64_t[]){n});
    const void *data[] = {x};
    Type t;
    if (inference_run(s->run, &in, data, &s->diag) < 0) fail_msg("%s", s->message);
    const float *got = inference_output(s->run, 0, &t);
    assert_int_equal(t.rank, 1);
    assert_int_equal(t.dim[0], m);
    assert_memory_equal(got, y, (size_t)m * sizeof *y);
}

#define X(...)                                                                                     \
    (int)(sizeof((float[]){__VA_ARGS__}) / sizeof(float)), (float[]) { __VA_ARGS__ }

/* The elements that are not zero, doubled; the number of pieces follows from the data. */
static void chosen_elements(void **state)
{
    Setup s;
    (void)state;
    set_up(&s, "g (float[N] x) => (float[M] y) <int64[1] first = {0}> {\n"
               "  a = Abs (x)\n"
               "  at = NonZero (a)\n"
               "  row = Squeeze (at, first)\n"
               "  z = Gather (x, row)\n"
               "  y = Add (z, z)\n"
               "}\n");
    expect(&s, X(0, 1, 0, -2), X(2, -4));
    const int plans = s.plans;
    expect(&s, X(3, 0, 0, 5), X(6, 10)); /* the same sizes: nothing new, but where they are */
    assert_true(s.plans <= plans + 1);
    expect(&s, X(1, 2, 3), X(2, 4, 6));
    expect(&s, X(0, 1, 0, -2), X(2, -4));
    tear_down(&s);
}

/* Fixed shapes: one plan, whatever the numbers. */
static void one_plan(void **state)
{
    Setup s;
    (void)state;
    set_up(&s, "g (float[N] x) => (float[N] y) {\n"
               "  i = Cast <to = 7> (x)\n"
               "  j = Add (i, i)\n"
               "  y = Cast <to = 1> (j)\n"
               "}\n");
    expect(&s, X(1, 2), X(2, 4));
    expect(&s, X(5, -7), X(10, -14));
    assert_int_equal(s.plans, 1);
    expect(&s, X(5), X(10));
    assert_int_equal(s.plans, 2);
    tear_down(&s);
}

/* A file may declare a size that is not the one that data leads to. */
static void computed_sizes(void **state)
{
    Setup s;
    (void)state;
    set_up(&s, "g (float[N] x) => (float[9] y) <int64 zero = {0}, int64 one = {1}, int64[1] all = "
               "{-1}> {\n"
               "  most = ReduceMax <keepdims = 0> (x)\n"
               "  n = Cast <to = 7> (most)\n"
               "  r = Range (zero, n, one)\n"
               "  f = Cast <to = 1> (r)\n"
               "  y = Reshape (f, all)\n"
               "}\n");
    expect(&s, X(1, 4, 2), X(0, 1, 2, 3));
    expect(&s, X(2, 1, 0), X(0, 1));
    tear_down(&s);
}

static void what_cannot_run(void **state)
{
    Setup s;
    const float x[] = {1, 2};
    const void *data[] = {x};
    const Type two = type_of(DT_F32, 1, (int64_t[]){2}),
               wrong = type_of(DT_F32, 2, (int64_t[]){2, 1});
    (void)state;
    set_up(&s, "g (float[N] x) => (y) {\n"
               "  a = Relu (x)\n"
               "  [odd] b = com.example.Odd (a)\n"
               "  y = Relu (b)\n"
               "}\n");
    assert_int_equal(inference_run(s.run, &two, data, &s.diag), -1);
    assert_non_null(strstr(s.message, "node 'odd' (Odd): what it does is not known"));
    assert_int_equal(inference_run(s.run, &wrong, data, &s.diag), -1);
    assert_non_null(strstr(s.message, "input 'x' takes float[N], the array given is float[2,1]"));
    tear_down(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chosen_elements),
        cmocka_unit_test(one_plan),
        cmocka_unit_test(computed_sizes),
        cmocka_unit_test(what_cannot_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
