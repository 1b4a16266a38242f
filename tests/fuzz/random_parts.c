/* The smallest parts of random networks. */
#include "tests/fuzz/random_parts.h"

#include <string.h>

/* The next byte modulo `below`; 0 once they have ended. */
int64_t draw(Maker *m, int64_t below) { return m->at < m->n ? m->bytes[m->at++] % below : 0; }

void add(Maker *m, Value *v)
{
    if (m->npool < POOL) m->pool[m->npool++] = v;
}

int64_t dim(const Value *x, int axis) { return x->type.dim[axis]; }
int64_t last(const Value *x) { return dim(x, x->type.rank - 1); }
int channel_axis(const Value *x) { return x->type.rank == 3 ? 2 : 1; }

/* mean + deviation * normal numbers */
Value *numbers(Maker *m, int rank, const int64_t *size, float mean, float deviation)
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
Value *weight(Maker *m, int rank, const int64_t *size, int64_t fan_in)
{
    return numbers(m, rank, size, 0, 1 / sqrtf((float)fan_in));
}

Value *vector(Maker *m, int64_t n, float mean) { return numbers(m, 1, &n, mean, 0.3f); }

Value *unary(Maker *m, Op op, Value *x) { return build(m->g, op, IN(x), NO_ATTRS); }

Value *binary(Maker *m, Op op, Value *x, Value *y) { return build(m->g, op, IN(x, y), NO_ATTRS); }

Value *reshape(Maker *m, Value *x, int rank, const int64_t *to)
{
    return binary(m, OP_Reshape, x, const_ints(m->g, rank, to));
}

Value *transpose(Maker *m, Value *x, int rank, const int64_t *perm)
{
    return build(m->g, OP_Transpose, IN(x), ATTRS(attr_ints("perm", (size_t)rank, perm)));
}

Value *product(Maker *m, Value *x, int64_t out)
{
    Value *y = binary(m, OP_MatMul, x, weight(m, 2, DIMS(last(x), out), last(x)));
    return draw(m, 2) ? binary(m, OP_Add, y, vector(m, out, 0)) : y;
}

Value *dense(Maker *m, Value *x, int64_t out)
{
    int64_t in = dim(x, 1);
    if (draw(m, 2))
        return build(m->g, OP_Gemm, IN(x, weight(m, 2, DIMS(in, out), in), vector(m, out, 0)),
                     NO_ATTRS);
    return build(m->g, OP_Gemm, IN(x, weight(m, 2, DIMS(out, in), in), vector(m, out, 0)),
                 ATTRS(attr_int("transB", 1), attr_float("alpha", 0.75f)));
}

/* k x k; `dilation` only widens it */
Value *conv(Maker *m, Value *x, int64_t out, int64_t k, int64_t group, int64_t stride,
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

Value *activation(Maker *m, Value *x)
{
    static const Op smooth[] = {OP_Relu, OP_Relu,     OP_Sigmoid,   OP_Tanh, OP_HardSwish,
                                OP_Gelu, OP_Softplus, OP_LeakyRelu, OP_Elu,  OP_Erf,
                                OP_Neg,  OP_Abs,      OP_Softsign,  OP_Mish, OP_Identity};
    Op op = smooth[draw(m, sizeof smooth / sizeof *smooth)];
    return unary(m, op, x);
}

/* Another value of the pool that agrees with x in all but `axis` (-1: in all); x itself if none. */
Value *partner(Maker *m, const Value *x, int axis)
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

bool is_open(int64_t size) { return size < 0; }

int64_t area(const Value *x)
{
    bool open = is_open(dim(x, 2)) || is_open(dim(x, 3));
    return open ? MOST_AREA : dim(x, 2) * dim(x, 3);
}

bool may_grow(Maker *m, const Value *x)
{
    bool open = is_open(dim(x, 2)) || is_open(dim(x, 3));
    return open ? m->growth++ == 0 : area(x) <= MOST_AREA;
}
