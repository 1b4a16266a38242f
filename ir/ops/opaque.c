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

/* All that is touched stays: also the rule of every gradient op. */
void rule_lanes_pin(Lanes *l, const Node *n)
{
    for (int i = 0; i < n->nin; i++) lanes_pin_value(l, n->in[i], n);
    for (int o = 0; o < n->nout; o++) lanes_pin_value(l, n->out[o], n);
}

/* ---- end of channels ---------------------------------------------------------------- */
