/* Every derivative rule against finite differences on the reference device.
 *
 * A case is a graph y = f(x…). With random u (one per input) and c (like y) it is checked that
 *   Ju      = (y(x + hu) - y(x - hu)) / 2h        element by element,
 *   <c, J u_i> = <(J'c)_i, u_i>                   input by input,
 *   d/dt J(x + tu)'c = jvp(vjp)                   what a Hessian-vector product needs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "ir/op.h"
#include "ir/text.h"
#include "passes/passes.h"

typedef enum Data {
    ANY,      /* 0.3 … 1.3 of either sign: away from kinks at 0 */
    POSITIVE, /* 0.5 … 1.5 */
    APART,    /* all different by more than a finite difference moves them */
} Data;

typedef struct Case {
    const char *name;
    Data data;
    const char *text;
} Case;

static const Case second_order[] = {
    {"Conv", ANY,
     "g (float[2,4,6,5] x, float[6,2,3,2] w, float[6] b) => (y)"
     "{ y = Conv <group=2, pads=[1,0,1,1], strides=[2,1], dilations=[1,2]> (x, w, b) }"},
    {"Conv that leaves a rest", ANY,
     "g (float[1,2,8,7] x, float[3,2,3,3] w) => (y) { y = Conv <strides=[3,3]> (x, w) }"},
    {"Conv SAME_LOWER", ANY,
     "g (float[1,2,6,6] x, float[3,2,2,3] w) => (y)"
     "{ y = Conv <auto_pad=\"SAME_LOWER\", strides=[2,2]> (x, w) }"},
    {"depthwise Conv", ANY,
     "g (float[2,3,5,5] x, float[3,1,3,3] w) => (y) { y = Conv <group=3, pads=[1,1,1,1]> (x, w) }"},
    {"Conv 1-D", ANY,
     "g (float[2,3,9] x, float[4,3,3] w, float[4] b) => (y) { y = Conv <strides=[2]> (x, w, b) }"},
    {"ConvTranspose", ANY,
     "g (float[2,4,3,4] x, float[4,3,3,3] w, float[6] b) => (y) { y = ConvTranspose <group=2,"
     "strides=[2,2], pads=[1,1,0,1], output_padding=[1,0]> (x, w, b) }"},
    {"ConvWgrad", ANY,
     "g (float[2,4,6,6] x, float[2,6,3,3] dy) => (y) { y = ehap.ConvWgrad <group=2,"
     "kernel_shape=[3,3], strides=[2,2], pads=[1,1,0,0]> (x, dy) }"},
    {"MatMul", ANY, "g (float[3,4] a, float[4,5] b) => (y) { y = MatMul (a, b) }"},
    {"MatMul by a weight", ANY, "g (float[2,3,4] a, float[4,5] b) => (y) { y = MatMul (a, b) }"},
    {"MatMul broadcast", ANY, "g (float[2,1,3,4] a, float[3,4,5] b) => (y) { y = MatMul (a, b) }"},
    {"MatMul vector", ANY, "g (float[4] a, float[2,4,5] b) => (y) { y = MatMul (a, b) }"},
    {"MatMul by a vector", ANY, "g (float[2,3,4] a, float[4] b) => (y) { y = MatMul (a, b) }"},
    {"MatMul of vectors", ANY, "g (float[4] a, float[4] b) => (y) { y = MatMul (a, b) }"},
    {"Gemm", ANY,
     "g (float[3,4] a, float[4,5] b, float[5] c) => (y)"
     "{ y = Gemm <alpha=0.5, beta=2.0> (a, b, c) }"},
    {"Gemm A'", ANY, "g (float[4,3] a, float[4,5] b) => (y) { y = Gemm <transA=1> (a, b) }"},
    {"Gemm B'", ANY,
     "g (float[3,4] a, float[5,4] b, float[3,1] c) => (y) { y = Gemm <transB=1> (a, b, c) }"},
    {"Gemm A' B'", ANY,
     "g (float[4,3] a, float[5,4] b) => (y) { y = Gemm <transA=1, transB=1, alpha=2.0> (a, b) }"},
    {"Relu", ANY, "g (float[3,5] x) => (y) { y = Relu (x) }"},
    {"LeakyRelu", ANY, "g (float[3,5] x) => (y) { y = LeakyRelu <alpha=0.2> (x) }"},
    {"Clip", ANY,
     "g (float[3,5] x) => (y) <float lo={-1.5}, float hi={0.2}> { y = Clip (x, lo, hi) }"},
    {"Clip without minimum", ANY,
     "g (float[3,5] x) => (y) <float hi={0.2}> { y = Clip (x, , hi) }"},
    {"Sigmoid", ANY, "g (float[3,5] x) => (y) { y = Sigmoid (x) }"},
    {"HardSigmoid", ANY, "g (float[3,5] x) => (y) { y = HardSigmoid <alpha=0.3, beta=0.5> (x) }"},
    {"HardSwish", ANY, "g (float[3,5] x) => (y) { y = HardSwish (x) }"},
    {"Tanh", ANY, "g (float[3,5] x) => (y) { y = Tanh (x) }"},
    {"Gelu", ANY, "g (float[3,5] x) => (y) { y = Gelu (x) }"},
    {"Gelu tanh", ANY, "g (float[3,5] x) => (y) { y = Gelu <approximate=\"tanh\"> (x) }"},
    {"Erf", ANY, "g (float[3,5] x) => (y) { y = Erf (x) }"},
    {"Sqrt", POSITIVE, "g (float[3,5] x) => (y) { y = Sqrt (x) }"},
    {"Exp", ANY, "g (float[3,5] x) => (y) { y = Exp (x) }"},
    {"Log", POSITIVE, "g (float[3,5] x) => (y) { y = Log (x) }"},
    {"Abs", ANY, "g (float[3,5] x) => (y) { y = Abs (x) }"},
    {"Reciprocal", POSITIVE, "g (float[3,5] x) => (y) { y = Reciprocal (x) }"},
    {"Neg", ANY, "g (float[3,5] x) => (y) { y = Neg (x) }"},
    {"Identity", ANY, "g (float[3,5] x) => (y) { y = Identity (x) }"},
    {"Dropout", ANY, "g (float[3,5] x) => (y) { y = Dropout (x) }"},
    {"Cast", ANY, "g (float[3,5] x) => (y) { d = Cast <to=11> (x) y = Cast <to=1> (d) }"},
    {"Add", ANY, "g (float[2,3,4] a, float[3,1] b) => (y) { y = Add (a, b) }"},
    {"Sub", ANY, "g (float[3,1] a, float[2,3,4] b) => (y) { y = Sub (a, b) }"},
    {"Mul", ANY, "g (float[2,3,4] a, float[4] b) => (y) { y = Mul (a, b) }"},
    {"Mul square", ANY, "g (float[2,3] a) => (y) { y = Mul (a, a) }"},
    {"Div", POSITIVE, "g (float[2,3,4] a, float[3,1] b) => (y) { y = Div (a, b) }"},
    {"Pow", POSITIVE, "g (float[2,3] a, float[3] b) => (y) { y = Pow (a, b) }"},
    {"Pow 2", ANY, "g (float[2,3] a) => (y) <float e={2}> { y = Pow (a, e) }"},
    {"Pow 3", ANY, "g (float[2,3] a) => (y) <float e={3}> { y = Pow (a, e) }"},
    {"Max", APART, "g (float[2,3] a, float[3] b, float[2,1] c) => (y) { y = Max (a, b, c) }"},
    {"Min", APART, "g (float[2,3] a, float[3] b) => (y) { y = Min (a, b) }"},
    {"Sum", ANY, "g (float[2,3] a, float[3] b, float[2,1] c) => (y) { y = Sum (a, b, c) }"},
    {"PRelu", ANY, "g (float[2,3,4] x, float[3,1] s) => (y) { y = PRelu (x, s) }"},
    {"Where", ANY,
     "g (float[2,3] a, float[3] b) => (y) <float z={0.0}>"
     "{ c = Less (a, z) y = Where (c, a, b) }"},
    {"MaxPool", APART,
     "g (float[1,2,7,6] x) => (y)"
     "{ y = MaxPool <kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,0]> (x) }"},
    {"AveragePool", ANY,
     "g (float[1,2,7,6] x) => (y)"
     "{ y = AveragePool <kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,0]> (x) }"},
    {"AveragePool ceil", ANY,
     "g (float[1,2,6,6] x) => (y) { y = AveragePool <kernel_shape=[3,3], strides=[2,2],"
     "ceil_mode=1, count_include_pad=1, pads=[0,0,1,1]> (x) }"},
    {"GlobalAveragePool", ANY, "g (float[2,3,4,2] x) => (y) { y = GlobalAveragePool (x) }"},
    {"GlobalMaxPool", APART, "g (float[2,3,4,2] x) => (y) { y = GlobalMaxPool (x) }"},
    {"BatchNormalization", POSITIVE,
     "g (float[2,3,4,2] x, float[3] s, float[3] b) => (y) <float[3] m={0.1,0.2,0.3},"
     "float[3] v={0.5,1.0,2.0}> { y = BatchNormalization <epsilon=0.001> (x, s, b, m, v) }"},
    {"LayerNormalization", ANY,
     "g (float[2,3,4] x, float[4] s, float[4] b) => (y)"
     "{ y = LayerNormalization <axis=-1, epsilon=0.1> (x, s, b) }"},
    {"LayerNormalization over two axes", ANY,
     "g (float[2,3,4] x, float[3,4] s) => (y) { y = LayerNormalization <axis=1, epsilon=0.1> (x, "
     "s) }"},
    {"Softmax", ANY, "g (float[3,5] x) => (y) { y = Softmax (x) }"},
    {"Softmax axis 1", ANY, "g (float[2,4,3] x) => (y) { y = Softmax <axis=1> (x) }"},
    {"LogSoftmax", ANY, "g (float[3,5] x) => (y) { y = LogSoftmax (x) }"},
    {"ReduceSum", ANY,
     "g (float[2,3,4] x) => (y) <int64[2] a={0,-1}> { y = ReduceSum <keepdims=0> (x, a) }"},
    {"ReduceSum of all", ANY, "g (float[2,3,4] x) => (y) { y = ReduceSum <keepdims=0> (x) }"},
    {"ReduceMean", ANY, "g (float[2,3,4] x) => (y) <int64[1] a={1}> { y = ReduceMean (x, a) }"},
    {"ReduceMax", APART,
     "g (float[2,3,4] x) => (y) <int64[2] a={0,2}> { y = ReduceMax <keepdims=0> (x, a) }"},
    {"ReduceMin", APART, "g (float[2,3,4] x) => (y) <int64[1] a={1}> { y = ReduceMin (x, a) }"},
    {"Reshape", ANY, "g (float[2,3,4] x) => (y) <int64[2] s={0,-1}> { y = Reshape (x, s) }"},
    {"Flatten", ANY, "g (float[2,3,4] x) => (y) { y = Flatten <axis=2> (x) }"},
    {"Squeeze", ANY, "g (float[2,1,4] x) => (y) <int64[1] a={1}> { y = Squeeze (x, a) }"},
    {"Unsqueeze", ANY, "g (float[2,4] x) => (y) <int64[1] a={1}> { y = Unsqueeze (x, a) }"},
    {"Transpose", ANY, "g (float[2,3,4] x) => (y) { y = Transpose <perm=[2,0,1]> (x) }"},
    {"Transpose all", ANY, "g (float[2,3,4] x) => (y) { y = Transpose (x) }"},
    {"Expand", ANY, "g (float[3,1] x) => (y) <int64[3] s={2,1,4}> { y = Expand (x, s) }"},
    {"Concat", ANY, "g (float[2,3] a, float[2,2] b) => (y) { y = Concat <axis=-1> (a, b) }"},
    {"Split", ANY,
     "g (float[2,5] x) => (y) <int64[2] s={2,3}, int64[1] a={1}>"
     "{ p, q = Split <axis=1> (x, s) r = ReduceSum (q, a) y = Mul (p, r) }"},
    {"Split of which one is unused", ANY,
     "g (float[2,5] x) => (y) <int64[2] s={2,3}> { p, q = Split <axis=1> (x, s) y = Neg (q) }"},
    {"Slice", ANY,
     "g (float[4,6] x) => (y) <int64[2] b={3,1}, int64[2] e={-9,6}, int64[2] a={0,1},"
     "int64[2] s={-2,2}> { y = Slice (x, b, e, a, s) }"},
    {"Pad", ANY,
     "g (float[2,3] x) => (y) <int64[4] p={0,1,2,0}, float v={0.5}> { y = Pad (x, p, v) }"},
    {"Pad that crops", ANY,
     "g (float[4,3] x) => (y) <int64[2] p={-1,2}, int64[1] a={0}> { y = Pad (x, p, , a) }"},
    {"Gather", ANY,
     "g (float[2,4,3] x) => (y) <int64[2,2] i={3,1,1,-4}> { y = Gather <axis=1> (x, i) }"},
};

/* Rules that are never differentiated again. */
static const Case first_order[] = {
    {"BatchNormTrain", ANY,
     "g (float[3,2,2,2] x, float[2] s, float[2] b) => (y)"
     "{ y, m, v = ehap.BatchNormTrain <epsilon=0.001> (x, s, b) }"},
};

/* ---- running ------------------------------------------------------------------------ */

enum { MAX_X = 4 };
static const double step = 4e-3;

static uint64_t seed = 1;

static double uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(seed >> 40) / (double)(1 << 24);
}

static float *numbers(Arena *a, int64_t n, Data data)
{
    float *x = NEW_ARRAY(a, float, n);
    for (int64_t i = 0; i < n; i++) {
        double r = uniform();
        x[i] = (float)(data == POSITIVE ? 0.5 + r : uniform() < 0.5 ? 0.3 + r : -0.3 - r);
    }
    if (data != APART) return x;
    for (int64_t i = 0; i < n; i++) x[i] = (float)i / 16 - 1;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t k = (int64_t)(uniform() * (double)(i + 1));
        float t = x[i];
        x[i] = x[k];
        x[k] = t;
    }
    return x;
}

typedef struct Setup {
    Arena *a;
    Graph *g;
    Diag d;
    int nx;
    Value *x[MAX_X], *u[MAX_X], *y, *c; /* u and c are inputs behind the x */
    float *xs[MAX_X], *us[MAX_X], *cs;
} Setup;

static Setup setup(const Case *t)
{
    Setup s = {.a = arena_new(), .d = diag_stderr(t->name)};
    if (ir_parse(&s.g, s.a, t->text, strlen(t->text), NULL, &s.d) < 0) fail_msg("%s", t->name);
    s.nx = s.g->ninputs;
    s.y = s.g->outputs[0];
    int64_t total = 0;
    for (int i = 0; i < s.nx; i++) total += type_count(&s.g->inputs[i]->type);
    float *all = numbers(s.a, total, t->data); /* different across inputs, too */
    for (int i = 0; i < s.nx; i++) {
        s.x[i] = s.g->inputs[i];
        s.xs[i] = all;
        all += type_count(&s.x[i]->type);
    }
    for (int i = 0; i < s.nx; i++) {
        s.u[i] = graph_add_input(s.g, "u", s.x[i]->type);
        s.us[i] = numbers(s.a, type_count(&s.x[i]->type), ANY);
    }
    s.c = graph_add_input(s.g, "c", s.y->type);
    s.cs = numbers(s.a, type_count(&s.y->type), ANY);
    s.g->outputs = NULL;
    s.g->noutputs = 0;
    return s;
}

/* Runs the graph at x + h u and reads all outputs, end to end. */
static double *run(Setup *s, double h)
{
    Program *p;
    Instance *inst;
    ProgramOptions o = {.device = "ref"};
    int64_t total = 0, at = 0;
    assert_int_equal(program_compile(&p, s->g, &o, &s->d), 0);
    assert_int_equal(instance_new(&inst, p, &s->d), 0);
    for (int i = 0; i < s->nx; i++) {
        int64_t n = type_count(&s->x[i]->type);
        float *x = NEW_ARRAY(s->a, float, n);
        for (int64_t k = 0; k < n; k++)
            x[k] = (float)((double)s->xs[i][k] + h * (double)s->us[i][k]);
        instance_bind(inst, i, x);
        instance_bind(inst, s->nx + i, s->us[i]);
    }
    instance_bind(inst, 2 * s->nx, s->cs);
    instance_run_all(inst);
    for (int o2 = 0; o2 < s->g->noutputs; o2++) total += type_count(&s->g->outputs[o2]->type);
    float *out = NEW_ARRAY(s->a, float, total);
    double *wide = NEW_ARRAY(s->a, double, total);
    for (int o2 = 0; o2 < s->g->noutputs; o2++) {
        instance_read(inst, o2, out + at);
        at += type_count(&s->g->outputs[o2]->type);
    }
    for (int64_t k = 0; k < total; k++) wide[k] = (double)out[k];
    instance_free(inst);
    program_free(p);
    return wide;
}

static double dot(const double *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t k = 0; k < n; k++) sum += a[k] * (double)b[k];
    return sum;
}

static void check_close(const char *name, const char *what, double got, double want)
{
    if (fabs(got - want) <= 2e-3 * (1 + fabs(want))) return;
    fail_msg("%s: %s is %.6g, should be %.6g", name, what, got, want);
}

/* got[n] against (hi - lo) / 2h; some must not be zero, unless the map is known to be flat. */
static void check_difference(const char *name, const char *what, const double *got,
                             const double *hi, const double *lo, int64_t n, bool flat)
{
    bool any = flat;
    for (int64_t k = 0; k < n; k++) {
        check_close(name, what, got[k], (hi[k] - lo[k]) / (2 * step));
        any |= fabs(got[k]) > 1e-4;
    }
    if (!any) fail_msg("%s: %s is all zeros", name, what);
}

static void check_first(const Case *t, bool tangent)
{
    Setup s = setup(t);
    Value *dx[MAX_X], *dy = NULL;
    int64_t ny = type_count(&s.y->type), at = ny;
    graph_add_output(s.g, s.y);
    assert_int_equal(ad_vjp(s.g, 1, &s.y, &s.c, s.nx, s.x, dx, &s.d), 0);
    for (int i = 0; i < s.nx; i++) {
        assert_non_null(dx[i]);
        assert_true(type_equal(&dx[i]->type, &s.x[i]->type));
        graph_add_output(s.g, dx[i]);
    }
    if (tangent) {
        assert_int_equal(ad_jvp(s.g, s.nx, s.x, s.u, 1, &s.y, &dy, &s.d), 0);
        assert_true(type_equal(&dy->type, &s.y->type));
        graph_add_output(s.g, dy);
    }
    double *mid = run(&s, 0), *hi = run(&s, step), *lo = run(&s, -step), along = 0, by_rule = 0;
    for (int64_t k = 0; k < ny; k++) along += (hi[k] - lo[k]) / (2 * step) * (double)s.cs[k];
    for (int i = 0; i < s.nx; i++) {
        by_rule += dot(mid + at, s.us[i], type_count(&s.x[i]->type));
        at += type_count(&s.x[i]->type);
    }
    check_close(t->name, "vjp", by_rule, along);
    if (tangent) check_difference(t->name, "jvp", mid + at, hi, lo, ny, false);
    if (tangent) check_close(t->name, "<c, Ju>", dot(mid + at, s.cs, ny), by_rule);
    if (fabs(by_rule) < 1e-6) fail_msg("%s: <J'c, u> is zero", t->name);
    arena_free(s.a);
}

/* Each input's own cotangent, with the others still. */
static void check_each_input(const Case *t)
{
    for (int i = 0;; i++) {
        Setup s = setup(t);
        int nx = s.nx;
        if (i < nx) {
            Value *dx;
            int64_t ny = type_count(&s.y->type);
            for (int k = 0; k < nx; k++)
                if (k != i) memset(s.us[k], 0, (size_t)type_count(&s.x[k]->type) * sizeof(float));
            graph_add_output(s.g, s.y);
            assert_int_equal(ad_vjp(s.g, 1, &s.y, &s.c, 1, &s.x[i], &dx, &s.d), 0);
            graph_add_output(s.g, dx);
            double *mid = run(&s, 0), *hi = run(&s, step), *lo = run(&s, -step), along = 0;
            for (int64_t k = 0; k < ny; k++)
                along += (hi[k] - lo[k]) / (2 * step) * (double)s.cs[k];
            check_close(t->name, "vjp of one input",
                        dot(mid + ny, s.us[i], type_count(&s.x[i]->type)), along);
        }
        arena_free(s.a);
        if (i + 1 >= nx) return;
    }
}

/* jvp of vjp: the derivative of J(x)'c along u. Cotangents that do not move give NULL. */
static void check_second(const Case *t)
{
    Setup s = setup(t);
    Value *dx[MAX_X], *ddx[MAX_X];
    int64_t total = 0, at = 0;
    assert_int_equal(ad_vjp(s.g, 1, &s.y, &s.c, s.nx, s.x, dx, &s.d), 0);
    assert_int_equal(ad_jvp(s.g, s.nx, s.x, s.u, s.nx, dx, ddx, &s.d), 0);
    for (int i = 0; i < s.nx; i++) {
        graph_add_output(s.g, dx[i]);
        total += type_count(&s.x[i]->type);
    }
    for (int i = 0; i < s.nx; i++)
        if (ddx[i]) graph_add_output(s.g, ddx[i]);
    double *mid = run(&s, 0), *hi = run(&s, step), *lo = run(&s, -step), *second = mid + total;
    for (int i = 0; i < s.nx; i++) {
        int64_t n = type_count(&s.x[i]->type);
        double *zeros = NEW_ARRAY(s.a, double, n);
        check_difference(t->name, "jvp of vjp", ddx[i] ? second : zeros, hi + at, lo + at, n, true);
        if (ddx[i]) second += n;
        at += n;
    }
    arena_free(s.a);
}

static void first_order_rules(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof second_order / sizeof *second_order; k++) {
        check_first(&second_order[k], true);
        check_each_input(&second_order[k]);
    }
    for (size_t k = 0; k < sizeof first_order / sizeof *first_order; k++) {
        check_first(&first_order[k], false);
        check_each_input(&first_order[k]);
    }
}

static void second_order_rules(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof second_order / sizeof *second_order; k++)
        check_second(&second_order[k]);
}

/* Rounding passes its gradient straight through inside the range and none outside, whether it is
 * simulated or a pair of the model's own; tangents likewise. */
static void straight_through(const char *text, bool tangent)
{
    const Case t = {"FakeQuant", ANY, text};
    static const float x[4] = {0.33f, -0.74f, 1.9f, -1.9f};
    Setup s = setup(&t);
    Value *dx;
    memcpy(s.xs[0], x, sizeof x);
    if (tangent)
        assert_int_equal(ad_jvp(s.g, 1, s.x, &s.c, 1, &s.y, &dx, &s.d), 0);
    else
        assert_int_equal(ad_vjp(s.g, 1, &s.y, &s.c, 1, s.x, &dx, &s.d), 0);
    assert_non_null(dx);
    graph_add_output(s.g, dx);
    double *got = run(&s, 0);
    for (int k = 0; k < 4; k++)
        check_close("FakeQuant", tangent ? "jvp" : "vjp", got[k], k < 2 ? (double)s.cs[k] : 0);
    arena_free(s.a);
}

static void fake_quant_is_straight_through(void **state)
{
    static const char *const forms[] = {
        "g (float[1,4] x) => (y) <float s={0.1}, float z={0.0}>"
        "{ y = ehap.FakeQuant <qmin=-8, qmax=7> (x, s, z) }",
        "g (float[1,4] x) => (y) <float s={0.01}, int8 z={20}>"
        "{ q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }",
    };
    (void)state;
    for (int k = 0; k < 2; k++) {
        straight_through(forms[k], false);
        straight_through(forms[k], true);
    }
}

static void count_errors(void *ctx, Severity sev, const char *text)
{
    if (sev == SEV_ERROR && strstr(text, "Compress")) ++*(int *)ctx;
}

static void a_missing_rule_is_named(void **state)
{
    static const Case t = {
        "Compress", ANY,
        "g (float[3] x) => (y) <bool[3] c = {1, 0, 1}> { y = Compress <axis = 0> (x, c) }"};
    (void)state;
    Setup s = setup(&t);
    Value *d;
    int named = 0;
    s.d = (Diag){.sink = count_errors, .ctx = &named};
    assert_int_equal(ad_vjp(s.g, 1, &s.y, &s.c, 1, s.x, &d, &s.d), -1);
    assert_int_equal(ad_jvp(s.g, 1, s.x, s.u, 1, &s.y, &d, &s.d), -1);
    assert_int_equal(named, 2);
    arena_free(s.a);
}

/* What does not depend on x has no gradient, and no zeros are made for it. */
static void zeros_stay_symbolic(void **state)
{
    static const Case t = {"zeros", ANY,
                           "g (float[3] x, float[3] z) => (y) { t = Add (x, x) y = Mul (t, x) }"};
    (void)state;
    Setup s = setup(&t);
    Value *dx[2], *dy;
    assert_int_equal(ad_vjp(s.g, 1, &s.y, &s.c, 2, s.x, dx, &s.d), 0);
    assert_non_null(dx[0]);
    assert_null(dx[1]);
    int before = s.g->nnodes;
    assert_int_equal(ad_jvp(s.g, 1, &s.x[1], &s.u[1], 1, &s.y, &dy, &s.d), 0);
    assert_null(dy);
    assert_int_equal(s.g->nnodes, before);
    arena_free(s.a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_order_rules),
        cmocka_unit_test(second_order_rules),
        cmocka_unit_test(fake_quant_is_straight_through),
        cmocka_unit_test(a_missing_rule_is_named),
        cmocka_unit_test(zeros_stay_symbolic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
