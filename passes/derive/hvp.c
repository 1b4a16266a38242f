/* Builds the programs of hvp.h: the Hessian-vector product is jvp(grad(loss)) and nothing more
 * special; the Gauss-Newton and Fisher quantities are one vjp from the logits. */
#include "passes/derive/hvp.h"

#include <math.h>
#include <string.h>

#include "ir/batch.h"
#include "ir/op.h"
#include "ir/recurrent.h"
#include "passes/simplify/contract.h"
#include "passes/train/schedule.h"

/* ---- layers ------------------------------------------------------------------------- */

/* The input that is the weight of a node, and its axis of output channels; -1 if it has no weight
 * to score. Of recurrent layers that is R, whose columns are the hidden units; a table whose rows
 * the data chooses is the weight of an embedding. */
static int scored_weight(const Node *n, const bool *from_data, int *axis)
{
    const Value *w = node_in(n, 1);
    switch (n->op) {
    case OP_Conv:
    case OP_DeformConv:
        *axis = 0;
        return 1;
    case OP_ConvTranspose:
        *axis = 1;
        return 1;
    case OP_Gemm:
        *axis = node_int(n, "transB", 0) ? 0 : 1;
        return 1;
    case OP_MatMul:
        *axis = w->type.rank - 1;
        return w->type.rank >= 2 ? 1 : -1;
    case OP_LSTM:
    case OP_GRU:
    case OP_RNN:
        *axis = 2;
        return IN_R;
    case OP_Gather:
        *axis = 1;
        return n->in[0]->type.rank == 2 && node_int(n, "axis", 0) == 0 && from_data[w->id] ? 0 : -1;
    default:
        return -1;
    }
}

/* Past a bias that is added apart and a BatchNormalization: what a gate multiplies. Of a recurrent
 * layer that is what it hands on, not what it keeps for its own next step. */
static Value *gate_of(const Uses *u, const Node *n)
{
    Value *v = n->out[0] ? n->out[0] : n->nout > 1 ? n->out[1] : NULL;
    Node *next = v ? only_reader(u, v) : NULL;
    if (next && next->op == OP_Add && n->op == OP_MatMul) {
        Value *bias = next->in[next->in[0] == v];
        if (value_is_const(bias) && bias->type.rank <= 1) v = next->out[0];
        next = only_reader(u, v);
    }
    bool norm = next && next->op == OP_BatchNormalization && next->in[0] == v;
    return norm ? next->out[0] : v;
}

/* By value id: whether the inputs' elements, not just their sizes, decide it. */
static bool *find_from_data(const Graph *g, Arena *a)
{
    bool *data = NEW_ARRAY(a, bool, g->nvalues);
    for (int i = 0; i < g->ninputs; i++) data[g->inputs[i]->id] = true;
    for (int i = 0; i < g->nnodes; i++) {
        const Node *n = g->nodes[i];
        bool any = n->op == OP_Opaque;
        for (int k = 0; k < n->nin && n->op != OP_Shape && n->op != OP_Size; k++)
            any |= n->in[k] && data[n->in[k]->id];
        for (int o = 0; o < n->nout; o++)
            if (n->out[o]) data[n->out[o]->id] = any;
    }
    return data;
}

/* The axis of the samples: the first that is open, where it lies before the channels. */
static int sample_axis(const Value *gate, int gate_axis)
{
    for (int k = 0; k < gate_axis; k++)
        if (dim_is_sym(gate->type.dim[k])) return k;
    return 0;
}

int scored_layers(const Graph *g, Arena *a, ScoredLayer **out)
{
    int n = 0, axis;
    ScoredLayer *l = NEW_ARRAY(a, ScoredLayer, g->nnodes);
    bool *seen = NEW_ARRAY(a, bool, g->nvalues), *from_data = find_from_data(g, a);
    Uses uses = graph_uses(g, a);
    for (int k = 0; k < g->nnodes; k++) {
        Node *m = g->nodes[k];
        int which = scored_weight(m, from_data, &axis);
        Value *w = which < 0 ? NULL : node_in(m, which), *gate = w ? gate_of(&uses, m) : NULL;
        if (!gate || !value_is_const(w) || w->type.dtype != DT_F32 || seen[w->id]) continue;
        seen[w->id] = true;
        bool conv = m->op == OP_Conv || m->op == OP_ConvTranspose || m->op == OP_DeformConv;
        int gate_axis = conv ? 1 : gate->type.rank - 1;
        l[n++] = (ScoredLayer){.node = m,
                               .weight = w,
                               .axis = axis,
                               .channels = w->type.dim[axis],
                               .gate = gate,
                               .gate_axis = gate_axis,
                               .sample_axis = sample_axis(gate, gate_axis)};
    }
    *out = l;
    return n;
}

/* ---- the frame that both programs share --------------------------------------------- */

/* A clone of the model under construction. */
typedef struct Builder {
    Graph *g;
    Arena *a;
    Diag *d;
    Hvp *out;
    ScoredLayer *layers; /* of the clone */
    Value *logits, *loss_scale, *probe_scale;
    Value **outputs; /* that are float tensors of known shape */
    int noutputs;
} Builder;

static int add_input(Builder *b, const char *name, Type t, int stage, Value **v)
{
    *v = graph_add_input(b->g, name, t);
    b->out->stage[b->g->ninputs - 1] = (uint8_t)stage;
    return b->g->ninputs - 1;
}

Graph *graph_with_batch(const Graph *model, Arena *a, int64_t batch, Diag *d)
{
    int64_t *dims = NEW_ARRAY(a, int64_t, model->nsymbols);
    char text[128];
    for (int k = 0; k < model->nsymbols; k++) dims[k] = -1;
    const int *axes = batch_axes(model, a);
    for (int i = 0; i < model->ninputs; i++) {
        const int64_t dim = axes[i] < 0 ? 0 : model->inputs[i]->type.dim[axes[i]];
        if (dim_is_sym(dim)) dims[dim - DIM_SYM_BASE] = batch;
    }
    Graph *g = simplify_specialize(model, a, dims, NULL, d);
    for (int i = 0; g && i < g->ninputs; i++) {
        const Value *v = g->inputs[i];
        if (type_is_static(&v->type)) continue;
        diag_error(d, "input '%s' has more unknown dimensions than its batch: %s", v->name,
                   type_print(g, &v->type, text, sizeof text));
        return NULL;
    }
    return g;
}

static int begin(Builder *b, Hvp *out, const Graph *model, Arena *a, int64_t batch, Diag *d)
{
    enum { MAX_ADDED = 5 };
    char text[128];
    *out = (Hvp){.in_target = -1, .in_key = -1, .in_class = -1, .in_probe_scale = -1};
    out->out_loss = out->out_logits = -1;
    *b = (Builder){.g = graph_with_batch(model, a, batch, d), .a = a, .d = d, .out = out};
    if (!b->g) return -1;
    out->g = b->g;
    out->nx = b->g->ninputs;
    const int *axes = batch_axes(model, a);
    out->batch = out->nx && axes[0] >= 0 ? b->g->inputs[0]->type.dim[axes[0]] : 1;
    out->nlayers = scored_layers(model, a, &out->layers);
    out->out_layer = NEW_ARRAY(a, int, out->nlayers);
    scored_layers(b->g, a, &b->layers);
    for (int k = 0; k < out->nlayers; k++) b->layers[k].sample_axis = out->layers[k].sample_axis;
    b->logits = graph_logits(b->g);
    if (!b->logits) return diag_error(d, "the model has no float output to take a loss of");
    if (!type_is_static(&b->logits->type))
        return diag_error(d, "the shape of output '%s' is not known", b->logits->name);
    if (b->logits->type.dtype != DT_F32 || b->logits->type.rank < 1)
        return diag_error(d, "output '%s' is %s, needs float with a batch axis", b->logits->name,
                          type_print(b->g, &b->logits->type, text, sizeof text));
    b->outputs = NEW_ARRAY(a, Value *, b->g->noutputs);
    for (int i = 0; i < b->g->noutputs; i++) {
        Value *y = b->g->outputs[i];
        bool usable = y->type.dtype == DT_F32 && type_is_static(&y->type) && !value_is_const(y);
        if (usable) b->outputs[b->noutputs++] = y;
    }
    b->g->outputs = NULL;
    b->g->noutputs = 0;
    out->stage = NEW_ARRAY(a, uint8_t, out->nx + MAX_ADDED);
    for (int i = 0; i < out->nx; i++) out->stage[i] = 1;
    return 0;
}

static void add_target(Builder *b, Value **target)
{
    b->out->in_target = add_input(b, "target", b->logits->type, 1, target);
}

static void add_key(Builder *b, Value **key)
{
    b->out->in_key = add_input(b, "key", (Type){DT_I64, 1, {2}}, 2, key);
}

static void add_loss_scale(Builder *b)
{
    Type scalar = type_of(DT_F32, 0, NULL);
    b->out->in_loss_scale = add_input(b, "loss_scale", scalar, 1, &b->loss_scale);
}

static int add_output(Builder *b, Value *v)
{
    graph_add_output(b->g, v);
    return b->g->noutputs - 1;
}

static Value *mul(Graph *g, Value *x, Value *y) { return build(g, OP_Mul, IN(x, y), NO_ATTRS); }

static Value *sub(Graph *g, Value *x, Value *y) { return build(g, OP_Sub, IN(x, y), NO_ATTRS); }

static Value *reciprocal(Graph *g, Value *x) { return build(g, OP_Reciprocal, IN(x), NO_ATTRS); }

/* The sum over all axes but those flagged. */
static Value *sum_but(Graph *g, Value *v, int keep1, int keep2)
{
    int64_t axes[MAX_RANK];
    int n = 0;
    for (int i = 0; i < v->type.rank; i++)
        if (i != keep1 && i != keep2) axes[n++] = i;
    if (n == 0) return v;
    return build(g, OP_ReduceSum, IN(v, const_ints(g, n, axes)), ATTRS(attr_int("keepdims", 0)));
}

/* Zeros for a layer that the logits do not depend on; made from an input, for constants are no
 * results. */
static Value *no_effect(Builder *b, Type t)
{
    Value *zero = mul(b->g, b->loss_scale, const_f32(b->g, 0));
    Value *shape = const_ints(b->g, t.rank, t.dim);
    return build(b->g, OP_Expand, IN(zero, shape), NO_ATTRS);
}

static int finish(Builder *b, DType precision)
{
    TRY(simplify_cse(b->g, b->a));
    fuse_sum_products(b->g, b->a);
    TRY(simplify_dce(b->g, b->a));
    schedule_early(b->g, b->a);
    return precision && precision != DT_F32 ? lower_precision(b->g, b->a, precision, b->d) : 0;
}

/* ---- second order ------------------------------------------------------------------- */

/* The direction along one layer's weight, probe_scale included. */
static Value *probe(Builder *b, int layer, ProbeKind kind, Value *key)
{
    ScoredLayer *l = &b->layers[layer];
    Type t = l->weight->type;
    if (kind == PROBE_GATE)
        for (int i = 0; i < t.rank; i++)
            if (i != l->axis) t.dim[i] = 1;
    b->g->at = l->node;
    Value *v = build(b->g, OP_Rademacher, IN(key),
                     ATTRS(attr_ints("shape", (size_t)t.rank, t.dim), attr_int("stream", layer)));
    v = mul(b->g, v, b->probe_scale);
    return kind == PROBE_GATE ? mul(b->g, l->weight, v) : v;
}

/* The gradient as seen from ad_jvp: only layers that have one. */
static int tangents(Builder *b, Value **w, Value **v, Value **grad, Value **hv)
{
    int n = b->out->nlayers, m = 0;
    Value **y = NEW_ARRAY(b->a, Value *, n), **dy = NEW_ARRAY(b->a, Value *, n);
    for (int i = 0; i < n; i++)
        if (grad[i]) y[m++] = grad[i];
    TRY(ad_jvp(b->g, n, w, v, m, y, dy, b->d));
    m = 0;
    for (int i = 0; i < n; i++) hv[i] = grad[i] ? dy[m++] : NULL;
    return 0;
}

static int second_order(Builder *b, Value *loss, const HvpOptions *o, Value *key)
{
    int n = b->out->nlayers;
    Value **w = NEW_ARRAY(b->a, Value *, n), **v = NEW_ARRAY(b->a, Value *, n),
          **grad = NEW_ARRAY(b->a, Value *, n), **hv = NEW_ARRAY(b->a, Value *, n);
    Graph *g = b->g;
    for (int i = 0; i < n; i++) {
        w[i] = b->layers[i].weight;
        v[i] = probe(b, i, o->probe, key);
    }
    g->at = NULL;
    TRY(ad_grad(g, mul(g, loss, b->loss_scale), n, w, grad, b->d));
    TRY(tangents(b, w, v, grad, hv));
    Value *scales = mul(g, b->loss_scale, mul(g, b->probe_scale, b->probe_scale));
    Value *unscale = reciprocal(g, scales);
    for (int i = 0; i < n; i++) {
        int axis = b->layers[i].axis;
        Type t = type_of(DT_F32, 1, &b->layers[i].channels);
        Value *q =
            hv[i] ? mul(g, sum_but(g, mul(g, v[i], hv[i]), axis, -1), unscale) : no_effect(b, t);
        b->out->out_layer[i] = add_output(b, q);
    }
    return 0;
}

int hvp_build(Hvp *out, const Graph *model, Arena *a, int64_t shard_batch, const HvpOptions *o,
              Diag *d)
{
    Builder b;
    Value *target, *key;
    TRY(begin(&b, out, model, a, shard_batch, d));
    add_target(&b, &target);
    add_key(&b, &key);
    add_loss_scale(&b);
    Type scalar = type_of(DT_F32, 0, NULL);
    out->in_probe_scale = add_input(&b, "probe_scale", scalar, 2, &b.probe_scale);
    Value *loss = o->loss == LOSS_MSE ? loss_mse(b.g, b.logits, target, o->total)
                                      : loss_cross_entropy(b.g, b.logits, target, o->total);
    out->out_loss = add_output(&b, loss);
    TRY(second_order(&b, loss, o, key));
    if (!o->no_contract) contract_channel_sums(b.g);
    return finish(&b, o->precision);
}

/* ---- first order -------------------------------------------------------------------- */

static Value *sum_classes(Graph *g, Value *v)
{
    return build(g, OP_ReduceSum, IN(v, CONST_INTS(g, -1)), ATTRS(attr_int("keepdims", 1)));
}

/* The cotangent at the logits, before scaling. */
static Value *cotangent(Builder *b, CotangentKind kind)
{
    Graph *g = b->g;
    const Type *t = &b->logits->type;
    Value *in, *p = build(g, OP_Softmax, IN(b->logits), ATTRS(attr_int("axis", -1)));
    if (kind == COTANGENT_LOSS) {
        add_target(b, &in);
        return sub(g, p, in);
    }
    if (kind == COTANGENT_CLASS) {
        Type one = type_of(DT_F32, 1, &t->dim[t->rank - 1]);
        b->out->in_class = add_input(b, "class", one, 2, &in);
        Value *root = build(g, OP_Sqrt, IN(sum_classes(g, mul(g, p, in))), NO_ATTRS);
        return mul(g, root, sub(g, in, p));
    }
    add_key(b, &in);
    Value *sign = build(g, OP_Rademacher, IN(in),
                        ATTRS(attr_ints("shape", (size_t)t->rank, t->dim), attr_int("stream", 0)));
    Value *r = mul(g, build(g, OP_Sqrt, IN(p), NO_ATTRS), sign);
    return sub(g, r, mul(g, p, sum_classes(g, r)));
}

/* Random signs over the Euclidean norm of each output. */
static void output_cotangents(Builder *b, Value **c)
{
    Graph *g = b->g;
    Value *key;
    add_key(b, &key);
    for (int i = 0; i < b->noutputs; i++) {
        Value *y = b->outputs[i];
        const Type *t = &y->type;
        Value *sign =
            build(g, OP_Rademacher, IN(key),
                  ATTRS(attr_ints("shape", (size_t)t->rank, t->dim), attr_int("stream", i)));
        Value *square = build(g, OP_ReduceSum, IN(mul(g, y, y)), ATTRS(attr_int("keepdims", 0)));
        Value *safe = build(g, OP_Add, IN(square, const_f32(g, 1e-12F)), NO_ATTRS);
        c[i] = mul(g, sign, reciprocal(g, build(g, OP_Sqrt, IN(safe), NO_ATTRS)));
    }
}

/* Sums of A dA over positions: [N, channels]. */
static Value *gate_sum(Builder *b, const ScoredLayer *l, Value *d, Value *unscale)
{
    Graph *g = b->g;
    Type t = type_of(DT_F32, 2, (int64_t[]){l->gate->type.dim[l->sample_axis], l->channels});
    if (!d) return no_effect(b, t);
    Value *sum = sum_but(g, mul(g, l->gate, d), l->sample_axis, l->gate_axis);
    int64_t blocks = sum->type.dim[1] / l->channels;
    if (blocks > 1) { /* groups of a ConvTranspose share the channels of its weight */
        sum = build(g, OP_Reshape, IN(sum, CONST_INTS(g, t.dim[0], blocks, l->channels)), NO_ATTRS);
        sum = build(g, OP_ReduceSum, IN(sum, CONST_INTS(g, 1)), ATTRS(attr_int("keepdims", 0)));
    }
    return mul(g, sum, unscale);
}

static Value *square_sum(Builder *b, const ScoredLayer *l, Value *d, Value *unscale)
{
    Graph *g = b->g;
    if (!d) return no_effect(b, type_of(DT_F32, 1, &l->channels));
    Value *e = mul(g, d, unscale);
    return sum_but(g, mul(g, e, e), l->axis, -1);
}

int gradient_build(Hvp *out, const Graph *model, Arena *a, int64_t shard_batch,
                   const GradientOptions *o, Diag *d)
{
    Builder b;
    TRY(begin(&b, out, model, a, shard_batch, d));
    int n = out->nlayers;
    Value **wrt = NEW_ARRAY(a, Value *, n), **dx = NEW_ARRAY(a, Value *, n);
    bool all = o->cotangent == COTANGENT_OUTPUTS;
    int ny = all ? b.noutputs : 1;
    Value **c = NEW_ARRAY(a, Value *, ny + 1), **y = all ? b.outputs : &b.logits;
    if (all)
        output_cotangents(&b, c);
    else
        c[0] = cotangent(&b, o->cotangent);
    add_loss_scale(&b);
    for (int i = 0; i < ny; i++) c[i] = mul(b.g, c[i], b.loss_scale);
    for (int i = 0; i < n; i++)
        wrt[i] = o->what == GRADIENT_GATES ? b.layers[i].gate : b.layers[i].weight;
    TRY(ad_vjp(b.g, ny, y, c, n, wrt, dx, d));
    Value *unscale = reciprocal(b.g, b.loss_scale);
    out->out_logits = add_output(&b, build(b.g, OP_Identity, IN(b.logits), NO_ATTRS));
    for (int i = 0; i < n; i++) {
        const ScoredLayer *l = &b.layers[i];
        Value *v = o->what == GRADIENT_GATES ? gate_sum(&b, l, dx[i], unscale)
                                             : square_sum(&b, l, dx[i], unscale);
        out->out_layer[i] = add_output(&b, v);
    }
    return finish(&b, o->precision);
}

bool hvp_overflowed(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return true;
    return false;
}

/* ---- the pass ----------------------------------------------------------------------- */

/* The program that scoring runs, for reading. */
int pass_hvp(Context *c, const char *opt)
{
    static const char *const probes[] = {[PROBE_WEIGHT] = "weight", [PROBE_GATE] = "gate", NULL};
    const char *precision = pass_option(c, opt, "precision");
    int64_t n = 1;
    int probe = PROBE_WEIGHT;
    HvpOptions o = {.precision = precision ? precision_named(precision) : DT_F32};
    Hvp h;
    if (o.precision == DT_NONE)
        return diag_error(c->diag, "hvp: precision is '%s', it must be fp32, fp16 or bf16",
                          precision);
    TRY(pass_int(&n, c, opt, "batch", 1));
    TRY(pass_choice(&probe, c, opt, "probe", probes));
    TRY(loss_option(&o.loss, c, opt));
    o.probe = (ProbeKind)probe;
    o.total = (double)n;
    TRY(hvp_build(&h, c->graph, c->arena, n, &o, c->diag));
    c->graph = h.g;
    return 0;
}
