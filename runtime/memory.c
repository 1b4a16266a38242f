/* Where buffers lie in a program's one block of memory.
 *
 * A buffer is live from the step that writes it to the last one that reads it, or for ever if a
 * later stage or the caller reads it: stages run again and again, each only disturbing what is its
 * own or later. Buffers are placed largest first, each into the smallest gap that buffers
 * overlapping it in time leave (greedy by size, best fit). */
#include <stdlib.h>

#include "runtime/program.h"

static void note_use(Program *p, int buffer, int step, int stage)
{
    Buffer *b = &p->buffers[buffer];
    if (b->kind != BUF_ARENA) return;
    if (b->first < 0) b->first = b->last = step;
    if (b->last != LIVE_FOREVER) b->last = stage > b->stage ? LIVE_FOREVER : step;
}

static void find_lifetimes(Program *p, bool keep)
{
    for (int k = 0; k < p->nsteps; k++)
        for (int i = 0; i < p->steps[k].nin + p->steps[k].nout; i++)
            if (p->steps[k].slot[i].buffer >= 0)
                note_use(p, p->steps[k].slot[i].buffer, k, p->steps[k].stage);
    for (int o = 0; o < p->graph->noutputs; o++)
        p->buffers[p->value[p->graph->outputs[o]->id].buffer].last = LIVE_FOREVER;
    for (int b = 0; b < p->nbuffers && keep; b++) {
        p->buffers[b].first = 0;
        p->buffers[b].last = LIVE_FOREVER;
    }
}

/* Whether output o of step k may take over the memory of input i: it dies here, and every operand
 * in it is that very tensor. */
static bool may_take(const Program *p, int k, int i, int o)
{
    const Step *s = &p->steps[k];
    const Slot *in = &s->slot[i], *out = &s->slot[s->nin + o];
    if (in->buffer < 0 || out->buffer < 0) return false;
    const int root = buffer_root(p, in->buffer);
    const Buffer *b = &p->buffers[root];
    if (b->kind != BUF_ARENA || b->last != k || b->size != p->buffers[out->buffer].size)
        return false;
    for (int j = 0; j < s->nin; j++)
        if (s->slot[j].buffer >= 0 && buffer_root(p, s->slot[j].buffer) == root &&
            (s->slot[j].t.dtype != out->t.dtype || !tensor_same_layout(&s->slot[j].t, &out->t)))
            return false;
    return true;
}

static void take_place(Program *p, int k, int o)
{
    const Step *s = &p->steps[k];
    for (int i = 0; i < s->nin; i++) {
        if (!may_take(p, k, i, o)) continue;
        const int root = buffer_root(p, s->slot[i].buffer), out = s->slot[s->nin + o].buffer;
        p->buffers[out].same = root;
        p->buffers[root].last = p->buffers[out].last;
        return;
    }
}

static void merge_in_place(Program *p)
{
    for (int k = 0; k < p->nsteps; k++) {
        const Step *s = &p->steps[k];
        if (!(s->kernel->flags & KF_INPLACE)) continue;
        for (int o = 0; o < (s->fusion ? s->nout : s->nout > 0); o++) take_place(p, k, o);
    }
}

static int by_size(const void *x, const void *y)
{
    const Buffer *a = *(Buffer *const *)x, *b = *(Buffer *const *)y;
    if (a->size != b->size) return a->size < b->size ? 1 : -1;
    return a->first != b->first ? (a->first > b->first ? 1 : -1) : (a > b) - (a < b);
}

/* Offset of the smallest gap for b among the placed buffers, which are sorted by offset. */
static size_t best_fit(const Buffer *b, Buffer *const *placed, int n)
{
    size_t end = 0, best = SIZE_MAX, best_size = SIZE_MAX;
    for (int k = 0; k < n; k++) {
        const Buffer *q = placed[k];
        if (q->last < b->first || b->last < q->first) continue;
        if (q->offset > end && q->offset - end >= b->size && q->offset - end < best_size) {
            best = end;
            best_size = q->offset - end;
        }
        if (q->offset + q->size > end) end = q->offset + q->size;
    }
    return best != SIZE_MAX ? best : end;
}

static void insert_sorted(Buffer **placed, int n, Buffer *b)
{
    while (n > 0 && placed[n - 1]->offset > b->offset) {
        placed[n] = placed[n - 1];
        n--;
    }
    placed[n] = b;
}

/* Gives every buffer of `order` its offset; returns the end of the last. */
static size_t place(Program *p, Buffer **order, int n)
{
    Buffer **placed = NEW_ARRAY(p->arena, Buffer *, n + 1);
    size_t end = 0;
    qsort(order, (size_t)n, sizeof *order, by_size);
    for (int k = 0; k < n; k++) {
        order[k]->offset = best_fit(order[k], placed, k);
        insert_sorted(placed, k, order[k]);
        if (order[k]->offset + order[k]->size > end) end = order[k]->offset + order[k]->size;
    }
    return end;
}

/* The buffers that a further lane has for itself: what its stage writes. */
static void place_lane(Program *p, Buffer **order, int n)
{
    Buffer **own = NEW_ARRAY(p->arena, Buffer *, n + 1);
    int nown = 0;
    for (int k = 0; k < n; k++)
        if (order[k]->stage == p->lane_stage) own[nown++] = order[k];
    p->lane_memory = place(p, own, nown);
    for (int k = 0; k < nown; k++) own[k]->lane_offset = own[k]->offset;
}

int program_place(Program *p, bool keep, Diag *d)
{
    const size_t page = program_page(p);
    Buffer **order = NEW_ARRAY(p->arena, Buffer *, p->nbuffers + 1);
    int n = 0;
    size_t total = 0;
    find_lifetimes(p, keep);
    if (!keep) merge_in_place(p);
    for (int k = 0; k < p->nbuffers; k++) {
        Buffer *b = &p->buffers[k];
        if (b->kind != BUF_ARENA || b->same >= 0 || b->first < 0) continue;
        if (!add_ok(b->size, page - 1, &b->size) || !add_ok(total, b->size, &total) ||
            total > PTRDIFF_MAX)
            return diag_error(d, "the program needs more memory than an address can name");
        b->size &= ~(page - 1);
        order[n++] = b;
    }
    if (p->lane_stage) place_lane(p, order, n);
    p->memory = place(p, order, n);
    return 0;
}
