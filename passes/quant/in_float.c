/* Which layers integers would spoil, found by measuring.
 *
 * Where a layer's own grids leave its output less than HEALTHY_SQNR above their noise, its bias is
 * corrected. It stays in float if that leaves less than LEAST_SQNR, or if, quantized alone, it
 * moves the network's outputs by more than --quant-drop. All of them go back to float at once. */
#include <string.h>

#include "ir/op.h"
#include "ir/text.h"
#include "passes/quant/fake_quant.h"
#include "passes/quant/sqnr.h"

/* Layers of trained networks have 25 to 45 dB of their own; one at 10 dB takes a tenth of the
 * signal. */
static const double LEAST_SQNR = 15, HEALTHY_SQNR = 25;

static void stays_in_float(Context *c, const char **list, QuantReport *q, const char *why)
{
    q->in_float = true;
    *list = name_list_add(c->arena, *list, q->node);
    diag_remark(c->diag, "'%s' stays in float: %s", q->node, why);
}

/* The exclude list with the names of the layers that cost too much. */
static const char *too_costly(Context *c, QuantReport *q, int n)
{
    const double least = c->opt.least_sqnr != 0 ? c->opt.least_sqnr : LEAST_SQNR;
    const char *list = c->opt.exclude;
    for (int k = 0; k < n; k++) {
        if (c->opt.quant_drop > 0 && q[k].cost > c->opt.quant_drop)
            stays_in_float(c, &list, &q[k],
                           arena_printf(c->arena,
                                        "quantized alone it moves the outputs by %.3g of their "
                                        "power",
                                        q[k].cost));
        else if (q[k].own < least)
            stays_in_float(c, &list, &q[k],
                           arena_printf(c->arena,
                                        "its grids leave %.1f dB of signal to noise (--least-sqnr "
                                        "%g)",
                                        q[k].own, least));
    }
    return list;
}

/* Places grids in c->graph and measures into reports of the products on them. */
static int place_and_measure(QuantReport **q, int *n, Context *c, const Target *t, int bits,
                             const Graph *plain)
{
    TRY(place_fake_quant(c, t, bits, c->opt.exclude, NULL));
    Node **node = NEW_ARRAY(c->arena, Node *, c->graph->nnodes),
         **twin = NEW_ARRAY(c->arena, Node *, c->graph->nnodes);
    *n = quantized_products(plain, c->graph, node, twin);
    *q = NEW_ARRAY(c->arena, QuantReport, *n);
    for (int k = 0; k < *n; k++) (*q)[k] = (QuantReport){.node = node_label(node[k]), .cost = -1};
    TRY(measure_sqnr(*q, c, plain, c->graph, true));
    bool noisy = false;
    for (int k = 0; k < *n; k++) noisy |= (*q)[k].own < HEALTHY_SQNR;
    if (!noisy) return 0;
    TRY(correct_biases(c, plain, c->graph, *q, HEALTHY_SQNR));
    return measure_sqnr(*q, c, plain, c->graph, true);
}

int quantize_measured(Context *c, const Target *t, int bits)
{
    Report *r = &c->report;
    QuantReport *again;
    int n;
    const Graph *plain = graph_clone(c->graph, c->arena, NULL);
    TRY(place_and_measure(&r->quantized, &r->nquantized, c, t, bits, plain));
    if (c->opt.quant_drop > 0) TRY(measure_costs(r->quantized, r->nquantized, c, plain, c->graph));
    const char *list = too_costly(c, r->quantized, r->nquantized);
    if (list == c->opt.exclude) return measure_sqnr(r->quantized, c, plain, c->graph, false);
    c->opt.exclude = list;
    c->graph = graph_clone(plain, c->arena, NULL);
    TRY(place_and_measure(&again, &n, c, t, bits, plain));
    TRY(measure_sqnr(again, c, plain, c->graph, false));
    for (int k = 0, at = 0; k < r->nquantized && at < n; k++)
        if (strcmp(r->quantized[k].node, again[at].node) == 0)
            r->quantized[k].sqnr = again[at++].sqnr;
    return 0;
}
