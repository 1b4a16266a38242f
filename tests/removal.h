/* What tests take out of a network. */
#ifndef EHAP_TESTS_REMOVAL_H
#define EHAP_TESTS_REMOVAL_H

#include "ir/lanes.h"
#include "runtime/runtime.h"

/* Flags at random, by seed, about a third of those classes of `l` that may go; *chosen counts. In
 * arena a. */
static inline bool *random_removal(Lanes *l, Arena *a, uint64_t seed, int *chosen)
{
    int n = lanes_count_classes(l);
    bool *removed = NEW_ARRAY(a, bool, n), pinned;
    Rng r = rng_new(seed, 1);
    *chosen = 0;
    for (int c = 0; c < n; c++) {
        lanes_pinned_by(l, c, &pinned);
        removed[c] = !pinned && rng_below(&r, 3) == 0;
        *chosen += removed[c];
    }
    return removed;
}

#endif
