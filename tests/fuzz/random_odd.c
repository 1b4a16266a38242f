/* Random blocks around which networks are compressed, or that are not plain float: custom
 * operators, If and Loop with bodies that read outer values, half-precision weights and parts,
 * parts that are quantized already, outputs of other types. */
#include <string.h>

#include "onnx.pb-c.h"
#include "tests/fuzz/random_parts.h"

/* ---- what is carried, not understood ------------------------------------------------- */

/* A node that the IR cannot know, of x's type; the last `captures` inputs are read by bodies. */
static Node *carried(Maker *m, const char *domain, const char *op, int nin, Value *const *in,
                     int captures)
{
    Graph *g = m->g;
    const Value *x = in[nin - 1 - (captures > 1)];
    Node *n = node_new(g, OP_Opaque, nin, in, 1);
    n->domain = domain;
    n->op_type = op;
    n->ncapture = captures;
    n->out[0] = value_new(g, op, x->type);
    return n;
}

/* Operators of ONNX Runtime's own domain. */
static void custom(Maker *m, Value *x)
{
    static const char *const ops[] = {"Gelu", "FastGelu", "QuickGelu"};
    Node *n = carried(m, "com.microsoft", ops[draw(m, 3)], 1, &x, 0);
    node_append(m->g, n);
    add(m, n->out[0]);
}

/* ---- bodies -------------------------------------------------------------------------- */

typedef struct Body {
    Onnx__GraphProto g;
    Onnx__NodeProto node[4], *nodes[4];
    Onnx__ValueInfoProto info[6], *inputs[3], *outputs[3];
    Onnx__TypeProto type[6];
    Onnx__TypeProto__Tensor tensor[6];
    Onnx__TensorShapeProto scalar;
    char *names[4][3];
    size_t ninfo;
} Body;

/* The generated code has no const. */
static char *unconst(const char *s) { return (char *)(uintptr_t)s; }

/* A value of the body with its type: a scalar, or a float of no known shape. */
static Onnx__ValueInfoProto *describe(Body *b, const char *name, DType dtype, bool scalar)
{
    const size_t k = b->ninfo++;
    onnx__value_info_proto__init(&b->info[k]);
    onnx__type_proto__init(&b->type[k]);
    onnx__type_proto__tensor__init(&b->tensor[k]);
    onnx__tensor_shape_proto__init(&b->scalar);
    b->tensor[k].has_elem_type = true;
    b->tensor[k].elem_type = (int32_t)dtype;
    if (scalar) b->tensor[k].shape = &b->scalar;
    b->type[k].value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    b->type[k].tensor_type = &b->tensor[k];
    b->info[k].name = unconst(name);
    b->info[k].type = &b->type[k];
    return &b->info[k];
}

/* y = op(a, b); b NULL: of one input. */
static void body_node(Body *b, const char *op, const char *y, const char *x1, const char *x2)
{
    const size_t k = b->g.n_node++;
    Onnx__NodeProto *n = b->nodes[k] = &b->node[k];
    onnx__node_proto__init(n);
    n->op_type = unconst(op);
    b->names[k][0] = unconst(x1);
    b->names[k][1] = unconst(x2);
    b->names[k][2] = unconst(y);
    n->input = b->names[k];
    n->n_input = x2 ? 2 : 1;
    n->output = &b->names[k][2];
    n->n_output = 1;
}

static Body *body_new(Maker *m, const char *name)
{
    Body *b = NEW(m->g->arena, Body);
    onnx__graph_proto__init(&b->g);
    b->g.name = unconst(name);
    b->g.node = b->nodes;
    b->g.input = b->inputs;
    b->g.output = b->outputs;
    return b;
}

static void put_body(Maker *m, Node *n, const char *attr, Body *b)
{
    Onnx__AttributeProto p;
    onnx__attribute_proto__init(&p);
    p.name = unconst(attr);
    p.has_type = true;
    p.type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH;
    p.g = &b->g;
    size_t size = onnx__attribute_proto__get_packed_size(&p);
    uint8_t *bytes = arena_alloc(m->g->arena, size);
    onnx__attribute_proto__pack(&p, bytes);
    node_set_attr(m->g, n, (Attr){.name = attr, .kind = ATTR_OPAQUE, .s = {bytes, size}});
}

/* y = sum of the input > 0 ? -x : |x| */
static void branch(Maker *m, Value *x)
{
    static const char *const attrs[] = {"then_branch", "else_branch"}, *const ops[] = {"Neg",
                                                                                       "Abs"};
    Graph *g = m->g;
    Value *input = g->inputs[0];
    if (input->type.dtype != DT_F32)
        input = build(g, OP_Cast, IN(input), ATTRS(attr_int("to", DT_F32)));
    Value *sum = build(g, OP_ReduceSum, IN(input), ATTRS(attr_int("keepdims", 0)));
    Node *n = carried(m, "", "If", IN(binary(m, OP_Greater, sum, const_f32(g, 0)), x), 1);
    for (int k = 0; k < 2; k++) {
        const char *y = arena_printf(g->arena, "%s_%d", n->out[0]->name, k);
        Body *b = body_new(m, attrs[k]);
        body_node(b, ops[k], y, "ehap:capture:0", NULL);
        b->outputs[b->g.n_output++] = describe(b, y, DT_F32, false);
        put_body(m, n, attrs[k], b);
    }
    node_append(g, n);
    add(m, n->out[0]);
}

/* Twice y <- tanh(y + z), from y = x; z is read from outside. */
static void loop(Maker *m, Value *x)
{
    static const int64_t trips = 2;
    static const uint8_t yes = 1;
    Graph *g = m->g;
    Value *count = value_const(g, "trips", type_of(DT_I64, 0, NULL), &trips);
    Value *go = value_const(g, "go", type_of(DT_BOOL, 0, NULL), &yes);
    Node *n = carried(m, "", "Loop", IN(count, go, x, partner(m, x, -1)), 1);
    const char *y = n->out[0]->name;
    char *name[6];
    for (int k = 0; k < 6; k++) name[k] = arena_printf(g->arena, "%s_%d", y, k);
    Body *b = body_new(m, "body");
    b->inputs[b->g.n_input++] = describe(b, name[0], DT_I64, true);
    b->inputs[b->g.n_input++] = describe(b, name[1], DT_BOOL, true);
    b->inputs[b->g.n_input++] = describe(b, name[2], DT_F32, false);
    body_node(b, "Identity", name[3], name[1], NULL);
    body_node(b, "Add", name[4], name[2], "ehap:capture:0");
    body_node(b, "Tanh", name[5], name[4], NULL);
    b->outputs[b->g.n_output++] = describe(b, name[3], DT_BOOL, true);
    b->outputs[b->g.n_output++] = describe(b, name[5], DT_F32, false);
    put_body(m, n, "body", b);
    node_append(g, n);
    add(m, n->out[0]);
}

/* ---- other types --------------------------------------------------------------------- */

static Value *cast(Maker *m, Value *x, DType to)
{
    return build(m->g, OP_Cast, IN(x), ATTRS(attr_int("to", to)));
}

/* The weights that `w` holds, as the file may store them: in half precision. */
static Value *stored(Maker *m, Value *w, DType type)
{
    Graph *g = m->g;
    Type t = w->type;
    const float *x = w->data;
    uint16_t *h = NEW_ARRAY(g->arena, uint16_t, type_count(&t));
    for (int64_t i = 0; i < type_count(&t); i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        const uint32_t exponent = bits >> 23 & 0xff;
        const uint32_t small = exponent < 113 ? 0 : (exponent - 112) << 10 | (bits >> 13 & 0x3ff);
        h[i] = (uint16_t)(bits >> 16);
        if (type == DT_F16) h[i] = (uint16_t)((bits >> 16 & 0x8000) | small);
    }
    t.dtype = type;
    return value_const(g, "half", t, h);
}

/* A product with weights in FP16 or BF16 that are made float in the network. */
static void half_weights(Maker *m, Value *x)
{
    const DType type = draw(m, 2) ? DT_F16 : DT_BF16;
    const int64_t out = 2 + draw(m, 11);
    if (x->type.rank == 4) {
        Value *w = weight(m, 4, DIMS(out, dim(x, 1), 1, 1), dim(x, 1));
        add(m, binary(m, OP_Conv, x, cast(m, stored(m, w, type), DT_F32)));
    } else {
        Value *w = weight(m, 2, DIMS(last(x), out), last(x));
        add(m, binary(m, OP_MatMul, x, cast(m, stored(m, w, type), DT_F32)));
    }
}

/* A part that computes in FP16. */
static void half_part(Maker *m, Value *x)
{
    Value *y = cast(m, x, DT_F16);
    if (x->type.rank == 4) {
        const int64_t out = 2 + draw(m, 7);
        Value *w = weight(m, 4, DIMS(out, dim(x, 1), 1, 1), dim(x, 1));
        y = binary(m, OP_Conv, y, stored(m, w, DT_F16));
    }
    add(m, cast(m, unary(m, OP_Relu, y), DT_F32));
}

static Value *integer(Maker *m, DType type, int8_t x)
{
    return value_const(m->g, "zero", type_of(type, 0, NULL),
                       arena_memdup(m->g->arena, &x, sizeof x));
}

/* x through a grid of 8 bits. */
static Value *through_grid(Maker *m, Value *x)
{
    Value *scale = const_f32(m->g, 1 / 32.0F);
    Value *zero = draw(m, 2) ? integer(m, DT_U8, 100) : integer(m, DT_I8, 0);
    Value *q = build(m->g, OP_QuantizeLinear, IN(x, scale, zero), NO_ATTRS);
    return build(m->g, OP_DequantizeLinear, IN(q, scale, zero), NO_ATTRS);
}

static void quantized(Maker *m, Value *x) { add(m, through_grid(m, x)); }

/* A product that another tool has quantized: both operands on grids, the weights' per channel. */
static void quantized_product(Maker *m, Value *x)
{
    const bool image = x->type.rank == 4;
    const int64_t in = image ? dim(x, 1) : last(x), out = 2 + draw(m, 7);
    Value *w = image ? weight(m, 4, DIMS(out, in, 1, 1), in) : weight(m, 2, DIMS(in, out), in);
    Type t = w->type;
    int8_t *q = NEW_ARRAY(m->g->arena, int8_t, type_count(&t));
    for (int64_t i = 0; i < type_count(&t); i++)
        q[i] = (int8_t)lrintf(fminf(fmaxf(32 * ((const float *)w->data)[i], -127), 127));
    t.dtype = DT_I8;
    Value *scale = numbers(m, 1, &out, 1 / 32.0F, 0), *grid = value_const(m->g, "q", t, q);
    Value *y = through_grid(m, x);
    const Attr axis = attr_int("axis", image ? 0 : 1);
    w = build(m->g, OP_DequantizeLinear, IN(grid, scale), 1, &axis);
    add(m, binary(m, image ? OP_Conv : OP_MatMul, y, w));
}

/* An output of another type, which nothing else reads. */
static void report(Maker *m, Value *x)
{
    Value *y;
    switch (draw(m, 4)) {
    case 0:
        y = build(m->g, OP_ArgMax, IN(x),
                  ATTRS(attr_int("axis", channel_axis(x)), attr_int("keepdims", draw(m, 2))));
        break;
    case 1:
        y = binary(m, OP_Greater, x, const_f32(m->g, 0.25F));
        break;
    case 2:
        y = cast(m, x, DT_F16);
        break;
    default:
        y = cast(m, x, DT_F64);
    }
    if (m->g->noutputs < 3) graph_add_output(m->g, y);
}

const Block odd_blocks[] = {
    {0, custom},
    {0, branch},
    {0, loop},
    {0, half_weights},
    {4, half_part},
    {0, quantized},
    {0, quantized_product},
    {0, report},
    {0, NULL},
};
