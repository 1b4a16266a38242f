/* Quantization: QuantizeLinear, DequantizeLinear and their float simulation. */
#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

/* A scale or zero point: one element, or as many as the axis has, which FakeQuant must name. */
static int expect_grid(const Node *n, int i, const Type *x, const char *what, Diag *d)
{
    Type t = input_type(n, i);
    const bool fake = n->op == OP_FakeQuant || n->op == OP_FakeQuantGrad;
    int axis = 0;
    if (t.rank <= 0 || x->rank < 0 || (t.rank == 1 && t.dim[0] == 1)) return 0;
    if (fake && !node_attr(n, "axis")) return expect_vector(n, i, 1, what, d);
    TRY(axis_of(n, node_int(n, "axis", 1), x->rank, &axis, d));
    return expect_vector(n, i, x->dim[axis], what, d);
}

/* The scale is input i, the zero point follows. */
static int expect_grids(const Node *n, int i, const Type *x, Diag *d)
{
    TRY(expect_grid(n, i, x, "scale", d));
    return expect_grid(n, i + 1, x, "zero point", d);
}

int infer_quantize(Node *n, Diag *d)
{
    Type x = input_type(n, 0);
    TRY(expect_grids(n, 1, &x, d));
    x.dtype = node_in(n, 2) ? n->in[2]->type.dtype : (DType)node_int(n, "output_dtype", DT_U8);
    if (x.dtype == DT_NONE) x.dtype = DT_U8;
    return infer_out(n, 0, x, d);
}

int infer_dequantize(Node *n, Diag *d)
{
    Type x = input_type(n, 0);
    TRY(expect_grids(n, 1, &x, d));
    x.dtype = input_type(n, 1).dtype;
    return infer_out(n, 0, x, d);
}

int infer_fake_quant(Node *n, Diag *d)
{
    Type x = input_type(n, 0);
    TRY(expect_grids(n, 1, &x, d));
    return infer_out(n, 0, x, d);
}

/* (dy, x, scale, zero_point) -> dx, dscale. */
int infer_fake_quant_grad(Node *n, Diag *d)
{
    Type x = input_type(n, 1);
    TRY(expect_grids(n, 2, &x, d));
    TRY(infer_out(n, 0, x, d));
    return infer_out(n, 1, input_type(n, 2), d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* Straight through inside the range; a gradient by the scale (learned step size) if wanted. */
int vjp_fake_quant(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    bool scale = ad_wants(ad, n->in[1]);
    Node *m = build_multi(ad->g, OP_FakeQuantGrad, scale ? 2 : 1,
                          IN(dy[0], n->in[0], n->in[1], n->in[2]), n->nattrs, n->attrs);
    dx[0] = m->out[0];
    if (scale) dx[1] = m->out[1];
    return 0;
}

/* The same slope, 0 or 1. Scales do not move along a direction. */
int jvp_fake_quant(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    if (dx[1] || dx[2]) return node_error(ad->diag, n, "its grid has no tangent");
    if (!dx[0]) return 0;
    dy[0] = build(ad->g, OP_FakeQuantGrad, IN(dx[0], n->in[0], n->in[1], n->in[2]), n->nattrs,
                  n->attrs);
    return 0;
}

/* Linear in dy; the slope is constant but for jumps. */
int jvp_fake_quant_grad(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    if (dx[2] || dx[3]) return node_error(ad->diag, n, "its grid has no tangent");
    if (!dx[0]) return 0;
    Node *m = build_multi(ad->g, OP_FakeQuantGrad, n->nout, IN(dx[0], n->in[1], n->in[2], n->in[3]),
                          n->nattrs, n->attrs);
    for (int o = 0; o < n->nout; o++) dy[o] = n->out[o] ? m->out[o] : NULL;
    return 0;
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* Element-wise; scale and zero point of more than one element lie along `axis`. */
void rule_lanes_quant(Lanes *l, const Node *n)
{
    const Value *x = n->in[0], *y = n->out[0];
    int64_t axis = node_int(n, "axis", 1);
    for (int k = 0; k < x->type.rank; k++) lanes_pass(l, x, k, y, k);
    if (axis < -x->type.rank || axis >= x->type.rank) return; /* one scale for all */
    if (axis < 0) axis += x->type.rank;
    for (int i = 1; i < 3; i++) {
        const Value *s = node_in(n, i);
        if (s && s->type.rank == 1 && lanes_open(l, y, (int)axis) &&
            s->type.dim[0] == y->type.dim[axis])
            lanes_tie_axis(l, s, 0, y, (int)axis);
    }
}

/* ---- end of channels ---------------------------------------------------------------- */
