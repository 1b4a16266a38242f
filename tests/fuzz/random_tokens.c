/* Random blocks of tokens [N, T, W] and rows [N, F]. */
#include "tests/fuzz/random_parts.h"

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

static void normalize_rows(Maker *m, Value *x)
{
    int64_t c = dim(x, 1);
    add(m, build(m->g, OP_BatchNormalization,
                 IN(x, vector(m, c, 1), vector(m, c, 0), vector(m, c, 0), numbers(m, 1, &c, 1, 0)),
                 NO_ATTRS));
}

const Block token_blocks[] = {
    {3, project},        {3, layer_norm},     {3, attention},  {3, mlp},
    {3, recur},          {3, soften},         {3, token_mean}, {3, convolve_tokens},
    {2, connect},        {2, connect},        {2, multiply},   {2, to_image},
    {2, rows_to_tokens}, {2, normalize_rows}, {0, NULL},
};
