/* Grids, and the histograms that choose their ranges. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "passes/quant/calibrate.h"

static const GridKind U8 = {0, 255, false, 0}, I8 = {-128, 127, true, 0};

static void zero_is_on_the_grid(void **state)
{
    (void)state;
    Grid g = grid_of_range((Range){0, 2.55f}, U8);
    assert_float_equal(g.scale, 0.01f, 1e-6);
    assert_true(g.zero == 0);
    g = grid_of_range((Range){-1, 3}, U8);
    assert_true(g.zero == rintf(g.zero));
    assert_true((0 - g.zero) * g.scale <= -1 + 1e-4f);
    assert_true((255 - g.zero) * g.scale >= 3 - 1e-4f);
    g = grid_of_range((Range){0, 0}, U8);
    assert_true(g.scale > 0);
}

/* A network of random weights has values of 1e-10 in its depths, which count as those of 1 do. */
static void small_ranges_are_ranges(void **state)
{
    (void)state;
    const GridKind u8 = {0, 255, false, 0};
    const Grid g = grid_of_range((Range){0, 2.55e-10f}, u8);
    assert_true(g.zero == 0 && g.scale > 0.99e-12f && g.scale < 1.01e-12f);
}

static void symmetric_grids_have_no_zero_point(void **state)
{
    (void)state;
    Grid g = grid_of_range((Range){0, 1.27f}, I8);
    assert_float_equal(g.scale, 0.01f, 1e-7);
    assert_true(g.zero == 0);
    g = grid_of_range((Range){-1.28f, 1}, I8);
    assert_float_equal(g.scale, 0.01f, 1e-7);
    g = grid_of_range((Range){0, 1e-9f}, (GridKind){0, 255, false, 1e-4f / 255});
    assert_true(g.scale == 1e-4f / 255);
}

static void grids_stay_below_a_top(void **state)
{
    (void)state;
    float most;
    Grid g = grid_below((Range){-1, 3}, U8, 2, &most);
    Grid wide = grid_of_range((Range){-1, 3}, U8);
    assert_true(g.zero == wide.zero);
    assert_true(g.scale == most);
    assert_float_equal((255 - g.zero) * g.scale, 2, 1e-6);
    g = grid_below((Range){-1, 1}, U8, 2, &most);
    assert_true(g.scale < most);
    g = grid_below((Range){-1, 3}, U8, 0, &most);
    assert_true(g.scale == wide.scale && most == 0);
}

static void weights_get_a_scale_per_slice(void **state)
{
    (void)state;
    const float w[] = {1, -2, 0.5f, 63, 0, 0};
    float scale[3];
    Type t = type_of(DT_F32, 2, (int64_t[]){3, 2});
    grid_weight_scales(scale, w, &t, 0, 63);
    assert_float_equal(scale[0], 2.0f / 63, 1e-7);
    assert_float_equal(scale[1], 1, 1e-7);
    assert_float_equal(scale[2], 1e-4f, 1e-9); /* a dead slice */
    t = type_of(DT_F32, 2, (int64_t[]){2, 3});
    grid_weight_scales(scale, w, &t, 1, 63);
    assert_float_equal(scale[0], 1, 1e-7); /* columns: 1 63, -2 0, .5 0 */
    assert_float_equal(scale[1], 2.0f / 63, 1e-7);
    assert_float_equal(scale[2], 0.5f / 63, 1e-7);
}

/* The counts do not depend on the order in which small and large values come. */
static void histograms_commute(void **state)
{
    (void)state;
    static Histogram a, b;
    float small[64], large[64];
    for (int i = 0; i < 64; i++) {
        small[i] = (float)(i - 20) * 0.001f;
        large[i] = (float)(i - 40) * 7.0f;
    }
    histogram_add(&a, small, 64);
    histogram_add(&a, large, 64);
    histogram_add(&b, large, 64);
    histogram_add(&b, small, 64);
    assert_memory_equal(&a, &b, sizeof a);
}

static void outliers_are_clipped(void **state)
{
    (void)state;
    static Histogram h;
    static float x[20001];
    for (int i = 0; i < 20000; i++) x[i] = (float)i / 20000;
    x[20000] = 8;
    assert_int_equal(histogram_add(&h, x, 20001), 0);
    Range r = histogram_range(&h, CALIBRATE_MSE, (GridKind){0, 15, false, 0});
    assert_true(r.lo == 0);
    assert_true(r.hi > 0.7f && r.hi < 4);
    /* so fine that nothing is worth losing */
    r = histogram_range(&h, CALIBRATE_MSE, (GridKind){0, 100000, false, 0});
    assert_true(r.hi > 7.9f);
}

/* One value in 20001 is far out. It is a quarter of the grid away from the rest, which is more than
 * eight bits round off: by squares it stays; as a distribution, and as a share, it does not count.
 */
static void every_method_has_a_range(void **state)
{
    (void)state;
    static Histogram h;
    static float x[20001];
    Rng r = rng_new(3, 0);
    for (int i = 0; i < 20000; i++) x[i] = rng_normal(&r);
    x[20000] = 40;
    histogram_add(&h, x, 20001);
    Range all = histogram_range(&h, CALIBRATE_MIN_MAX, U8);
    assert_true(all.hi == 40 && all.lo < -3.3f);
    Calibrator by[] = {CALIBRATE_MSE, CALIBRATE_ENTROPY, CALIBRATE_PERCENTILE};
    for (int k = 0; k < 3; k++) {
        Range u = histogram_range(&h, by[k], U8), s = histogram_range(&h, by[k], I8);
        float most = by[k] == CALIBRATE_MSE ? 40 : 20;
        assert_true(u.hi > 2 && u.hi <= most);
        assert_true(u.lo < -2 && u.lo >= all.lo);
        assert_true(s.hi > 2 && s.hi <= most);
    }
    Range s = histogram_range(&h, CALIBRATE_MSE, I8);
    assert_true(s.lo == -s.hi);
    assert_int_equal(calibrator_find("entropy"), CALIBRATE_ENTROPY);
    assert_int_equal(calibrator_find("guess"), CALIBRATORS);
    assert_int_equal(calibrator_find(NULL), CALIBRATE_MSE);
}

static void what_is_not_finite_is_skipped(void **state)
{
    (void)state;
    static Histogram h;
    const float x[] = {NAN, 1, INFINITY, -1};
    assert_int_equal(histogram_add(&h, x, 4), 2);
    assert_true(h.lo == -1 && h.hi == 1);
}

/* Values whose bins would be narrower than the least float are in bins all the same. */
static void the_smallest_values_are_counted(void **state)
{
    (void)state;
    static Histogram h;
    const float x[] = {1e-38f, -1e-44f, 0, INFINITY};
    assert_int_equal(histogram_add(&h, x, 4), 1);
    uint64_t counted = 0;
    for (int k = 0; k < HISTOGRAM_BINS; k++) counted += h.bin[k];
    assert_int_equal(counted, 3);
    assert_true(h.lo == -1e-44f && h.hi == 1e-38f);
    assert_true(histogram_range(&h, CALIBRATE_MSE, U8).hi <= 1e-38f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zero_is_on_the_grid),
        cmocka_unit_test(small_ranges_are_ranges),
        cmocka_unit_test(symmetric_grids_have_no_zero_point),
        cmocka_unit_test(every_method_has_a_range),
        cmocka_unit_test(grids_stay_below_a_top),
        cmocka_unit_test(weights_get_a_scale_per_slice),
        cmocka_unit_test(histograms_commute),
        cmocka_unit_test(outliers_are_clipped),
        cmocka_unit_test(what_is_not_finite_is_skipped),
        cmocka_unit_test(the_smallest_values_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
