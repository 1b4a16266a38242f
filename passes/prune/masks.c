/* Masks: values that are -inf in places, or far below all others (-10000, the least float), for a
 * Softmax to make zeros of. They have no range to quantize, and no differences to learn from. */
#include "ir/op.h"
#include "passes/passes.h"

enum { DEPTH = 8, LARGEST = 1 << 20 };

static const float FAR_BELOW = -9000;

static bool has_far_below(const Value *v)
{
    const float *x = v->data;
    if (v->type.dtype != DT_F32 || type_count(&v->type) > LARGEST) return false;
    for (int64_t i = 0; i < type_count(&v->type); i++)
        if (x[i] < FAR_BELOW) return true;
    return false;
}

/* Which operands of a node hand it on: from the first to before the second. */
static bool hands_on(const Node *n, int *from, int *to)
{
    bool all = n->op == OP_Concat || n->op == OP_Add || n->op == OP_Mul || n->op == OP_Where;
    bool moves = (op_info[n->op].flags & OPF_MOVES) || n->op == OP_Cast || n->op == OP_CastLike;
    *from = n->op == OP_Where;
    *to = all ? n->nin : 1;
    return all || moves || n->op == OP_Trilu;
}

static bool is_far_below(const Value *v, int depth)
{
    const Node *n = v ? v->def : NULL;
    int from, to;
    if (v && v->data) return has_far_below(v);
    if (!n || depth == 0) return false;
    if (n->op == OP_ConstantOfShape) {
        const Attr *a = node_attr(n, "value");
        const Value one = {.type = a ? a->type : (Type){0}, .data = a ? a->s.p : NULL};
        return a && a->s.n >= sizeof(float) && has_far_below(&one);
    }
    if (!hands_on(n, &from, &to)) return false;
    for (int i = from; i < to; i++)
        if (is_far_below(n->in[i], depth - 1)) return true;
    return false;
}

bool value_is_masked(const Value *v) { return is_far_below(v, DEPTH); }
