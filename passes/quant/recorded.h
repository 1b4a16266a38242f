/* Grids that a quantized graph already has, by the names of the float values that are on them, so
 * that they can be laid out anew for another target. */
#ifndef EHAP_PASSES_QUANT_RECORDED_H
#define EHAP_PASSES_QUANT_RECORDED_H

#include "passes/quant/calibrate.h"

/* Asymmetric grids say most of a range; a symmetric target takes the larger end. */
#define RECORD_KIND ((GridKind){0, 255, false, 0})

/* The key in a model's metadata; recorded.c says what stands there. */
#define RECORD_KEY "ehapc.ranges"

/* Where x is scale[c] * (q - zero), q in [qmin, qmax]; c along `axis` (< 0: n is 1). */
typedef struct KnownGrid {
    Value *v; /* of the stripped graph; NULL: from metadata */
    const char *name;
    const float *scale;
    int64_t n;
    int axis, qmin, qmax;
    float zero;
} KnownGrid;

typedef struct Known {
    KnownGrid *grid; /* of activations and constants that the graph has on grids */
    int n;
    struct Names *own, *other; /* by name: those of the graph's nodes, those of the metadata */
    /* What the metadata says; NULL and 0 without. */
    const char *target, *exclude;
    int bits;
} Known;

/* A clone of g without its FakeQuant nodes and without its QuantizeLinear, DequantizeLinear pairs:
 * constants are floats again, biases those of the metadata. *known gets every grid that was there,
 * and those which the metadata holds besides. Both are made in `a`. Pairs that are no pairs
 * (integers that something else reads or makes) stay as they are. -1 after an error: unreadable
 * metadata. */
int strip_grids(Graph **out, Known *known, const Graph *g, Arena *a, Diag *d);

/* What is known of a value, or NULL: the grid that it is on if that can be one of `kind`, else what
 * says more of its range. k may be NULL. */
const KnownGrid *known_grid(const Known *k, const char *name, GridKind kind);
Range known_extent(const KnownGrid *k);
/* Whether it is around zero, whatever the values are: no more than their size is known. */
bool known_symmetric(const KnownGrid *k);
/* The grid as one of `kind`, to the bit; false if it is none (or k is NULL). */
bool known_as(const KnownGrid *k, GridKind kind, Grid *out);

#endif
