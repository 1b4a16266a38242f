/* Which layers integers would spoil, found by measuring.
 *
 * Where a layer's own grids leave its output less than HEALTHY_SQNR above their noise, its bias is
 * corrected. It stays in float if that leaves less than LEAST_SQNR, or if, quantized alone, it
 * moves the network's outputs by more than --quant-drop. All of them go back to float at once.
 *
 * What is left may still add up, or be blown up by what follows, until an output is noise. Where
 * one keeps less than LEAST_OUTPUT, more goes back: the network is cut into stretches of products
 * with what stands between them, each is quantized alone on a few samples, and the costliest go to
 * float, as few of them as bring the outputs up, by bisection. */
#include <math.h>
#include <string.h>

#include "ir/op.h"
#include "ir/text.h"
#include "passes/quant/fake_quant.h"
#include "passes/quant/sqnr.h"

enum { STRETCHES = 32 };

/* Layers of trained networks have 25 to 45 dB of their own; one at 10 dB takes a tenth of the
 * signal. Outputs at 12 dB are a quarter off. */
static const double LEAST_SQNR = 15, HEALTHY_SQNR = 25, LEAST_OUTPUT = 12;

/* A network on the grids of a target, and how far it is from `plain`, in float. */
typedef struct Trial {
    Context *c; /* with the graph, and the exclude list that led to it */
    const Target *target;
    int bits;
    const Graph *plain;
    bool placed;
    QuantReport *q; /* of its n products */
    int n;
    double outputs; /* dB of the worst one */
} Trial;

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

/* Places grids in the network and measures what they cost each product. */
static int place(Trial *t, const char *exclude)
{
    Context *c = t->c;
    c->opt.exclude = exclude;
    if (t->placed) c->graph = graph_clone(t->plain, c->arena, NULL);
    t->placed = true;
    TRY(place_fake_quant(c, t->target, t->bits, exclude, NULL));
    Node **node = NEW_ARRAY(c->arena, Node *, c->graph->nnodes),
         **twin = NEW_ARRAY(c->arena, Node *, c->graph->nnodes);
    t->n = quantized_products(t->plain, c->graph, node, twin);
    t->q = NEW_ARRAY(c->arena, QuantReport, t->n);
    for (int k = 0; k < t->n; k++) t->q[k] = (QuantReport){.node = node_label(node[k]), .cost = -1};
    TRY(measure_own_sqnr(t->q, c, t->plain, c->graph));
    bool noisy = false;
    for (int k = 0; k < t->n; k++) noisy |= t->q[k].own < HEALTHY_SQNR;
    if (!noisy) return 0;
    TRY(correct_biases(c, t->plain, c->graph, t->q, HEALTHY_SQNR));
    return measure_own_sqnr(t->q, c, t->plain, c->graph);
}

static int measure_all(Trial *t)
{
    return measure_sqnr(t->q, &t->outputs, t->c, t->plain, t->c->graph);
}

/* ---- outputs ------------------------------------------------------------------------ */

/* A quantized graph cut up. What stands between two products belongs to the second. */
typedef struct Stretches {
    const Graph *g;
    int n;
    int *of, *before; /* by place in the node list: the stretch, that of the product before */
    int order[STRETCHES];
    double cost[STRETCHES];
} Stretches;

static Stretches cut_up(const Graph *g, int products, Arena *a)
{
    Stretches s = {.g = g, .n = products < STRETCHES ? products : STRETCHES};
    s.of = NEW_ARRAY(a, int, g->nnodes);
    s.before = NEW_ARRAY(a, int, g->nnodes);
    for (int i = 0, seen = 0; i < g->nnodes; i++) {
        const int here = seen < products ? seen : products - 1;
        s.of[i] = here * s.n / products;
        s.before[i] = (seen > 0 ? seen - 1 : 0) * s.n / products;
        seen += is_quantized_product(g->nodes[i]);
    }
    return s;
}

/* A stretch alone in integers has its grids and those on what it delivers to the next. */
static int measure_stretches(Stretches *s, Trial *t, Arena *a)
{
    const int64_t limit = MEASURED_SAMPLES / s->n;
    for (int k = 0; k < s->n; k++) {
        bool *grids = NEW_ARRAY(a, bool, s->g->nnodes);
        for (int i = 0; i < s->g->nnodes; i++) {
            const Node *n = s->g->nodes[i];
            grids[i] = n->op == OP_FakeQuant &&
                       (s->of[i] == k || (s->before[i] == k && !value_is_const(n->in[0])));
        }
        TRY(grids_cost(&s->cost[k], t->c, t->plain, s->g, grids, limit));
        pass_progress(t->c, (double)(k + 1) / s->n, "cost of stretch %d of %d", k + 1, s->n);
    }
    return 0;
}

/* The costliest first; of equal ones the first. */
static void sort_stretches(Stretches *s)
{
    for (int k = 0; k < s->n; k++) {
        int at = k;
        for (; at > 0 && s->cost[s->order[at - 1]] < s->cost[k]; at--)
            s->order[at] = s->order[at - 1];
        s->order[at] = k;
    }
}

static bool reads_grid(const Node *n)
{
    for (int k = 0; k < n->nin; k++)
        if (n->in[k] && n->in[k]->def && n->in[k]->def->op == OP_FakeQuant) return true;
    return false;
}

/* `list` with the nodes of the first `count` stretches that are in integers. */
static const char *with_stretches(const Stretches *s, int count, const char *list, Arena *a)
{
    bool in_float[STRETCHES] = {false};
    for (int k = 0; k < count; k++) in_float[s->order[k]] = true;
    for (int i = 0; i < s->g->nnodes; i++) {
        const Node *n = s->g->nodes[i];
        if (in_float[s->of[i]] && n->op != OP_FakeQuant && reads_grid(n))
            list = name_list_add(a, list, node_label(n));
    }
    return list;
}

/* Takes as few stretches to float as bring the outputs to `least` dB, if need be all. */
static int bring_up(Trial *t, double least)
{
    Context *c = t->c;
    const char *list = c->opt.exclude;
    Stretches s = cut_up(c->graph, t->n, c->arena);
    TRY(measure_stretches(&s, t, c->arena));
    sort_stretches(&s);
    int few = 0, enough = s.n, tried = 0;
    while (enough - few > 1 || tried != enough) {
        tried = enough - few > 1 ? (few + enough) / 2 : enough;
        TRY(place(t, with_stretches(&s, tried, list, c->arena)));
        TRY(measure_all(t));
        *(t->outputs >= least ? &enough : &few) = tried;
    }
    return 0;
}

/* ---- the whole ---------------------------------------------------------------------- */

/* Takes over what became of the products, all of which `r` lists. */
static void note_sqnr(Report *r, const Trial *t)
{
    for (int k = 0, at = 0; k < r->nquantized; k++) {
        const bool there = at < t->n && strcmp(r->quantized[k].node, t->q[at].node) == 0;
        if (there) r->quantized[k].sqnr = t->q[at++].sqnr;
        r->quantized[k].in_float = !there;
    }
}

static void remark_outputs(const Trial *t, double before, int products, double least)
{
    diag_remark(t->c->diag,
                "an output would keep %.1f dB of signal to noise (--least-output %g): %d of %d "
                "layers stay in float, and it keeps %.1f",
                before, least, products - t->n, products, fmin(t->outputs, 99));
}

int quantize_measured(Context *c, const Target *target, int bits)
{
    Report *r = &c->report;
    const double least = c->opt.least_output != 0 ? c->opt.least_output : LEAST_OUTPUT;
    Trial t = {.c = c, .target = target, .bits = bits};
    t.plain = graph_clone(c->graph, c->arena, NULL);
    TRY(place(&t, c->opt.exclude));
    r->quantized = t.q;
    r->nquantized = t.n;
    if (c->opt.quant_drop > 0) TRY(measure_costs(t.q, t.n, c, t.plain, c->graph));
    const char *list = too_costly(c, t.q, t.n);
    if (list != c->opt.exclude) TRY(place(&t, list));
    TRY(measure_all(&t));
    const double outputs = t.outputs;
    if (outputs < least) {
        TRY(bring_up(&t, least));
        remark_outputs(&t, outputs, r->nquantized, least);
    }
    note_sqnr(r, &t);
    return 0;
}
