/* A small residual network, samples for it, and a context to run passes in. */
#ifndef EHAP_TESTS_SMALL_NET_H
#define EHAP_TESTS_SMALL_NET_H

#include <math.h>
#include <string.h>

#include "passes/passes.h"
#include "tests/types.h"
#include "tests/unit/device.h"

enum { NET_CHANNELS = 4, NET_CLASSES = 3, NET_SIZE = 8, NET_SAMPLES = 256 };

static inline Value *net_const(Graph *g, const char *name, float spread, int rank,
                               const int64_t *dim)
{
    Type t = type_of(DT_F32, rank, dim);
    int64_t n = type_count(&t);
    float *x = NEW_ARRAY(g->arena, float, n);
    Rng r = rng_new(1, (uint64_t)g->nvalues);
    for (int64_t i = 0; i < n; i++) x[i] = spread * rng_normal(&r);
    return value_const(g, name, t, x);
}

/* BatchNormalization of x over its channels, nothing but a bias at first. */
static inline Value *net_norm(Graph *g, Value *x, int64_t channels)
{
    float *one = NEW_ARRAY(g->arena, float, channels);
    for (int64_t k = 0; k < channels; k++) one[k] = 1;
    Type t = type_of(DT_F32, 1, &channels);
    Value *zero = value_const(g, "mean", t, NEW_ARRAY(g->arena, float, channels));
    return build(g, OP_BatchNormalization,
                 IN(x, value_const(g, "gamma", t, one), net_const(g, "beta", 0.1f, 1, &channels),
                    zero, value_const(g, "variance", t, one)),
                 NO_ATTRS);
}

static inline Value *net_conv(Graph *g, Value *x, const char *name, int64_t in, int64_t out,
                              bool norm)
{
    char text[64];
    snprintf(text, sizeof text, "%s_w", name);
    Value *w = net_const(g, text, 0.4f, 4, DIMS(out, in, 3, 3));
    snprintf(text, sizeof text, "%s_b", name);
    Value *b = net_const(g, text, 0.1f, 1, DIMS(out));
    Value *y = build(g, OP_Conv, IN(x, w, b), ATTRS(attr_ints("pads", 4, DIMS(1, 1, 1, 1))));
    return norm ? net_norm(g, y, out) : y;
}

/* x [N,2,8,8] -> conv relu conv (+) relu mean gemm -> [N,3] */
static inline Graph *small_net(Arena *a, bool norm)
{
    Graph *g = graph_new(a, "small");
    Value *x = graph_add_input(
        g, "x", type_of(DT_F32, 4, DIMS(graph_symbol(g, "N"), 2, NET_SIZE, NET_SIZE)));
    Value *h = build(g, OP_Relu, IN(net_conv(g, x, "a", 2, NET_CHANNELS, norm)), NO_ATTRS);
    Value *y = net_conv(g, h, "b", NET_CHANNELS, NET_CHANNELS, norm);
    y = build(g, OP_Relu, IN(build(g, OP_Add, IN(y, h), NO_ATTRS)), NO_ATTRS);
    y = build(g, OP_GlobalAveragePool, IN(y), NO_ATTRS);
    y = build(g, OP_Flatten, IN(y), NO_ATTRS);
    Value *w = net_const(g, "fc_w", 1, 2, DIMS(NET_CLASSES, NET_CHANNELS));
    Value *b = net_const(g, "fc_b", 0.1f, 1, DIMS(NET_CLASSES));
    y = build(g, OP_Gemm, IN(y, w, b), ATTRS(attr_int("transB", 1)));
    graph_add_output(g, y);
    return g;
}

/* Images with a bright spot in one of three places, which is the label. */
static inline Samples *small_samples(Arena *a)
{
    Samples *s = NEW(a, Samples);
    int64_t n = 2 * NET_SIZE * NET_SIZE;
    float *x = NEW_ARRAY(a, float, NET_SAMPLES *n);
    int32_t *label = NEW_ARRAY(a, int32_t, NET_SAMPLES);
    Rng r = rng_new(2, 0);
    for (int64_t i = 0; i < NET_SAMPLES; i++) {
        label[i] = (int32_t)rng_below(&r, NET_CLASSES);
        for (int64_t k = 0; k < n; k++) {
            int64_t column = k % NET_SIZE;
            bool spot = column / 3 == label[i] && (k < n / 2) == (label[i] != 1);
            x[i * n + k] = (spot ? 1.0f : 0.0f) + 0.3f * rng_normal(&r);
        }
    }
    s->inputs = NEW(a, SampleInput);
    s->inputs[0] = (SampleInput){
        .type = type_of(DT_F32, 3, DIMS(2, NET_SIZE, NET_SIZE)), .data = x, .channel_axis = -1};
    s->count = NET_SAMPLES;
    s->ninputs = 1;
    s->labels = label;
    s->nclasses = NET_CLASSES;
    s->source = "spots";
    return s;
}

static inline Context small_context(Arena *a, Diag *d, bool norm)
{
    Context c = {.arena = a, .diag = d, .graph = small_net(a, norm), .data = small_samples(a)};
    c.original = graph_clone(c.graph, a, NULL);
    c.opt =
        (Options){.device = test_device("ref"), .threads = 1, .seed = 1, .steps = 40, .batch = 64};
    return c;
}

/* Outputs of g on the first 32 samples, in arena a. */
static inline float *small_run(Arena *a, const Graph *g, const Samples *s, int64_t *count)
{
    Diag d = diag_stderr("test");
    int64_t dims[16] = {32, 32, 32, 32};
    Graph *p = graph_specialize(g, a, dims, &d);
    Program *program;
    Instance *inst;
    ProgramOptions po = {.device = "ref"};
    if (!p || program_compile(&program, p, &po, &d) < 0 || instance_new(&inst, program, &d) < 0)
        return NULL;
    *count = type_count(&p->outputs[0]->type);
    float *y = NEW_ARRAY(a, float, *count);
    instance_bind(inst, 0, s->inputs[0].data);
    instance_run_all(inst);
    instance_read(inst, 0, y);
    instance_free(inst);
    program_free(program);
    return y;
}

#endif
