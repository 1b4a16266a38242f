/* What is in a model: per node op, output shape, parameters and FLOPs; the totals. */
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

void inspect_print(ehap *e, FILE *to)
{
    const Graph *g = e->c.graph;
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
        fprintf(to, "%-40s %-20s %-28s %12lld %14lld\n",
                n->name ? n->name
                : v     ? v->name
                        : "",
                node_op_name(n), v ? type_print(g, &v->type, t, sizeof t) : "",
                (long long)node_params(n), (long long)node_flops(n));
    }
    for (int i = 0; i < e->c.report.nlayers; i++)
        if (e->c.report.layers[i].pinned_by)
            fprintf(to, "pinned: %lld channels of '%s' by %s\n",
                    (long long)e->c.report.layers[i].before, e->c.report.layers[i].node,
                    e->c.report.layers[i].pinned_by);
}
