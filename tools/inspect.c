/* What is in a model: per node op, output shape, parameters and FLOPs; the totals; what
 * pins which channels, and how much of the work that is. */
#include <string.h>

#include "ir/op.h"
#include "tools/session.h"

static int64_t node_params(const Node *n)
{
    int64_t total = 0;
    for (int i = 0; i < n->nin; i++)
        if (n->in[i] && value_is_const(n->in[i]) && dtype_is_float(n->in[i]->type.dtype))
            total += type_count(&n->in[i]->type);
    return total;
}

/* Which channels stay, by what pins them, in the order of the network. */
static void print_pinned(ehap *e, FILE *to)
{
    const Report *r = &e->c.report;
    double whole = e->input.flops > 0 ? (double)e->input.flops : 1, all = 0;
    for (int i = 0; i < r->nlayers; i++) {
        const char *by = r->layers[i].pinned_by;
        int64_t flops = 0, layers = 0;
        bool listed = false;
        for (int k = 0; k < i; k++)
            listed |= by && r->layers[k].pinned_by && strcmp(by, r->layers[k].pinned_by) == 0;
        if (!by || listed) continue;
        for (int k = i; k < r->nlayers; k++) {
            const LayerReport *l = &r->layers[k];
            if (!l->pinned_by || strcmp(by, l->pinned_by) != 0) continue;
            fprintf(to, "pinned: %lld channels of '%s' by %s\n", (long long)l->before, l->node, by);
            flops += l->flops;
            layers++;
        }
        fprintf(to, "        %lld layers, %.1f %% of the FLOPs\n", (long long)layers,
                100 * (double)flops / whole);
        all += (double)flops;
    }
    fprintf(to, "%.1f %% of the FLOPs are in layers whose output channels are all pinned\n",
            100 * all / whole);
}

void inspect_print(ehap *e, FILE *to)
{
    const Graph *g = e->c.graph, *sized = graph_sized(g, &e->c.opt, e->arena, NULL);
    char t[160];
    fprintf(to, "%s: IR %lld, opset", e->in_path, (long long)g->info.ir_version);
    for (size_t k = 0; k < g->info.nopsets; k++)
        fprintf(to, " %s%s%lld", g->info.opsets[k].domain, *g->info.opsets[k].domain ? " " : "",
                (long long)g->info.opsets[k].version);
    fprintf(to, ", %d nodes, %lld parameters, %lld FLOPs per sample\n", g->nnodes,
            (long long)e->input.params, (long long)e->input.flops);
    for (int i = 0; i < g->ninputs; i++)
        fprintf(to, "input  %s: %s\n", g->inputs[i]->name,
                type_print(g, &g->inputs[i]->type, t, sizeof t));
    for (int o = 0; o < g->noutputs; o++)
        fprintf(to, "output %s: %s\n", g->outputs[o]->name,
                type_print(g, &g->outputs[o]->type, t, sizeof t));
    fprintf(to, "%-40s %-20s %-28s %12s %14s\n", "node", "op", "output", "params", "flops");
    for (int i = 0; i < g->nnodes; i++) {
        const Node *n = g->nodes[i];
        const Value *v = n->nout ? n->out[0] : NULL;
        fprintf(to, "%-40s %-20s %-28s %12lld %14lld\n", node_label(n), node_op_name(n),
                v ? type_print(g, &v->type, t, sizeof t) : "", (long long)node_params(n),
                (long long)node_flops(sized->nodes[i]));
    }
    print_pinned(e, to);
}
