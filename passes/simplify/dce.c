/* Dead code elimination: one walk backwards keeps a node if somebody reads it (or it must be kept:
 * OPF_KEEP), and then its inputs are read. Outputs that an op may omit and nobody reads go too. */
#include "passes/simplify/simplify.h"

/* Trailing outputs that nobody reads: ONNX lets a node leave them out (Split's number means
 * something, and readers of our own ops count on all of theirs). */
static void drop_outputs(Node *n, const bool *read)
{
    if (n->op == OP_Opaque || n->op == OP_Split || *op_info[n->op].domain) return;
    while (n->nout > 1 && (!n->out[n->nout - 1] || !read[n->out[n->nout - 1]->id])) n->nout--;
}

static bool is_live(const Node *n, const bool *read)
{
    bool live = op_info[n->op].flags & OPF_KEEP;
    for (int o = 0; o < n->nout; o++) live |= n->out[o] && read[n->out[o]->id];
    return live;
}

int simplify_dce(Graph *g, Arena *scratch)
{
    bool *read = NEW_ARRAY(scratch, bool, g->nvalues);
    bool *live = NEW_ARRAY(scratch, bool, g->nnodes);
    int kept = 0;
    for (int o = 0; o < g->noutputs; o++) read[g->outputs[o]->id] = true;
    for (int i = g->nnodes - 1; i >= 0; i--) {
        Node *n = g->nodes[i];
        live[i] = is_live(n, read);
        if (!live[i]) continue;
        drop_outputs(n, read);
        for (int k = 0; k < n->nin; k++)
            if (n->in[k]) read[n->in[k]->id] = true;
    }
    for (int i = 0; i < g->nnodes; i++)
        if (live[i]) g->nodes[kept++] = g->nodes[i];
    g->nnodes = kept;
    return 0;
}

int pass_dce(Context *c, const char *opt)
{
    (void)opt;
    return simplify_pass(c, simplify_dce);
}
