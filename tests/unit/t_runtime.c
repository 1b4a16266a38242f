/* The plan and the executor: layouts, stages, in-place work, views, F16 storage, errors. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ir/ir.h"
#include "runtime/program.h"
#include "tests/types.h"
#include "tests/unit/device.h"

static char last_message[512];

static void keep_message(void *ctx, Severity sev, const char *text)
{
    (void)ctx, (void)sev;
    strncpy(last_message, text, sizeof last_message - 1);
}

static Diag quiet(void) { return (Diag){.sink = keep_message}; }

/* Fills with small numbers that depend on the position. */
static float *numbers(Arena *a, int64_t n, uint64_t seed)
{
    float *x = NEW_ARRAY(a, float, n);
    Rng r = rng_new(seed, 1);
    for (int64_t i = 0; i < n; i++) x[i] = rng_normal(&r);
    return x;
}

static Value *param(Graph *g, Type t, uint64_t seed)
{
    return value_const(g, "p", t, numbers(g->arena, type_count(&t), seed));
}

static Program *compiled(const Graph *g, const char *device, const uint8_t *stage, bool no_reuse)
{
    Diag d = diag_stderr(NULL);
    Program *p;
    const ProgramOptions o = {.device = device, .stage = stage, .no_reuse = no_reuse};
    assert_int_equal(program_compile(&p, g, &o, &d), 0);
    return p;
}

/* Output 0 of a graph with one input. */
static float *run_once(Arena *a, const Graph *g, const char *device, const void *x, bool no_reuse)
{
    Diag d = diag_stderr(NULL);
    Program *p = compiled(g, device, NULL, no_reuse);
    Instance *i;
    float *y = NEW_ARRAY(a, float, type_count(&g->outputs[0]->type));
    assert_int_equal(instance_new(&i, p, &d), 0);
    instance_bind(i, 0, x);
    instance_run_all(i);
    instance_read(i, 0, y);
    instance_free(i);
    program_free(p);
    return y;
}

/* conv - relu - conv, a shortcut, pooling, a reshape and a product: a network in small. */
static Graph *small_network(Arena *a)
{
    Graph *g = graph_new(a, "net");
    Value *x = graph_add_input(g, "x", TYPE(DT_F32, 2, 3, 6, 6));
    const Attr pads = attr_ints("pads", 4, (int64_t[]){1, 1, 1, 1});
    Value *c = build(g, OP_Conv,
                     IN(x, param(g, TYPE(DT_F32, 8, 3, 3, 3), 1), param(g, TYPE(DT_F32, 8), 2)),
                     ATTRS(pads));
    Value *r = build(g, OP_Relu, IN(c), NO_ATTRS);
    Value *e = build(g, OP_Conv, IN(r, param(g, TYPE(DT_F32, 8, 8, 3, 3), 3)), ATTRS(pads));
    Value *s = build(g, OP_Add, IN(e, r), NO_ATTRS);
    Value *scaled = build(g, OP_Mul, IN(s, param(g, TYPE(DT_F32, 1, 8, 1, 1), 4)), NO_ATTRS);
    Value *m = build(g, OP_MaxPool, IN(scaled),
                     ATTRS(attr_ints("kernel_shape", 2, (int64_t[]){2, 2}),
                           attr_ints("strides", 2, (int64_t[]){2, 2})));
    Value *f = build(g, OP_Flatten, IN(m), NO_ATTRS);
    Value *y = build(g, OP_Gemm, IN(f, param(g, TYPE(DT_F32, 72, 5), 5)), NO_ATTRS);
    graph_add_output(g, build(g, OP_Softmax, IN(y), NO_ATTRS));
    return g;
}

static void test_layouts_agree(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = small_network(a);
    const float *x = numbers(a, 2 * 3 * 36, 9);
    const float *plain = run_once(a, g, "ref", x, true);
    assert_memory_equal(plain, run_once(a, g, "ref", x, false), 40);
    assert_memory_equal(plain, run_once(a, g, "ref-last", x, false), 40);
    assert_memory_equal(plain, run_once(a, g, "ref-last", x, true), 40);
    arena_free(a);
}

static void test_memory_is_reused(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = small_network(a);
    Program *tight = compiled(g, "ref", NULL, false), *loose = compiled(g, "ref", NULL, true);
    const size_t image = 2 * 8 * 36 * sizeof(float);
    /* r, and e or its sum with r in place: two images at a time. */
    assert_int_equal(program_peak_bytes(tight), 2 * image);
    assert_true(program_peak_bytes(loose) > 4 * image);
    program_free(tight);
    program_free(loose);
    arena_free(a);
}

/* y = x * 2 (stage 0), z = y + b (stage 1), w = z * v + y (stage 2), reading what came before again
 * and again. */
static void test_stages(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "stages");
    const Type t = TYPE(DT_F32, 4);
    Value *x = graph_add_input(g, "x", t), *b = graph_add_input(g, "b", t),
          *v = graph_add_input(g, "v", t);
    Value *y = build(g, OP_Mul, IN(x, const_f32(g, 2)), NO_ATTRS);
    Value *z = build(g, OP_Add, IN(build(g, OP_Add, IN(y, y), NO_ATTRS), b), NO_ATTRS);
    Value *product = build(g, OP_Mul, IN(z, v), NO_ATTRS);
    graph_add_output(g, build(g, OP_Add, IN(product, y), NO_ATTRS));
    graph_add_output(g, z);
    const uint8_t stage[] = {0, 1, 2};
    Program *p = compiled(g, "ref", stage, false);
    Diag d = diag_stderr(NULL);
    Instance *i;
    assert_int_equal(instance_new(&i, p, &d), 0);
    const float one[4] = {1, 2, 3, 4};
    instance_bind(i, 0, one);
    instance_run(i, 0);
    for (int batch = 0; batch < 3; batch++) {
        const float bias[4] = {(float)batch, 1, 1, 1};
        instance_bind(i, 1, bias);
        instance_run(i, 1);
        for (int probe = 0; probe < 3; probe++) {
            const float w[4] = {(float)probe, 1, -1, 0.5f};
            float out[4], kept[4];
            instance_bind(i, 2, w);
            instance_run(i, 2);
            instance_read(i, 0, out);
            instance_read(i, 1, kept);
            for (int k = 0; k < 4; k++) {
                const float want = 4 * one[k] + bias[k];
                assert_float_equal(kept[k], want, 0);
                assert_float_equal(out[k], want * w[k] + 2 * one[k], 0);
            }
        }
    }
    instance_free(i);
    program_free(p);
    arena_free(a);
}

static void test_views_cost_nothing(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "views");
    Value *x = graph_add_input(g, "x", TYPE(DT_F32, 2, 3, 4));
    Value *y = build(g, OP_Reshape, IN(x, CONST_INTS(g, 6, 4)), NO_ATTRS);
    y = build(g, OP_Unsqueeze, IN(y, CONST_INTS(g, 0)), NO_ATTRS);
    graph_add_output(g, build(g, OP_Identity, IN(y), NO_ATTRS));
    const float *in = numbers(a, 24, 3);
    Program *p = compiled(g, "ref", NULL, false);
    assert_int_equal(program_peak_bytes(p), 0);
    program_free(p);
    assert_memory_equal(in, run_once(a, g, "ref", in, false), 24 * sizeof(float));
    arena_free(a);
}

static void test_half_storage(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "half");
    Value *x = graph_add_input(g, "x", TYPE(DT_F32, 3));
    Value *h = build(g, OP_Cast, IN(x), ATTRS(attr_int("to", DT_F16)));
    Value *s = build(g, OP_Add, IN(h, h), NO_ATTRS);
    graph_add_output(g, build(g, OP_Cast, IN(s), ATTRS(attr_int("to", DT_F32))));
    const float in[3] = {1.0003f, -2.0f, 1e5f};
    const float *y = run_once(a, g, "ref", in, false);
    assert_float_equal(y[0], 2.0f, 0);
    assert_float_equal(y[1], -4.0f, 0);
    assert_true(isinf(y[2]));
    arena_free(a);
}

static Value *pointwise(Graph *g, Value *x, int64_t from, int64_t to, uint64_t seed, const float *w)
{
    const Type t = TYPE(DT_F32, to, from, 1, 1);
    Value *k = w ? value_const(g, "w", t, w) : param(g, t, seed);
    return build(g, OP_Conv, IN(x, build(g, OP_Cast, IN(k), ATTRS(attr_int("to", DT_F16)))),
                 NO_ATTRS);
}

/* 1.0003 is 1 in half; the first values live when little else does, and so are floats. */
static void test_half_kept_as_floats(void **state)
{
    (void)state;
    enum { PLACES = 16 * 16, SMALL = 8, LARGE = 32 };
    float first[SMALL * SMALL] = {1, -1}, *x;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "half");
    Value *h = graph_add_input(g, "x", TYPE(DT_F32, 1, SMALL, 16, 16));
    h = build(g, OP_Cast, IN(h), ATTRS(attr_int("to", DT_F16)));
    h = pointwise(g, h, SMALL, SMALL, 0, first);
    h = pointwise(g, h, SMALL, LARGE, 1, NULL);
    graph_add_output(g, build(g, OP_Cast, IN(h), ATTRS(attr_int("to", DT_F32))));
    x = numbers(a, SMALL * PLACES, 1);
    for (int i = 0; i < 2 * PLACES; i++) x[i] = i < PLACES ? 1.0003f : 1;
    Program *p = compiled(g, "cpu", NULL, false);
    const float w = numbers(a, LARGE * SMALL, 1)[0];
    assert_int_equal(p->memory, PLACES * LARGE * (sizeof(float) + 2)); /* as if all were half */
    program_free(p);
    assert_float_equal(run_once(a, g, "ref", x, false)[0], 0, 0);
    assert_float_equal(run_once(a, g, "cpu", x, false)[0], 0.0003f * w, 1e-6f);
    arena_free(a);
}

/* Only products read them, so nothing is moved. */
static void test_transposes_into_products(void **state)
{
    (void)state;
    static const int64_t heads[] = {0, 2, 1, 3}, turned[] = {0, 2, 3, 1}, back[] = {0, 1, 3, 2};
    Arena *a = arena_new();
    Graph *g = graph_new(a, "transposed");
    Value *x = graph_add_input(g, "x", TYPE(DT_F32, 2, 5, 3, 4));
    Value *q = build(g, OP_Transpose, IN(x), ATTRS(attr_ints("perm", 4, heads)));
    Value *k = build(g, OP_Transpose, IN(x), ATTRS(attr_ints("perm", 4, turned)));
    Value *y = build(g, OP_MatMul, IN(q, k), NO_ATTRS);
    Value *t = build(g, OP_Transpose, IN(y), ATTRS(attr_ints("perm", 4, back)));
    graph_add_output(g, build(g, OP_MatMul, IN(t, q), NO_ATTRS));
    const float *in = numbers(a, 120, 5), *want = run_once(a, g, "ref", in, true),
                *got = run_once(a, g, test_device("cpu"), in, false);
    for (int i = 0; i < 120; i++) assert_float_equal(got[i], want[i], 1e-4f);
    Program *p = compiled(g, "cpu", NULL, false);
    assert_int_equal(p->nsteps, 2);
    program_free(p);
    arena_free(a);
}

static void test_known_shapes_need_no_kernel(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "shape");
    Value *x = graph_add_input(g, "x", TYPE(DT_F32, 2, 6));
    Value *shape = build(g, OP_Shape, IN(x), NO_ATTRS);
    graph_add_output(g, shape);
    Program *p = compiled(g, "ref", NULL, false);
    Diag d = diag_stderr(NULL);
    Instance *i;
    int64_t dims[2];
    assert_int_equal(instance_new(&i, p, &d), 0);
    instance_run_all(i);
    instance_read(i, 0, dims);
    assert_int_equal(dims[0], 2);
    assert_int_equal(dims[1], 6);
    instance_free(i);
    program_free(p);
    arena_free(a);
}

static void test_errors(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "bad");
    Value *x = graph_add_input(g, "x", TYPE(DT_F32, 2, 6));
    Node *n = node_new(g, OP_Opaque, IN(x), 1);
    n->name = "mystery";
    n->op_type = "Mystery";
    n->domain = "acme";
    n->out[0] = value_new(g, "y", TYPE(DT_F32, 2));
    n->out[0]->def = n;
    node_append(g, n);
    graph_add_output(g, n->out[0]);
    Program *p;
    Diag d = quiet();
    assert_int_equal(program_compile(&p, g, &(ProgramOptions){.device = "ref"}, &d), -1);
    assert_null(p);
    assert_non_null(strstr(last_message, "mystery"));
    assert_int_equal(program_compile(&p, g, &(ProgramOptions){.device = "abacus"}, &d), -1);
    assert_non_null(strstr(last_message, "abacus"));
    Graph *open = graph_new(a, "open");
    x = graph_add_input(open, "x", TYPE(DT_F32, graph_symbol(open, "N"), 6));
    graph_add_output(open, build(open, OP_Relu, IN(x), NO_ATTRS));
    assert_int_equal(program_compile(&p, open, &(ProgramOptions){.device = "ref"}, &d), -1);
    assert_non_null(strstr(last_message, "input 'x' has no static size: float[N,6]"));
    arena_free(a);
}

/* ASan would otherwise abort where malloc returns NULL. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }

static void test_too_much_memory(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "huge");
    Value *x = graph_add_input(g, "x", TYPE(DT_F32, 1LL << 31, 1LL << 17));
    graph_add_output(g, build(g, OP_Exp, IN(x), NO_ATTRS));
    Program *p = compiled(g, "ref", NULL, false);
    Instance *i;
    Diag d = quiet();
    assert_true(program_peak_bytes(p) == (size_t)1 << 50);
    assert_int_equal(instance_new(&i, p, &d), -1);
    assert_non_null(strstr(last_message, "out of memory"));
    program_free(p);
    arena_free(a);
}

/* One random node over values of [2,4,3,3]; spatial ops pull their surroundings channels-last. */
static Value *random_node(Graph *g, Rng *r, Value *const *v, int n)
{
    static const Op binary[] = {OP_Add, OP_Mul, OP_Sub, OP_Max};
    Value *a = v[rng_below(r, (uint32_t)n)], *b = v[rng_below(r, (uint32_t)n)];
    const Attr kernel = attr_ints("kernel_shape", 2, (int64_t[]){3, 3});
    const Attr pads = attr_ints("pads", 4, (int64_t[]){1, 1, 1, 1});
    switch (rng_below(r, 8)) {
    case 0:
        return build(g, OP_Tanh, IN(a), NO_ATTRS);
    case 1:
        return build(g, OP_MaxPool, IN(a), ATTRS(kernel, pads));
    case 2:
        return build(g, OP_Identity, IN(a), NO_ATTRS);
    case 3: {
        Value *flat = build(g, OP_Reshape, IN(a, CONST_INTS(g, 2, 36)), NO_ATTRS);
        Value *soft = build(g, OP_Softmax, IN(flat), NO_ATTRS);
        return build(g, OP_Reshape, IN(soft, CONST_INTS(g, 2, 4, 3, 3)), NO_ATTRS);
    }
    case 4: {
        Value *mean = build(g, OP_ReduceMean, IN(b, CONST_INTS(g, 2, 3)), NO_ATTRS);
        return build(g, OP_Sub, IN(a, mean), NO_ATTRS);
    }
    case 5:
        return build(g, OP_Transpose, IN(a), ATTRS(attr_ints("perm", 4, (int64_t[]){0, 1, 3, 2})));
    default:
        return build(g, binary[rng_below(r, 4)], IN(a, b), NO_ATTRS);
    }
}

static Graph *random_graph(Arena *a, Rng *r, uint8_t *stage)
{
    enum { INPUTS = 5, NODES = 24 };
    Graph *g = graph_new(a, "random");
    Value *v[INPUTS + NODES];
    for (int k = 0; k < INPUTS; k++) {
        v[k] = graph_add_input(g, NULL, TYPE(DT_F32, 2, 4, 3, 3));
        stage[k] = (uint8_t)rng_below(r, 3);
    }
    for (int k = INPUTS; k < INPUTS + NODES; k++) v[k] = random_node(g, r, v, k);
    for (int k = 0; k < 4; k++) graph_add_output(g, v[INPUTS + (int)rng_below(r, NODES)]);
    graph_add_output(g, v[INPUTS + NODES - 1]);
    return g;
}

/* Runs the stages as training and probing do, some of them again on new data, and appends all
 * outputs after every innermost run. */
static void run_stages(Arena *a, const Graph *g, const Program *p, const uint8_t *stage, float *out)
{
    Diag d = diag_stderr(NULL);
    Instance *i;
    uint64_t seed = 1;
    assert_int_equal(instance_new(&i, p, &d), 0);
    static const int order[] = {0, 1, 2, 2, 1, 2, 0, 1, 2, 2};
    for (size_t k = 0; k < sizeof order / sizeof *order; k++) {
        for (int in = 0; in < g->ninputs; in++)
            if (stage[in] == order[k]) instance_bind(i, in, numbers(a, 72, seed++));
        instance_run(i, order[k]);
        for (int o = 0; o < g->noutputs && order[k] == 2; o++, out += 72) instance_read(i, o, out);
    }
    instance_free(i);
}

static void test_random_graphs(void **state)
{
    (void)state;
    const char *const devices[] = {"ref", "ref-last", test_device("cpu")};
    enum { TOTAL = 5 * 5 * 72 /* runs of stage 2, outputs */ };
    for (uint64_t seed = 0; seed < 60; seed++) {
        Arena *a = arena_new();
        Rng r = rng_new(seed, 77);
        uint8_t stage[8];
        float want[TOTAL], got[TOTAL];
        const Graph *g = random_graph(a, &r, stage);
        Program *loose = compiled(g, "ref", stage, true);
        run_stages(a, g, loose, stage, want);
        program_free(loose);
        for (int k = 0; k < 3; k++) {
            Program *p = compiled(g, devices[k], stage, false);
            run_stages(a, g, p, stage, got);
            program_free(p);
            for (int j = 0; j < TOTAL; j++)
                if (fabs((double)got[j] - (double)want[j]) > 1e-4 * (1 + fabs((double)want[j])))
                    fail_msg("seed %d on %s: element %d is %g, %g wanted", (int)seed, devices[k], j,
                             (double)got[j], (double)want[j]);
        }
        arena_free(a);
    }
}

static void test_half_conversion(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        const float f = f16_to_f32((uint16_t)h);
        if (isnan(f)) continue;
        assert_int_equal(f32_to_f16(f), h);
        /* Half way to the next one goes to the even one, a hair more goes up. */
        const float next = (h & 0x7fff) < 0x7bff ? f16_to_f32((uint16_t)(h + 1)) : NAN;
        if (isnan(next)) continue;
        const float middle = f + (next - f) / 2;
        assert_int_equal(f32_to_f16(middle), (h & 1) ? h + 1 : h);
        assert_int_equal(f32_to_f16(nextafterf(middle, next)), h + 1);
    }
    assert_int_equal(f32_to_f16(65519.99f), 0x7bff);
    assert_int_equal(f32_to_f16(65520.0f), 0x7c00);
    assert_true(isnan(f16_to_f32(f32_to_f16(NAN))));
}

/* Up to the first output: the second stays as it was. */
static void a_run_may_end_early(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr(NULL);
    Graph *g = graph_new(a, "two");
    Instance *i;
    float one[4] = {1, 2, 3, 4}, two[4] = {5, 6, 7, 8}, y[4], z[4];
    Value *x = graph_add_input(g, "x", TYPE(DT_F32, 4));
    graph_add_output(g, build(g, OP_Neg, IN(x), NO_ATTRS));
    graph_add_output(g, build(g, OP_CumSum, IN(g->outputs[0], CONST_INTS(g, 0)), NO_ATTRS));
    graph_add_output(g, x);
    Program *p = compiled(g, test_device("cpu"), NULL, false);
    assert_int_equal(instance_new(&i, p, &d), 0);
    instance_bind(i, 0, one);
    instance_run_all(i);
    instance_read(i, 1, z);
    assert_true(z[3] == -10);
    instance_bind(i, 0, two);
    instance_run_until(i, 0);
    instance_read(i, 0, y);
    instance_read(i, 1, z);
    assert_true(y[3] == -8);
    assert_true(z[3] == (runtime_is_parallel(test_device("cpu")) ? -26 : -10));
    instance_run_until(i, 2); /* an input: nothing to do */
    instance_run_until(i, 1);
    instance_read(i, 1, z);
    assert_true(z[3] == -26);
    instance_free(i);
    program_free(p);
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts_agree),
        cmocka_unit_test(test_memory_is_reused),
        cmocka_unit_test(test_stages),
        cmocka_unit_test(test_views_cost_nothing),
        cmocka_unit_test(test_half_storage),
        cmocka_unit_test(test_known_shapes_need_no_kernel),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_too_much_memory),
        cmocka_unit_test(test_random_graphs),
        cmocka_unit_test(test_half_conversion),
        cmocka_unit_test(test_half_kept_as_floats),
        cmocka_unit_test(test_transposes_into_products),
        cmocka_unit_test(a_run_may_end_early),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
