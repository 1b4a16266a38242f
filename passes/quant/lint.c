/* Rules that decide, on the graph alone, which nodes a runtime turns into integer kernels.
 *
 * Every role (targets.h) has a list of rules; the first that a node breaks is the verdict. They
 * follow the selectors of ONNX Runtime's QDQ transformer and, for targets whose grids are on
 * inputs only, what OpenVINO's low-precision transformations do with them and what TensorRT
 * documents. Grids reach through what commutes with them, forwards and backwards, as the runtimes
 * themselves move them. */
#include "passes/quant/lint.h"

#include <math.h>
#include <string.h>

#include "ir/op.h"
#include "passes/quant/relative.h"

typedef struct Lint {
    const Graph *g;
    const Target *t;
    Arena *a;
    Uses uses;
    bool *leads; /* by value id: a product comes behind it */
    Relative relative;
} Lint;

typedef const char *Rule(const Lint *l, const Node *n);

/* ---- reading grids ------------------------------------------------------------------- */

static bool commutes(const Lint *l, const Node *n)
{
    return n && target_role(l->t, n->op) == QUANT_COMMUTES;
}

/* The DequantizeLinear that v comes from, through what commutes; NULL: v is a float. */
static const Node *dequantizer(const Lint *l, const Value *v)
{
    while (v && v->def && v->def->op != OP_DequantizeLinear && commutes(l, v->def))
        v = v->def->in[0];
    return v && v->def && v->def->op == OP_DequantizeLinear ? v->def : NULL;
}

static bool same_constant(const Value *a, const Value *b)
{
    if (a == b) return true;
    if (!a || !b || !value_is_const(a) || !value_is_const(b)) return false;
    int64_t n = type_bytes(&a->type);
    return a->type.dtype == b->type.dtype && n == type_bytes(&b->type) &&
           memcmp(a->data, b->data, (size_t)n) == 0;
}

/* Two QuantizeLinear or DequantizeLinear on the same grid. */
static bool same_grid(const Node *p, const Node *q)
{
    return same_constant(p->in[1], q->in[1]) && same_constant(node_in(p, 2), node_in(q, 2));
}

static DType stored_type(const Node *q)
{
    return q->op == OP_QuantizeLinear ? q->out[0]->type.dtype : q->in[0]->type.dtype;
}

/* An int8 pair with one reader, which ONNX Runtime turns into uint8 before it looks for integer
 * kernels; a pair with more stays int8, so that types may differ where they agreed in the file. */
static bool becomes_uint8(const Lint *l, const Node *q)
{
    if (q->op == OP_DequantizeLinear) q = q->in[0]->def;
    if (!l->t->int8_to_uint8 || !q || q->op != OP_QuantizeLinear || stored_type(q) != DT_I8)
        return false;
    const Node *dq = l->uses.n[q->out[0]->id] == 1 ? l->uses.at[q->out[0]->id][0] : NULL;
    return dq && dq->op == OP_DequantizeLinear && l->uses.n[dq->out[0]->id] == 1;
}

static DType grid_type(const Lint *l, const Node *q)
{
    return becomes_uint8(l, q) ? DT_U8 : stored_type(q);
}

static double zero_of(const Lint *l, const Node *q)
{
    double z = 0;
    if (node_in(q, 2)) value_scalar(q->in[2], &z);
    return becomes_uint8(l, q) ? z + 128 : z;
}

static double least_of(DType t) { return t == DT_I8 ? -128 : t == DT_I16 ? -32768 : 0; }
static double most_of(DType t)
{
    return t == DT_I8 ? 127 : t == DT_I16 ? 32767 : t == DT_U16 ? 65535 : 255;
}

/* The only reader of v, or NULL. */
/* The QuantizeLinear that takes v, through what commutes, where nothing else does. On failure
 * *other is what does (NULL: a graph output, or nobody). Several on one grid are one. */
static const Node *quantizer(const Lint *l, const Value *v, const Node **other)
{
    const Node *q = NULL;
    *other = NULL;
    for (int k = 0; k < l->uses.n[v->id]; k++) {
        const Node *n = l->uses.at[v->id][k], *found = NULL;
        if (n && n->op == OP_QuantizeLinear) found = n;
        if (n && !found && commutes(l, n)) found = quantizer(l, n->out[0], other);
        if (!found || (q && !same_grid(q, found))) {
            if (n && !*other) *other = n;
            return NULL;
        }
        q = found;
    }
    return q;
}

/* Whether the clipping node changes nothing that the grid of q does not clip already. */
static bool is_redundant(const Lint *l, const Node *clip, const Node *q)
{
    double scale, lo = -INFINITY, hi = INFINITY, zero = zero_of(l, q);
    DType t = grid_type(l, q);
    if (!value_scalar(q->in[1], &scale)) return false;
    if (clip->op == OP_Relu) lo = 0;
    if (clip->op == OP_Clip && node_in(clip, 1) && !value_scalar(clip->in[1], &lo)) return false;
    if (clip->op == OP_Clip && node_in(clip, 2) && !value_scalar(clip->in[2], &hi)) return false;
    return (least_of(t) - zero) * scale >= lo && (most_of(t) - zero) * scale <= hi;
}

/* ---- rules --------------------------------------------------------------------------- */

static const char *wide_enough(const Lint *l, const Node *n)
{
    if (!below_least_channels(l->t, n)) return NULL;
    return arena_printf(l->a, "fewer than %d channels are not worth integers",
                        l->t->least_channels);
}

static bool is_data(const Node *n, int k)
{
    return n->in[k] && n->in[k]->type.dtype == DT_F32 && !(quant_weight_axis(n) >= 0 && k >= 1) &&
           !(n->op == OP_Resize && k >= 1) && k < (n->op == OP_Gemm || n->op == OP_Conv ? 2 : 64);
}

static const char *inputs_dequantized(const Lint *l, const Node *n)
{
    for (int k = 0; k < n->nin; k++) {
        if (!is_data(n, k)) continue;
        const Node *dq = dequantizer(l, n->in[k]);
        if (!dq)
            return arena_printf(l->a, "its input '%s' does not come from a DequantizeLinear",
                                n->in[k]->name);
        if (type_count(&dq->in[1]->type) != 1)
            return arena_printf(l->a, "its input '%s' has a scale per channel", n->in[k]->name);
    }
    return NULL;
}

/* ONNX Runtime on x64 has convolutions and products of uint8 alone, and rewrites int8 only where
 * one node reads it. */
static const char *rewritten(const Lint *l, const Node *n)
{
    if (!l->t->int8_to_uint8 || grid_type(l, dequantizer(l, n->in[0])) != DT_I8) return NULL;
    return arena_printf(l->a, "its input '%s' is int8 and several nodes read it: uint8 is wanted",
                        n->in[0]->name);
}

static const char *weight_dequantized(const Lint *l, const Node *n)
{
    const Value *w = n->in[1];
    if (quant_weight_axis(n) < 0) return NULL;
    const Node *dq = w->def && w->def->op == OP_DequantizeLinear ? w->def : NULL;
    if (!dq) return arena_printf(l->a, "its weight '%s' is not dequantized", w->name);
    DType x = grid_type(l, dequantizer(l, n->in[0])), t = grid_type(l, dq);
    if (!l->t->output_grids && t != DT_I8)
        return arena_printf(l->a, "its weight is %s, not int8", dtype_name(t));
    if (x == DT_I8 && t != DT_I8)
        return arena_printf(l->a, "its weight is %s, its input int8", dtype_name(t));
    return NULL;
}

/* All activations that meet in the node have one type; zero points as the target has them. */
static const char *types_agree(const Lint *l, const Node *n)
{
    DType first = DT_NONE;
    for (int k = 0; k < n->nin; k++) {
        const Node *dq = is_data(n, k) ? dequantizer(l, n->in[k]) : NULL;
        if (!dq) continue;
        DType t = grid_type(l, dq);
        if (first && t != first)
            return arena_printf(l->a, "its inputs are %s and %s", dtype_name(first), dtype_name(t));
        first = t;
        if (l->t->symmetric && (t != DT_I8 || zero_of(l, dq) != 0))
            return arena_printf(l->a, "'%s' is %s with zero point %g: int8 with 0 is wanted",
                                n->in[k]->name, dtype_name(t), zero_of(l, dq));
    }
    return NULL;
}

static const char *second_factor(const Lint *l, const Node *n)
{
    const Node *dq =
        l->t->constant_factor && quant_weight_axis(n) < 0 ? dequantizer(l, n->in[1]) : NULL;
    if (!dq || zero_of(l, dq) == 0) return NULL;
    return arena_printf(l->a, "'%s', the second of two activations, has zero point %g: 0 is wanted",
                        n->in[1]->name, zero_of(l, dq));
}

/* An int32 bias at scale s_x s_w, or a float one where the runtime converts it. */
static const char *bias_fits(const Lint *l, const Node *n)
{
    const Value *b = node_in(n, 2);
    double sx;
    if (!b || n->op == OP_MatMul) return NULL;
    if (n->op == OP_Gemm && node_float(n, "beta", 1) != 1) return "its beta is not 1";
    if (value_is_const(b)) return NULL;
    const Node *dq = b->def && b->def->op == OP_DequantizeLinear ? b->def : NULL;
    if (!dq) return arena_printf(l->a, "its bias '%s' is computed in float", b->name);
    if (l->t->symmetric) return "its bias is int32, where TensorRT takes float";
    const Node *w = n->in[1]->def, *x = dequantizer(l, n->in[0]);
    const Value *s = dq->in[1], *sw = w->in[1];
    if (!value_scalar(x->in[1], &sx) || !value_is_const(s) || !value_is_const(sw)) return NULL;
    const float *p = s->data, *q = sw->data;
    int64_t ns = type_count(&s->type), nw = type_count(&sw->type);
    for (int64_t c = 0; c < ns; c++) {
        double want = sx * (double)q[nw > 1 ? c % nw : 0];
        if (fabs((double)p[c] - want) > 1e-5 * want)
            return arena_printf(l->a, "scale %g of its bias is not that of input times weight, %g",
                                (double)p[c], want);
    }
    return NULL;
}

static const char *not_quantized(const Lint *l, const Value *v, const Node *other)
{
    if (!other && l->uses.n[v->id] == 0) return "nobody reads it";
    if (!other) return arena_printf(l->a, "its output '%s' is a graph output", v->name);
    return arena_printf(l->a, "its output also goes to '%s' (%s), not to one QuantizeLinear",
                        node_label(other), node_op_name(other));
}

/* A product whose float result is delivered as it is. */
static bool delivers_float(const Lint *l, const Node *n)
{
    bool product = n->op == OP_Gemm || n->op == OP_MatMul;
    const Value *b = node_in(n, 2);
    if (!l->t->float_result || !product || (b && value_is_const(b))) return false;
    for (int k = 0; k < l->uses.n[n->out[0]->id]; k++) {
        const Node *r = l->uses.at[n->out[0]->id][k];
        if (r && r->op == OP_QuantizeLinear) return false;
    }
    return true;
}

static const char *types_differ(const Lint *l, const Node *dq, const Node *q)
{
    bool same = stored_type(dq) == stored_type(q);
    return arena_printf(l->a, "its input is %s, its output %s%s", dtype_name(grid_type(l, dq)),
                        dtype_name(grid_type(l, q)),
                        same ? ": int8 with one reader is rewritten, with several it stays" : "");
}

static const char *output_quantized(const Lint *l, const Node *n)
{
    const Node *other, *clip = only_reader(&l->uses, n->out[0]);
    if (!l->t->output_grids || delivers_float(l, n)) return NULL;
    if (!clip || target_role(l->t, clip->op) != QUANT_ABSORBED) clip = NULL;
    const Value *v = clip ? clip->out[0] : n->out[0];
    const Node *q = quantizer(l, v, &other);
    if (!q && clip)
        return arena_printf(l->a, "%s after it: %s", node_op_name(clip),
                            not_quantized(l, v, other));
    if (!q) return not_quantized(l, v, other);
    if (clip && l->t->tight_relu && !is_redundant(l, clip, q)) {
        double zero = zero_of(l, q);
        if (zero != least_of(grid_type(l, q)) && clip->op == OP_Relu)
            return arena_printf(l->a,
                                "Relu after it is not absorbed because its Q has zero_point %g != "
                                "qmin %g",
                                zero, least_of(grid_type(l, q)));
        return arena_printf(l->a, "%s after it is not absorbed because its Q reaches beyond it",
                            node_op_name(clip));
    }
    const Node *dq = dequantizer(l, n->in[0]);
    if (!dq || grid_type(l, dq) == grid_type(l, q)) return NULL;
    return types_differ(l, dq, q);
}

/* Pools of the targets without grids on outputs: the result must be wanted in integers. */
static const char *result_wanted(const Lint *l, const Node *n)
{
    const Node *other;
    if (l->t->output_grids || n->op == OP_Concat) return NULL;
    return quantizer(l, n->out[0], &other) ? NULL : not_quantized(l, n->out[0], other);
}

static const char *one_scale(const Lint *l, const Node *n)
{
    const Node *first = NULL;
    if (n->op != OP_Concat || l->t->output_grids) return NULL;
    for (int k = 0; k < n->nin; k++) {
        const Node *dq = dequantizer(l, n->in[k]);
        if (!first) first = dq;
        if (!same_grid(first, dq))
            return arena_printf(l->a, "'%s' and '%s' are on different scales", n->in[0]->name,
                                n->in[k]->name);
    }
    return NULL;
}

/* What moves elements must come out on the grid that went in. */
static const char *same_in_and_out(const Lint *l, const Node *n)
{
    const Node *dq = dequantizer(l, n->in[0]), *other;
    if (commutes(l, n) && only_reader(&l->uses, n->out[0]) == NULL) return NULL;
    for (int o = 0; o < n->nout; o++) {
        const Node *q = n->out[o] ? quantizer(l, n->out[o], &other) : NULL;
        if (!n->out[o] || (!q && commutes(l, n))) continue;
        if (!q) return not_quantized(l, n->out[o], other);
        if (!same_grid(dq, q)) return "its output is on another grid than its input";
        if (grid_type(l, dq) != grid_type(l, q)) return types_differ(l, dq, q);
    }
    return NULL;
}

/* A sum in the epilogue of one operand's product wants the others dequantized. */
static const char *shortcut_dequantized(const Lint *l, const Node *n)
{
    for (int k = 0; k < n->nin; k++) {
        const Value *v = n->in[k];
        bool product = v->def && target_role(l->t, v->def->op) == QUANT_WEIGHTED;
        if (value_is_const(behind_grid(v))) continue; /* a bias */
        if (!product && !dequantizer(l, v))
            return arena_printf(l->a, "its shortcut '%s' does not come from a DequantizeLinear",
                                v->name);
    }
    return NULL;
}

static Rule *const product_rules[] = {wide_enough,        inputs_dequantized, rewritten,
                                      weight_dequantized, types_agree,        second_factor,
                                      bias_fits,          output_quantized,   NULL};
static Rule *const arith_rules[] = {inputs_dequantized, types_agree,   one_scale,
                                    output_quantized,   result_wanted, NULL};
static Rule *const move_rules[] = {inputs_dequantized, same_in_and_out, NULL};
static Rule *const residual_rules[] = {shortcut_dequantized, NULL};

static Rule *const *rules_of(const Lint *l, const Node *n)
{
    switch (target_role(l->t, n->op)) {
    case QUANT_WEIGHTED:
        return product_rules;
    case QUANT_ARITH:
        return arith_rules;
    case QUANT_RESIDUAL:
        return residual_rules;
    case QUANT_SAME:
    case QUANT_COMMUTES:
        return move_rules;
    default:
        return NULL;
    }
}

/* ---- the graph ----------------------------------------------------------------------- */

static void mark_leads(Lint *l)
{
    for (int i = l->g->nnodes - 1; i >= 0; i--) {
        const Node *n = l->g->nodes[i];
        bool yes = target_role(l->t, n->op) == QUANT_WEIGHTED;
        for (int o = 0; o < n->nout && !yes; o++) yes = n->out[o] && l->leads[n->out[o]->id];
        for (int k = 0; k < n->nin && yes; k++)
            if (n->in[k]) l->leads[n->in[k]->id] = true;
    }
}

/* Whether the node takes part: it computes floats from activations, and all but products have at
 * least one operand that was in integers. */
static bool takes_part(const Lint *l, const Node *n)
{
    QuantRole role = target_role(l->t, n->op);
    if (!n->nout || !n->out[0] || n->out[0]->type.dtype != DT_F32 || !node_in(n, 0)) return false;
    if (!behind_grid(n->in[0]) || value_is_const(behind_grid(n->in[0]))) return false;
    if (n->op == OP_Resize && quant_role(l->t, n) == QUANT_FLOAT) return false;
    if (role == QUANT_WEIGHTED) return quant_weight_axis(n) >= 0 || dequantizer(l, n->in[0]);
    if (role == QUANT_RESIDUAL) {
        for (int k = 0; k < n->nin; k++)
            if (n->in[k]->def && target_role(l->t, n->in[k]->def->op) == QUANT_WEIGHTED &&
                only_reader(&l->uses, n->in[k]))
                return true;
        return false;
    }
    for (int k = 0; k < n->nin; k++)
        if (is_data(n, k) && !value_is_const(behind_grid(n->in[k])) && dequantizer(l, n->in[k]))
            return true;
    return false;
}

/* What QOperator files hold instead of Q/DQ pairs: ONNX Runtime's own kernels. */
static bool is_qoperator(const Node *n)
{
    return n->op == OP_Opaque && n->op_type && strncmp(n->op_type, "QLinear", 7) == 0;
}

int lint(LintNode **out, const Graph *g, const Target *t, Arena *a)
{
    Lint l = {.g = g, .t = t, .a = a, .uses = graph_uses(g, a)};
    LintNode *list = *out = NEW_ARRAY(a, LintNode, g->nnodes);
    int n = 0;
    l.leads = NEW_ARRAY(a, bool, g->nvalues);
    l.relative = relative_find(g, a);
    mark_leads(&l);
    for (int i = 0; i < g->nnodes; i++) {
        const Node *node = g->nodes[i];
        Rule *const *rule = rules_of(&l, node);
        LintNode *v = &list[n];
        if (is_qoperator(node)) {
            list[n++] = (LintNode){.node = node,
                                   .why = t->output_grids && !t->static_shapes
                                              ? NULL
                                              : "a QOperator node, where Q/DQ pairs are wanted"};
            continue;
        }
        if (!rule || !takes_part(&l, node)) continue;
        *v = (LintNode){.node = node};
        for (; *rule && !v->why; rule++) v->why = (*rule)(&l, node);
        bool product = target_role(t, node->op) == QUANT_WEIGHTED;
        v->spare = !product && !l.leads[node->out[0]->id];
        if (below_least_channels(t, node) || relative_result(&l.relative, node)) v->spare = true;
        n++;
    }
    return n;
}
