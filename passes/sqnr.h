/* What quantisation costs, measured layer by layer against the float network. */
#ifndef EHAP_PASSES_SQNR_H
#define EHAP_PASSES_SQNR_H

#include "passes/passes.h"

/* The products of g that read FakeQuant nodes, as reports in arena a; `plain` is g before they
 * were placed. Sets sqnr: 10 log10 of the power of the layer's output in `plain` over that of the
 * difference, all layers quantised. Returns their number in *n, -1 after an error. */
int measure_sqnr(QuantReport **out, int *n, Context *c, const Graph *plain, const Graph *g,
                 Arena *a);

/* Sets cost of each: the squared error of the network's float outputs, relative to their power,
 * summed over outputs, with only that layer quantised. */
int measure_costs(QuantReport *q, int n, Context *c, const Graph *plain, const Graph *g);

#endif
