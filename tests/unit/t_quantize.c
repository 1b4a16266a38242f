/* Where simulated integers go, and that the real ones compute the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "ir/op.h"
#include "passes/quant/calibrate.h"
#include "passes/quant/fake_quant.h"
#include "passes/quant/recorded.h"
#include "passes/quant/sqnr.h"
#include "tests/unit/small_net.h"

static const char *ops_of(Arena *a, const Graph *g)
{
    const char *text = "";
    for (int i = 0; i < g->nnodes; i++)
        text = arena_printf(a, "%s%s%s", text, i ? " " : "", node_op_name(g->nodes[i]));
    return text;
}

static const Node *nth(const Graph *g, Op op, int n)
{
    for (int i = 0; i < g->nnodes; i++)
        if (g->nodes[i]->op == op && n-- == 0) return g->nodes[i];
    fail_msg("no such %s", op_info[op].name);
    return NULL;
}

static float scalar(const Value *v) { return *(const float *)v->data; }

static void a_residual_block_is_laid_out_for_ort(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    Context c = small_context(a, &d, false);
    assert_int_equal(pass_fake_quant(&c, ""), 0);
    assert_string_equal(ops_of(a, c.graph), "FakeQuant " /* x */
                                            "FakeQuant Conv Relu FakeQuant "
                                            "FakeQuant Conv FakeQuant Add Relu FakeQuant "
                                            "GlobalAveragePool FakeQuant Flatten FakeQuant "
                                            "FakeQuant Gemm");
    const Node *weight = nth(c.graph, OP_FakeQuant, 1);
    assert_int_equal(node_int(weight, "axis", -1), 0);
    assert_int_equal(node_int(weight, "qmax", 0), 63);
    assert_int_equal(weight->in[1]->type.dim[0], NET_CHANNELS);
    const Node *relu = nth(c.graph, OP_FakeQuant, 2), *conv = nth(c.graph, OP_FakeQuant, 4);
    assert_true(scalar(relu->in[2]) == 0); /* nothing is negative after Relu */
    assert_true(scalar(conv->in[2]) > 0);  /* before the sum there is */
    const Node *mean = nth(c.graph, OP_FakeQuant, 6), *flat = nth(c.graph, OP_FakeQuant, 7);
    assert_ptr_equal(mean->in[1], flat->in[1]); /* moved elements stay on their grid */
    assert_ptr_equal(nth(c.graph, OP_Add, 0)->in[1], relu->out[0]); /* one Q per edge */
    assert_int_equal(pass_fake_quant(&c, ""), -1);                  /* once is enough */
    arena_free(a);
}

/* A strided slice and a pad, as in option-A shortcuts: one grid all along. */
static void shortcuts_stay_on_one_grid(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    Context c = small_context(a, &d, false);
    Graph *g = c.graph = graph_new(a, "pads");
    Value *x = graph_add_input(
        g, "x", type_of(DT_F32, 4, DIMS(graph_symbol(g, "N"), 2, NET_SIZE, NET_SIZE)));
    Value *h = build(g, OP_Relu, IN(net_conv(g, x, "a", 2, 4, false)), NO_ATTRS);
    Value *s = build(g, OP_Slice,
                     IN(h, CONST_INTS(g, 0), CONST_INTS(g, 4), CONST_INTS(g, 1), CONST_INTS(g, 2)),
                     NO_ATTRS);
    Value *p = build(g, OP_Pad, IN(s, CONST_INTS(g, 0, 1, 0, 0, 0, 1, 0, 0)), NO_ATTRS);
    Value *y = build(g, OP_Add, IN(net_conv(g, h, "b", 4, 4, false), p), NO_ATTRS);
    y = build(g, OP_Relu, IN(y), NO_ATTRS);
    graph_add_output(g, net_conv(g, y, "c", 4, 4, false));
    assert_int_equal(pass_fake_quant(&c, ""), 0);
    assert_string_equal(ops_of(a, g), "FakeQuant FakeQuant Conv Relu FakeQuant "
                                      "Slice FakeQuant Pad FakeQuant "
                                      "FakeQuant Conv FakeQuant Add Relu FakeQuant "
                                      "FakeQuant Conv FakeQuant");
    for (int k = 3; k <= 4; k++)
        assert_ptr_equal(nth(g, OP_FakeQuant, k)->in[1], nth(g, OP_FakeQuant, 2)->in[1]);
    assert_ptr_equal(g->outputs[0], nth(g, OP_FakeQuant, 9)->out[0]);
    arena_free(a);
}

static void integers_compute_what_was_simulated(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    Context c = small_context(a, &d, false);
    int64_t n = 0;
    assert_int_equal(pass_fake_quant(&c, ""), 0);
    float *simulated = small_run(a, c.graph, c.data, &n);
    assert_int_equal(pass_quantize(&c, ""), 0);
    assert_string_equal(ops_of(a, c.graph),
                        "QuantizeLinear DequantizeLinear DequantizeLinear DequantizeLinear Conv "
                        "Relu QuantizeLinear DequantizeLinear "
                        "DequantizeLinear DequantizeLinear Conv QuantizeLinear DequantizeLinear "
                        "Add Relu QuantizeLinear DequantizeLinear "
                        "GlobalAveragePool QuantizeLinear DequantizeLinear "
                        "Flatten QuantizeLinear DequantizeLinear "
                        "DequantizeLinear DequantizeLinear Gemm");
    float *integers = small_run(a, c.graph, c.data, &n);
    assert_non_null(simulated);
    assert_non_null(integers);
    float half_step = 0; /* of what the Gemm reads, through its weights */
    const Node *gemm = nth(c.graph, OP_Gemm, 0);
    half_step = 0.5f * scalar(gemm->in[0]->def->in[1]) * 4 * NET_CHANNELS;
    for (int64_t i = 0; i < n; i++) assert_float_equal(simulated[i], integers[i], half_step);
    assert_string_equal(nth(c.graph, OP_QuantizeLinear, 0)->name, "x_QuantizeLinear");
    arena_free(a);
}

/* The beginning of a long name, in whole characters (the 64th byte is the second of an accent),
 * with numbers that tell apart; values on one grid share its zero point. */
static void long_names_are_cut(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    Context c = small_context(a, &d, false);
    const char *head = "fused/Relu;fused/Relu;fused/BatchNormalization;fused/BiasAdd;ab";
    Value *mean = nth(c.graph, OP_GlobalAveragePool, 0)->out[0];
    Value *flat = nth(c.graph, OP_Flatten, 0)->out[0];
    assert_int_equal(strlen(head), 63);
    mean->name = arena_printf(a, "%s\xc3\xa9/mean", head);
    flat->name = arena_printf(a, "%s\xc3\xa9/flat", head);
    assert_int_equal(pass_fake_quant(&c, ""), 0);
    assert_int_equal(pass_quantize(&c, ""), 0);
    const Node *one = nth(c.graph, OP_QuantizeLinear, 4);
    const Node *two = nth(c.graph, OP_QuantizeLinear, 5);
    assert_string_equal(one->name, arena_printf(a, "%s_QuantizeLinear", head));
    assert_int_equal(strncmp(two->name, one->name, strlen(one->name)), 0);
    assert_string_not_equal(two->name, one->name);
    assert_string_not_equal(two->out[0]->name, one->out[0]->name);
    assert_ptr_equal(one->in[2], two->in[2]);
    assert_string_equal(one->in[0]->name, mean->name);
    arena_free(a);
}

static void biases_are_at_the_scale_of_the_products(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    Context c = small_context(a, &d, false);
    assert_int_equal(pass_fake_quant(&c, ""), 0);
    float *bias = arena_memdup(a, nth(c.graph, OP_Conv, 0)->in[2]->data, 4 * sizeof(float));
    bias[1] = 3e9f; /* does not fit at the scale of ordinary weights */
    ((Value *)nth(c.graph, OP_Conv, 0)->in[2])->data = bias;
    assert_int_equal(pass_quantize(&c, ""), 0);
    const Node *conv = nth(c.graph, OP_Conv, 0);
    const Node *b = conv->in[2]->def, *w = conv->in[1]->def, *x = conv->in[0]->def;
    assert_int_equal(b->in[0]->type.dtype, DT_I32);
    assert_int_equal(b->in[2]->type.dtype, DT_I32);
    assert_int_equal(w->in[0]->type.dtype, DT_I8);
    assert_int_equal(x->in[2]->type.dtype, DT_U8);
    const float *sb = b->in[1]->data, *sw = w->in[1]->data;
    const int32_t *q = b->in[0]->data;
    for (int k = 0; k < 4; k++) {
        assert_true(sb[k] == scalar(x->in[1]) * sw[k]);
        assert_true(fabs((double)q[k] * (double)sb[k] - (double)bias[k]) <=
                    0.5001 * (double)sb[k] + 1e-7 * fabs((double)bias[k]));
    }
    arena_free(a);
}

/* d sum((q(x) - t)^2) / dx = 2 (q(x) - t) inside the range, and nothing outside. */
static void gradients_go_straight_through(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    Graph *g = graph_new(a, "ste");
    const float data[4] = {0.26f, -3, 1.74f, 900}, target[4] = {0, 0, 0, 0};
    float got[4];
    Type t = type_of(DT_F32, 1, DIMS(4));
    Value *x = graph_add_input(g, "x", t);
    Value *q = build(g, OP_FakeQuant, IN(x, const_f32(g, 0.5f), const_f32(g, 0)),
                     ATTRS(attr_int("qmin", 0), attr_int("qmax", 255)));
    Value *loss = loss_mse(g, q, value_const(g, "t", t, target), 1), *grad;
    assert_int_equal(ad_grad(g, loss, 1, &x, &grad, &d), 0);
    graph_add_output(g, grad);
    Program *p;
    Instance *inst;
    assert_int_equal(program_compile(&p, g, &(ProgramOptions){.device = "ref"}, &d), 0);
    assert_int_equal(instance_new(&inst, p, &d), 0);
    instance_bind(inst, 0, data);
    instance_run_all(inst);
    instance_read(inst, 0, got);
    assert_float_equal(got[0], 2 * 0.5f, 1e-6);
    assert_float_equal(got[1], 0, 1e-6);
    assert_float_equal(got[2], 2 * 1.5f, 1e-6);
    assert_float_equal(got[3], 0, 1e-6);
    instance_free(inst);
    program_free(p);
    arena_free(a);
}

/* With a limit between the costs of the layers, those above it are kept in float. */
static void costly_layers_stay_in_float(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = {0};
    double limit = 0;
    int kept = 0, quantized = 0;
    Context c = small_context(a, &d, false);
    c.opt.quant_drop = 1e9;
    assert_int_equal(pass_fake_quant(&c, ""), 0);
    assert_int_equal(c.report.nquantized, 3);
    for (int k = 0; k < 3; k++) {
        const QuantReport *q = &c.report.quantized[k];
        assert_true(q->sqnr > 20 && q->sqnr < 60 && q->cost > 0 && !q->in_float);
        limit += q->cost / 3;
    }
    c = small_context(a, &d, false);
    c.opt.quant_drop = limit;
    assert_int_equal(pass_fake_quant(&c, ""), 0);
    for (int k = 0; k < 3; k++) {
        assert_true(c.report.quantized[k].in_float == (c.report.quantized[k].cost > limit));
        kept += c.report.quantized[k].in_float;
    }
    assert_true(kept == 1 || kept == 2);
    for (int i = 0; i < c.graph->nnodes; i++) {
        const Node *n = c.graph->nodes[i];
        quantized += n->op == OP_FakeQuant && value_is_const(n->in[0]);
    }
    assert_int_equal(quantized, 3 - kept);
    arena_free(a);
}

/* Relu, then a convolution whose weights are one and eight that round to nothing. */
static Graph *uneven_net(Arena *a)
{
    Graph *g = graph_new(a, "uneven");
    Value *x = graph_add_input(
        g, "x", type_of(DT_F32, 4, DIMS(graph_symbol(g, "N"), 2, NET_SIZE, NET_SIZE)));
    float *w = NEW_ARRAY(a, float, 18), *b = NEW_ARRAY(a, float, 1);
    for (int k = 0; k < 18; k++) w[k] = k ? 0.006f : 1;
    Value *y = build(g, OP_Conv,
                     IN(build(g, OP_Relu, IN(x), NO_ATTRS),
                        value_const(g, "w", type_of(DT_F32, 4, DIMS(1, 2, 3, 3)), w),
                        value_const(g, "b", type_of(DT_F32, 1, DIMS(1)), b)),
                     NO_ATTRS);
    graph_add_output(g, y);
    return g;
}

static void biases_make_up_for_rounded_weights(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    Context c = small_context(a, &d, false);
    QuantReport before, after;
    c.graph = uneven_net(a);
    const Graph *plain = graph_clone(c.graph, a, NULL);
    assert_int_equal(place_fake_quant(&c, target_find("ort"), 7, NULL, NULL), 0);
    double outputs;
    assert_int_equal(measure_sqnr(&before, &outputs, &c, plain, c.graph), 0);
    assert_true(outputs > before.sqnr - 3 && outputs < before.sqnr); /* rounded once more */
    before.own = before.sqnr;                                        /* it is the only layer */
    assert_int_equal(correct_biases(&c, plain, c.graph, &before, before.own), 0);
    assert_true(*(const float *)nth(c.graph, OP_Conv, 0)->in[2]->data == 0);
    assert_int_equal(correct_biases(&c, plain, c.graph, &before, before.own + 1), 0);
    assert_int_equal(measure_sqnr(&after, &outputs, &c, plain, c.graph), 0);
    assert_int_equal(measure_own_sqnr(&after, &c, plain, c.graph), 0);
    assert_true(after.sqnr > before.sqnr + 2);
    assert_float_equal(after.own, after.sqnr, 0.01);
    const float *b = nth(c.graph, OP_Conv, 0)->in[2]->data,
                *old = nth(plain, OP_Conv, 0)->in[2]->data;
    assert_true(*b > 0 && *old == 0);
    arena_free(a);
}

/* Layers that their own grids leave too little of stay in float: none by default here. */
static void noisy_layers_stay_in_float(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = {0};
    const double least[] = {0, 1000, -1000};
    for (int i = 0; i < 3; i++) {
        Context c = small_context(a, &d, false);
        c.opt.least_sqnr = least[i];
        assert_int_equal(pass_fake_quant(&c, ""), 0);
        assert_int_equal(c.report.nquantized, 3);
        for (int k = 0; k < 3; k++) {
            assert_true(c.report.quantized[k].own > 20);
            assert_true(c.report.quantized[k].in_float == (i == 1));
        }
        assert_true((strstr(ops_of(a, c.graph), "FakeQuant") == NULL) == (i == 1));
    }
    arena_free(a);
}

/* The signal to noise of the output with c's graph. */
static double output_sqnr(Context *c, const Graph *plain)
{
    double outputs;
    QuantReport q[8];
    assert_int_equal(measure_sqnr(q, &outputs, c, plain, c->graph), 0);
    return outputs;
}

/* Asked for 4 dB more than all layers leave, it is those that cost most that go to float. */
static void outputs_are_brought_up(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = {0};
    Context c = small_context(a, &d, false);
    const Graph *plain = graph_clone(c.graph, a, NULL);
    assert_int_equal(pass_fake_quant(&c, ""), 0);
    const double all = output_sqnr(&c, plain);
    assert_true(all > 20 && all < 60);
    c = small_context(a, &d, false);
    c.opt.least_output = all + 4;
    assert_int_equal(pass_fake_quant(&c, ""), 0);
    int kept = 0;
    for (int k = 0; k < c.report.nquantized; k++) kept += c.report.quantized[k].in_float;
    assert_int_equal(c.report.nquantized, 3);
    assert_true(kept == 1 || kept == 2);
    assert_true(output_sqnr(&c, plain) >= all + 4);
    c = small_context(a, &d, false);
    c.opt.least_output = 1000;
    assert_int_equal(pass_fake_quant(&c, ""), 0);
    assert_null(strstr(ops_of(a, c.graph), "FakeQuant"));
    arena_free(a);
}

/* Probabilities of 1e-6 may become 1e-5: that is no error. */
static void small_probabilities_are_no_signal(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    for (int far = 0; far < 2; far++) {
        Context c = small_context(a, &d, false);
        Graph *g = c.graph;
        Value *z = g->outputs[0];
        z = build(g, OP_Add, IN(z, const_f32(g, far ? -14 : 0)), NO_ATTRS);
        g->outputs[0] = build(g, OP_Sigmoid, IN(z), NO_ATTRS);
        const Graph *plain = graph_clone(g, a, NULL);
        c.opt.least_output = -1000;
        c.opt.weight_bits = 3;
        assert_int_equal(pass_fake_quant(&c, ""), 0);
        const double outputs = output_sqnr(&c, plain);
        if (far ? outputs < 60 : outputs > 30) fail_msg("far %d: %g dB", far, outputs);
    }
    arena_free(a);
}

/* Sixteen times the samples: other ranges, the same memory. */
static void calibration_streams(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    size_t peak[2];
    Range range[2];
    enum { TIMES = 16 };
    for (int k = 0; k < 2; k++) {
        Context c = small_context(a, &d, false);
        Samples many = *c.data;
        int64_t n = NET_SAMPLES * 2 * NET_SIZE * NET_SIZE;
        float *x = NEW_ARRAY(a, float, TIMES *n);
        for (int64_t i = 0; i < TIMES * n; i++)
            x[i] = ((const float *)c.data->inputs[0].data)[i % n] * (float)(1 + i / n);
        many.inputs = arena_memdup(a, many.inputs, sizeof *many.inputs);
        many.inputs[0].data = x;
        many.count = k ? TIMES * NET_SAMPLES : NET_SAMPLES;
        c.data = &many;
        int group = 0;
        RangeGroups groups = {.n = 1, .groups = 1, .v = &c.graph->outputs[0], .group = &group};
        const GridKind u8 = {0, 255, false, 0};
        assert_int_equal(calibrate(&range[k], &c, c.graph, &groups, many.count, u8), 0);
        peak[k] = c.peak_bytes;
    }
    assert_true(peak[0] > 0);
    assert_true(peak[0] == peak[1]);
    assert_true(range[1].hi > 4 * range[0].hi);
    arena_free(a);
}

static void bad_options_are_refused(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag d = {0};
    Context c = small_context(a, &d, false);
    c.opt.target = "abacus";
    assert_int_equal(pass_fake_quant(&c, ""), -1);
    c.opt.target = "ort";
    c.opt.weight_bits = 9;
    assert_int_equal(pass_fake_quant(&c, ""), -1);
    c.opt.weight_bits = 8;
    assert_int_equal(pass_fake_quant(&c, ""), 0);
    assert_int_equal(node_int(nth(c.graph, OP_FakeQuant, 1), "qmax", 0), 127);
    arena_free(a);
}

/* DequantizeLinear of integers b_quantized [2, 2], scales along axis 1, with a record of their
 * exact floats; the scales end where their block of memory does. */
static const Value *stripped_bias(Arena *a, const float *scale, Value *zero, Graph *g)
{
    static const int32_t q[4] = {1, 2, 3, 4};
    static KeyValue record = {RECORD_KEY, "1\nbias 42c80000434800004396000043c80000 b\n"};
    Diag d = diag_stderr("test");
    Known known;
    Graph *out;
    g->info.props = &record;
    g->info.nprops = 1;
    Value *x = graph_add_input(g, "x", TYPE(DT_F32, 2, 2));
    Value *in[] = {value_const(g, "b_quantized", TYPE(DT_I32, 2, 2), q),
                   value_const(g, "scale", TYPE(DT_F32, 2), scale), zero};
    const Attr axis = attr_int("axis", 1);
    Value *b = build(g, OP_DequantizeLinear, zero ? 3 : 2, in, 1, &axis);
    graph_add_output(g, build(g, OP_Add, IN(x, b), NO_ATTRS));
    assert_int_equal(strip_grids(&out, &known, g, a, &d), 0);
    return out->nodes[out->nnodes - 1]->in[1];
}

static void records_that_do_not_fit_are_left(void **state)
{
    (void)state;
    Arena *a = arena_new();
    float *scale = malloc(2 * sizeof *scale);
    uint8_t *zero = calloc(2, 1);
    scale[0] = scale[1] = 100;
    const Value *b = stripped_bias(a, scale, NULL, graph_new(a, "g"));
    assert_string_equal(b->name, "b");
    assert_true(((const float *)b->data)[3] == 400);
    Graph *g = graph_new(a, "g"); /* a zero point of another type is none */
    b = stripped_bias(a, scale, value_const(g, "zero", TYPE(DT_BOOL, 2), zero), g);
    assert_null(b->data);
    free(scale);
    free(zero);
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_that_do_not_fit_are_left),
        cmocka_unit_test(a_residual_block_is_laid_out_for_ort),
        cmocka_unit_test(shortcuts_stay_on_one_grid),
        cmocka_unit_test(integers_compute_what_was_simulated),
        cmocka_unit_test(biases_are_at_the_scale_of_the_products),
        cmocka_unit_test(gradients_go_straight_through),
        cmocka_unit_test(costly_layers_stay_in_float),
        cmocka_unit_test(biases_make_up_for_rounded_weights),
        cmocka_unit_test(long_names_are_cut),
        cmocka_unit_test(noisy_layers_stay_in_float),
        cmocka_unit_test(outputs_are_brought_up),
        cmocka_unit_test(small_probabilities_are_no_signal),
        cmocka_unit_test(calibration_streams),
        cmocka_unit_test(bad_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
