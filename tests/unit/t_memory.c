/* --memory: the shard that a plan is cut to, what stays the same, and the error when even one
 * sample is too much. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "ir/text.h"
#include "passes/batches.h"
#include "small_net.h"

static char said[512];

static void remember(void *ctx, Severity sev, const char *text)
{
    (void)ctx;
    if (sev == SEV_ERROR) snprintf(said, sizeof said, "%s", text);
}

static int build_small(ShardGraph *out, void *ctx, int64_t shard, Arena *a, Diag *d)
{
    const Context *c = ctx;
    return shard_specialize(&out->g, c->graph, a, c->data, shard, d);
}

static int open_with(Session **s, Context *c, size_t memory, int threads)
{
    c->opt.memory = memory;
    c->opt.threads = threads;
    return session_open(s, c->arena, c->graph, c->data, 0, build_small, c, &c->opt, c->diag);
}

static void plans_fit(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = {.sink = remember};
    Context c = small_context(a, &d, true);
    Session *s;
    assert_int_equal(open_with(&s, &c, 0, 1), 0);
    assert_int_equal(s->shard, SHARD_SAMPLES);
    size_t whole = s->bytes;
    for (int threads = 1; threads <= 64; threads *= 4) {
        /* Room for four halves, but not for four wholes. */
        assert_int_equal(open_with(&s, &c, 3 * whole, threads), 0);
        assert_int_equal(s->shard, SHARD_SAMPLES / 2);
        assert_true(s->bytes <= 3 * whole);
        assert_true(s->threads <= threads);
    }
    size_t tight = 1;
    while (open_with(&s, &c, tight, 3) < 0) tight = tight * 5 / 4 + 1;
    assert_int_equal(s->shard, 1);
    assert_true(s->threads < 3 && s->bytes <= tight);
    arena_free(a);
}

static void too_little_is_an_error(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = {.sink = remember};
    Context c = small_context(a, &d, true);
    Session *s;
    Eval e;
    assert_int_equal(open_with(&s, &c, 1000, 2), -1);
    assert_non_null(strstr(said, "1 sample at a time needs "));
    assert_non_null(strstr(said, "--memory allows 1000"));
    assert_int_equal(evaluate(&e, c.graph, c.original, NULL, c.data, &c.opt, &d), -1);
    assert_int_equal(pass_sensitivity(&c, ""), -1);
    assert_int_equal(pass_train(&c, ""), -1);
    assert_int_equal(pass_fake_quant(&c, ""), -1);
    arena_free(a);
}

/* Without --memory, samples that are large are cut as on a machine of 4 GiB; one that is too large
 * for this one is an error before it is allocated. */
static void large_samples(void **state)
{
    static const char net[] = "g (float[N,1,H,W] x) => (y) { t = Sin (x) u = Cos (t)"
                              " y = MatMul (t, u) }";
    static const struct {
        int64_t side, shard; /* y and u: 4 side^2 bytes each */
    } cases[] = {{64, 16}, {4096, 2}, {6000, 1}};
    (void)state;
    Arena *a = arena_new();
    Diag d = {.sink = remember};
    Context c = {.arena = a, .diag = &d, .opt = {.device = "cpu"}};
    assert_int_equal(ir_parse(&c.graph, a, net, strlen(net), NULL, &d), 0);
    SampleInput in = {.name = "x", .channel_axis = -1};
    Samples s = {.count = 16, .inputs = &in, .ninputs = 1};
    c.data = &s;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        Session *session;
        in.type = type_of(DT_F32, 3, (int64_t[]){1, cases[k].side, cases[k].side});
        assert_int_equal(open_with(&session, &c, 0, 1), 0);
        assert_int_equal(session->shard, cases[k].shard);
        session_close(session);
    }
    Session *none;
    in.type = type_of(DT_F32, 3, (int64_t[]){1, 10000000, 10000000});
    assert_int_equal(open_with(&none, &c, 0, 1), -1);
    assert_non_null(strstr(said, "1 sample at a time needs "));
    assert_non_null(strstr(said, "this machine has free"));
    arena_free(a);
}

/* A model that fixes its batch cannot be cut. */
static void fixed_batches_stay(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = {.sink = remember};
    Context c = small_context(a, &d, true);
    Session *s;
    c.graph = graph_specialize(c.graph, a, (int64_t[]){8}, &d);
    assert_int_equal(open_with(&s, &c, 0, 2), 0);
    assert_int_equal(s->shard, 8);
    size_t one = s->bytes / 2;
    assert_int_equal(open_with(&s, &c, one, 2), 0);
    assert_int_equal(s->shard, 8);
    assert_int_equal(s->threads, 1);
    assert_int_equal(open_with(&s, &c, one - 1, 2), -1);
    assert_non_null(strstr(said, "8 samples at a time need "));
    arena_free(a);
}

/* Accuracy and scores do not depend on the shard but for rounding; every criterion can be cut. */
static void results_are_the_same(void **state)
{
    (void)state;
    static const char *const criterion[] = {"gate-ggn", "gate-fisher", "ehap", "ehap-ggn", "apoz"};
    Arena *a = arena_new();
    Diag d = {.sink = remember};
    Eval e[2];
    for (size_t k = 0; k < sizeof criterion / sizeof *criterion; k++) {
        Context c = small_context(a, &d, true);
        Samples few = *c.data;
        double score[2][NET_CHANNELS];
        few.count = 64;
        c.data = &few;
        c.opt.criterion = criterion[k];
        c.opt.probes = 16;
        for (int m = 0; m < 2; m++) {
            c.opt.memory = m ? 600000 : 0;
            assert_int_equal(evaluate(&e[m], c.graph, c.original, NULL, c.data, &c.opt, &d), 0);
            assert_int_equal(pass_sensitivity(&c, ""), 0);
            assert_int_equal(c.scores->layers[0].n, NET_CHANNELS);
            memcpy(score[m], c.scores->layers[0].score, sizeof score[m]);
        }
        assert_true(e[0].accuracy == e[1].accuracy && fabs(e[0].loss - e[1].loss) < 1e-6);
        bool random = strcmp(criterion[k], "ehap-ggn") == 0; /* a direction per shard */
        for (int i = 0; i < NET_CHANNELS; i++)
            assert_true(fabs(score[0][i] - score[1][i]) <=
                        (random ? 0.5 : 1e-3) * fabs(score[0][i]) + 1e-9);
    }
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_fit),
        cmocka_unit_test(too_little_is_an_error),
        cmocka_unit_test(large_samples),
        cmocka_unit_test(fixed_batches_stay),
        cmocka_unit_test(results_are_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
