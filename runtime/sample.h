/* Where GridSample, RoiAlign and DeformConv look: elements of an image, and what they weigh. */
#ifndef EHAP_RUNTIME_SAMPLE_H
#define EHAP_RUNTIME_SAMPLE_H

#include "runtime/kernel.h"

enum { MAX_CORNERS = 64 }; /* four each in three dimensions */

typedef struct Corner {
    int64_t at; /* from the first pixel of a channel, by the image's strides */
    double weight;
} Corner;

typedef enum Padding { PAD_ZEROS, PAD_BORDER, PAD_REFLECT } Padding;

typedef struct GridMode {
    bool align, nearest, cubic;
    Padding padding;
} GridMode;

/* Of a GridSample or GridSampleGrad. */
GridMode grid_mode(const Node *n);
/* The pixels of `image` for place `at` of the result (whose channel does not matter), at most
 * MAX_CORNERS; their number. */
int grid_corners(const GridMode *m, const Tensor *image, const Tensor *grid, const int64_t *at,
                 Corner *c);

/* The pixels around (h, w), what lies outside left out; their number. */
int pixel_corners(const Tensor *image, double h, double w, Corner c[4]);

/* One axis of a region, cut into bins of `samples` each. */
typedef struct RoiAxis {
    double start, bin;
    int64_t samples;
} RoiAxis;

typedef struct Roi {
    RoiAxis h, w;
    int64_t image; /* < 0: there is none */
} Roi;

/* Region r of a RoiAlign or RoiAlignGrad with these inputs, cut into bins[0] x bins[1]; `images`
 * exist. */
Roi roi_of(const Node *n, const Tensor *in, int64_t r, const int64_t *bins, int64_t images);
/* The four pixels of sample k of a bin; 0 if it lies too far outside. */
int roi_corners(const Roi *r, const Tensor *image, int64_t bin_h, int64_t bin_w, int64_t k,
                Corner c[4]);

#endif
