/* Shards: the same bytes for any number of threads, reductions in order, errors and traps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ir/ir.h"
#include "runtime/runtime.h"

enum { SHARDS = 7, CHANNELS = 8, SAMPLES = 4, IMAGE = 3 * 8 * 8, MAX_OUT = 1024 };

/* Float data from a stream of normal numbers. */
static float *numbers(Arena *a, int64_t n, uint64_t stream)
{
    float *x = NEW_ARRAY(a, float, n);
    Rng r = rng_new(5, stream);
    for (int64_t i = 0; i < n; i++) x[i] = rng_normal(&r);
    return x;
}

static Value *param(Graph *g, int rank, const int64_t *dim, uint64_t stream)
{
    const Type t = type_of(DT_F32, rank, dim);
    return value_const(g, "w", t, numbers(g->arena, type_count(&t), stream));
}

/* Per-channel sums of relu(conv(x, w)), and the gradient of w for a constant cotangent. */
static Graph *network(Arena *a)
{
    Graph *g = graph_new(a, "net");
    Value *x = graph_add_input(g, "x", type_of(DT_F32, 4, (int64_t[]){SAMPLES, 3, 8, 8}));
    Value *w = param(g, 4, (int64_t[]){CHANNELS, 3, 3, 3}, 2);
    const Attr pads = attr_ints("pads", 4, (int64_t[]){1, 1, 1, 1});
    Value *y = build(g, OP_Relu, IN(build(g, OP_Conv, IN(x, w), ATTRS(pads))), NO_ATTRS);
    graph_add_output(
        g, build(g, OP_ReduceSum, IN(y, CONST_INTS(g, 0, 2, 3)), ATTRS(attr_int("keepdims", 0))));
    graph_add_output(g, build(g, OP_ConvWgrad, IN(x, y),
                              ATTRS(pads, attr_ints("kernel_shape", 2, (int64_t[]){3, 3}))));
    return g;
}

typedef struct Sum {
    const float *data; /* SHARDS batches */
    float total[MAX_OUT];
    int64_t order[SHARDS];
    int done, fail_at, trap_at;
} Sum;

static int work(void *ctx, int64_t shard, Instance *inst)
{
    const Sum *s = ctx;
    if (shard == s->trap_at) trap(TRAP_INTERNAL, "shard %d fell into a trap", (int)shard);
    instance_bind(inst, 0, s->data + shard * SAMPLES * IMAGE);
    instance_run_all(inst);
    return shard == s->fail_at ? -7 : 0;
}

static int add(void *ctx, int64_t shard, Instance *inst)
{
    Sum *s = ctx;
    float part[MAX_OUT];
    instance_read(inst, 0, part);
    instance_read(inst, 1, part + CHANNELS);
    for (int k = 0; k < CHANNELS + CHANNELS * 27; k++) s->total[k] += part[k];
    s->order[s->done++] = shard;
    return 0;
}

/* Runs all shards; the status. */
static int run(Sum *s, const char *device, int threads)
{
    Arena *a = arena_new();
    Graph *g = network(a);
    Diag d = diag_stderr(NULL);
    Program *p;
    Pool *pool;
    assert_int_equal(program_compile(&p, g, &(ProgramOptions){.device = device}, &d), 0);
    assert_int_equal(pool_new(&pool, p, threads, &d), 0);
    assert_int_equal(pool_bytes(pool), (size_t)threads * program_peak_bytes(p));
    s->data = numbers(a, SHARDS * SAMPLES * IMAGE, 9);
    const int status = pool_run(
        pool, &(ShardJob){.program = p, .n = SHARDS, .work = work, .reduce = add, .ctx = s});
    pool_free(pool);
    program_free(p);
    arena_free(a);
    return status;
}

static void same_bytes(const char *device)
{
    Sum one = {.fail_at = -1, .trap_at = -1};
    assert_int_equal(run(&one, device, 1), 0);
    for (int threads = 2; threads <= 3; threads++) {
        Sum many = {.fail_at = -1, .trap_at = -1};
        assert_int_equal(run(&many, device, threads), 0);
        assert_memory_equal(one.total, many.total, sizeof one.total);
        for (int k = 0; k < SHARDS; k++) assert_int_equal(many.order[k], k);
    }
}

static void test_same_bytes(void **state)
{
    (void)state;
    same_bytes("ref");
    same_bytes("cpu");
}

static void test_first_error_wins(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        Sum s = {.fail_at = 3, .trap_at = -1};
        assert_int_equal(run(&s, "cpu", threads), -7);
        assert_int_equal(s.done, 3); /* shards before it were reduced, none after */
    }
}

static void test_trap_passes_on(void **state)
{
    (void)state;
    Trap t;
    Arena *a = arena_new();
    Diag d = diag_stderr(NULL);
    Graph *g = network(a);
    Program *p;
    Pool *pool;
    assert_int_equal(program_compile(&p, g, &(ProgramOptions){.device = "cpu"}, &d), 0);
    assert_int_equal(pool_new(&pool, p, 2, &d), 0);
    Sum s = {.fail_at = -1, .trap_at = 2, .data = numbers(a, SHARDS * SAMPLES * IMAGE, 9)};
    if (trap_enter(&t) == 0) {
        pool_run(pool,
                 &(ShardJob){.program = p, .n = SHARDS, .work = work, .reduce = add, .ctx = &s});
        trap_leave(&t);
        fail_msg("the trap was lost");
    }
    assert_non_null(strstr(t.message, "shard 2"));
    pool_free(pool);
    program_free(p);
    arena_free(a);
}

static void test_rng(void **state)
{
    (void)state;
    Rng a = rng_new(1, 2), b = rng_new(1, 2), c = rng_new(1, 3);
    int equal = 0;
    double sum = 0, squares = 0;
    for (int k = 0; k < 1000; k++) {
        const uint32_t x = rng_u32(&a);
        assert_int_equal(x, rng_u32(&b));
        equal += x == rng_u32(&c);
    }
    assert_true(equal < 2);
    for (int k = 0; k < 10000; k++) {
        const double z = (double)rng_normal(&a);
        sum += z;
        squares += z * z;
        assert_true(rng_below(&a, 6) < 6);
        assert_in_range((int)rng_uniform(&a), 0, 0);
    }
    assert_true(sum * sum < 16 * 10000); /* four standard errors */
    assert_true(squares > 9300 && squares < 10700);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_first_error_wins),
        cmocka_unit_test(test_trap_passes_on),
        cmocka_unit_test(test_rng),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
