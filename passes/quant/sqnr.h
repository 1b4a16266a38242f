/* What quantization costs, measured layer by layer against the float network. */
#ifndef EHAP_PASSES_QUANT_SQNR_H
#define EHAP_PASSES_QUANT_SQNR_H

#include "passes/passes.h"
#include "passes/quant/targets.h"

enum { MEASURED_SAMPLES = 128 };

/* The products of g that read FakeQuant nodes, in order, and their twins in `plain`, which is g
 * before those were placed. Their number. */
int quantized_products(const Graph *plain, const Graph *g, Node **node, Node **twin);

/* Sets sqnr of g's quantized products: 10 log10 of the power of the layer's output in `plain` over
 * that of the difference, all layers quantized. own: sets `own`, the same where the products before
 * the layer deliver what they do in `plain`. */
int measure_sqnr(QuantReport *q, Context *c, const Graph *plain, const Graph *g, bool own);

/* bias_correction.c. Takes what rounding the weights moves the means of g's products by off their
 * biases, where `own` is less than `below`. */
int correct_biases(Context *c, const Graph *plain, Graph *g, const QuantReport *q, double below);

/* Sets cost of each: the squared error of the network's float outputs, relative to their power,
 * summed over outputs, with only that layer quantized. */
int measure_costs(QuantReport *q, int n, Context *c, const Graph *plain, const Graph *g);

/* in_float.c. Quantizes c->graph by place_fake_quant, corrects biases, fills the report, and keeps
 * in float what the options say is too costly there. */
int quantize_measured(Context *c, const Target *t, int bits);

#endif
