/* The programs of hvp.h on a small network with everything in it: residual, BatchNormalization,
 * pool, depthwise convolution, two kinds of product. */
#include "passes/simplify/contract.h"
#include "tests/unit/hvp_fixture.h"

/* ACT is smooth where finite differences are taken. */
#define NET(ACT, POOL)                                                                             \
    "net (float[N,2,6,6] x, float[4,2,3,3] w1, float[4] b1, float[4,4,3,3] w2, float[4] s,"        \
    "float[4] b2, float[4] m, float[4] v, float[4,1,3,3] w3, float[5,16] w4, float[5] b4,"         \
    "float[5,3] w5) => (y) {"                                                                      \
    "c1 = Conv <pads=[1,1,1,1]> (x, w1, b1) r1 = " ACT " (c1)"                                     \
    "c2 = Conv <pads=[1,1,1,1]> (r1, w2) n2 = BatchNormalization (c2, s, b2, m, v)"                \
    "a2 = Add (n2, r1) r2 = " ACT " (a2) p2 = " POOL " <kernel_shape=[2,2], strides=[2,2]> (r2)"   \
    "c3 = Conv <group=4, strides=[2,2], pads=[1,1,1,1]> (p2, w3) f = Flatten (c3)"                 \
    "c4 = Gemm <transB=1, alpha=0.5> (f, w4, b4) r4 = Sigmoid (c4)"                                \
    "z = MatMul (r4, w5) y = Softmax <axis=-1> (z) }"

enum { BATCH = 3, LAYERS = 5, CHANNELS = 4 + 4 + 4 + 5 + 3 };
static const int channels[LAYERS] = {4, 4, 4, 5, 3};

static void hvp(float *q, Net *n, const HvpOptions *o, const Binding *b)
{
    Hvp h;
    assert_int_equal(hvp_build(&h, n->g, n->a, BATCH, o, &n->d), 0);
    assert_int_equal(h.nlayers, LAYERS);
    assert_int_equal(h.batch, BATCH);
    for (int i = 0; i < LAYERS; i++) assert_int_equal(h.layers[i].channels, channels[i]);
    Runner r = runner_new(&h, "ref", &n->d);
    run(r, &h, n, b, q);
    runner_free(r);
}

/* The direction that hvp_build draws for one layer, by a program of its own. */
static float *direction(Net *n, const ScoredLayer *l, int stream, bool gate, const int64_t *key)
{
    Graph *g = graph_new(n->a, "v");
    Value *k = graph_add_input(g, "key", (Type){DT_I64, 1, {2}});
    Type t = l->weight->type;
    int64_t count = type_count(&t), inner = 1;
    for (int i = 0; gate && i < t.rank; i++) t.dim[i] = i == l->axis ? t.dim[i] : 1;
    graph_add_output(
        g, build(g, OP_Rademacher, IN(k),
                 ATTRS(attr_ints("shape", (size_t)t.rank, t.dim), attr_int("stream", stream))));
    Hvp h = {.g = g, .stage = (uint8_t[]){0}};
    Runner r = runner_new(&h, "ref", &n->d);
    float *v = NEW_ARRAY(n->a, float, count), *s = NEW_ARRAY(n->a, float, count);
    instance_bind(r.i, 0, key);
    instance_run_all(r.i);
    instance_read(r.i, 0, s);
    runner_free(r);
    if (!gate) return s;
    for (int i = l->axis + 1; i < l->weight->type.rank; i++) inner *= l->weight->type.dim[i];
    const float *w = l->weight->data;
    for (int64_t i = 0; i < count; i++) v[i] = w[i] * s[i / inner % l->channels];
    return v;
}

/* The gradients of all scored weights of the model as it is, by ad_grad on `loss`. */
static void gradients(Net *n, const HvpOptions *o, float **grad)
{
    ScoredLayer *l;
    Hvp h = {.stage = (uint8_t[]){1, 1}, .in_key = -1, .in_class = -1};
    int64_t dims[1] = {BATCH};
    h.g = graph_specialize(n->g, n->a, dims, &n->d);
    h.nlayers = scored_layers(h.g, n->a, &l);
    h.in_loss_scale = h.in_probe_scale = -1;
    h.in_target = 1;
    Value *z = graph_logits(h.g), *w[LAYERS], *dw[LAYERS];
    Value *t = graph_add_input(h.g, "t", z->type);
    Value *loss = o->loss == LOSS_MSE ? loss_mse(h.g, z, t, o->total)
                                      : loss_cross_entropy(h.g, z, t, o->total);
    for (int i = 0; i < LAYERS; i++) w[i] = l[i].weight;
    assert_int_equal(ad_grad(h.g, loss, LAYERS, w, dw, &n->d), 0);
    h.out_layer = (int[LAYERS]){0, 1, 2, 3, 4};
    int64_t total = 0;
    h.g->noutputs = 0;
    for (int i = 0; i < LAYERS; i++) {
        graph_add_output(h.g, dw[i]);
        total += type_count(&dw[i]->type);
    }
    float *all = NEW_ARRAY(n->a, float, total);
    Runner r = runner_new(&h, "ref", &n->d);
    run(r, &h, n, &plain, all);
    runner_free(r);
    for (int i = 0; i < LAYERS; i++) {
        grad[i] = all;
        all += type_count(&dw[i]->type);
    }
}

/* Moves all scored weights by h v. */
static void move(const ScoredLayer *l, float *const *base, float *const *v, double h)
{
    for (int i = 0; i < LAYERS; i++) {
        float *w = (float *)(uintptr_t)l[i].weight->data;
        for (int64_t k = 0; k < type_count(&l[i].weight->type); k++)
            w[k] = (float)((double)base[i][k] + h * (double)v[i][k]);
    }
}

/* Per channel of `axis`: the sum of a * b. */
static void channel_sums(const ScoredLayer *l, const float *a, const float *b, double factor,
                         float *out)
{
    int64_t inner = 1;
    for (int i = l->axis + 1; i < l->weight->type.rank; i++) inner *= l->weight->type.dim[i];
    double sum[8] = {0};
    for (int64_t k = 0; k < type_count(&l->weight->type); k++)
        sum[k / inner % l->channels] += (double)a[k] * (double)b[k] * factor;
    for (int c = 0; c < l->channels; c++) out[c] += (float)sum[c];
}

static void check_against_differences(const HvpOptions *o)
{
    Net n = net_new(NET("Tanh", "AveragePool"), BATCH);
    ScoredLayer *l;
    float *v[LAYERS], *base[LAYERS], *hi[LAYERS], *lo[LAYERS];
    float q[CHANNELS], want[CHANNELS] = {0}, *at = want;
    const double step = 2e-3;
    hvp(q, &n, o, &plain);
    scored_layers(n.g, n.a, &l);
    for (int i = 0; i < LAYERS; i++) {
        v[i] = direction(&n, &l[i], i, o->probe == PROBE_GATE, plain.key);
        base[i] = arena_memdup(n.a, l[i].weight->data, (size_t)type_bytes(&l[i].weight->type));
    }
    move(l, base, v, step);
    gradients(&n, o, hi);
    move(l, base, v, -step);
    gradients(&n, o, lo);
    for (int i = 0; i < LAYERS; i++) {
        channel_sums(&l[i], v[i], hi[i], 1 / (2 * step), at);
        channel_sums(&l[i], v[i], lo[i], -1 / (2 * step), at);
        at += channels[i];
    }
    check_close("q", q, want, CHANNELS, 2e-3);
    arena_free(n.a);
}

static void hessian_is_that_of_differences(void **state)
{
    static const HvpOptions all[] = {
        {.loss = LOSS_CROSS_ENTROPY, .total = 3},
        {.loss = LOSS_MSE, .total = 2},
        {.loss = LOSS_CROSS_ENTROPY, .total = 1, .probe = PROBE_GATE},
    };
    (void)state;
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) check_against_differences(&all[k]);
}

/* u'Hv = v'Hu, with u and v from two keys. */
static void hessian_is_symmetric(void **state)
{
    (void)state;
    Net n = net_new(NET("Relu", "MaxPool"), BATCH);
    ScoredLayer *l;
    int64_t dims[1] = {BATCH};
    Graph *g = graph_specialize(n.g, n.a, dims, &n.d);
    int k = scored_layers(g, n.a, &l);
    Value *z = graph_logits(g), *w[LAYERS], *dir[2][LAYERS], *grad[LAYERS], *hv[LAYERS];
    Value *key[2], *target = graph_add_input(g, "t", z->type), *form[2] = {NULL};
    Value *loss = loss_cross_entropy(g, z, target, 1);
    for (int s = 0; s < 2; s++) key[s] = graph_add_input(g, "key", (Type){DT_I64, 1, {2}});
    g->noutputs = 0;
    for (int i = 0; i < k; i++) w[i] = l[i].weight;
    assert_int_equal(ad_grad(g, loss, k, w, grad, &n.d), 0);
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < k; i++)
            dir[s][i] = build(g, OP_Rademacher, IN(key[s]),
                              ATTRS(attr_ints("shape", (size_t)w[i]->type.rank, w[i]->type.dim),
                                    attr_int("stream", i)));
    for (int s = 0; s < 2; s++) {
        assert_int_equal(ad_jvp(g, k, w, dir[s], k, grad, hv, &n.d), 0);
        for (int i = 0; i < k; i++) {
            Value *p = build(g, OP_Mul, IN(dir[1 - s][i], hv[i]), NO_ATTRS);
            p = build(g, OP_ReduceSum, IN(p), ATTRS(attr_int("keepdims", 0)));
            form[s] = form[s] ? build(g, OP_Add, IN(form[s], p), NO_ATTRS) : p;
        }
        graph_add_output(g, form[s]);
    }
    Hvp h = {.g = g, .stage = (uint8_t[]){0, 0, 0, 0}};
    Runner r = runner_new(&h, "ref", &n.d);
    float got[2];
    bind(r, 0, n.x);
    bind(r, 1, n.target);
    bind(r, 2, (int64_t[]){1, 0});
    bind(r, 3, (int64_t[]){2, 0});
    instance_run_all(r.i);
    for (int s = 0; s < 2; s++) instance_read(r.i, s, &got[s]);
    runner_free(r);
    check_close("u'Hv", &got[0], &got[1], 1, 1e-4);
    arena_free(n.a);
}

static int count_ops(const Graph *g, Op op)
{
    int n = 0;
    for (int k = 0; k < g->nnodes; k++) n += g->nodes[k]->op == op;
    return n;
}

static void contraction_changes_nothing_but_the_work(void **state)
{
    (void)state;
    Net n = net_new(NET("Relu", "MaxPool"), BATCH);
    HvpOptions o = {.total = 1}, naive = {.total = 1, .no_contract = true};
    Hvp h;
    float q[CHANNELS], want[CHANNELS];
    hvp(q, &n, &o, &plain);
    hvp(want, &n, &naive, &plain);
    check_close("q", q, want, CHANNELS, 1e-4);
    assert_int_equal(hvp_build(&h, n.g, n.a, BATCH, &o, &n.d), 0);
    assert_int_equal(count_ops(h.g, OP_ConvWgrad), 0);
    assert_int_equal(count_ops(h.g, OP_Rademacher), LAYERS);
    /* 3 primal, 3 conv(x, v), and 2 each of conv(dx, w), conv(dx, v): the first layer has no dx. */
    assert_int_equal(count_ops(h.g, OP_Conv), 3 + 3 + 2 + 2);
    arena_free(n.a);
}

static void scales_cancel(void **state)
{
    (void)state;
    Net n = net_new(NET("Relu", "MaxPool"), BATCH);
    HvpOptions o = {.total = 1};
    Binding b = plain;
    float q[CHANNELS], want[CHANNELS];
    hvp(want, &n, &o, &plain);
    b.loss_scale = 1024;
    b.probe_scale = 0.125f;
    hvp(q, &n, &o, &b);
    check_close("q", q, want, CHANNELS, 1e-5);
    b.key[1]++;
    hvp(q, &n, &o, &b);
    assert_true(memcmp(q, want, sizeof q) != 0);
    arena_free(n.a);
}

/* ---- first order -------------------------------------------------------------------- */

enum { GATES = BATCH * CHANNELS };

static void first_order(float *out, Net *n, const GradientOptions *o, int nruns, const Binding *b,
                        void (*each)(float *sum, const float *gates))
{
    Hvp h;
    float gates[GATES];
    assert_int_equal(gradient_build(&h, n->g, n->a, BATCH, o, &n->d), 0);
    assert_true(h.out_logits >= 0);
    Runner r = runner_new(&h, "ref", &n->d);
    for (int k = 0; k < nruns; k++) {
        run(r, &h, n, &b[k], gates);
        each(out, gates);
    }
    runner_free(r);
}

static void add(float *sum, const float *gates)
{
    for (int k = 0; k < GATES; k++) sum[k] += gates[k];
}

static void add_squares(float *sum, const float *gates)
{
    for (int k = 0; k < GATES; k++) sum[k] += gates[k] * gates[k];
}

static void add_channels(float *sum, const float *q)
{
    for (int k = 0; k < CHANNELS; k++) sum[k] += q[k];
}

/* Logits of the model as it is. */
static void logits(Net *n, float *z)
{
    Hvp h;
    GradientOptions o = {.cotangent = COTANGENT_LOSS};
    float gates[GATES];
    assert_int_equal(gradient_build(&h, n->g, n->a, BATCH, &o, &n->d), 0);
    Runner r = runner_new(&h, "ref", &n->d);
    run(r, &h, n, &plain, gates);
    instance_read(r.i, h.out_logits, z);
    runner_free(r);
}

static void softmax(const float *z, double *p)
{
    double sum = 0;
    for (int k = 0; k < CLASSES; k++) sum += p[k] = exp((double)z[k]);
    for (int k = 0; k < CLASSES; k++) p[k] /= sum;
}

/* The derivative of the logits by the gate of one channel of a vector-biased layer (weight `w`,
 * bias `b`, which the gate multiplies both). */
static void gate_jacobian(Net *n, Value *w, Value *b, int c, float *jacobian)
{
    const double step = 4e-3;
    int64_t inner = type_count(&w->type) / w->type.dim[0];
    float *wd = (float *)(uintptr_t)w->data + c * inner, *bd = (float *)(uintptr_t)b->data + c;
    float *row = arena_memdup(n->a, wd, (size_t)inner * sizeof(float)), bias = *bd;
    float z[2][BATCH * CLASSES];
    for (int s = 0; s < 2; s++) {
        double factor = s ? 1 - step : 1 + step;
        for (int64_t k = 0; k < inner; k++) wd[k] = (float)((double)row[k] * factor);
        *bd = (float)((double)bias * factor);
        logits(n, z[s]);
    }
    memcpy(wd, row, (size_t)inner * sizeof(float));
    *bd = bias;
    for (int k = 0; k < BATCH * CLASSES; k++)
        jacobian[k] = (float)(((double)z[0][k] - (double)z[1][k]) / (2 * step));
}

/* What the gates of layer 1 (convolution) and layer 4 (Gemm) should be, by differences. */
typedef struct Expected {
    float loss[BATCH * 9], curvature[BATCH * 9]; /* 4 channels, then 5 */
} Expected;

static void expect_gates(Net *n, Expected *e)
{
    ScoredLayer *l;
    float z[BATCH * CLASSES], j[BATCH * CLASSES];
    double p[CLASSES];
    scored_layers(n->g, n->a, &l);
    logits(n, z);
    for (int c = 0; c < 9; c++) {
        const ScoredLayer *m = c < 4 ? &l[0] : &l[3];
        gate_jacobian(n, m->weight, m->node->in[2], c < 4 ? c : c - 4, j);
        for (int k = 0; k < BATCH; k++) {
            double along = 0, mean = 0, square = 0;
            softmax(z + k * CLASSES, p);
            for (int i = 0; i < CLASSES; i++) {
                double d = (double)j[k * CLASSES + i];
                along += d * (p[i] - (double)n->target[k * CLASSES + i]);
                mean += p[i] * d;
                square += p[i] * d * d;
            }
            int at = c < 4 ? k * 4 + c : BATCH * 4 + k * 5 + c - 4;
            e->loss[at] = (float)along;
            e->curvature[at] = (float)(square - mean * mean);
        }
    }
}

static void check_gates(const char *what, const float *gates, const float *want, double tol)
{
    check_close(what, gates, want, BATCH * 4, tol);
    check_close(what, gates + BATCH * 12, want + BATCH * 4, BATCH * 5, tol);
}

static void gates_are_derivatives(void **state)
{
    (void)state;
    Net n = net_new(NET("Tanh", "AveragePool"), BATCH);
    GradientOptions loss = {.cotangent = COTANGENT_LOSS}, cls = {.cotangent = COTANGENT_CLASS};
    Expected e;
    Binding b[CLASSES] = {plain, plain, plain};
    float gates[GATES] = {0}, curvature[GATES] = {0};
    expect_gates(&n, &e);
    b[0].loss_scale = 16;
    first_order(gates, &n, &loss, 1, b, add);
    check_gates("gate", gates, e.loss, 2e-3);
    b[0].loss_scale = 1;
    for (int k = 0; k < CLASSES; k++) b[k].cls[k] = 1;
    first_order(curvature, &n, &cls, CLASSES, b, add_squares);
    check_gates("curvature", curvature, e.curvature, 5e-3);
    arena_free(n.a);
}

static void random_signs_estimate_gauss_newton(void **state)
{
    enum { RUNS = 1500 };
    (void)state;
    Net n = net_new(NET("Relu", "MaxPool"), BATCH);
    GradientOptions cls = {.cotangent = COTANGENT_CLASS}, signs = {.cotangent = COTANGENT_SIGNS};
    Binding *b = NEW_ARRAY(n.a, Binding, RUNS);
    float got[GATES] = {0}, want[GATES] = {0};
    for (int k = 0; k < RUNS; k++) {
        b[k] = plain;
        b[k].key[1] = k;
        if (k < CLASSES) b[k].cls[k] = 1;
    }
    first_order(want, &n, &cls, CLASSES, b, add_squares);
    first_order(got, &n, &signs, RUNS, b, add_squares);
    for (int k = 0; k < GATES; k++) got[k] /= RUNS;
    check_close("mean of squares", got, want, GATES, 0.1);
    arena_free(n.a);
}

static void squares_are_of_the_gradient(void **state)
{
    (void)state;
    Net n = net_new(NET("Relu", "MaxPool"), BATCH);
    GradientOptions o = {.cotangent = COTANGENT_LOSS, .what = GRADIENT_SQUARES};
    HvpOptions total = {.total = 1};
    ScoredLayer *l;
    float got[GATES] = {0}, want[CHANNELS] = {0}, *at = want, *grad[LAYERS];
    Binding b = plain;
    b.loss_scale = 4;
    first_order(got, &n, &o, 1, &b, add_channels);
    gradients(&n, &total, grad);
    scored_layers(n.g, n.a, &l);
    for (int i = 0; i < LAYERS; i++) {
        channel_sums(&l[i], grad[i], grad[i], 1, at);
        at += channels[i];
    }
    check_close("squares", got, want, CHANNELS, 1e-4);
    arena_free(n.a);
}

static void layers_and_gates_are_found(void **state)
{
    static const char *const gate[LAYERS] = {"c1", "n2", "c3", "c4", "z"};
    static const int axis[LAYERS] = {0, 0, 0, 0, 1};
    (void)state;
    Net n = net_new(NET("Relu", "MaxPool"), BATCH);
    ScoredLayer *l;
    assert_int_equal(scored_layers(n.g, n.a, &l), LAYERS);
    for (int i = 0; i < LAYERS; i++) {
        assert_string_equal(l[i].gate->name, gate[i]);
        assert_int_equal(l[i].axis, axis[i]);
        assert_int_equal(l[i].gate_axis, 1);
    }
    arena_free(n.a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_and_gates_are_found),
        cmocka_unit_test(hessian_is_that_of_differences),
        cmocka_unit_test(hessian_is_symmetric),
        cmocka_unit_test(contraction_changes_nothing_but_the_work),
        cmocka_unit_test(scales_cancel),
        cmocka_unit_test(gates_are_derivatives),
        cmocka_unit_test(random_signs_estimate_gauss_newton),
        cmocka_unit_test(squares_are_of_the_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
