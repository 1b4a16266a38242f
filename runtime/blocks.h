/* DepthToSpace and SpaceToDepth as copies between views. */
#ifndef EHAP_RUNTIME_BLOCKS_H
#define EHAP_RUNTIME_BLOCKS_H

#include "runtime/kernel.h"

/* Both operands seen as [N, C, H, i, W, j]: C channels of the wide image, whose pixel (H, W) is a
 * block of pixels (i, j); in the deep one, block positions are channels. Equal shapes, so that the
 * op is a copy of *from to *to. */
void block_views(const Node *n, const Tensor *in, const Tensor *out, Tensor *from, Tensor *to);

#endif
