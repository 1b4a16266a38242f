/* Values whose relative error matters, so that they must not go on a grid of equal steps. */
#ifndef EHAP_PASSES_QUANT_RELATIVE_H
#define EHAP_PASSES_QUANT_RELATIVE_H

#include "ir/ir.h"

typedef struct Relative {
    uint8_t *want; /* by value id: 0 where equal steps do */
    bool *moving;  /* by value id: depends on the graph's inputs … */
    bool *linear;  /* … and is linear in them */
    bool *masked;  /* by value id: a mask, or what one is added to (masks.c) */
} Relative;

/* Tables in arena a for the values that g has now. */
Relative relative_find(const Graph *g, Arena *a);
/* Whether what n computes must not go on a grid. */
bool relative_result(const Relative *r, const Node *n);
/* Whether n must read its input k as it was before any grid; n's inputs are those of
 * relative_find. */
bool relative_operand(const Relative *r, const Node *n, int k);

#endif
