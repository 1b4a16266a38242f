/* Random blocks of images [N, C, H, W]. */
#include "tests/fuzz/random_parts.h"

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
    if (!may_grow(m, x)) return;
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
    if (area(x) < 4 || dim(x, 2) != dim(m->pool[0], 2)) return; /* of one pixel: no variance */
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
    if (c % 2 || is_open(h) || is_open(w)) return;
    Value *t = transpose(m, reshape(m, x, 5, DIMS(0, 2, c / 2, h, w)), 5, DIMS(0, 2, 1, 3, 4));
    add(m, reshape(m, t, 4, DIMS(0, c, h, w)));
}

static void to_space(Maker *m, Value *x)
{
    Attr mode = attr_str("mode", draw(m, 2) ? "CRD" : "DCR"), two = attr_int("blocksize", 2);
    const bool even = dim(x, 2) % 2 == 0 && dim(x, 3) % 2 == 0;
    if (dim(x, 1) % 4 == 0 && may_grow(m, x))
        add(m, build(m->g, OP_DepthToSpace, IN(x), ATTRS(two, mode)));
    else if (even && !is_open(dim(x, 2)) && !is_open(dim(x, 3)) && dim(x, 1) <= MOST_CHANNELS / 4)
        add(m, build(m->g, OP_SpaceToDepth, IN(x), ATTRS(two)));
}

static void resize(Maker *m, Value *x)
{
    static const float twice[] = {1, 1, 2, 2};
    if (!may_grow(m, x)) return;
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
    if (is_open(dim(x, 2)) || is_open(dim(x, 3))) return;
    if (dim(x, 1) * area(x) <= 200) add(m, unary(m, OP_Flatten, x));
}

static void to_tokens(Maker *m, Value *x)
{
    if (area(x) > MOST_AREA) return;
    add(m, transpose(m, reshape(m, x, 3, DIMS(0, dim(x, 1), -1)), 3, DIMS(0, 2, 1)));
}

const Block image_blocks[] = {
    {4, convolve},      {4, convolve}, {4, convolve},  {4, deconvolve},     {4, batch_norm},
    {4, instance_norm}, {4, pool},     {4, residual},  {4, gate},           {4, shuffle},
    {4, to_space},      {4, resize},   {4, pad},       {4, scale_channels}, {4, prelu},
    {4, average},       {4, flatten},  {4, to_tokens}, {0, NULL},
};
