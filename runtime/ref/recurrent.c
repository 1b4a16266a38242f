/* LSTM, GRU and RNN, one sample and one step after the other. */
#include "runtime/recurrent.h"

#include "runtime/ref/ref.h"

/* One direction of one sample. */
typedef struct Cell {
    const RecurrentOperands *o;
    const Activation *act;
    int64_t dir, sample, hidden;
    double *h, *c, *gate, *fresh; /* hidden, hidden, gates * hidden, hidden */
} Cell;

static double apply(const Activation *f, double x)
{
#define CASE(name)                                                                                 \
    case OP_##name:                                                                                \
        y = scalar_##name##0_double(x * (double)f->pre, (double)f->alpha, (double)f->beta);        \
        break;
    double y = 0;
    switch ((int)f->op) {
        ACTIVATION_LIST(CASE)
    default:
        break;
    }
    return y * (double)f->post + (double)f->shift;
#undef CASE
}

static double gate_of(const Cell *k, int which, double x)
{
    const double clip = (double)k->o->r.clip;
    if (clip > 0) x = x < -clip ? -clip : x > clip ? clip : x;
    return apply(&k->act[which], x);
}

static double at2(const Tensor *t, int64_t i, int64_t j)
{
    return t->rank < 0 ? 0 : load(t, i * t->stride[0] + j * t->stride[1]);
}

static double at3(const Tensor *t, int64_t i, int64_t j, int64_t k)
{
    return t->rank < 0 ? 0 : load(t, i * t->stride[0] + j * t->stride[1] + k * t->stride[2]);
}

/* Row `row` of W times x at step t, and its bias. */
static double from_input(const Cell *k, int64_t t, int64_t row)
{
    const RecurrentOperands *o = k->o;
    double sum = at2(&o->b, k->dir, row);
    for (int64_t i = 0; i < o->r.in; i++)
        sum += at3(&o->w, k->dir, row, i) * at3(&o->x, t, k->sample, i);
    return sum;
}

/* Row `row` of R times h, and its bias. */
static double from_state(const Cell *k, const double *h, int64_t row)
{
    const RecurrentOperands *o = k->o;
    double sum = at2(&o->b, k->dir, o->r.gates * k->hidden + row);
    for (int64_t i = 0; i < k->hidden; i++) sum += at3(&o->rec, k->dir, row, i) * h[i];
    return sum;
}

static double peephole(const Cell *k, int64_t which, int64_t j, double c)
{
    return at2(&k->o->p, k->dir, which * k->hidden + j) * c;
}

static void lstm_step(Cell *k, int64_t t)
{
    const int64_t n = k->hidden;
    for (int64_t g = 0; g < 4 * n; g++) k->gate[g] = from_input(k, t, g) + from_state(k, k->h, g);
    for (int64_t j = 0; j < n; j++) {
        const double c = k->c[j], *a = k->gate + j;
        const double in = gate_of(k, 0, a[0] + peephole(k, 0, j, c));
        const double forget =
            k->o->r.input_forget ? 1 - in : gate_of(k, 0, a[2 * n] + peephole(k, 2, j, c));
        k->c[j] = forget * c + in * gate_of(k, 1, a[3 * n]);
        const double out = gate_of(k, 0, a[n] + peephole(k, 1, j, k->c[j]));
        k->h[j] = out * apply(&k->act[2], k->c[j]);
    }
}

static void gru_step(Cell *k, int64_t t)
{
    const int64_t n = k->hidden;
    for (int64_t g = 0; g < 2 * n; g++)
        k->gate[g] = gate_of(k, 0, from_input(k, t, g) + from_state(k, k->h, g));
    for (int64_t j = 0; j < n; j++)
        k->fresh[j] = k->o->r.reset_after ? k->h[j] : k->gate[n + j] * k->h[j];
    for (int64_t j = 0; j < n; j++) {
        const double inner = from_state(k, k->fresh, 2 * n + j);
        const double reset = k->o->r.reset_after ? k->gate[n + j] : 1;
        k->gate[2 * n + j] = gate_of(k, 1, from_input(k, t, 2 * n + j) + reset * inner);
    }
    for (int64_t j = 0; j < n; j++)
        k->h[j] = (1 - k->gate[j]) * k->gate[2 * n + j] + k->gate[j] * k->h[j];
}

static void rnn_step(Cell *k, int64_t t)
{
    for (int64_t j = 0; j < k->hidden; j++)
        k->gate[j] = gate_of(k, 0, from_input(k, t, j) + from_state(k, k->h, j));
    for (int64_t j = 0; j < k->hidden; j++) k->h[j] = k->gate[j];
}

static void store_row(const Tensor *t, int64_t offset, const double *x, int64_t n)
{
    for (int64_t j = 0; j < n && t->rank >= 0; j++)
        element_store(t, offset + j * t->stride[t->rank - 1], x ? x[j] : 0);
}

static void run_cell(const Node *n, Cell *k)
{
    const RecurrentOperands *o = k->o;
    const int64_t length = recurrent_length(o, k->sample), last = k->dir;
    for (int64_t j = 0; j < k->hidden; j++) {
        k->h[j] = at3(&o->h0, k->dir, k->sample, j);
        k->c[j] = at3(&o->c0, k->dir, k->sample, j);
    }
    for (int64_t s = 0; s < o->r.time; s++) {
        const int64_t t = o->r.reverse[k->dir] ? o->r.time - 1 - s : s;
        const bool counts = t < length;
        if (counts && n->op == OP_LSTM) lstm_step(k, t);
        if (counts && n->op == OP_GRU) gru_step(k, t);
        if (counts && n->op == OP_RNN) rnn_step(k, t);
        store_row(&o->y, t * o->y.stride[0] + k->dir * o->y.stride[1] + k->sample * o->y.stride[2],
                  counts ? k->h : NULL, k->hidden);
    }
    store_row(&o->yh, last * o->yh.stride[0] + k->sample * o->yh.stride[1], k->h, k->hidden);
    store_row(&o->yc, last * o->yc.stride[0] + k->sample * o->yc.stride[1], k->c, k->hidden);
}

int ref_recurrent_prepare(Prepare *p)
{
    Recurrent r;
    if (recurrent_args(p->node, &r, p->diag) < 0) return -1;
    p->scratch = (size_t)((r.gates + 3) * r.hidden) * sizeof(double);
    return 0;
}

REF_KERNEL(recurrent)
{
    UNUSED_STATE;
    const RecurrentOperands o = recurrent_operands(n, in, out);
    const int64_t size = o.r.hidden;
    double *h = scratch;
    for (int64_t dir = 0; dir < o.r.dirs; dir++)
        for (int64_t s = 0; s < o.r.batch; s++) {
            Cell k = {&o, o.r.act[dir], dir, s, size, h, h + size, h + 3 * size, h + 2 * size};
            run_cell(n, &k);
        }
}
