/* Notes in the metadata of a graph with simulated integers what other targets will want to know:
 * the ranges of values that this one has no grids for, and the floats of biases that become
 * integers. `ehapc requantize` reads them (recorded.c says how they are written). */
#include <string.h>

#include "ir/names.h"
#include "ir/op.h"
#include "ir/text.h"
#include "passes/quant/fake_quant.h"
#include "passes/quant/placement.h"

/* Names end at the end of their line. */
static bool can_write(const char *name) { return *name && !strchr(name, '\n'); }

static void write_grid(Text *t, const char *name, Grid grid, int qmin, int qmax)
{
    if (can_write(name))
        text_printf(t, "grid %.9g %.9g %d %d %s\n", (double)grid.scale, (double)grid.zero, qmin,
                    qmax, name);
}

/* ---- ranges ------------------------------------------------------------------------- */

/* Values of g that some target would have on a grid of their own and whose grid in `has`, if any,
 * does not say their range. */
static int find_wanted(Value **out, Graph *g, const char *exclude, const Known *has, Arena *a)
{
    bool *wanted = NEW_ARRAY(a, bool, g->nvalues);
    int n = 0;
    for (const Target *t = targets; t->name; t++) {
        const Placement p = placement_new(g, t, exclude, a);
        for (int i = -g->ninputs; i < g->nnodes; i++) {
            Value *input = i < 0 ? g->inputs[i + g->ninputs] : NULL;
            int count = input ? 1 : g->nodes[i]->nout;
            for (int o = 0; o < count; o++) {
                Value *v = input ? input : g->nodes[i]->out[o];
                if (!v || wanted[v->id] || !p.grid[v->id] || !placement_is_source(&p, v)) continue;
                wanted[v->id] = true;
                const KnownGrid *k = names_get(has->own, v->name);
                if (!k || known_symmetric(k)) out[n++] = v;
            }
        }
    }
    return n;
}

static int measure(Text *t, Context *c, const Graph *g, int n, Value **v, Arena *a)
{
    int *own = NEW_ARRAY(a, int, n);
    Range *range = NEW_ARRAY(a, Range, n);
    for (int i = 0; i < n; i++) own[i] = i;
    const RangeGroups groups = {.n = n, .groups = n, .v = v, .group = own};
    TRY(calibrate(range, c, g, &groups, CALIBRATION_SAMPLES, RECORD_KIND));
    for (int i = 0; i < n; i++)
        write_grid(t, v[i]->name, grid_of_range(range[i], RECORD_KIND), RECORD_KIND.qmin,
                   RECORD_KIND.qmax);
    return 0;
}

/* What other targets want: those known are written, the others measured. */
static int write_ranges(Text *t, Context *c, const Known *known, Arena *a)
{
    Graph *g;
    Known has;
    int missing = 0;
    TRY(strip_grids(&g, &has, c->graph, a, c->diag));
    Value **v = NEW_ARRAY(a, Value *, g->nvalues);
    int n = find_wanted(v, g, c->opt.exclude, &has, a);
    for (int i = 0; i < n; i++) {
        const KnownGrid *k = known_grid(known, v[i]->name, RECORD_KIND);
        if (k && k->n == 1)
            write_grid(t, v[i]->name, (Grid){*k->scale, k->zero}, k->qmin, k->qmax);
        else
            v[missing++] = v[i];
    }
    return missing && c->data ? measure(t, c, g, missing, v, a) : 0;
}

/* ---- biases ------------------------------------------------------------------------- */

static bool is_simulated(const Value *v) { return v && v->def && v->def->op == OP_FakeQuant; }

static void write_biases(Text *t, const Graph *g, Arena *a)
{
    Names *seen = names_new(a);
    for (int i = 0; i < g->nnodes; i++) {
        const Node *n = g->nodes[i];
        const Value *b = n->nin > 2 && n->op != OP_FakeQuant ? n->in[2] : NULL;
        if (!b || !value_is_const(b) || b->type.dtype != DT_F32 || b->type.rank != 1) continue;
        if (!is_simulated(n->in[0]) || !is_simulated(n->in[1]) || !can_write(b->name)) continue;
        if (names_get(seen, b->name) || type_count(&b->type) == 0) continue;
        names_put(seen, b->name, t);
        text_printf(t, "bias ");
        const uint32_t *bits = b->data;
        for (int64_t k = 0; k < type_count(&b->type); k++) text_printf(t, "%08x", bits[k]);
        text_printf(t, " %s\n", b->name);
    }
}

/* ---- the whole ---------------------------------------------------------------------- */

static void set_record(Graph *g, const char *text)
{
    ModelInfo *info = &g->info;
    size_t n = info->nprops, at = 0;
    while (at < n && strcmp(info->props[at].key, RECORD_KEY) != 0) at++;
    KeyValue *props = NEW_ARRAY(g->arena, KeyValue, n + 1);
    if (n) memcpy(props, info->props, n * sizeof *props);
    props[at] = (KeyValue){RECORD_KEY, text};
    info->props = props;
    info->nprops = at == n ? n + 1 : n;
}

int record_ranges(Context *c, const Known *known)
{
    const Target *target = target_find(c->opt.target);
    Arena *a = arena_new();
    Text t = {.arena = c->graph->arena};
    int bits = c->opt.weight_bits ? c->opt.weight_bits : target->weight_bits;
    text_printf(&t, "1\ntarget %s %d\n", target->name, bits);
    if (c->opt.exclude && can_write(c->opt.exclude))
        text_printf(&t, "exclude %s\n", c->opt.exclude);
    int status = write_ranges(&t, c, known, a);
    if (status == 0 && target->int32_bias) write_biases(&t, c->graph, a);
    if (status == 0) set_record(c->graph, t.p);
    arena_free(a);
    return status;
}

int pass_record(Context *c, const char *opt)
{
    (void)opt;
    if (!target_find(c->opt.target))
        return diag_error(c->diag, "unknown target '%s'", c->opt.target);
    return record_ranges(c, NULL);
}
