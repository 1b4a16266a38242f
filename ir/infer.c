/* Shape inference and costs of a whole graph, node by node through the rules of ops.def. */
#include <string.h>

#include "ir/op.h"
#include "ir/ops/common.h"

/* What kind an attribute of a given name has, in every op that has it. */
static const struct {
    const char *name;
    AttrKind kind;
} attr_kinds[] = {
    {"activation_alpha", ATTR_FLOATS},
    {"activation_beta", ATTR_FLOATS},
    {"activations", ATTR_STRINGS},
    {"alpha", ATTR_FLOAT},
    {"approximate", ATTR_STRING},
    {"auto_pad", ATTR_STRING},
    {"axis", ATTR_INT},
    {"batch_axis", ATTR_INT},
    {"batch_dims", ATTR_INT},
    {"beta", ATTR_FLOAT},
    {"ceil_mode", ATTR_INT},
    {"center_point_box", ATTR_INT},
    {"clip", ATTR_FLOAT},
    {"count_include_pad", ATTR_INT},
    {"dilations", ATTR_INTS},
    {"direction", ATTR_STRING},
    {"dtype", ATTR_INT},
    {"end", ATTR_INT},
    {"epsilon", ATTR_FLOAT},
    {"equation", ATTR_STRING},
    {"exclusive", ATTR_INT},
    {"group", ATTR_INT},
    {"hidden_size", ATTR_INT},
    {"input_forget", ATTR_INT},
    {"input_shape", ATTR_INTS},
    {"k", ATTR_INT},
    {"keepdims", ATTR_INT},
    {"kernel_shape", ATTR_INTS},
    {"largest", ATTR_INT},
    {"layout", ATTR_INT},
    {"linear_before_reset", ATTR_INT},
    {"num_outputs", ATTR_INT},
    {"output_padding", ATTR_INTS},
    {"output_shape", ATTR_INTS},
    {"pads", ATTR_INTS},
    {"perm", ATTR_INTS},
    {"reduction", ATTR_STRING},
    {"reverse", ATTR_INT},
    {"select_last_index", ATTR_INT},
    {"shape", ATTR_INTS},
    {"sorted", ATTR_INT},
    {"start", ATTR_INT},
    {"strides", ATTR_INTS},
    {"time_axis", ATTR_INT},
    {"to", ATTR_INT},
    {"transA", ATTR_INT},
    {"transB", ATTR_INT},
    {"upper", ATTR_INT},
    {"value", ATTR_TENSOR},
};

static int check_attrs(const Node *n, Diag *d)
{
    size_t known = sizeof attr_kinds / sizeof *attr_kinds;
    for (int a = 0; a < n->nattrs; a++)
        for (size_t k = 0; k < known; k++)
            if (strcmp(n->attrs[a].name, attr_kinds[k].name) == 0 &&
                n->attrs[a].kind != attr_kinds[k].kind)
                return node_error(d, n, "attribute '%s' is of the wrong kind", n->attrs[a].name);
    return 0;
}

static int check_arity(const Node *n, const OpInfo *op, Diag *d)
{
    if (n->nin < op->min_in || (op->max_in >= 0 && n->nin > op->max_in))
        return node_error(d, n, "has %d inputs, needs %d%s", n->nin,
                          n->nin < op->min_in ? op->min_in : op->max_in,
                          op->min_in == op->max_in ? ""
                          : n->nin < op->min_in    ? " or more"
                                                   : " at most");
    for (int i = 0; i < op->min_in; i++)
        if (!n->in[i]) return node_error(d, n, "input %d is missing", i);
    if (op->max_out >= 0 && n->nout > op->max_out)
        return node_error(d, n, "has %d outputs, at most %d exist", n->nout, op->max_out);
    return 0;
}

/* A symbol that stands for an unknown element stays the same when types are inferred again:
 * those made since `first` give way to the ones of last time. */
static void keep_symbols(Value *v, const int64_t *old, int64_t nold, int64_t first)
{
    if (!old || !v->elems || type_count(&v->type) != nold) return;
    int64_t *e = arena_memdup(v->graph->arena, v->elems, (size_t)nold * sizeof *e);
    for (int64_t i = 0; i < nold; i++)
        if (dim_is_sym(e[i]) && e[i] >= DIM_SYM_BASE + first && dim_is_sym(old[i])) e[i] = old[i];
    v->elems = e;
}

int node_infer(Node *n, Diag *d)
{
    const OpInfo *op = &op_info[n->op];
    TRY(check_arity(n, op, d));
    if (n->op == OP_Opaque || n->nout == 0) return op->infer(n, d);
    TRY(check_attrs(n, d));
    if (!n->out[0]) return op->infer(n, d);
    Value *v = n->out[0];
    const int64_t *old = v->elems, nold = type_count(&v->type), first = v->graph->nsymbols;
    v->elems = NULL;
    TRY(op->infer(n, d));
    keep_symbols(v, old, nold, first);
    return 0;
}

int graph_infer(Graph *g, Diag *d)
{
    for (int i = 0; i < g->nnodes; i++) TRY(node_infer(g->nodes[i], d));
    return 0;
}

int64_t node_flops(const Node *n)
{
    FlopsRule *rule = op_info[n->op].flops;
    return rule ? rule(n) : 0;
}

int64_t graph_flops(const Graph *g)
{
    int64_t sum = 0;
    for (int i = 0; i < g->nnodes; i++)
        if (__builtin_add_overflow(sum, node_flops(g->nodes[i]), &sum)) return INT64_MAX;
    return sum;
}

/* A float constant, or the integers that a DequantizeLinear turns back into one; its scale and
 * zero point, and those of QuantizeLinear, describe the grid and are no parameters. */
static bool holds_params(const Node *n, int k)
{
    bool grid = n->op == OP_QuantizeLinear || n->op == OP_DequantizeLinear;
    const Value *v = n->in[k];
    return v && v->data && (grid ? k == 0 : dtype_is_float(v->type.dtype));
}

int64_t graph_params(const Graph *g)
{
    Arena *scratch = arena_new();
    bool *seen = NEW_ARRAY(scratch, bool, g->nvalues);
    int64_t sum = 0;
    for (int i = 0; i < g->nnodes; i++)
        for (int k = 0; k < g->nodes[i]->nin; k++) {
            const Value *v = g->nodes[i]->in[k];
            if (!holds_params(g->nodes[i], k) || seen[v->id]) continue;
            seen[v->id] = true;
            sum += dims_product(&v->type, 0, v->type.rank);
        }
    arena_free(scratch);
    return sum;
}
