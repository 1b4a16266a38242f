/* Element-wise functions of truth values and bits. */
#include "ir/ad.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

static int expect_kind(const Node *n, int i, bool (*fits)(DType), const char *kind, Diag *d)
{
    DType t = input_type(n, i).dtype;
    if (t == DT_NONE || fits(t)) return 0;
    return node_error(d, n, "'%s' is %s, needs %s", n->in[i]->name, dtype_name(t), kind);
}

static bool is_bool(DType t) { return t == DT_BOOL; }

static int infer_kind(Node *n, bool (*fits)(DType), const char *kind, Diag *d)
{
    Type t;
    for (int i = 0; i < n->nin; i++) {
        TRY(expect_kind(n, i, fits, kind, d));
        TRY(expect_same_dtype(n, 0, i, d));
    }
    TRY(broadcast_inputs(n, 0, n->nin, &t, d));
    return infer_out(n, 0, t, d);
}

int infer_logic(Node *n, Diag *d) { return infer_kind(n, is_bool, "bool", d); }

int infer_bitwise(Node *n, Diag *d) { return infer_kind(n, dtype_is_int, "an integer type", d); }

/* IsNaN, IsInf. */
int infer_float_test(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    TRY(expect_kind(n, 0, dtype_is_float, "a float type", d));
    t.dtype = DT_BOOL;
    return infer_out(n, 0, t, d);
}

/* ---- derivatives -------------------------------------------------------------------- */

/* y = a - trunc(a / b) b, of floats. The quotient is flat but for its jumps: (a - y) / b. */
static Value *mod_quotient(Ad *ad, const Node *n)
{
    Value *y = build(ad->g, OP_Mod, IN(n->in[0], n->in[1]), n->nattrs, n->attrs);
    return ad_div(ad, ad_sub(ad, n->in[0], y), n->in[1]);
}

int vjp_mod(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    dx[0] = dy[0];
    if (ad_wants(ad, n->in[1])) dx[1] = ad_scale(ad, ad_mul(ad, dy[0], mod_quotient(ad, n)), -1);
    return 0;
}

int jvp_mod(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    dy[0] = dx[0] ? ad_fit(ad, dx[0], &n->out[0]->type) : NULL;
    if (dx[1]) dy[0] = ad_plus(ad, dy[0], ad_scale(ad, ad_mul(ad, dx[1], mod_quotient(ad, n)), -1));
    return 0;
}

/* ---- end of derivatives ------------------------------------------------------------- */
