/* Storage in half precision, FP16 or BF16. A node is narrow (works on F16) if it moves a large
 * tensor, and wide (F32) if it normalizes or sums (softmax, the loss, reductions), if it is the
 * product that only a sum reads, or if it works element by element on what is wide already: sums
 * per channel, scales. Tensors below 1/64 of the largest stay F32: they cost nothing. Casts stand
 * where the two meet; kernels accumulate in F32 either way. */
#include <string.h>

#include "ir/op.h"
#include "passes/passes.h"

/* Ops that are wide whatever their size. */
static const bool always_wide[OP_COUNT] = {
    [OP_Softmax] = true,
    [OP_LogSoftmax] = true,
    [OP_ReduceSum] = true,
    [OP_ReduceMean] = true,
    [OP_ReduceMax] = true,
    [OP_ReduceMin] = true,
    [OP_ReduceProd] = true,
    [OP_ReduceSumSquare] = true,
    [OP_ReduceL1] = true,
    [OP_ReduceL2] = true,
    [OP_ReduceLogSum] = true,
    [OP_ReduceLogSumExp] = true,
    [OP_LayerNormalization] = true,
    [OP_RMSNormalization] = true,
    [OP_InstanceNormalization] = true,
    [OP_GroupNormalization] = true,
    [OP_MeanVarianceNormalization] = true,
    [OP_LpNormalization] = true,
    [OP_LRN] = true,
    [OP_Resize] = true,
    [OP_ResizeGrad] = true,
    [OP_QuantizeLinear] = true,
    [OP_DequantizeLinear] = true,
    [OP_Opaque] = true,
    [OP_BatchNormTrain] = true,
    [OP_BatchNormTrainGrad] = true,
};

/* Arithmetic that joins its only reader in being wide. */
static const bool follows_reader[OP_COUNT] = {
    [OP_Mul] = true,
    [OP_Add] = true,
    [OP_Sub] = true,
};

/* Operands that stay F32: bit k for operand k. A grid rounded to 8 bits would be another grid. */
static const uint8_t float_operands[OP_COUNT] = {
    [OP_FakeQuant] = 6,
    [OP_FakeQuantGrad] = 12,
};

/* Ops that are as wide as what they read there: operand number k - 1. So a parameter goes to its
 * grid as it is, not rounded before. */
static const uint8_t follows_operand[OP_COUNT] = {
    [OP_FakeQuant] = 1,
    [OP_FakeQuantGrad] = 2,
};

/* Ops whose result is float whatever they read. */
static const bool float_result[OP_COUNT] = {
    [OP_Rademacher] = true,
    [OP_SumProduct] = true,
};

typedef struct Lower {
    Graph *g;
    DType storage;
    int64_t large; /* elements from which a tensor is worth narrowing */
    bool *wide;    /* by node index */
    Value **as[2]; /* by value id: the version in F32, in `storage` */
    uint32_t nvalues;
} Lower;

static bool is_large(const Lower *l, const Value *v)
{
    return v && v->type.dtype == DT_F32 && !value_is_const(v) && type_count(&v->type) >= l->large;
}

static bool touches_large(const Lower *l, const Node *n)
{
    for (int i = 0; i < n->nin; i++)
        if (is_large(l, n->in[i])) return true;
    for (int o = 0; o < n->nout; o++)
        if (is_large(l, n->out[o])) return true;
    return false;
}

/* Whether all that varies among the operands is wide: made by a wide node, or an input. */
static bool reads_wide(const Lower *l, const Node *n, const int *index)
{
    for (int i = 0; i < n->nin; i++) {
        const Node *from = n->in[i] ? n->in[i]->def : NULL;
        if (from && !l->wide[index[n->in[i]->id]] && !float_result[from->op]) return false;
    }
    return true;
}

static void mark_wide(Lower *l, Arena *scratch)
{
    const Graph *g = l->g;
    Uses uses = graph_uses(g, scratch);
    int *index = NEW_ARRAY(scratch, int, l->nvalues);
    for (int k = 0; k < g->nnodes; k++)
        for (int o = 0; o < g->nodes[k]->nout; o++)
            if (g->nodes[k]->out[o]) index[g->nodes[k]->out[o]->id] = k;
    for (int k = g->nnodes - 1; k >= 0; k--) {
        const Node *n = g->nodes[k];
        l->wide[k] = always_wide[n->op] || !touches_large(l, n);
        if (!follows_reader[n->op]) continue;
        uint32_t y = n->out[0]->id;
        Node *reader = uses.n[y] == 1 ? uses.at[y][0] : NULL;
        if (reader && reader->out[0] && l->wide[index[reader->out[0]->id]]) l->wide[k] = true;
    }
    for (int k = 0; k < g->nnodes; k++) {
        const Node *n = g->nodes[k];
        if ((op_info[n->op].flags & OPF_ELTWISE) && reads_wide(l, n, index)) l->wide[k] = true;
        if (follows_operand[n->op]) {
            const Value *x = n->in[follows_operand[n->op] - 1];
            if (!x->def || l->wide[index[x->id]]) l->wide[k] = true;
        }
    }
}

/* A constant rounded to the storage type. */
static Value *narrow_const(const Lower *l, const Value *v)
{
    Type t = v->type;
    int64_t n = type_count(&t);
    uint16_t *data = NEW_ARRAY(l->g->arena, uint16_t, n);
    const float *x = v->data;
    t.dtype = l->storage;
    for (int64_t i = 0; i < n; i++)
        data[i] = t.dtype == DT_BF16 ? f32_to_bf16(x[i]) : f32_to_f16(x[i]);
    return value_const(l->g, v->name, t, data);
}

/* v as F32 (to == 0) or in storage precision (1); what is not one of the two stays. */
static Value *version(Lower *l, Value *v, int to)
{
    DType want = to ? l->storage : DT_F32;
    if (!v || (v->type.dtype != DT_F32 && v->type.dtype != l->storage) || v->type.dtype == want)
        return v;
    if (v->id >= l->nvalues) trap(TRAP_INTERNAL, "lower_precision: '%s' is new", v->name);
    Value **have = &l->as[to][v->id];
    if (!*have)
        *have = to && value_is_const(v) ? narrow_const(l, v)
                                        : build(l->g, OP_Cast, IN(v), ATTRS(attr_int("to", want)));
    return *have;
}

static int lower_node(Lower *l, Node *n, bool wide, Diag *d)
{
    int to = wide ? 0 : 1;
    for (int i = 0; i < n->nin; i++)
        n->in[i] = version(l, n->in[i], to && !(float_operands[n->op] >> i & 1));
    if (n->op == OP_Cast && (n->out[0]->type.dtype == DT_F32))
        node_set_attr(l->g, n, attr_int("to", to ? l->storage : DT_F32));
    TRY(node_infer(n, d));
    node_append(l->g, n);
    return 0;
}

static void lower_outputs(Lower *l)
{
    Graph *g = l->g;
    for (int o = 0; o < g->noutputs; o++) {
        Value *v = g->outputs[o], *w = version(l, v, 0);
        if (w == v) continue;
        const char *name = v->name;
        v->name = w->name;
        w->name = name;
        g->outputs[o] = w;
    }
}

int lower_precision(Graph *g, Arena *scratch, DType storage, Diag *d)
{
    enum { WORTH = 64, SMALL = 1024 }; /* elements */
    if (storage != DT_F16 && storage != DT_BF16)
        return diag_error(d, "storage in %s is not supported", dtype_name(storage));
    int nnodes = g->nnodes;
    Node **nodes = g->nodes;
    Lower l = {.g = g, .storage = storage, .large = 1, .nvalues = g->nvalues};
    l.wide = NEW_ARRAY(scratch, bool, nnodes);
    for (int to = 0; to < 2; to++) l.as[to] = NEW_ARRAY(scratch, Value *, g->nvalues);
    int64_t largest = 0;
    for (int k = 0; k < nnodes; k++)
        for (int o = 0; o < nodes[k]->nout; o++)
            if (is_large(&l, nodes[k]->out[o]) && type_count(&nodes[k]->out[o]->type) > largest)
                largest = type_count(&nodes[k]->out[o]->type);
    l.large = largest / WORTH > SMALL ? largest / WORTH : SMALL;
    mark_wide(&l, scratch);
    g->nodes = NULL;
    g->nnodes = g->cap_nodes = 0;
    for (int k = 0; k < nnodes; k++) {
        g->at = nodes[k];
        TRY(lower_node(&l, nodes[k], l.wide[k], d));
    }
    g->at = NULL;
    lower_outputs(&l);
    return 0;
}

static const struct {
    const char *name;
    DType storage;
} precisions[] = {{"fp32", DT_F32}, {"fp16", DT_F16}, {"bf16", DT_BF16}};

DType precision_named(const char *name)
{
    for (size_t k = 0; k < sizeof precisions / sizeof *precisions; k++)
        if (strcmp(precisions[k].name, name) == 0) return precisions[k].storage;
    return DT_NONE;
}

DType precision_for(const char *name, PrecisionUse use, const char *device)
{
    if (!name) return DT_F32;
    if (strcmp(name, "auto") != 0) return precision_named(name);
    if (use == PRECISION_SCORES) return runtime_is_parallel(device) ? DT_F16 : DT_F32;
    return runtime_multiplies_bf16(device) ? DT_BF16 : DT_F32;
}

const char *precision_name(DType storage)
{
    for (size_t k = 0; k < sizeof precisions / sizeof *precisions; k++)
        if (precisions[k].storage == storage) return precisions[k].name;
    return "";
}

int pass_lower_precision(Context *c, const char *opt)
{
    const char *name = pass_option(c, opt, "storage");
    DType storage = name ? precision_named(name) : DT_F16;
    if (storage == DT_NONE)
        return diag_error(c->diag,
                          "lower-precision: storage is '%s', it must be fp32, fp16 or bf16", name);
    Arena *scratch = arena_new();
    int status = lower_precision(c->graph, scratch, storage, c->diag);
    arena_free(scratch);
    return status;
}
