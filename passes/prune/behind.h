/* What lies behind operators that cannot be run: see behind.c. */
#ifndef EHAP_PASSES_PRUNE_BEHIND_H
#define EHAP_PASSES_PRUNE_BEHIND_H

#include "passes/passes.h"
#include "passes/tail.h"

enum { BEHIND_SCORE, BEHIND_PRUNE };

/* Scores, and with BEHIND_PRUNE also removes, channels of the tail's own layers as c's options say.
 * *out, in c's arena, is the context it was done in: scores and report are of the tail. A remark
 * says what was done. STATUS_NOTHING, without a message, if none of its channels is free (*out is
 * valid then, too); -1 after an error. */
int behind_compress(Context **out, const Context *c, Tail *t, int what);
/* Says, as an error with notes, why the tail of *behind has nothing to remove. */
int behind_explain(Context *behind);

#endif
