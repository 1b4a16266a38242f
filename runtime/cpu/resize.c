/* Resize and its transpose, axis after axis: in the order of memory an axis is rows of `inner`
 * floats, `outer` times, and a row of the output is a weighted sum of rows of the input. Between
 * the axes the image lies dense in scratch. Axes that stay as they are cost nothing. */
#include "ir/resample.h"
#include "ir/simd.h"
#include "runtime/cpu/cpu.h"

#include <string.h>

/* One axis to be resampled. */
typedef struct AxisPass {
    Resample map;
    int64_t outer, inner;
} AxisPass;

typedef struct State {
    ResizeMaps maps;
    bool transposed, last, strided; /* channels-last; neither that nor row-major */
    int passes;
    AxisPass pass[MAX_RANK];
    int64_t buffer; /* floats in each of two buffers */
} State;

/* The k-th axis in the order of memory, outermost first. */
static int memory_axis(const State *s, int k)
{
    return !s->last || k == 0 ? k : k + 1 < s->maps.rank ? k + 1 : 1;
}

static int64_t size_before(const State *s, int k)
{
    const Resample *m = &s->maps.axis[memory_axis(s, k)];
    return s->transposed ? m->out : m->in;
}

static int64_t size_after(const State *s, int k)
{
    const Resample *m = &s->maps.axis[memory_axis(s, k)];
    return s->transposed ? m->in : m->out;
}

static void plan_passes(State *s)
{
    for (int k = 0; k < s->maps.rank; k++) {
        const Resample *m = &s->maps.axis[memory_axis(s, k)];
        if (m->identity) continue;
        AxisPass *pass = &s->pass[s->passes++];
        *pass = (AxisPass){*m, 1, 1};
        for (int j = 0; j < k; j++) pass->outer *= size_after(s, j);
        for (int j = k + 1; j < s->maps.rank; j++) pass->inner *= size_before(s, j);
        int64_t result = pass->outer * size_after(s, k) * pass->inner;
        if (result > s->buffer) s->buffer = result;
    }
}

int cpu_resize_prepare(Prepare *p)
{
    Arena *a = arena_new();
    State *s = NEW(a, State);
    const Tensor *x = &p->in[0], *y = &p->out[0];
    bool row_major = tensor_is_row_major(x) && tensor_is_row_major(y);
    size_t naive = (size_t)tensor_count(y) * sizeof(double);
    s->maps.arena = a;
    p->state = s;
    s->transposed = p->node->op == OP_ResizeGrad;
    s->last = !row_major && tensor_is_channels_last(x) && tensor_is_channels_last(y);
    s->strided = !row_major && !s->last;
    if (resize_maps(&s->maps, p->node, p->diag) < 0) return -1;
    plan_passes(s);
    p->scratch = (size_t)s->buffer * 2 * sizeof(float);
    if (p->scratch < naive) p->scratch = naive;
    return 0;
}

void cpu_resize_release(void *state)
{
    if (state) arena_free(((State *)state)->maps.arena);
}

CLONES static void add_row(float *restrict y, const float *restrict x, float w, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] += w * x[i];
}

CLONES static void weighted_row(float *restrict y, const float *restrict x, float w, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = w * x[i];
}

static void fill_row(float *y, float v, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = v;
}

/* One element a row: the axis is the innermost. */
static void gather_line(const Resample *m, float *y, const float *x)
{
    const int64_t *at = m->at;
    const double *weight = m->weight;
    for (int64_t p = 0; p < m->out; p++, at += m->taps, weight += m->taps) {
        float sum = (float)weight[0] * x[at[0]];
        for (int64_t k = 1; k < m->taps; k++) sum += (float)weight[k] * x[at[k]];
        y[p] = sum;
    }
}

/* x [in][inner] -> y [out][inner] */
static void gather_rows(const Resample *m, int64_t inner, float *y, const float *x)
{
    if (inner == 1) {
        gather_line(m, y, x);
        return;
    }
    for (int64_t p = 0; p < m->out; p++, y += inner) {
        bool empty = true;
        for (int64_t k = p * m->taps; k < (p + 1) * m->taps; k++) {
            const float *row = x + m->at[k] * inner;
            if (m->weight[k] == 0) continue;
            if (!empty)
                add_row(y, row, (float)m->weight[k], inner);
            else if (m->weight[k] == 1)
                memcpy(y, row, (size_t)inner * sizeof *y);
            else
                weighted_row(y, row, (float)m->weight[k], inner);
            empty = false;
        }
        if (empty) fill_row(y, 0, inner);
    }
}

/* dy [out][inner] -> dx [in][inner] */
static void scatter_rows(const Resample *m, int64_t inner, float *dx, const float *dy)
{
    fill_row(dx, 0, m->in * inner);
    for (int64_t p = 0; p < m->out; p++, dy += inner) {
        if (m->outside && m->outside[p]) continue;
        for (int64_t k = p * m->taps; k < (p + 1) * m->taps; k++)
            add_row(dx + m->at[k] * inner, dy, (float)m->weight[k], inner);
    }
}

static void run_pass(const AxisPass *pass, bool transposed, float *y, const float *x)
{
    const Resample *m = &pass->map;
    int64_t from = (transposed ? m->out : m->in) * pass->inner;
    int64_t to = (transposed ? m->in : m->out) * pass->inner;
    for (int64_t i = 0; i < pass->outer; i++) {
        if (transposed)
            scatter_rows(m, pass->inner, y + i * to, x + i * from);
        else
            gather_rows(m, pass->inner, y + i * to, x + i * from);
    }
}

/* A crop that leaves the image wants a constant there. */
static bool has_outside(const State *s)
{
    for (int k = 0; k < MAX_RANK; k++)
        if (s->maps.axis[k].outside) return true;
    return false;
}

void cpu_resize_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                    void *scratch)
{
    const State *s = state;
    float *buffer[2] = {scratch, (float *)scratch + s->buffer};
    const float *x = in[0].data;
    if (in[0].dtype != DT_F32 || s->strided || (has_outside(s) && !s->transposed)) {
        cpu_naive_run(n, &s->maps, in, out, scratch);
        return;
    }
    if (tensor_count(&out[0]) == 0) return;
    if (s->passes == 0) memcpy(out[0].data, x, (size_t)tensor_count(&out[0]) * sizeof *x);
    for (int k = 0; k < s->passes; k++) {
        float *y = k + 1 == s->passes ? out[0].data : buffer[k % 2];
        run_pass(&s->pass[k], s->transposed, y, x);
        x = y;
    }
}
