/* Attention and RotaryEmbedding (opset 23) as the products, reshapes and sums that they stand for.
 *
 *   Y = softmax(mask(softcap(scale Q K'))) V, head by head
 *
 * [N, S, H D] is seen as [N, H, S, D]; several heads of Q share one of K and V by a Gather. Keys
 * that a query may not see (a mask of truth values, causal order, windows, keys beyond
 * nonpad_kv_seqlen) weigh exp(-inf); a query that sees none gets zeros. */
#include "frontend/onnx_expand.h"

#include <math.h>
#include <string.h>

#define DIMS(...)                                                                                  \
    (int64_t[]) { __VA_ARGS__ }

enum { IN_Q, IN_K, IN_V, IN_MASK, IN_PAST_K, IN_PAST_V, IN_FILLED };
enum { OUT_Y, OUT_K, OUT_V, OUT_SCORES };

static const int64_t swap_heads[] = {0, 2, 1, 3}, swap_last[] = {0, 1, 3, 2};

typedef struct Attention {
    Expander *e;
    const Node *n;
    Value *q, *k, *v;
    int64_t heads, shared; /* of Q; of K and V */
    bool flat;             /* [N, S, H D] */
} Attention;

static Value *output(const Node *n, int o) { return o < n->nout ? n->out[o] : NULL; }

/* [N, S, H D] or [N, H, S, D] -> the latter */
static Value *by_head(Expander *e, Value *x, int64_t heads)
{
    if (x->type.rank == 4) return x;
    Value *r = expand_reshape(e, x, 4, DIMS(0, 0, heads, -1));
    return expand_transpose(e, NULL, r, 4, swap_heads);
}

/* Whether sizes and options are such that all can be written; fills *a. */
static bool is_known(Attention *a, const Node *n)
{
    for (int i = 0; i < 3; i++)
        if (!node_in(n, i) || n->in[i]->type.rank != n->in[0]->type.rank) return false;
    const Type *q = &n->in[IN_Q]->type, *k = &n->in[IN_K]->type;
    a->flat = q->rank == 3;
    if (q->rank != 3 && q->rank != 4) return false;
    a->heads = a->flat ? node_int(n, "q_num_heads", 0) : q->dim[1];
    a->shared = a->flat ? node_int(n, "kv_num_heads", 0) : k->dim[1];
    if (a->heads < 1 || a->shared < 1 || a->heads % a->shared) return false;
    int64_t width = q->dim[q->rank - 1];
    bool scaled = node_attr(n, "scale") != NULL;
    if (!scaled && (width < 1 || (a->flat && width % a->heads))) return false;
    return (node_in(n, IN_PAST_K) != NULL) == (node_in(n, IN_PAST_V) != NULL);
}

static double scale_of(const Attention *a)
{
    const Type *q = &a->n->in[IN_Q]->type;
    double width = (double)q->dim[q->rank - 1] / (a->flat ? (double)a->heads : 1);
    return node_attr(a->n, "scale") ? (double)node_float(a->n, "scale", 1) : 1 / sqrt(width);
}

/* Head h of Q reads head h / (heads / shared) of K and V. */
static Value *shared_heads(const Attention *a, Value *x)
{
    if (a->heads == a->shared) return x;
    int64_t *index = NEW_ARRAY(a->e->im->g->arena, int64_t, a->heads);
    for (int64_t h = 0; h < a->heads; h++) index[h] = h / (a->heads / a->shared);
    return expand_op(a->e, OP_Gather, IN(x, const_ints(a->e->im->g, (int)a->heads, index)),
                     ATTRS(attr_int("axis", 1)));
}

/* What was before, and x behind it; written to the output o where it is wanted. */
static Value *cached(const Attention *a, int past, int o, Value *x)
{
    Value *before = node_in(a->n, past), *out = output(a->n, o);
    if (before) return expand_concat(a->e, out, before, x, 2);
    return out ? expand_into(a->e, out, OP_Identity, IN(x), NO_ATTRS) : x;
}

/* ---- who sees whom ------------------------------------------------------------------ */

static Value *positions(const Attention *a, Value *x)
{
    return expand_op(a->e, OP_Range,
                     IN(expand_scalar(a->e, 0), expand_size(a->e, x, 2), expand_scalar(a->e, 1)),
                     NO_ATTRS);
}

/* nonpad_kv_seqlen as [N, 1, 1, 1]; NULL if it is not given */
static Value *filled(const Attention *a)
{
    Value *v = node_in(a->n, IN_FILLED);
    if (!v) return NULL;
    v = expand_op(a->e, OP_Cast, IN(v), ATTRS(attr_int("to", DT_I64)));
    return expand_reshape(a->e, v, 4, DIMS(-1, 1, 1, 1));
}

/* Where queries are among the keys: [S, 1] or [N, 1, S, 1]. */
static Value *query_positions(const Attention *a, Value *full)
{
    Expander *e = a->e;
    Value *p = expand_unsqueeze(e, positions(a, a->q), 1), *past = node_in(a->n, IN_PAST_K);
    if (past) return expand_binary(e, OP_Add, p, expand_size(e, past, 2));
    if (!full) return p;
    return expand_binary(e, OP_Add, p, expand_binary(e, OP_Sub, full, expand_size(e, a->q, 2)));
}

static Value *both(const Attention *a, Value *x, Value *y)
{
    return x ? expand_binary(a->e, OP_And, x, y) : y;
}

/* Truth values that broadcast to the scores; NULL: everybody sees all. */
static Value *visible(const Attention *a)
{
    Expander *e = a->e;
    int64_t left = node_int(a->n, "left_window_size", -1);
    int64_t right = node_int(a->n, "right_window_size", -1);
    bool causal = node_int(a->n, "is_causal", 0) != 0;
    Value *all = NULL, *full = filled(a);
    if (!causal && !full && left < 0 && right < 0) return NULL;
    Value *key = positions(a, a->k);
    if (full) all = expand_binary(e, OP_Less, key, full);
    if (!causal && left < 0 && right < 0) return all;
    Value *query = query_positions(a, full);
    if (causal) all = both(a, all, expand_binary(e, OP_LessOrEqual, key, query));
    if (left >= 0)
        all = both(a, all,
                   expand_binary(e, OP_GreaterOrEqual,
                                 expand_binary(e, OP_Add, key, expand_scalar(e, left)), query));
    if (right >= 0)
        all = both(a, all,
                   expand_binary(e, OP_LessOrEqual, key,
                                 expand_binary(e, OP_Add, query, expand_scalar(e, right))));
    return all;
}

/* The mask with nothing (of `value`) for the keys that it does not reach. */
static Value *full_mask(const Attention *a, Value *mask, double value)
{
    Expander *e = a->e;
    Graph *g = e->im->g;
    int rank = mask->type.rank;
    int64_t keys = a->k->type.dim[2], has = rank > 0 ? mask->type.dim[rank - 1] : 0;
    if (rank < 1 || keys < 0 || has <= 1 || has >= keys) return mask;
    return expand_op(e, OP_Pad,
                     IN(mask, CONST_INTS(g, 0, keys - has), expand_number(e, mask, value),
                        CONST_INTS(g, rank - 1)),
                     NO_ATTRS);
}

static Value *hide(const Attention *a, Value *seen, Value *scores)
{
    return expand_op(a->e, OP_Where, IN(seen, scores, expand_number(a->e, scores, -INFINITY)),
                     NO_ATTRS);
}

static Value *masked(const Attention *a, Value *scores)
{
    Value *mask = node_in(a->n, IN_MASK), *seen = visible(a);
    if (mask && mask->type.dtype == DT_BOOL) {
        Value *zero = expand_number(a->e, scores, 0);
        Value *bias = hide(a, mask, zero);
        scores = expand_binary(a->e, OP_Add, scores, full_mask(a, bias, -INFINITY));
    } else if (mask) {
        scores = expand_binary(a->e, OP_Add, scores, full_mask(a, mask, -INFINITY));
    }
    return seen ? hide(a, seen, scores) : scores;
}

/* ---- the whole ---------------------------------------------------------------------- */

/* Over the keys, in the precision that is asked for. */
static Value *softmax(const Attention *a, Value *scores)
{
    DType own = scores->type.dtype;
    DType wanted = (DType)node_int(a->n, "softmax_precision", (int64_t)own);
    Value *p = scores;
    if (wanted != own) p = expand_op(a->e, OP_Cast, IN(p), ATTRS(attr_int("to", wanted)));
    p = expand_op(a->e, OP_Softmax, IN(p), ATTRS(attr_int("axis", -1)));
    return wanted == own ? p : expand_op(a->e, OP_Cast, IN(p), ATTRS(attr_int("to", own)));
}

/* Where a query may see no key at all, its weights are zeros. */
static Value *weights(const Attention *a, Value *scores)
{
    Expander *e = a->e;
    if (!node_in(a->n, IN_MASK) && !node_in(a->n, IN_FILLED)) return softmax(a, scores);
    Value *most = expand_op(e, OP_ReduceMax, IN(scores, CONST_INTS(e->im->g, -1)), NO_ATTRS);
    Value *blind = expand_binary(e, OP_Equal, most, expand_number(e, most, -INFINITY));
    Value *zero = expand_number(e, scores, 0);
    Value *p = softmax(a, expand_op(e, OP_Where, IN(blind, zero, scores), NO_ATTRS));
    return expand_op(e, OP_Where, IN(blind, zero, p), NO_ATTRS);
}

/* The fourth output, if it is wanted as the scores are at this point. */
static void show(const Attention *a, int64_t mode, Value *scores)
{
    Value *out = output(a->n, OUT_SCORES);
    if (out && node_int(a->n, "qk_matmul_output_mode", 0) == mode)
        expand_into(a->e, out, OP_Identity, IN(scores), NO_ATTRS);
}

static Value *scores_of(const Attention *a)
{
    Expander *e = a->e;
    double cap = (double)node_float(a->n, "softcap", 0);
    Value *q = expand_binary(e, OP_Mul, a->q, expand_number(e, a->q, scale_of(a)));
    Value *k = expand_transpose(e, NULL, shared_heads(a, a->k), 4, swap_last);
    Value *s = expand_binary(e, OP_MatMul, q, k);
    show(a, 0, s);
    if (cap != 0) {
        s = expand_binary(e, OP_Div, s, expand_number(e, s, cap));
        s = expand_binary(e, OP_Mul, expand_op(e, OP_Tanh, IN(s), NO_ATTRS),
                          expand_number(e, s, cap));
    }
    show(a, 1, s);
    return s;
}

int expand_attention(Expander *e, const Node *n)
{
    Attention a = {.e = e, .n = n};
    if (!is_known(&a, n)) return 0;
    a.q = by_head(e, n->in[IN_Q], a.heads);
    a.k = cached(&a, IN_PAST_K, OUT_K, by_head(e, n->in[IN_K], a.shared));
    a.v = cached(&a, IN_PAST_V, OUT_V, by_head(e, n->in[IN_V], a.shared));
    Value *s = masked(&a, scores_of(&a));
    show(&a, 2, s);
    Value *p = weights(&a, s), *v = shared_heads(&a, a.v);
    show(&a, 3, p);
    if (!a.flat) {
        expand_into(e, n->out[OUT_Y], OP_MatMul, IN(p, v), NO_ATTRS);
        return 1;
    }
    Value *y = expand_transpose(e, NULL, expand_binary(e, OP_MatMul, p, v), 4, swap_heads);
    expand_into(e, n->out[OUT_Y], OP_Reshape, IN(y, CONST_INTS(e->im->g, 0, 0, -1)), NO_ATTRS);
    return 1;
}

/* ---- RotaryEmbedding ---------------------------------------------------------------- */

/* [N, S, D / 2], chosen by positions where those are given, as [N, S, 1, D / 2] */
static Value *angles(Expander *e, const Node *n, int i)
{
    Value *v = n->in[i];
    if (node_in(n, 3)) v = expand_op(e, OP_Gather, IN(v, n->in[3]), NO_ATTRS);
    return expand_unsqueeze(e, v, 2);
}

/* Pairs (x1, x2) turned by their angles: (cos x1 - sin x2, sin x1 + cos x2). The pairs of x
 * [N, S, H, R] are neighbours, or lie half of R apart. */
static Value *turned(Expander *e, const Node *n, Value *x, int64_t r)
{
    bool near = node_int(n, "interleaved", 0) != 0;
    Value *c = angles(e, n, 1), *s = angles(e, n, 2);
    Value *x1 = near ? expand_slice(e, x, 3, 0, r, 2) : expand_slice(e, x, 3, 0, r / 2, 1);
    Value *x2 = near ? expand_slice(e, x, 3, 1, r, 2) : expand_slice(e, x, 3, r / 2, r, 1);
    Value *y1 =
        expand_binary(e, OP_Sub, expand_binary(e, OP_Mul, c, x1), expand_binary(e, OP_Mul, s, x2));
    Value *y2 =
        expand_binary(e, OP_Add, expand_binary(e, OP_Mul, s, x1), expand_binary(e, OP_Mul, c, x2));
    if (!near) return expand_concat(e, NULL, y1, y2, 3);
    Value *pairs =
        expand_concat(e, NULL, expand_unsqueeze(e, y1, 4), expand_unsqueeze(e, y2, 4), 4);
    return expand_reshape(e, pairs, 4, DIMS(0, 0, 0, r));
}

int expand_rotary_embedding(Expander *e, const Node *n)
{
    const Type *t = &n->in[0]->type;
    bool flat = t->rank == 3;
    int64_t heads = node_int(n, "num_heads", 0), r = node_int(n, "rotary_embedding_dim", 0);
    if (n->nin < 3 || !n->in[1] || !n->in[2] || (t->rank != 3 && t->rank != 4)) return 0;
    int64_t width = t->dim[t->rank - 1];
    if (width < 1 || (flat && (heads < 1 || width % heads))) return 0;
    if (flat) width /= heads;
    if (r == 0) r = width;
    if (r < 0 || r > width || r % 2) return 0;
    Value *x = flat ? expand_reshape(e, n->in[0], 4, DIMS(0, 0, heads, width))
                    : expand_transpose(e, NULL, n->in[0], 4, swap_heads);
    Value *y = turned(e, n, r < width ? expand_slice(e, x, 3, 0, r, 1) : x, r);
    if (r < width) y = expand_concat(e, NULL, y, expand_slice(e, x, 3, r, width, 1), 3);
    if (flat)
        expand_into(e, n->out[0], OP_Reshape, IN(y, CONST_INTS(e->im->g, 0, 0, -1)), NO_ATTRS);
    else
        expand_transpose(e, n->out[0], y, 4, swap_heads);
    return 1;
}
