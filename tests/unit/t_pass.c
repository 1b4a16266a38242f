/* Running passes: pipelines, options, records, dumps, the verifier after each. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "ir/text.h"
#include "passes/passes.h"

static const char net[] = "g (float[N,3] x) => (float[N,3] y) {\n"
                          "  a = Relu (x)\n"
                          "  b = Tanh (a)\n"
                          "  y = Identity (a)\n"
                          "}\n";

static Context context(Arena *a, Diag *d)
{
    Context c = {.arena = a, .diag = d};
    assert_int_equal(ir_parse(&c.graph, a, net, strlen(net), NULL, d), 0);
    return c;
}

static void test_options(void **state)
{
    Arena *a = arena_new();
    Diag d = {0};
    Context c = context(a, &d);
    (void)state;
    assert_string_equal(pass_option(&c, "a=1;bc=2,3;d=", "a"), "1");
    assert_string_equal(pass_option(&c, "a=1;bc=2,3;d=", "bc"), "2,3");
    assert_string_equal(pass_option(&c, "a=1;bc=2,3;d=", "d"), "");
    assert_null(pass_option(&c, "a=1;bc=2", "b"));
    assert_null(pass_option(&c, "a=1;bc=2", "c"));
    assert_null(pass_option(&c, "", "a"));
    arena_free(a);
}

/* What is no number, or out of bounds, is said and changes nothing. */
static void test_numbers(void **state)
{
    static const char *const bad[] = {"a=", "a=x", "a=1x", "a=-1", "a=nan", "a=3000000000"};
    Arena *a = arena_new();
    Diag d = {0};
    Context c = context(a, &d);
    double x = 7;
    int64_t n = 7;
    (void)state;
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        assert_int_equal(pass_number(&x, &c, bad[k], "a", 0, 1e9), -1);
        assert_int_equal(pass_int(&n, &c, bad[k], "a", 0), -1);
    }
    assert_int_equal(pass_int(&n, &c, "a=2.5", "a", 0), -1);
    assert_int_equal(pass_number(&x, &c, "a=inf", "a", 0, INFINITY), -1);
    assert_int_equal(pass_number(&x, &c, "b=1", "a", 0, 1), 0);
    assert_true(x == 7 && n == 7);
    assert_int_equal(pass_number(&x, &c, "a=2.5", "a", 0, 3), 0);
    assert_int_equal(pass_int(&n, &c, "b=1;a=3", "a", 3), 0);
    assert_true(x == 2.5 && n == 3);
    assert_int_equal(pass_run_pipeline(&c, "grad{batch=0}"), -1);
    arena_free(a);
}

static void test_pipeline(void **state)
{
    Arena *a = arena_new();
    Diag d = {0};
    Context c = context(a, &d);
    (void)state;
    assert_int_equal(pass_run_pipeline(&c, ""), 0);
    assert_int_equal(c.report.npasses, 0);
    assert_int_equal(pass_run_pipeline(&c, "cse , dce{}, canonicalize"), 0);
    assert_int_equal(c.report.npasses, 3);
    assert_string_equal(c.report.passes[0].name, "cse");
    assert_string_equal(c.report.passes[1].name, "dce");
    assert_true(c.report.passes[2].seconds >= 0);
    assert_int_equal(c.graph->nnodes, 1);
    PassCall *calls;
    assert_int_equal(pipeline_parse(&c, "grad{loss=train},train{steps=1}", &calls), 2);
    assert_false(calls[0].pass->samples);
    assert_true(calls[1].pass->samples);
    assert_string_equal(calls[1].opt, "steps=1");
    assert_int_equal(pipeline_parse(&c, "train{lr=1e-3;;qat=0.5;}", &calls), 1);
    /* Nothing runs if the line is wrong anywhere. */
    assert_int_equal(pass_run_pipeline(&c, "cse,nonsense"), -1);
    assert_int_equal(pass_run_pipeline(&c, "cse,dce{"), -1);
    assert_int_equal(pass_run_pipeline(&c, "dce}"), -1);
    assert_int_equal(c.report.npasses, 3);
    assert_int_equal(d.errors, 3);
    arena_free(a);
}

/* Options that a pass does not know, or that are not key=value, are refused before anything runs.
 */
static void test_unknown_options(void **state)
{
    static const char *const bad[] = {"cse,dce{x=1}",         "cse,train{step=1}",
                                      "cse,train{steps}",     "cse,train{steps=1;ste=2}",
                                      "cse,train{=1}",        "cse,allocate{ flops=0.5}",
                                      "cse,hvp{batch=2;lr=}", "cse,train{steps,lr=2}"};
    (void)state;
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        Arena *a = arena_new();
        Diag d = {0};
        Context c = context(a, &d);
        if (pass_run_pipeline(&c, bad[k]) != -1) fail_msg("%s is taken", bad[k]);
        assert_int_equal(c.report.npasses, 0);
        assert_int_equal(d.errors, 1);
        arena_free(a);
    }
}

static int ask(Context *c, const char *opt)
{
    static const char *const names[] = {"zero", "one", NULL};
    int k = 7;
    TRY(pass_choice(&k, c, opt, "which", names));
    return k == 0 ? -1 : 0;
}

/* A choice is one of its names; the table has to list what a pass asks for. */
static void test_choices(void **state)
{
    const Pass p = {.name = "ask", .options = "which=zero|one", .run = ask};
    const Pass unlisted = {.name = "ask", .options = "whichever=zero|one", .run = ask};
    Arena *a = arena_new();
    Diag d = {0};
    Context c = context(a, &d);
    Trap t;
    (void)state;
    assert_int_equal(pass_run(&c, &p, ""), 0);
    assert_int_equal(pass_run(&c, &p, "which=one"), 0);
    assert_int_equal(pass_run(&c, &p, "which=zero"), -1);
    assert_int_equal(d.errors, 0);
    assert_int_equal(pass_run(&c, &p, "which=two"), -1);
    assert_int_equal(d.errors, 1);
    assert_null(c.running);
    if (trap_enter(&t) == 0) {
        pass_run(&c, &unlisted, "");
        trap_leave(&t);
        fail_msg("an unlisted option is read");
    }
    assert_string_equal(t.message, "passes.def does not list option 'which' of 'ask'");
    arena_free(a);
}

/* The dump of a pass reads as the graph that it saw. */
static void expect_dump(const char *folder, const char *name, int nodes)
{
    Arena *a = arena_new();
    Diag d = diag_stderr(name);
    Graph *g = NULL;
    const char *path = arena_printf(a, "%s/%s", folder, name);
    assert_int_equal(ir_load(&g, a, path, &d), 0);
    assert_int_equal(g->nnodes, nodes);
    unlink(path);
    arena_free(a);
}

static void test_dumps(void **state)
{
    Arena *a = arena_new();
    Diag d = {0};
    Context c = context(a, &d);
    char folder[] = "/tmp/t_pass.XXXXXX";
    (void)state;
    assert_non_null(mkdtemp(folder));
    c.opt = (Options){.dump_before = "dce", .dump_after = "all", .dump_dir = folder};
    assert_int_equal(pass_run_pipeline(&c, "cse,dce"), 0);
    expect_dump(folder, "00-cse.after.onnxtxt", 3);
    expect_dump(folder, "01-dce.before.onnxtxt", 3);
    expect_dump(folder, "01-dce.after.onnxtxt", 2);
    assert_int_equal(rmdir(folder), 0);
    c.opt.dump_dir = "/nonexistent/folder";
    assert_int_equal(pass_run_pipeline(&c, "cse"), -1);
    assert_int_equal(d.errors, 1);
    arena_free(a);
}

static int spoil(Context *c, const char *opt)
{
    (void)opt;
    c->graph->nodes[0]->out[0]->type.dtype = DT_I64;
    return 0;
}

static void test_verify(void **state)
{
    const Pass p = {.name = "spoil", .run = spoil};
    Arena *a = arena_new();
    Diag d = {0};
    Context c = context(a, &d);
    Trap t;
    (void)state;
    c.opt.verify = true;
    if (trap_enter(&t) == 0) {
        pass_run(&c, &p, "");
        trap_leave(&t);
        fail_msg("the verifier did not run");
    }
    assert_int_equal(t.kind, TRAP_INTERNAL);
    assert_string_equal(t.message, "pass 'spoil' left an ill-formed graph");
    arena_free(a);
}

static void remember(void *ctx, const char *pass, double fraction, const char *text)
{
    snprintf(ctx, 64, "%s %.2f %s", pass, fraction, text);
}

static int half_way(Context *c, const char *opt)
{
    (void)opt;
    c->peak_bytes = 1000;
    pass_progress(c, 0.5, "step %d", 7);
    return 0;
}

static void test_progress(void **state)
{
    const Pass p = {.name = "half-way", .run = half_way};
    Arena *a = arena_new();
    Diag d = {0};
    Context c = context(a, &d);
    char seen[64] = "";
    (void)state;
    c.progress = remember;
    c.progress_ctx = seen;
    assert_int_equal(pass_run(&c, &p, ""), 0);
    assert_string_equal(seen, "half-way 0.50 step 7");
    assert_int_equal(c.report.passes[0].peak_bytes, 1000);
    arena_free(a);
}

static void test_table(void **state)
{
    (void)state;
    assert_null(pass_find("nonsense"));
    for (const Pass *p = passes; p->name; p++) {
        assert_ptr_equal(pass_find(p->name), p);
        assert_true(strlen(p->help) > 10);
        assert_non_null(p->options);
    }
}

/* Arithmetic on sizes that inference does not follow (Abs) is run once the batch is bound: what
 * hangs on it has a shape then. */
static void test_specialize(void **state)
{
    static const char text[] = "g (float[N,6] x) => (float[A,B] y) {\n"
                               "  s = Shape (x)\n"
                               "  p = Abs (s)\n"
                               "  y = Reshape (x, p)\n"
                               "}\n";
    Arena *a = arena_new();
    Diag d = {0};
    Graph *g;
    int64_t dims[8] = {4, -1, -1, -1, -1, -1, -1, -1};
    (void)state;
    assert_int_equal(ir_parse(&g, a, text, strlen(text), NULL, &d), 0);
    Graph *bound = simplify_specialize(g, a, dims, NULL, &d);
    assert_non_null(bound);
    const Type *y = &bound->outputs[0]->type;
    assert_true(type_is_static(y));
    assert_int_equal(y->dim[0], 4);
    assert_int_equal(y->dim[1], 6);
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),         cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_pipeline),        cmocka_unit_test(test_dumps),
        cmocka_unit_test(test_verify),          cmocka_unit_test(test_progress),
        cmocka_unit_test(test_unknown_options), cmocka_unit_test(test_choices),
        cmocka_unit_test(test_table),           cmocka_unit_test(test_specialize),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
