/* Every kernel of the CPU device against the reference device.
 *
 * A case is one node: op, inputs and attributes as short strings. It runs on random data with
 * its operands row-major and channels-last, in float and in half where the kernel takes it,
 * and in place where the kernel allows; results must agree with `ref` to rounding.
 *
 *   inputs, separated by spaces: "2x3x5x5" float, "u8:2x3" (likewise i8, i32, i64, f64, bool),
 * "i=1,2" an int64 constant,
 *   "-" omitted, ">0:8" positive numbers only, "grid:3" small scales
 *   attributes: "axis=1" int, "alpha=0.5" float, "pads=1,1" ints ("axes=1," of one), "mode=edge" */
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
#include "runtime/cpu/cpu.h"
#include "runtime/cpu/primitive.h"
#include "runtime/element.h"
#include "runtime/kernel.h"

typedef struct Case {
    Op op;
    const char *inputs, *attrs;
    int nout;
} Case;

static const Case cases[] = {
#define CASE(op, inputs, attrs, nout) {OP_##op, inputs, attrs, nout},
#include "cases_cpu.def"
#undef CASE
};

/* ---- from strings to a node ----------------------------------------------------------- */

typedef struct Input {
    bool omitted, constant, positive, grid;
    Type type;
    int64_t ints[MAX_RANK * 2];
} Input;

static int read_list(const char *s, char separator, int64_t *out)
{
    int n = 0;
    while (*s) {
        char *end;
        out[n++] = strtoll(s, &end, 10);
        s = *end == separator ? end + 1 : end;
    }
    return n;
}

static Input read_operand(const char *s)
{
    Input o = {.type = {.dtype = DT_F32}};
    static const struct {
        const char *prefix;
        DType dtype;
    } types[] = {{"u8:", DT_U8},   {"i8:", DT_I8},     {"i32:", DT_I32},
                 {"i64:", DT_I64}, {"bool:", DT_BOOL}, {"f64:", DT_F64}};
    if (strcmp(s, "-") == 0) {
        o.omitted = true;
        return o;
    }
    if (strncmp(s, "i=", 2) == 0) {
        int n = read_list(s + 2, ',', o.ints);
        o.constant = true;
        o.type = type_of(DT_I64, 1, (int64_t[]){n});
        return o;
    }
    for (size_t k = 0; k < sizeof types / sizeof *types; k++)
        if (strncmp(s, types[k].prefix, strlen(types[k].prefix)) == 0)
            o.type.dtype = types[k].dtype;
    o.positive = strncmp(s, ">0:", 3) == 0;
    o.grid = strncmp(s, "grid:", 5) == 0;
    const char *colon = strchr(s, ':');
    o.type.rank = read_list(colon ? colon + 1 : s, 'x', o.type.dim);
    return o;
}

static Attr read_attr(Arena *a, const char *s)
{
    const char *eq = strchr(s, '=');
    char *name = arena_printf(a, "%.*s", (int)(eq - s), s), *value = arena_strdup(a, eq + 1);
    int64_t *list = NEW_ARRAY(a, int64_t, 16);
    if ((*value >= 'a' && *value <= 'z') || (*value >= 'A' && *value <= 'Z'))
        return attr_str(name, value);
    if (strchr(value, ',')) {
        int n = read_list(value, ',', list);
        return attr_ints(name, (size_t)n, list);
    }
    if (strchr(value, '.')) return attr_float(name, strtof(value, NULL));
    return attr_int(name, strtoll(value, NULL, 10));
}

enum { MAX_IN = 9 };

typedef struct Problem {
    Arena *arena;
    Node *node;
    Input in[MAX_IN];
    int nin, nout;
} Problem;

static Problem make_problem(const Case *c)
{
    Problem p = {.arena = arena_new(), .nout = c->nout};
    Graph *g = graph_new(p.arena, "case");
    Value *in[MAX_IN] = {0};
    Diag d = diag_stderr(NULL);
    char *save = NULL, *text = arena_strdup(p.arena, c->inputs);
    for (char *s = strtok_r(text, " ", &save); s; s = strtok_r(NULL, " ", &save)) {
        Input o = p.in[p.nin] = read_operand(s);
        if (o.constant)
            in[p.nin] = const_ints(g, (int)o.type.dim[0], o.ints);
        else if (!o.omitted)
            in[p.nin] = graph_add_input(g, NULL, o.type);
        p.nin++;
    }
    p.node = node_new(g, c->op, p.nin, in, p.nout);
    for (int o = 0; o < p.nout; o++) p.node->out[o] = value_new(g, NULL, (Type){.rank = -1});
    text = arena_strdup(p.arena, c->attrs);
    for (char *s = strtok_r(text, " ", &save); s; s = strtok_r(NULL, " ", &save))
        node_set_attr(g, p.node, read_attr(p.arena, s));
    node_append(g, p.node);
    assert_int_equal(node_infer(p.node, &d), 0);
    return p;
}

/* ---- tensors ------------------------------------------------------------------------- */

typedef struct Variant {
    bool last;
    DType storage;
    int inplace; /* input whose memory out[0] takes, or -1 */
} Variant;

static Tensor make_tensor(Arena *a, Type t, const Variant *v)
{
    Tensor x = {.dtype = t.dtype == DT_F32 ? v->storage : t.dtype, .rank = t.rank};
    memcpy(x.dim, t.dim, sizeof x.dim);
    tensor_set_strides(&x, v->last && t.rank >= 3);
    x.data = arena_alloc(a, (size_t)tensor_count(&x) * dtype_size(x.dtype) + 64);
    return x;
}

static void fill(const Tensor *t, const Input *o, Rng *r)
{
    for (int64_t i = 0; i < tensor_count(t); i++) {
        double x = (double)rng_normal(r);
        if (o->positive) x = 0.25 + fabs(x);
        if (o->grid) x = 0.02 + 0.01 * fabs(x);
        if (t->dtype == DT_U8) x = (double)rng_below(r, 256);
        if (t->dtype == DT_I8) x = (double)rng_below(r, 256) - 128;
        if (dtype_size(t->dtype) >= 4 && dtype_is_int(t->dtype)) x = (double)rng_below(r, 4);
        if (t->dtype == DT_BOOL) x = (double)rng_below(r, 2);
        if (o->constant) x = (double)o->ints[i];
        element_store(t, i, x);
    }
}

typedef struct Run {
    Tensor in[MAX_IN], out[MAX_IN];
} Run;

static Run make_run(Problem *p, const Variant *v, uint64_t seed)
{
    Run run;
    Rng r = rng_new(seed, 0);
    memset(&run, 0, sizeof run);
    for (int i = 0; i < p->nin; i++) {
        run.in[i].rank = -1;
        if (p->in[i].omitted) continue;
        Variant w = *v;
        if (p->in[i].constant) w.storage = DT_F32;
        run.in[i] = make_tensor(p->arena, p->in[i].type, &w);
        fill(&run.in[i], &p->in[i], &r);
    }
    for (int o = 0; o < p->nout; o++) run.out[o] = make_tensor(p->arena, p->node->out[o]->type, v);
    if (v->inplace >= 0) run.out[0].data = run.in[v->inplace].data;
    return run;
}

static void execute(const Device *dev, Problem *p, Run *run, bool constants)
{
    const Kernel *k = &dev->kernels[p->node->op];
    const void *data[MAX_IN] = {0};
    Diag d = diag_stderr(NULL);
    Prepare pr = {.node = p->node,
                  .in = run->in,
                  .out = run->out,
                  .nin = p->nin,
                  .nout = p->nout,
                  .const_data = data,
                  .diag = &d};
    for (int i = 0; i < p->nin; i++)
        if (constants || p->in[i].constant) data[i] = run->in[i].data;
    if (k->prepare) assert_int_equal(k->prepare(&pr), 0);
    if (k->release == cpu_primitive_release && run->in[0].dtype == DT_F32)
        assert_false(((const PrimitiveState *)pr.state)->naive);
    void *scratch = aligned_alloc(64, (pr.scratch + 127) & ~(size_t)63);
    assert_non_null(scratch);
    memset(scratch, 0xff, pr.scratch); /* NaN to whoever reads what it did not write */
    memset((char *)scratch + pr.scratch, 0x5a, 64 - pr.scratch % 64);
    k->run(p->node, pr.state, run->in, run->out, scratch);
    for (size_t i = pr.scratch; i % 64 != 0; i++)
        assert_int_equal(((unsigned char *)scratch)[i], 0x5a);
    if (k->release) k->release(pr.state);
    free(scratch);
}

/* ---- comparison ---------------------------------------------------------------------- */

static int64_t offset_of(const Tensor *t, int64_t k)
{
    int64_t offset = 0;
    for (int i = t->rank - 1; i >= 0; i--) {
        offset += k % t->dim[i] * t->stride[i];
        k /= t->dim[i];
    }
    return offset;
}

static void compare(const Case *c, const Variant *v, const Tensor *got, const Tensor *want, int o)
{
    double tolerance = v->storage == DT_F32 ? 2e-5 : v->storage == DT_F16 ? 2e-3 : 1.6e-2;
    for (int64_t k = 0; k < tensor_count(want); k++) {
        double a = element_load(got, offset_of(got, k)), b = element_load(want, offset_of(want, k));
        if (a == b || (isnan(a) && isnan(b))) continue;
        if (fabs(a - b) <= tolerance * (1 + fabs(b))) continue;
        fail_msg("%s (%s) <%s> %s %s inplace %d: output %d element %lld is %g, ref says %g",
                 op_info[c->op].name, c->inputs, c->attrs, v->last ? "channels-last" : "row-major",
                 dtype_name(v->storage), v->inplace, o, (long long)k, a, b);
    }
}

static void check(const Case *c, const Variant *v)
{
    for (int constants = 0; constants < 2; constants++) {
        Problem p = make_problem(c);
        Variant apart = *v;
        apart.inplace = -1;
        Run got = make_run(&p, v, 7), want = make_run(&p, &apart, 7);
        execute(&device_cpu, &p, &got, constants);
        execute(&device_ref, &p, &want, constants);
        for (int o = 0; o < p.nout; o++) compare(c, v, &got.out[o], &want.out[o], o);
        arena_free(p.arena);
        if (v->inplace >= 0) return;
    }
}

static bool can_share(const Problem *p, int i)
{
    return !p->in[i].omitted && !p->in[i].constant &&
           type_equal(&p->in[i].type, &p->node->out[0]->type);
}

static void check_case(const Case *c)
{
    static const DType storage[] = {DT_F32, DT_F16, DT_BF16};
    static const unsigned needs[] = {0, KF_F16, KF_BF16};
    unsigned flags = device_cpu.kernels[c->op].flags;
    for (int last = 0; last < (flags & KF_ROW_MAJOR ? 1 : 2); last++)
        for (int k = 0; k < 3; k++) {
            if ((flags & needs[k]) != needs[k]) continue;
            check(c, &(Variant){last, storage[k], -1});
            if (!(flags & KF_INPLACE)) continue;
            Problem p = make_problem(c);
            for (int i = 0; i < p.nin; i++)
                if (can_share(&p, i)) check(c, &(Variant){last, storage[k], i});
            arena_free(p.arena);
        }
}

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_case(&cases[i]);
}

/* What ref can do, cpu can; and there is a case for each kernel of its own. (That every op has a
 * case is checked in tests/ops.) */
static void test_complete(void **state)
{
    (void)state;
    for (int op = 0; op < OP_COUNT; op++) {
        bool tested = device_cpu.kernels[op].run == cpu_naive_run;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            tested = tested || device_cpu.kernels[cases[i].op].run == device_cpu.kernels[op].run;
        if (!device_ref.kernels[op].run) continue;
        if (!device_cpu.kernels[op].run) fail_msg("%s has no cpu kernel", op_info[op].name);
        if (!tested) fail_msg("%s has no case", op_info[op].name);
    }
}

/* Signs are the same bits on every device. */
static void test_rademacher_bits(void **state)
{
    static const Case c = {OP_Rademacher, "i=42,7", "shape=3,5,7,11 stream=9", 1};
    (void)state;
    for (int last = 0; last < 2; last++) {
        Problem p = make_problem(&c);
        Variant v = {last, DT_F32, -1}, plain = {false, DT_F32, -1};
        Run got = make_run(&p, &v, 1), want = make_run(&p, &plain, 1);
        execute(&device_cpu, &p, &got, true);
        execute(&device_ref, &p, &want, true);
        for (int64_t k = 0; k < tensor_count(&want.out[0]); k++)
            assert_true(element_load(&got.out[0], offset_of(&got.out[0], k)) ==
                        element_load(&want.out[0], k));
        arena_free(p.arena);
    }
}

/* One prepared kernel, run by several threads at once, gives the bits of one thread. */
static void test_threads(void **state)
{
    static const Case c = {OP_Conv, "4x24x9x9 40x24x3x3 40", "pads=1,1,1,1", 1};
    enum { THREADS = 4 };
    (void)state;
    Problem p = make_problem(&c);
    Variant v = {true, DT_F32, -1};
    Run run[THREADS];
    for (int t = 0; t < THREADS; t++) run[t] = make_run(&p, &v, 3);
    const Kernel *k = &device_cpu.kernels[OP_Conv];
    Diag d = diag_stderr(NULL);
    Prepare pr = {
        .node = p.node, .in = run[0].in, .out = run[0].out, .nin = 3, .nout = 1, .diag = &d};
    assert_int_equal(k->prepare(&pr), 0);
#pragma omp parallel for num_threads(THREADS) schedule(static, 1)
    for (int t = 0; t < THREADS; t++) {
        void *scratch = aligned_alloc(64, (pr.scratch + 127) & ~(size_t)63);
        for (int repeat = 0; repeat < 5; repeat++)
            k->run(p.node, pr.state, run[t].in, run[t].out, scratch);
        free(scratch);
    }
    size_t bytes = (size_t)tensor_count(&run[0].out[0]) * sizeof(float);
    for (int t = 1; t < THREADS; t++)
        assert_memory_equal(run[t].out[0].data, run[0].out[0].data, bytes);
    k->release(pr.state);
    arena_free(p.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_complete),
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_rademacher_bits),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
