/* A budget becomes a set of channels.
 *
 * Lane classes that touch the same axes the same number of times cost the same: they form a
 * family (the inner channels of a block, say). Costs are exact: removing k classes of a family
 * shrinks the dimensions of the values concerned in a clone of the graph, and the FLOPs rules
 * of the nodes around are asked again; so what a channel saves follows from what has already
 * gone from its neighbours.
 *
 * Families give up classes in ascending score, a step (the alignment) at a time. What a family
 * loses with some of its classes gone is
 *
 *     sum of their scores * n / kept,
 *
 * where n / kept (the family's size over what it keeps) stands for what second order does not
 * see: the channels of one family make up for each other until few are left. Each time the step
 * goes that loses least per saved cost; what the final step has saved too much is given back
 * where it helps most. Steps are coarse and families few, so this is far from the best at times:
 * then steps are forced, out of or back into each family in turn, the others settle to the
 * budget again, and what loses less in total is kept, until nothing does. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "passes/score/scores.h"

/* ---- families ----------------------------------------------------------------------- */

typedef struct Use {
    Value *value; /* of the clone */
    int axis;
    int64_t lanes; /* of one class */
    struct Use *next;
} Use;

typedef struct Family {
    Use *uses;
    int n, removed;
    int whole;       /* classes it had in the original, where earlier rounds took some */
    int *classes;    /* by ascending score */
    double *lost;    /* [n + 1]: scores of the first k classes, summed */
    int step, floor; /* kept in multiples of step, at least floor */
    Node **nodes;    /* whose cost depends on it */
    int nnodes;
} Family;

typedef struct Plan {
    Arena *arena;
    Graph *g; /* a clone with shrinking types */
    Budget budget;
    int *scored_axis; /* by value id: of a scored weight, its output channels; else -1 */
    ScoredLayer *old; /* of the original */
    int nold;
    Family *families;
    int n;
    double have, target; /* of the budgeted quantity */
} Plan;

static void add_use(Arena *a, Use **head, Use **tail, Value *v, int axis)
{
    if (*tail && (*tail)->value == v && (*tail)->axis == axis) {
        (*tail)->lanes++;
        return;
    }
    Use *u = NEW(a, Use);
    *u = (Use){.value = v, .axis = axis, .lanes = 1};
    if (*tail)
        (*tail)->next = u;
    else
        *head = u;
    *tail = u;
}

/* The axes that each class touches. Values are visited once, in order of nodes. */
static Use **class_uses(Plan *p, const Graph *g, const Groups *gr, Value *const *map)
{
    Arena *a = p->arena;
    Use **head = NEW_ARRAY(a, Use *, gr->nclasses), **tail = NEW_ARRAY(a, Use *, gr->nclasses);
    bool *seen = NEW_ARRAY(a, bool, g->nvalues);
    for (int i = 0; i < g->nnodes; i++) {
        const Node *n = g->nodes[i];
        for (int k = 0; k < n->nin + n->nout; k++) {
            Value *v = k < n->nin ? n->in[k] : n->out[k - n->nin];
            if (!v || seen[v->id]) continue;
            seen[v->id] = true;
            for (int axis = 0; axis < v->type.rank; axis++) {
                if (!lanes_open(gr->lanes, v, axis)) continue;
                for (int64_t j = 0; j < v->type.dim[axis]; j++) {
                    int class_ = lanes_class(gr->lanes, v, axis, j);
                    add_use(a, &head[class_], &tail[class_], map[v->id], axis);
                }
            }
        }
    }
    return head;
}

static bool same_uses(const Use *x, const Use *y)
{
    for (; x && y; x = x->next, y = y->next)
        if (x->value != y->value || x->axis != y->axis || x->lanes != y->lanes) return false;
    return x == y;
}

/* The family with these uses, made if there is none yet; its number. */
static int family_of(Plan *p, Use *uses)
{
    for (int k = 0; k < p->n; k++)
        if (same_uses(p->families[k].uses, uses)) return k;
    p->families[p->n] = (Family){.uses = uses};
    return p->n++;
}

static bool touches(const Family *f, const Node *n)
{
    for (const Use *u = f->uses; u; u = u->next) {
        for (int k = 0; k < n->nin; k++)
            if (n->in[k] == u->value) return true;
        for (int k = 0; k < n->nout; k++)
            if (n->out[k] == u->value) return true;
    }
    return false;
}

/* Multiples of `align`, and at least 5 % kept. What nobody asked for is halved in a family of less
 * than four steps. */
static void set_steps(Family *f, int align, bool asked)
{
    f->step = align;
    while (!asked && f->step > 1 && f->whole < 4 * f->step) f->step /= 2;
    int least = (f->whole + 19) / 20;
    f->floor = (least + f->step - 1) / f->step * f->step;
}

static int by_score(const void *a, const void *b, void *score)
{
    const double *s = score;
    int x = *(const int *)a, y = *(const int *)b;
    if (s[x] != s[y]) return s[x] < s[y] ? -1 : 1;
    return x - y;
}

/* Sorts the free, scored classes into families. */
static void find_families(Plan *p, const Graph *g, const Groups *gr, const double *score,
                          const bool *fixed, Value *const *map)
{
    Use **uses = class_uses(p, g, gr, map);
    int *family = NEW_ARRAY(p->arena, int, gr->nclasses);
    p->families = NEW_ARRAY(p->arena, Family, gr->nclasses);
    for (int c = 0; c < gr->nclasses; c++) {
        family[c] = -1;
        if (isnan(score[c]) || (fixed && fixed[c]) || !group_is_free(gr, c)) continue;
        family[c] = family_of(p, uses[c]);
        p->families[family[c]].n++;
    }
    for (int k = 0; k < p->n; k++) {
        p->families[k].classes = NEW_ARRAY(p->arena, int, p->families[k].n);
        p->families[k].n = 0;
    }
    for (int c = 0; c < gr->nclasses; c++)
        if (family[c] >= 0) {
            Family *f = &p->families[family[c]];
            f->classes[f->n++] = c;
        }
}

static const ScoredLayer *layer_of(const ScoredLayer *layers, int n, const char *weight)
{
    for (int k = 0; k < n; k++)
        if (strcmp(layers[k].weight->name, weight) == 0) return &layers[k];
    return NULL;
}

/* Adds what the family's first scored axis has lost since the original. */
static int family_size(const Plan *p, const Family *f)
{
    for (const Use *u = f->uses; u; u = u->next) {
        if (p->scored_axis[u->value->id] != u->axis) continue;
        const ScoredLayer *l = layer_of(p->old, p->nold, u->value->name);
        int64_t lost = l ? l->channels - u->value->type.dim[u->axis] : 0;
        return f->n + (int)(lost / u->lanes);
    }
    return f->n;
}

/* Whether a class is a block of a weight's channels, as a whole attention head is. */
static bool is_block(const Plan *p, const Family *f)
{
    for (const Use *u = f->uses; u; u = u->next)
        if (p->scored_axis[u->value->id] == u->axis) return u->lanes > 1;
    return false;
}

static void finish_family(Plan *p, Family *f, const double *score, const Options *o)
{
    bool heads = o->attention && strcmp(o->attention, "heads") == 0;
    int align = heads && is_block(p, f) ? 1 : o->align > 0 ? o->align : 8;
    f->whole = family_size(p, f);
    qsort_r(f->classes, (size_t)f->n, sizeof *f->classes, by_score, (void *)(uintptr_t)score);
    set_steps(f, align, o->align > 0);
    f->lost = NEW_ARRAY(p->arena, double, f->n + 1);
    for (int i = 0; i < f->n; i++) f->lost[i + 1] = f->lost[i] + score[f->classes[i]];
    f->nodes = NEW_ARRAY(p->arena, Node *, p->g->nnodes);
    for (int i = 0; i < p->g->nnodes; i++)
        if (touches(f, p->g->nodes[i])) f->nodes[f->nnodes++] = p->g->nodes[i];
}

/* ---- costs -------------------------------------------------------------------------- */

static double value_params(const Value *v)
{
    return v->data && dtype_is_float(v->type.dtype) ? (double)type_count(&v->type) : 0;
}

/* The budgeted quantity as far as the family changes it. */
static double family_cost(const Plan *p, const Family *f)
{
    double sum = 0;
    if (p->budget == BUDGET_FLOPS) {
        for (int i = 0; i < f->nnodes; i++) sum += (double)node_flops(f->nodes[i]);
        return sum;
    }
    const Value *last = NULL;
    for (const Use *u = f->uses; u; last = u->value, u = u->next) {
        if (p->budget == BUDGET_PARAMS && u->value != last) sum += value_params(u->value);
        if (p->budget == BUDGET_CHANNELS && p->scored_axis[u->value->id] == u->axis)
            sum += (double)u->value->type.dim[u->axis];
    }
    return sum;
}

/* Takes k more classes out of the family (k < 0: puts them back). */
static void shrink(Family *f, int k)
{
    f->removed += k;
    for (Use *u = f->uses; u; u = u->next) u->value->type.dim[u->axis] -= k * u->lanes;
}

/* What removing k classes saves; with k < 0, minus what putting them back costs. */
static double saving(const Plan *p, Family *f, int k)
{
    double before = family_cost(p, f);
    shrink(f, k);
    double after = family_cost(p, f);
    shrink(f, -k);
    return before - after;
}

static double total_channels(const Graph *g, Arena *a)
{
    ScoredLayer *layers;
    double sum = 0;
    int n = scored_layers(g, a, &layers);
    for (int k = 0; k < n; k++) sum += (double)layers[k].weight->type.dim[layers[k].axis];
    return sum;
}

static double total_of(const Graph *g, Budget b, Arena *a)
{
    if (b == BUDGET_FLOPS) return (double)graph_flops(g);
    return b == BUDGET_PARAMS ? (double)graph_params(g) : total_channels(g, a);
}

/* ---- choice ------------------------------------------------------------------------- */

/* Classes in the family's next steps out; 0 when they pass its floor. */
static int steps_out(const Family *f, int steps)
{
    int kept = f->n - f->removed, next = ((kept - 1) / f->step - steps + 1) * f->step;
    return next >= f->floor && next > 0 ? kept - next : 0;
}

/* Classes that as many steps put back; 0 when none is out. */
static int steps_back(const Family *f, int steps)
{
    int kept = f->n - f->removed, next = (kept / f->step + steps) * f->step;
    return (next < f->n ? next : f->n) - kept;
}

/* What it loses with so many classes gone; what k more add. */
static double loss_of(const Family *f, int removed)
{
    return f->lost[removed] * f->n / (f->n - removed);
}

static double added_loss(const Family *f, int k)
{
    return loss_of(f, f->removed + k) - loss_of(f, f->removed);
}

static double total_loss(const Plan *p)
{
    double sum = 0;
    for (int k = 0; k < p->n; k++) sum += loss_of(&p->families[k], p->families[k].removed);
    return sum;
}

static Family *cheapest_step(Plan *p, const Family *barred)
{
    Family *best = NULL;
    double least = 0;
    for (int k = 0; k < p->n; k++) {
        Family *f = &p->families[k];
        int step = f == barred ? 0 : steps_out(f, 1);
        double saved = step ? saving(p, f, step) : 0;
        if (saved <= 0) continue;
        double rate = added_loss(f, step) / saved;
        if (!best || rate < least) best = f, least = rate;
    }
    return best;
}

/* The family whose latest step fits into `room` again and is missed most. */
static Family *dearest_return(Plan *p, double room, const Family *barred)
{
    Family *best = NULL;
    double most = 0;
    for (int k = 0; k < p->n; k++) {
        Family *f = &p->families[k];
        int step = f == barred ? 0 : steps_back(f, 1);
        if (!step || -saving(p, f, -step) > room) continue;
        double loss = -added_loss(f, -step);
        if (!best || loss > most) best = f, most = loss;
    }
    return best;
}

static void move(Plan *p, Family *f, int k)
{
    p->have -= saving(p, f, k);
    shrink(f, k);
}

/* Steps out until the budget is met, then back where they fit; the barred family stays. */
static bool settle(Plan *p, const Family *barred)
{
    Family *f;
    while (p->have > p->target) {
        if (!(f = cheapest_step(p, barred))) return false;
        move(p, f, steps_out(f, 1));
    }
    while ((f = dearest_return(p, p->target - p->have, barred))) move(p, f, -steps_back(f, 1));
    return true;
}

/* Forces the family k classes down (up if negative); undone unless that lowers the total loss. */
static bool try_move(Plan *p, Family *f, int k)
{
    double have = p->have, loss = total_loss(p);
    int *was = NEW_ARRAY(p->arena, int, p->n);
    for (int i = 0; i < p->n; i++) was[i] = p->families[i].removed;
    move(p, f, k);
    if (settle(p, f) && total_loss(p) < loss - 1e-9 * fabs(loss)) return true;
    for (int i = 0; i < p->n; i++) shrink(&p->families[i], was[i] - p->families[i].removed);
    p->have = have;
    return false;
}

/* Tries to move the family by 1, 2, 4… steps, out of it and back into it. */
static bool improve(Plan *p, Family *f)
{
    bool better = false;
    for (int steps = 1; steps * f->step < f->n; steps *= 2) {
        int out = steps_out(f, steps);
        better |= out && try_move(p, f, out);
        int back = steps_back(f, steps);
        better |= back && try_move(p, f, -back);
    }
    return better;
}

static bool meet_budget(Plan *p)
{
    if (!settle(p, NULL)) return false;
    for (bool better = true; better;) {
        better = false;
        for (int k = 0; k < p->n; k++) better |= improve(p, &p->families[k]);
    }
    return true;
}

static double fraction(const Graph *g, const Graph *original, Budget b, Arena *a)
{
    double whole = total_of(original, b, a);
    return whole > 0 ? total_of(g, b, a) / whole : 1;
}

void select_groups(Selection *out, const Graph *g, const Graph *original, const Groups *gr,
                   const double *score, const bool *fixed, const Options *o, Arena *a)
{
    Value **map;
    Plan p = {.arena = a, .budget = o->budget};
    p.g = graph_sized(g, o, a, &map);
    p.scored_axis = NEW_ARRAY(a, int, p.g->nvalues);
    memset(p.scored_axis, 0xff, p.g->nvalues * sizeof *p.scored_axis);
    for (int k = 0; k < gr->nlayers; k++)
        p.scored_axis[map[gr->layers[k].weight->id]->id] = gr->layers[k].axis;
    original = graph_sized(original, o, a, NULL);
    p.nold = scored_layers(original, a, &p.old);
    find_families(&p, g, gr, score, fixed, map);
    bool possible = false;
    for (int k = 0; k < p.n; k++) {
        finish_family(&p, &p.families[k], score, o);
        possible |= steps_out(&p.families[k], 1) > 0;
    }
    p.have = total_of(p.g, o->budget, a);
    p.target = o->keep * total_of(original, o->budget, a);
    *out = (Selection){.possible = possible, .removed = NEW_ARRAY(a, bool, gr->nclasses + 1)};
    out->reachable = meet_budget(&p);
    for (int k = 0; k < p.n; k++)
        for (int i = 0; i < p.families[k].removed; i++, out->nremoved++)
            out->removed[p.families[k].classes[i]] = true;
    out->flops = fraction(p.g, original, BUDGET_FLOPS, a);
    out->params = fraction(p.g, original, BUDGET_PARAMS, a);
    out->channels = fraction(p.g, original, BUDGET_CHANNELS, a);
}
