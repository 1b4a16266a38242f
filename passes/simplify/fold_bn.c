/* BatchNormalization into the linear node before it. At inference it is y = a x + b per channel
 * with a = scale / sqrt(var + epsilon),  b = bias - a mean and so are Mul, Div, Add and Sub by
 * constants that vary with the channel only. Where such a node is the only reader of a Conv,
 * ConvTranspose, Gemm, MatMul or MatMul + bias, a goes into the weights of the channel and b into
 * its bias: W'[c] = a[c] W[c],  bias'[c] = a[c] bias[c] + b[c] All is computed in double and
 * rounded once. Weights are new constants: sharers keep theirs. */
#include <math.h>
#include <string.h>

#include "passes/simplify/simplify.h"

typedef struct Affine {
    Value *x;      /* the operand */
    double *a, *b; /* per channel */
} Affine;

/* A node that is linear in a constant weight, with an output channel for every part of it:
 * element i of the weight belongs to channel (i / inner) % count + (i / block) * count. */
typedef struct Linear {
    Node *node;    /* has the weight as operand 1 */
    Node *bias_of; /* has the bias: the same node, or an Add; NULL: there is no place for one */
    int bias;      /* its operand number there */
    double beta;   /* what the bias is multiplied by */
    int axis;      /* of the channel in the output */
    int64_t channels, inner, count, block;
} Linear;

/* ---- the linear node ---------------------------------------------------------------- */

static bool is_f32_const(const Value *v) { return v && v->data && v->type.dtype == DT_F32; }

static void describe_conv(Linear *l, const Type *w, bool transposed)
{
    int64_t groups = node_int(l->node, "group", 1), total = type_count(w), kernel = 1;
    for (int i = 2; i < w->rank; i++) kernel *= w->dim[i];
    l->axis = 1;
    l->count = transposed ? w->dim[1] : w->dim[0];
    l->inner = transposed ? kernel : total / (l->count ? l->count : 1);
    l->block = transposed && groups > 0 ? total / groups : total;
    l->channels = l->count;
    if (transposed && __builtin_mul_overflow(l->count, groups, &l->channels)) l->channels = -1;
}

static void describe_product(Linear *l, const Type *w)
{
    bool by_row = l->node->op == OP_Gemm && node_int(l->node, "transB", 0);
    l->axis = l->node->out[0]->type.rank - 1;
    l->count = l->channels = by_row ? w->dim[0] : w->dim[1];
    l->inner = by_row ? w->dim[1] : 1;
    l->block = type_count(w);
}

/* The node that makes x, if a factor per channel can be moved into it. */
static bool find_linear(Linear *l, const Value *x, const Uses *uses)
{
    Node *n = x->def;
    *l = (Linear){.node = n, .bias_of = n, .bias = 2, .beta = 1};
    if (n && n->op == OP_Add && is_f32_const(n->in[1]) && n->in[0]->def &&
        n->in[0]->def->op == OP_MatMul && uses->n[n->in[0]->id] == 1) {
        l->node = n->in[0]->def;
        l->bias = 1;
    } else if (n && n->op == OP_MatMul) {
        l->bias_of = NULL;
    }
    if (!n || l->node->nin < 2 || !is_f32_const(l->node->in[1])) return false;
    const Type *w = &l->node->in[1]->type;
    if ((l->node->op == OP_Conv || l->node->op == OP_ConvTranspose) && w->rank >= 3)
        describe_conv(l, w, l->node->op == OP_ConvTranspose);
    else if ((l->node->op == OP_Gemm || l->node->op == OP_MatMul) && w->rank == 2)
        describe_product(l, w);
    else
        return false;
    if (l->node->op == OP_Gemm)
        l->beta = node_in(l->node, 2) ? (double)node_float(l->node, "beta", 1) : 1;
    /* Types that came with the file may say otherwise where inference could not. */
    return l->inner > 0 && l->block > 0 && l->axis >= 0 && l->axis < x->type.rank &&
           x->type.dim[l->axis] == l->channels;
}

/* ---- constants by channel ----------------------------------------------------------- */

/* c[k] of a constant that broadcasts against a tensor of that rank and varies along `axis` only. */
static double *by_channel(const Value *v, int rank, int axis, int64_t channels, Arena *a)
{
    if (!is_f32_const(v) || v->type.rank > rank) return NULL;
    for (int i = 0; i < v->type.rank; i++) {
        bool channel = i + rank - v->type.rank == axis && v->type.dim[i] == channels;
        if (v->type.dim[i] != 1 && !channel) return NULL;
    }
    const float *c = v->data;
    bool one = type_count(&v->type) == 1;
    double *out = NEW_ARRAY(a, double, channels);
    for (int64_t k = 0; k < channels; k++) out[k] = (double)c[one ? 0 : k];
    return out;
}

static bool batchnorm_affine(const Node *n, const Linear *l, Arena *s, Affine *f)
{
    double eps = (double)node_float(n, "epsilon", 1e-5F), *p[4];
    if (l->axis != 1 || node_int(n, "training_mode", 0)) return false;
    for (int k = 0; k < 4; k++)
        if (!(p[k] = by_channel(n->in[k + 1], 1, 0, l->channels, s))) return false;
    for (int64_t c = 0; c < l->channels; c++) {
        f->a[c] = p[0][c] / sqrt(p[3][c] + eps);
        f->b[c] = p[1][c] - f->a[c] * p[2][c];
    }
    return true;
}

/* x op c or c op x. */
static bool arithmetic_affine(const Node *n, const Linear *l, bool x_first, Arena *s, Affine *f)
{
    int rank = f->x->type.rank;
    double *c = by_channel(n->in[x_first], rank, l->axis, l->channels, s);
    if (!c || (n->op == OP_Div && !x_first)) return false;
    for (int64_t k = 0; k < l->channels; k++) {
        bool sum = n->op == OP_Add || n->op == OP_Sub;
        f->a[k] = n->op == OP_Mul ? c[k] : n->op == OP_Div ? 1 / c[k] : 1;
        f->b[k] = sum ? c[k] : 0;
        if (n->op == OP_Sub && x_first) f->b[k] = -c[k];
        if (n->op == OP_Sub && !x_first) f->a[k] = -1;
    }
    return true;
}

static bool is_finite(const Affine *f, int64_t n)
{
    for (int64_t c = 0; c < n; c++)
        if (!isfinite(f->a[c]) || !isfinite(f->b[c])) return false;
    return true;
}

/* The operand that is not the constant one. */
static bool pick_operand(const Node *n, bool *x_first, Value **x)
{
    bool sum = n->op == OP_Add || n->op == OP_Sub || n->op == OP_Mul || n->op == OP_Div;
    if (n->op != OP_BatchNormalization && !sum) return false;
    *x_first = n->op == OP_BatchNormalization || !value_is_const(n->in[0]);
    *x = n->in[!*x_first];
    return !value_is_const(*x);
}

/* What is known of the graph as it was. */
typedef struct Match {
    Arena *scratch;
    Uses *uses;
    uint32_t known; /* ids below this are in `uses` */
} Match;

/* Whether n is y = a x + b after a linear node that nobody else reads. */
static bool match(const Match *m, const Node *n, Linear *l, Affine *f)
{
    bool x_first;
    Arena *s = m->scratch;
    if (!pick_operand(n, &x_first, &f->x)) return false;
    if (f->x->id >= m->known || m->uses->n[f->x->id] != 1 || !find_linear(l, f->x, m->uses))
        return false;
    f->a = NEW_ARRAY(s, double, l->channels);
    f->b = NEW_ARRAY(s, double, l->channels);
    bool found = n->op == OP_BatchNormalization ? batchnorm_affine(n, l, s, f)
                                                : arithmetic_affine(n, l, x_first, s, f);
    /* MatMul + Add is as simple as it gets. */
    return found && is_finite(f, l->channels) &&
           (l->bias_of || (n->op != OP_Add && n->op != OP_Sub));
}

/* ---- rewriting ---------------------------------------------------------------------- */

/* A constant in the place of `old`, under its name if nobody else reads that. */
static Value *successor(Graph *g, Value *old, const Match *m, Type type, const void *data)
{
    Value *v = value_const(g, old->name, type, data);
    if (old->id >= m->known || m->uses->n[old->id] == 1) {
        const char *name = v->name;
        v->name = old->name;
        old->name = name;
    }
    return v;
}

static Value *scaled_weight(Graph *g, const Match *m, const Linear *l, const double *a)
{
    Value *w = l->node->in[1];
    int64_t n = type_count(&w->type);
    const float *old = w->data;
    float *data = NEW_ARRAY(g->arena, float, n);
    for (int64_t i = 0; i < n; i++) {
        int64_t c = i / l->inner % l->count + i / l->block * l->count;
        data[i] = (float)(a[c] * (double)old[i]);
    }
    return successor(g, w, m, w->type, data);
}

static Value *new_bias(Graph *g, const Match *m, const Linear *l, const Affine *f,
                       const double *old)
{
    float *data = NEW_ARRAY(g->arena, float, l->channels);
    Type type = type_of(DT_F32, 1, &l->channels);
    for (int64_t c = 0; c < l->channels; c++)
        data[c] = (float)(f->a[c] * (old ? l->beta * old[c] : 0) + f->b[c]);
    Value *v = l->bias_of ? node_in(l->bias_of, l->bias) : NULL;
    if (v) return successor(g, v, m, type, data);
    return value_const(g, arena_printf(g->arena, "%s_bias", l->node->in[1]->name), type, data);
}

static bool all_zero(const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (x[i] != 0) return false;
    return true;
}

static void set_operand(Graph *g, Node *n, int k, Value *v)
{
    if (k >= n->nin) {
        Value **in = NEW_ARRAY(g->arena, Value *, k + 1);
        memcpy(in, n->in, (size_t)n->nin * sizeof *in);
        n->in = in;
        n->nin = k + 1;
    }
    n->in[k] = v;
}

/* Moves the factor and the summand into l; returns what now has n's value. NULL: the bias that is
 * there has a shape that cannot take them. */
static Value *absorb(Graph *g, const Match *m, const Linear *l, const Affine *f)
{
    const Value *bias = l->bias_of ? node_in(l->bias_of, l->bias) : NULL;
    int rank = l->node->out[0]->type.rank;
    bool conv = l->axis == 1 && l->node->op != OP_Gemm && l->node->op != OP_MatMul;
    double *old =
        bias ? by_channel(bias, conv ? 1 : rank, conv ? 0 : l->axis, l->channels, m->scratch)
             : NULL;
    if (bias && !old) return NULL;
    l->node->in[1] = scaled_weight(g, m, l, f->a);
    bool needed = bias || !all_zero(f->b, l->channels);
    Value *x = f->x, *b = needed ? new_bias(g, m, l, f, old) : NULL;
    if (l->bias_of && needed) {
        set_operand(g, l->bias_of, l->bias, b);
        if (l->node->op == OP_Gemm) node_remove_attr(l->node, "beta");
    }
    g->at = l->node;
    return l->bias_of || !needed ? x : build(g, OP_Add, IN(x, b), NO_ATTRS);
}

int pass_fold_bn(Context *c, const char *opt)
{
    (void)opt;
    Graph *g = c->graph;
    Arena *s = arena_new();
    Uses uses = graph_uses(g, s);
    Rewrite r = rewrite_begin(g);
    Match m = {s, &uses, r.cap};
    const bool *is_output = output_flags(g, s);
    for (int i = 0; i < r.nold; i++) {
        Node *n = r.old[i];
        Linear l;
        Affine f;
        rewrite_map_inputs(&r, n);
        Value *to = match(&m, n, &l, &f) ? absorb(g, &m, &l, &f) : NULL;
        if (!to) {
            node_append(g, n);
            continue;
        }
        if (to->id < r.cap) uses.n[to->id] = uses.n[n->out[0]->id];
        if (!is_output[n->out[0]->id]) value_swap_names(to, n->out[0]); /* it is that now */
        rewrite_replace(&r, n->out[0], to);
    }
    g->at = NULL;
    rewrite_end(&r);
    arena_free(s);
    return 0;
}
