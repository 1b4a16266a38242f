/* Chains of element-wise nodes on the CPU: every op that takes part gives in a chain what it gives
 * alone, in every storage; which nodes are joined; results in the place of operands. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ir/op.h"
#include "runtime/element.h"
#include "runtime/kernel.h"
#include "tests/types.h"

static Program *compiled(const Graph *g, const char *device, bool alone)
{
    Diag d = diag_stderr(NULL);
    Program *p;
    const ProgramOptions o = {.device = device, .no_reuse = alone};
    assert_int_equal(program_compile(&p, g, &o, &d), 0);
    return p;
}

/* The plan's steps: "Add+Mul+Relu " and so on, each followed by a space. */
static char *steps_of(Arena *a, const Program *p)
{
    char *text = NULL, *line, *rest, op[256];
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    program_print(p, f);
    fclose(f);
    char *steps = NEW_ARRAY(a, char, (int64_t)size + 1);
    for (rest = text; (line = strsep(&rest, "\n"));)
        if (sscanf(line, "%*d stage %*d %255s", op) == 1) strcat(strcat(steps, op), " ");
    free(text);
    return steps;
}

/* Runs it on inputs of normal numbers; all outputs, in float, one behind the other. */
static float *run(Arena *a, const Graph *g, const char *device, bool alone, int64_t *total)
{
    Diag d = diag_stderr(NULL);
    Program *p = compiled(g, device, alone);
    Instance *i;
    assert_int_equal(instance_new(&i, p, &d), 0);
    for (int k = 0; k < g->ninputs; k++) {
        const Type *t = &g->inputs[k]->type;
        Tensor x = {.dtype = t->dtype, .data = arena_alloc(a, (size_t)type_bytes(t) + 1)};
        Rng r = rng_new((uint64_t)k, 7);
        for (int64_t e = 0; e < type_count(t); e++)
            element_store(&x, e, t->dtype == DT_U8 ? rng_below(&r, 200) : (double)rng_normal(&r));
        instance_bind(i, k, x.data);
    }
    instance_run_all(i);
    *total = 0;
    for (int o = 0; o < g->noutputs; o++) *total += type_count(&g->outputs[o]->type);
    float *all = NEW_ARRAY(a, float, *total + 1), *to = all;
    for (int o = 0; o < g->noutputs; o++) {
        const Type *t = &g->outputs[o]->type;
        Tensor y = {.dtype = t->dtype, .data = arena_alloc(a, (size_t)type_bytes(t) + 1)};
        instance_read(i, o, y.data);
        for (int64_t e = 0; e < type_count(t); e++) *to++ = (float)element_load(&y, e);
    }
    instance_free(i);
    program_free(p);
    return all;
}

/* ---- every op ----------------------------------------------------------------------------- */

/* How to build each op that a kernel of the CPU lists as part of chains: operands x (full shape), y
 * (full), c (one per channel), s (scalar), b (bool), from what the chain has computed. */
typedef struct Given {
    Graph *g;
    Value *x, *y, *c, *s, *b;
} Given;

static Value *derivative(Given *v)
{
    return build(v->g, OP_Derivative, IN(v->x, v->y), ATTRS(attr_str("of", "Tanh")));
}

static Value *quantized(Given *v)
{
    static const uint8_t points[] = {100};
    Value *zero = value_const(v->g, "zero", TYPE(DT_U8, 1), points);
    Value *q = build(v->g, OP_QuantizeLinear, IN(v->x, v->s, zero), NO_ATTRS);
    return build(v->g, OP_DequantizeLinear, IN(q, v->s, zero), NO_ATTRS);
}

static Node *on_grid(Given *v, Op op, int nout, Value *dy)
{
    const Type flat = TYPE(DT_F32, 5);
    static const float scale[5] = {0.01F, 0.02F, 0.005F, 0.03F, 0.01F}, zero[5] = {0, 1, 2, 3, 4};
    Value *all[4] = {dy, v->x, value_const(v->g, "scale", flat, scale),
                     value_const(v->g, "zero", flat, zero)};
    return build_multi(v->g, op, nout, dy ? 4 : 3, dy ? all : all + 1,
                       ATTRS(attr_int("axis", 1), attr_int("qmin", -100), attr_int("qmax", 100)));
}

static Value *fake_quant(Given *v) { return on_grid(v, OP_FakeQuant, 1, NULL)->out[0]; }

static Value *fake_quant_grad(Given *v)
{
    Node *n = on_grid(v, OP_FakeQuantGrad, 2, v->y);
    graph_add_output(v->g, n->out[1]);
    return n->out[0];
}

static Value *clip(Given *v)
{
    Value *limit[] = {v->x, NULL, v->s};
    return build(v->g, OP_Clip, 3, limit, NO_ATTRS);
}

static Value *where(Given *v) { return build(v->g, OP_Where, IN(v->b, v->x, v->c), NO_ATTRS); }

static Value *expand(Given *v)
{
    return build(v->g, OP_Expand, IN(v->c, const_ints(v->g, v->x->type.rank, v->x->type.dim)),
                 NO_ATTRS);
}

static Value *cast(Given *v)
{
    return build(v->g, OP_Cast, IN(v->b), ATTRS(attr_int("to", v->x->type.dtype)));
}

static Value *cast_like(Given *v) { return build(v->g, OP_CastLike, IN(v->b, v->x), NO_ATTRS); }

static Value *sum_product(Given *v)
{
    return build(v->g, OP_SumProduct, IN(v->x, v->y),
                 ATTRS(attr_ints("axes", 3, (int64_t[]){0, 2, 3})));
}

typedef Value *BuildFn(Given *v);

static BuildFn *const special[OP_COUNT] = {
    [OP_Derivative] = derivative,
    [OP_QuantizeLinear] = quantized,
    [OP_DequantizeLinear] = quantized,
    [OP_FakeQuant] = fake_quant,
    [OP_FakeQuantGrad] = fake_quant_grad,
    [OP_Clip] = clip,
    [OP_Where] = where,
    [OP_Expand] = expand,
    [OP_Cast] = cast,
    [OP_CastLike] = cast_like,
    [OP_SumProduct] = sum_product,
};

/* The op on what the chain has, as floats. */
static Value *applied(Given *v, Op op)
{
    const OpInfo *info = &op_info[op];
    Value *y;
    if (special[op]) return special[op](v);
    if (device_cpu.kernels[op].flags & KF_SUM)
        return build(v->g, op, IN(v->x, CONST_INTS(v->g, 0, 2, 3)), NO_ATTRS);
    if (op == OP_Not)
        y = build(v->g, op, IN(v->b), NO_ATTRS);
    else if (op == OP_And || op == OP_Or || op == OP_Xor)
        y = build(v->g, op, IN(v->b, build(v->g, OP_Less, IN(v->y, v->s), NO_ATTRS)), NO_ATTRS);
    else if (info->max_in < 0)
        y = build(v->g, op, IN(v->x, v->c, v->y, v->s), NO_ATTRS);
    else if (info->min_in == 2)
        y = build(v->g, op, IN(v->x, v->c), NO_ATTRS);
    else
        y = build(v->g, op, IN(v->x), NO_ATTRS);
    if (y->type.dtype != DT_BOOL) return y;
    return build(v->g, OP_Cast, IN(y), ATTRS(attr_int("to", v->x->type.dtype)));
}

static Value *as(Graph *g, Value *v, DType t)
{
    return v->type.dtype == t ? v : build(g, OP_Cast, IN(v), ATTRS(attr_int("to", t)));
}

/* A chain around the op: what comes before it is read again behind it. Operands and results are
 * stored as `t`, computed with as `with`. */
static Graph *around(Arena *a, Op op, DType t, DType with)
{
    Graph *g = graph_new(a, "around");
    const int64_t full[] = {3, 5, 7, 11}; /* 1,155 elements: blocks end inside a row */
    Value *x = as(g, graph_add_input(g, "x", type_of(t, 4, full)), with);
    Value *y = as(g, graph_add_input(g, "y", type_of(t, 4, full)), with);
    Value *c = as(g, graph_add_input(g, "c", TYPE(t, 1, 5, 1, 1)), with);
    Value *s = as(g, graph_add_input(g, "s", TYPE(t, 1)), with);
    Value *v = build(g, OP_Abs, IN(build(g, OP_Add, IN(x, y), NO_ATTRS)), NO_ATTRS);
    Given given = {g, v, x, c, s, build(g, OP_Greater, IN(x, c), NO_ATTRS)};
    Value *z = applied(&given, op), *out[2] = {z, z};
    if (type_equal(&z->type, &v->type)) out[1] = build(g, OP_Sub, IN(z, v), NO_ATTRS);
    for (int k = 0; k < 2; k++)
        graph_add_output(g, op == OP_SumProduct ? out[k] : as(g, out[k], t));
    return g;
}

static void compare(Op op, DType t, const float *got, const float *want, int64_t n)
{
    const double limit = !(device_cpu.kernels[op].flags & KF_SUM) ? 0 : t == DT_F32 ? 1e-6 : 0.01;
    for (int64_t k = 0; k < n; k++) {
        const double g = (double)got[k], w = (double)want[k];
        if (g == w || (isnan(g) && isnan(w)) || fabs(g - w) <= limit * (1 + fabs(w))) continue;
        fail_msg("%s in %s: element %lld is %.9g, alone %.9g", op_info[op].name, dtype_name(t),
                 (long long)k, g, w);
    }
}

/* A chain gives what its nodes give one by one in FP32 between conversions at its ends: to the last
 * bit, but for sums, whose order may differ. */
static void check_op(Op op, DType t)
{
    Arena *a = arena_new();
    int64_t n, m;
    const Graph *g = around(a, op, t, t), *wide = around(a, op, t, DT_F32);
    Program *p = compiled(g, "cpu", false);
    const char *steps = steps_of(a, p), *end = strchr(steps, ' ');
    if (!strchr(steps, '+') || !end || end[1])
        fail_msg("%s in %s becomes several steps: %s", op_info[op].name, dtype_name(t), steps);
    program_free(p);
    const float *got = run(a, g, "cpu", false, &n), *want = run(a, wide, "cpu", true, &m);
    assert_int_equal(n, m);
    compare(op, t, got, want, n);
    arena_free(a);
}

static void test_every_op(void **state)
{
    (void)state;
    int ops = 0;
    for (int op = 0; op < OP_COUNT; op++) {
        if (!device_cpu.kernels[op].map || op == OP_Dropout) continue;
        check_op((Op)op, DT_F32);
        check_op((Op)op, DT_F16);
        check_op((Op)op, DT_BF16);
        ops++;
    }
    assert_true(ops > 60);
}

/* ---- which steps are joined --------------------------------------------------------------- */

static Graph *fresh(Arena *a, Value *x[2])
{
    Graph *g = graph_new(a, "plan");
    x[0] = graph_add_input(g, "x", TYPE(DT_F32, 40, 50));
    x[1] = graph_add_input(g, "y", TYPE(DT_F32, 40, 50));
    return g;
}

static void must_plan(Arena *a, const Graph *g, const char *want)
{
    int64_t n;
    Program *p = compiled(g, "cpu", false);
    assert_string_equal(steps_of(a, p), want);
    program_free(p);
    const float *got = run(a, g, "cpu", false, &n), *alone = run(a, g, "cpu", true, &n);
    for (int64_t k = 0; k < n; k++)
        assert_float_equal(got[k], alone[k], 1e-6F * (1 + fabsf(alone[k])));
    arena_free(a);
}

/* Two chains that a third step reads become one. */
static void test_chains_merge(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Value *x[2];
    Graph *g = fresh(a, x);
    Value *e = build(g, OP_Exp, IN(x[0]), NO_ATTRS), *b = build(g, OP_Abs, IN(x[1]), NO_ATTRS);
    graph_add_output(g, build(g, OP_Add, IN(e, b), NO_ATTRS));
    must_plan(a, g, "Exp+Abs+Add ");
}

/* What another step reads between two members keeps them apart. */
static void test_reader_between(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Value *x[2];
    Graph *g = fresh(a, x);
    Value *e = build(g, OP_Exp, IN(x[0]), NO_ATTRS), *s = build(g, OP_Softmax, IN(e), NO_ATTRS);
    graph_add_output(g, build(g, OP_Sub, IN(e, s), NO_ATTRS));
    must_plan(a, g, "Exp Softmax Sub ");
}

/* A sum is taken where its terms are computed, though others read those first. */
static void test_sum_comes_early(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Value *x[2];
    Graph *g = fresh(a, x);
    Value *e = build(g, OP_Exp, IN(build(g, OP_Neg, IN(x[0]), NO_ATTRS)), NO_ATTRS);
    graph_add_output(g, build(g, OP_Softmax, IN(e), NO_ATTRS));
    Value *sum = build(g, OP_ReduceSum, IN(e, CONST_INTS(g, 0)), NO_ATTRS);
    graph_add_output(g, sum);
    must_plan(a, g, "Neg+Exp+ReduceSum Softmax ");
}

/* A sum that its own chain would need stays outside. */
static void test_sum_read_by_its_chain(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Value *x[2];
    Graph *g = fresh(a, x);
    Value *e = build(g, OP_Exp, IN(build(g, OP_Neg, IN(x[0]), NO_ATTRS)), NO_ATTRS);
    Value *sum = build(g, OP_ReduceSum, IN(e, CONST_INTS(g, 1)), NO_ATTRS);
    graph_add_output(g, build(g, OP_Div, IN(e, sum), NO_ATTRS));
    must_plan(a, g, "Neg+Exp+ReduceSum Div ");
}

/* Long chains are cut; those with many results stay as they are. */
static void test_limits(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Value *x[2];
    Graph *g = fresh(a, x);
    Value *v = x[0];
    for (int k = 0; k < 14; k++) v = build(g, OP_Tanh, IN(v), NO_ATTRS);
    graph_add_output(g, v);
    must_plan(a, g, "Tanh+Tanh+Tanh+Tanh+Tanh+Tanh+Tanh+Tanh+Tanh+Tanh+Tanh+Tanh Tanh+Tanh ");
    g = fresh(a = arena_new(), x);
    for (int k = 0; k < 7; k++) graph_add_output(g, x[0] = build(g, OP_Sin, IN(x[0]), NO_ATTRS));
    must_plan(a, g, "Sin Sin Sin Sin Sin Sin Sin ");
}

/* Inside a chain values need no memory, and both results go where the operands were. */
static void test_memory(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Value *x[2], *s[2];
    Graph *g = fresh(a, x);
    for (int k = 0; k < 2; k++) s[k] = build(g, OP_Softmax, IN(x[k]), NO_ATTRS);
    Value *sum = build(g, OP_Add, IN(s[0], s[1]), NO_ATTRS);
    Value *root = build(g, OP_Sqrt, IN(build(g, OP_Abs, IN(sum), NO_ATTRS)), NO_ATTRS);
    graph_add_output(g, root);
    graph_add_output(
        g, build(g, OP_Mul, IN(build(g, OP_Sub, IN(root, s[1]), NO_ATTRS), s[0]), NO_ATTRS));
    Program *p = compiled(g, "cpu", false);
    Diag d = diag_stderr(NULL);
    Instance *i;
    assert_int_equal(instance_new(&i, p, &d), 0);
    assert_true(program_peak_bytes(p) < 2 * 40 * 50 * sizeof(float) + 12 * 2048);
    instance_free(i);
    program_free(p);
    must_plan(a, g, "Softmax Softmax Add+Abs+Sqrt+Sub+Mul ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_op),
        cmocka_unit_test(test_chains_merge),
        cmocka_unit_test(test_reader_between),
        cmocka_unit_test(test_sum_comes_early),
        cmocka_unit_test(test_sum_read_by_its_chain),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
