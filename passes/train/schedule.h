#ifndef EHAP_PASSES_TRAIN_SCHEDULE_H
#define EHAP_PASSES_TRAIN_SCHEDULE_H

#include "ir/ir.h"

/* Reorders nodes so that what serves a single graph output runs as soon as it can: in a program
 * whose outputs are many small sums, operands then die early instead of waiting for its end. */
void schedule_early(Graph *g, Arena *scratch);

#endif
