/* Random blocks of any rank. */
#include "tests/fuzz/random_parts.h"

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

const Block any_blocks[] = {
    {0, activate}, {0, join},   {0, modulate}, {0, concat}, {0, split},
    {0, slice},    {0, gather}, {0, clip},     {0, choose}, {0, NULL},
};
