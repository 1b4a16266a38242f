/* Operands of recurrent nodes, whatever their layout. */
#include "runtime/recurrent.h"

#include "runtime/element.h"

static Tensor swapped(Tensor t, int a, int b)
{
    const int64_t dim = t.dim[a], stride = t.stride[a];
    t.dim[a] = t.dim[b], t.stride[a] = t.stride[b];
    t.dim[b] = dim, t.stride[b] = stride;
    return t;
}

RecurrentOperands recurrent_operands(const Node *n, const Tensor *in, const Tensor *out)
{
    const Tensor none = {.rank = -1};
    Tensor t[IN_P + 1], u[3];
    RecurrentOperands o;
    Diag silent = {0};
    if (recurrent_args(n, &o.r, &silent) < 0)
        trap(TRAP_INTERNAL, "a recurrent node without a shape");
    for (int i = 0; i <= IN_P; i++) t[i] = node_in(n, i) ? in[i] : none;
    for (int k = 0; k < 3; k++) u[k] = k < n->nout && n->out[k] ? out[k] : none;
    if (o.r.batch_first) {
        t[IN_X] = swapped(t[IN_X], 0, 1);
        t[IN_H] = swapped(t[IN_H], 0, 1);
        t[IN_C] = swapped(t[IN_C], 0, 1);
        u[0] = swapped(swapped(u[0], 0, 1), 1, 2); /* batch, time, dirs: time, dirs, batch */
        u[1] = swapped(u[1], 0, 1);
        u[2] = swapped(u[2], 0, 1);
    }
    o.x = t[IN_X], o.w = t[IN_W], o.rec = t[IN_R], o.b = t[IN_B], o.lengths = t[IN_LENGTHS];
    o.h0 = t[IN_H], o.c0 = t[IN_C], o.p = t[IN_P];
    o.y = u[0], o.yh = u[1], o.yc = u[2];
    return o;
}

int64_t recurrent_length(const RecurrentOperands *o, int64_t s)
{
    if (o->lengths.rank < 0) return o->r.time;
    const int64_t n = element_load_int(&o->lengths, s * o->lengths.stride[0]);
    return n < 0 ? 0 : n > o->r.time ? o->r.time : n;
}
