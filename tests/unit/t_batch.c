/* Where samples lie in inputs and outputs, whatever axis that is. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "ir/batch.h"
#include "ir/text.h"
#include "passes/batches.h"
#include "passes/observe.h"
#include "passes/synthesize.h"

/* A graph of such inputs and outputs that computes nothing in particular. */
static Graph *parse(Arena *a, const char *text)
{
    Graph *g = NULL;
    Diag d = diag_stderr("net");
    assert_int_equal(ir_parse(&g, a, text, strlen(text), NULL, &d), 0);
    return g;
}

static void axes(void **state)
{
    static const struct {
        const char *net;
        int axis[3];
    } cases[] = {
        {"g (float[N,3,H,W] x) => (y) { y = Relu (x) }", {0}},
        /* a recurrent state beside what it goes with, open and fixed */
        {"g (float[batch,T] x, float[2,batch,8] s, int64 rate) => (y, z) "
         "{ y = Relu (x) z = Relu (s) }",
         {0, 1, -1}},
        {"g (float[1,576] x, float[2,1,8] s) => (y, z) { y = Relu (x) z = Relu (s) }", {0, 1}},
        {"g (float[2,4,8] s, float[4,576] x) => (y, z) { y = Relu (x) z = Relu (s) }", {1, 0}},
        /* names that say nothing: what begins inputs, and an open axis of one's own */
        {"g (float[?,?] x, float[2,?,8] s) => (y, z) { y = Relu (x) z = Relu (s) }", {0, 1}},
        {"g (float[a,3] x, float[b,4] z) => (y) { y = Relu (x) }", {0, 0}},
        {"g (float[S,N,8] x, float[T,N,8] z) => (y) { y = Relu (x) }", {1, 1}},
        {"g (float[N,T] ids, float[N,T] mask) => (y) { y = Relu (mask) }", {0, 0}},
        /* the same for all, and a batch that another input fixes to one */
        {"g (float[N,3] x, float[10,4] anchors) => (y) { y = Relu (x) }", {0, -1}},
        {"g (float[1,3,8,8] x, float[100,4] a) => (y) { y = Relu (x) }", {0, -1}},
        {"g (float[N,3] x, float[1,1,8] h) => (y) { y = Relu (x) }", {0, 0}},
    };
    (void)state;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        Arena *a = arena_new();
        Graph *g = parse(a, cases[k].net);
        const int *got = batch_axes(g, a);
        for (int i = 0; i < g->ninputs; i++)
            if (got[i] != cases[k].axis[i])
                fail_msg("%s: input %d has axis %d", cases[k].net, i, got[i]);
        arena_free(a);
    }
}

/* A state [2,batch,3] goes in, another comes out; a number goes with all samples. */
static const char stateful[] = "g (float[batch,3] x, float[2,batch,3] s, float k) => (y, next) {"
                               " t = Mul (s, k)"
                               " next = Add (t, x)"
                               " y = Mul (x, k)"
                               "}";

enum { COUNT = 21 }; /* more than a shard, and not whole ones */

static Samples *states(Arena *a, const Graph *g, float *x, float *s, const float *k)
{
    Samples *set = NEW(a, Samples);
    *set = (Samples){.count = COUNT, .ninputs = 3, .inputs = NEW_ARRAY(a, SampleInput, 3)};
    set->inputs[0] = (SampleInput){
        .name = "x", .type = type_of(DT_F32, 1, (int64_t[]){3}), .data = x, .channel_axis = -1};
    set->inputs[1] = (SampleInput){.name = "s",
                                   .type = type_of(DT_F32, 2, (int64_t[]){2, 3}),
                                   .batch_axis = 1,
                                   .data = s,
                                   .channel_axis = -1};
    set->inputs[2] = (SampleInput){.name = "k",
                                   .type = {.dtype = DT_F32},
                                   .batch_axis = -1,
                                   .same = true,
                                   .data = k,
                                   .channel_axis = -1};
    for (int i = 0; i < COUNT * 3; i++) x[i] = (float)i;
    for (int i = 0; i < COUNT * 6; i++) s[i] = (float)(1000 + i);
    assert_int_equal(g->ninputs, 3);
    return set;
}

static void rows_along_any_axis(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("net");
    const Graph *g = parse(a, stateful);
    float x[COUNT * 3], s[COUNT * 6];
    const float k = 2;
    const Samples *set = states(a, g, x, s, &k);
    const Options o = {.device = "cpu", .threads = 2};
    Rows rows;
    assert_int_equal(forward_rows(&rows, a, g, g->outputs[1], set, COUNT, NULL, &o, &d), 0);
    assert_int_equal(rows.row, 6);
    assert_int_equal(rows.axis, 1);
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < 6; j++)
            assert_float_equal(rows.x[i * 6 + j], 2 * s[i * 6 + j] + x[i * 3 + j % 3], 0);
    Eval ev;
    assert_int_equal(evaluate(&ev, g, g, NULL, set, &o, &d), 0);
    assert_float_equal(ev.error, 0, 0);
    arena_free(a);
}

/* Without a batch, but not the same: one sample at a time. */
static void numbers_that_differ(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("net");
    const Graph *g = parse(a, stateful);
    float x[COUNT * 3], s[COUNT * 6], k[COUNT];
    for (int i = 0; i < COUNT; i++) k[i] = (float)i;
    Samples *set = states(a, g, x, s, k);
    set->inputs[2].same = false;
    const Options o = {.device = "cpu", .threads = 2};
    Rows rows;
    assert_int_equal(shard_size(g, set, 0), 1);
    assert_int_equal(forward_rows(&rows, a, g, g->outputs[0], set, COUNT, NULL, &o, &d), 0);
    for (int i = 0; i < COUNT * 3; i++) assert_float_equal(rows.x[i], x[i] * k[i / 3], 0);
    arena_free(a);
}

/* Logits are read as floats: what is behind the Cast of something else, not before it. */
static void logits_are_floats(void **state)
{
    static const struct {
        const char *net;
        float want[3]; /* of x = 0 1 2 … by sample */
        int64_t row;
    } cases[] = {
        {"g (float[N,3] x) => (y) { k = ArgMax <axis = 1, keepdims = 0> (x) y = Cast <to = 1> (k) "
         "}",
         {2},
         1},
        {"g (float[N,3] x) => (y) { h = Cast <to = 10> (x) t = Neg (h) y = Cast <to = 1> (t) }",
         {-0.0F, -1, -2},
         3},
        {"g (float[N,3] x) => (y) { t = Neg (x) p = Softmax (t) y = Identity (p) }",
         {-0.0F, -1, -2},
         3},
    };
    (void)state;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        Arena *a = arena_new();
        Diag d = diag_stderr("net");
        const Graph *g = parse(a, cases[k].net);
        float x[COUNT * 3];
        for (int i = 0; i < COUNT * 3; i++) x[i] = (float)i;
        SampleInput in = {
            .type = type_of(DT_F32, 1, (int64_t[]){3}), .data = x, .channel_axis = -1};
        const Samples set = {.count = COUNT, .ninputs = 1, .inputs = &in};
        const Options o = {.device = "cpu", .threads = 2};
        Rows rows;
        assert_int_equal(forward_rows(&rows, a, g, NULL, &set, COUNT, NULL, &o, &d), 0);
        assert_int_equal(rows.row, cases[k].row);
        for (int i = 0; i < rows.row; i++) assert_float_equal(rows.x[i], cases[k].want[i], 0);
        Eval ev;
        assert_int_equal(evaluate(&ev, g, g, NULL, &set, &o, &d), 0);
        assert_float_equal(ev.error, 0, 0);
        arena_free(a);
    }
}

static void rows_of_doubles_are_refused(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = {0};
    const Graph *g = parse(a, "g (double[N,3] x) => (y) { y = Neg (x) }");
    const Options o = {.device = "cpu"};
    double x[COUNT * 3] = {0};
    SampleInput in = {.type = type_of(DT_F64, 1, (int64_t[]){3}), .data = x, .channel_axis = -1};
    const Samples set = {.count = COUNT, .ninputs = 1, .inputs = &in};
    Rows rows;
    assert_int_equal(forward_rows(&rows, a, g, NULL, &set, COUNT, NULL, &o, &d), -1);
    assert_int_equal(d.errors, 1);
    g = parse(a, "g (double[N,3] x) => (k) { k = ArgMax <axis = 1> (x) }");
    Eval ev;
    assert_int_equal(forward_rows(&rows, a, g, NULL, &set, COUNT, NULL, &o, &d), -1);
    assert_int_equal(evaluate(&ev, g, NULL, NULL, &set, &o, &d), -1);
    assert_int_equal(d.errors, 3);
    arena_free(a);
}

/* What fills up the last shard is not seen, whatever axis the samples lie along. */
static void every_sample_is_observed_once(void **state)
{
    static const char net[] = "g (float[N,2,3] x) => (y) {"
                              " t = Neg (x)"
                              " y = Transpose <perm = [2, 1, 0]> (t)"
                              "}";
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("net");
    const Graph *g = parse(a, net);
    Value *const seen[] = {g->nodes[0]->out[0], g->nodes[1]->out[0]};
    float x[COUNT * 6];
    double sum[2] = {0};
    for (int i = 0; i < COUNT * 6; i++) {
        x[i] = (float)(i * i % 37);
        sum[i / 3 % 2] -= (double)x[i];
    }
    SampleInput in = {.type = type_of(DT_F32, 2, (int64_t[]){2, 3}), .data = x, .channel_axis = -1};
    const Samples set = {.count = COUNT, .ninputs = 1, .inputs = &in};
    const Options o = {.device = "cpu", .threads = 2};
    Moments m[2];
    assert_int_equal(measure_moments(m, a, g, 2, seen, &set, COUNT, &o, &d), 0);
    for (int k = 0; k < 2; k++)
        for (int c = 0; c < 2; c++) assert_float_equal(m[k].mean[c], sum[c] / (3 * COUNT), 1e-12);
    arena_free(a);
}

/* Without data: states are made along their axis, numbers as what they are compared with. */
static void made_samples(void **state)
{
    static const char net[] = "g (float[batch,64] x, float[2,batch,3] s, int64 rate, bool[batch,4] "
                              "m, int64[batch,2] none)"
                              " => (y, z, q, n) <int64 usual = {16000}>"
                              "{ y = Relu (x) z = Relu (s) q = Equal (rate, usual) n = Not (m) }";
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("net");
    Graph *g = parse(a, net);
    Context c = {.arena = a, .graph = g, .original = g, .diag = &d, .opt = {.device = "cpu"}};
    Samples *s;
    assert_int_equal(sizes_choose(&c), 0);
    assert_int_equal(synthesize(&s, &c, 20), 0);
    assert_int_equal(s->inputs[1].batch_axis, 1);
    assert_int_equal(type_count(&s->inputs[1].type), 6);
    assert_true(s->inputs[2].same);
    assert_int_equal(*(const int64_t *)sample_at(&s->inputs[2], 0, NULL), 16000);
    assert_int_equal(*(const uint8_t *)sample_at(&s->inputs[3], 7, NULL), 1);
    assert_true(s->inputs[4].same); /* nobody reads it */
    assert_int_equal(*(const int64_t *)sample_at(&s->inputs[4], 9, NULL), 0);
    arena_free(a);
}

/* Integers whose names say what they are, in a decoder whose mask covers past and present: its
 * length is found to be their sum. Doubles are made as floats are. */
static void made_by_name(void **state)
{
    static const char net[] =
        "g (int64[N,t] position_ids, int64[N,all] attention_mask, float[N,p,3] past, int64[N] lens,"
        "   double[N,2] d) => (y, z, u)"
        "{ a = Cast <to = 1> (position_ids) b = Unsqueeze (a, last) c = Expand (b, wide)"
        "  k = Concat <axis = 1> (past, c) m = Cast <to = 1> (attention_mask)"
        "  n = Unsqueeze (m, last) y = Mul (k, n) z = Neg (lens) u = Exp (d) }";
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("net");
    char text[1024];
    snprintf(text, sizeof text, "%.*s <int64[1] last = {2}, int64[3] wide = {1, 1, 3}> %s",
             (int)(strstr(net, "{ a") - net), net, strstr(net, "{ a"));
    Graph *g = parse(a, text);
    Context c = {.arena = a, .graph = g, .original = g, .diag = &d, .opt = {.device = "cpu"}};
    Samples *s;
    Rows y;
    assert_int_equal(sizes_choose(&c), 0);
    assert_int_equal(synthesize(&s, &c, 20), 0);
    const int64_t *at = sample_at(&s->inputs[0], 5, NULL),
                  *mask = sample_at(&s->inputs[1], 5, NULL);
    const int64_t now = s->inputs[0].type.dim[0], all = s->inputs[1].type.dim[0];
    assert_int_equal(all, now + s->inputs[2].type.dim[0]);
    for (int64_t k = 0; k < now; k++) assert_int_equal(at[k], k);
    for (int64_t k = 0; k < all; k++) assert_int_equal(mask[k], 1);
    assert_int_equal(*(const int64_t *)sample_at(&s->inputs[3], 3, NULL), all);
    double sum = 0;
    for (int i = 0; i < 20; i++) {
        double x[2];
        samples_gather(s, 4, (int64_t[]){i}, 1, DT_F64, x);
        assert_true(fabs(x[0]) < 4 && fabs(x[1]) < 4);
        sum += fabs(x[0]) + fabs(x[1]);
    }
    assert_true(sum > 4);
    assert_int_equal(forward_rows(&y, a, g, g->outputs[0], s, 20, NULL, &c.opt, &d), 0);
    arena_free(a);
}

/* Images of bytes are drawn as they are; other bytes, and integers of any size, are numbers. */
static void made_integers(void **state)
{
    static const char *const nets[] = {
        "g (uint8[N,3,16,16] x) => (y) { t = Cast <to = 1> (x) y = Relu (t) }",
        "g (uint8[N,5] x) => (y) { t = Cast <to = 1> (x) y = Relu (t) }",
        "g (int32[N,5] x) => (y) { t = Cast <to = 1> (x) y = Relu (t) }",
        "g (int8[N,3,16,16] x) => (y) { t = Cast <to = 1> (x) y = Relu (t) }",
        "g (bool[N,4] x) => (y) { t = Cast <to = 1> (x) y = Relu (t) }",
    };
    static const float least[] = {200, 50, 50, 50, 1}, most[] = {255, 99, 99, 99, 1};
    (void)state;
    for (size_t k = 0; k < sizeof nets / sizeof *nets; k++) {
        Arena *a = arena_new();
        Diag d = diag_stderr("net");
        Graph *g = parse(a, nets[k]);
        Context c = {.arena = a, .graph = g, .original = g, .diag = &d, .opt = {.device = "cpu"}};
        Samples *s;
        Rows y;
        float top = -1;
        assert_int_equal(sizes_choose(&c), 0);
        assert_int_equal(synthesize(&s, &c, 40), 0);
        assert_int_equal(forward_rows(&y, a, g, NULL, s, 40, NULL, &c.opt, &d), 0);
        for (int64_t i = 0; i < 40 * y.row; i++) top = y.x[i] > top ? y.x[i] : top;
        assert_in_range((int)top, (int)least[k], (int)most[k]);
        arena_free(a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(axes),
        cmocka_unit_test(rows_along_any_axis),
        cmocka_unit_test(numbers_that_differ),
        cmocka_unit_test(logits_are_floats),
        cmocka_unit_test(rows_of_doubles_are_refused),
        cmocka_unit_test(every_sample_is_observed_once),
        cmocka_unit_test(made_samples),
        cmocka_unit_test(made_by_name),
        cmocka_unit_test(made_integers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
