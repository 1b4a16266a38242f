/* Which scalar function a node applies. */
#ifndef EHAP_RUNTIME_UNARY_H
#define EHAP_RUNTIME_UNARY_H

#include "ir/ir.h"
#include "runtime/scalar.h"

typedef struct UnarySpec {
    enum Unary fn;
    int order;  /* which derivative: 0 (the function), 1, 2 */
    float a, b; /* alpha and beta; -inf and inf for Clip, whose bounds are inputs */
} UnarySpec;

/* The function of a unary node (Relu, Gelu …) or of a Derivative node, whose attributes are
 * of="Relu", order=1, and alpha, beta (min, max for Clip), approximate as the function has them.
 * A function or an order that scalar.h does not know is a node_error. */
int unary_spec(UnarySpec *out, const Node *n, Diag *d);

#endif
