/* Element-wise functions of one, two or many operands, with broadcasting. */
#include <float.h>
#include <string.h>

#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"
#include "ir/unary.h"

/* ---- shapes and costs --------------------------------------------------------------- */

/* Integer arithmetic on known elements, symbols among them. False: unknown. Sums and products
 * of symbols are new, unknown sizes; differences could be negative, so they are not sizes. */
static bool elem_negative(int64_t a) { return a < 0 && !dim_is_sym(a); }

static bool elem_add(int64_t a, int64_t b, int64_t *out)
{
    if (dim_is_sym(a) || dim_is_sym(b)) {
        *out = a == 0 ? b : b == 0 ? a : ELEM_UNKNOWN;
        return *out != ELEM_UNKNOWN || (!elem_negative(a) && !elem_negative(b));
    }
    return !__builtin_add_overflow(a, b, out);
}

static bool elem_sub(int64_t a, int64_t b, int64_t *out)
{
    if (dim_is_sym(a) || dim_is_sym(b)) {
        *out = a == b ? 0 : a;
        return a == b || b == 0;
    }
    return !__builtin_sub_overflow(a, b, out);
}

static bool elem_mul(int64_t a, int64_t b, int64_t *out)
{
    if (dim_is_sym(a) || dim_is_sym(b)) {
        *out = a == 1 ? b : b == 1 ? a : a == 0 || b == 0 ? 0 : ELEM_UNKNOWN;
        return *out != ELEM_UNKNOWN || (!elem_negative(a) && !elem_negative(b));
    }
    return !__builtin_mul_overflow(a, b, out);
}

static bool elem_div(int64_t a, int64_t b, int64_t *out)
{
    if (dim_is_sym(a) || dim_is_sym(b)) {
        *out = b == 1 ? a : a == b ? 1 : ELEM_UNKNOWN;
        return b > 0 || a == b;
    }
    if (b == 0 || (a == INT64_MIN && b == -1)) return false;
    *out = a / b;
    return true;
}

static bool elem_equal(int64_t a, int64_t b, int64_t *out)
{
    *out = a == b;
    if (a == b || elem_negative(a) || elem_negative(b)) return true;
    return !dim_is_sym(a) && !dim_is_sym(b);
}

static bool elem_max(int64_t a, int64_t b, int64_t *out)
{
    *out = a > b ? a : b;
    return !dim_is_sym(a) && !dim_is_sym(b);
}

static bool elem_min(int64_t a, int64_t b, int64_t *out)
{
    *out = a < b ? a : b;
    return !dim_is_sym(a) && !dim_is_sym(b);
}

static const struct {
    Op op;
    bool (*f)(int64_t, int64_t, int64_t *);
} elem_ops[] = {{OP_Add, elem_add}, {OP_Sub, elem_sub}, {OP_Mul, elem_mul},    {OP_Div, elem_div},
                {OP_Max, elem_max}, {OP_Min, elem_min}, {OP_Equal, elem_equal}};

/* Elements of a binary op on shape tensors, one operand possibly a scalar. */
static void binary_elems(Node *n)
{
    int64_t a[MAX_ELEMS], b[MAX_ELEMS], out[MAX_ELEMS];
    size_t k = 0;
    while (k < sizeof elem_ops / sizeof *elem_ops && elem_ops[k].op != n->op) k++;
    if (k == sizeof elem_ops / sizeof *elem_ops || n->nin != 2) return;
    int na = value_ints(n->in[0], a, MAX_ELEMS), nb = value_ints(n->in[1], b, MAX_ELEMS);
    if (na < 1 || nb < 1 || (na != nb && na != 1 && nb != 1)) return;
    int count = na > nb ? na : nb;
    for (int i = 0; i < count; i++)
        if (!elem_ops[k].f(a[na == 1 ? 0 : i], b[nb == 1 ? 0 : i], &out[i])) return;
    infer_elems(n, 0, count, out);
}

/* Ops with an axis (Softmax, FakeQuant) need it to exist. */
int infer_same(Node *n, Diag *d)
{
    Type x = input_type(n, 0);
    int axis = 0;
    if (x.rank >= 0 && node_attr(n, "axis"))
        TRY(axis_of(n, node_int(n, "axis", -1), x.rank, &axis, d));
    TRY(infer_out(n, 0, x, d));
    int64_t e[MAX_ELEMS];
    if (n->op == OP_Identity) infer_elems(n, 0, value_ints(n->in[0], e, MAX_ELEMS), e);
    return 0;
}

int infer_broadcast(Node *n, Diag *d)
{
    Type t;
    for (int i = 1; i < n->nin && n->op != OP_Pow; i++) {
        if (!n->in[i]) return node_error(d, n, "input %d is missing", i);
        TRY(expect_same_dtype(n, 0, i, d));
    }
    TRY(broadcast_inputs(n, 0, n->nin, &t, d));
    TRY(infer_out(n, 0, t, d));
    binary_elems(n);
    return 0;
}

int infer_compare(Node *n, Diag *d)
{
    Type t;
    TRY(expect_same_dtype(n, 0, 1, d));
    TRY(broadcast_inputs(n, 0, 2, &t, d));
    t.dtype = DT_BOOL;
    TRY(infer_out(n, 0, t, d));
    binary_elems(n);
    return 0;
}

static void where_elems(Node *n)
{
    int64_t e[3][MAX_ELEMS], out[MAX_ELEMS];
    int count = 1, have[3];
    for (int i = 0; i < 3; i++) {
        have[i] = value_ints(n->in[i], e[i], MAX_ELEMS);
        if (have[i] < 1 || (have[i] != 1 && count != 1 && have[i] != count)) return;
        if (have[i] > count) count = have[i];
    }
    for (int i = 0; i < count; i++) {
        int from = e[0][have[0] == 1 ? 0 : i] ? 1 : 2;
        out[i] = e[from][have[from] == 1 ? 0 : i];
    }
    infer_elems(n, 0, count, out);
}

int infer_where(Node *n, Diag *d)
{
    Type t;
    TRY(expect_same_dtype(n, 1, 2, d));
    if (n->in[0]->type.dtype != DT_BOOL && n->in[0]->type.dtype != DT_NONE)
        return node_error(d, n, "condition '%s' is %s, needs bool", n->in[0]->name,
                          dtype_name(n->in[0]->type.dtype));
    TRY(broadcast_inputs(n, 0, 3, &t, d));
    t.dtype = n->in[1]->type.dtype;
    TRY(infer_out(n, 0, t, d));
    where_elems(n);
    return 0;
}

int infer_dropout(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    TRY(infer_out(n, 0, t, d));
    t.dtype = DT_BOOL;
    return infer_out(n, 1, t, d);
}

int infer_cast(Node *n, Diag *d)
{
    int64_t to = node_int(n, "to", 0), e[MAX_ELEMS];
    Type t = input_type(n, 0);
    if (dtype_size((DType)to) == 0 || to < 0)
        return node_error(d, n, "cannot cast to element type %lld", (long long)to);
    t.dtype = (DType)to;
    TRY(infer_out(n, 0, t, d));
    if (t.dtype == DT_I64 || t.dtype == DT_I32)
        infer_elems(n, 0, value_ints(n->in[0], e, MAX_ELEMS), e);
    return 0;
}

int infer_castlike(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    t.dtype = input_type(n, 1).dtype;
    return infer_out(n, 0, t, d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

const char *unary_param(const Node *n, int which)
{
    if (n->op == OP_Selu) return which ? "gamma" : "alpha";
    if (n->op == OP_Shrink) return which ? "bias" : "lambd";
    return which ? "beta" : "alpha";
}

/* d * f^(order)(x), f being the function of the unary node (or Derivative node) n. */
static Value *derivative(Ad *ad, const Node *n, int64_t order, Value *d, Value *x)
{
    static const char *const params[] = {"alpha", "beta"};
    Attr attrs[5];
    int k = 0;
    const char *of = node_str(n, "of", node_op_name(n));
    if (n->op == OP_Gelu && strcmp(node_str(n, "approximate", "none"), "tanh") == 0)
        of = "GeluTanh";
    attrs[k++] = attr_str("of", of);
    attrs[k++] = attr_int("order", order);
    for (int i = 0; i < 2; i++)
        if (node_attr(n, unary_param(n, i)))
            attrs[k++] = attr_float(params[i], node_float(n, unary_param(n, i), 0));
    return build(ad->g, OP_Derivative, IN(d, x), k, attrs);
}

/* Where the slope can be told from y as well as from x, y is used: x need not be kept. */
static Value *slope_operand(const Node *n)
{
    bool from_y = n->op == OP_Relu || (n->op == OP_LeakyRelu && node_float(n, "alpha", 0.01f) > 0);
    return from_y ? n->out[0] : n->in[0];
}

int vjp_unary(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    dx[0] = derivative(ad, n, 1, dy[0], slope_operand(n));
    return 0;
}

int jvp_unary(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    dy[0] = derivative(ad, n, 1, dx[0], slope_operand(n));
    return 0;
}

/* Whether the function that a Derivative node differentiates has no curvature. */
static bool piecewise_linear(const Node *n)
{
    static const char *const names[] = {"Relu", "LeakyRelu",       "Clip",  "HardSigmoid",
                                        "Abs",  "ThresholdedRelu", "Shrink"};
    const char *of = node_str(n, "of", "");
    for (size_t k = 0; k < sizeof names / sizeof *names; k++)
        if (strcmp(of, names[k]) == 0) return true;
    return false;
}

/* d * f^(k)(x) by x: d * f^(k+1)(x) times `by`; NULL where that is zero. */
static Value *derivative_by_x(Ad *ad, const Node *n, Value *by)
{
    if (!by || piecewise_linear(n)) return NULL;
    Value *d = build(ad->g, OP_Mul, IN(by, n->in[0]), NO_ATTRS);
    return derivative(ad, n, node_int(n, "order", 1) + 1, d, n->in[1]);
}

static int derivative_order(Ad *ad, const Node *n)
{
    if (node_int(n, "order", 1) < 2 || piecewise_linear(n)) return 0;
    return node_error(ad->diag, n, "third derivatives of %s are not known", node_str(n, "of", "?"));
}

int vjp_derivative(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    if (ad_wants(ad, n->in[0])) dx[0] = derivative(ad, n, node_int(n, "order", 1), dy[0], n->in[1]);
    if (!ad_wants(ad, n->in[1])) return 0;
    TRY(derivative_order(ad, n));
    dx[1] = derivative_by_x(ad, n, dy[0]);
    return 0;
}

int jvp_derivative(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    Value *a = dx[0] ? derivative(ad, n, node_int(n, "order", 1), dx[0], n->in[1]) : NULL;
    if (dx[1]) TRY(derivative_order(ad, n));
    Value *b = derivative_by_x(ad, n, dx[1]);
    dy[0] = a && b ? build(ad->g, OP_Add, IN(a, b), NO_ATTRS) : a ? a : b;
    return 0;
}

/* Clip's bounds are inputs; its Derivative has them as alpha and beta. */
static int clip_slope(Ad *ad, const Node *n, Value *d, Value **out)
{
    double lo = -FLT_MAX, hi = FLT_MAX;
    for (int i = 1; i < 3; i++)
        if (node_in(n, i) && !value_scalar(n->in[i], i == 1 ? &lo : &hi))
            return node_error(ad->diag, n, "has no gradient: its bound '%s' is not a constant",
                              n->in[i]->name);
    *out = build(ad->g, OP_Derivative, IN(d, n->in[0]),
                 ATTRS(attr_str("of", "Clip"), attr_int("order", 1), attr_float("alpha", (float)lo),
                       attr_float("beta", (float)hi)));
    return 0;
}

int vjp_clip(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    return clip_slope(ad, n, dy[0], &dx[0]);
}

int jvp_clip(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    return dx[0] ? clip_slope(ad, n, dx[0], &dy[0]) : 0;
}

/* Steps: constant but for jumps. */
int vjp_zero(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    (void)ad, (void)n, (void)dy, (void)dx;
    return 0;
}

int jvp_zero(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    (void)ad, (void)n, (void)dx, (void)dy;
    return 0;
}

int vjp_identity(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    (void)ad, (void)n;
    dx[0] = dy[0];
    return 0;
}

int jvp_identity(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    (void)ad, (void)n;
    dy[0] = dx[0];
    return 0;
}

int vjp_neg(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    (void)n;
    dx[0] = build(ad->g, OP_Neg, IN(dy[0]), NO_ATTRS);
    return 0;
}

int vjp_cast(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    dx[0] = build(ad->g, OP_Cast, IN(dy[0]), ATTRS(attr_int("to", n->in[0]->type.dtype)));
    return 0;
}

int jvp_castlike(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    if (dx[0]) dy[0] = build(ad->g, OP_CastLike, IN(dx[0], n->in[1]), n->nattrs, n->attrs);
    return 0;
}

int vjp_add(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    for (int i = 0; i < n->nin; i++)
        if (ad_wants(ad, n->in[i])) dx[i] = dy[0];
    return 0;
}

int vjp_mean(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    Value *share = ad_scale(ad, dy[0], 1.0 / n->nin);
    return vjp_add(ad, n, &share, dx);
}

int vjp_sub(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    dx[0] = dy[0];
    if (ad_wants(ad, n->in[1])) dx[1] = build(ad->g, OP_Neg, IN(dy[0]), NO_ATTRS);
    return 0;
}

int vjp_mul(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    for (int i = 0; i < 2; i++)
        if (ad_wants(ad, n->in[i])) dx[i] = ad_mul(ad, dy[0], n->in[1 - i]);
    return 0;
}

int jvp_mul(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    return jvp_multilinear(ad, n, dx, dy, 2);
}

/* y = a / b: dy = (da - y db) / b. */
int vjp_div(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    Value *da = build(ad->g, OP_Div, IN(dy[0], n->in[1]), NO_ATTRS);
    if (ad_wants(ad, n->in[0])) dx[0] = da;
    if (ad_wants(ad, n->in[1]))
        dx[1] = build(ad->g, OP_Neg, IN(ad_mul(ad, da, n->out[0])), NO_ATTRS);
    return 0;
}

int jvp_div(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    Value *d = dx[0];
    if (dx[1]) {
        Value *ydb = ad_mul(ad, n->out[0], dx[1]);
        d = d ? build(ad->g, OP_Sub, IN(d, ydb), NO_ATTRS)
              : build(ad->g, OP_Neg, IN(ydb), NO_ATTRS);
    }
    dy[0] = build(ad->g, OP_Div, IN(d, n->in[1]), NO_ATTRS);
    return 0;
}

/* d(a^b)/da = b a^(b-1) and d(a^b)/db = a^b log a, times d. */
static Value *pow_by_base(Ad *ad, const Node *n, Value *d)
{
    Value *a = n->in[0], *b = n->in[1];
    double e;
    if (value_scalar(b, &e)) {
        if (e == 1) return d;
        Value *rest =
            e == 2 ? a : build(ad->g, OP_Pow, IN(a, const_f32(ad->g, (float)(e - 1))), NO_ATTRS);
        return ad_mul(ad, d, ad_scale(ad, rest, e));
    }
    Value *less = build(ad->g, OP_Sub, IN(b, const_f32(ad->g, 1)), NO_ATTRS);
    return ad_mul(ad, d, ad_mul(ad, b, build(ad->g, OP_Pow, IN(a, less), NO_ATTRS)));
}

static Value *pow_by_exponent(Ad *ad, const Node *n, Value *d)
{
    return ad_mul(ad, d, ad_mul(ad, n->out[0], build(ad->g, OP_Log, IN(n->in[0]), NO_ATTRS)));
}

int vjp_pow(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    if (ad_wants(ad, n->in[0])) dx[0] = pow_by_base(ad, n, dy[0]);
    if (ad_wants(ad, n->in[1])) dx[1] = pow_by_exponent(ad, n, dy[0]);
    return 0;
}

int jvp_pow(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    Value *a = dx[0] ? pow_by_base(ad, n, dx[0]) : NULL;
    dy[0] = ad_plus(ad, a, dx[1] ? pow_by_exponent(ad, n, dx[1]) : NULL);
    return 0;
}

static Value *where(Ad *ad, Value *c, Value *a, Value *b)
{
    if (!a && !b) return NULL;
    if (!a) a = const_f32(ad->g, 0);
    if (!b) b = const_f32(ad->g, 0);
    return build(ad->g, OP_Where, IN(c, a, b), NO_ATTRS);
}

/* The first operand that equals y takes part; the others do not. */
static Value *is_extremum(Ad *ad, const Node *n, int i)
{
    return build(ad->g, OP_Equal, IN(n->in[i], n->out[0]), NO_ATTRS);
}

int vjp_max(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    Value *rest = dy[0];
    for (int i = 0; i < n->nin; i++) {
        Value *here = is_extremum(ad, n, i);
        if (ad_wants(ad, n->in[i])) dx[i] = where(ad, here, rest, NULL);
        if (i + 1 < n->nin) rest = where(ad, here, NULL, rest);
    }
    return 0;
}

int jvp_max(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    for (int i = n->nin - 1; i >= 0; i--) dy[0] = where(ad, is_extremum(ad, n, i), dx[i], dy[0]);
    return 0;
}

int vjp_where(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    if (ad_wants(ad, n->in[1])) dx[1] = where(ad, n->in[0], dy[0], NULL);
    if (ad_wants(ad, n->in[2])) dx[2] = where(ad, n->in[0], NULL, dy[0]);
    return 0;
}

int jvp_where(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    dy[0] = where(ad, n->in[0], dx[1], dx[2]);
    return 0;
}

/* y = x < 0 ? slope x : x */
static Value *is_negative(Ad *ad, const Node *n)
{
    return build(ad->g, OP_Less, IN(n->in[0], const_f32(ad->g, 0)), NO_ATTRS);
}

int vjp_prelu(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    Value *x = n->in[0], *slope = n->in[1], *negative = is_negative(ad, n);
    if (ad_wants(ad, x)) dx[0] = where(ad, negative, ad_mul(ad, dy[0], slope), dy[0]);
    if (ad_wants(ad, slope)) dx[1] = where(ad, negative, ad_mul(ad, dy[0], x), NULL);
    return 0;
}

int jvp_prelu(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    Value *a = dx[0] ? ad_mul(ad, dx[0], n->in[1]) : NULL;
    Value *b = dx[1] ? ad_mul(ad, n->in[0], dx[1]) : NULL;
    dy[0] = where(ad, is_negative(ad, n), ad_plus(ad, a, b), dx[0]);
    return 0;
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* Each axis of the output with the axes of the operands that broadcasting puts on it and that
 * have its size; an operand's axis of size 1 serves all lanes and belongs to none. */
static void lanes_elementwise(Lanes *l, const Node *n, int nin)
{
    const Value *y = n->out[0];
    if (!y) return;
    lanes_broadcast(l, n, nin, y, 0, 0);
    for (int o = 1; o < n->nout; o++)
        for (int axis = 0; n->out[o] && axis < y->type.rank; axis++)
            lanes_pass(l, y, axis, n->out[o], axis);
}

void rule_lanes_eltwise(Lanes *l, const Node *n) { lanes_elementwise(l, n, n->nin); }

/* The first operand minus its own mean, as LayerNormalization is written in parts: a lane without a
 * signal would hold the mean's opposite. It keeps its width, as in one node. */
void rule_lanes_sub(Lanes *l, const Node *n)
{
    const Value *x = n->in[0], *mean = n->in[1];
    lanes_elementwise(l, n, n->nin);
    if (!mean->def || mean->def->op != OP_ReduceMean || mean->def->in[0] != x) return;
    for (int axis = 0; axis < x->type.rank && mean->type.rank == x->type.rank; axis++)
        if (mean->type.dim[axis] == 1 && lanes_open(l, x, axis)) lanes_pin(l, x, axis, mean->def);
}

/* Of the first operand alone: bounds are scalars, CastLike's second tells a type. */
void rule_lanes_clip(Lanes *l, const Node *n) { lanes_elementwise(l, n, 1); }

/* ---- end of channels ---------------------------------------------------------------- */
