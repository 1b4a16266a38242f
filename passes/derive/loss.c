/* Losses as graphs, and where a classifier's logits are. */
#include "passes/passes.h"

static Value *sum_all(Graph *g, Value *v, double factor)
{
    Value *s = build(g, OP_ReduceSum, IN(v), ATTRS(attr_int("keepdims", 0)));
    return build(g, OP_Mul, IN(s, const_f32(g, (float)factor)), NO_ATTRS);
}

Value *loss_cross_entropy(Graph *g, Value *logits, Value *target, double total)
{
    Value *p = build(g, OP_LogSoftmax, IN(logits), ATTRS(attr_int("axis", -1)));
    return sum_all(g, build(g, OP_Mul, IN(p, target), NO_ATTRS), -1 / total);
}

Value *loss_mse(Graph *g, Value *y, Value *target, double total)
{
    Value *e = build(g, OP_Sub, IN(y, target), NO_ATTRS);
    return sum_all(g, build(g, OP_Mul, IN(e, e), NO_ATTRS), 1 / total);
}

/* Whether n copies its operand as floats: integers and half precision end at their Cast. */
static bool copies_floats(const Node *n)
{
    return n->op == OP_Identity || (n->op == OP_Cast && n->in[0]->type.dtype == DT_F32);
}

/* Through what leaves the order of the classes alone; *softmax: that was one. */
static Value *before_softmax(Value *v, bool *softmax)
{
    while (v->def && copies_floats(v->def)) v = v->def->in[0];
    *softmax = v->def && (v->def->op == OP_Softmax || v->def->op == OP_LogSoftmax);
    return *softmax ? v->def->in[0] : v;
}

Value *graph_logits(const Graph *g)
{
    Value *first = NULL, *half = NULL;
    for (int o = 0; o < g->noutputs; o++) {
        const Type *t = &g->outputs[o]->type;
        bool softmax;
        Value *z = before_softmax(g->outputs[o], &softmax);
        if (t->dtype == DT_F32 && t->rank == 2 && softmax) return z;
        if (t->dtype == DT_F32 && !first) first = z;
        if (dtype_is_float(t->dtype) && !half) half = z;
    }
    return first ? first : half;
}
