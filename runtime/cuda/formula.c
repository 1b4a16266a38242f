/* The formulas of element-wise ops as C expressions, from the list that the CPU's loops are made
 * from (runtime/scalar.h). Numbers of a node (alpha, the ends of a grid) become parameters. */
#include <stdio.h>
#include <string.h>

#include "runtime/cuda/cuda.h"
#include "runtime/unary.h"

/* One op's text; operands are named by x[i], NULL where omitted. -1: an error, reported. */
typedef int Write(Formula *f, const Node *n, const char *const *x, Diag *d);

__attribute__((format(printf, 2, 3))) static void put(Formula *f, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    const size_t room = sizeof f->text - f->length;
    const int n = vsnprintf(f->text + f->length, room, format, ap);
    va_end(ap);
    f->length += n > 0 ? (size_t)n : 0;
    if (f->length >= sizeof f->text) f->length = sizeof f->text; /* full: seen by formula_add */
}

/* The index of a new parameter. */
static int param(Formula *f, float x)
{
    if (f->nparams < MAP_PARAMS) f->params[f->nparams] = x;
    return f->nparams++;
}

#define NAME(name, ...) #name,
static const char *const unary_name[] = {
    SCALAR_UNARY_LIST(NAME, , SCALAR_MATH_float, SCALAR_F_float)};
#undef NAME

static int write_unary(Formula *f, const Node *n, const char *const *x, Diag *d)
{
    UnarySpec s;
    TRY(unary_spec(&s, n, d));
    const int a = param(f, s.a), b = param(f, s.b);
    if (n->op == OP_Derivative) put(f, "%s * ", x[0]);
    put(f, "scalar_%s%d_float(%s, a->p[%d], a->p[%d])", unary_name[s.fn], s.order, x[n->nin - 1], a,
        b);
    return 0;
}

static int write_clip(Formula *f, const Node *n, const char *const *x, Diag *d)
{
    (void)d;
    const char *lo = n->nin > 1 && x[1] ? x[1] : "-INFINITY";
    const char *hi = n->nin > 2 && x[2] ? x[2] : "INFINITY";
    put(f, "scalar_Clip0_float(%s, %s, %s)", x[0], lo, hi);
    return 0;
}

/* f(f(x0, x1), x2) …; Sum is Add. */
static int write_fold(Formula *f, const Node *n, const char *const *x, Diag *d)
{
    const char *name = n->op == OP_Sum ? "Add" : node_op_name(n);
    (void)d;
    for (int i = 1; i < n->nin; i++) put(f, "scalar_%s_float(", name);
    put(f, "%s", x[0]);
    for (int i = 1; i < n->nin; i++) put(f, ", %s)", x[i]);
    return 0;
}

static int write_compare(Formula *f, const Node *n, const char *const *x, Diag *d)
{
    (void)d;
    const char *sign = n->op == OP_Greater ? ">" : n->op == OP_Less ? "<" : "==";
    put(f, "(%s %s %s ? 1.f : 0.f)", x[0], sign, x[1]);
    return 0;
}

static int write_where(Formula *f, const Node *n, const char *const *x, Diag *d)
{
    (void)n, (void)d;
    put(f, "(%s != 0.f ? %s : %s)", x[0], x[1], x[2]);
    return 0;
}

static int write_same(Formula *f, const Node *n, const char *const *x, Diag *d)
{
    (void)n, (void)d;
    put(f, "%s", x[0]);
    return 0;
}

static int write_batchnorm(Formula *f, const Node *n, const char *const *x, Diag *d)
{
    (void)d;
    put(f, "(%s - %s) * (%s / sqrtf(%s + a->p[%d])) + %s", x[0], x[3], x[1], x[4],
        param(f, node_float(n, "epsilon", 1e-5f)), x[2]);
    return 0;
}

static int write_quantize(Formula *f, const Node *n, const char *const *x, Diag *d)
{
    (void)d;
    put(f, "rintf(%s / %s) + %s", x[0], x[1], n->nin > 2 && x[2] ? x[2] : "0.f");
    return 0;
}

static int write_dequantize(Formula *f, const Node *n, const char *const *x, Diag *d)
{
    (void)d;
    put(f, "(%s - %s) * %s", x[0], n->nin > 2 && x[2] ? x[2] : "0.f", x[1]);
    return 0;
}

/* FakeQuant(x, scale, zero) and the first output of FakeQuantGrad(dy, x, scale, zero). */
static int write_fake_quant(Formula *f, const Node *n, const char *const *x, Diag *d)
{
    (void)d;
    const int lo = param(f, (float)node_int(n, "qmin", 0)),
              hi = param(f, (float)node_int(n, "qmax", 255));
    if (n->op == OP_FakeQuant)
        put(f, "gpu_fake_quant(%s, %s, %s, a->p[%d], a->p[%d])", x[0], x[1], x[2], lo, hi);
    else
        put(f, "(gpu_inside(%s, %s, %s, a->p[%d], a->p[%d]) ? %s : 0.f)", x[1], x[2], x[3], lo, hi,
            x[0]);
    return 0;
}

/* bytes: inputs (by bit) that may be bytes or bools; the others are floats. byte_out: so is the
 * output. */
typedef struct MapOp {
    Write *write;
    unsigned bytes;
    bool byte_out;
} MapOp;

#define UNARY(op) [OP_##op] = {write_unary, 0, false}
#define FOLD(op) [OP_##op] = {write_fold, 0, false}
static const MapOp map_ops[OP_COUNT] = {
    UNARY(Relu),
    UNARY(LeakyRelu),
    [OP_Clip] = {write_clip, 0, false},
    UNARY(Sigmoid),
    UNARY(HardSigmoid),
    UNARY(HardSwish),
    UNARY(Tanh),
    UNARY(Gelu),
    UNARY(Erf),
    UNARY(Sqrt),
    UNARY(Exp),
    UNARY(Log),
    UNARY(Abs),
    UNARY(Reciprocal),
    UNARY(Floor),
    UNARY(Ceil),
    UNARY(Round),
    UNARY(Neg),
    UNARY(Derivative),
    [OP_Identity] = {write_same, 0, false},
    [OP_Dropout] = {write_same, 0, false},
    [OP_Cast] = {write_same, 1, false},
    [OP_Expand] = {write_same, 0, false},
    FOLD(Add),
    FOLD(Sub),
    FOLD(Mul),
    FOLD(Div),
    FOLD(Pow),
    FOLD(PRelu),
    FOLD(Max),
    FOLD(Min),
    FOLD(Sum),
    [OP_Greater] = {write_compare, 0, true},
    [OP_Less] = {write_compare, 0, true},
    [OP_Equal] = {write_compare, 0, true},
    [OP_Where] = {write_where, 1, false},
    [OP_BatchNormalization] = {write_batchnorm, 0, false},
    [OP_QuantizeLinear] = {write_quantize, 4, true},
    [OP_DequantizeLinear] = {write_dequantize, 7, false},
    [OP_FakeQuant] = {write_fake_quant, 0, false},
    [OP_FakeQuantGrad] = {write_fake_quant, 0, false},
};

static bool is_byte(DType d) { return d == DT_U8 || d == DT_I8 || d == DT_BOOL; }

/* Inputs that only say a shape. */
static int data_inputs(const Node *n)
{
    return n->op == OP_Expand || n->op == OP_Dropout ? 1 : n->nin;
}

bool map_can(const Device *d, const Node *n, const Tensor *in, const Tensor *out)
{
    const MapOp *m = &map_ops[n->op];
    (void)d;
    if (!m->write || !(cuda_is_float(out[0].dtype) || (m->byte_out && is_byte(out[0].dtype))))
        return false;
    for (int o = 1; o < n->nout; o++)
        if (n->out[o]) return false;
    for (int i = 0; i < data_inputs(n); i++) {
        if (in[i].rank < 0) continue;
        if (!cuda_is_float(in[i].dtype) && !(m->bytes >> i & 1 && is_byte(in[i].dtype)))
            return false;
    }
    return n->nin < MAP_OPERANDS - 1;
}

int formula_add(Formula *f, const Node *n, const char *y, const char *const *x, int *error, Diag *d)
{
    const Formula before = {.length = f->length, .nparams = f->nparams};
    put(f, "    const float %s = ", y);
    *error = map_ops[n->op].write(f, n, x, d);
    put(f, ";\n");
    if (f->length < sizeof f->text && f->nparams <= MAP_PARAMS) return *error;
    f->length = before.length;
    f->nparams = before.nparams;
    f->text[f->length] = '\0';
    return -1;
}

static int quant_axis(const Node *n, const Tensor *x)
{
    const bool fake = n->op == OP_FakeQuant || n->op == OP_FakeQuantGrad;
    if (fake && !node_attr(n, "axis")) return -1;
    return axis_index(node_int(n, "axis", 1), x->rank);
}

Tensor map_operand(const Node *n, int i, const Tensor *in, const Tensor *out)
{
    const bool quantized = n->op == OP_QuantizeLinear || n->op == OP_DequantizeLinear ||
                           n->op == OP_FakeQuant || n->op == OP_FakeQuantGrad;
    const int images = n->op == OP_FakeQuantGrad ? 2 : 1;
    if (quantized && i >= images)
        return along_axis(&in[i], tensor_count(&in[i]) == 1 ? -1 : quant_axis(n, out), out->rank);
    if (n->op == OP_BatchNormalization && i > 0) return along_axis(&in[i], 1, out->rank);
    return in[i];
}
