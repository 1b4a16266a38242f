/* Recurrent layers: LSTM, GRU, RNN. Derivatives go through the layer unrolled into matrix products
 * and element-wise ops. */
#include "ir/recurrent.h"

#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

/* Input i, where it is there, has these dims. */
static int expect_dims(const Node *n, int i, int rank, const int64_t *dim, Diag *d)
{
    Type t = input_type(n, i);
    int64_t both;
    if (t.rank < 0) return 0;
    TRY(expect_rank(n, i, rank, d));
    for (int k = 0; k < rank; k++)
        if (!dim_agree(dim[k], t.dim[k], &both))
            return node_error(d, n, "'%s' has %lld on axis %d, needs %lld", n->in[i]->name,
                              (long long)t.dim[k], k, (long long)dim[k]);
    return 0;
}

static int expect_operands(const Node *n, const Recurrent *r, Diag *d)
{
    int64_t h = r->hidden, g = dim_times(r->gates, h), *state;
    state = r->batch_first ? (int64_t[]){r->batch, r->dirs, h} : (int64_t[]){r->dirs, r->batch, h};
    TRY(expect_dims(n, IN_W, 3, (int64_t[]){r->dirs, g, r->in}, d));
    TRY(expect_dims(n, IN_R, 3, (int64_t[]){r->dirs, g, h}, d));
    TRY(expect_dims(n, IN_B, 2, (int64_t[]){r->dirs, dim_times(2, g)}, d));
    TRY(expect_dims(n, IN_LENGTHS, 1, (int64_t[]){r->batch}, d));
    TRY(expect_dims(n, IN_H, 3, state, d));
    TRY(expect_dims(n, IN_C, 3, state, d));
    return expect_dims(n, IN_P, 2, (int64_t[]){r->dirs, dim_times(3, h)}, d);
}

/* (x, W, R, B, lengths, initial h, initial c, peepholes) -> every h, the last h, the last c */
int infer_recurrent(Node *n, Diag *d)
{
    Recurrent r;
    DType t = input_type(n, IN_X).dtype;
    TRY(recurrent_args(n, &r, d));
    TRY(expect_operands(n, &r, d));
    int64_t y[] = {r.time, r.dirs, r.batch, r.hidden}, last[] = {r.dirs, r.batch, r.hidden};
    if (r.batch_first) {
        y[0] = last[0] = r.batch;
        y[1] = r.time;
        y[2] = last[1] = r.dirs;
    }
    TRY(infer_out(n, 0, type_of(t, 4, y), d));
    TRY(infer_out(n, 1, type_of(t, 3, last), d));
    return infer_out(n, 2, type_of(t, 3, last), d);
}

/* Both products of every step: time * batch * dirs * gates * hidden * (in + hidden), by the shapes
 * alone, for they may say what will be left (hidden_size then does not). */
int64_t flops_recurrent(const Node *n)
{
    const Type *x = &n->in[IN_X]->type, *w = &n->in[IN_W]->type, *r = &n->in[IN_R]->type;
    if (x->rank != 3 || w->rank != 3 || r->rank != 3) return 0;
    int64_t units = mul_sat(dims_product(r, 0, 2), dims_product(x, 0, 2)); /* dirs, gates hidden */
    if (w->dim[2] < 0 || r->dim[2] < 0) return 0;
    return mul_sat(2, mul_sat(units, w->dim[2] + r->dim[2]));
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* One direction while it is unrolled. */
typedef struct Unroll {
    Graph *g;
    const Recurrent *r;
    const Activation *act;
    int64_t dir;
    Value **xw;         /* x W' + biases, of each step: [1, batch, gates hidden] */
    Value *rt;          /* R': [hidden, gates hidden], but where the next has part of it */
    Value *rt_fresh;    /* of a GRU that resets h before the product: [hidden, hidden] */
    Value *rb;          /* bias of the recurrent product, if it is not in xw */
    Value *peephole[3]; /* input, output, forget: [hidden] */
    Value *h, *c;       /* [batch, hidden] */
} Unroll;

static Value *op2(Graph *g, Op op, Value *x, Value *y) { return build(g, op, IN(x, y), NO_ATTRS); }

/* v without an axis, at index i of it. */
static Value *pick(Graph *g, Value *v, int64_t axis, int64_t i)
{
    Value *at = const_ints(g, 1, &i);
    at->type.rank = 0;
    return build(g, OP_Gather, IN(v, at), ATTRS(attr_int("axis", axis)));
}

/* Block k of `size` elements on the last axis. */
static Value *block(Graph *g, Value *v, int64_t k, int64_t size)
{
    int64_t axis = v->type.rank - 1;
    return build(g, OP_Slice,
                 IN(v, CONST_INTS(g, k * size), CONST_INTS(g, (k + 1) * size), CONST_INTS(g, axis)),
                 NO_ATTRS);
}

/* The last axis in `count` equal blocks: their gradients are joined, not added up. */
static Value **blocks(Graph *g, Value *v, int count)
{
    return build_multi(g, OP_Split, count, IN(v),
                       ATTRS(attr_int("axis", v->type.rank - 1), attr_int("num_outputs", count)))
        ->out;
}

static Value *swapped(Graph *g, Value *v)
{
    return build(g, OP_Transpose, IN(v), ATTRS(attr_ints("perm", 2, (int64_t[]){1, 0})));
}

static Value *axes_swapped(Graph *g, Value *v)
{
    static const int64_t perm[] = {1, 0, 2};
    return build(g, OP_Transpose, IN(v), ATTRS(attr_ints("perm", 3, perm)));
}

static Value *activate(const Unroll *u, int k, Value *x)
{
    const Activation *f = &u->act[k];
    Attr params[2];
    int n = 0;
    if (u->r->clip > 0)
        x = build(u->g, OP_Clip, IN(x, const_f32(u->g, -u->r->clip), const_f32(u->g, u->r->clip)),
                  NO_ATTRS);
    if (f->pre != 1) x = op2(u->g, OP_Mul, x, const_f32(u->g, f->pre));
    if (f->op == OP_LeakyRelu || f->op == OP_Elu || f->op == OP_ThresholdedRelu ||
        f->op == OP_HardSigmoid)
        params[n++] = attr_float("alpha", f->alpha);
    if (f->op == OP_HardSigmoid) params[n++] = attr_float("beta", f->beta);
    if (f->op != OP_Identity) x = build(u->g, f->op, IN(x), n, params);
    if (f->post != 1) x = op2(u->g, OP_Mul, x, const_f32(u->g, f->post));
    return f->shift != 0 ? op2(u->g, OP_Add, x, const_f32(u->g, f->shift)) : x;
}

/* a + p c where there is a peephole. */
static Value *peep(const Unroll *u, int k, Value *a, Value *c)
{
    return u->peephole[k] ? op2(u->g, OP_Add, a, op2(u->g, OP_Mul, u->peephole[k], c)) : a;
}

static Value *one_minus(Graph *g, Value *x) { return op2(g, OP_Sub, const_f32(g, 1), x); }

/* i, o, f, c' = gates of x and h; c = f c + i c'; h = o act(c). */
static Value *lstm_step(const Unroll *u, Value *x, Value **cell)
{
    Graph *g = u->g;
    Value **gate = blocks(g, op2(g, OP_Add, x, op2(g, OP_MatMul, u->h, u->rt)), 4);
    Value *in = activate(u, 0, peep(u, 0, gate[0], u->c));
    Value *forget =
        u->r->input_forget ? one_minus(g, in) : activate(u, 0, peep(u, 2, gate[2], u->c));
    Value *fresh = op2(g, OP_Mul, in, activate(u, 1, gate[3]));
    *cell = op2(g, OP_Add, op2(g, OP_Mul, forget, u->c), fresh);
    Value *out = activate(u, 0, peep(u, 1, gate[1], *cell));
    Unroll unclipped = *u;
    Recurrent free = *u->r;
    free.clip = 0;
    unclipped.r = &free;
    return op2(g, OP_Mul, out, activate(&unclipped, 2, *cell));
}

/* z, r = gates of x and h; h' of x and r h (or r applied to the product); h = (1 - z) h' + z h. */
static Value *gru_step(const Unroll *u, Value *x)
{
    Graph *g = u->g;
    Value *a = op2(g, OP_MatMul, u->h, u->rt), *inner;
    if (u->rb) a = op2(g, OP_Add, a, u->rb);
    Value **of_x = blocks(g, x, 3), **of_h = blocks(g, a, u->r->reset_after ? 3 : 2);
    Value *z = activate(u, 0, op2(g, OP_Add, of_x[0], of_h[0]));
    Value *reset = activate(u, 0, op2(g, OP_Add, of_x[1], of_h[1]));
    if (u->r->reset_after)
        inner = op2(g, OP_Mul, reset, of_h[2]);
    else
        inner = op2(g, OP_MatMul, op2(g, OP_Mul, reset, u->h), u->rt_fresh);
    Value *fresh = activate(u, 1, op2(g, OP_Add, of_x[2], inner));
    return op2(g, OP_Add, op2(g, OP_Mul, one_minus(g, z), fresh), op2(g, OP_Mul, z, u->h));
}

static Value *rnn_step(const Unroll *u, Value *x)
{
    return activate(u, 0, op2(u->g, OP_Add, x, op2(u->g, OP_MatMul, u->h, u->rt)));
}

/* Whether step t lies inside each sample: bool [batch, 1]; NULL if all samples are full. */
static Value *inside(Graph *g, Value *lengths, int64_t t)
{
    if (!lengths) return NULL;
    Value *wide = build(g, OP_Cast, IN(lengths), ATTRS(attr_int("to", DT_I64)));
    return op2(g, OP_Unsqueeze, op2(g, OP_Greater, wide, CONST_INTS(g, t)), CONST_INTS(g, 1));
}

static Value *either(Graph *g, Value *which, Value *x, Value *y)
{
    return which ? build(g, OP_Where, IN(which, x, y), NO_ATTRS) : x;
}

/* Step t; returns its row of y, [1, 1, batch, hidden]. */
static Value *step(Unroll *u, const Node *n, int64_t t)
{
    Graph *g = u->g;
    Value *x = op2(g, OP_Squeeze, u->xw[t], CONST_INTS(g, 0)), *c = NULL, *h;
    h = n->op == OP_LSTM ? lstm_step(u, x, &c) : n->op == OP_GRU ? gru_step(u, x) : rnn_step(u, x);
    Value *in = inside(g, node_in(n, IN_LENGTHS), t);
    Value *row = either(g, in, h, const_f32(g, 0));
    u->h = either(g, in, h, u->h);
    if (c) u->c = either(g, in, c, u->c);
    return op2(g, OP_Unsqueeze, row, CONST_INTS(g, 0, 1));
}

/* The initial state of a direction. */
static Value *initial(const Ad *ad, const Unroll *u, Value *state)
{
    static const float zero;
    Type t = type_of(DT_F32, 2, (int64_t[]){1, 1});
    if (!state) {
        Value *one = value_const(ad->g, "zero", t, &zero);
        return op2(ad->g, OP_Expand, one, CONST_INTS(ad->g, u->r->batch, u->r->hidden));
    }
    if (u->r->batch_first) state = axes_swapped(ad->g, state);
    return pick(ad->g, state, 0, u->dir);
}

static Unroll unroll_begin(const Ad *ad, const Node *n, const Recurrent *r, Value *x, int dir)
{
    Graph *g = ad->g;
    int64_t width = r->gates * r->hidden;
    bool apart = n->op == OP_GRU && !r->reset_after;
    Unroll u = {.g = g, .r = r, .act = r->act[dir], .dir = dir};
    u.rt = swapped(g, pick(g, n->in[IN_R], 0, dir));
    if (apart) {
        Node *parts =
            build_multi(g, OP_Split, 2, IN(u.rt, CONST_INTS(g, width - r->hidden, r->hidden)),
                        ATTRS(attr_int("axis", 1)));
        u.rt = parts->out[0];
        u.rt_fresh = parts->out[1];
    }
    Value *xw = op2(g, OP_MatMul, x, swapped(g, pick(g, n->in[IN_W], 0, dir)));
    if (node_in(n, IN_B)) {
        Value *b = pick(g, n->in[IN_B], 0, dir);
        xw = op2(g, OP_Add, xw, block(g, b, 0, width));
        u.rb = block(g, b, 1, width);
        if (!r->reset_after || n->op != OP_GRU) {
            xw = op2(g, OP_Add, xw, u.rb);
            u.rb = NULL;
        }
    }
    u.xw = build_multi(g, OP_Split, (int)r->time, IN(xw),
                       ATTRS(attr_int("axis", 0), attr_int("num_outputs", r->time)))
               ->out;
    for (int k = 0; k < 3 && node_in(n, IN_P); k++)
        u.peephole[k] = block(g, pick(g, n->in[IN_P], 0, dir), k, r->hidden);
    u.h = initial(ad, &u, node_in(n, IN_H));
    u.c = n->op == OP_LSTM ? initial(ad, &u, node_in(n, IN_C)) : NULL;
    return u;
}

/* Parts of all directions side by side. */
static Value *joined(Graph *g, int n, Value *const *part, int64_t axis)
{
    return build(g, OP_Concat, n, part, ATTRS(attr_int("axis", axis)));
}

static int unroll(Ad *ad, const Node *n, Value **out)
{
    static const int64_t y_first[] = {2, 0, 1, 3};
    Graph *g = ad->g;
    Recurrent r;
    TRY(recurrent_args(n, &r, ad->diag));
    if (r.time < 1 || r.batch < 0) return node_error(ad->diag, n, "has no steps to unroll");
    Value *x = r.batch_first ? axes_swapped(g, n->in[IN_X]) : n->in[IN_X];
    Value *all[3][2], **row = NEW_ARRAY(g->arena, Value *, r.time);
    for (int dir = 0; dir < r.dirs; dir++) {
        Unroll u = unroll_begin(ad, n, &r, x, dir);
        for (int64_t k = 0; k < r.time; k++) {
            int64_t t = r.reverse[dir] ? r.time - 1 - k : k;
            row[t] = step(&u, n, t);
        }
        all[0][dir] = joined(g, (int)r.time, row, 0);
        all[1][dir] = op2(g, OP_Unsqueeze, u.h, CONST_INTS(g, 0));
        all[2][dir] = u.c ? op2(g, OP_Unsqueeze, u.c, CONST_INTS(g, 0)) : NULL;
    }
    for (int o = 0; o < n->nout; o++) {
        if (!n->out[o] || !all[o][0]) continue;
        out[o] = joined(g, r.dirs, all[o], o == 0 ? 1 : 0);
        if (r.batch_first)
            out[o] = o == 0
                         ? build(g, OP_Transpose, IN(out[o]), ATTRS(attr_ints("perm", 4, y_first)))
                         : axes_swapped(g, out[o]);
    }
    return 0;
}

int vjp_recurrent(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    return vjp_expanded(ad, n, unroll, dy, dx);
}

int jvp_recurrent(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    return jvp_expanded(ad, n, unroll, dx, dy);
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* A hidden unit of which all weights are zero stays zero: then it can be removed. */
static bool units_keep_zero(const Node *n, const Recurrent *r)
{
    bool zero = true;
    for (int dir = 0; dir < r->dirs; dir++)
        for (int k = n->op == OP_RNN ? 0 : 1; k < r->nact; k++)
            zero = zero && activation_keeps_zero(&r->act[dir][k]);
    return zero;
}

/* Lanes of an axis of v repeat the hidden units block by block. */
static void tie_units(Lanes *l, const Node *n, const Value *v, int axis)
{
    const Value *w = n->in[IN_R];
    int64_t units = w->type.dim[2], size = v ? v->type.dim[axis] : 0;
    for (int64_t i = 0; i < size; i++) lanes_tie(l, v, axis, i, w, 2, i % units);
}

/* Unit j is row j of every gate's weights, column j of R, and lane j of the states and outputs.
 * Of the others' axes, x meets W; both directions keep the same units, for they share tensors. */
void rule_lanes_recurrent(Lanes *l, const Node *n)
{
    Recurrent r;
    Diag quiet = {0};
    if (recurrent_args(n, &r, &quiet) < 0 || r.hidden < 1 || n->in[IN_X]->type.rank != 3) return;
    if (value_is_const(n->in[IN_W]))
        lanes_tie_axis(l, n->in[IN_X], 2, n->in[IN_W], 2);
    else
        lanes_pass(l, n->in[IN_X], 2, n->in[IN_W], 2);
    if (!value_is_const(n->in[IN_R]) || !units_keep_zero(n, &r)) return;
    tie_units(l, n, n->in[IN_R], 1);
    tie_units(l, n, n->in[IN_W], 1);
    tie_units(l, n, node_in(n, IN_B), 1);
    tie_units(l, n, node_in(n, IN_P), 1);
    tie_units(l, n, node_in(n, IN_H), 2);
    tie_units(l, n, node_in(n, IN_C), 2);
    for (int o = 0; o < n->nout; o++) tie_units(l, n, n->out[o], o == 0 ? 3 : 2);
}

int shrink_recurrent(Lanes *l, Graph *g, Node *n, Diag *d)
{
    const Value *w = n->in[IN_R];
    (void)d;
    if (!lanes_open(l, w, 2) || !node_attr(n, "hidden_size")) return 0;
    node_set_attr(g, n, attr_int("hidden_size", lanes_survivors(l, w, 2, 0, lanes_size(l, w, 2))));
    return 0;
}

/* ---- end of channels ---------------------------------------------------------------- */
