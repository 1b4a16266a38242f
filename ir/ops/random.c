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

/* A shape as an attribute, or that of x; `dtype` says the type, else it is x's. */
int infer_random(Node *n, Diag *d)
{
    size_t rank = 0;
    const int64_t *dim = node_ints(n, "shape", &rank);
    Type t = input_type(n, 0);
    if (n->nin == 0) {
        if (!dim || rank > MAX_RANK) return node_error(d, n, "'shape' is missing or too long");
        t = type_of(DT_F32, (int)rank, dim);
    }
    t.dtype = (DType)node_int(n, "dtype", t.dtype);
    return infer_out(n, 0, t, d);
}

/* Logits [batch, classes] -> classes [batch, sample_size]. */
int infer_multinomial(Node *n, Diag *d)
{
    Type x = input_type(n, 0), t = {.rank = 2};
    TRY(expect_rank(n, 0, 2, d));
    t.dtype = (DType)node_int(n, "dtype", DT_I32);
    t.dim[0] = x.rank < 0 ? DIM_UNKNOWN : x.dim[0];
    t.dim[1] = node_int(n, "sample_size", 1);
    return infer_out(n, 0, t, d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* Nothing: no channel reaches a random tensor (rule_lanes_pin). */

/* ---- end of channels ---------------------------------------------------------------- */
