/* Whether the nodes of a model with QuantizeLinear/DequantizeLinear will run in integers. */
#ifndef EHAP_PASSES_QUANT_LINT_H
#define EHAP_PASSES_QUANT_LINT_H

#include "passes/quant/targets.h"

typedef struct LintNode {
    const Node *node;
    const char *why; /* the rule that it breaks; NULL: it runs in integers */
    bool spare;      /* float is as good: no integer product comes behind it, it is too small, or
                        its result is for a logarithm or the like (relative.h) */
} LintNode;

/* A verdict on every node that the target could run in integers, in graph order, in arena a. The
 * graph may come from any tool: it is read as it stands. Returns their number. */
int lint(LintNode **out, const Graph *g, const Target *t, Arena *a);

#endif
