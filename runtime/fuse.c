/* Chains of element-wise steps, and of sums over what they compute, become one step each.
 *
 * Two groups of steps join if all walk the same shape and layout and one reads the other's results
 * whole. A group runs where its last member stood, so nothing between its members may read a
 * member's result; only a sum that could be computed earlier runs where the group did. Results that
 * anybody else reads become outputs of the joined step; the others need no memory. Greedy, in
 * program order: a step begins a group and takes in those of its operands' writers. */
#include <string.h>

#include "runtime/program.h"

typedef struct Group {
    int step[FUSION_MEMBERS]; /* in order */
    int n;
    int at; /* the step where it runs */
} Group;

typedef struct Fuser {
    Program *p;
    int *writer;   /* by buffer: the step; -1 */
    int *last;     /* by buffer: the last reading step; INT32_MAX: the caller */
    int *group_of; /* by step; -1 */
    Group *groups;
    int ngroups;
} Fuser;

static bool is_map(const Step *s) { return s->kernel->flags & KF_MAP; }

/* The tensor whose elements the step goes through: its result, or what it sums. */
static const Tensor *walked(const Step *s) { return &s->slot[is_map(s) ? s->nin : 0].t; }

static bool may_fuse(const Program *p, const Step *s)
{
    Tensor t[FUSION_OPERANDS];
    const int n = s->nin + s->nout, results = s->kernel->flags & KF_SUM ? s->nout : 1;
    if (!(s->kernel->flags & (KF_MAP | KF_SUM)) || s->copy || s->nin == 0) return false;
    if (n > FUSION_OPERANDS - FUSION_RESULTS || walked(s)->rank < 0) return false;
    for (int o = 0; o < s->nout; o++) {
        const int b = s->slot[s->nin + o].buffer;
        if (b < 0 ? o == 0 : o >= results || p->buffers[b].kind != BUF_ARENA) return false;
    }
    for (int k = 0; k < n; k++) t[k] = s->slot[k].t;
    const Prepare pr = {
        .node = s->node, .device = p->device, .in = t, .out = t + s->nin, s->nin, s->nout};
    return !p->device->can_fuse || p->device->can_fuse(&pr);
}

static void note_reads(Fuser *f)
{
    Program *p = f->p;
    for (int b = 0; b < p->nbuffers; b++) f->writer[b] = f->last[b] = -1;
    for (int k = 0; k < p->nsteps; k++) {
        const Step *s = &p->steps[k];
        for (int i = 0; i < s->nin; i++)
            if (s->slot[i].buffer >= 0) f->last[s->slot[i].buffer] = k;
        for (int o = 0; o < s->nout; o++)
            if (s->slot[s->nin + o].buffer >= 0) f->writer[s->slot[s->nin + o].buffer] = k;
    }
    for (int o = 0; o < p->graph->noutputs; o++) {
        const int b = p->value[p->graph->outputs[o]->id].buffer;
        if (b >= 0) f->last[b] = INT32_MAX;
    }
}

/* The group that computes operand i of the step; -1: none. */
static int group_of_operand(const Fuser *f, const Step *s, int i)
{
    const int b = s->slot[i].buffer, from = b >= 0 ? f->writer[b] : -1;
    return from < 0 ? -1 : f->group_of[from];
}

/* Whether step k reads a result of the group. */
static bool reads_group(const Fuser *f, int k, int group)
{
    const Step *s = &f->p->steps[k];
    for (int i = 0; i < s->nin; i++)
        if (group_of_operand(f, s, i) == group) return true;
    return false;
}

/* Whether a step before k, in neither group, reads a result of `group`. */
static bool read_between(const Fuser *f, int group, int other, int k)
{
    for (int j = f->groups[group].step[0] + 1; j < k; j++)
        if (f->group_of[j] != group && f->group_of[j] != other && reads_group(f, j, group))
            return true;
    return false;
}

static bool in_either(const Fuser *f, int step, int a, int b)
{
    return step >= 0 && f->group_of[step] >= 0 &&
           (f->group_of[step] == a || f->group_of[step] == b);
}

/* What the two groups' steps read of each other must be maps' results, read as they were written.
 * Counts what they read from elsewhere. */
static bool read_whole(const Fuser *f, int a, int b, int *external)
{
    for (int g = 0; g < 2; g++) {
        const Group *group = &f->groups[g ? b : a];
        for (int m = 0; m < group->n; m++) {
            const Step *s = &f->p->steps[group->step[m]];
            for (int i = 0; i < s->nin; i++) {
                const int from = s->slot[i].buffer < 0 ? -1 : f->writer[s->slot[i].buffer];
                if (!in_either(f, from, a, b)) {
                    *external += s->slot[i].buffer >= 0;
                    continue;
                }
                const Step *w = &f->p->steps[from];
                if (!is_map(w) || s->slot[i].buffer != w->slot[w->nin].buffer ||
                    !tensor_same_layout(&s->slot[i].t, walked(w)))
                    return false;
            }
        }
    }
    return true;
}

/* Whether step k could run where the group does: a sum all of whose other operands are there. */
static bool may_run_early(const Fuser *f, int k, int group)
{
    const Step *s = &f->p->steps[k];
    if (is_map(s)) return false;
    for (int i = 0; i < s->nin; i++) {
        const int of = group_of_operand(f, s, i);
        const int from = s->slot[i].buffer < 0 ? -1 : f->writer[s->slot[i].buffer];
        if (of != group && (of < 0 ? from : f->groups[of].at) >= f->groups[group].at) return false;
    }
    return true;
}

/* Joins the group `own`, which step k has begun, with the group `other` if that may be. */
static void join(Fuser *f, int k, int own, int other)
{
    Group *to = &f->groups[own], *from = &f->groups[other];
    const Step *s = &f->p->steps[k], *o = &f->p->steps[from->step[0]];
    int external = 0;
    if (to->n + from->n > FUSION_MEMBERS || s->stage != o->stage ||
        !tensor_same_layout(walked(s), walked(o)) || !read_whole(f, own, other, &external) ||
        external > FUSION_OPERANDS - FUSION_RESULTS)
        return;
    if (to->n == 1 && may_run_early(f, k, other))
        to->at = from->at;
    else if (to->at != k || read_between(f, other, own, k))
        return;
    for (int m = 0; m < from->n; m++) {
        int at = to->n++;
        for (; at > 0 && to->step[at - 1] > from->step[m]; at--) to->step[at] = to->step[at - 1];
        to->step[at] = from->step[m];
        f->group_of[from->step[m]] = own;
    }
    from->n = 0;
}

static void begin(Fuser *f, int k)
{
    const Step *s = &f->p->steps[k];
    const int own = f->ngroups++;
    f->groups[own] = (Group){.step = {k}, .n = 1, .at = k};
    f->group_of[k] = own;
    for (int i = 0; i < s->nin; i++) {
        const int other = group_of_operand(f, s, i);
        if (other >= 0 && other != own) join(f, k, own, other);
    }
}

/* ---- the joined step ---------------------------------------------------------------------- */

static bool read_outside(const Fuser *f, int group, int buffer)
{
    if (f->last[buffer] == INT32_MAX) return true;
    for (int j = f->writer[buffer] + 1; j <= f->last[buffer]; j++) {
        const Step *s = &f->p->steps[j];
        for (int i = 0; i < s->nin && f->group_of[j] != group; i++)
            if (s->slot[i].buffer == buffer) return true;
    }
    return false;
}

/* The results that others read, last first: what they are, and their slots. */
static int results_of(const Fuser *f, int group, FusionResult *result, Slot *slots)
{
    const Group *g = &f->groups[group];
    int n = 0;
    for (int m = g->n - 1; m >= 0; m--) {
        const Step *s = &f->p->steps[g->step[m]];
        for (int o = 0; o < s->nout; o++) {
            const Slot *slot = &s->slot[s->nin + o];
            if (slot->buffer < 0 || !read_outside(f, group, slot->buffer)) continue;
            if (n == FUSION_RESULTS) return n + 1;
            result[n] = (FusionResult){m, o};
            slots[n++] = *slot;
        }
    }
    return n;
}

/* Which member's first output the buffer is; -1: none. */
static int member_of(const Fuser *f, const Group *g, int buffer)
{
    for (int m = 0; m < g->n; m++) {
        const Step *s = &f->p->steps[g->step[m]];
        if (s->slot[s->nin].buffer == buffer) return m;
    }
    return -1;
}

/* The slot among the joined step's inputs. */
static int external(Slot *slots, int *n, const Slot *s)
{
    for (int k = 0; k < *n; k++)
        if (slots[k].buffer == s->buffer && slots[k].t.dtype == s->t.dtype &&
            slots[k].t.rank == s->t.rank && slots[k].t.data == s->t.data &&
            tensor_same_layout(&slots[k].t, &s->t))
            return k;
    slots[*n] = *s;
    return (*n)++;
}

static FusionMember member(Fuser *f, const Group *g, int k, Slot *slots, int *n)
{
    const Step *s = &f->p->steps[g->step[k]];
    int *src = NEW_ARRAY(f->p->arena, int, s->nin + 1);
    Tensor *out = NEW_ARRAY(f->p->arena, Tensor, s->nout);
    for (int i = 0; i < s->nin; i++) {
        const int from = s->slot[i].buffer < 0 ? -1 : member_of(f, g, s->slot[i].buffer);
        src[i] = s->slot[i].buffer < 0 ? FUSION_OMITTED
                 : from >= 0           ? -1 - from
                                       : external(slots, n, &s->slot[i]);
    }
    for (int o = 0; o < s->nout; o++) out[o] = s->slot[s->nin + o].t;
    return (FusionMember){s->node, src, out, s->nin, s->nout};
}

static Step joined(Fuser *f, int group)
{
    Arena *a = f->p->arena;
    const Group *g = &f->groups[group];
    Fusion *fusion = NEW(a, Fusion);
    Slot *slots = NEW_ARRAY(a, Slot, FUSION_OPERANDS), results[FUSION_RESULTS];
    Step s = f->p->steps[g->step[g->n - 1]];
    s.nin = 0;
    fusion->members = NEW_ARRAY(a, FusionMember, g->n);
    fusion->result = NEW_ARRAY(a, FusionResult, FUSION_RESULTS);
    fusion->nmembers = g->n;
    for (int m = 0; m < g->n; m++) fusion->members[m] = member(f, g, m, slots, &s.nin);
    s.nout = results_of(f, group, fusion->result, results);
    memcpy(slots + s.nin, results, sizeof(Slot) * (size_t)s.nout);
    s.kernel = f->p->device->chain;
    s.fusion = fusion;
    s.slot = slots;
    return s;
}

/* Groups of one, and those with more results than a joined step may have, stay as they are. */
static void drop_small_and_wide(Fuser *f)
{
    FusionResult result[FUSION_RESULTS];
    Slot slots[FUSION_RESULTS];
    for (int g = 0; g < f->ngroups; g++) {
        const Group *group = &f->groups[g];
        if (group->n > 1 && results_of(f, g, result, slots) <= FUSION_RESULTS) continue;
        for (int m = 0; m < group->n; m++) f->group_of[group->step[m]] = -1;
    }
}

/* Replaces groups by their joined steps. */
static void rebuild(Fuser *f)
{
    Program *p = f->p;
    int n = 0, begin[MAX_STAGES + 1], next = 0;
    Step *steps = NEW_ARRAY(p->arena, Step, p->nsteps + 1);
    p->noperands = 0;
    for (int k = 0; k <= p->nsteps; k++) {
        while (next <= MAX_STAGES && p->stage_begin[next] == k) begin[next++] = n;
        if (k == p->nsteps) break;
        const int group = f->group_of[k];
        if (group >= 0 && f->groups[group].at != k) continue;
        steps[n] = group >= 0 ? joined(f, group) : p->steps[k];
        steps[n].operand = p->noperands;
        p->noperands += steps[n].nin + steps[n].nout;
        n++;
    }
    memcpy(p->stage_begin, begin, sizeof begin);
    p->steps = steps;
    p->nsteps = n;
}

void program_fuse(Program *p)
{
    Fuser f = {.p = p};
    if (!p->device->chain || p->nsteps == 0) return;
    f.writer = NEW_ARRAY(p->arena, int, p->nbuffers);
    f.last = NEW_ARRAY(p->arena, int, p->nbuffers);
    f.group_of = NEW_ARRAY(p->arena, int, p->nsteps);
    f.groups = NEW_ARRAY(p->arena, Group, p->nsteps);
    for (int k = 0; k < p->nsteps; k++) f.group_of[k] = -1;
    note_reads(&f);
    for (int k = 0; k < p->nsteps; k++)
        if (may_fuse(p, &p->steps[k])) begin(&f, k);
    drop_small_and_wide(&f);
    rebuild(&f);
}
