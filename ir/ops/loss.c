/* The training losses of ONNX: NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss. */
#include <string.h>

#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

/* Scores [N, C, d…], labels [N, d…], weights [C]: the labels' shape, or a scalar. */
static int loss_type(const Node *n, Type *out, Diag *d)
{
    Type x = input_type(n, 0), labels = input_type(n, 1);
    const char *reduction = node_str(n, "reduction", "mean");
    int64_t both;
    bool none = strcmp(reduction, "none") == 0;
    if (!none && strcmp(reduction, "mean") != 0 && strcmp(reduction, "sum") != 0)
        return node_error(d, n, "'reduction' is '%s'", reduction);
    if (labels.dtype != DT_I32 && labels.dtype != DT_I64 && labels.dtype != DT_NONE)
        return node_error(d, n, "labels are %s, int32 or int64 is needed",
                          dtype_name(labels.dtype));
    *out = none ? labels : (Type){.rank = 0};
    out->dtype = x.dtype;
    if (x.rank < 0 || labels.rank < 0) return 0;
    if (x.rank < 2) return node_error(d, n, "input has rank %d, needs 2 or more", x.rank);
    TRY(expect_rank(n, 1, x.rank - 1, d));
    TRY(expect_vector(n, 2, x.dim[1], "weight", d));
    for (int i = 0; i < labels.rank; i++)
        if (!dim_agree(labels.dim[i], x.dim[i ? i + 1 : 0], &both))
            return node_error(d, n, "labels have %lld on axis %d, the input has %lld",
                              (long long)labels.dim[i], i, (long long)x.dim[i ? i + 1 : 0]);
    return 0;
}

/* The second output of SoftmaxCrossEntropyLoss are the logarithms of the probabilities. */
int infer_loss(Node *n, Diag *d)
{
    Type t;
    TRY(loss_type(n, &t, d));
    TRY(infer_out(n, 0, t, d));
    return infer_out(n, 1, input_type(n, 0), d);
}

/* ---- end of shapes ------------------------------------------------------------------ */
