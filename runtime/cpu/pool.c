/* Pooling in one to three dimensions, its gradients, and the tangent of max pooling.
 *
 * For every window the offsets of its taps inside the input are listed in row-major order; an
 * op then works on all channels at a tap at once. In channels-last tensors those are
 * contiguous, and the loops vectorize. The gradients recompute the argmax from x; of equal
 * maxima the first tap gets the gradient. */
#include "ir/simd.h"
#include "ir/window.h"
#include "runtime/cpu/cpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SPATIAL = 3 };

/* Padded to three spatial axes, of which leading ones may be of size 1. */
typedef struct PoolShape {
    int64_t n, c, taps, in[SPATIAL], out[SPATIAL];
    int64_t kernel[SPATIAL], stride[SPATIAL], dilation[SPATIAL], pad_lo[SPATIAL], pad_hi[SPATIAL];
    bool count_pad; /* AveragePool divides by the taps in the padding too */
} PoolShape;

/* A tensor's data and strides in the same axes. */
typedef struct Place {
    float *data;
    int64_t n, c, at[SPATIAL];
} Place;

static Place place_of(const Tensor *t)
{
    Place p = {.data = t->data, .n = t->stride[0], .c = t->stride[1]};
    for (int i = 2; i < t->rank; i++) p.at[SPATIAL - t->rank + i] = t->stride[i];
    return p;
}

/* big: what the windows slide over. */
static void set_shape(PoolShape *s, const Node *n, const Window *w, const Tensor *big)
{
    *s = (PoolShape){.n = big->dim[0], .c = big->dim[1], .taps = 1};
    s->count_pad = node_int(n, "count_include_pad", 0) != 0;
    for (int i = 0; i < SPATIAL; i++) {
        int from = i - (SPATIAL - w->n);
        bool real = from >= 0;
        s->in[i] = real ? w->in[from] : 1;
        s->out[i] = real ? w->out[from] : 1;
        s->kernel[i] = real ? w->kernel[from] : 1;
        s->stride[i] = real ? w->stride[from] : 1;
        s->dilation[i] = real ? w->dilation[from] : 1;
        s->pad_lo[i] = real ? w->pad[from] : 0;
        s->pad_hi[i] = real ? w->pad_end[from] : 0;
        s->taps *= s->kernel[i];
    }
}

/* One window: pos[] of its position, the taps [lo, hi) of the kernel inside the input. */
typedef struct WindowAt {
    int64_t n, pos[SPATIAL], start[SPATIAL], lo[SPATIAL], hi[SPATIAL];
    float weight; /* of each tap in the mean */
} WindowAt;

/* Taps below `end`, a distance from the window's start. */
static int64_t taps_below(int64_t end, int64_t dilation, int64_t kernel)
{
    int64_t n = end <= 0 ? 0 : (end + dilation - 1) / dilation;
    return n < kernel ? n : kernel;
}

static void window_enter(const PoolShape *s, WindowAt *w)
{
    int64_t count = 1;
    for (int i = 0; i < SPATIAL; i++) {
        int64_t d = s->dilation[i], k = s->kernel[i];
        w->start[i] = w->pos[i] * s->stride[i] - s->pad_lo[i];
        w->lo[i] = taps_below(-w->start[i], d, k);
        w->hi[i] = taps_below(s->in[i] - w->start[i], d, k);
        /* With ceil_mode the last window may hang over the padding's end: not counted. */
        count *= s->count_pad ? taps_below(s->in[i] + s->pad_hi[i] - w->start[i], d, k)
                              : w->hi[i] - w->lo[i];
    }
    w->weight = count > 0 ? (float)(1.0 / (double)count) : 0.f;
}

/* Steps to the next window in row-major order of (n, pos); false after the last. */
static bool window_next(const PoolShape *s, WindowAt *w)
{
    for (int i = SPATIAL - 1; i >= 0; i--) {
        if (++w->pos[i] < s->out[i]) return true;
        w->pos[i] = 0;
    }
    return ++w->n < s->n;
}

static bool is_empty(const PoolShape *s)
{
    return s->n * s->c * s->out[0] * s->out[1] * s->out[2] == 0;
}

/* Offsets of the window's taps in a tensor, at channel 0; returns how many. */
static int list_taps(const PoolShape *s, const WindowAt *w, const Place *p, int64_t *at)
{
    int n = 0;
    for (int64_t z = w->lo[0]; z < w->hi[0]; z++)
        for (int64_t y = w->lo[1]; y < w->hi[1]; y++)
            for (int64_t x = w->lo[2]; x < w->hi[2]; x++)
                at[n++] = w->n * p->n + (w->start[0] + z * s->dilation[0]) * p->at[0] +
                          (w->start[1] + y * s->dilation[1]) * p->at[1] +
                          (w->start[2] + x * s->dilation[2]) * p->at[2];
    return n;
}

static float *window_value(const Place *p, const WindowAt *w)
{
    int64_t at = w->n * p->n;
    for (int i = 0; i < SPATIAL; i++) at += w->pos[i] * p->at[i];
    return p->data + at;
}

/* ---- loops over channels; a stride of 1 is the fast case ----------------------------- */

#define CHANNEL_LOOP(name, statement)                                                              \
    CLONES static void name(float *y, int64_t sy, const float *x, int64_t sx, int64_t n, float a)  \
    {                                                                                              \
        (void)a;                                                                                   \
        if (sx == 1 && sy == 1)                                                                    \
            INDEPENDENT for (int64_t i = 0, j = 0; i < n; i++, j++) statement;                     \
        else                                                                                       \
            for (int64_t c = 0, i = 0, j = 0; c < n; c++, i += sy, j += sx) statement;             \
    }
CHANNEL_LOOP(channels_scale, y[i] = x[j] * a)
CHANNEL_LOOP(channels_add_scaled, y[i] += x[j] * a)

/* y[c] from all taps, x[at[k] + c]. */
#define TAPS_LOOP(name, combine)                                                                   \
    CLONES static void name(float *restrict y, int64_t sy, const float *restrict x, int64_t sx,    \
                            const int64_t *at, int taps, int64_t n)                                \
    {                                                                                              \
        for (int64_t c = 0; c < n; c++) y[c * sy] = x[at[0] + c * sx];                             \
        for (int k = 1; k < taps; k++) {                                                           \
            const float *p = x + at[k];                                                            \
            if (sx == 1 && sy == 1)                                                                \
                for (int64_t i = 0, j = 0; i < n; i++, j++) combine;                               \
            else                                                                                   \
                for (int64_t c = 0, i = 0, j = 0; c < n; c++, i += sy, j += sx) combine;           \
        }                                                                                          \
    }
TAPS_LOOP(taps_max, y[i] = p[j] <= y[i] || y[i] != y[i] ? y[i] : p[j])
TAPS_LOOP(taps_sum, y[i] += p[j])

/* ---- MaxPool, AveragePool and its transpose ------------------------------------------ */

static void slide(const PoolShape *s, const Tensor *in, const Tensor *out, void *scratch, bool mean)
{
    Place x = place_of(&in[0]), y = place_of(&out[0]);
    int64_t *at = scratch;
    WindowAt w = {0};
    if (is_empty(s)) return;
    do {
        window_enter(s, &w);
        float *v = window_value(&y, &w);
        int taps = list_taps(s, &w, &x, at);
        if (taps == 0) {
            for (int64_t c = 0; c < s->c; c++) v[c * y.c] = mean ? 0.f : -INFINITY;
            continue;
        }
        (mean ? taps_sum : taps_max)(v, y.c, x.data, x.c, at, taps, s->c);
        if (mean) channels_scale(v, y.c, v, y.c, s->c, w.weight);
    } while (window_next(s, &w));
}

static void slide_max(const PoolShape *s, const Tensor *in, const Tensor *out, void *scratch)
{
    slide(s, in, out, scratch, false);
}

static void slide_mean(const PoolShape *s, const Tensor *in, const Tensor *out, void *scratch)
{
    slide(s, in, out, scratch, true);
}

/* dx += dy / count at every tap. */
static void spread_mean(const PoolShape *s, const Tensor *in, const Tensor *out, void *scratch)
{
    Place dy = place_of(&in[0]), dx = place_of(&out[0]);
    int64_t *at = scratch;
    WindowAt w = {0};
    cpu_fill_zero(&out[0]);
    if (is_empty(s)) return;
    do {
        window_enter(s, &w);
        const float *v = window_value(&dy, &w);
        int taps = list_taps(s, &w, &dx, at);
        for (int k = 0; k < taps; k++)
            channels_add_scaled(dx.data + at[k], dx.c, v, dy.c, s->c, w.weight);
    } while (window_next(s, &w));
}

/* ---- through the maxima -------------------------------------------------------------- */

/* The number of the first tap that holds the maximum, per channel; a NaN is larger than all. */
CLONES static void first_maxima(float *restrict best, int32_t *restrict which,
                                const float *restrict x, const int64_t *at, int taps,
                                int64_t stride, int64_t n)
{
    for (int64_t c = 0; c < n; c++) best[c] = x[at[0] + c * stride], which[c] = 0;
    for (int32_t k = 1; k < taps; k++) {
        const float *p = x + at[k];
        if (stride == 1)
            for (int64_t c = 0; c < n; c++) {
                int keep = (p[c] <= best[c]) | (best[c] != best[c]);
                best[c] = keep ? best[c] : p[c];
                which[c] = keep ? which[c] : k;
            }
        else
            for (int64_t c = 0; c < n; c++) {
                float v = p[c * stride];
                if (v <= best[c] || best[c] != best[c]) continue;
                best[c] = v;
                which[c] = k;
            }
    }
}

typedef struct Argmax {
    int64_t *in_x, *in_other; /* tap offsets in x, and in a tensor of its shape */
    float *best;
    int32_t *which;
} Argmax;

static Argmax argmax_scratch(const PoolShape *s, void *scratch)
{
    Argmax a = {.in_x = scratch};
    a.in_other = a.in_x + s->taps;
    a.best = (float *)(void *)(a.in_other + s->taps);
    a.which = (int32_t *)(void *)(a.best + s->c);
    return a;
}

static int find_argmax(Argmax *a, const PoolShape *s, const WindowAt *w, const Place *x,
                       const Place *other)
{
    int taps = list_taps(s, w, x, a->in_x);
    list_taps(s, w, other, a->in_other);
    if (taps > 0) first_maxima(a->best, a->which, x->data, a->in_x, taps, x->c, s->c);
    return taps;
}

/* MaxPoolGrad(dy, x) -> dx */
static void scatter_to_maxima(const PoolShape *s, const Tensor *in, const Tensor *out,
                              void *scratch)
{
    Place dy = place_of(&in[0]), x = place_of(&in[1]), dx = place_of(&out[0]);
    Argmax a = argmax_scratch(s, scratch);
    WindowAt w = {0};
    cpu_fill_zero(&out[0]);
    if (is_empty(s)) return;
    do {
        window_enter(s, &w);
        const float *v = window_value(&dy, &w);
        if (find_argmax(&a, s, &w, &x, &dx) == 0) continue;
        for (int64_t c = 0; c < s->c; c++)
            dx.data[a.in_other[a.which[c]] + c * dx.c] += v[c * dy.c];
    } while (window_next(s, &w));
}

/* MaxPoolPick(dx, x) -> dy */
static void pick_at_maxima(const PoolShape *s, const Tensor *in, const Tensor *out, void *scratch)
{
    Place dx = place_of(&in[0]), x = place_of(&in[1]), dy = place_of(&out[0]);
    Argmax a = argmax_scratch(s, scratch);
    WindowAt w = {0};
    if (is_empty(s)) return;
    do {
        window_enter(s, &w);
        float *v = window_value(&dy, &w);
        int taps = find_argmax(&a, s, &w, &x, &dx);
        for (int64_t c = 0; c < s->c; c++)
            v[c * dy.c] = taps ? dx.data[a.in_other[a.which[c]] + c * dx.c] : 0.f;
    } while (window_next(s, &w));
}

/* ---- the ops ------------------------------------------------------------------------- */

typedef void PoolFn(const PoolShape *s, const Tensor *in, const Tensor *out, void *scratch);

/* The function, and which operand the windows slide over: an input, or -1 for the output. */
static const struct {
    PoolFn *run;
    int big;
} pools[OP_COUNT] = {
    [OP_MaxPool] = {slide_max, 0},
    [OP_AveragePool] = {slide_mean, 0},
    [OP_AveragePoolGrad] = {spread_mean, -1},
    [OP_MaxPoolGrad] = {scatter_to_maxima, 1},
    [OP_MaxPoolPick] = {pick_at_maxima, 1},
};

/* More than three dimensions, quantized types, or the positions of the maxima: state stays NULL,
 * reference. */
static bool use_naive(const Prepare *p)
{
    const Node *n = p->node;
    return p->in[0].rank - 2 > SPATIAL || p->in[0].dtype != DT_F32 ||
           (n->op == OP_MaxPool && n->nout > 1 && n->out[1]);
}

int cpu_pool_prepare(Prepare *p)
{
    const Node *n = p->node;
    Window w;
    if (p->in[0].dtype != DT_F32 || use_naive(p)) return cpu_naive_prepare(p);
    TRY(node_window(n, &w, p->diag));
    PoolShape *s = malloc(sizeof *s);
    if (!s) trap(TRAP_NO_MEMORY, "out of memory for a kernel");
    set_shape(s, n, &w, pools[n->op].big < 0 ? &p->out[0] : &p->in[pools[n->op].big]);
    p->state = s;
    /* two lists of taps, then the argmax of each channel */
    p->scratch =
        (size_t)s->taps * 2 * sizeof(int64_t) + (size_t)s->c * (sizeof(float) + sizeof(int32_t));
    return 0;
}

void cpu_pool_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                  void *scratch)
{
    if (state)
        pools[n->op].run(state, in, out, scratch);
    else
        cpu_naive_run(n, NULL, in, out, scratch);
}

/* ---- global: a reduction ------------------------------------------------------------- */

int cpu_global_pool_prepare(Prepare *p)
{
    p->scratch = (size_t)tensor_count(&p->out[0]) * sizeof(double);
    return 0;
}

void cpu_global_pool_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                         void *scratch)
{
    const Tensor *x[] = {&in[0]};
    int64_t count = tensor_count(&out[0]);
    double *acc = scratch;
    bool mean = n->op == OP_GlobalAveragePool;
    (void)state;
    cpu_accumulate(mean ? REDUCE_SUM : REDUCE_MAX, NULL, NULL, 1, x, &out[0], acc);
    double each = mean && count > 0 ? (double)count / (double)tensor_count(&in[0]) : 1;
    for (int64_t i = 0; i < count; i++) acc[i] *= each;
    store_doubles(&out[0], acc);
}
