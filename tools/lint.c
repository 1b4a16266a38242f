/* `ehapc lint`: the verdicts of passes/quant/lint.c, a line per node. */
#include "passes/quant/lint.h"
#include "ir/op.h"
#include "tools/session.h"

int lint_print(ehap *e, FILE *to)
{
    const Target *t = target_find(e->c.opt.target);
    LintNode *node;
    int n = lint(&node, e->c.graph, t, e->arena), integer = 0, spare = 0;
    for (int i = 0; i < n; i++) {
        const Node *m = node[i].node;
        fprintf(to, "'%s' (%s): %s%s%s%s\n", node_label(m), node_op_name(m),
                node[i].why ? "float: " : "integer", node[i].why ? node[i].why : "",
                node[i].why && node[i].spare ? " (no loss: " : "",
                node[i].why && node[i].spare
                    ? "no product is behind it, it is too small, or a logarithm or denominator is)"
                    : "");
        integer += !node[i].why;
        spare += node[i].why && node[i].spare;
    }
    fprintf(to, "%d of %d nodes that '%s' could run in integers do", integer, n, t->name);
    fprintf(to, spare ? "; %d more need not\n" : "\n", spare);
    return integer + spare == n ? EHAP_OK : EHAP_NOTHING;
}
