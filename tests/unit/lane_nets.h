/* Small networks, one for each way in which channels hang together, with the number of channel
 * classes that may be removed from each. Weights are random, inputs named by the builder. */
#ifndef EHAP_TESTS_LANE_NETS_H
#define EHAP_TESTS_LANE_NETS_H

#include <stdio.h>
#include <string.h>

#include "ir/lanes.h"
#include "runtime/runtime.h"

#define D(...)                                                                                     \
    (int64_t[]) { __VA_ARGS__ }

typedef struct LaneNet {
    const char *name;
    void (*build)(Graph *g); /* adds inputs, nodes and outputs */
    int removable;           /* classes that are not pinned */
} LaneNet;

static inline Value *weight(Graph *g, const char *name, int rank, const int64_t *dim)
{
    Type t = type_of(DT_F32, rank, dim);
    int64_t n = type_count(&t);
    float *x = NEW_ARRAY(g->arena, float, n);
    Rng r = rng_new(7, g->nvalues);
    for (int64_t i = 0; i < n; i++) x[i] = 0.5f * rng_normal(&r);
    return value_const(g, name, t, x);
}

static inline Value *image(Graph *g, int64_t channels, int64_t size)
{
    return graph_add_input(g, "x",
                           type_of(DT_F32, 4, D(graph_symbol(g, "N"), channels, size, size)));
}

static inline Value *tokens(Graph *g, int64_t count, int64_t width)
{
    return graph_add_input(g, "x", type_of(DT_F32, 3, D(graph_symbol(g, "N"), count, width)));
}

/* k x k, same padding, with bias */
static inline Value *conv(Graph *g, Value *x, const char *name, int64_t out, int64_t k,
                          int64_t group, int64_t stride)
{
    char b[32];
    int64_t p = k / 2;
    snprintf(b, sizeof b, "%s_b", name);
    return build(
        g, OP_Conv,
        IN(x, weight(g, name, 4, D(out, x->type.dim[1] / group, k, k)), weight(g, b, 1, D(out))),
        ATTRS(attr_int("group", group), attr_ints("pads", 4, D(p, p, p, p)),
              attr_ints("strides", 2, D(stride, stride))));
}

static inline Value *unary(Graph *g, Op op, Value *x) { return build(g, op, IN(x), NO_ATTRS); }
static inline Value *relu(Graph *g, Value *x) { return unary(g, OP_Relu, x); }
static inline Value *binary(Graph *g, Op op, Value *x, Value *y)
{
    return build(g, op, IN(x, y), NO_ATTRS);
}

static inline Value *dense(Graph *g, Value *x, const char *name, int64_t out)
{
    char b[32];
    snprintf(b, sizeof b, "%s_b", name);
    return build(g, OP_Gemm,
                 IN(x, weight(g, name, 2, D(out, x->type.dim[1])), weight(g, b, 1, D(out))),
                 ATTRS(attr_int("transB", 1)));
}

static inline Value *product(Graph *g, Value *x, const char *name, int64_t out)
{
    return binary(g, OP_MatMul, x, weight(g, name, 2, D(x->type.dim[x->type.rank - 1], out)));
}

static inline Value *transpose(Graph *g, Value *x, int n, const int64_t *perm)
{
    return build(g, OP_Transpose, IN(x), ATTRS(attr_ints("perm", (size_t)n, perm)));
}

static inline Value *reshape(Graph *g, Value *x, int n, const int64_t *dim)
{
    return build(g, OP_Reshape, IN(x, const_ints(g, n, dim)), NO_ATTRS);
}

static inline Value *norm(Graph *g, Value *x)
{
    int64_t c = x->type.dim[1];
    Value *variance = weight(g, "variance", 1, &c);
    float *v = arena_memdup(g->arena, variance->data, (size_t)c * sizeof *v);
    for (int64_t i = 0; i < c; i++) v[i] = 1 + v[i] * v[i];
    variance->data = v;
    return build(g, OP_BatchNormalization,
                 IN(x, weight(g, "gamma", 1, &c), weight(g, "beta", 1, &c),
                    weight(g, "mean", 1, &c), variance),
                 NO_ATTRS);
}

/* Average, flatten, classify: how most of these networks end. */
static inline void classify(Graph *g, Value *x)
{
    Value *y = unary(g, OP_Flatten, unary(g, OP_GlobalAveragePool, x));
    graph_add_output(g, dense(g, y, "fc", 3));
}

static inline void net_residual(Graph *g)
{
    Value *a = relu(g, norm(g, conv(g, image(g, 3, 6), "a", 8, 3, 1, 1)));
    Value *b = relu(g, conv(g, a, "b", 6, 3, 1, 1));
    classify(g, relu(g, binary(g, OP_Add, a, norm(g, conv(g, b, "c", 8, 3, 1, 1)))));
}

/* ResNet's shortcut without weights: every second pixel, and zero channels on both sides. */
static inline void net_option_a(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 6), "a", 4, 3, 1, 1));
    Value *b = relu(g, conv(g, a, "b", 8, 3, 1, 2));
    Value *c = conv(g, b, "c", 8, 3, 1, 1);
    Value *s = build(g, OP_Slice,
                     IN(a, CONST_INTS(g, 0, 0), CONST_INTS(g, INT64_MAX, INT64_MAX),
                        CONST_INTS(g, 2, 3), CONST_INTS(g, 2, 2)),
                     NO_ATTRS);
    Value *p = build(g, OP_Pad, IN(s, CONST_INTS(g, 0, 2, 0, 0, 0, 2, 0, 0)), NO_ATTRS);
    classify(g, relu(g, binary(g, OP_Add, c, p)));
}

static inline void net_dense_block(Graph *g)
{
    Value *a = conv(g, image(g, 3, 5), "a", 4, 3, 1, 1);
    Value *b = relu(g, conv(g, a, "b", 3, 3, 1, 1));
    Value *ab = build(g, OP_Concat, IN(a, b), ATTRS(attr_int("axis", 1)));
    Value *c = conv(g, relu(g, norm(g, ab)), "c", 5, 3, 1, 1);
    Value *all = build(g, OP_Concat, IN(ab, c), ATTRS(attr_int("axis", -3)));
    classify(g, norm(g, all));
}

static inline void net_squeeze_excite(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 5), "a", 6, 3, 1, 1));
    Value *s = relu(g, conv(g, unary(g, OP_GlobalAveragePool, a), "down", 3, 1, 1, 1));
    Value *gate = unary(g, OP_Sigmoid, conv(g, s, "up", 6, 1, 1, 1));
    classify(g, binary(g, OP_Mul, a, gate));
}

static inline void net_grouped(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 5), "a", 8, 3, 1, 1));
    classify(g, relu(g, conv(g, a, "b", 12, 3, 2, 1)));
}

/* MobileNet's block; the depthwise convolution makes two of each channel. */
static inline void net_depthwise(Graph *g)
{
    Value *a = build(g, OP_Clip,
                     IN(conv(g, image(g, 3, 5), "a", 4, 1, 1, 1), const_f32(g, 0), const_f32(g, 6)),
                     NO_ATTRS);
    Value *b = relu(g, norm(g, conv(g, a, "b", 8, 3, 4, 1)));
    classify(g, conv(g, b, "c", 5, 1, 1, 1));
}

static inline void net_shuffle(Graph *g)
{
    Value *a = conv(g, image(g, 3, 4), "a", 8, 1, 1, 1);
    Value *b = relu(g, conv(g, a, "b", 8, 1, 2, 1));
    Value *t = transpose(g, reshape(g, b, 5, D(0, 2, 4, 4, 4)), 5, D(0, 2, 1, 3, 4));
    Value *s = reshape(g, t, 4, D(-1, 8, 4, 4));
    Value *c = conv(g, conv(g, s, "d", 8, 3, 8, 1), "e", 6, 1, 2, 1);
    classify(g, c);
}

static inline void net_flatten(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 4), "a", 4, 3, 1, 1));
    Value *p =
        build(g, OP_MaxPool, IN(a),
              ATTRS(attr_ints("kernel_shape", 2, D(2, 2)), attr_ints("strides", 2, D(2, 2))));
    Value *h = relu(g, dense(g, unary(g, OP_Flatten, p), "h", 6));
    graph_add_output(g, dense(g, h, "fc", 3));
}

static inline void net_shared_weight(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 4), "a", 6, 3, 1, 1));
    Value *w = weight(g, "w", 4, D(6, 6, 3, 3));
    Attr pads = attr_ints("pads", 4, D(1, 1, 1, 1));
    Value *b = relu(g, build(g, OP_Conv, IN(a, w), ATTRS(pads)));
    classify(g, build(g, OP_Conv, IN(b, w), ATTRS(pads)));
}

static inline void net_outputs(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 4), "a", 5, 3, 1, 1));
    graph_add_output(g, a);
    classify(g, relu(g, conv(g, a, "b", 4, 3, 1, 1)));
}

static inline void net_split(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 4), "a", 8, 3, 1, 1));
    Node *s =
        build_multi(g, OP_Split, 2, IN(a), ATTRS(attr_int("axis", 1), attr_int("num_outputs", 2)));
    Value *b = conv(g, s->out[0], "b", 4, 3, 1, 1);
    classify(g, binary(g, OP_Add, b, s->out[1]));
}

static inline void net_slice_step(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 4), "a", 9, 3, 1, 1));
    Value *s = build(
        g, OP_Slice,
        IN(a, CONST_INTS(g, -2, 1), CONST_INTS(g, 0, 4), CONST_INTS(g, 1, 2), CONST_INTS(g, -2, 1)),
        NO_ATTRS); /* lanes 7, 5, 3, 1 */
    classify(g, conv(g, s, "b", 4, 3, 1, 1));
}

static inline void net_gather(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 4), "a", 6, 3, 1, 1));
    Value *s = build(g, OP_Gather, IN(a, CONST_INTS(g, 5, 0, -3, 0)), ATTRS(attr_int("axis", 1)));
    classify(g, conv(g, s, "b", 4, 3, 1, 1));
}

static inline Value *attend(Graph *g, Value *q, Value *k, Value *v, int n, const int64_t *swap)
{
    Value *p = build(g, OP_Softmax, IN(binary(g, OP_MatMul, q, transpose(g, k, n, swap))),
                     ATTRS(attr_int("axis", -1)));
    return binary(g, OP_MatMul, p, v);
}

/* Query and key share their 6 channels, the value has 5 of its own. */
static inline void net_attention(Graph *g)
{
    Value *x = tokens(g, 4, 7);
    Value *y = attend(g, product(g, x, "q", 6), product(g, x, "k", 6), product(g, x, "v", 5), 3,
                      D(0, 2, 1));
    graph_add_output(g, product(g, y, "o", 7));
}

static inline Value *heads(Graph *g, Value *x)
{
    return transpose(g, reshape(g, x, 4, D(0, 0, 2, 3)), 4, D(0, 2, 1, 3));
}

/* Two heads of 3: a position goes from both. */
static inline void net_heads(Graph *g)
{
    Value *x = tokens(g, 4, 7);
    Value *y = attend(g, heads(g, product(g, x, "q", 6)), heads(g, product(g, x, "k", 6)),
                      heads(g, product(g, x, "v", 6)), 4, D(0, 1, 3, 2));
    y = reshape(g, transpose(g, y, 4, D(0, 2, 1, 3)), 3, D(0, 4, 6));
    graph_add_output(g, product(g, y, "o", 7));
}

/* view(x.size(0), 64) with the batch read at run time. */
static inline void net_shape_chain(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 4), "a", 4, 3, 1, 1));
    Value *n = build(g, OP_Gather, IN(unary(g, OP_Shape, a), CONST_INTS(g, 0)), NO_ATTRS);
    Value *to = build(g, OP_Concat, IN(n, CONST_INTS(g, 64)), ATTRS(attr_int("axis", 0)));
    graph_add_output(g, dense(g, build(g, OP_Reshape, IN(a, to), NO_ATTRS), "fc", 3));
}

static inline void net_transposed(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 4), "a", 6, 3, 1, 1));
    Attr two = attr_ints("strides", 2, D(2, 2));
    Value *b = build(g, OP_ConvTranspose,
                     IN(a, weight(g, "b", 4, D(6, 4, 2, 2)), weight(g, "bb", 1, D(4))), ATTRS(two));
    b = build(g, OP_PRelu, IN(b, weight(g, "slope", 3, D(4, 1, 1))), NO_ATTRS);
    Value *c = build(g, OP_ConvTranspose, IN(b, weight(g, "c", 4, D(4, 1, 2, 2))),
                     ATTRS(two, attr_int("group", 4)));
    Value *d = build(g, OP_ConvTranspose, IN(c, weight(g, "d", 4, D(4, 3, 1, 1))),
                     ATTRS(attr_int("group", 2)));
    classify(g, d);
}

static inline void net_sum_and_mean(Graph *g)
{
    Value *x = image(g, 3, 4), *axis = CONST_INTS(g, 1);
    Value *a = relu(g, conv(g, x, "a", 4, 3, 1, 1)), *b = relu(g, conv(g, x, "b", 5, 3, 1, 1));
    graph_add_output(g, build(g, OP_ReduceSum, IN(a, axis), NO_ATTRS));
    graph_add_output(g, build(g, OP_ReduceMean, IN(b, axis), NO_ATTRS));
}

/* The gate's only channel serves all others. */
static inline void net_spatial_gate(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 4), "a", 4, 3, 1, 1));
    Value *gate = unary(g, OP_HardSigmoid, conv(g, a, "gate", 1, 3, 1, 1));
    classify(g, binary(g, OP_Mul, a, gate));
}

static inline void net_unflatten(Graph *g)
{
    Value *x = graph_add_input(g, "x", type_of(DT_F32, 2, D(graph_symbol(g, "N"), 4)));
    Value *h = relu(g, dense(g, relu(g, dense(g, x, "h", 5)), "u", 48));
    classify(g, conv(g, reshape(g, h, 4, D(-1, 3, 4, 4)), "a", 4, 3, 1, 1));
}

static inline void net_crop_and_squeeze(Graph *g)
{
    Value *a = conv(g, image(g, 3, 4), "a", 7, 3, 1, 1);
    Value *p = build(g, OP_Pad, IN(a, CONST_INTS(g, -2, 1), const_f32(g, 0), CONST_INTS(g, 1)),
                     NO_ATTRS); /* lanes 2 … 6 and one of zeros */
    Value *m = build(g, OP_ReduceMean, IN(p, CONST_INTS(g, 2, 3)), NO_ATTRS);
    Value *s = build(g, OP_Squeeze, IN(m, CONST_INTS(g, 2, 3)), NO_ATTRS);
    Value *u = build(g, OP_Unsqueeze, IN(s, CONST_INTS(g, -1)), NO_ATTRS);
    Value *e = build(g, OP_Expand, IN(u, CONST_INTS(g, 1, 6, 2)), NO_ATTRS);
    graph_add_output(g, dense(g, unary(g, OP_Flatten, e), "fc", 3));
}

static inline void net_pinned_norms(Graph *g)
{
    Value *x = tokens(g, 4, 5);
    Value *a = product(g, x, "a", 6), *b = product(g, x, "b", 6);
    Value *n = build(g, OP_LayerNormalization, IN(a, weight(g, "scale", 1, D(6))), NO_ATTRS);
    Value *s = build(g, OP_Softmax, IN(b), ATTRS(attr_int("axis", 2)));
    Value *y = product(g, binary(g, OP_Add, n, s), "c", 4);
    graph_add_output(g, product(g, relu(g, y), "d", 3));
}

static inline Node *recurrent(Graph *g, Op op, Value *x, int64_t dirs, int64_t hidden)
{
    int64_t gates = op == OP_LSTM ? 4 : op == OP_GRU ? 3 : 1, in = x->type.dim[2];
    return build_multi(g, op, op == OP_LSTM ? 3 : 2,
                       IN(x, weight(g, "w", 3, D(dirs, gates * hidden, in)),
                          weight(g, "r", 3, D(dirs, gates * hidden, hidden)),
                          weight(g, "b", 2, D(dirs, 2 * gates * hidden))),
                       ATTRS(attr_int("hidden_size", hidden),
                             attr_str("direction", dirs == 2 ? "bidirectional" : "forward")));
}

/* Every hidden state of an LSTM goes on. */
static inline void net_lstm(Graph *g)
{
    Value *x = transpose(g, product(g, tokens(g, 4, 3), "a", 5), 3, D(1, 0, 2));
    Value *y = recurrent(g, OP_LSTM, x, 1, 6)->out[0];
    graph_add_output(g, product(g, binary(g, OP_Squeeze, y, CONST_INTS(g, 1)), "c", 2));
}

/* The hidden states of both directions lie side by side; the last one of a second layer goes on. */
static inline void net_gru(Graph *g)
{
    Value *x = transpose(g, tokens(g, 4, 3), 3, D(1, 0, 2));
    Value *y = recurrent(g, OP_GRU, x, 2, 5)->out[0];
    Value *both = reshape(g, transpose(g, y, 4, D(0, 2, 1, 3)), 3, D(0, 0, 10));
    Value *last = recurrent(g, OP_RNN, both, 1, 4)->out[1];
    graph_add_output(g, dense(g, binary(g, OP_Squeeze, last, CONST_INTS(g, 0)), "fc", 2));
}

/* [layers, n, hidden] with the n that x has when the network runs. */
static inline Value *state_shape(Graph *g, Value *x, int64_t layers, int64_t hidden)
{
    Value *n = build(g, OP_Gather, IN(unary(g, OP_Shape, x), CONST_INTS(g, 0)), NO_ATTRS);
    return build(g, OP_Concat, IN(CONST_INTS(g, layers), n, CONST_INTS(g, hidden)),
                 ATTRS(attr_int("axis", 0)));
}

static inline Value *filled(Graph *g, Value *shape, float x)
{
    const float *value = arena_memdup(g->arena, &x, sizeof x);
    return build(g, OP_ConstantOfShape, IN(shape),
                 ATTRS((Attr){.name = "value",
                              .kind = ATTR_TENSOR,
                              .type = type_of(DT_F32, 1, D(1)),
                              .s = {value, sizeof x}}));
}

/* One direction or both, from an initial state; every hidden state goes on as [T, N, dirs * H]. */
static inline Value *from_state(Graph *g, Op op, Value *x, int64_t dirs, Value *h, Value *c)
{
    int64_t hidden = h->type.dim[2], gates = op == OP_LSTM ? 4 : op == OP_GRU ? 3 : 1;
    Value *in[] = {x,
                   weight(g, "w", 3, D(dirs, gates * hidden, x->type.dim[2])),
                   weight(g, "r", 3, D(dirs, gates * hidden, hidden)),
                   weight(g, "b", 2, D(dirs, 2 * gates * hidden)),
                   NULL,
                   h,
                   c};
    Node *n = build_multi(g, op, 1, op == OP_LSTM ? 7 : 6, in,
                          ATTRS(attr_int("hidden_size", hidden),
                                attr_str("direction", dirs == 2 ? "bidirectional" : "forward")));
    return reshape(g, transpose(g, n->out[0], 4, D(0, 2, 1, 3)), 3, D(0, 0, dirs * hidden));
}

/* The first state is a parameter, repeated for each sample, the other is made of one number. */
static inline void net_first_state(Graph *g)
{
    Value *x = tokens(g, 4, 3), *shape = state_shape(g, x, 1, 6);
    Value *h = build(g, OP_Expand, IN(weight(g, "h", 3, D(1, 1, 6)), shape), NO_ATTRS);
    Value *y = from_state(g, OP_LSTM, transpose(g, x, 3, D(1, 0, 2)), 1, h, filled(g, shape, 0.5f));
    graph_add_output(g, product(g, y, "c", 2));
}

/* Two layers of two directions take their parts of one state: a unit of both layers goes. */
static inline void net_stacked_states(Graph *g)
{
    Value *x = tokens(g, 4, 3), *y = transpose(g, x, 3, D(1, 0, 2));
    Value *h = filled(g, state_shape(g, x, 4, 5), 0.25f);
    for (int64_t k = 0; k < 4; k += 2) {
        Value *part = build(
            g, OP_Slice, IN(h, CONST_INTS(g, k), CONST_INTS(g, k + 2), CONST_INTS(g, 0)), NO_ATTRS);
        y = from_state(g, OP_GRU, y, 2, part, NULL);
    }
    graph_add_output(g, product(g, y, "c", 2));
}

/* A constant beside the channels: a token in front of all others, zeros added to the sum. */
static inline void net_class_token(Graph *g)
{
    Value *x = tokens(g, 4, 3), *a = product(g, x, "a", 6);
    Value *n = build(g, OP_Gather, IN(unary(g, OP_Shape, x), CONST_INTS(g, 0)), NO_ATTRS);
    Value *to = build(g, OP_Concat, IN(n, CONST_INTS(g, 1, 6)), ATTRS(attr_int("axis", 0)));
    Value *token = build(g, OP_Expand, IN(weight(g, "token", 3, D(1, 1, 6)), to), NO_ATTRS);
    Value *all = build(g, OP_Concat, IN(token, a), ATTRS(attr_int("axis", 1)));
    all = relu(g, binary(g, OP_Add, all, filled(g, unary(g, OP_Shape, all), 0.5f)));
    graph_add_output(g, product(g, all, "c", 2));
}

#include "lane_blocks.h"

static const LaneNet lane_nets[] = {
    {"residual", net_residual, 8 + 6},
    {"option A", net_option_a, 8 + 8},
    {"dense block", net_dense_block, 4 + 3 + 5},
    {"squeeze and excite", net_squeeze_excite, 6 + 3},
    {"grouped", net_grouped, 4 + 6},
    {"depthwise", net_depthwise, 4 + 5},
    {"shuffle", net_shuffle, 4 + 2 + 3},
    {"flatten", net_flatten, 4 + 6},
    {"shared weight", net_shared_weight, 6},
    {"outputs", net_outputs, 4},
    {"split", net_split, 8},
    {"slice with a step", net_slice_step, 9 + 4},
    {"gather", net_gather, 6 + 4},
    {"attention", net_attention, 6 + 5},
    {"heads", net_heads, 3 + 3},
    {"shape chain", net_shape_chain, 4},
    {"transposed", net_transposed, 6 + 2 + 3},
    {"sum and mean", net_sum_and_mean, 4 + 5},
    {"spatial gate", net_spatial_gate, 4},
    {"unflatten", net_unflatten, 5 + 3 + 4},
    {"crop and squeeze", net_crop_and_squeeze, 7 + 1},
    {"LSTM", net_lstm, 5 + 6},
    {"GRU and RNN", net_gru, 5 + 4},
    {"first state", net_first_state, 6},
    {"stacked states", net_stacked_states, 5},
    {"class token", net_class_token, 6},
    {"pinned by norms", net_pinned_norms, 4},
    {"heads in the batch", net_heads_in_batch, 3 + 3},
    {"packed attention, split", net_packed_split, 3 + 3},
    {"packed attention, sliced", net_packed_slice, 3 + 3},
    {"packed attention, picked", net_packed_gather, 5},
    {"transformer's hidden layer", net_transformer_mlp, 10},
    {"pixel shuffle", net_pixel_shuffle, 3 + 5},
    {"pixel shuffle, wide", net_pixel_shuffle_wide, 2 + 5},
    {"space to depth", net_space_to_depth, 4 + 5},
    {"shuffle of any size", net_shuffle_any_size, 4 + 5},
    {"mean of groups", net_group_mean, 3 + 5},
    {"instance norm", net_instance_norm, 6 + 5},
    {"response norm", net_response_norm, 6},
    {"RMS norm in parts", net_rms_norm_parts, 6 + 5},
    {"RMS norm", net_rms_norm, 6 + 5},
    {"layer norm in parts", net_layer_norm_parts, 5},
    {"group norm", net_group_norm, 2 + 4 + 2},
    {"group norm, scale per group", net_group_scales, 4 + 5},
    {"group norm, reshaped", net_group_norm_reshaped, 3 + 5},
    {"deformable", net_deformable, 6 + 5},
    {"depth to space", net_depth_to_space, 3 + 4 + 2 + 5},
    {"rows of any number", net_rows, 6 + 5},
    {"embedding", net_embedding, 8 + 5},
    {"gate by products", net_gate_by_products, 6 + 3},
    {"two ways", net_two_ways, 5 + 4 + 6},
    {"U-net", net_unet, 4 + 6 + 4 + 5},
    {"chunks", net_chunks, 4 + 4 + 6 + 5},
    {"picked elements", net_picked_elements, 6 + 5},
    {"written positions", net_written_positions, 6 + 4},
    {"added elements", net_added_elements, 6 + 4},
    {"chosen tokens", net_chosen_tokens, 6 + 5},
    {"picked rows", net_picked_rows, 3 + 4},
    {"picked from behind", net_picked_from_behind, 6 + 4},
    {"tiled token", net_tiled_token, 6 + 5},
};

enum { LANE_NETS = sizeof lane_nets / sizeof *lane_nets };

static inline int count_removable(Lanes *l)
{
    int n = 0;
    bool pinned;
    for (int c = 0; c < lanes_count_classes(l); c++) {
        lanes_pinned_by(l, c, &pinned);
        n += !pinned;
    }
    return n;
}

#endif
