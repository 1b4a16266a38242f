/* The pass that turns scores and a budget into lane classes to remove (select_groups.c decides),
 * names what is pinned by what, and notes which lanes of the original survive. */
#include <math.h>
#include <string.h>

#include "ir/text.h"
#include "passes/score/scores.h"

/* ---- options ------------------------------------------------------------------------ */

static int parse_budget(Context *c, const char *opt, Options *o)
{
    static const char *const keys[] = {"flops", "params", "channels"};
    for (int b = 0; b < 3; b++) {
        TRY(pass_number(&o->keep, c, opt, keys[b], 0, 1));
        if (pass_option(c, opt, keys[b])) o->budget = (Budget)b;
    }
    int64_t align = o->align;
    TRY(pass_int(&align, c, opt, "align", 0));
    o->align = (int)align;
    if (!(o->keep > 0 && o->keep <= 1))
        return diag_error(c->diag, "the fraction to keep is %g, it must be above 0 and at most 1",
                          o->keep);
    return 0;
}

static bool has_node(const Graph *g, const char *name)
{
    for (int i = 0; g && i < g->nnodes; i++)
        if (g->nodes[i]->name && strcmp(g->nodes[i]->name, name) == 0) return true;
    return false;
}

/* Flags the groups of every layer whose node the comma-separated list names. A node without a
 * weight has nothing to flag: --exclude means it for quantization. */
static int fix_nodes(Context *c, const Groups *gr, const char *list, bool *fixed)
{
    for (const char *const *name = name_list(c->arena, list); *name; name++) {
        bool found =
            has_node(c->graph, *name) || has_node(c->original, *name) || has_node(c->apart, *name);
        for (int k = 0; k < gr->nlayers; k++) {
            const Node *n = gr->layers[k].node;
            if (!n->name || strcmp(n->name, *name) != 0) continue;
            found = true;
            for (int i = gr->first[k]; i < gr->first[k + 1]; i++) fixed[gr->of[i]] = true;
        }
        if (!found) return diag_error(c->diag, "no node is called '%s'", *name);
    }
    return 0;
}

/* ---- the report --------------------------------------------------------------------- */

static int64_t channels_before(const ScoredLayer *layers, int n, const ScoredLayer *now)
{
    for (int k = 0; k < n; k++)
        if (strcmp(layers[k].weight->name, now->weight->name) == 0) return layers[k].channels;
    return now->channels;
}

static void report_layers(Context *c, const Groups *gr, const bool *removed)
{
    ScoredLayer *old;
    int nold = scored_layers(c->original ? c->original : c->graph, c->arena, &old);
    c->report.nlayers = gr->nlayers;
    c->report.layers = NEW_ARRAY(c->arena, LayerReport, gr->nlayers);
    for (int k = 0; k < gr->nlayers; k++) {
        const ScoredLayer *l = &gr->layers[k];
        LayerReport *r = &c->report.layers[k];
        *r = (LayerReport){.node = l->node->name ? l->node->name : l->weight->name,
                           .before = channels_before(old, nold, l),
                           .pinned_by = lanes_keep(gr->lanes, l->weight, l->axis, c->arena)};
        for (int i = gr->first[k]; i < gr->first[k + 1]; i++)
            r->after += gr->of[i] >= gr->nclasses || !removed[gr->of[i]];
    }
}

static int nothing_to_remove(Context *c)
{
    diag_error(c->diag, "nothing can be removed: no channel is both scored and free");
    if (c->report.nlayers == 0)
        diag_note(c->diag, "no node that is understood has a constant weight");
    for (int i = 0; i < c->graph->nnodes; i++) {
        const Node *n = c->graph->nodes[i];
        if (n->op == OP_Opaque)
            diag_note(c->diag, "node '%s' (%s) is only carried along, with all that is inside it",
                      n->name ? n->name : "", node_op_name(n));
    }
    for (int k = 0; k < c->report.nlayers; k++) {
        const LayerReport *r = &c->report.layers[k];
        if (r->pinned_by)
            diag_note(c->diag, "the %lld channels of '%s' are pinned by %s", (long long)r->before,
                      r->node, r->pinned_by);
        else
            diag_note(c->diag, "the %lld channels of '%s' stay: unscored, excluded or too few",
                      (long long)r->before, r->node);
    }
    return STATUS_NOTHING;
}

int allocate_layers(const Graph *g)
{
    Arena *a = arena_new();
    ScoredLayer *layers;
    int n = scored_layers(g, a, &layers);
    arena_free(a);
    return n;
}

static bool any_free(const Groups *gr)
{
    for (int k = 0; k < gr->first[gr->nlayers]; k++)
        if (group_is_free(gr, gr->of[k])) return true;
    return false;
}

bool allocate_free(const Graph *g, const Options *o)
{
    Arena *a = arena_new();
    bool is = any_free(groups_find(g, o, a));
    arena_free(a);
    return is;
}

int allocate_possible(Context *c)
{
    Groups *gr = groups_find(c->graph, &c->opt, c->arena);
    bool *none = NEW_ARRAY(c->arena, bool, gr->n + 1);
    if (any_free(gr)) return 0;
    report_layers(c, gr, none);
    return nothing_to_remove(c);
}

/* ---- survivors ---------------------------------------------------------------------- */

const Survivors *survivors_of(const Context *c, const char *name, int axis)
{
    for (int k = 0; k < c->nsurvivors; k++)
        if (strcmp(c->survivors[k].name, name) == 0 && (axis < 0 || c->survivors[k].axis == axis))
            return &c->survivors[k];
    return NULL;
}

/* Composes what survives of an axis of the current graph with what survived until now. */
static bool note_axis(Context *c, Lanes *l, const Value *v, int axis, Survivors *out)
{
    const Survivors *before = survivors_of(c, v->name, axis);
    int64_t size = v->type.dim[axis];
    if (!lanes_open(l, v, axis) || (!before && lanes_survivors(l, v, axis, 0, size) == size))
        return false;
    int64_t *index = NEW_ARRAY(c->arena, int64_t, size), n = 0;
    for (int64_t i = 0; i < size; i++)
        if (!lanes_removed(l, v, axis, i)) index[n++] = before ? before->index[i] : i;
    *out = (Survivors){.name = v->name, .axis = axis, .n = n, .index = index};
    return true;
}

static void note_survivors(Context *c, Lanes *l)
{
    const Graph *g = c->graph;
    bool *seen = NEW_ARRAY(c->arena, bool, g->nvalues);
    Survivors *list = NEW_ARRAY(c->arena, Survivors, (size_t)g->nvalues * 4);
    int n = 0;
    for (int i = 0; i < g->nnodes; i++)
        for (int k = 0; k < g->nodes[i]->nin + g->nodes[i]->nout; k++) {
            const Node *m = g->nodes[i];
            const Value *v = k < m->nin ? m->in[k] : m->out[k - m->nin];
            if (!v || seen[v->id]) continue;
            seen[v->id] = true;
            for (int axis = 0; axis < v->type.rank && axis < 4; axis++)
                n += note_axis(c, l, v, axis, &list[n]);
        }
    c->survivors = list;
    c->nsurvivors = n;
}

/* ---- the pass ----------------------------------------------------------------------- */

int pass_allocate(Context *c, const char *opt)
{
    static const char *const what[] = {"FLOPs", "parameters", "channels"};
    Options o = c->opt;
    double *score;
    Selection s;
    TRY(parse_budget(c, opt, &o));
    if (!c->scores) return diag_error(c->diag, "allocate: there are no scores, run sensitivity");
    Groups *gr = groups_find(c->graph, &o, c->arena);
    bool *fixed = NEW_ARRAY(c->arena, bool, gr->n + 1);
    TRY(fix_nodes(c, gr, o.keep_nodes, fixed));
    TRY(fix_nodes(c, gr, o.exclude, fixed));
    TRY(groups_scores(&score, gr, c->scores, c->arena, c->diag));
    select_groups(&s, c->graph, c->original ? c->original : c->graph, gr, score, fixed, &o,
                  c->arena);
    report_layers(c, gr, s.removed);
    if (!s.possible) return nothing_to_remove(c);
    if (!s.reachable)
        diag_warning(c->diag,
                     "%.1f %% of the %s cannot be reached: %.1f %% are left when every layer "
                     "keeps its least channels",
                     100 * o.keep, what[o.budget],
                     100 * (o.budget == BUDGET_FLOPS    ? s.flops
                            : o.budget == BUDGET_PARAMS ? s.params
                                                        : s.channels));
    c->lanes = gr->lanes;
    c->removed = s.removed;
    c->chosen_by = c->scores;
    lanes_set_removed(c->lanes, c->removed);
    note_survivors(c, c->lanes);
    pass_progress(c, 1, "%d groups go: %.1f %% of FLOPs, %.1f %% of parameters stay", s.nremoved,
                  100 * s.flops, 100 * s.params);
    return 0;
}
