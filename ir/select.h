/* Arguments of Slice and Pad, read and normalized once for shape inference, channels and
 * kernels. */
#ifndef EHAP_IR_SELECT_H
#define EHAP_IR_SELECT_H

#include "ir/ir.h"

/* Per sliced axis; starts and ends as given (negative, beyond the end, symbols). */
typedef struct SliceArgs {
    int n;
    int axis[MAX_RANK];
    int64_t start[MAX_RANK], end[MAX_RANK], step[MAX_RANK];
} SliceArgs;

/* Of a Slice or SliceGrad node whose sliced operand has `rank`. Returns 1, 0 if starts, ends,
 * axes or steps are not known, -1 after an error. */
int slice_args(const Node *n, int rank, SliceArgs *s, Diag *d);
/* Start and end as Slice means them in an axis of `dim` elements: the elements are start,
 * start + step, … strictly before end (in the direction of step; end may be -1 then). */
void slice_clamp(int64_t dim, int64_t *start, int64_t *end, int64_t step);
int64_t slice_count(int64_t start, int64_t end, int64_t step);

/* Amounts of a Pad node before and after each of `rank` axes. Returns as slice_args does. */
int pad_amounts(const Node *n, int rank, int64_t *before, int64_t *after, Diag *d);

/* Where coordinate i (from the first that is not padding) of an axis of Pad reads, by its mode: in
 * 0 … size - 1, or -1 for the constant. */
int64_t pad_source(const char *mode, int64_t i, int64_t size);

#endif
