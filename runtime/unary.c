/* Names and default parameters of the scalar functions. */
#include "runtime/unary.h"

#include <math.h>
#include <string.h>

#include "ir/unary.h"

#define NAME(name, ...) #name,
static const char *const unary_name[] = {
    SCALAR_UNARY_LIST(NAME, , SCALAR_MATH_double, SCALAR_F_double)};
#undef NAME

static const struct {
    enum Unary fn;
    float a, b;
} defaults[] = {{UNARY_LeakyRelu, 0.01f, 0},
                {UNARY_HardSigmoid, 0.2f, 0.5f},
                {UNARY_Elu, 1, 0},
                {UNARY_Selu, 1.67326319217681884765625f, 1.05070102214813232421875f},
                {UNARY_Celu, 1, 0},
                {UNARY_ThresholdedRelu, 1, 0},
                {UNARY_Shrink, 0.5f, 0},
                {UNARY_Swish, 1, 0},
                {UNARY_Clip, -INFINITY, INFINITY}};

static int find(const char *name)
{
    for (int k = 0; k < UNARY_COUNT; k++)
        if (strcmp(unary_name[k], name) == 0) return k;
    return -1;
}

int unary_spec(UnarySpec *out, const Node *n, Diag *d)
{
    const bool derivative = n->op == OP_Derivative;
    const char *name = derivative ? node_str(n, "of", "") : node_op_name(n);
    const int64_t order = derivative ? node_int(n, "order", 1) : 0;
    int fn = find(name);
    if (fn < 0) return node_error(d, n, "there is no scalar function '%s'", name);
    if (order < 0 || order > 2)
        return node_error(d, n, "derivative %lld of '%s' is wanted, 0 to 2 are known",
                          (long long)order, name);
    if (fn == UNARY_Gelu && strcmp(node_str(n, "approximate", "none"), "tanh") == 0)
        fn = UNARY_GeluTanh;
    *out = (UnarySpec){.fn = (enum Unary)fn, .order = (int)order};
    for (size_t k = 0; k < sizeof defaults / sizeof *defaults; k++)
        if (defaults[k].fn == out->fn) {
            out->a = defaults[k].a;
            out->b = defaults[k].b;
        }
    out->a = node_float(n, unary_param(n, 0), out->a);
    out->b = node_float(n, unary_param(n, 1), out->b);
    return 0;
}
