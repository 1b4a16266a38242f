/* Results whose size depends on data: their number, known once the data is (constants, and values
 * that have been computed), and what they are. Shape inference and kernels ask here. All data is
 * row-major. */
#ifndef EHAP_IR_DYNAMIC_H
#define EHAP_IR_DYNAMIC_H

#include "ir/ir.h"

/* Whether element k is not zero (NaN is not). */
bool element_is_set(const void *data, DType t, int64_t k);
/* How many of `count` elements are set. */
int64_t count_set(const void *data, DType t, int64_t count);

/* The slices of a tensor along one axis, seen as [outer, n, inner]; a flattened one is [1, n, 1].
 * Sorts the slices (lexicographic, NaN last, equal ones by position) into order[0 … n) and returns
 * the number of different ones. */
typedef struct Slices {
    const void *data;
    DType dtype;
    int64_t outer, n, inner;
} Slices;
int64_t slices_sort(const Slices *s, int64_t *order);
/* <0, 0, >0 */
int slices_compare(const Slices *s, int64_t i, int64_t k);

/* NonMaxSuppression: per image and class, boxes in order of their score above `threshold`, each
 * kept unless its intersection over union with a kept one exceeds `iou`; at most `most`. */
typedef struct Nms {
    const float *boxes;  /* [images, n, 4] */
    const float *scores; /* [images, classes, n] */
    int64_t images, classes, n, most;
    double iou, threshold;
    bool has_threshold;
    bool centers; /* boxes are x, y, width, height, not two corners y, x */
} Nms;
/* From a NonMaxSuppression node and the data of its inputs, of their inferred types; the last three
 * may be NULL. False if there is nothing to choose from a box of 4 numbers. */
bool nms_args(const Node *n, const float *boxes, const float *scores, const int64_t *most,
              const float *iou, const float *threshold, Nms *s);
/* Writes rows (image, class, box) to out, if it is not NULL; their number. */
int64_t nms_select(const Nms *s, int64_t *out);

#endif
