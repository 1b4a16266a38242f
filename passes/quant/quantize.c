/* FakeQuant to QuantizeLinear and DequantizeLinear: what was simulated becomes what ONNX says.
 *
 * An activation x gets q = QuantizeLinear(x), x' = DequantizeLinear(q); constants are stored as
 * integers behind a DequantizeLinear alone. The bias b of a product of x (scale s_x) and w (scales
 * s_w[c]) is stored as int32 at scale s_x s_w[c], the scale of the integer accumulator, so that
 * runtimes add it there. Names follow ONNX Runtime's own quantizer. */
#include <math.h>
#include <string.h>

#include "ir/batch.h"
#include "ir/mapped.h"
#include "ir/op.h"
#include "passes/batches.h"
#include "passes/quant/fake_quant.h"
#include "passes/quant/targets.h"

static Node *fake_quant_of(const Value *v)
{
    return v && v->def && v->def->op == OP_FakeQuant ? v->def : NULL;
}

/* What puts an activation on a grid: a FakeQuant, or a DequantizeLinear that the model came with.
 * The scale is input 1 of either. */
static const Node *grid_of(const Value *v)
{
    bool own = v && v->def && v->def->op == OP_DequantizeLinear && value_is_const(v->def->in[1]);
    return own && v->type.dtype == DT_F32 ? v->def : fake_quant_of(v);
}

/* ---- biases ------------------------------------------------------------------------- */

/* A node whose bias can be an integer: both factors are on grids, and the bias is a vector with an
 * element per output channel. */
static bool has_integer_bias(const Node *n, const Node **x, Node **w)
{
    const Value *b = node_in(n, 2);
    bool biased = n->op == OP_Conv || n->op == OP_ConvTranspose || n->op == OP_Gemm;
    if (!biased || !b || !value_is_const(b)) return false;
    if (b->type.dtype != DT_F32 || b->type.rank != 1) return false;
    *x = grid_of(node_in(n, 0));
    *w = fake_quant_of(node_in(n, 1));
    return *x && *w && value_is_const((*w)->in[0]) && type_count(&(*x)->in[1]->type) == 1 &&
           type_count(&(*w)->in[1]->type) == b->type.dim[0] && node_float(n, "beta", 1) == 1 &&
           node_float(n, "alpha", 1) == 1;
}

/* Scales of channels whose weights are so small that the bias at scale s_x s_w would not fit into
 * 30 bits are raised until it does: those weights count for nothing beside the bias. */
static void raise_tiny_scales(Graph *g)
{
    for (int i = 0; i < g->nnodes; i++) {
        const Node *x;
        Node *w;
        if (!has_integer_bias(g->nodes[i], &x, &w)) continue;
        const Value *b = g->nodes[i]->in[2];
        const float *bias = b->data;
        float sx = *(const float *)x->in[1]->data;
        size_t bytes = (size_t)type_bytes(&w->in[1]->type);
        float *scale = arena_memdup(g->arena, w->in[1]->data, bytes);
        for (int64_t c = 0; c < b->type.dim[0]; c++)
            scale[c] = fmaxf(scale[c], fabsf(bias[c]) / (sx * 0x1p30f));
        w->in[1]->data = scale;
    }
}

/* ---- nodes -------------------------------------------------------------------------- */

/* Beside what holds a tensor's elements, which bears its whole name (recorded.c). */
static Value *constant(Graph *g, const char *of, const char *suffix, Type t, const void *data)
{
    return value_const(g, arena_printf(g->arena, "%.*s%s", name_head(of), of, suffix), t, data);
}

/* Builds a QuantizeLinear or DequantizeLinear named after the tensor it is for; where there are
 * several (a bias that products of different scales share, or long names with one beginning), node
 * and value get the same number. */
static Value *convert(Graph *g, Op op, const char *of, Value *x, Value *scale, Value *zero,
                      int axis)
{
    Attr a = attr_int("axis", axis);
    Value *y = build(g, op, IN(x, scale, zero), axis >= 0, &a);
    const char *name = arena_printf(g->arena, "%.*s_%s", name_head(of), of, op_info[op].name),
               *suffix = "_Output";
    y->name = value_new(g, arena_printf(g->arena, "%s%s", name, suffix), y->type)->name;
    y->def->name = arena_printf(g->arena, "%s%s", name, y->name + strlen(name) + strlen(suffix));
    return y;
}

/* clamp(round(x / scale[c]) + zero[c]) as bytes; the slices c are along `axis`. */
static void *quantized_bytes(Graph *g, const Node *fq, int axis, int64_t qmin, int64_t qmax)
{
    const Value *v = fq->in[0];
    const float *x = v->data, *scale = fq->in[1]->data, *zero = fq->in[2]->data;
    int64_t n = type_count(&v->type), inner = 1, channels = axis < 0 ? 1 : v->type.dim[axis];
    uint8_t *q = NEW_ARRAY(g->arena, uint8_t, n);
    for (int i = axis < 0 ? v->type.rank : axis + 1; i < v->type.rank; i++) inner *= v->type.dim[i];
    for (int64_t i = 0; i < n; i++) {
        int64_t c = axis < 0 ? 0 : i / inner % channels;
        float r = rintf(x[i] / scale[c]) + zero[c];
        r = fminf(fmaxf(r, (float)qmin), (float)qmax);
        q[i] = (uint8_t)(int)r; /* two's complement for int8 */
    }
    return q;
}

/* Zero points that there are: of which FakeQuant's, NULL for biases. */
typedef struct Zeros {
    Value **made;
    const Value **from;
    int n;
} Zeros;

/* A constant with these elements, named after the first tensor that has it. Most are alike, and
 * those of biases nothing but zeros; but two tensors share one of int8 only on the same grid:
 * where ONNX Runtime makes weights uint8 it makes a copy of each one's zero point, by its name. */
static Value *zero_point(Zeros *z, Graph *g, const Value *from, const char *of, const char *suffix,
                         Type t, const void *data)
{
    for (int k = 0; k < z->n; k++)
        if (type_equal(&z->made[k]->type, &t) && (t.dtype != DT_I8 || z->from[k] == from) &&
            memcmp(z->made[k]->data, data, (size_t)type_bytes(&t)) == 0)
            return z->made[k];
    z->from[z->n] = from;
    return z->made[z->n++] = constant(g, of, suffix, t, data);
}

static Value *grid_zero(Zeros *zeros, Graph *g, const Node *fq, DType dtype)
{
    const Value *z = fq->in[2];
    const float *zero = z->data;
    int64_t n = type_count(&z->type);
    uint8_t *q = NEW_ARRAY(g->arena, uint8_t, n);
    for (int64_t i = 0; i < n; i++) q[i] = (uint8_t)(int)zero[i];
    return zero_point(zeros, g, z, fq->in[0]->name, "_zero_point",
                      type_of(dtype, z->type.rank, z->type.dim), q);
}

static Value *lower_fake_quant(Graph *g, const Node *fq, Zeros *zeros)
{
    Value *x = fq->in[0], *scale = fq->in[1];
    int64_t qmin = node_int(fq, "qmin", 0), qmax = node_int(fq, "qmax", 255);
    int axis = (int)node_int(fq, "axis", -1);
    Value *zero = grid_zero(zeros, g, fq, qmin < 0 ? DT_I8 : DT_U8), *q;
    const char *name = x->name;
    if (value_is_const(x)) {
        Type t = type_of(zero->type.dtype, x->type.rank, x->type.dim);
        q = value_const(g, arena_printf(g->arena, "%s_quantized", name), t,
                        quantized_bytes(g, fq, axis, qmin, qmax));
        mapped_forget(x->data, (size_t)type_bytes(&x->type));
    } else {
        q = convert(g, OP_QuantizeLinear, name, x, scale, zero, axis);
    }
    return convert(g, OP_DequantizeLinear, name, q, scale, zero, axis);
}

static Value *lower_bias(Graph *g, Value *b, const Node *x, const Node *w, Zeros *zeros)
{
    int64_t n = b->type.dim[0];
    const float *bias = b->data, *sw = w->in[1]->data;
    float sx = *(const float *)x->in[1]->data;
    float *scale = NEW_ARRAY(g->arena, float, n);
    int32_t *q = NEW_ARRAY(g->arena, int32_t, n), *zero = NEW_ARRAY(g->arena, int32_t, n);
    for (int64_t c = 0; c < n; c++) {
        scale[c] = sx * sw[c];
        q[c] = (int32_t)rint((double)bias[c] / (double)scale[c]);
    }
    Type ints = type_of(DT_I32, 1, &n), floats = type_of(DT_F32, 1, &n);
    Value *qv = value_const(g, arena_printf(g->arena, "%s_quantized", b->name), ints, q);
    Value *s = constant(g, b->name, "_quantized_scale", floats, scale);
    Value *z = zero_point(zeros, g, NULL, b->name, "_quantized_zero_point", ints, zero);
    return convert(g, OP_DequantizeLinear, b->name, qv, s, z, 0);
}

/* For runtimes that take no symbolic dimension: one sample at a time, in the samples' size. */
static int bind_shapes(Context *c)
{
    Graph *g = c->graph;
    Arena *a = g->arena;
    int64_t *dims = NEW_ARRAY(a, int64_t, g->nsymbols + 1);
    const int *axes = batch_axes(g, a);
    int symbolic = 0;
    for (int k = 0; k < g->nsymbols; k++) dims[k] = -1;
    for (int i = 0; i < g->ninputs; i++) {
        const Type *t = &g->inputs[i]->type;
        for (int k = 0; k < t->rank; k++) symbolic += dim_is_sym(t->dim[k]);
        const int64_t dim = axes[i] < 0 ? 0 : t->dim[axes[i]];
        if (dim_is_sym(dim)) dims[dim - DIM_SYM_BASE] = 1;
    }
    if (!symbolic) return 0;
    const int64_t batch = c->data ? shard_size(g, c->data, 1) : 1; /* what the model fixes stays */
    if (c->data) TRY(shard_specialize(&c->graph, g, a, c->data, batch, c->diag));
    if (!c->data && !(c->graph = simplify_specialize(g, a, dims, NULL, c->diag))) return -1;
    for (int i = 0; i < g->ninputs; i++)
        if (!type_is_static(&c->graph->inputs[i]->type))
            return diag_error(c->diag,
                              "target '%s' takes no symbolic dimensions, input '%s' has some",
                              c->opt.target, g->inputs[i]->name);
    diag_remark(c->diag,
                "target '%s' takes no symbolic dimensions: they are bound, the batch to %lld",
                c->opt.target, (long long)batch);
    return 0;
}

int pass_quantize(Context *c, const char *opt)
{
    (void)opt;
    Graph *g = c->graph;
    const Target *t = target_find(c->opt.target);
    int lowered = 0;
    if (!t) return diag_error(c->diag, "unknown target '%s'", c->opt.target);
    if (t->int32_bias) raise_tiny_scales(g);
    Zeros zeros = {.made = NEW_ARRAY(g->arena, Value *, 2 * g->nnodes), /* a node's, its bias's */
                   .from = NEW_ARRAY(g->arena, const Value *, 2 * g->nnodes)};
    Rewrite r = rewrite_begin(g);
    for (int i = 0; i < r.nold; i++) {
        Node *n = r.old[i], *w;
        const Node *x;
        g->at = n;
        if (n->op == OP_FakeQuant) {
            n->in[0] = rewrite_value(&r, n->in[0]);
            rewrite_replace(&r, n->out[0], lower_fake_quant(g, n, &zeros));
            lowered++;
            continue;
        }
        if (t->int32_bias && has_integer_bias(n, &x, &w))
            n->in[2] = lower_bias(g, n->in[2], x, w, &zeros);
        rewrite_map_inputs(&r, n);
        node_append(g, n);
    }
    g->at = NULL;
    rewrite_end(&r);
    if (!lowered)
        diag_warning(c->diag,
                     "no layer runs in integers on '%s': none suits it, or the pass fake-quant has "
                     "not run",
                     t->name);
    return t->static_shapes ? bind_shapes(c) : 0;
}
