/* What quantization costs, measured layer by layer against the float network. */
#ifndef EHAP_PASSES_QUANT_SQNR_H
#define EHAP_PASSES_QUANT_SQNR_H

#include "passes/passes.h"
#include "passes/quant/targets.h"

enum { MEASURED_SAMPLES = 128 };

/* The products of g that read FakeQuant nodes, in order, and their twins in `plain`, which is g
 * before those were placed. Their number. */
int quantized_products(const Graph *plain, const Graph *g, Node **node, Node **twin);

/* Sets `own` of g's quantized products: 10 log10 of the power of the layer's output in `plain` over
 * that of the difference, where the products before the layer deliver what they do in `plain`. */
int measure_own_sqnr(QuantReport *q, Context *c, const Graph *plain, const Graph *g);
/* Sets `sqnr`, the same with all layers quantized. *outputs: of the network's float output where it
 * is least; INFINITY if there is none. What is known to lie in [0, 1] or [-1, 1] (behind Sigmoid,
 * Softmax …) has at least the power of a step of 1/255: less is no signal there. */
int measure_sqnr(QuantReport *q, double *outputs, Context *c, const Graph *plain, const Graph *g);

/* bias_correction.c. Takes what rounding the weights moves the means of g's products by off their
 * biases, where `own` is less than `below`. */
int correct_biases(Context *c, const Graph *plain, Graph *g, const QuantReport *q, double below);

/* The squared error of the network's float outputs, relative to their power, summed over outputs,
 * with only those grids of g (flags by place in its node list), over at most `limit` samples. */
int grids_cost(double *cost, Context *c, const Graph *plain, const Graph *g, const bool *grids,
               int64_t limit);
/* Sets cost of each: that of the grids on the layer's operands. */
int measure_costs(QuantReport *q, int n, Context *c, const Graph *plain, const Graph *g);
/* Whether n is a product that g's quantization makes one of integers. */
bool is_quantized_product(const Node *n);

/* in_float.c. Quantizes c->graph by place_fake_quant, corrects biases, fills the report, and keeps
 * in float what the options say is too costly there. */
int quantize_measured(Context *c, const Target *t, int bits);

#endif
