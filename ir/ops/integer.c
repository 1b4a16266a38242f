/* Products of 8-bit integers: with 32-bit results (MatMulInteger, ConvInteger), requantized
 * (QLinearMatMul, QLinearConv); and DynamicQuantizeLinear. */
#include "ir/ops/common.h"
#include "ir/ops/products.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

/* Input i is uint8 or int8. */
static int expect_byte(const Node *n, int i, Diag *d)
{
    DType t = input_type(n, i).dtype;
    if (t == DT_NONE || t == DT_U8 || t == DT_I8) return 0;
    return node_error(d, n, "'%s' is %s, needs uint8 or int8", n->in[i]->name, dtype_name(t));
}

/* Input i, if present, is a number or a vector of `count`. */
static int expect_numbers(const Node *n, int i, int64_t count, const char *what, Diag *d)
{
    Type t = input_type(n, i);
    if (t.rank == 0 || (t.rank == 1 && t.dim[0] == 1)) return 0;
    return expect_vector(n, i, count, what, d);
}

static int64_t rows_of(const Type *t) { return t->rank >= 2 ? t->dim[t->rank - 2] : 1; }
static int64_t columns_of(const Type *t)
{
    return t->rank >= 2 ? t->dim[t->rank - 1] : t->rank < 0 ? DIM_UNKNOWN : 1;
}

/* (a, b, zero point of a, of b): zero points are numbers, or one per row of a, column of b. */
int infer_matmul_integer(Node *n, Diag *d)
{
    Type t, a = input_type(n, 0), b = input_type(n, 1);
    TRY(expect_byte(n, 0, d));
    TRY(expect_byte(n, 1, d));
    TRY(matmul_type(n, 0, 1, &t, d));
    TRY(expect_numbers(n, 2, rows_of(&a), "zero point", d));
    TRY(expect_numbers(n, 3, columns_of(&b), "zero point", d));
    t.dtype = DT_I32;
    return infer_out(n, 0, t, d);
}

/* (a, scale, zero point, b, scale, zero point, scale of y, zero point of y) */
int infer_qlinear_matmul(Node *n, Diag *d)
{
    Type t, a = input_type(n, 0), b = input_type(n, 3);
    TRY(expect_byte(n, 0, d));
    TRY(expect_byte(n, 3, d));
    TRY(expect_byte(n, 7, d));
    TRY(matmul_type(n, 0, 3, &t, d));
    for (int i = 1; i < 3; i++) TRY(expect_numbers(n, i, rows_of(&a), "scale or zero point", d));
    for (int i = 4; i < 6; i++) TRY(expect_numbers(n, i, columns_of(&b), "scale or zero point", d));
    for (int i = 6; i < 8; i++) TRY(expect_numbers(n, i, 1, "scale or zero point", d));
    t.dtype = input_type(n, 7).dtype;
    return infer_out(n, 0, t, d);
}

static int64_t filters_of(const Type *w) { return w->rank < 1 ? DIM_UNKNOWN : w->dim[0]; }

/* (x, w, zero point of x, of w): the latter a number, or one per filter. */
int infer_conv_integer(Node *n, Diag *d)
{
    Type t, w = input_type(n, 1);
    TRY(expect_byte(n, 0, d));
    TRY(expect_byte(n, 1, d));
    TRY(conv_type(n, 0, 1, n->nin, &t, d));
    TRY(expect_numbers(n, 2, 1, "zero point", d));
    TRY(expect_numbers(n, 3, filters_of(&w), "zero point", d));
    t.dtype = DT_I32;
    return infer_out(n, 0, t, d);
}

/* (x, scale, zero point, w, scale, zero point, scale of y, zero point of y, bias) */
int infer_qlinear_conv(Node *n, Diag *d)
{
    Type t, w = input_type(n, 3);
    TRY(expect_byte(n, 0, d));
    TRY(expect_byte(n, 3, d));
    TRY(expect_byte(n, 7, d));
    TRY(conv_type(n, 0, 3, 8, &t, d));
    for (int i = 1; i < 3; i++) TRY(expect_numbers(n, i, 1, "scale or zero point", d));
    for (int i = 4; i < 6; i++) TRY(expect_numbers(n, i, filters_of(&w), "scale or zero point", d));
    for (int i = 6; i < 8; i++) TRY(expect_numbers(n, i, 1, "scale or zero point", d));
    t.dtype = input_type(n, 7).dtype;
    return infer_out(n, 0, t, d);
}

int infer_dynamic_quantize(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    t.dtype = DT_U8;
    TRY(infer_out(n, 0, t, d));
    TRY(infer_out(n, 1, type_of(DT_F32, 0, NULL), d));
    return infer_out(n, 2, type_of(DT_U8, 0, NULL), d);
}

/* ---- end of shapes ------------------------------------------------------------------ */
