/* Optimizers, learning rates and image variations. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "passes/train/augment.h"
#include "passes/train/optimizer.h"

/* Minimizes sum_k (k + 1) (x_k - 3)^2 / 2 from 0. */
static double minimize(OptimizerKind kind, double lr, int steps, bool positive)
{
    Arena *a = arena_new();
    float x[4] = {1, 1, 1, 1}, g[4];
    Parameter p = {.data = x, .grad = g, .count = 4, .positive = positive};
    Optimizer o = optimizer_new(kind);
    optimizer_init(&p, 1, a);
    for (int s = 0; s < steps; s++) {
        for (int k = 0; k < 4; k++) g[k] = (float)(k + 1) * (x[k] - 3);
        optimizer_step(&o, &p, 1, lr, lr);
    }
    double worst = 0;
    for (int k = 0; k < 4; k++) worst = fmax(worst, fabs((double)x[k] - 3));
    arena_free(a);
    return worst;
}

static void all_rules_find_the_minimum(void **state)
{
    (void)state;
    assert_true(minimize(OPTIMIZER_SGD, 0.05, 300, false) < 1e-3);
    assert_true(minimize(OPTIMIZER_ADAMW, 0.05, 600, false) < 1e-2);
    assert_true(minimize(OPTIMIZER_SGD, 0.01, 800, true) < 0.1); /* steps of the logarithm */
}

static void bad_gradients_change_nothing(void **state)
{
    (void)state;
    Arena *a = arena_new();
    float x[2] = {1, 2}, g[2] = {NAN, 1};
    Parameter p = {.data = x, .grad = g, .count = 2};
    Optimizer o = optimizer_new(OPTIMIZER_SGD);
    optimizer_init(&p, 1, a);
    assert_false(isfinite(optimizer_step(&o, &p, 1, 0.1, 0)));
    assert_true(x[0] == 1 && x[1] == 2 && p.m[1] == 0);
    arena_free(a);
}

static void long_gradients_are_clipped(void **state)
{
    (void)state;
    Arena *a = arena_new();
    float x[2] = {0, 0}, g[2] = {300, 400};
    Parameter p = {.data = x, .grad = g, .count = 2};
    Optimizer o = optimizer_new(OPTIMIZER_SGD);
    optimizer_init(&p, 1, a);
    assert_float_equal(optimizer_step(&o, &p, 1, 0.1, 0), 500, 1e-6);
    assert_float_equal(g[0], 3, 1e-5);
    assert_float_equal(g[1], 4, 1e-5);
    arena_free(a);
}

static void the_schedule_rises_and_falls(void **state)
{
    (void)state;
    assert_float_equal(schedule_cosine(0.05, 0.1), 0.5, 1e-9);
    assert_float_equal(schedule_cosine(0.1, 0.1), 1, 1e-9);
    assert_float_equal(schedule_cosine(0.55, 0.1), 0.5, 1e-9);
    assert_float_equal(schedule_cosine(1, 0.1), 0, 1e-9);
}

static void only_images_are_varied(void **state)
{
    (void)state;
    Augment a;
    Type t = type_of(DT_U8, 3, (int64_t[]){3, 32, 32});
    assert_true(augment_for(&a, &t));
    assert_true(a.mirror && a.pad == 4 && !a.channels_last);
    t = type_of(DT_U8, 3, (int64_t[]){28, 28, 1});
    assert_true(augment_for(&a, &t));
    assert_true(!a.mirror && a.pad == 3 && a.channels_last);
    t = type_of(DT_F32, 3, (int64_t[]){16, 64, 64});
    assert_false(augment_for(&a, &t));
    t = type_of(DT_F32, 1, (int64_t[]){64});
    assert_false(augment_for(&a, &t));
}

/* A variation only moves pixels: every value stays among those of its channel, and both layouts
 * move alike. */
static void variations_move_pixels(void **state)
{
    (void)state;
    enum { C = 3, H = 16, W = 12, N = C * H * W };
    float planes[N], pixels[N], scratch[N];
    Augment a, b;
    Type first = type_of(DT_F32, 3, (int64_t[]){C, H, W});
    Type last = type_of(DT_F32, 3, (int64_t[]){H, W, C});
    assert_true(augment_for(&a, &first) && augment_for(&b, &last));
    for (uint64_t seed = 0; seed < 20; seed++) {
        Rng r = rng_new(7, seed), s = r;
        for (int c = 0; c < C; c++)
            for (int i = 0; i < H * W; i++)
                planes[c * H * W + i] = pixels[i * C + c] = (float)(c * 1000 + i);
        augment_image(&a, &r, planes, scratch);
        augment_image(&b, &s, pixels, scratch);
        for (int c = 0; c < C; c++)
            for (int i = 0; i < H * W; i++) {
                assert_true(planes[c * H * W + i] == pixels[i * C + c]);
                assert_int_equal((int)planes[c * H * W + i] / 1000, c);
            }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_rules_find_the_minimum),
        cmocka_unit_test(bad_gradients_change_nothing),
        cmocka_unit_test(long_gradients_are_clipped),
        cmocka_unit_test(the_schedule_rises_and_falls),
        cmocka_unit_test(only_images_are_varied),
        cmocka_unit_test(variations_move_pixels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
