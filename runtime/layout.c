/* Channels-last or row-major, per value: a union-find over values that element-wise and
 * axis-keeping ops connect; a set with an image of a convolution, pool or batch normalization in it
 * is channels-last. */
#include "runtime/layout.h"

#include "ir/op.h"

/* Operands of spatial ops that hold images, as bit sets; the other operands are weights, which stay
 * row-major. */
static const struct {
    uint8_t in, out;
} images[OP_COUNT] = {
    [OP_Conv] = {1, 1},
    [OP_ConvTranspose] = {1, 1},
    [OP_ConvWgrad] = {1 | 2, 0},
    [OP_MaxPool] = {1, 1},
    [OP_AveragePool] = {1, 1},
    [OP_GlobalAveragePool] = {1, 1},
    [OP_GlobalMaxPool] = {1, 1},
    [OP_MaxPoolGrad] = {1 | 2, 1},
    [OP_MaxPoolPick] = {1 | 2, 1},
    [OP_AveragePoolGrad] = {1, 1},
    [OP_DepthToSpace] = {1, 1},
    [OP_SpaceToDepth] = {1, 1},
    [OP_DeformConv] = {1, 1},
    [OP_GridSample] = {1, 1},
    [OP_GridSampleGrad] = {1, 1},
    [OP_RoiAlign] = {1, 1},
    [OP_RoiAlignGrad] = {1, 1},
    [OP_Resize] = {1, 1},
    [OP_ResizeGrad] = {1, 1},
    [OP_BatchNormalization] = {1, 1},
    [OP_InstanceNormalization] = {1, 1},
    [OP_GroupNormalization] = {1, 1},
    [OP_LRN] = {1, 1},
    [OP_BatchNormTrain] = {1, 1},
    [OP_BatchNormTrainGrad] = {1 | 2, 1},
};

/* Besides element-wise ops: axes stay where they are, kernels follow strides. */
static const bool keeps_axes[OP_COUNT] = {
    [OP_Concat] = true, [OP_Split] = true,  [OP_Slice] = true,     [OP_SliceGrad] = true,
    [OP_Pad] = true,    [OP_Expand] = true, [OP_FakeQuant] = true, [OP_FakeQuantGrad] = true,
};

static bool has_space(const Value *v) { return v->type.rank == 4 || v->type.rank == 5; }

static Need need(const Device *dev, const Node *n, int k, const Value *v, unsigned set)
{
    const bool spatial = images[n->op].in != 0;
    if (dev->kernels[n->op].flags & KF_ROW_MAJOR) return NEED_ROW_MAJOR;
    if (!dev->channels_last || !spatial || !v) return NEED_ANY;
    return k < 8 && (set >> k & 1) && has_space(v) ? NEED_LAST : NEED_ROW_MAJOR;
}

Need layout_need_in(const Device *dev, const Node *n, int i)
{
    return need(dev, n, i, n->in[i], images[n->op].in);
}

Need layout_need_out(const Device *dev, const Node *n, int o)
{
    return need(dev, n, o, n->out[o], images[n->op].out);
}

static uint32_t find(uint32_t *parent, uint32_t i)
{
    while (parent[i] != i) i = parent[i] = parent[parent[i]];
    return i;
}

/* Joins the values of a node that keeps axes in place: those with the rank of its first output. */
static void spread(const Node *n, uint32_t *parent)
{
    const Value *to = n->nout ? n->out[0] : NULL;
    if (!to || !has_space(to)) return;
    for (int i = 0; i < n->nin + n->nout; i++) {
        const Value *v = i < n->nin ? n->in[i] : n->out[i - n->nin];
        if (v && v->type.rank == to->type.rank && !v->data)
            parent[find(parent, v->id)] = find(parent, to->id);
    }
}

bool *layout_choose(const Device *dev, const Graph *g, Arena *a)
{
    bool *last = NEW_ARRAY(a, bool, g->nvalues), *seed = NEW_ARRAY(a, bool, g->nvalues);
    uint32_t *parent = NEW_ARRAY(a, uint32_t, g->nvalues);
    if (!dev->channels_last) return last;
    for (uint32_t v = 0; v < g->nvalues; v++) parent[v] = v;
    for (int k = 0; k < g->nnodes; k++) {
        const Node *n = g->nodes[k];
        if ((op_info[n->op].flags & OPF_ELTWISE) || keeps_axes[n->op]) spread(n, parent);
    }
    for (int k = 0; k < g->nnodes; k++) {
        const Node *n = g->nodes[k];
        for (int i = 0; i < n->nin; i++)
            if (n->in[i] && !n->in[i]->data && layout_need_in(dev, n, i) == NEED_LAST)
                seed[find(parent, n->in[i]->id)] = true;
        for (int o = 0; o < n->nout; o++)
            if (n->out[o] && layout_need_out(dev, n, o) == NEED_LAST)
                seed[find(parent, n->out[o]->id)] = true;
    }
    for (uint32_t v = 0; v < g->nvalues; v++) last[v] = seed[find(parent, v)];
    return last;
}
