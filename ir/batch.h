/* Where the samples of a batch lie in a graph's inputs, and in tensors in general.
 *
 * Exporters say it by names and by what they leave open: the batch is the dimension (a symbol, else
 * a number) that most inputs and outputs share, one called so first, then one that begins them. An
 * input without it has an open dimension of its own, or one of size 1 (a batch fixed to one
 * sample), or is the same for all samples: a sampling rate, a table of anchors. */
#ifndef EHAP_IR_BATCH_H
#define EHAP_IR_BATCH_H

#include "ir/ir.h"

/* For each input of g the axis that runs over samples; -1: none. An array in `a`. */
int *batch_axes(const Graph *g, Arena *a);

/* The type of one sample's part of a tensor of type t whose samples lie along `axis`: t without it;
 * axis < 0: t. */
Type batch_part(const Type *t, int axis);

/* Moves sample i's part, `bytes` of it, row-major, from or to a tensor that holds those of n
 * samples along an axis before which there are `outer` elements; outer < 1: the tensor is the part.
 */
void batch_get(void *part, const void *tensor, int64_t outer, int64_t i, int64_t n, size_t bytes);
void batch_put(void *tensor, const void *part, int64_t outer, int64_t i, int64_t n, size_t bytes);
/* The product of the dimensions of t before axis; axis < 0: 0. */
int64_t batch_outer(const Type *t, int axis);

#endif
