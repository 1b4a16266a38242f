/* Element-wise functions of one operand, and Where: by the formulas of scalar.h in double;
 * integers exactly. */
#include "runtime/ref/ref.h"
#include "runtime/unary.h"

#include <math.h>

/* ---- one operand -------------------------------------------------------------------- */

static double unary(enum Unary fn, int order, double x, double a, double b)
{
#define CASE(name, T, ...)                                                                         \
    case UNARY_##name:                                                                             \
        return order == 0   ? scalar_##name##0_double(x, a, b)                                     \
               : order == 1 ? scalar_##name##1_double(x, a, b)                                     \
                            : scalar_##name##2_double(x, a, b);
    switch (fn) {
        SCALAR_UNARY_LIST(CASE, double, SCALAR_MATH_double, SCALAR_F_double)
    default:
        return 0;
    }
#undef CASE
}

int ref_unary_prepare(Prepare *p)
{
    UnarySpec spec;
    return unary_spec(&spec, p->node, p->diag);
}

REF_KERNEL(unary)
{
    UNUSED_STATE;
    UnarySpec s;
    Diag silent = {0};
    if (unary_spec(&s, n, &silent) < 0) trap(TRAP_INTERNAL, "ref: an unprepared unary node");
    FOR_EACH(at, out)
    {
        const int64_t from = ref_index(in, &at), to = ref_index(out, &at);
        const int64_t i = is_exact_int(in) ? element_load_int(in, from) : 0;
        if (is_exact_int(in) && s.fn == UNARY_Neg)
            element_store_int(out, to, (int64_t)(0 - (uint64_t)i));
        else if (is_exact_int(in) && s.fn == UNARY_Abs)
            element_store_int(out, to,
                              i < 0 && in->dtype != DT_U64 ? (int64_t)(0 - (uint64_t)i) : i);
        else
            element_store(out, to, unary(s.fn, 0, load(in, from), (double)s.a, (double)s.b));
    }
}

/* (d, x) -> d f^(order)(x), both broadcast */
REF_KERNEL(derivative)
{
    UNUSED_STATE;
    UnarySpec s;
    Diag silent = {0};
    const Tensor d = ref_broadcast(&in[0], out), x = ref_broadcast(&in[1], out);
    if (unary_spec(&s, n, &silent) < 0) trap(TRAP_INTERNAL, "ref: an unprepared Derivative");
    FOR_EACH(at, out)
    {
        const double f =
            unary(s.fn, s.order, load(&x, ref_index(&x, &at)), (double)s.a, (double)s.b);
        element_store(out, ref_index(out, &at), load(&d, ref_index(&d, &at)) * f);
    }
}

REF_KERNEL(copy)
{
    UNUSED_STATE;
    tensor_copy(in, out);
}

/* Dropout drops nothing here: training in the sense of the op is not offered. */
int ref_dropout_prepare(Prepare *p)
{
    double ratio = 0.5;
    const Value *train = node_in(p->node, 2);
    int64_t on = 0;
    if (train && value_ints(train, &on, 1) != 1) on = 1;
    if (node_in(p->node, 1) && !value_scalar(p->node->in[1], &ratio)) ratio = 1;
    if (on && ratio != 0) return node_error(p->diag, p->node, "cannot run in training mode");
    return 0;
}

/* The mask, where wanted, is all true. */
REF_KERNEL(dropout)
{
    UNUSED_STATE;
    tensor_copy(in, out);
    if (n->nout > 1 && out[1].rank >= 0) ref_fill(&out[1], 1);
}

/* Of integers as element_load_int has them. */
static bool is_less(const Tensor *t, int64_t x, int64_t y)
{
    return t->dtype == DT_U64 ? (uint64_t)x < (uint64_t)y : x < y;
}

REF_KERNEL(clip)
{
    UNUSED_STATE;
    const bool has_lo = node_in(n, 1) != NULL, has_hi = node_in(n, 2) != NULL;
    const double lo = has_lo ? load(&in[1], 0) : -INFINITY,
                 hi = has_hi ? load(&in[2], 0) : INFINITY;
    FOR_EACH(at, out)
    {
        const int64_t from = ref_index(in, &at), to = ref_index(out, &at);
        if (is_exact_int(in)) {
            int64_t x = element_load_int(in, from);
            if (has_lo && is_less(in, x, element_load_int(&in[1], 0)))
                x = element_load_int(&in[1], 0);
            if (has_hi && is_less(in, element_load_int(&in[2], 0), x))
                x = element_load_int(&in[2], 0);
            element_store_int(out, to, x);
        } else {
            element_store(out, to, scalar_Clip0_double(load(in, from), lo, hi));
        }
    }
}

REF_KERNEL(where)
{
    UNUSED_STATE;
    const Tensor c = ref_broadcast(&in[0], out);
    const Tensor yes = ref_broadcast(&in[1], out), no = ref_broadcast(&in[2], out);
    FOR_EACH(at, out)
    {
        const Tensor *from = element_load_int(&c, ref_index(&c, &at)) ? &yes : &no;
        ref_move(from, ref_index(from, &at), out, ref_index(out, &at));
    }
}
