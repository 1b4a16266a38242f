/* Refitting: exact where another channel holds the same, better everywhere, the same bytes for any
 * number of threads, whatever is kept between steps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "passes/prune/least_squares.h"
#include "passes/score/scores.h"
#include "tests/unit/wide_net.h"

static void solves_what_it_should(void **state)
{
    Arena *a = arena_new();
    enum { N = 400, COLUMNS = 21, TARGETS = 2 };
    LeastSquares q = least_squares_new(a, COLUMNS, TARGETS, false);
    float *rows = NEW_ARRAY(a, float, N *q.width + 64);
    float *part = NEW_ARRAY(a, float, q.width *COLUMNS);
    double *w = NEW_ARRAY(a, double, TARGETS *COLUMNS), mean[TARGETS], variance[TARGETS];
    Rng r = rng_new(5, 0);
    double sum = 0, square = 0;
    (void)state;
    for (int i = 0; i < N; i++) {
        float *row = rows + i * q.width;
        for (int k = 0; k < COLUMNS - 1; k++) row[k] = rng_normal(&r) + 0.5F;
        row[COLUMNS - 1] = 1;
        row[COLUMNS] = 3 * row[0] - 2 * row[19] + 7;
        row[COLUMNS + 1] = row[4] - 1;
        double y = 3 * (double)row[0] - 2 * (double)row[19];
        sum += y;
        square += y * y;
    }
    least_squares_part(&q, rows, N, part);
    least_squares_add(&q, part, N, false);
    assert_true(least_squares_solve(&q, 1e-9, true, w, mean, variance));
    for (int k = 0; k < COLUMNS; k++) {
        double want0 = k == 0 ? 3 : k == 19 ? -2 : k == 20 ? 7 : 0;
        double want1 = k == 4 ? 1 : k == 20 ? -1 : 0;
        assert_true(fabs(w[k] - want0) < 1e-3 && fabs(w[COLUMNS + k] - want1) < 1e-3);
    }
    assert_true(fabs(mean[0] - sum / N) < 1e-3);
    assert_true(fabs(variance[0] - (square / N - sum / N * sum / N)) < 1e-2);
    arena_free(a);
}

/* 60 rows of 40 columns, a fifth of them held out; targets that follow x where `follow`, else
 * noise. */
static double chosen_ridge(Arena *a, bool follow, float noise)
{
    enum { N = 60, COLUMNS = 41 };
    LeastSquares q = least_squares_new(a, COLUMNS, 1, true);
    Rng r = rng_new(6, 0);
    double *w0 = NEW_ARRAY(a, double, COLUMNS);
    for (int part = 0; part < 5; part++) {
        float *rows = NEW_ARRAY(a, float, N / 5 * q.width + 64);
        float *sums = NEW_ARRAY(a, float, q.width *COLUMNS);
        for (int i = 0; i < N / 5; i++) {
            float *row = rows + i * q.width;
            for (int k = 0; k < COLUMNS - 1; k++) row[k] = rng_normal(&r);
            row[COLUMNS - 1] = 1;
            row[COLUMNS] = (follow ? row[0] + row[7] : 0) + noise * rng_normal(&r);
        }
        least_squares_part(&q, rows, N / 5, sums);
        least_squares_add(&q, sums, N / 5, part == 4);
    }
    assert_true(q.rows == N && q.held_rows == N / 5);
    const double ridge = least_squares_choose(&q, true, w0);
    assert_true(w0[0] == 0);
    assert_true(least_squares_solve(&q, 1e-3, true, w0, NULL, NULL)); /* all rows are there still */
    assert_true(!follow || noise > 0.5F || fabs(w0[0] - 1) < 0.05);
    return ridge;
}

static void held_out_rows_decide_how_much_is_fitted(void **state)
{
    (void)state;
    Arena *a = arena_new();
    const double exact = chosen_ridge(a, true, 0.01F), noisy = chosen_ridge(a, true, 3),
                 none = chosen_ridge(a, false, 1);
    if (!(exact <= 1e-3 && noisy > 10 * exact && none > 1))
        fail_msg("ridges %g, %g, %g", exact, noisy, none);
    arena_free(a);
}

static void keep_quiet(void *ctx, Severity sev, const char *text)
{
    (void)ctx, (void)sev, (void)text;
}

/* Relative squared error of the outputs against the original's. */
static double output_error(const Context *c)
{
    int64_t n = 0;
    const float *y = small_run(c->arena, c->graph, c->data, &n),
                *want = small_run(c->arena, c->original, c->data, &n);
    double error = 0, whole = 0;
    for (int64_t i = 0; i < n; i++) {
        error += (double)((y[i] - want[i]) * (y[i] - want[i]));
        whole += (double)(want[i] * want[i]);
    }
    return error / whole;
}

static const float *weight_named(const Graph *g, const char *name)
{
    for (int i = 0; i < g->nnodes; i++)
        for (int k = 0; k < g->nodes[i]->nin; k++)
            if (strcmp(g->nodes[i]->in[k]->name, name) == 0) return g->nodes[i]->in[k]->data;
    return NULL;
}

/* Makes channel 2k + 1 of layer b (its filter and bias) equal to channel 2k, in both graphs. */
static void duplicate_channels(Context *c)
{
    float *w = (float *)(uintptr_t)weight_named(c->graph, "b_w");
    float *b = (float *)(uintptr_t)weight_named(c->graph, "b_b");
    for (int64_t k = 0; k < 32; k += 2) {
        memcpy(w + (k + 1) * 144, w + k * 144, 144 * sizeof *w);
        b[k + 1] = b[k];
    }
}

/* Scores by hand: the second of each pair in layer b goes first, then nothing else. */
static void score_by_hand(Context *c)
{
    assert_int_equal(pass_sensitivity(c, "criterion=random"), 0);
    for (int l = 0; l < c->scores->nlayers; l++)
        for (int i = 0; i < c->scores->layers[l].n; i++)
            c->scores->layers[l].score[i] = l == 1 && i % 2 ? 0 : 1;
    c->opt.exclude = "a,c,d";
}

static void duplicates_are_made_up_for_exactly(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = {.sink = keep_quiet};
    Context c = wide_context(a, &d, false);
    duplicate_channels(&c);
    score_by_hand(&c);
    assert_int_equal(pass_allocate(&c, "flops=0.65;align=16"), 0);
    assert_int_equal(c.report.layers[1].after, 16);
    assert_int_equal(pass_remove_channels(&c, ""), 0);
    double before = output_error(&c);
    assert_int_equal(pass_reconstruct(&c, "samples=128"), 0);
    double after = output_error(&c);
    if (!(before > 1e-2 && after < 1e-6)) fail_msg("error %g, refitted %g", before, after);
    arena_free(a);
}

/* Prunes by half and refits; errors before and after. */
static Context refitted(Arena *a, Diag *d, bool norm, int threads, size_t memory, double *before,
                        double *after, const char *options)
{
    Context c = wide_context(a, d, norm);
    c.opt.threads = threads;
    c.opt.memory = memory;
    assert_int_equal(pass_sensitivity(&c, "criterion=random"), 0);
    assert_int_equal(pass_allocate(&c, "flops=0.5;align=1"), 0);
    assert_int_equal(pass_remove_channels(&c, ""), 0);
    *before = output_error(&c);
    assert_int_equal(pass_reconstruct(&c, options), 0);
    *after = output_error(&c);
    return c;
}

/* Layers of more than 40 inputs share unknowns among the taps of a channel: less is made up for. */
static void wide_layers_are_refitted_by_groups(void **state)
{
    (void)state;
    for (int norm = 0; norm < 2; norm++) {
        Arena *a = arena_new();
        Diag d = {.sink = keep_quiet};
        double before, all, after;
        refitted(a, &d, norm, 1, 0, &before, &all, "samples=256");
        Context c = refitted(a, &d, norm, 1, 0, &before, &after, "samples=256;columns=40");
        if (!(after < 0.4 * before && after > all))
            fail_msg("norm %d: error %g, all %g, by groups %g", norm, before, all, after);
        assert_int_equal(graph_verify(c.graph, &d), 0);
        arena_free(a);
    }
}

/* Three samples say a lot, of all their places together. */
static void few_samples_do_no_harm(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = {.sink = keep_quiet};
    double before, after;
    refitted(a, &d, false, 1, 0, &before, &after, "samples=3");
    if (!(after < 0.05 * before)) fail_msg("error %g, then %g", before, after);
    arena_free(a);
}

static void outputs_come_closer(void **state)
{
    (void)state;
    for (int norm = 0; norm < 2; norm++) {
        Arena *a = arena_new();
        Diag d = {.sink = keep_quiet};
        double before, after;
        Context c = refitted(a, &d, norm, 1, 0, &before, &after, "samples=256");
        if (!(after < 0.2 * before)) fail_msg("norm %d: error %g, then %g", norm, before, after);
        assert_int_equal(graph_verify(c.graph, &d), 0);
        arena_free(a);
    }
}

/* A BatchNormalization over another axis than the product's outputs is none of its own. */
static void norms_of_other_axes_stay(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = {.sink = keep_quiet};
    Context c = wide_context(a, &d, false);
    Graph *g = c.graph = graph_new(a, "rows");
    Value *x = graph_add_input(
        g, "x", type_of(DT_F32, 4, DIMS(graph_symbol(g, "N"), 2, NET_SIZE, NET_SIZE)));
    x = build(g, OP_MatMul, IN(x, net_const(g, "a_w", 1, 2, DIMS(NET_SIZE, 32))), NO_ATTRS);
    x = build(g, OP_MatMul, IN(wide_relu(g, x), net_const(g, "b_w", 1, 2, DIMS(32, 64))), NO_ATTRS);
    graph_add_output(g, net_norm(g, x, 2));
    c.original = graph_clone(g, a, NULL);
    assert_int_equal(pass_sensitivity(&c, "criterion=random"), 0);
    assert_int_equal(pass_allocate(&c, "channels=0.5;align=1"), 0);
    assert_int_equal(pass_remove_channels(&c, ""), 0);
    const double before = output_error(&c);
    assert_int_equal(pass_reconstruct(&c, "samples=64"), 0);
    const double after = output_error(&c);
    if (!(after < 0.6 * before)) fail_msg("error %g, then %g", before, after);
    arena_free(a);
}

/* The same for any number of threads; memory cuts other shards, to the same up to rounding. */
static void threads_change_nothing(void **state)
{
    (void)state;
    static const size_t memory[] = {0, 400000};
    Arena *a = arena_new();
    Diag d = {.sink = keep_quiet};
    double before, after[2], first = 0;
    for (int m = 0; m < 2; m++) {
        Context one = refitted(a, &d, false, 1, memory[m], &before, &after[0], "samples=256");
        Context other = refitted(a, &d, false, 3, memory[m], &before, &after[1], "samples=256");
        const float *x = weight_named(one.graph, "d_w"), *y = weight_named(other.graph, "d_w");
        ScoredLayer *l;
        scored_layers(one.graph, a, &l);
        assert_memory_equal(x, y, (size_t)type_bytes(&l[3].weight->type));
        if (m == 0) first = after[0];
        assert_true(after[0] < 1.2 * first + 1e-9);
    }
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(solves_what_it_should),
        cmocka_unit_test(held_out_rows_decide_how_much_is_fitted),
        cmocka_unit_test(duplicates_are_made_up_for_exactly),
        cmocka_unit_test(few_samples_do_no_harm),
        cmocka_unit_test(outputs_come_closer),
        cmocka_unit_test(wide_layers_are_refitted_by_groups),
        cmocka_unit_test(norms_of_other_axes_stay),
        cmocka_unit_test(threads_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
