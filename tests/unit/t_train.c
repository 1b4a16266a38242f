/* Training: it learns, the same from any number of threads, and comes back from divergence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <unistd.h>

#include "passes/checkpoint.h"
#include "passes/train/train_graph.h"
#include "passes/train/train_recipe.h"
#include "tests/unit/small_net.h"

static int warnings;
static void count_warnings(void *ctx, Severity sev, const char *text)
{
    (void)ctx;
    (void)text;
    warnings += sev == SEV_WARNING;
}

/* Every float constant of the graph, in node order. */
static float *weights_of(Arena *a, const Graph *g, int64_t *count)
{
    float *out = NEW_ARRAY(a, float, 4096);
    *count = 0;
    for (int i = 0; i < g->nnodes; i++)
        for (int k = 0; k < g->nodes[i]->nin; k++) {
            const Value *v = g->nodes[i]->in[k];
            if (!v || !value_is_const(v) || v->type.dtype != DT_F32) continue;
            int64_t n = type_count(&v->type);
            memcpy(out + *count, v->data, (size_t)n * sizeof(float));
            *count += n;
        }
    return out;
}

static double loss_of(const Context *c)
{
    Eval e;
    assert_int_equal(evaluate(&e, c->graph, NULL, NULL, c->data, &c->opt, c->diag), 0);
    return e.loss;
}

static void training_lowers_the_loss(void **state)
{
    (void)state;
    for (int norm = 0; norm < 2; norm++) {
        Arena *a = arena_new();
        Diag d = diag_stderr("test");
        Context c = small_context(a, &d, norm);
        double before = loss_of(&c);
        assert_int_equal(pass_train(&c, "optimizer=sgd;lr=0.05;distill=0;hints=0;qat=0;augment=0"),
                         0);
        assert_true(loss_of(&c) < 0.6 * before);
        arena_free(a);
    }
}

/* A student with other weights comes nearer to the original without any label. */
static void the_original_teaches(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    Context c = small_context(a, &d, false);
    Samples *unlabelled = arena_memdup(a, c.data, sizeof *c.data);
    Eval before, after;
    unlabelled->labels = NULL;
    c.data = unlabelled;
    float *w = (float *)(uintptr_t)c.graph->nodes[2]->in[1]->data;
    w = arena_memdup(a, w, 4 * 4 * 9 * sizeof(float));
    for (int i = 0; i < 36; i++) w[i] = 0;
    c.graph->nodes[2]->in[1]->data = w;
    assert_int_equal(evaluate(&before, c.graph, c.original, NULL, c.data, &c.opt, &d), 0);
    assert_int_equal(pass_train(&c, "optimizer=sgd;lr=0.05;qat=0;augment=0"), 0);
    assert_int_equal(evaluate(&after, c.graph, c.original, NULL, c.data, &c.opt, &d), 0);
    assert_true(after.loss < before.loss);
    assert_true(after.agreement >= before.agreement);
    arena_free(a);
}

/* Networks that do not classify come nearer to the original's output, whatever its scale. */
static void outputs_of_any_scale_are_learned(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    Context c = small_context(a, &d, false);
    for (int k = 0; k < 2; k++) { /* the feature map, a thousand times larger, is the output */
        Graph *g = k ? (Graph *)(uintptr_t)c.original : c.graph;
        Value *y = g->nodes[4]->out[0];
        g->noutputs = 0;
        graph_add_output(g, build(g, OP_Mul, IN(y, const_f32(g, 1000)), NO_ATTRS));
    }
    float *w = arena_memdup(a, c.graph->nodes[2]->in[1]->data, 4 * 4 * 9 * sizeof(float));
    for (int i = 0; i < 36; i++) w[i] = 0;
    c.graph->nodes[2]->in[1]->data = w;
    int64_t n = 0;
    float *want = small_run(a, c.original, c.data, &n), *before = small_run(a, c.graph, c.data, &n);
    assert_int_equal(pass_train(&c, "optimizer=sgd;lr=0.05;qat=0;augment=0"), 0);
    float *after = small_run(a, c.graph, c.data, &n);
    double e0 = 0, e1 = 0;
    for (int64_t i = 0; i < n; i++) {
        e0 += pow((double)(before[i] - want[i]), 2);
        e1 += pow((double)(after[i] - want[i]), 2);
    }
    assert_true(e1 < 0.7 * e0);
    arena_free(a);
}

static void collect_remarks(void *ctx, Severity sev, const char *text)
{
    char *all = ctx;
    if (sev == SEV_REMARK) snprintf(all + strlen(all), 1024 - strlen(all), "%s\n", text);
}

/* An answer in integers teaches nothing, and whoever trains is told. */
static void integer_outputs_are_ignored_aloud(void **state)
{
    (void)state;
    Arena *a = arena_new();
    char remark[1024] = "";
    Diag d = {.sink = collect_remarks, .ctx = remark};
    Context c = small_context(a, &d, false);
    for (int k = 0; k < 2; k++) {
        Graph *g = k ? (Graph *)(uintptr_t)c.original : c.graph;
        graph_add_output(g, build(g, OP_ArgMax, IN(g->outputs[0]), ATTRS(attr_int("axis", 1))));
    }
    c.opt.steps = 1;
    assert_int_equal(pass_train(&c, "qat=0;augment=0"), 0);
    assert_non_null(strstr(remark, c.graph->outputs[1]->name));
    assert_non_null(strstr(remark, "is int64: training ignores it"));
    arena_free(a);
}

static void threads_do_not_change_a_byte(void **state)
{
    (void)state;
    for (int quantized = 0; quantized < 2; quantized++) {
        Arena *a = arena_new();
        Diag d = diag_stderr("test");
        float *w[2];
        int64_t n[2];
        for (int k = 0; k < 2; k++) {
            Context c = small_context(a, &d, !quantized);
            c.opt.threads = 1 + k;
            c.opt.steps = 6;
            if (quantized) assert_int_equal(pass_fake_quant(&c, ""), 0);
            assert_int_equal(pass_train(&c, quantized ? "ranges=moving-average" : "qat=0"), 0);
            w[k] = weights_of(a, c.graph, &n[k]);
        }
        assert_int_equal(n[0], n[1]);
        assert_memory_equal(w[0], w[1], (size_t)n[0] * sizeof(float));
        arena_free(a);
    }
}

static void divergence_is_rolled_back(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = {.sink = count_warnings};
    Context c = small_context(a, &d, false);
    int64_t n;
    warnings = 0;
    c.opt.lr = 1e6f;
    double before = loss_of(&c);
    assert_int_equal(pass_train(&c, "qat=0;augment=0"), 0);
    assert_true(warnings > 0);
    assert_true(loss_of(&c) <= before + 0.2);
    const float *w = weights_of(a, c.graph, &n);
    for (int64_t i = 0; i < n; i++) assert_true(isfinite(w[i]));
    arena_free(a);
}

/* ---- what training is judged by ------------------------------------------------------ */

/* Without labels a network that is the original itself can only go away from it: what comes back
 * are its own bytes, in float and on grids that nothing but training moves. */
static void training_that_cannot_help_is_taken_back(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        Arena *a = arena_new();
        char said[1024] = "";
        Diag d = {.sink = collect_remarks, .ctx = said};
        Context c = small_context(a, &d, k);
        Samples *unlabelled = arena_memdup(a, c.data, sizeof *c.data);
        int64_t n;
        unlabelled->labels = NULL;
        c.data = unlabelled;
        const float *before = weights_of(a, c.graph, &n);
        assert_int_equal(pass_run(&c, pass_find("train"), "lr=0.01;freeze-bn=1;qat=0"), 0);
        assert_memory_equal(before, weights_of(a, c.graph, &n), (size_t)n * sizeof(float));
        assert_non_null(strstr(said, "training did not come closer to the original on 32 held-out "
                                     "samples: its result was not taken"));
        const TrainRecord *r = &c.report.passes[0].train;
        assert_int_equal(r->samples, 32);
        assert_int_equal(r->kept, 0);
        assert_true(r->before == 0 && r->after == 0);
        arena_free(a);
    }
}

/* A network that is sure of itself learns modesty from labels that mean nothing, then learns those
 * it sees by heart: a state on the way is the best, and is the one in the graph. */
static void the_best_state_on_the_way_is_kept(void **state)
{
    (void)state;
    Arena *a = arena_new();
    char said[1024] = "";
    Diag d = {.sink = collect_remarks, .ctx = said};
    Context c = small_context(a, &d, false);
    int32_t *label = (int32_t *)(uintptr_t)c.data->labels;
    Rng r = rng_new(9, 9);
    for (int64_t i = 0; i < NET_SAMPLES; i++) label[i] = (int32_t)rng_below(&r, NET_CLASSES);
    c.opt.steps = 400;
    assert_int_equal(pass_run(&c, pass_find("train"), "lr=0.05;distill=0;hints=0;qat=0;augment=0"),
                     0);
    const TrainRecord *t = &c.report.passes[0].train;
    assert_true(t->kept > 0 && t->kept < t->steps);
    assert_true(t->after < t->before);
    assert_non_null(strstr(said, "that state was taken"));
    arena_free(a);
}

/* Of few samples none can be spared: training is judged by those it sees. */
static void few_samples_judge_themselves(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    Context c = small_context(a, &d, false);
    Samples few = *c.data;
    few.count = 5;
    c.data = &few;
    c.opt.batch = 16;
    double before = loss_of(&c);
    assert_int_equal(pass_run(&c, pass_find("train"), "lr=0.01;distill=0;hints=0;qat=0;augment=0"),
                     0);
    assert_int_equal(c.report.passes[0].train.samples, 5);
    assert_true(c.report.passes[0].train.after < c.report.passes[0].train.before);
    assert_true(loss_of(&c) < before);
    arena_free(a);
}

static void simulated_integers_train(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    Context c = small_context(a, &d, false);
    assert_int_equal(pass_fake_quant(&c, ""), 0);
    double before = loss_of(&c);
    assert_int_equal(pass_train(&c, "optimizer=sgd;lr=0.02;distill=0;qat=1;augment=0"), 0);
    assert_true(loss_of(&c) < before);
    /* The scales in the graph are those of the weights in the graph. */
    for (int i = 0; i < c.graph->nnodes; i++) {
        const Node *q = c.graph->nodes[i];
        if (q->op != OP_FakeQuant || !value_is_const(q->in[0]) || node_int(q, "axis", -1) != 0)
            continue;
        const float *w = q->in[0]->data, *s = q->in[1]->data;
        int64_t inner = type_count(&q->in[0]->type) / q->in[0]->type.dim[0];
        float most = 0;
        for (int64_t k = 0; k < inner; k++) most = fmaxf(most, fabsf(w[k]));
        assert_float_equal(s[0] * 63, most, 1e-5);
    }
    arena_free(a);
}

/* ---- ranges that follow the data ---------------------------------------------------- */

static const GridKind U8 = {0, 255, false, 0};

/* The k-th FakeQuant of an activation. */
static const Node *activation_grid(const Graph *g, int k)
{
    for (int i = 0; i < g->nnodes; i++)
        if (g->nodes[i]->op == OP_FakeQuant && !value_is_const(g->nodes[i]->in[0]) && k-- == 0)
            return g->nodes[i];
    fail_msg("too few FakeQuant nodes");
    return NULL;
}

static Grid grid_at(const Node *q)
{
    return (Grid){*(const float *)q->in[1]->data, *(const float *)q->in[2]->data};
}

static Range range_at(const Node *q)
{
    Grid g = grid_at(q);
    return (Range){g.scale * ((float)node_int(q, "qmin", 0) - g.zero),
                   g.scale * ((float)node_int(q, "qmax", 0) - g.zero)};
}

static Range extremes_of_samples(const Samples *s)
{
    const float *x = s->inputs[0].data;
    Range r = {0, 0};
    for (int64_t i = 0; i < s->count * type_count(&s->inputs[0].type); i++) {
        r.lo = fminf(r.lo, x[i]);
        r.hi = fmaxf(r.hi, x[i]);
    }
    return r;
}

/* A grid is followed at what it was placed for; values moved on it are not looked at again. */
static void moved_values_are_not_observed(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    Context c = small_context(a, &d, false);
    TrainGraph t;
    TrainSetup setup = {.batch = 16, .shard = 16, .ranges = RANGES_MOVING_AVERAGE};
    assert_int_equal(pass_fake_quant(&c, ""), 0);
    assert_int_equal(train_graph_build(&t, &c, a, &setup), 0);
    assert_int_equal(t.nranges, 5);   /* x, relu, conv, relu of the sum, mean */
    assert_int_equal(t.nextremes, 5); /* not: mean, flattened */
    for (int k = 0; k < t.nextremes; k++) assert_int_equal(t.extremes[k].range, k);
    arena_free(a);
}

/* A step on all samples: the input's range moves a hundredth of the way to their extremes. */
static void a_range_moves_towards_the_batch(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    Context c = small_context(a, &d, false);
    c.opt.batch = NET_SAMPLES;
    c.opt.ranges = "moving-average";
    c.opt.steps = 1;
    assert_int_equal(pass_fake_quant(&c, ""), 0);
    const Node *q = activation_grid(c.graph, 0);
    Range old = range_at(q), batch = extremes_of_samples(c.data);
    assert_int_equal(pass_train(&c, "augment=0;held-out=0"), 0);
    Range r = {0.99f * old.lo + 0.01f * batch.lo, 0.99f * old.hi + 0.01f * batch.hi};
    Grid want = grid_of_range(r, U8), got = grid_at(q);
    assert_float_equal(got.scale, want.scale, 1e-6f * want.scale);
    assert_true(got.zero == want.zero);
    assert_true(range_at(q).hi > old.hi); /* the calibrated one clips */
    arena_free(a);
}

/* Where samples become three times as large after calibration, grids come to cover them. */
static void ranges_follow_the_data(void **state)
{
    (void)state;
    static const char *const targets[] = {"ort", "openvino", "tensorrt"};
    for (int k = 0; k < 3; k++) {
        Arena *a = arena_new();
        Diag d = {.sink = count_warnings};
        Context c = small_context(a, &d, false);
        c.opt.target = targets[k];
        c.opt.steps = 15;
        assert_int_equal(pass_fake_quant(&c, ""), 0);
        const Node *q = activation_grid(c.graph, 0);
        Range before = range_at(q);
        float *x = (float *)(uintptr_t)c.data->inputs[0].data;
        for (int64_t i = 0; i < NET_SAMPLES * 2 * NET_SIZE * NET_SIZE; i++) x[i] *= 3;
        assert_int_equal(pass_train(&c, "ranges=fixed;steps=1;augment=0;held-out=0"), 0);
        assert_true(range_at(q).hi == before.hi);
        assert_int_equal(
            pass_train(&c, "ranges=moving-average;range-momentum=0.7;lr=1e-5;augment=0;held-out=0"),
            0);
        Range after = range_at(q);
        assert_true(after.hi > 2.5f * before.hi && after.hi < 5 * before.hi);
        assert_true((grid_at(q).zero == 0) == (before.lo == 0 || k == 2));
        assert_int_equal(pass_train(&c, "ranges=wide"), -1);
        arena_free(a);
    }
}

/* A grid behind a Clip stays inside it, wherever the lower end goes, and says so on its node. */
static void a_moving_range_stays_inside_its_clip(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    Context c = small_context(a, &d, false);
    Graph *g = c.graph = graph_new(a, "clips");
    Value *x = graph_add_input(
        g, "x", type_of(DT_F32, 4, DIMS(graph_symbol(g, "N"), 2, NET_SIZE, NET_SIZE)));
    Value *h =
        build(g, OP_Clip,
              IN(net_conv(g, x, "a", 2, 4, false), const_f32(g, -1), const_f32(g, 0.5f)), NO_ATTRS);
    graph_add_output(g, net_conv(g, h, "b", 4, 4, false));
    c.original = graph_clone(g, a, NULL);
    c.opt.steps = 10;
    assert_int_equal(pass_fake_quant(&c, ""), 0);
    const Node *q = activation_grid(g, 1);
    float *scale = arena_memdup(a, q->in[1]->data, sizeof *scale), zero = 20;
    q->in[1]->data = scale; /* as if hardly anything had been below zero */
    q->in[2]->data = &zero;
    *scale = 0.5f / 235;
    node_set_attr(g, (Node *)(uintptr_t)q, attr_float("scale_max", *scale));
    assert_int_equal(pass_train(&c, "ranges=moving-average;range-momentum=0.5;augment=0"), 0);
    assert_true(grid_at(q).zero > 100);
    assert_true(range_at(q).hi <= 0.5f);
    assert_true(range_at(q).hi > 0.499f);
    assert_float_equal(node_float(q, "scale_max", 0), grid_at(q).scale, 1e-6);
    arena_free(a);
}

/* ---- stopped and continued ---------------------------------------------------------- */

static void stop_at_half(void *ctx, const char *pass, double fraction, const char *text)
{
    (void)ctx, (void)pass, (void)text;
    if (fraction > 0.5) trap(TRAP_INTERNAL, "killed");
}

/* Trains with the state left in dir; `quantized`: ranges on their way are part of it; `stop`: dies
 * half way. */
static float *train_in_folder(Arena *a, Diag *d, const char *dir, bool quantized, bool stop,
                              int64_t *n)
{
    Context c = small_context(a, d, true);
    Trap t;
    c.opt.steps = 20;
    c.opt.ranges = "moving-average";
    if (quantized) assert_int_equal(pass_fake_quant(&c, ""), 0);
    c.checkpoint = dir;
    c.checkpoint_key = 7;
    if (stop) c.progress = stop_at_half;
    if (trap_enter(&t)) return NULL;
    int status = pass_run(&c, pass_find("train"), "state=5");
    trap_leave(&t);
    assert_int_equal(status, 0);
    return weights_of(a, c.graph, n);
}

static void remove_state(const char *dir)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

/* What the folder holds is the trained graph, for this run and no other. */
static void check_state(Arena *a, Diag *d, const char *dir, const float *want, int64_t n)
{
    int done;
    int64_t m;
    char path[64];
    Context c = small_context(a, d, true);
    assert_int_equal(checkpoint_load(&c, dir, 8, &done), -1);
    assert_int_equal(checkpoint_load(&c, dir, 7, &done), 0);
    assert_int_equal(done, 1);
    const float *got = weights_of(a, c.graph, &m);
    assert_int_equal(n, m);
    assert_memory_equal(want, got, (size_t)n * sizeof(float));
    snprintf(path, sizeof path, "%s/state", dir);
    truncate(path, 100);
    assert_int_equal(checkpoint_load(&c, dir, 7, &done), -1);
    c.report.npasses = 0; /* more is said to be done than was recorded */
    assert_int_equal(checkpoint_save(&c, dir, 7, 1, d), 0);
    assert_int_equal(checkpoint_load(&c, dir, 7, &done), -1);
}

static void a_stopped_run_goes_on(void **state)
{
    (void)state;
    for (int quantized = 0; quantized < 2; quantized++) {
        Arena *a = arena_new();
        Diag d = {.sink = count_warnings};
        int64_t n, m;
        char whole[] = "/tmp/ehapc-test-XXXXXX", parts[] = "/tmp/ehapc-test-XXXXXX";
        assert_non_null(mkdtemp(whole));
        assert_non_null(mkdtemp(parts));
        const float *want = train_in_folder(a, &d, whole, quantized, false, &n);
        assert_null(train_in_folder(a, &d, parts, quantized, true, &m));
        const float *got = train_in_folder(a, &d, parts, quantized, false, &m);
        assert_int_equal(n, m);
        assert_memory_equal(want, got, (size_t)n * sizeof(float));
        check_state(a, &d, parts, want, n);
        remove_state(whole);
        remove_state(parts);
        arena_free(a);
    }
}

static void options_are_bounded(void **state)
{
    (void)state;
    static const char *const bad[] = {"steps=-1", "distill=2", "optimizer=adam", "lr=fast"};
    Arena *a = arena_new();
    Diag d = {.sink = count_warnings};
    Context c = small_context(a, &d, false);
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++)
        assert_int_equal(pass_train(&c, bad[k]), -1);
    arena_free(a);
}

/* A batch that was typed is no more than there are samples, or the usual one. */
static void batch_is_clamped(void **state)
{
    static const struct {
        int64_t batch, count, want;
    } cases[] = {{100000, 64, 128}, {100000, 300, 304}, {256, 300, 256}, {96, 64, 96}};
    (void)state;
    Arena *a = arena_new();
    Diag d = {0};
    Context c = small_context(a, &d, true);
    Samples few = *c.data;
    c.data = &few;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        TrainRecipe r;
        few.count = cases[k].count;
        c.opt.batch = (int)cases[k].batch;
        assert_int_equal(train_recipe(&r, &c, ""), 0);
        assert_int_equal(r.setup.batch, cases[k].want);
    }
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(training_lowers_the_loss),
        cmocka_unit_test(the_original_teaches),
        cmocka_unit_test(threads_do_not_change_a_byte),
        cmocka_unit_test(divergence_is_rolled_back),
        cmocka_unit_test(outputs_of_any_scale_are_learned),
        cmocka_unit_test(integer_outputs_are_ignored_aloud),
        cmocka_unit_test(simulated_integers_train),
        cmocka_unit_test(training_that_cannot_help_is_taken_back),
        cmocka_unit_test(the_best_state_on_the_way_is_kept),
        cmocka_unit_test(few_samples_judge_themselves),
        cmocka_unit_test(moved_values_are_not_observed),
        cmocka_unit_test(a_range_moves_towards_the_batch),
        cmocka_unit_test(ranges_follow_the_data),
        cmocka_unit_test(a_moving_range_stays_inside_its_clip),
        cmocka_unit_test(a_stopped_run_goes_on),
        cmocka_unit_test(options_are_bounded),
        cmocka_unit_test(batch_is_clamped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
