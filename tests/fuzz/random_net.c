/* A pool of values, to which each block adds: a byte picks the block, another the value it reads,
 * more its sizes. A block that does not fit its value adds nothing. When the bytes end, values that
 * nobody reads become outputs. */
#include "tests/fuzz/random_net.h"

#include <math.h>
#include <string.h>

#include "ir/lanes.h"
#include "runtime/runtime.h"

enum { POOL = 48, BLOCKS = 16, MOST_CHANNELS = 24 };

typedef struct Maker {
    Graph *g;
    const uint8_t *bytes;
    size_t n, at;
    Value *pool[POOL];
    int npool;
} Maker;

#define DIMS(...)                                                                                  \
    (int64_t[]) { __VA_ARGS__ }

/* ---- parts -------------------------------------------------------------------------- */

/* The next byte modulo `below`; 0 once they have ended. */
static int64_t draw(Maker *m, int64_t below)
{
    return m->at < m->n ? m->bytes[m->at++] % below : 0;
}

static void add(Maker *m, Value *v)
{
    if (m->npool < POOL) m->pool[m->npool++] = v;
}

static int64_t dim(const Value *x, int axis) { return x->type.dim[axis]; }
static int64_t last(const Value *x) { return dim(x, x->type.rank - 1); }
static int channel_axis(const Value *x) { return x->type.rank == 3 ? 2 : 1; }

/* mean + deviation * normal numbers */
static Value *numbers(Maker *m, int rank, const int64_t *size, float mean, float deviation)
{
    Graph *g = m->g;
    Type t = type_of(DT_F32, rank, size);
    int64_t n = type_count(&t);
    float *x = NEW_ARRAY(g->arena, float, n);
    Rng r = rng_new(7, g->nvalues);
    for (int64_t i = 0; i < n; i++) x[i] = mean + deviation * rng_normal(&r);
    return value_const(g, "w", t, x);
}

/* Weights that keep the variance of what they multiply. */
static Value *weight(Maker *m, int rank, const int64_t *size, int64_t fan_in)
{
    return numbers(m, rank, size, 0, 1 / sqrtf((float)fan_in));
}

static Value *vector(Maker *m, int64_t n, float mean) { return numbers(m, 1, &n, mean, 0.3f); }

static Value *unary(Maker *m, Op op, Value *x) { return build(m->g, op, IN(x), NO_ATTRS); }

static Value *binary(Maker *m, Op op, Value *x, Value *y)
{
    return build(m->g, op, IN(x, y), NO_ATTRS);
}

static Value *reshape(Maker *m, Value *x, int rank, const int64_t *to)
{
    return binary(m, OP_Reshape, x, const_ints(m->g, rank, to));
}

static Value *transpose(Maker *m, Value *x, int rank, const int64_t *perm)
{
    return build(m->g, OP_Transpose, IN(x), ATTRS(attr_ints("perm", (size_t)rank, perm)));
}

static Value *product(Maker *m, Value *x, int64_t out)
{
    Value *y = binary(m, OP_MatMul, x, weight(m, 2, DIMS(last(x), out), last(x)));
    return draw(m, 2) ? binary(m, OP_Add, y, vector(m, out, 0)) : y;
}

static Value *dense(Maker *m, Value *x, int64_t out)
{
    int64_t in = dim(x, 1);
    if (draw(m, 2))
        return build(m->g, OP_Gemm, IN(x, weight(m, 2, DIMS(in, out), in), vector(m, out, 0)),
                     NO_ATTRS);
    return build(m->g, OP_Gemm, IN(x, weight(m, 2, DIMS(out, in), in), vector(m, out, 0)),
                 ATTRS(attr_int("transB", 1), attr_float("alpha", 0.75f)));
}

/* k x k; `dilation` only widens it */
static Value *conv(Maker *m, Value *x, int64_t out, int64_t k, int64_t group, int64_t stride,
                   int64_t dilation)
{
    int64_t in = dim(x, 1) / group, p = k / 2 * dilation;
    Value *w = weight(m, 4, DIMS(out, in, k, k), in * k * k);
    Value *b = draw(m, 4) ? vector(m, out, 0) : NULL;
    return build(m->g, OP_Conv, 2 + (b != NULL), (Value *[]){x, w, b},
                 ATTRS(attr_int("group", group), attr_ints("pads", 4, DIMS(p, p, p, p)),
                       attr_ints("strides", 2, DIMS(stride, stride)),
                       attr_ints("dilations", 2, DIMS(dilation, dilation))));
}

static Value *activation(Maker *m, Value *x)
{
    static const Op smooth[] = {OP_Relu, OP_Relu,     OP_Sigmoid,   OP_Tanh, OP_HardSwish,
                                OP_Gelu, OP_Softplus, OP_LeakyRelu, OP_Elu,  OP_Erf,
                                OP_Neg,  OP_Abs,      OP_Softsign,  OP_Mish, OP_Identity};
    Op op = smooth[draw(m, sizeof smooth / sizeof *smooth)];
    return unary(m, op, x);
}

/* Another value of the pool that agrees with x in all but `axis` (-1: in all); x itself if none. */
static Value *partner(Maker *m, const Value *x, int axis)
{
    Value *found[POOL] = {(Value *)(uintptr_t)x};
    int n = 0;
    for (int k = 0; k < m->npool; k++) {
        Type t = m->pool[k]->type;
        if (t.rank != x->type.rank || m->pool[k] == x) continue;
        if (axis >= 0) t.dim[axis] = dim(x, axis);
        if (type_equal(&t, &x->type)) found[n++] = m->pool[k];
    }
    return n ? found[draw(m, n)] : found[0];
}

/* ---- blocks of any rank ------------------------------------------------------------- */

static void activate(Maker *m, Value *x) { add(m, activation(m, x)); }

static void join(Maker *m, Value *x)
{
    static const Op ops[] = {OP_Add, OP_Sub, OP_Max, OP_Min, OP_Mean};
    add(m, binary(m, ops[draw(m, 5)], x, partner(m, x, -1)));
}

static void modulate(Maker *m, Value *x)
{
    add(m, binary(m, OP_Mul, x, unary(m, OP_Tanh, partner(m, x, -1))));
}

static void concat(Maker *m, Value *x)
{
    int axis = channel_axis(x);
    Value *y = partner(m, x, axis);
    if (dim(x, axis) + dim(y, axis) > MOST_CHANNELS) return;
    add(m, build(m->g, OP_Concat, IN(x, y), ATTRS(attr_int("axis", axis))));
}

static void split(Maker *m, Value *x)
{
    int axis = channel_axis(x);
    int64_t n = dim(x, axis), first = 1 + draw(m, n > 1 ? n - 1 : 1);
    if (n < 2) return;
    Node *s = n % 2 == 0 && draw(m, 2)
                  ? build_multi(m->g, OP_Split, 2, IN(x),
                                ATTRS(attr_int("axis", axis), attr_int("num_outputs", 2)))
                  : build_multi(m->g, OP_Split, 2, IN(x, CONST_INTS(m->g, first, n - first)),
                                ATTRS(attr_int("axis", axis)));
    add(m, s->out[0]);
    add(m, s->out[1]);
}

static void slice(Maker *m, Value *x)
{
    int axis = channel_axis(x);
    int64_t n = dim(x, axis), from = draw(m, n), step = 1 + draw(m, 2);
    Graph *g = m->g;
    add(m, build(g, OP_Slice,
                 IN(x, CONST_INTS(g, from), CONST_INTS(g, INT64_MAX), CONST_INTS(g, axis),
                    CONST_INTS(g, step)),
                 NO_ATTRS));
}

static void gather(Maker *m, Value *x)
{
    int axis = channel_axis(x);
    int64_t n = dim(x, axis), index[4];
    for (int k = 0; k < 4; k++) index[k] = draw(m, n) - (k == 3 ? n : 0);
    add(m,
        build(m->g, OP_Gather, IN(x, const_ints(m->g, 4, index)), ATTRS(attr_int("axis", axis))));
}

static void clip(Maker *m, Value *x)
{
    add(m, build(m->g, OP_Clip, IN(x, const_f32(m->g, draw(m, 2) ? 0 : -1), const_f32(m->g, 3)),
                 NO_ATTRS));
}

/* x where it is positive, else half of it: continuous, so that rounding cannot flip it. */
static void choose(Maker *m, Value *x)
{
    Value *positive = binary(m, OP_Greater, x, const_f32(m->g, 0));
    Value *half = binary(m, OP_Mul, x, const_f32(m->g, 0.5f));
    add(m, build(m->g, OP_Where, IN(positive, x, half), NO_ATTRS));
}

/* ---- images [N, C, H, W] ------------------------------------------------------------ */

static void convolve(Maker *m, Value *x)
{
    int64_t c = dim(x, 1), out = 2 + draw(m, 11), group = 1, k = draw(m, 2) ? 3 : 1;
    switch (draw(m, 4)) {
    case 1:
        if (c % 2 == 0) group = 2, out += out % 2;
        break;
    case 2:
        group = c, out = c * (c <= MOST_CHANNELS / 2 ? 1 + draw(m, 2) : 1);
        break;
    default:
        break;
    }
    Value *y = conv(m, x, out, k, group, draw(m, 4) ? 1 : 2, draw(m, 6) ? 1 : 2);
    add(m, draw(m, 2) ? unary(m, OP_Relu, y) : y);
}

static void deconvolve(Maker *m, Value *x)
{
    int64_t c = dim(x, 1), out = 2 + draw(m, 7), group = c % 2 == 0 && draw(m, 3) == 0 ? 2 : 1;
    if (dim(x, 2) * dim(x, 3) > 36) return;
    Value *w = weight(m, 4, DIMS(c, out, 2, 2), c / group);
    add(m, build(m->g, OP_ConvTranspose, IN(x, w, vector(m, out * group, 0)),
                 ATTRS(attr_ints("strides", 2, DIMS(2, 2)), attr_int("group", group))));
}

static void batch_norm(Maker *m, Value *x)
{
    int64_t c = dim(x, 1);
    add(m, build(m->g, OP_BatchNormalization,
                 IN(x, vector(m, c, 1), vector(m, c, 0), vector(m, c, 0), numbers(m, 1, &c, 1, 0)),
                 NO_ATTRS));
}

static void instance_norm(Maker *m, Value *x)
{
    int64_t c = dim(x, 1);
    if (dim(x, 2) * dim(x, 3) < 4) return;
    add(m, build(m->g, OP_InstanceNormalization, IN(x, vector(m, c, 1), vector(m, c, 0)),
                 ATTRS(attr_float("epsilon", 1e-2f))));
}

static void pool(Maker *m, Value *x)
{
    Op op = draw(m, 2) ? OP_MaxPool : OP_AveragePool;
    if (draw(m, 3) == 0)
        add(m, build(m->g, op, IN(x),
                     ATTRS(attr_ints("kernel_shape", 2, DIMS(3, 3)),
                           attr_ints("pads", 4, DIMS(1, 1, 1, 1)))));
    else if (dim(x, 2) > 1 && dim(x, 3) > 1)
        add(m,
            build(m->g, op, IN(x),
                  ATTRS(attr_ints("kernel_shape", 2, DIMS(2, 2)),
                        attr_ints("strides", 2, DIMS(2, 2)), attr_int("ceil_mode", draw(m, 2)))));
}

static void residual(Maker *m, Value *x)
{
    Value *h = activation(m, conv(m, x, 2 + draw(m, 7), 3, 1, 1, 1));
    Value *y = binary(m, OP_Add, conv(m, h, dim(x, 1), 3, 1, 1, 1), x);
    add(m, draw(m, 2) ? unary(m, OP_Relu, y) : y);
}

static void gate(Maker *m, Value *x)
{
    Value *s = unary(m, OP_Relu, conv(m, unary(m, OP_GlobalAveragePool, x), 3, 1, 1, 1, 1));
    Value *y =
        unary(m, draw(m, 2) ? OP_Sigmoid : OP_HardSigmoid, conv(m, s, dim(x, 1), 1, 1, 1, 1));
    add(m, binary(m, OP_Mul, x, y));
}

static void shuffle(Maker *m, Value *x)
{
    int64_t c = dim(x, 1), h = dim(x, 2), w = dim(x, 3);
    if (c % 2) return;
    Value *t = transpose(m, reshape(m, x, 5, DIMS(0, 2, c / 2, h, w)), 5, DIMS(0, 2, 1, 3, 4));
    add(m, reshape(m, t, 4, DIMS(0, c, h, w)));
}

static void to_space(Maker *m, Value *x)
{
    Attr mode = attr_str("mode", draw(m, 2) ? "CRD" : "DCR"), two = attr_int("blocksize", 2);
    bool small = dim(x, 2) * dim(x, 3) <= 36;
    if (dim(x, 1) % 4 == 0 && small)
        add(m, build(m->g, OP_DepthToSpace, IN(x), ATTRS(two, mode)));
    else if (dim(x, 2) % 2 == 0 && dim(x, 3) % 2 == 0 && dim(x, 1) <= MOST_CHANNELS / 4)
        add(m, build(m->g, OP_SpaceToDepth, IN(x), ATTRS(two)));
}

static void resize(Maker *m, Value *x)
{
    static const float twice[] = {1, 1, 2, 2};
    if (dim(x, 2) * dim(x, 3) > 36) return;
    Value *scales = value_const(m->g, "scales", type_of(DT_F32, 1, DIMS(4)), twice);
    bool nearest = draw(m, 2) == 0;
    add(m, build(m->g, OP_Resize, 3, (Value *[]){x, NULL, scales},
                 ATTRS(attr_str("mode", nearest ? "nearest" : "linear"),
                       attr_str("coordinate_transformation_mode",
                                nearest ? "asymmetric" : "half_pixel"),
                       attr_str("nearest_mode", "floor"))));
}

static void pad(Maker *m, Value *x)
{
    int64_t front = draw(m, 2), back = draw(m, 3), side = draw(m, 2);
    if (dim(x, 1) > MOST_CHANNELS || dim(x, 2) > 12) return;
    add(m, binary(m, OP_Pad, x, CONST_INTS(m->g, 0, front, side, 0, 0, back, 0, side)));
}

static void scale_channels(Maker *m, Value *x)
{
    int64_t c = dim(x, 1);
    Value *y = binary(m, OP_Mul, x, numbers(m, 3, DIMS(c, 1, 1), 1, 0.3f));
    add(m, binary(m, OP_Add, y, numbers(m, 4, DIMS(1, c, 1, 1), 0, 0.3f)));
}

static void prelu(Maker *m, Value *x)
{
    add(m, binary(m, OP_PRelu, x, numbers(m, 3, DIMS(dim(x, 1), 1, 1), 0.2f, 0.1f)));
}

static void average(Maker *m, Value *x)
{
    Value *axes = CONST_INTS(m->g, 2, 3);
    switch (draw(m, 3)) {
    case 0:
        add(m, unary(m, OP_Flatten, unary(m, OP_GlobalAveragePool, x)));
        break;
    case 1:
        add(m, build(m->g, OP_ReduceMean, IN(x, axes), ATTRS(attr_int("keepdims", 0))));
        break;
    default:
        add(m, unary(m, OP_Flatten, unary(m, OP_GlobalMaxPool, x)));
    }
}

static void flatten(Maker *m, Value *x)
{
    if (dim(x, 1) * dim(x, 2) * dim(x, 3) <= 200) add(m, unary(m, OP_Flatten, x));
}

static void to_tokens(Maker *m, Value *x)
{
    if (dim(x, 2) * dim(x, 3) > 36) return;
    add(m, transpose(m, reshape(m, x, 3, DIMS(0, dim(x, 1), -1)), 3, DIMS(0, 2, 1)));
}

/* ---- tokens [N, T, W] --------------------------------------------------------------- */

static void project(Maker *m, Value *x) { add(m, product(m, x, 2 + draw(m, 11))); }

static void layer_norm(Maker *m, Value *x)
{
    int64_t w = last(x);
    add(m, build(m->g, OP_LayerNormalization, IN(x, vector(m, w, 1), vector(m, w, 0)),
                 ATTRS(attr_float("epsilon", 1e-2f))));
}

static Value *heads(Maker *m, Value *x, int64_t count)
{
    return transpose(m, reshape(m, x, 4, DIMS(0, 0, count, last(x) / count)), 4, DIMS(0, 2, 1, 3));
}

static void attention(Maker *m, Value *x)
{
    int64_t count = 1 + draw(m, 3), width = count * (1 + draw(m, 4));
    Value *q = heads(m, product(m, x, width), count), *k = heads(m, product(m, x, width), count);
    Value *v = heads(m, product(m, x, width), count);
    Value *p = binary(m, OP_MatMul, q, transpose(m, k, 4, DIMS(0, 1, 3, 2)));
    p = binary(m, OP_Mul, p, const_f32(m->g, 1 / sqrtf((float)(width / count))));
    p = build(m->g, OP_Softmax, IN(p), ATTRS(attr_int("axis", -1)));
    Value *y = transpose(m, binary(m, OP_MatMul, p, v), 4, DIMS(0, 2, 1, 3));
    y = product(m, reshape(m, y, 3, DIMS(0, 0, width)), last(x));
    add(m, draw(m, 2) ? binary(m, OP_Add, x, y) : y);
}

static void mlp(Maker *m, Value *x)
{
    Value *h = activation(m, product(m, x, 2 + draw(m, 15)));
    add(m, binary(m, OP_Add, x, product(m, h, last(x))));
}

static void recur(Maker *m, Value *x)
{
    static const Op ops[] = {OP_LSTM, OP_GRU, OP_RNN};
    int which = (int)draw(m, 3);
    int64_t gates = DIMS(4, 3, 1)[which], h = 1 + draw(m, 6), in = last(x), d = 1 + draw(m, 2);
    Node *r = build_multi(
        m->g, ops[which], 1,
        IN(transpose(m, x, 3, DIMS(1, 0, 2)), weight(m, 3, DIMS(d, gates * h, in), in),
           weight(m, 3, DIMS(d, gates * h, h), h), numbers(m, 2, DIMS(d, 2 * gates * h), 0, 0.3f)),
        ATTRS(attr_int("hidden_size", h),
              attr_str("direction", d == 2 ? "bidirectional" : "forward")));
    Value *y = transpose(m, r->out[0], 4, DIMS(2, 0, 1, 3)); /* [N, T, d, h] */
    add(m, reshape(m, y, 3, DIMS(0, 0, d * h)));
}

static void soften(Maker *m, Value *x)
{
    add(m, build(m->g, OP_Softmax, IN(x), ATTRS(attr_int("axis", -1))));
}

static void token_mean(Maker *m, Value *x)
{
    add(m, build(m->g, OP_ReduceMean, IN(x, CONST_INTS(m->g, 1)), ATTRS(attr_int("keepdims", 0))));
}

static void convolve_tokens(Maker *m, Value *x)
{
    int64_t in = last(x), out = 2 + draw(m, 7);
    Value *c = build(m->g, OP_Conv,
                     IN(transpose(m, x, 3, DIMS(0, 2, 1)), weight(m, 3, DIMS(out, in, 3), 3 * in)),
                     ATTRS(attr_ints("pads", 2, DIMS(1, 1))));
    add(m, transpose(m, c, 3, DIMS(0, 2, 1)));
}

/* ---- rows [N, F] -------------------------------------------------------------------- */

static void connect(Maker *m, Value *x) { add(m, dense(m, x, 2 + draw(m, 15))); }
static void multiply(Maker *m, Value *x) { add(m, product(m, x, 2 + draw(m, 7))); }

static void to_image(Maker *m, Value *x)
{
    int64_t c = 1 + draw(m, 6);
    add(m, reshape(m, dense(m, x, c * 4), 4, DIMS(-1, c, 2, 2)));
}

static void rows_to_tokens(Maker *m, Value *x)
{
    int64_t w = 1 + draw(m, 6);
    add(m, reshape(m, dense(m, x, w * 3), 3, DIMS(0, 3, w)));
}

static void normalise_rows(Maker *m, Value *x) { batch_norm(m, x); }

/* ---- the network -------------------------------------------------------------------- */

static const struct {
    int rank; /* of what it reads; 0: any */
    void (*make)(Maker *m, Value *x);
} blocks[] = {
    {0, activate},
    {0, join},
    {0, modulate},
    {0, concat},
    {0, split},
    {0, slice},
    {0, gather},
    {0, clip},
    {0, choose},
    {4, convolve},
    {4, convolve},
    {4, convolve},
    {4, deconvolve},
    {4, batch_norm},
    {4, instance_norm},
    {4, pool},
    {4, residual},
    {4, gate},
    {4, shuffle},
    {4, to_space},
    {4, resize},
    {4, pad},
    {4, scale_channels},
    {4, prelu},
    {4, average},
    {4, flatten},
    {4, to_tokens},
    {3, project},
    {3, layer_norm},
    {3, attention},
    {3, mlp},
    {3, recur},
    {3, soften},
    {3, token_mean},
    {3, convolve_tokens},
    {2, connect},
    {2, connect},
    {2, multiply},
    {2, to_image},
    {2, rows_to_tokens},
    {2, normalise_rows},
};

enum { NBLOCKS = sizeof blocks / sizeof *blocks };

/* A value of that rank, the newer the likelier; NULL: there is none. */
static Value *pick(Maker *m, int rank)
{
    int64_t back = draw(m, 4) ? 0 : draw(m, POOL);
    Value *found = NULL;
    for (int k = m->npool - 1; k >= 0 && back >= 0; k--)
        if (!rank || m->pool[k]->type.rank == rank) found = m->pool[k], back--;
    return found;
}

static void make_input(Maker *m)
{
    Graph *g = m->g;
    int64_t n = draw(m, 4) ? graph_symbol(g, "N") : 1 + draw(m, 2), c = 1 + draw(m, 4);
    Type image = type_of(DT_F32, 4, DIMS(n, c, 6, 6)), tokens = type_of(DT_F32, 3, DIMS(n, 4, c)),
         row = type_of(DT_F32, 2, DIMS(n, 2 * c));
    int64_t kind = draw(m, 8);
    add(m, graph_add_input(g, "x", kind < 5 ? image : kind < 7 ? tokens : row));
}

static void add_outputs(Maker *m)
{
    Graph *g = m->g;
    Uses u = graph_uses(g, g->arena);
    for (int k = m->npool - 1; k >= 0; k--)
        if (m->pool[k]->def && u.n[m->pool[k]->id] == 0) graph_add_output(g, m->pool[k]);
    if (g->noutputs == 0) graph_add_output(g, unary(m, OP_Relu, m->pool[0]));
}

static void name_nodes(Graph *g)
{
    for (int i = 0; i < g->nnodes; i++)
        g->nodes[i]->name = arena_printf(g->arena, "%s_%d", node_op_name(g->nodes[i]), i);
}

Graph *random_net(Arena *a, const uint8_t *bytes, size_t n)
{
    Maker m = {.g = graph_new(a, "random"), .bytes = bytes, .n = n};
    bool named = draw(&m, 4) != 0;
    make_input(&m);
    for (int k = 0; k < BLOCKS && m.at < m.n; k++) {
        int64_t which = draw(&m, NBLOCKS);
        Value *x = pick(&m, blocks[which].rank);
        if (x) blocks[which].make(&m, x);
    }
    add_outputs(&m);
    if (named) name_nodes(m.g);
    return m.g;
}
