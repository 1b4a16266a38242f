/* Taking channels out of a graph, and proving that nothing else changed. */
#ifndef EHAP_PASSES_PRUNE_REMOVE_CHANNELS_H
#define EHAP_PASSES_PRUNE_REMOVE_CHANNELS_H

#include "ir/ir.h"
#include "ir/lanes.h"
#include "ir/samples.h"

/* Removes from g, in place, the lanes whose class is flagged (one flag per class of `l`, which
 * was run on g): constants are sliced, attributes and shape inputs corrected, types inferred
 * anew. `l` must not be used on g afterwards. Errors: an axis would lose its last channel. */
int channels_remove(Graph *g, Lanes *l, const bool *removed, Diag *d);

/* A clone of g in arena `a` in which those lanes are zero after every node. */
Graph *channels_masked(const Graph *g, Lanes *l, const bool *removed, Arena *a);

/* Runs two graphs with the same inputs and outputs on a few samples (normal random numbers where
 * `s` is NULL or has none) and gives the largest difference of an output element, relative to the
 * largest element of that output. Symbolic dims are bound; opaque operators are cut out, their
 * inputs compared and their outputs drawn. A number against NaN is infinite. */
int graphs_differ(double *worst, const Graph *a, const Graph *b, const Samples *s, uint64_t seed,
                  Diag *d);

#endif
