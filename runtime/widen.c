/* Which half-precision values a device that computes in float keeps as floats, because the memory
 * is there anyway.
 *
 * Kernels that cannot compute with a value's type convert it on the way in and on the way out. The
 * most that a program needs is needed at one moment; what is short-lived and not alive then may be
 * twice as large at no cost. Buffers (with those that take their place) are taken shortest lifetime
 * first, as long as no step would have more alive than the limit. */
#include <stdlib.h>

#include "runtime/program.h"

typedef struct Candidate {
    int buffer, first, last;
    size_t size; /* of the half that it would grow by */
} Candidate;

static bool is_half(DType t) { return t == DT_F16 || t == DT_BF16; }

/* Operands of any float types side by side, or all turned to floats by the plan. */
static bool takes_floats(const Step *s)
{
    return s->copy || (s->kernel->flags & KF_MIXED) || !(s->kernel->flags & (KF_F16 | KF_BF16));
}

/* Element-wise steps convert tile by tile, in registers and the first-level cache. */
static bool converts_for_free(const Step *s)
{
    return !s->copy && (s->fusion || (s->kernel->flags & (KF_MAP | KF_SUM)));
}

/* By buffer: what may grow, because all steps take it as floats, and what gains by it. */
static void find_candidates(const Program *p, bool *may, bool *gains)
{
    for (int b = 0; b < p->nbuffers; b++) may[b] = p->buffers[b].kind == BUF_ARENA;
    for (int k = 0; k < p->nsteps; k++) {
        const Step *s = &p->steps[k];
        for (int i = 0; i < s->nin + s->nout; i++) {
            if (s->slot[i].buffer < 0) continue;
            const int root = buffer_root(p, s->slot[i].buffer);
            const DType t = s->slot[i].t.dtype;
            may[root] = may[root] && takes_floats(s) && is_half(t) && !p->device->computes_with(t);
            gains[root] = gains[root] || !converts_for_free(s);
        }
    }
}

static int by_lifetime(const void *x, const void *y)
{
    const Candidate *a = x, *b = y;
    const int for_a = a->last - a->first, for_b = b->last - b->first;
    if (for_a != for_b) return for_a < for_b ? -1 : 1;
    return (a->buffer > b->buffer) - (a->buffer < b->buffer);
}

/* Adds `size` to what is alive in steps first … last; false if that were too much anywhere. */
static bool grow(size_t *alive, const Candidate *c, size_t limit)
{
    for (int k = c->first; k <= c->last; k++)
        if (alive[k] + c->size > limit) return false;
    for (int k = c->first; k <= c->last; k++) alive[k] += c->size;
    return true;
}

static bool has_place(const Buffer *b)
{
    return b->kind == BUF_ARENA && b->same < 0 && b->first >= 0;
}

/* Returns how many there are. */
static int list_candidates(const Program *p, Candidate *list)
{
    bool *may = NEW_ARRAY(p->arena, bool, p->nbuffers);
    bool *gains = NEW_ARRAY(p->arena, bool, p->nbuffers);
    int n = 0;
    find_candidates(p, may, gains);
    for (int k = 0; k < p->nbuffers; k++) {
        const Buffer *b = &p->buffers[k];
        if (has_place(b) && may[k] && gains[k] && b->last != LIVE_FOREVER)
            list[n++] = (Candidate){k, b->first, b->last, b->size};
    }
    return n;
}

/* Bytes alive in each step. */
static size_t *find_alive(const Program *p)
{
    size_t *alive = NEW_ARRAY(p->arena, size_t, p->nsteps + 1);
    for (int k = 0; k < p->nbuffers; k++) {
        const Buffer *b = &p->buffers[k];
        if (!has_place(b)) continue;
        const int last = b->last == LIVE_FOREVER ? p->nsteps - 1 : b->last;
        for (int s = b->first; s <= last; s++) alive[s] += b->size;
    }
    return alive;
}

bool *program_widen(const Program *p, size_t limit)
{
    Candidate *list = NEW_ARRAY(p->arena, Candidate, p->nbuffers + 1);
    bool *grown = NEW_ARRAY(p->arena, bool, p->nbuffers + 1), any = false;
    const int n = list_candidates(p, list);
    if (n == 0) return NULL;
    size_t *alive = find_alive(p);
    qsort(list, (size_t)n, sizeof *list, by_lifetime);
    for (int k = 0; k < n; k++) any |= grown[list[k].buffer] = grow(alive, &list[k], limit);
    if (!any) return NULL;
    bool *wide = NEW_ARRAY(p->arena, bool, p->graph->nvalues);
    for (uint32_t v = 0; v < p->graph->nvalues; v++)
        wide[v] = p->value[v].buffer >= 0 && grown[buffer_root(p, p->value[v].buffer)];
    return wide;
}
