/* What the device's memory decides: shards, lanes, and what happens when it runs out at each
 * moment; that none of it changes a score. */
#include "tests/cuda/logged.h"

#include "passes/score/scores.h"

/* Every message so far. */
static char messages[4096];

static void keep_all(void *ctx, Severity sev, const char *text)
{
    const size_t n = strlen(messages);
    (void)ctx, (void)sev;
    snprintf(messages + n, sizeof messages - n, "%s\n", text);
}

static void must_tell(const char *text)
{
    if (!strstr(messages, text)) fail_msg("'%s' is not in:\n%s", text, messages);
}

static void limit(const char *name, size_t bytes)
{
    char text[32];
    snprintf(text, sizeof text, "%zu", bytes);
    setenv(name, text, 1);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "big");
    Value *x = graph_add_input(g, "x", TYPE(DT_F32, 1000, 1000));
    graph_add_output(g, build(g, OP_Exp, IN(x), NO_ATTRS));
    Diag d = {.sink = keep_message};
    Program *p;
    Instance *i;
    assert_int_equal(program_compile(&p, g, &(ProgramOptions){.device = "cuda"}, &d), 0);
    setenv("EHAP_EMULATED_BYTES", "5000000", 1);
    assert_int_equal(instance_new(&i, p, &d), -1);
    unsetenv("EHAP_EMULATED_BYTES");
    assert_non_null(strstr(last_message, "out of memory on 'cuda': the program needs 4000"));
    program_free(p);
    arena_free(a);
}

static int build_exp(ShardGraph *out, void *ctx, int64_t shard, Arena *a, Diag *d)
{
    Graph *g = graph_new(a, "shard");
    (void)ctx, (void)d;
    Value *x = graph_add_input(g, "x", TYPE(DT_F32, shard, 1000));
    graph_add_output(g, build(g, OP_Exp, IN(x), NO_ATTRS));
    *out = (ShardGraph){.g = g};
    return 0;
}

/* 256 samples of 4000 bytes do not fit, an eighth of them do. */
static void test_shards_shrink(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *model = graph_new(a, "model");
    const Type open = TYPE(DT_F32, graph_symbol(model, "N"), 1000);
    graph_add_output(model, graph_add_input(model, "x", open));
    Diag d = {.sink = keep_message};
    const Options o = {.device = "cuda"};
    Session *s;
    setenv("EHAP_EMULATED_BYTES", "300000", 1);
    assert_int_equal(
        session_open(&s, a, model, NULL, shard_for_device(&o, 300), build_exp, NULL, &o, &d), 0);
    unsetenv("EHAP_EMULATED_BYTES");
    assert_int_equal(s->shard, 32);
    assert_int_equal(s->threads, 1);
    assert_non_null(strstr(last_message, "32 samples at a time instead of 256"));
    arena_free(a);
}

/* ---- lanes ----------------------------------------------------------------------------------- */

/* Four runs at a time, woven call by call, give what one after another gives; an overflow is
 * reported for the first row that has one, whichever lane found it. */
static void test_lanes(void **state)
{
    (void)state;
    enum { N = 7, ROW = 5 };
    static const int outputs[] = {0, 1};
    static const double factor[ROW] = {1, 1, 1, 1, 1};
    Arena *a = arena_new();
    Graph *g = staged_graph(a);
    Diag d = diag_stderr(NULL);
    const ProgramOptions o = {.device = "cuda", .stage = stages, .lane_stage = 2};
    const int64_t key[2] = {7, 100};
    float want[N * ROW], got[N * ROW];
    Running one = start(g, "ref", stages), r;
    bind_staged(one, key);
    instance_run(one.i, 0);
    instance_run(one.i, 1);
    instance_repeat(one.i, 2, 2, N, 2, outputs, want);
    assert_int_equal(program_compile(&r.p, g, &o, &d), 0);
    assert_int_equal(program_lanes(r.p), MAX_LANES); /* steps of 16 bytes fill nothing */
    assert_int_equal(instance_new(&r.i, r.p, &d), 0);
    assert_int_equal(instance_lanes(r.i, 4), 4);
    bind_staged(r, key);
    instance_run_all(r.i);
    assert_true(instance_keeps(r.i, 2, 2, N, 2, outputs, factor));
    bind_staged(r, key);
    forget();
    instance_repeat(r.i, 2, 2, N, 2, outputs, got);
    assert_int_equal(count("replay"), 2);
    assert_memory_equal(got, want, sizeof got);
    float infinite[4] = {INFINITY, 0, 0, 0};
    instance_bind(r.i, 1, infinite);
    instance_run(r.i, 1);
    assert_int_equal(instance_collect(r.i, 2, 3, N), 3);
    stop(r);
    stop(one);
    arena_free(a);
}

/* The scores of the small network, with what the device said of it. */
static Scores *scores_of(Arena *a, const char *options)
{
    static Diag d;
    d = (Diag){.sink = keep_all};
    Context c = small_context(a, &d, false);
    c.opt.device = "cuda";
    *messages = '\0';
    forget();
    assert_int_equal(pass_sensitivity(&c, options), 0);
    return c.scores;
}

static void must_equal(const Scores *x, const Scores *y)
{
    assert_int_equal(x->nlayers, y->nlayers);
    for (int k = 0; k < x->nlayers; k++)
        assert_memory_equal(x->layers[k].score, y->layers[k].score,
                            (size_t)x->layers[k].n * sizeof *x->layers[k].score);
}

/* As many lanes as free memory allows: fewer, with a remark, and at last smaller shards. Lanes
 * change no byte of a score. */
static void test_memory_decides(void **state)
{
    (void)state;
    static const char options[] = "criterion=ehap;probes=32;batch=16;precision=fp16";
    static const struct {
        size_t bytes;
        int lanes;
        const char *say;
    } sizes[] = {
        {SIZE_MAX / 2, 8, ""},
        {900000, 8, ""},
        {500000, 4, "4 probes at a time instead of 8: the device has no memory for more"},
        {270000, 2, "2 probes at a time instead of 8: the device has no memory for more"},
        {180000, 1, "1 probe at a time instead of 8: the device has no memory for more"},
        {100000, 1, "8 samples at a time instead of 16: the device has no memory for more"},
    };
    Arena *a = arena_new();
    const Scores *first = NULL;
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        char line[16];
        limit("EHAP_EMULATED_BYTES", sizes[k].bytes);
        const Scores *s = scores_of(a, options);
        must_tell(sizes[k].say);
        snprintf(line, sizeof line, "fork %d\n", sizes[k].lanes);
        if (sizes[k].lanes > 1)
            must_say(line);
        else
            assert_int_equal(count("fork"), 0);
        if (!first) first = s;
        if (!strstr(sizes[k].say, "samples")) must_equal(s, first);
    }
    unsetenv("EHAP_EMULATED_BYTES");
    arena_free(a);
}

/* Memory that was promised is not there when an instance wants it, or a recording. */
static void test_memory_runs_out_later(void **state)
{
    (void)state;
    static const char options[] = "criterion=ehap;probes=32;batch=16;precision=fp16";
    Arena *a = arena_new();
    setenv("EHAP_EMULATED_FREE", "1000000000", 1);
    limit("EHAP_EMULATED_BYTES", 100000);
    scores_of(a, options);
    must_tell("8 samples at a time instead of 16: the device has no memory for more");
    unsetenv("EHAP_EMULATED_FREE");
    unsetenv("EHAP_EMULATED_BYTES");
    limit("EHAP_EMULATED_GRAPH_BYTES", 500000);
    scores_of(a, options);
    must_tell(
        "cudaGraphInstantiate failed: out of memory\nremark: 8 samples at a time instead of 16");
    unsetenv("EHAP_EMULATED_GRAPH_BYTES");
    arena_free(a);
}

/* Nothing comes down per probe: per round and shard a first look at the flag, the flag, and per
 * round the moments. The primal of the only shard runs once. */
static void test_probes_stay_on_the_device(void **state)
{
    (void)state;
    enum { CHANNELS = 11 };
    Arena *a = arena_new();
    int down[2], replays[2];
    for (int k = 0; k < 2; k++) {
        const Scores *scored = scores_of(a, k ? "criterion=ehap;probes=48;batch=16;precision=auto"
                                              : "criterion=ehap;probes=16;batch=16;precision=auto");
        assert_string_equal(scored->precision, "fp16"); /* the default on a GPU */
        down[k] = count("download");
        replays[k] = count("replay");
    }
    assert_int_equal(down[1] - down[0], 2 * 3);
    assert_int_equal(replays[1] - replays[0], 2 * 2);
    char moments[32];
    snprintf(moments, sizeof moments, "download %d\n", 4 * CHANNELS * 8);
    assert_int_equal(count(moments), 3);
    assert_int_equal(count("download 8\n"), 2 * 3);
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_shards_shrink),
        cmocka_unit_test(test_lanes),
        cmocka_unit_test(test_memory_decides),
        cmocka_unit_test(test_memory_runs_out_later),
        cmocka_unit_test(test_probes_stay_on_the_device),
    };
    RUN_LOGGED(tests);
}
