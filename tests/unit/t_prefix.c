/* What prefix.c delivers does not depend on what it could keep: exactly while that is in float,
 * closely once it is in bfloat16; and what it keeps stays within the limit. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "passes/prune/prefix.h"
#include "tests/unit/wide_net.h"

enum { N = 64, STEPS = 4 };

typedef struct Sums {
    double of[STEPS][SIDES];
    int step;
    size_t most_kept;
    bool in_half;
} Sums;

static void plan(void *ctx, const PrefixStep *step, ShardGraph *made)
{
    (void)ctx, (void)step;
    made->result_bytes = SIDES * sizeof(float);
}

static void begin(void *ctx, const PrefixStep *step) { (void)ctx, (void)step; }

/* The sum of squares of both values. */
static int take(void *ctx, int64_t shard, const PrefixStep *step, Instance *inst)
{
    (void)ctx, (void)shard;
    float *result = instance_result(inst);
    for (int k = 0; k < SIDES; k++) {
        int64_t n = type_count(&step->g->outputs[k]->type);
        float *y = malloc((size_t)n * sizeof *y);
        instance_read(inst, k, y);
        result[k] = 0;
        for (int64_t i = 0; i < n; i++) result[k] += y[i] * y[i];
        free(y);
    }
    return 0;
}

static int reduce(void *ctx, int64_t shard, const PrefixStep *step, Instance *inst)
{
    Sums *s = ctx;
    (void)shard, (void)step;
    for (int k = 0; k < SIDES; k++)
        s->of[s->step][k] += (double)((const float *)instance_result(inst))[k];
    return 0;
}

static int refuse(void *ctx, int64_t shard, const PrefixStep *step, Instance *inst)
{
    (void)ctx, (void)shard, (void)step, (void)inst;
    return -1;
}

/* What a node called `name` makes, in both networks. */
static void outputs_of(Value **v, const Context *c, const char *name)
{
    for (int i = 0; i < c->graph->nnodes; i++)
        if (c->graph->nodes[i]->name && strcmp(c->graph->nodes[i]->name, name) == 0) {
            v[0] = c->graph->nodes[i]->out[0];
            v[1] = c->original->nodes[i]->out[0];
        }
}

/* Outputs of a, b, c, d one after the other, of a network and of another. */
static Sums sums_within(size_t limit)
{
    static const PrefixCalls calls = {plan, begin, take, reduce};
    static const char *const names[STEPS] = {"a", "b", "c", "d"};
    Arena *a = arena_new();
    Diag d = {0};
    Context c = wide_context(a, &d, false);
    Options opt = c.opt;
    Sums s = {.step = 0};
    size_t peak = 0;
    opt.threads = 2;
    Prefix *p = prefix_new(a, c.graph, c.original, c.data, N, &opt, limit, &d);
    for (s.step = 0; s.step < STEPS; s.step++) {
        Value *v[SIDES];
        outputs_of(v, &c, names[s.step]);
        assert_int_equal(prefix_run(p, SIDES, v, (const int[]){0, 1}, &calls, &s, &peak), 0);
        size_t kept = 0;
        for (const Kept *k = p->kept; k; k = k->next) {
            s.in_half |= k->type.dtype == DT_BF16;
            if (!k->inherited)
                kept += (size_t)((N + p->shard - 1) / p->shard) * (size_t)type_bytes(&k->type);
        }
        assert_true(kept <= limit);
        if (kept > s.most_kept) s.most_kept = kept;
    }
    prefix_free(p);
    arena_free(a);
    return s;
}

static void the_limit_does_not_show(void **state)
{
    (void)state;
    Sums none = sums_within(0), all = sums_within((size_t)1 << 30);
    assert_true(none.most_kept == 0 && !all.in_half);
    assert_memory_equal(none.of, all.of, sizeof all.of);
    Sums some = sums_within(all.most_kept / 2);
    assert_true(some.most_kept > 0 && some.in_half);
    for (int i = 0; i < STEPS; i++)
        for (int k = 0; k < SIDES; k++) {
            assert_true(all.of[i][k] > 0);
            assert_true(fabs(some.of[i][k] / all.of[i][k] - 1) < 2e-3);
        }
}

/* A step that fails leaves nothing behind (the leak sanitizer looks). */
static void errors_leave_nothing(void **state)
{
    static const PrefixCalls calls = {plan, begin, take, reduce},
                             failing = {plan, begin, refuse, reduce};
    Arena *a = arena_new();
    Diag d = {0};
    Context c = wide_context(a, &d, false);
    Sums s = {.step = 0};
    size_t peak = 0;
    Value *v[SIDES];
    (void)state;
    Prefix *p = prefix_new(a, c.graph, c.original, c.data, N, &c.opt, (size_t)1 << 30, &d);
    outputs_of(v, &c, "a");
    assert_int_equal(prefix_run(p, SIDES, v, (const int[]){0, 1}, &calls, &s, &peak), 0);
    assert_non_null(p->kept);
    outputs_of(v, &c, "d");
    assert_int_equal(prefix_run(p, SIDES, v, (const int[]){0, 1}, &failing, &s, &peak), -1);
    prefix_free(p);
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_limit_does_not_show),
                                       cmocka_unit_test(errors_leave_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
