/* Training: it learns, the same from any number of threads, and comes back from divergence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <unistd.h>

#include "passes/checkpoint.h"
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
    assert_int_equal(evaluate(&e, c->graph, NULL, c->data, &c->opt, c->diag), 0);
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
    assert_int_equal(evaluate(&before, c.graph, c.original, c.data, &c.opt, &d), 0);
    assert_int_equal(pass_train(&c, "optimizer=sgd;lr=0.05;qat=0;augment=0"), 0);
    assert_int_equal(evaluate(&after, c.graph, c.original, c.data, &c.opt, &d), 0);
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

static void keep_remark(void *ctx, Severity sev, const char *text)
{
    if (sev == SEV_REMARK) snprintf(ctx, 256, "%s", text);
}

/* An answer in integers teaches nothing, and whoever trains is told. */
static void integer_outputs_are_ignored_aloud(void **state)
{
    (void)state;
    Arena *a = arena_new();
    char remark[256] = "";
    Diag d = {.sink = keep_remark, .ctx = remark};
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
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    float *w[2];
    int64_t n[2];
    for (int k = 0; k < 2; k++) {
        Context c = small_context(a, &d, true);
        c.opt.threads = 1 + k;
        c.opt.steps = 6;
        assert_int_equal(pass_train(&c, "qat=0"), 0);
        w[k] = weights_of(a, c.graph, &n[k]);
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(w[0], w[1], (size_t)n[0] * sizeof(float));
    arena_free(a);
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

/* ---- stopped and continued ---------------------------------------------------------- */

static void stop_at_half(void *ctx, const char *pass, double fraction, const char *text)
{
    (void)ctx, (void)pass, (void)text;
    if (fraction > 0.5) trap(TRAP_INTERNAL, "killed");
}

/* Trains with the state left in dir; `stop`: dies half way. */
static float *train_in_folder(Arena *a, Diag *d, const char *dir, bool stop, int64_t *n)
{
    Context c = small_context(a, d, true);
    Trap t;
    c.opt.steps = 40;
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

static void a_stopped_run_goes_on(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = {.sink = count_warnings};
    int64_t n, m;
    char whole[] = "/tmp/ehapc-test-XXXXXX", parts[] = "/tmp/ehapc-test-XXXXXX";
    assert_non_null(mkdtemp(whole));
    assert_non_null(mkdtemp(parts));
    const float *want = train_in_folder(a, &d, whole, false, &n);
    assert_null(train_in_folder(a, &d, parts, true, &m));
    const float *got = train_in_folder(a, &d, parts, false, &m);
    assert_int_equal(n, m);
    assert_memory_equal(want, got, (size_t)n * sizeof(float));

    /* What the folder holds is the trained graph, for this run and no other. */
    int done;
    Context c = small_context(a, &d, true);
    assert_int_equal(checkpoint_load(&c, parts, 8, &done), -1);
    assert_int_equal(checkpoint_load(&c, parts, 7, &done), 0);
    assert_int_equal(done, 1);
    got = weights_of(a, c.graph, &m);
    assert_int_equal(n, m);
    assert_memory_equal(want, got, (size_t)n * sizeof(float));
    char path[64];
    snprintf(path, sizeof path, "%s/state", parts);
    truncate(path, 100);
    assert_int_equal(checkpoint_load(&c, parts, 7, &done), -1);
    remove_state(whole);
    remove_state(parts);
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
        cmocka_unit_test(a_stopped_run_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
