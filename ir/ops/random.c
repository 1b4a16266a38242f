/* Random tensors drawn on the device. */
#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

int infer_rademacher(Node *n, Diag *d)
{
    size_t rank = 0;
    const int64_t *dim = node_ints(n, "shape", &rank);
    if (!dim || rank > MAX_RANK) return node_error(d, n, "'shape' is missing or too long");
    TRY(expect_vector(n, 0, 2, "key", d));
    return infer_out(n, 0, type_of(DT_F32, (int)rank, dim), d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* Nothing: no channel reaches a random tensor (rule_lanes_pin). */

/* ---- end of channels ---------------------------------------------------------------- */
