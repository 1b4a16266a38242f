/* Channels as lanes: union-find over (value, axis, index).
 *
 * The lanes of an axis are numbered consecutively from a base that is given out when the axis is
 * opened. The root of a set is its smallest lane, so classes come out in order of first lane;
 * paths are halved on the way up.
 *
 * Rules need not be complete to be safe: after each rule, every open axis of the node's values
 * that the rule did not touch is pinned by the node, and an untouched axis of a constant is
 * frozen, so that it is pinned if another reader opens it later. An axis that is offered has lanes,
 * too, and what is said of it is noted; it counts as closed until a rule opens it or ties it to one
 * that is open. Offers are handed on axis by axis, so those that belong together open together. */
#include "ir/lanes.h"

#include <string.h>

enum {
    MAX_AXIS = 1 << 24, /* longer axes stay closed: flattened images, not channels */
    MAX_LANES = 1 << 28,
};

/* Which of the axes that a node splits an axis into goes on with its channels. */
typedef struct Split {
    const Value *of; /* the axis that was split; NULL: none */
    int axis, tried, candidates;
} Split;

struct Lanes {
    const Graph *g;
    Arena *arena;
    uint32_t nvalues;
    int32_t *base;       /* by value id * MAX_RANK + axis: first lane, or -1 */
    int32_t *size;       /* likewise: lanes of an open axis (types change while removing) */
    int32_t *touched;    /* likewise: the latest node (index + 1) whose rule used the axis */
    const Node **frozen; /* likewise: pinned by this node as soon as it is opened */
    bool *made;          /* by value id: the producer's rule has run */
    int32_t *parent;     /* by lane */
    bool *pinned;        /* by lane, valid at roots */
    bool *offered;       /* likewise: opened by nobody yet */
    const Node **by;     /* likewise; NULL: a graph input or output */
    int32_t nlanes, cap;
    int32_t now;       /* index + 1 of the node whose rule is running */
    int32_t *class_id; /* by lane, valid at roots; NULL before lanes_count_classes */
    int nclasses;
    int32_t *class_root;
    const bool *removed;
    struct Split *split; /* by node index */
    bool heads;
};

static size_t slot(const Value *v, int axis) { return (size_t)v->id * MAX_RANK + (size_t)axis; }

Lanes *lanes_new(const Graph *g, Arena *a)
{
    Lanes *l = NEW(a, Lanes);
    size_t slots = (size_t)g->nvalues * MAX_RANK;
    *l = (Lanes){.g = g, .arena = a, .nvalues = g->nvalues};
    l->base = NEW_ARRAY(a, int32_t, slots);
    l->size = NEW_ARRAY(a, int32_t, slots);
    l->touched = NEW_ARRAY(a, int32_t, slots);
    l->frozen = NEW_ARRAY(a, const Node *, slots);
    l->made = NEW_ARRAY(a, bool, g->nvalues);
    l->split = NEW_ARRAY(a, Split, g->nnodes);
    return l;
}

void lanes_prefer_heads(Lanes *l) { l->heads = true; }

bool lanes_heads(const Lanes *l) { return l->heads; }

/* As before any rule has run, but for the choices of splits. */
static void forget(Lanes *l)
{
    size_t slots = (size_t)l->nvalues * MAX_RANK;
    memset(l->base, 0xff, slots * sizeof *l->base);
    memset(l->touched, 0, slots * sizeof *l->touched);
    memset(l->frozen, 0, slots * sizeof *l->frozen);
    memset(l->made, 0, l->nvalues * sizeof *l->made);
    if (l->nlanes) memset(l->pinned, 0, (size_t)l->nlanes * sizeof *l->pinned);
    if (l->nlanes) memset(l->offered, 0, (size_t)l->nlanes * sizeof *l->offered);
    l->nlanes = 0;
    for (int i = 0; i < l->g->ninputs; i++) l->made[l->g->inputs[i]->id] = true;
}

static void *grown(Arena *a, const void *old, int32_t n, int32_t cap, size_t size)
{
    void *p = arena_array(a, (size_t)cap, size);
    return n ? memcpy(p, old, (size_t)n * size) : p;
}

static void reserve_lanes(Lanes *l, int32_t more)
{
    if (l->nlanes > MAX_LANES - more) trap(TRAP_NO_MEMORY, "more than %d lanes", MAX_LANES);
    if (l->nlanes + more <= l->cap) return;
    l->cap = 2 * (l->nlanes + more);
    l->parent = grown(l->arena, l->parent, l->nlanes, l->cap, sizeof *l->parent);
    l->pinned = grown(l->arena, l->pinned, l->nlanes, l->cap, sizeof *l->pinned);
    l->offered = grown(l->arena, l->offered, l->nlanes, l->cap, sizeof *l->offered);
    l->by = grown(l->arena, l->by, l->nlanes, l->cap, sizeof *l->by);
}

static int32_t root_of(Lanes *l, int32_t x)
{
    while (l->parent[x] != x) x = l->parent[x] = l->parent[l->parent[x]];
    return x;
}

static void pin_lane(Lanes *l, int32_t x, const Node *by)
{
    int32_t r = root_of(l, x);
    if (!l->pinned[r]) l->by[r] = by;
    l->pinned[r] = true;
}

static void unite(Lanes *l, int32_t x, int32_t y)
{
    int32_t a = root_of(l, x), b = root_of(l, y);
    if (a == b) return;
    if (a > b) {
        int32_t t = a;
        a = b;
        b = t;
    }
    l->parent[b] = a;
    l->offered[a] &= l->offered[b];
    if (l->pinned[b]) pin_lane(l, a, l->by[b]);
}

/* First lane of the axis, which gets lanes if it has none; -1 if it cannot have any. */
static int32_t give_lanes(Lanes *l, const Value *v, int axis, bool offer)
{
    if (v->id >= l->nvalues || axis < 0 || axis >= v->type.rank) return -1;
    size_t s = slot(v, axis);
    int64_t n = v->type.dim[axis];
    l->touched[s] = l->now;
    if (l->base[s] >= 0) return l->base[s];
    if (n < 1 || n > MAX_AXIS) return -1;
    reserve_lanes(l, (int32_t)n);
    l->base[s] = l->nlanes;
    l->size[s] = (int32_t)n;
    for (int64_t i = 0; i < n; i++, l->nlanes++) {
        l->parent[l->nlanes] = l->nlanes;
        l->offered[l->nlanes] = offer;
    }
    if (l->made[v->id]) lanes_pin(l, v, axis, v->def);
    if (l->frozen[s]) lanes_pin(l, v, axis, l->frozen[s]);
    return l->base[s];
}

/* First lane of the axis after opening it if need be; -1 if it cannot be opened. */
static int32_t open_axis(Lanes *l, const Value *v, int axis)
{
    int32_t base = give_lanes(l, v, axis, false);
    for (int32_t i = 0; base >= 0 && i < l->size[slot(v, axis)]; i++)
        l->offered[root_of(l, base + i)] = false;
    return base;
}

static bool has_lanes(const Lanes *l, const Value *v, int axis)
{
    return v && v->id < l->nvalues && axis >= 0 && axis < MAX_RANK && l->base[slot(v, axis)] >= 0;
}

bool lanes_open(const Lanes *l, const Value *v, int axis)
{
    if (!has_lanes(l, v, axis)) return false;
    int32_t x = l->base[slot(v, axis)];
    while (l->parent[x] != x) x = l->parent[x];
    return !l->offered[x];
}

void lanes_open_axis(Lanes *l, const Value *v, int axis) { open_axis(l, v, axis); }

void lanes_offer(Lanes *l, const Value *v, int axis) { give_lanes(l, v, axis, true); }

static int64_t axis_size(const Lanes *l, const Value *v, int axis)
{
    return l->size[slot(v, axis)];
}

static const Node *running(const Lanes *l) { return l->now ? l->g->nodes[l->now - 1] : NULL; }

void lanes_tie(Lanes *l, const Value *v, int axis, int64_t i, const Value *w, int axis2, int64_t j)
{
    int32_t a = open_axis(l, v, axis), b = open_axis(l, w, axis2);
    bool have_a = a >= 0 && i >= 0 && i < axis_size(l, v, axis);
    bool have_b = b >= 0 && j >= 0 && j < axis_size(l, w, axis2);
    if (have_a && have_b)
        unite(l, a + (int32_t)i, b + (int32_t)j);
    else if (have_a)
        pin_lane(l, a + (int32_t)i, running(l));
    else if (have_b)
        pin_lane(l, b + (int32_t)j, running(l));
}

/* Two axes whose first lanes are a and b (-1: none). */
static void unite_axes(Lanes *l, const Value *v, int axis, int32_t a, const Value *w, int axis2,
                       int32_t b)
{
    int64_t n = a >= 0 ? axis_size(l, v, axis) : 0, m = b >= 0 ? axis_size(l, w, axis2) : 0;
    if (n != m) {
        if (a >= 0) lanes_pin(l, v, axis, running(l));
        if (b >= 0) lanes_pin(l, w, axis2, running(l));
        return;
    }
    for (int32_t i = 0; i < n; i++) unite(l, a + i, b + i);
}

void lanes_tie_axis(Lanes *l, const Value *v, int axis, const Value *w, int axis2)
{
    int32_t a = open_axis(l, v, axis), b = open_axis(l, w, axis2);
    unite_axes(l, v, axis, a, w, axis2, b);
}

void lanes_pass(Lanes *l, const Value *v, int axis, const Value *w, int axis2)
{
    if (lanes_open(l, v, axis) || lanes_open(l, w, axis2)) {
        lanes_tie_axis(l, v, axis, w, axis2);
    } else if (has_lanes(l, v, axis) || has_lanes(l, w, axis2)) {
        int32_t a = give_lanes(l, v, axis, true), b = give_lanes(l, w, axis2, true);
        unite_axes(l, v, axis, a, w, axis2, b);
    }
}

void lanes_pin_lane(Lanes *l, const Value *v, int axis, int64_t i, const Node *by)
{
    int32_t a = open_axis(l, v, axis);
    if (a >= 0 && i >= 0 && i < axis_size(l, v, axis)) pin_lane(l, a + (int32_t)i, by);
}

void lanes_pin(Lanes *l, const Value *v, int axis, const Node *by)
{
    if (v->id >= l->nvalues || axis < 0 || axis >= MAX_RANK) return;
    if (!has_lanes(l, v, axis)) {
        if (!l->frozen[slot(v, axis)]) l->frozen[slot(v, axis)] = by;
        return;
    }
    for (int32_t i = 0; i < l->size[slot(v, axis)]; i++)
        pin_lane(l, l->base[slot(v, axis)] + i, by);
}

void lanes_pin_value(Lanes *l, const Value *v, const Node *by)
{
    for (int axis = 0; v && axis < v->type.rank; axis++) lanes_pin(l, v, axis, by);
}

/* What the node's rule left alone stays as it is. */
static void pin_untouched(Lanes *l, const Node *n, const Value *v)
{
    if (!v || v->id >= l->nvalues) return;
    for (int axis = 0; axis < v->type.rank; axis++)
        if (l->touched[slot(v, axis)] != l->now && (v->data || has_lanes(l, v, axis)))
            lanes_pin(l, v, axis, n);
}

static void run_rules(Lanes *l)
{
    forget(l);
    for (int i = 0; i < l->g->nnodes; i++) {
        const Node *n = l->g->nodes[i];
        LaneRule *rule = op_info[n->op].lanes;
        l->now = i + 1;
        if (rule) {
            rule(l, n);
            for (int k = 0; k < n->nin; k++) pin_untouched(l, n, n->in[k]);
            for (int o = 0; o < n->nout; o++) pin_untouched(l, n, n->out[o]);
        }
        for (int o = 0; o < n->nout; o++)
            if (n->out[o]) l->made[n->out[o]->id] = true;
    }
    l->now = 0;
    for (int o = 0; o < l->g->noutputs; o++)
        lanes_pin_value(l, l->g->outputs[o], l->g->outputs[o]->aside);
}

int lanes_split(Lanes *l, const Value *x, int axis, int candidates)
{
    Split *s = &l->split[l->now - 1];
    s->of = x;
    s->axis = axis;
    s->candidates = candidates;
    return s->tried % candidates;
}

static bool all_pinned(Lanes *l, const Value *v, int axis)
{
    for (int32_t i = 0; i < axis_size(l, v, axis); i++)
        if (!l->pinned[root_of(l, l->base[slot(v, axis)] + i)]) return false;
    return true;
}

/* Moves splits on whose choice has led nowhere; the last move takes them back to the first. */
static bool try_others(Lanes *l)
{
    bool moved = false;
    for (int i = 0; i < l->g->nnodes; i++) {
        Split *s = &l->split[i];
        if (!s->of || s->tried >= s->candidates || !all_pinned(l, s->of, s->axis)) continue;
        s->tried++;
        moved = true;
    }
    return moved;
}

void lanes_run(Lanes *l)
{
    do run_rules(l);
    while (try_others(l));
}

int lanes_count_classes(Lanes *l)
{
    if (l->class_id) return l->nclasses;
    l->class_id = NEW_ARRAY(l->arena, int32_t, l->nlanes + 1);
    l->class_root = NEW_ARRAY(l->arena, int32_t, l->nlanes + 1);
    for (int32_t x = 0; x < l->nlanes; x++) {
        int32_t r = root_of(l, x);
        if (r == x && !l->offered[x]) { /* the smallest lane: seen before the others */
            l->class_root[l->nclasses] = x;
            l->class_id[x] = l->nclasses++;
        }
    }
    return l->nclasses;
}

int lanes_class(Lanes *l, const Value *v, int axis, int64_t i)
{
    if (!lanes_open(l, v, axis) || i < 0 || i >= axis_size(l, v, axis)) return -1;
    lanes_count_classes(l);
    return l->class_id[root_of(l, l->base[slot(v, axis)] + (int32_t)i)];
}

const Node *lanes_pinned_by(Lanes *l, int class_, bool *pinned)
{
    lanes_count_classes(l);
    int32_t r = l->class_root[class_];
    *pinned = l->pinned[r];
    return l->pinned[r] ? l->by[r] : NULL;
}

const char *lanes_keep(Lanes *l, const Value *v, int axis, Arena *a)
{
    const char *why = NULL;
    for (int64_t i = 0; i < v->type.dim[axis]; i++) {
        bool pinned = false;
        int c = lanes_class(l, v, axis, i);
        const Node *by = c < 0 ? NULL : lanes_pinned_by(l, c, &pinned);
        if (c >= 0 && !pinned) return NULL;
        if (!why)
            why = by      ? node_describe(by, a)
                  : c < 0 ? "an axis that no rule follows"
                          : "an input or output of the network";
    }
    return why;
}

void lanes_set_removed(Lanes *l, const bool *removed) { l->removed = removed; }

bool lanes_removed(Lanes *l, const Value *v, int axis, int64_t i)
{
    int c = l->removed ? lanes_class(l, v, axis, i) : -1;
    return c >= 0 && l->removed[c];
}

int64_t lanes_survivors(Lanes *l, const Value *v, int axis, int64_t from, int64_t to)
{
    int64_t n = to - from;
    for (int64_t i = from; i < to && l->removed && lanes_open(l, v, axis); i++)
        n -= lanes_removed(l, v, axis, i);
    return n;
}

int64_t lanes_size(const Lanes *l, const Value *v, int axis)
{
    return lanes_open(l, v, axis) ? axis_size(l, v, axis) : v->type.dim[axis];
}
