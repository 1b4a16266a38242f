/* Numbers for open dimensions, and how much work a network of some size is given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "ir/text.h"
#include "passes/batches.h"
#include "passes/passes.h"

static const char net[] =
    "g (float[N,3,H,W] x) => (y) <float[8,3,1,1] w = {1.0}> { y = Conv (x, w) }";

typedef struct Setup {
    Context c;
    Diag diag;
    char said[512];
} Setup;

static void keep(void *ctx, Severity sev, const char *text)
{
    Setup *s = ctx;
    (void)sev;
    snprintf(s->said, sizeof s->said, "%s", text);
}

static int set_up(Setup *s, const char *shape)
{
    *s = (Setup){.diag = {.sink = keep, .ctx = s}};
    s->c = (Context){
        .arena = arena_new(), .diag = &s->diag, .opt = {.shape = shape, .memory = (size_t)1 << 40}};
    char text[512], zeros[256] = "0.0";
    for (int k = 1; k < 24; k++) strcat(zeros, ", 0.0");
    snprintf(text, sizeof text, "%.*s%s%s", (int)(strstr(net, "1.0") - net), net, zeros,
             strstr(net, "1.0") + 3);
    if (ir_parse(&s->c.graph, s->c.arena, text, strlen(text), NULL, &s->diag) < 0)
        fail_msg("%s", s->said);
    return sizes_choose(&s->c);
}

static void expect_size(const char *shape, int64_t batch, int64_t height, int64_t width)
{
    Setup s;
    assert_int_equal(set_up(&s, shape), 0);
    const Graph *g = s.c.graph;
    const Graph *sized = graph_sized(g, &s.c.opt, s.c.arena, NULL);
    const int64_t *dim = sized->outputs[0]->type.dim;
    assert_int_equal(dim[0], batch);
    assert_int_equal(dim[2], height);
    assert_int_equal(dim[3], width);
    assert_int_equal(graph_flops_at(g, &s.c.opt), 2 * 3 * 8 * batch * height * width);
    for (int k = 0; k < 4; k++) /* the model itself stays open */
        assert_true(dim_is_sym(g->inputs[0]->type.dim[k]) == (k != 1));
    assert_true((strstr(s.said, "analysed as float[1,3,224,224]") != NULL) == !shape);
    arena_free(s.c.arena);
}

static void open_dimensions(void **state)
{
    (void)state;
    expect_size(NULL, 1, 224, 224);
    expect_size("x=1x3x96x80", 1, 96, 80);
    expect_size("x=2x3x96x80", 2, 96, 80);
}

/* [N,H,W,C]: the open axes before fixed colours are both sides. */
static void colors_last(void **state)
{
    static const char text[] =
        "g (float[N,H,W,3] x) => (y) { y = Transpose <perm = [0, 3, 1, 2]> (x) }";
    (void)state;
    Setup s = {.diag = {.sink = keep, .ctx = &s}};
    s.c = (Context){.arena = arena_new(), .diag = &s.diag};
    assert_int_equal(ir_parse(&s.c.graph, s.c.arena, text, strlen(text), NULL, &s.diag), 0);
    assert_int_equal(sizes_choose(&s.c), 0);
    if (!strstr(s.said, "float[1,224,224,3]")) fail_msg("%s", s.said);
    arena_free(s.c.arena);
}

static void wrong_shapes(void **state)
{
    static const char *const wrong[] = {"x=1x4x96x80",
                                        "x=1x3x96",
                                        "y=1x3x96x80",
                                        "x=1x3x0x80",
                                        "x=1x3x-9x80",
                                        "x=1x3x9x",
                                        "x=1x3x1e9x80",
                                        "x=1000000000x3x8x8",
                                        "x=99999999999999999999x3x8x8",
                                        "x=1x3x90000000x90000000",
                                        "x=90000000x3x90000000x90000000"};
    (void)state;
    for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
        Setup s;
        assert_int_equal(set_up(&s, wrong[k]), -1);
        assert_non_null(strstr(s.said, "--shape"));
        arena_free(s.c.arena);
    }
}

/* The message names the bound. */
static void huge_shapes(void **state)
{
    (void)state;
    Setup s;
    assert_int_equal(set_up(&s, "x=1000000000x3x8x8"), -1);
    assert_non_null(
        strstr(s.said, "a dimension of input 'x' is 1000000000, the most is 100000000"));
    arena_free(s.c.arena);
    assert_int_equal(set_up(&s, "x=1x3x90000000x90000000"), -1);
    assert_non_null(strstr(s.said, "has more than the "));
    assert_non_null(strstr(s.said, "1099511627776 bytes that --memory allows"));
    arena_free(s.c.arena);
}

/* Small networks get all that is wanted; a sample of 38 GFLOPs gets what takes minutes. */
static void work_is_bounded(void **state)
{
    Setup s;
    (void)state;
    assert_int_equal(set_up(&s, "x=1x3x96x80"), 0);
    assert_int_equal(samples_affordable(s.c.graph, &s.c.opt, 8192), 8192);
    assert_float_equal(steps_affordable(s.c.graph, &s.c.opt, 128, 312), 312, 0);
    arena_free(s.c.arena);
    assert_int_equal(set_up(&s, "x=1x3x20000x40000"), 0);                /* 38.4 GFLOPs */
    assert_int_equal(samples_affordable(s.c.graph, &s.c.opt, 8192), 64); /* and 6.4 G elements */
    assert_int_equal(samples_affordable(s.c.graph, &s.c.opt, 10), 10);
    assert_float_equal(steps_affordable(s.c.graph, &s.c.opt, 128, 312), 1, 0);
    arena_free(s.c.arena);
    assert_int_equal(set_up(&s, "x=1x3x1000x1000"), 0); /* 48 MFLOPs, 8 M elements: 560 MFLOPs */
    assert_int_equal(samples_affordable(s.c.graph, &s.c.opt, 8192), 7142);
    assert_float_equal(steps_affordable(s.c.graph, &s.c.opt, 128, 3120), 1395, 0);
    s.c.opt.made_up = true;
    assert_int_equal(samples_affordable(s.c.graph, &s.c.opt, 8192), 1785);
    assert_float_equal(steps_affordable(s.c.graph, &s.c.opt, 128, 3120), 46, 0);
    arena_free(s.c.arena);
    assert_int_equal(set_up(&s, "x=1x3x24000x48000"), 0);
    assert_int_equal(samples_affordable(s.c.graph, &s.c.opt, 8192), 64);
    assert_float_equal(steps_affordable(s.c.graph, &s.c.opt, 128, 312), 1, 0);
    arena_free(s.c.arena);
}

/* A shard holds few samples without being filled up to 16 of them. */
static void shards_of_few_samples(void **state)
{
    (void)state;
    static const int64_t want[][2] = {{1, 1},  {2, 2},   {3, 4},    {8, 8},
                                      {9, 16}, {16, 16}, {1000, 16}};
    for (size_t k = 0; k < sizeof want / sizeof *want; k++)
        assert_int_equal(shard_for(want[k][0]), want[k][1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards_of_few_samples), cmocka_unit_test(open_dimensions),
        cmocka_unit_test(colors_last),           cmocka_unit_test(wrong_shapes),
        cmocka_unit_test(work_is_bounded),       cmocka_unit_test(huge_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
