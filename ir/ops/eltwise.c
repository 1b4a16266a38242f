/* Element-wise functions of one, two or many operands, with broadcasting. */
#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

/* Integer arithmetic on known elements, symbols among them. False: unknown. Sums and products
 * of symbols are new, unknown sizes; differences could be negative, so they are not sizes. */
static bool elem_negative(int64_t a) { return a < 0 && !dim_is_sym(a); }

static bool elem_add(int64_t a, int64_t b, int64_t *out)
{
    if (dim_is_sym(a) || dim_is_sym(b)) {
        *out = a == 0 ? b : b == 0 ? a : DIM_UNKNOWN;
        return *out != DIM_UNKNOWN || (!elem_negative(a) && !elem_negative(b));
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
        *out = a == 1 ? b : b == 1 ? a : a == 0 || b == 0 ? 0 : DIM_UNKNOWN;
        return *out != DIM_UNKNOWN || (!elem_negative(a) && !elem_negative(b));
    }
    return !__builtin_mul_overflow(a, b, out);
}

static bool elem_div(int64_t a, int64_t b, int64_t *out)
{
    if (dim_is_sym(a) || dim_is_sym(b)) {
        *out = b == 1 ? a : a == b ? 1 : DIM_UNKNOWN;
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

static const struct {
    Op op;
    bool (*f)(int64_t, int64_t, int64_t *);
} elem_ops[] = {{OP_Add, elem_add},
                {OP_Sub, elem_sub},
                {OP_Mul, elem_mul},
                {OP_Div, elem_div},
                {OP_Equal, elem_equal}};

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

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* ---- end of channels ---------------------------------------------------------------- */
