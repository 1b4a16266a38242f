/* The loops over strided operands that a kernel's threads are numbered by. */
#ifndef EHAP_RUNTIME_CUDA_LOOPS_H
#define EHAP_RUNTIME_CUDA_LOOPS_H

#include "runtime/cuda/prelude.h"
#include "runtime/kernel.h"

/* Dimensions of size 1 are gone, neighbours that run on are merged; loop 0 is the outermost. */
typedef struct Loops {
    int n, operands;
    int64_t dim[MAX_RANK];
    int64_t stride[MAP_OPERANDS][MAX_RANK]; /* in elements; 0 where an operand broadcasts */
} Loops;

/* Over the shape of t[0], in the order of its memory; the others broadcast to it. At least one
 * loop. */
void loops_make(Loops *l, int operands, const Tensor *const *t);
int64_t loops_count(const Loops *l);

/* t seen under the shape of `like`: strides of 0 where it broadcasts. */
Tensor tensor_broadcast(const Tensor *t, const Tensor *like);

#endif
