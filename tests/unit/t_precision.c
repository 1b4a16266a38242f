/* lower_precision on the curvature programs of a residual network: results near those of FP32,
 * memory about half, overflow noticed and cured by the scales. */
#include <stdlib.h>

#include "frontend/frontend.h"
#include "tests/unit/hvp_fixture.h"

static const char net[] =
    "net (float[N,3,16,16] x, float[8,3,3,3] w1, float[8] b1, float[8,8,3,3] w2, float[8] s2,"
    "float[8] b2, float[8] m2, float[8] v2, float[16,8,3,3] w3, float[16,8,1,1] w4, float[3,16] w5)"
    "=> (z) {"
    "c1 = Conv <pads=[1,1,1,1]> (x, w1, b1) r1 = Relu (c1)"
    "c2 = Conv <pads=[1,1,1,1]> (r1, w2) n2 = BatchNormalization (c2, s2, b2, m2, v2)"
    "a2 = Add (n2, r1) r2 = Relu (a2) c3 = Conv <strides=[2,2], pads=[1,1,1,1]> (r2, w3)"
    "c4 = Conv <strides=[2,2]> (r2, w4) a3 = Add (c3, c4) r3 = Gelu (a3)"
    "p = GlobalAveragePool (r3) f = Flatten (p) z = Gemm <transB=1> (f, w5) }";

enum { BATCH = 8, LAYERS = 5, CHANNELS = 8 + 8 + 16 + 16 + 3 };

static Hvp build_hvp(Net *n, DType precision)
{
    Hvp h;
    HvpOptions o = {.total = BATCH, .precision = precision};
    assert_int_equal(hvp_build(&h, n->g, n->a, BATCH, &o, &n->d), 0);
    assert_int_equal(h.nlayers, LAYERS);
    assert_int_equal(graph_verify(h.g, &n->d), 0);
    return h;
}

static void second_order(DType precision, float loss_scale, float probe_scale, float tolerance)
{
    Net n = net_new(net, BATCH);
    Binding b = plain;
    float want[CHANNELS], got[CHANNELS];
    Hvp full = build_hvp(&n, DT_F32), half = build_hvp(&n, precision);
    Runner r = runner_new(&full, "ref", &n.d), s = runner_new(&half, "ref", &n.d);
    run(r, &full, &n, &b, want);
    b.loss_scale = loss_scale;
    b.probe_scale = probe_scale;
    run(s, &half, &n, &b, got);
    check_close("q", got, want, CHANNELS, tolerance);
    assert_true(memcmp(got, want, sizeof got) != 0);
    runner_free(r);
    runner_free(s);
    arena_free(n.a);
}

static void second_order_in_half(void **state)
{
    (void)state;
    second_order(DT_F16, 64, 0.25f, 0.02f);
    second_order(DT_BF16, 1, 1, 0.08f);
}

static void first_order_in_half(void **state)
{
    static const GradientKind kinds[] = {GRADIENT_GATES, GRADIENT_SQUARES};
    (void)state;
    Net n = net_new(net, BATCH);
    for (int k = 0; k < 2; k++) {
        float out[2][BATCH * CHANNELS] = {{0}};
        for (int p = 0; p < 2; p++) {
            GradientOptions o = {COTANGENT_SIGNS, kinds[k], p ? DT_F16 : DT_F32};
            Binding b = plain;
            Hvp h;
            b.loss_scale = p ? 256 : 1;
            assert_int_equal(gradient_build(&h, n.g, n.a, BATCH, &o, &n.d), 0);
            Runner r = runner_new(&h, "ref", &n.d);
            run(r, &h, &n, &b, out[p]);
            runner_free(r);
        }
        check_close("first order", out[1], out[0], BATCH * CHANNELS, 0.02);
    }
    arena_free(n.a);
}

/* Storage is what it says: large activations in half, the loss and all results in float. */
static void types_are_as_said(void **state)
{
    (void)state;
    Net n = net_new(net, BATCH);
    Hvp h = build_hvp(&n, DT_F16);
    int large = 0;
    for (int i = 0; i < h.g->ninputs; i++) assert_int_not_equal(h.g->inputs[i]->type.dtype, DT_F16);
    for (int o = 0; o < h.g->noutputs; o++) assert_int_equal(h.g->outputs[o]->type.dtype, DT_F32);
    for (int k = 0; k < h.g->nnodes; k++) {
        const Node *m = h.g->nodes[k];
        DType t = m->out[0]->type.dtype;
        bool wide = m->op == OP_LogSoftmax || m->op == OP_Softmax || m->op == OP_SumProduct;
        if (wide) assert_int_equal(t, DT_F32);
        if (m->op == OP_Conv || m->op == OP_ConvTranspose) {
            assert_int_equal(t, DT_F16);
            large++;
        }
    }
    assert_true(large > 10);
    arena_free(n.a);
}

/* Activations are rounded to their grid in half; the grid's numbers, and the weights that have one
 * of their own, stay float. */
static void grids_stay_float(void **state)
{
    static const char text[] =
        "net (float[2,3,16,16] x, float[16,3,3,3] w, float[16,16,3,3] u, float s, float z, "
        "float[16] sw,"
        "float[16] zw) => (y, dq, ds) {"
        "q = ehap.FakeQuant <qmin=0, qmax=255> (x, s, z) c = Conv <pads=[1,1,1,1]> (q, w)"
        "r = ehap.FakeQuant <qmin=0, qmax=255> (c, s, z)"
        "v = ehap.FakeQuant <qmin=-63, qmax=63, axis=0> (u, sw, zw)"
        "y = Conv <pads=[1,1,1,1]> (r, v)"
        "dq, ds = ehap.FakeQuantGrad <qmin=0, qmax=255> (y, c, s, z) }";
    Arena *a = arena_new();
    Diag d = diag_stderr("net");
    Graph *g;
    int narrow = 0, wide = 0;
    (void)state;
    assert_int_equal(ir_parse(&g, a, text, strlen(text), NULL, &d), 0);
    assert_int_equal(lower_precision(g, a, DT_BF16, &d), 0);
    assert_int_equal(graph_verify(g, &d), 0);
    for (int k = 0; k < g->nnodes; k++) {
        const Node *n = g->nodes[k];
        const bool grad = n->op == OP_FakeQuantGrad;
        if (n->op != OP_FakeQuant && !grad) continue;
        const Value *x = n->in[grad];
        for (int i = 1; i < 3; i++) assert_int_equal(n->in[i + grad]->type.dtype, DT_F32);
        if (grad) assert_int_equal(n->out[1]->type.dtype, DT_F32);
        *(x->type.dtype == DT_BF16 ? &narrow : &wide) += 1;
        assert_int_equal(x->type.dtype == DT_BF16, x->def != NULL);
    }
    assert_int_equal(narrow, 2);
    assert_int_equal(wide, 2);
    arena_free(a);
}

static void names_become_storage(void **state)
{
    static const PrecisionUse uses[] = {PRECISION_SCORES, PRECISION_TRAINING};
    const DType here = runtime_cpu_has_bf16() ? DT_BF16 : DT_F32;
    (void)state;
    for (int k = 0; k < 2; k++) {
        assert_int_equal(precision_for(NULL, uses[k], "cpu"), DT_F32);
        assert_int_equal(precision_for("fp16", uses[k], "cpu"), DT_F16);
        assert_int_equal(precision_for("auto", uses[k], "ref"), DT_F32);
        assert_int_equal(precision_for("half", uses[k], "cpu"), DT_NONE);
    }
    assert_int_equal(precision_for("auto", PRECISION_SCORES, "cpu"), DT_F32);
    assert_int_equal(precision_for("auto", PRECISION_TRAINING, "cpu"), here);
}

/* Too large a scale shows in the results; lower ones help without a rebuild. */
static void overflow_is_noticed(void **state)
{
    (void)state;
    Net n = net_new(net, BATCH);
    Hvp h = build_hvp(&n, DT_F16);
    Runner r = runner_new(&h, "ref", &n.d);
    Binding b = plain;
    float q[CHANNELS];
    int tries = 0;
    b.loss_scale = 0x1p24f;
    b.probe_scale = 16;
    do {
        run(r, &h, &n, &b, q);
        b.loss_scale /= 2;
        b.probe_scale /= 2;
    } while (hvp_overflowed(q, CHANNELS) && ++tries < 30);
    assert_in_range(tries, 1, 29);
    runner_free(r);
    arena_free(n.a);
}

static size_t planned_bytes(const Hvp *h, const char *device, Diag *d)
{
    Program *p;
    ProgramOptions o = {.device = device, .stage = h->stage};
    assert_int_equal(program_compile(&p, h->g, &o, d), 0);
    size_t bytes = program_peak_bytes(p);
    program_free(p);
    return bytes;
}

/* ResNet-20 as PyTorch's newer exporter writes it, a shard of 32 images. */
static void memory_is_sixty_percent(void **state)
{
    const char *shared = getenv("EHAP_SHARED");
    char path[4096];
    size_t bytes[2];
    Diag d = diag_stderr("resnet20");
    Graph *g;
    (void)state;
    snprintf(path, sizeof path, "%s/models/resnet20_cifar10_dynamo_op18.onnx",
             shared ? shared : TEST_DIR "/../../shared");
    FILE *f = fopen(path, "rb");
    if (!f) {
        print_message("skipped: no %s\n", path);
        skip();
    }
    fclose(f);
    Arena *a = arena_new();
    assert_int_equal(onnx_read(&g, a, path, &d), 0);
    for (int p = 0; p < 2; p++) {
        HvpOptions o = {.total = 32, .precision = p ? DT_F16 : DT_F32};
        Hvp h;
        assert_int_equal(hvp_build(&h, g, a, 32, &o, &d), 0);
        bytes[p] = planned_bytes(&h, "cpu", &d);
    }
    print_message("planned: %.1f MiB in FP32, %.1f in FP16\n", (double)bytes[0] / 1048576,
                  (double)bytes[1] / 1048576);
    assert_true((double)bytes[1] <= 0.6 * (double)bytes[0]);
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(second_order_in_half),    cmocka_unit_test(first_order_in_half),
        cmocka_unit_test(types_are_as_said),       cmocka_unit_test(overflow_is_noticed),
        cmocka_unit_test(memory_is_sixty_percent), cmocka_unit_test(grids_stay_float),
        cmocka_unit_test(names_become_storage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
