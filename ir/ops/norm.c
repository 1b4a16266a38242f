/* Normalisations: batch (inference and training), layer, softmax. */
#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

/* x [N, C, …] with `count` vectors of C elements from input 1 on. */
static int channel_vectors(const Node *n, const Type *x, int first, int count, Diag *d)
{
    if (x->rank < 2) return node_error(d, n, "input has rank %d, needs 2 or more", x->rank);
    for (int i = first; i < first + count; i++) TRY(expect_vector(n, i, x->dim[1], "parameter", d));
    return 0;
}

int infer_batchnorm(Node *n, Diag *d)
{
    Type x = input_type(n, 0);
    if (x.rank >= 0) TRY(channel_vectors(n, &x, 1, 4, d));
    return infer_out(n, 0, x, d);
}

static Type channel_vector(const Type *x)
{
    return x->rank < 0 ? type_unknown(x->dtype) : type_of(x->dtype, 1, &x->dim[1]);
}

int infer_batchnorm_train(Node *n, Diag *d)
{
    Type x = input_type(n, 0);
    if (x.rank >= 0) TRY(channel_vectors(n, &x, 1, 2, d));
    TRY(infer_out(n, 0, x, d));
    TRY(infer_out(n, 1, channel_vector(&x), d));
    return infer_out(n, 2, channel_vector(&x), d);
}

int infer_batchnorm_train_grad(Node *n, Diag *d)
{
    Type x = input_type(n, 1);
    if (x.rank >= 0) TRY(channel_vectors(n, &x, 2, 3, d));
    TRY(infer_out(n, 0, x, d));
    TRY(infer_out(n, 1, channel_vector(&x), d));
    return infer_out(n, 2, channel_vector(&x), d);
}

/* Scale and bias have (or broadcast to) the shape of the normalised axes; mean and deviation
 * have 1 there. */
int infer_layernorm(Node *n, Diag *d)
{
    Type x = input_type(n, 0), t;
    int axis = 0;
    TRY(infer_out(n, 0, x, d));
    if (x.rank < 0) return 0;
    TRY(axis_of(n, node_int(n, "axis", -1), x.rank, &axis, d));
    TRY(broadcast_inputs(n, 0, n->nin, &t, d));
    if (t.rank != x.rank)
        return node_error(d, n, "scale or bias has rank %d, input has %d", t.rank, x.rank);
    for (int i = axis; i < x.rank; i++) x.dim[i] = 1;
    x.dtype = DT_F32;
    TRY(infer_out(n, 1, x, d));
    return infer_out(n, 2, x, d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* ---- end of channels ---------------------------------------------------------------- */
