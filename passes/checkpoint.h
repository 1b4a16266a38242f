/* The state of a run in a folder, so that another process can go on from it. */
#ifndef EHAP_PASSES_CHECKPOINT_H
#define EHAP_PASSES_CHECKPOINT_H

#include "passes/passes.h"

/* Writes what later passes need of c (graph, original, scores, choice, survivors, report) to `dir`,
 * made if missing, as the state after `done` passes of the run that `key` tells from others. A
 * state that is there already stays valid until the new one is complete, and then goes. */
int checkpoint_save(const Context *c, const char *dir, uint64_t key, int done, Diag *d);
/* Restores it into c; *done: how many passes are in it, 0: the folder holds no state. Error: a
 * state of another run, or a damaged one. */
int checkpoint_load(Context *c, const char *dir, uint64_t key, int *done);

/* The state inside one long pass, as one block; its size tells whether it fits. NULL dir: none. */
int checkpoint_save_part(const Context *c, const void *bytes, size_t n);
/* Copies it and returns true if this very pass left one of n bytes. */
bool checkpoint_load_part(const Context *c, void *bytes, size_t n);

#endif
