/* Models in half precision are compressed in float, where all derivatives and kernels are, and go
 * back: whole, or, where what is written computes in integers, at their inputs and outputs. */
#ifndef EHAP_PASSES_HALVES_H
#define EHAP_PASSES_HALVES_H

#include "ir/ir.h"

typedef struct Halves Halves; /* which values were FP16 or BF16, by name */

/* Makes float of every FP16 and BF16 value of g, inputs and outputs among them; nodes that are not
 * understood get theirs through Cast. *out is NULL, and g untouched, if it has none. It lives in
 * `a`.
 */
int halves_widen(Halves **out, Graph *g, Arena *a, Diag *d);
/* Gives inputs and outputs their types back, by Cast; with `inside`, all that has kept its name and
 * the constants that it reads, without. */
int halves_narrow(Graph *g, const Halves *h, bool inside, Diag *d);

#endif
