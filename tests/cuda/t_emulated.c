/* What the CUDA device makes of a program, read off the log of the emulated one: fusion, padding,
 * staging, recordings; and that repeated runs and small memory behave. */
#include "tests/cuda/logged.h"
#include "tests/cuda/trained.h"

/* relu(x) * 2 + x, its square root of the absolute value, and the sum of both: one kernel, and the
 * second result that is an output too. */
static void test_chain_is_one_kernel(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "chain");
    Value *x = graph_add_input(g, "x", TYPE(DT_F32, 3, 5));
    Value *y = build(g, OP_Relu, IN(x), NO_ATTRS);
    y = build(g, OP_Mul, IN(y, const_f32(g, 2)), NO_ATTRS);
    y = build(g, OP_Add, IN(y, x), NO_ATTRS);
    Value *root = build(g, OP_Sqrt, IN(build(g, OP_Abs, IN(y), NO_ATTRS)), NO_ATTRS);
    graph_add_output(g, root);
    graph_add_output(g, build(g, OP_Add, IN(root, y), NO_ATTRS));
    float in[15], got[15], want[15];
    for (int k = 0; k < 15; k++) in[k] = (float)(k - 7);
    Running cuda = start(g, "cuda", NULL), ref = start(g, "ref", NULL);
    instance_bind(cuda.i, 0, in);
    instance_bind(ref.i, 0, in);
    forget();
    instance_run_all(cuda.i);
    instance_run_all(ref.i);
    assert_int_equal(count("launch"), 1);
    must_say("launch generated 15");
    for (int o = 0; o < 2; o++) {
        instance_read(cuda.i, o, got);
        instance_read(ref.i, o, want);
        for (int k = 0; k < 15; k++) assert_float_equal(got[k], want[k], 1e-6);
    }
    stop(cuda);
    stop(ref);
    arena_free(a);
}

/* Up to 16 bytes at a time: whole tensors, one that repeats, a number; floats by fours, halves by
 * eights, what a row of six allows by twos. (A device's access that is not aligned traps.) */
static void test_wide_kernels(void **state)
{
    (void)state;
    static const struct {
        DType t;
        int64_t columns;
        const char *launch;
    } cases[] = {{DT_F32, 8, "launch generated 8\n"},
                 {DT_F16, 8, "launch generated 4\n"},
                 {DT_BF16, 8, "launch generated 4\n"},
                 {DT_F16, 6, "launch generated 12\n"},
                 {DT_F32, 7, "launch generated 28\n"}};
    for (int k = 0; k < 5; k++) {
        const int64_t n = cases[k].columns;
        const DType t = cases[k].t;
        Arena *a = arena_new();
        Graph *g = graph_new(a, "wide");
        Value *x = graph_add_input(g, "x", TYPE(t, 4, n)), *b = graph_add_input(g, "b", TYPE(t, n));
        Value *y = build(g, OP_Mul, IN(x, cast(const_f32(g, 3), t)), NO_ATTRS);
        graph_add_output(g, build(g, OP_Add, IN(y, b), NO_ATTRS));
        uint16_t half[2][32];
        float full[2][32], got[32];
        uint16_t got_half[32];
        for (int i = 0; i < 64; i++) {
            full[i / 32][i % 32] = (float)(i % 32) - 7;
            half[i / 32][i % 32] =
                t == DT_F16 ? f32_to_f16(full[i / 32][i % 32]) : f32_to_bf16(full[i / 32][i % 32]);
        }
        Running r = start(g, "cuda", NULL);
        for (int i = 0; i < 2; i++)
            instance_bind(r.i, i, t == DT_F32 ? (void *)full[i] : (void *)half[i]);
        forget();
        instance_run_all(r.i);
        must_say(cases[k].launch);
        instance_read(r.i, 0, t == DT_F32 ? (void *)got : (void *)got_half);
        for (int i = 0; i < 4 * n; i++) {
            if (t == DT_F16) got[i] = f16_to_f32(got_half[i]);
            if (t == DT_BF16) got[i] = bf16_to_f32(got_half[i]);
            assert_float_equal(got[i], 3 * full[0][i] + full[1][i % n], 1e-6);
        }
        stop(r);
        arena_free(a);
    }
}

/* Simulated integers are one more member of the chain that they round. */
static void test_fake_quant_is_fused(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "rounded");
    Value *x = graph_add_input(g, "x", TYPE(DT_F32, 3, 5)),
          *scale = graph_add_input(g, "s", TYPE(DT_F32, 1));
    Value *y = build(g, OP_Relu, IN(build(g, OP_Add, IN(x, x), NO_ATTRS)), NO_ATTRS);
    y = build(g, OP_FakeQuant, IN(y, scale, const_f32(g, 0)),
              ATTRS(attr_int("qmin", 0), attr_int("qmax", 255)));
    graph_add_output(g, y);
    float in[15], got[15];
    const float half = 0.5F;
    for (int k = 0; k < 15; k++) in[k] = 0.3F * (float)(k - 7);
    Running r = start(g, "cuda", NULL);
    instance_bind(r.i, 0, in);
    instance_bind(r.i, 1, &half);
    forget();
    instance_run_all(r.i);
    assert_int_equal(count("launch"), 1);
    must_say("launch generated 15");
    instance_read(r.i, 0, got);
    for (int k = 0; k < 15; k++)
        assert_float_equal(got[k], in[k] > 0 ? 0.5F * rintf(4 * in[k]) : 0, 1e-6);
    stop(r);
    arena_free(a);
}

/* A value that a reduction reads between two members keeps them apart. */
static void test_reader_between_splits(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "split");
    Value *x = graph_add_input(g, "x", TYPE(DT_F32, 4, 6));
    Value *y = build(g, OP_Exp, IN(x), NO_ATTRS);
    Value *sum = build(g, OP_ReduceSum, IN(y, CONST_INTS(g, 1)), ATTRS(attr_int("keepdims", 1)));
    graph_add_output(g, build(g, OP_Div, IN(y, sum), NO_ATTRS));
    Running r = start(g, "cuda", NULL);
    float in[24] = {0}, out[24];
    instance_bind(r.i, 0, in);
    forget();
    instance_run_all(r.i);
    assert_int_equal(count("launch generated"), 2);
    /* four at a time, then two: rows of six */
    must_say("launch generated 6\nlaunch reduce 4\nlaunch finish 4\nlaunch generated 12\n");
    instance_read(r.i, 0, out);
    assert_float_equal(out[7], 1.0 / 6, 1e-6);
    stop(r);
    arena_free(a);
}

/* Half convolutions see channels in multiples of 8, one-sided pads as zeros around the image; float
 * ones the numbers as they are. */
static void test_padding(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "padding");
    Value *x = graph_add_input(g, "x", TYPE(DT_F32, 2, 3, 6, 6));
    Value *w = cast(param(g, TYPE(DT_F32, 5, 3, 3, 3), 1), DT_F16);
    Value *h = build(g, OP_Conv, IN(cast(x, DT_F16), w),
                     ATTRS(attr_ints("pads", 4, (int64_t[]){0, 0, 1, 1})));
    graph_add_output(g, cast(h, DT_F32));
    graph_add_output(g, build(g, OP_Conv, IN(x, param(g, TYPE(DT_F32, 5, 3, 3, 3), 1)),
                              ATTRS(attr_ints("pads", 4, (int64_t[]){1, 1, 1, 1}))));
    forget();
    Running r = start(g, "cuda", NULL);
    must_say("conv_create 0 x 2,7,7,8 -> 5,5,8 k 3,3 pad 0,0 group 1 half");
    must_say("conv_create 0 x 2,6,6,3 -> 6,6,5 k 3,3 pad 1,1 group 1 float");
    stop(r);
    arena_free(a);
}

/* Before capability 8.0 the libraries do not multiply bfloat16: floats do. */
static void test_old_device(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "old");
    Value *x = graph_add_input(g, "x", TYPE(DT_F32, 2, 3, 6, 6));
    Value *w = cast(param(g, TYPE(DT_F32, 5, 3, 3, 3), 1), DT_BF16);
    graph_add_output(g, cast(build(g, OP_Conv, IN(cast(x, DT_BF16), w), NO_ATTRS), DT_F32));
    static const char *const capability[] = {"75", "80"}, *const storage[] = {"float", "bfloat"};
    for (int k = 0; k < 2; k++) {
        char line[80];
        setenv("EHAP_EMULATED_CAPABILITY", capability[k], 1);
        forget();
        stop(start(g, "cuda", NULL));
        snprintf(line, sizeof line, "conv_create 0 x 2,6,6,%s group 1 %s",
                 k ? "8 -> 4,4,8 k 3,3 pad 0,0" : "3 -> 4,4,5 k 3,3 pad 0,0", storage[k]);
        must_say(line);
    }
    unsetenv("EHAP_EMULATED_CAPABILITY");
    arena_free(a);
}

static void test_recording(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = staged_graph(a);
    Running r = start(g, "cuda", stages);
    int64_t key[2] = {7, 0};
    bind_staged(r, key);
    forget();
    instance_run_all(r.i);
    assert_int_equal(count("record"), 0); /* the first time step by step */
    forget();
    instance_bind(r.i, 2, key);
    instance_run(r.i, 2);
    assert_int_equal(strncmp(logged(), "upload 16\nrecord\nlaunch sign 4\n", 30), 0);
    must_say("recorded\nreplay\n");
    forget();
    instance_bind(r.i, 2, key);
    instance_run(r.i, 2);
    assert_string_equal(logged(), "upload 16\nreplay\n"); /* and from then on this is all */
    stop(r);
    arena_free(a);
}

static void test_repeat(void **state)
{
    (void)state;
    enum { N = 6, ROW = 5 };
    static const int outputs[] = {0, 1};
    Arena *a = arena_new();
    Graph *g = staged_graph(a);
    static const char *const devices[] = {"ref", "cpu", "cuda"};
    float rows[3][N * ROW];
    for (int d = 0; d < 3; d++) {
        Running r = start(g, devices[d], stages);
        int64_t key[2] = {7, 100};
        bind_staged(r, key);
        instance_run(r.i, 0);
        instance_run(r.i, 1);
        instance_repeat(r.i, 2, 2, 1, 2, outputs, rows[d]);
        key[1]++;
        instance_bind(r.i, 2, key);
        forget();
        instance_repeat(r.i, 2, 2, N - 1, 2, outputs, rows[d] + ROW);
        assert_int_equal(key[1], 101);
        if (d == 2) {
            assert_int_equal(count("replay"), N - 1);
            assert_int_equal(count("download"), 1);
        }
        stop(r);
    }
    for (int k = 0; k < N * ROW; k++) {
        assert_float_equal(rows[1][k], rows[0][k], 1e-6);
        assert_float_equal(rows[2][k], rows[0][k], 1e-6);
    }
    arena_free(a);
}

/* Two shards of one round, then one of another, with statistics on the device: what the host makes
 * of the same rows, and one small download a round and shard. */
static void test_statistics(void **state)
{
    (void)state;
    enum { N = 6, ROW = 5 };
    static const int outputs[] = {0, 1};
    static const double factor[ROW] = {1, 2, 3, 0.5, -1};
    Arena *a = arena_new();
    Running r = start(staged_graph(a), "cuda", stages);
    int64_t key[2] = {7, 100};
    float rows[N * ROW], infinite[4] = {INFINITY, 0, 0, 0};
    double got[4 * ROW], mean[ROW] = {0}, m2[ROW] = {0}, parity[2 * ROW] = {0};
    bind_staged(r, key);
    instance_run_all(r.i);
    assert_true(instance_keeps(r.i, 2, 2, 1, 2, outputs, factor)); /* more rows, more room */
    assert_true(instance_keeps(r.i, 2, 2, N, 2, outputs, factor));
    forget();
    for (int shard = 0; shard < 2; shard++) {
        instance_bind(r.i, 2, key);
        assert_int_equal(instance_collect(r.i, 2, 0, N), N);
        instance_gather(r.i, 2, N);
    }
    instance_observe(r.i, 2, N, 0, got);
    assert_int_equal(count("replay"), 2 * N);
    assert_int_equal(count("download"), 3);
    instance_bind(r.i, 2, key);
    instance_repeat(r.i, 2, 2, N, 2, outputs, rows);
    for (int k = 0; k < N; k++)
        for (int c = 0; c < ROW; c++) {
            const double x = factor[c] * 2 * (double)rows[k * ROW + c], d = x - mean[c];
            mean[c] += d / (k + 1);
            m2[c] += d * (x - mean[c]);
            parity[k % 2 * ROW + c] += x;
        }
    assert_memory_equal(got, mean, sizeof mean);
    assert_memory_equal(got + ROW, m2, sizeof m2);
    assert_memory_equal(got + (ptrdiff_t)2 * ROW, parity, sizeof parity);
    instance_bind(r.i, 1, infinite); /* rows from the second on overflow: the first of these */
    instance_run(r.i, 1);
    assert_int_equal(instance_collect(r.i, 2, 1, N), 1);
    stop(r);
    arena_free(a);
}

/* s <- s + x, twice: the state goes up once, and stays on the device from then on. */
static void test_carried_state(void **state)
{
    (void)state;
    static const char *const devices[] = {"ref", "cpu", "cuda"};
    static const int zero[] = {0};
    Arena *a = arena_new();
    Graph *g = graph_new(a, "state");
    Value *s = graph_add_input(g, "s", TYPE(DT_F32, 4)), *x = graph_add_input(g, "x", s->type);
    graph_add_output(g, build(g, OP_Add, IN(s, x), NO_ATTRS));
    for (int d = 0; d < 3; d++) {
        Running r = start(g, devices[d], NULL);
        float got[4];
        instance_carry(r.i, 0, 1, zero, zero);
        instance_bind(r.i, 0, bs);
        instance_bind(r.i, 1, xs);
        for (int k = 0; k < 2; k++) instance_run(r.i, 0);
        forget();
        for (int k = 0; k < 3; k++) instance_run(r.i, 0);
        if (d == 2) assert_string_equal(logged(), "replay\nreplay\nreplay\n");
        instance_read(r.i, 0, got);
        for (int k = 0; k < 4; k++) assert_float_equal(got[k], bs[k] + 5 * xs[k], 1e-6);
        instance_bind(r.i, 0, bs); /* from the start */
        instance_run(r.i, 0);
        instance_read(r.i, 0, got);
        for (int k = 0; k < 4; k++) assert_float_equal(got[k], bs[k] + xs[k], 1e-6);
        stop(r);
    }
    arena_free(a);
}

/* ---- training ---------------------------------------------------------------------------- */

/* Biases before normalizations have a gradient of rounding errors alone, which Adam makes as large
 * as any other: plain descent there. */
static const Training trainings[] = {
    {true, false, 48, "optimizer=sgd;lr=0.05;qat=0"},
    {false, false, 16, "qat=0"},
    {false, true, 48, "optimizer=sgd;lr=0.01"},
    {false, true, 48, "ranges=moving-average"},
    {false, true, 16, ""},
    {true, true, 16, "optimizer=sgd;lr=0.01"},
};

/* One shard a step, or three: what the program's update gives is what the loops of optimizer.c do.
 */
static void test_training_is_that_of_the_cpu(void **state)
{
    (void)state;
    static float want[4096], got[4096];
    for (size_t k = 0; k < sizeof trainings / sizeof *trainings; k++) {
        const int64_t n = trained(want, &trainings[k], "cpu", 6);
        assert_int_equal(trained(got, &trainings[k], "cuda", 6), n);
        for (int64_t i = 0; i < n; i++)
            if (!(fabsf(got[i] - want[i]) <= 2e-4F * (1 + fabsf(want[i]))))
                fail_msg("training %zu: element %lld is %g instead of %g", k, (long long)i,
                         (double)got[i], (double)want[i]);
    }
}

/* Half and bfloat16 storage come near to float. Gradients of 2^40 losses are not finite in half:
 * the scale comes down on the same batch, and nothing diverges. */
static void test_training_in_half(void **state)
{
    (void)state;
    static const char *const options[] = {
        "optimizer=sgd;lr=0.05;qat=0;precision=fp16", "optimizer=sgd;lr=0.05;qat=0;precision=bf16",
        "optimizer=sgd;lr=0.05;qat=0;precision=fp16;loss-scale=1e12",
        "optimizer=sgd;lr=0.05;precision=bf16"};
    static float want[4096], got[2][4096];
    for (int k = 0; k < 4; k++) {
        const bool on_grids = k == 3;
        const Training in_float = {
            true, on_grids, 48, on_grids ? "optimizer=sgd;lr=0.05" : "optimizer=sgd;lr=0.05;qat=0"};
        const Training how = {true, on_grids, 48, options[k]};
        const int64_t n = trained(want, &in_float, "cpu", 6);
        *last_message = '\0';
        assert_int_equal(trained(got[0], &how, "cpu", 6), n);
        assert_int_equal(trained(got[1], &how, "cuda", 6), n);
        assert_null(strstr(last_message, "diverge"));
        for (int64_t i = 0; i < 2 * n; i++) {
            const float x = got[i / n][i % n], y = want[i % n];
            if (!(fabsf(x - y) <= 0.02F * (1 + fabsf(y))))
                fail_msg("%s: element %lld is %g instead of %g", options[k], (long long)i,
                         (double)x, (double)y);
        }
        assert_true(memcmp(got[0], want, (size_t)n * sizeof *want) != 0);
    }
}

/* A run that diverges for good ends at its last good state, which is on the device. */
static void test_snapshot_on_the_device(void **state)
{
    (void)state;
    static float want[4096], got[4096];
    const Training how = {true, false, 48, "optimizer=sgd;lr=0.01;qat=0;augment=0;held-out=0"};
    poisoned = true;
    const int64_t n = trained(want, &how, "cpu", 24);
    assert_non_null(strstr(last_message, "stopped at step 16"));
    *last_message = '\0';
    assert_int_equal(trained(got, &how, "cuda", 24), n);
    poisoned = false;
    assert_non_null(strstr(last_message, "stopped at step 16"));
    for (int64_t i = 0; i < n; i++)
        assert_true(fabsf(got[i] - want[i]) <= 1e-3F * (1 + fabsf(want[i])));
}

/* What a step sends, from two runs that differ by its number: samples, labels and rates up; loss,
 * norm and extremes down. Neither weights nor gradients, nor the snapshot of the 16th. The next
 * step's samples are on their way before this one's loss is waited for, and the state is updated
 * where it lies. */
static void test_training_stays_on_the_device(void **state)
{
    (void)state;
    static float w[4096];
    const Training how = {true, false, 16, "qat=0;held-out=0"};
    enum { STEPS = 15 };
    int up[2], down[2];
    for (int k = 0; k < 2; k++) {
        trained(w, &how, "cuda", k ? 3 + STEPS : 3);
        up[k] = count("upload");
        down[k] = count("download");
    }
    assert_int_equal(up[1] - up[0], 3 * STEPS);
    assert_int_equal(down[1] - down[0], STEPS);
    assert_int_equal(count("download 12\n"), 3 + STEPS + 1); /* reports of three floats, a bias */
    must_say("replay\nupload 8192\nupload 192\ndownload 12\n"); /* 16 images, 16 x 3 labels */
    const int copies = count("\ncopy ");
    trained(w, &how, "cuda", 3);
    assert_int_equal(copies, 14); /* the snapshot: weights, biases, statistics */
    assert_int_equal(count("\ncopy "), 0);
    must_say("upload 24\n"); /* rates */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chain_is_one_kernel),
        cmocka_unit_test(test_wide_kernels),
        cmocka_unit_test(test_fake_quant_is_fused),
        cmocka_unit_test(test_reader_between_splits),
        cmocka_unit_test(test_padding),
        cmocka_unit_test(test_old_device),
        cmocka_unit_test(test_recording),
        cmocka_unit_test(test_repeat),
        cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_carried_state),
        cmocka_unit_test(test_training_is_that_of_the_cpu),
        cmocka_unit_test(test_training_in_half),
        cmocka_unit_test(test_snapshot_on_the_device),
        cmocka_unit_test(test_training_stays_on_the_device),
    };
    RUN_LOGGED(tests);
}
