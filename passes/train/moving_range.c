/* Moving averages of activations' ranges (Jacob et al. 2018; HAWQ-V3 with momentum 0.99): every
 * step's smallest and largest value move the ends a little, and the target's rules for grids make
 * scale and zero point of them. Extremes of shards may be taken in any order, so threads cannot
 * show. */
#include "passes/train/moving_range.h"

#include <math.h>

#include "passes/batches.h"

void moving_range_start(MovingRange *m, const TrainRange *r)
{
    float scale = *(const float *)r->scale->data, zero = *(const float *)r->zero->data;
    *m = (MovingRange){
        .ends = {scale * ((float)r->kind.qmin - zero), scale * ((float)r->kind.qmax - zero)}};
    moving_range_settle(m, r);
}

void moving_range_begin_step(MovingRange *m) { m->batch = (Range){0, 0}; }

void moving_range_see(MovingRange *m, float lo, float hi)
{
    m->batch.lo = fminf(m->batch.lo, lo);
    m->batch.hi = fmaxf(m->batch.hi, hi);
}

void moving_range_follow(MovingRange *m, float momentum)
{
    if (!isfinite(m->batch.lo) || !isfinite(m->batch.hi) || m->batch.lo == m->batch.hi) return;
    m->ends[0] = momentum * m->ends[0] + (1 - momentum) * m->batch.lo;
    m->ends[1] = momentum * m->ends[1] + (1 - momentum) * m->batch.hi;
}

void moving_range_settle(MovingRange *m, const TrainRange *r)
{
    m->grid = grid_below((Range){m->ends[0], m->ends[1]}, r->kind, r->top, &m->most);
}

void moving_range_take_home(const MovingRange *m, const TrainRange *r)
{
    Graph *g = r->scale->graph;
    r->scale->data = arena_memdup(g->arena, &m->grid.scale, sizeof m->grid.scale);
    r->zero->data = arena_memdup(g->arena, &m->grid.zero, sizeof m->grid.zero);
    for (int i = 0; i < g->nnodes && m->most > 0; i++)
        if (g->nodes[i]->op == OP_FakeQuant && g->nodes[i]->in[1] == r->scale)
            node_set_attr(g, g->nodes[i], attr_float("scale_max", m->most));
}
