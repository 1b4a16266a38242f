/* Which values a grid of equal steps would spoil.
 *
 * An 8-bit grid has an absolute error, half a step, that suits what is added up. Some readers want
 * a relative one: a logarithm, a reciprocal, a denominator, a power below zero. In a power spectrum
 * all but the loudest bins lie within the first step; behind Log they make up most of the signal.
 * Sqrt and powers below one only want that near zero, where their slope has no bound, so that
 * squares in front of them undo it.
 *
 * The want is carried backwards. It goes on through what moves, scales, squares, clips or adds, and
 * through products that cannot cancel (weights >= 0: a mel filter bank) or that compute from the
 * network's input by linear operations alone (a Fourier transform as Conv or MatMul, in one stage
 * or two). It ends at sums of whole axes, which have the precision of their largest term, at
 * functions whose relative error is their argument's absolute one (Exp, Sigmoid, Softmax), at a
 * constant that is added and not small, and at other products.
 *
 * Masks, which are -inf in places, and what they are added to have no grid either. */
#include "passes/quant/relative.h"

#include <math.h>

#include "ir/op.h"
#include "passes/passes.h"

/* What a reader wants of the errors of what it reads. */
typedef enum Want { WANT_ABSOLUTE, WANT_NEAR_ZERO, WANT_RELATIVE } Want;

enum { KEEPS = 1, LINEAR = 2 };

/* What the error of the result is to that of the operands, and whether the function is linear in
 * them (Mul and Div: by a constant). */
static const uint8_t kind[OP_COUNT] = {
    [OP_Reshape] = KEEPS | LINEAR,
    [OP_Flatten] = KEEPS | LINEAR,
    [OP_Squeeze] = KEEPS | LINEAR,
    [OP_Unsqueeze] = KEEPS | LINEAR,
    [OP_Transpose] = KEEPS | LINEAR,
    [OP_Expand] = KEEPS | LINEAR,
    [OP_Concat] = KEEPS | LINEAR,
    [OP_Split] = KEEPS | LINEAR,
    [OP_Slice] = KEEPS | LINEAR,
    [OP_Pad] = KEEPS | LINEAR,
    [OP_Gather] = KEEPS | LINEAR,
    [OP_Tile] = KEEPS | LINEAR,
    [OP_Identity] = KEEPS | LINEAR,
    [OP_Dropout] = KEEPS | LINEAR,
    [OP_Cast] = KEEPS | LINEAR,
    [OP_Neg] = KEEPS | LINEAR,
    [OP_Add] = KEEPS | LINEAR,
    [OP_Sub] = KEEPS | LINEAR,
    [OP_Sum] = KEEPS | LINEAR,
    [OP_Mul] = KEEPS | LINEAR,
    [OP_Div] = KEEPS | LINEAR,
    [OP_Abs] = KEEPS,
    [OP_Relu] = KEEPS,
    [OP_LeakyRelu] = KEEPS,
    [OP_Clip] = KEEPS,
    [OP_Max] = KEEPS,
    [OP_Min] = KEEPS,
    [OP_Where] = KEEPS,
    [OP_MaxPool] = KEEPS,
    [OP_AveragePool] = KEEPS,
    [OP_Conv] = LINEAR,
    [OP_ConvTranspose] = LINEAR,
    [OP_MatMul] = LINEAR,
    [OP_Gemm] = LINEAR,
    [OP_DFT] = LINEAR,
    [OP_STFT] = LINEAR,
};

static bool is_product(Op op)
{
    return op == OP_Conv || op == OP_ConvTranspose || op == OP_MatMul || op == OP_Gemm;
}

static bool is_float_const(const Value *v)
{
    return v && value_is_const(v) && v->type.dtype == DT_F32;
}

/* Whether no element of a float constant is below `least`. */
static bool all_at_least(const Value *v, float least)
{
    const float *x = v->data;
    for (int64_t i = 0, n = type_count(&v->type); i < n; i++)
        if (!(x[i] >= least)) return false;
    return true;
}

/* Log(x + 1) and 1 / (1 + x) have no bad place, Log(x + 1e-6) has. */
static bool adds_an_offset(const Node *n)
{
    static const float small = 0.1f;
    for (int k = 0; n->op == OP_Add && k < n->nin; k++)
        if (is_float_const(n->in[k]) && all_at_least(n->in[k], small)) return true;
    return false;
}

static Want through_power(const Node *n, Want out)
{
    double e;
    if (!value_scalar(n->in[1], &e)) return out;
    if (e <= 0 || out == WANT_RELATIVE) return WANT_RELATIVE;
    return e < 1 ? WANT_NEAR_ZERO : WANT_ABSOLUTE;
}

static Want through_product(const Relative *r, const Node *n, Want out)
{
    const Value *w = n->in[1];
    if (r->moving[w->id]) return WANT_ABSOLUTE;
    bool cancels = is_float_const(w) && !all_at_least(w, 0);
    return cancels && !r->linear[n->in[0]->id] ? WANT_ABSOLUTE : out;
}

/* What n wants of its input k, if its readers want `out`. */
static Want wants(const Relative *r, const Node *n, int k, Want out)
{
    if (n->op == OP_Log || n->op == OP_Reciprocal) return WANT_RELATIVE;
    if (n->op == OP_Div && k == 1) return WANT_RELATIVE;
    if (n->op == OP_Pow) return k == 0 ? through_power(n, out) : WANT_ABSOLUTE;
    if (n->op == OP_Sqrt) return out == WANT_RELATIVE ? out : WANT_NEAR_ZERO;
    if (is_product(n->op)) return k == 0 ? through_product(r, n, out) : WANT_ABSOLUTE;
    if (n->op == OP_DFT || n->op == OP_STFT) return r->linear[n->in[0]->id] ? out : WANT_ABSOLUTE;
    if (!(kind[n->op] & KEEPS) || adds_an_offset(n)) return WANT_ABSOLUTE;
    bool square = n->op == OP_Mul && n->in[0] == n->in[1];
    return square && out == WANT_NEAR_ZERO ? WANT_ABSOLUTE : out;
}

/* The float operands that are not the same for every sample: their number, and whether the result
 * is linear in them and they in the network's inputs. */
static int moving_operands(const Relative *r, const Node *n, bool *linear)
{
    int moving = 0;
    *linear = kind[n->op] & LINEAR;
    for (int k = 0; k < n->nin; k++) {
        const Value *v = n->in[k];
        if (!v || !r->moving[v->id] || !dtype_is_float(v->type.dtype)) continue;
        *linear &= r->linear[v->id] && !(n->op == OP_Div && k == 1);
        moving++;
    }
    *linear &= moving <= 1 || !(is_product(n->op) || n->op == OP_Mul);
    return moving;
}

static void look_forwards(Relative *r, const Graph *g)
{
    for (int i = 0; i < g->ninputs; i++)
        r->linear[g->inputs[i]->id] = r->moving[g->inputs[i]->id] = true;
    for (int i = 0; i < g->nnodes; i++) {
        const Node *n = g->nodes[i];
        bool linear, moving = moving_operands(r, n, &linear) > 0;
        for (int o = 0; o < n->nout; o++) {
            if (!n->out[o]) continue;
            r->moving[n->out[o]->id] = moving;
            r->linear[n->out[o]->id] = moving && linear;
        }
    }
}

static Want wanted_of(const Relative *r, const Node *n)
{
    Want most = WANT_ABSOLUTE;
    for (int o = 0; o < n->nout; o++)
        if (n->out[o] && r->want[n->out[o]->id] > most) most = (Want)r->want[n->out[o]->id];
    return most;
}

Relative relative_find(const Graph *g, Arena *a)
{
    Relative r = {NEW_ARRAY(a, uint8_t, g->nvalues), NEW_ARRAY(a, bool, g->nvalues),
                  NEW_ARRAY(a, bool, g->nvalues), NEW_ARRAY(a, bool, g->nvalues)};
    look_forwards(&r, g);
    for (int i = g->nnodes - 1; i >= 0; i--) {
        const Node *n = g->nodes[i];
        for (int o = 0; o < n->nout; o++)
            if (n->out[o]) r.masked[n->out[o]->id] = value_is_masked(n->out[o]);
        for (int k = 0; k < n->nin; k++) {
            const Value *v = n->in[k];
            Want w = v ? wants(&r, n, k, wanted_of(&r, n)) : WANT_ABSOLUTE;
            if (v && w > r.want[v->id]) r.want[v->id] = (uint8_t)w;
        }
    }
    return r;
}

bool relative_result(const Relative *r, const Node *n)
{
    for (int o = 0; o < n->nout; o++)
        if (n->out[o] && r->masked[n->out[o]->id]) return true;
    return wanted_of(r, n) != WANT_ABSOLUTE;
}

bool relative_operand(const Relative *r, const Node *n, int k)
{
    return wants(r, n, k, wanted_of(r, n)) != WANT_ABSOLUTE;
}
