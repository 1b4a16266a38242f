#ifndef EHAP_PASSES_SIMPLIFY_CONTRACT_H
#define EHAP_PASSES_SIMPLIFY_CONTRACT_H

#include "ir/ir.h"

/* Rewrites per-channel sums of v * (weight gradient) so that the weight gradient is never formed:
 *
 *   sum over a filter of v * ConvWgrad(x, dy)  =  sum over n, positions of Conv(x, v) * dy
 *
 * and likewise for products (Gemm), through additions. In an HVP the weight-gradient convolutions
 * of the tangent pass vanish and Conv(x, v) is one that its forward part has anyway. */
void contract_channel_sums(Graph *g);

/* ReduceSum(Mul(a, b)) of equal shapes to SumProduct: the product is never stored, and half
 * precision stops in front of the sum. */
void fuse_sum_products(Graph *g, Arena *scratch);

#endif
