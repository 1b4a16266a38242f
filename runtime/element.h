/* One element of a tensor of any type: the slow path, and all of `ref`. */
#ifndef EHAP_RUNTIME_ELEMENT_H
#define EHAP_RUNTIME_ELEMENT_H

#include "runtime/kernel.h"

/* Element at `offset` (in elements) as a double; exact but for 64-bit integers beyond 2^53. */
double element_load(const Tensor *t, int64_t offset);
/* Rounds to the type: floats to nearest even, integers towards zero and clamped to the range (NaN
 * becomes 0), bool to != 0. */
void element_store(const Tensor *t, int64_t offset, double x);
/* Integers and bool, exactly; floats are truncated. uint64 keeps its bits. */
int64_t element_load_int(const Tensor *t, int64_t offset);
/* Keeps the low bits, as C's conversions do. */
void element_store_int(const Tensor *t, int64_t offset, int64_t x);

/* Row-major strides, or channels-last ones (rank 3 and more) for the dims that are set. */
void tensor_set_strides(Tensor *t, bool channels_last);
/* Copies between any strides and element types; equal shapes. */
void tensor_copy(const Tensor *src, const Tensor *dst);

#endif
