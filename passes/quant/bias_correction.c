/* Rounded weights move the mean of a product's outputs where its inputs are not centred, as behind
 * Relu: by sum over inputs i of (q(w) - w)[o, i] E[x_i], which can be most of the noise. That is
 * taken off the bias (Nagel et al., "Data-free quantization through weight equalization and bias
 * correction", 2019, with E[x] per channel from samples). Only weights and the network in float
 * decide, so that biases are the same for every target with weights of one width. */
#include <math.h>

#include "ir/op.h"
#include "passes/observe.h"
#include "passes/quant/sqnr.h"

/* A product with a constant bias of one element per channel, which it adds as it is, and inputs
 * whose channels are axis 1. */
static bool can_correct(const Node *n, const Node *twin)
{
    const Value *b = node_in(n, 2), *x = twin->in[0];
    const bool gemm =
        n->op == OP_Gemm && node_float(n, "beta", 1) == 1 && !node_int(n, "transA", 0);
    return (n->op == OP_Conv || gemm) && b && value_is_const(b) && b->type.dtype == DT_F32 &&
           b->type.rank == 1 && b->type.dim[0] == n->out[0]->type.dim[1] && x->type.dim[1] > 0;
}

/* q(w) - w of element i. */
static double rounding(const Node *grid, int64_t i, int64_t channel)
{
    const double w = (double)((const float *)grid->in[0]->data)[i];
    const double s = (double)((const float *)grid->in[1]->data)[channel];
    const double most = (double)node_int(grid, "qmax", 127);
    return s * fmax(-most, fmin(most, rint(w / s))) - w;
}

/* The mean shift of output o. */
static double shift(const Node *n, const Moments *x, int64_t o)
{
    const Node *grid = n->in[1]->def;
    const Type *w = &grid->in[0]->type;
    const int axis = quant_weight_axis(n);
    const bool conv = n->op == OP_Conv;
    const int64_t outputs = w->dim[axis], columns = type_count(w) / outputs;
    const int64_t taps = conv ? columns / w->dim[1] : 1;
    const int64_t first = conv ? o / (outputs / node_int(n, "group", 1)) * w->dim[1] : 0;
    double sum = 0;
    for (int64_t i = 0; i < columns; i++)
        sum += rounding(grid, axis == 0 ? o * columns + i : i * outputs + o, o) *
               x->mean[first + i / taps];
    return conv ? sum : sum * (double)node_float(n, "alpha", 1);
}

/* A bias that other nodes read too becomes the node's own. */
static void move_bias(Graph *g, Node *n, const Moments *x, bool shared)
{
    Value *b = n->in[2];
    const float *old = b->data;
    const int64_t channels = b->type.dim[0];
    float *bias = NEW_ARRAY(g->arena, float, channels);
    for (int64_t o = 0; o < channels; o++) bias[o] = (float)((double)old[o] - shift(n, x, o));
    if (shared)
        n->in[2] = value_const(g, b->name, b->type, bias);
    else
        b->data = bias;
}

int correct_biases(Context *c, const Graph *plain, Graph *g, const QuantReport *q, double below)
{
    Arena *a = arena_new();
    Node **node = NEW_ARRAY(a, Node *, g->nnodes), **twin = NEW_ARRAY(a, Node *, g->nnodes);
    Value **x = NEW_ARRAY(a, Value *, g->nnodes);
    const Uses uses = graph_uses(g, a);
    const int products = quantized_products(plain, g, node, twin);
    int n = 0;
    for (int k = 0; k < products; k++) {
        if (q[k].own >= below || !can_correct(node[k], twin[k])) continue;
        node[n] = node[k];
        x[n++] = twin[k]->in[0];
    }
    Moments *m = NEW_ARRAY(a, Moments, n);
    const int status =
        n ? measure_moments(m, a, plain, n, x, c->data, MEASURED_SAMPLES, &c->opt, c->diag) : 0;
    for (int k = 0; k < n && status == 0; k++)
        move_bias(g, node[k], &m[k], uses.n[node[k]->in[2]->id] > 1);
    arena_free(a);
    return status;
}
