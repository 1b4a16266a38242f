/* Chains of element-wise steps become one step each.
 *
 * A step joins the group of a step whose result it reads if both are maps over the same shape and
 * layout. The group runs where its last member stood, so no other step between the members may read
 * a member's result; results that anybody else reads later become outputs of the group. Greedy, in
 * program order: a step has one chance to join, the group of its first producer that takes it. */
#include <string.h>

#include "runtime/cuda/cuda.h"
#include "runtime/program.h"

enum { MAX_MEMBERS = 12, MAX_RESULTS = 4 };

typedef struct Group {
    int step[MAX_MEMBERS]; /* in order */
    int n;
} Group;

typedef struct Fuser {
    Program *p;
    int *writer;       /* by buffer: the step; -1 */
    int *first, *last; /* by buffer: the first and last reading step; last INT32_MAX: the caller */
    int *group_of;     /* by step; -1 */
    Group *groups;
    int ngroups;
} Fuser;

static const Slot *result(const Step *s) { return &s->slot[s->nin]; }

static bool is_map(const Program *p, int k)
{
    const Step *s = &p->steps[k];
    if (!(s->kernel->flags & KF_MAP) || s->copy || s->nin == 0 || result(s)->buffer < 0)
        return false;
    for (int o = 1; o < s->nout; o++)
        if (s->slot[s->nin + o].buffer >= 0) return false;
    return p->buffers[result(s)->buffer].kind == BUF_ARENA;
}

static void note_reads(Fuser *f)
{
    Program *p = f->p;
    for (int b = 0; b < p->nbuffers; b++) f->writer[b] = f->first[b] = f->last[b] = -1;
    for (int k = 0; k < p->nsteps; k++) {
        const Step *s = &p->steps[k];
        for (int i = 0; i < s->nin; i++) {
            const int b = s->slot[i].buffer;
            if (b < 0) continue;
            if (f->first[b] < 0) f->first[b] = k;
            f->last[b] = k;
        }
        for (int o = 0; o < s->nout; o++)
            if (s->slot[s->nin + o].buffer >= 0) f->writer[s->slot[s->nin + o].buffer] = k;
    }
    for (int o = 0; o < p->graph->noutputs; o++) {
        const int b = p->value[p->graph->outputs[o]->id].buffer;
        if (b >= 0) f->last[b] = INT32_MAX;
    }
}

static bool in_group(const Fuser *f, int step, int group) { return f->group_of[step] == group; }

/* Whether a step before k outside the group reads a member's result. */
static bool read_between(const Fuser *f, const Group *g, int group, int k)
{
    const Program *p = f->p;
    for (int j = g->step[0] + 1; j < k; j++) {
        if (in_group(f, j, group)) continue;
        for (int i = 0; i < p->steps[j].nin; i++) {
            const int b = p->steps[j].slot[i].buffer;
            if (b >= 0 && f->writer[b] >= 0 && in_group(f, f->writer[b], group)) return true;
        }
    }
    return false;
}

/* External inputs of the group's steps and step k: an upper bound. */
static int count_inputs(const Fuser *f, const Group *g, int k)
{
    int n = f->p->steps[k].nin;
    for (int m = 0; m < g->n; m++) n += f->p->steps[g->step[m]].nin;
    return n;
}

/* Every operand of step k that a member writes must be read as it was written. */
static bool reads_whole(const Fuser *f, const Step *s, int group)
{
    for (int i = 0; i < s->nin; i++) {
        const int b = s->slot[i].buffer;
        if (b < 0 || f->writer[b] < 0 || !in_group(f, f->writer[b], group)) continue;
        if (!tensor_same_layout(&s->slot[i].t, &result(s)->t)) return false;
    }
    return true;
}

static bool may_join(const Fuser *f, int group, int k)
{
    const Group *g = &f->groups[group];
    const Step *s = &f->p->steps[k], *first = &f->p->steps[g->step[0]];
    return g->n < MAX_MEMBERS && first->stage == s->stage &&
           tensor_same_layout(&result(first)->t, &result(s)->t) && reads_whole(f, s, group) &&
           count_inputs(f, g, k) <= MAP_OPERANDS - MAX_RESULTS && !read_between(f, g, group, k);
}

static void join(Fuser *f, int k)
{
    const Step *s = &f->p->steps[k];
    for (int i = 0; i < s->nin; i++) {
        const int b = s->slot[i].buffer;
        const int from = b >= 0 ? f->writer[b] : -1;
        if (from < 0 || from >= k || f->group_of[from] < 0 || !may_join(f, f->group_of[from], k))
            continue;
        Group *g = &f->groups[f->group_of[from]];
        g->step[g->n++] = k;
        f->group_of[k] = f->group_of[from];
        return;
    }
    f->groups[f->ngroups] = (Group){.step = {k}, .n = 1};
    f->group_of[k] = f->ngroups++;
}

/* ---- the joined step ---------------------------------------------------------------------- */

/* Which member writes the buffer; -1: none before `upto`. */
static int member_of(const Fuser *f, const Group *g, int buffer, int upto)
{
    for (int m = 0; m < upto; m++)
        if (result(&f->p->steps[g->step[m]])->buffer == buffer) return m;
    return -1;
}

static bool read_outside(const Fuser *f, const Group *g, int m)
{
    const int b = result(&f->p->steps[g->step[m]])->buffer, last = g->step[g->n - 1];
    return m == g->n - 1 || f->last[b] > last;
}

static int results_of(const Fuser *f, const Group *g)
{
    int n = 0;
    for (int m = 0; m < g->n; m++) n += read_outside(f, g, m);
    return n;
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

static void add_member(Fuser *f, const Group *g, int m, FusionMember *to, Slot *slots, int *n)
{
    const Step *s = &f->p->steps[g->step[m]];
    *to = (FusionMember){.node = s->node, .out = result(s)->t};
    to->src = NEW_ARRAY(f->p->arena, int, s->nin + 1);
    for (int i = 0; i < s->nin; i++) {
        const int member = s->slot[i].buffer < 0 ? -1 : member_of(f, g, s->slot[i].buffer, m);
        to->src[i] = s->slot[i].buffer < 0 ? FUSION_OMITTED
                     : member >= 0         ? -1 - member
                                           : external(slots, n, &s->slot[i]);
    }
}

static Step joined(Fuser *f, const Group *g)
{
    Arena *a = f->p->arena;
    Fusion *fusion = NEW(a, Fusion);
    Slot *slots = NEW_ARRAY(a, Slot, MAP_OPERANDS + MAX_MEMBERS);
    Step s = f->p->steps[g->step[g->n - 1]];
    int nin = 0, nout = 0;
    fusion->members = NEW_ARRAY(a, FusionMember, g->n);
    fusion->result = NEW_ARRAY(a, int, g->n);
    fusion->nmembers = g->n;
    for (int m = 0; m < g->n; m++) add_member(f, g, m, &fusion->members[m], slots, &nin);
    for (int m = g->n - 1; m >= 0; m--) {
        if (!read_outside(f, g, m)) continue;
        slots[nin + nout] = *result(&f->p->steps[g->step[m]]);
        fusion->result[nout++] = m;
    }
    s.fusion = fusion;
    s.slot = slots;
    s.nin = nin;
    s.nout = nout;
    return s;
}

/* Replaces groups by their joined steps, where their last members stood. */
static void rebuild(Fuser *f)
{
    Program *p = f->p;
    int n = 0, begin[MAX_STAGES + 1], next = 0;
    Step *steps = NEW_ARRAY(p->arena, Step, p->nsteps + 1);
    p->noperands = 0;
    for (int k = 0; k <= p->nsteps; k++) {
        while (next <= MAX_STAGES && p->stage_begin[next] == k) begin[next++] = n;
        if (k == p->nsteps) break;
        const Group *g = f->group_of[k] < 0 ? NULL : &f->groups[f->group_of[k]];
        if (g && g->step[g->n - 1] != k) continue;
        steps[n] = g && g->n > 1 ? joined(f, g) : p->steps[k];
        steps[n].operand = p->noperands;
        p->noperands += steps[n].nin + steps[n].nout;
        n++;
    }
    memcpy(p->stage_begin, begin, sizeof begin);
    p->steps = steps;
    p->nsteps = n;
}

/* Groups with more results than a kernel may have fall apart. */
static void split_wide(Fuser *f)
{
    for (int g = 0; g < f->ngroups; g++) {
        if (f->groups[g].n == 1 || results_of(f, &f->groups[g]) <= MAX_RESULTS) continue;
        for (int m = 0; m < f->groups[g].n; m++) f->group_of[f->groups[g].step[m]] = -1;
    }
}

static void send_to_host(Program *p)
{
    for (int k = 0; k < p->nsteps; k++) {
        Step *s = &p->steps[k];
        Tensor *t = NEW_ARRAY(p->arena, Tensor, s->nin + s->nout + 1);
        for (int i = 0; i < s->nin + s->nout; i++) t[i] = s->slot[i].t;
        if (!s->copy && s->node && !cuda_can_run(p->device, s->node, t, t + s->nin))
            s->kernel = &cuda_host_kernel;
    }
}

void cuda_rewrite(Program *p, bool fuse, Diag *d)
{
    (void)d;
    send_to_host(p);
    if (!fuse || p->nsteps == 0) return;
    Fuser f = {.p = p};
    f.writer = NEW_ARRAY(p->arena, int, p->nbuffers);
    f.first = NEW_ARRAY(p->arena, int, p->nbuffers);
    f.last = NEW_ARRAY(p->arena, int, p->nbuffers);
    f.group_of = NEW_ARRAY(p->arena, int, p->nsteps);
    f.groups = NEW_ARRAY(p->arena, Group, p->nsteps);
    for (int k = 0; k < p->nsteps; k++) f.group_of[k] = -1;
    note_reads(&f);
    for (int k = 0; k < p->nsteps; k++)
        if (is_map(p, k)) join(&f, k);
    split_wide(&f);
    rebuild(&f);
}
