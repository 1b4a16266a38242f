/* What no network can be made of: weights that are NaN or infinite. Apart from reading, because it
 * touches every weight. */
#include <math.h>

#include "frontend/frontend.h"

static const char *half_fault(const uint16_t *x, int64_t n, uint16_t exponent)
{
    const char *fault = NULL;
    for (int64_t i = 0; i < n; i++) {
        if ((x[i] & exponent) != exponent) continue;
        if (x[i] & 0x7fff & ~exponent) return "NaN";
        fault = "infinity";
    }
    return fault;
}

/* "NaN", "infinity" or NULL. */
static const char *float_fault(const Value *v)
{
    int64_t n = type_count(&v->type);
    const char *fault = NULL;
    if (v->type.dtype == DT_F16) return half_fault(v->data, n, 0x7c00);
    if (v->type.dtype == DT_BF16) return half_fault(v->data, n, 0x7f80);
    for (int64_t i = 0; i < n && v->type.dtype == DT_F32; i++) {
        float x = ((const float *)v->data)[i];
        if (isnan(x)) return "NaN";
        if (isinf(x)) fault = "infinity";
    }
    for (int64_t i = 0; i < n && v->type.dtype == DT_F64; i++) {
        double x = ((const double *)v->data)[i];
        if (isnan(x)) return "NaN";
        if (isinf(x)) fault = "infinity";
    }
    return fault;
}

/* Ops whose constants are trained. Elsewhere an infinity may well be meant: the bound of a Clip,
 * the mask of an attention. */
static bool has_weights(Op op)
{
    return op == OP_Conv || op == OP_ConvTranspose || op == OP_Gemm || op == OP_MatMul ||
           op == OP_BatchNormalization || op == OP_LayerNormalization || op == OP_PRelu;
}

int onnx_check_weights(const Graph *g, Diag *d)
{
    Arena *scratch = arena_new();
    bool *seen = NEW_ARRAY(scratch, bool, g->nvalues);
    int status = 0;
    for (int k = 0; k < g->nnodes && status == 0; k++) {
        const Node *n = g->nodes[k];
        for (int i = 0; i < n->nin && n->op != OP_Opaque && status == 0; i++) {
            const Value *v = n->in[i];
            if (!v || !v->data || seen[v->id]) continue;
            const char *fault = float_fault(v);
            if (fault && (*fault == 'N' || has_weights(n->op)))
                status = node_error(d, n, "weight '%s' holds %s", v->name, fault);
            seen[v->id] = fault == NULL;
        }
    }
    arena_free(scratch);
    return status;
}
