/* Operators that we carry without understanding. */
#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

/* Outputs keep what the file declared. */
int infer_opaque(Node *n, Diag *d)
{
    (void)n, (void)d;
    return 0;
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* ---- end of channels ---------------------------------------------------------------- */
