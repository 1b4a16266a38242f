/* LSTM, GRU and RNN. Products by oneDNN: x W' for many steps at once, h R' for every step, all
 * samples together. Between them the gates, a sample at a time, in float; the maths is that of
 * runtime/ref/recurrent.c. A sample that has ended keeps its states while the others go on. */
#include "runtime/recurrent.h"

#include "ir/ops/common.h"
#include "ir/simd.h"
#include "runtime/cpu/cpu.h"
#include "runtime/cpu/primitive.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK_ROWS = 1024 }; /* of x W' at a time */

/* By direction. A GRU that resets the state before the product makes the update and reset gates
 * first, then the candidate from the reset state (`kept`, into `c`). */
typedef struct Products {
    Primitive input, state, fresh;
} Products;

typedef struct Layer {
    Recurrent r;
    int64_t width;  /* of the gates of one sample: gates * hidden */
    int64_t chunk;  /* steps of x W' at a time */
    int64_t joined; /* columns of the product h R' that `state` makes */
    size_t pad;     /* of oneDNN */
    Products product[2];
} Layer;

/* ---- gates -------------------------------------------------------------------------- */

typedef void ActivateFn(const Activation *f, float clip, int64_t n, float *x);

#define ACTIVATE(name)                                                                             \
    CLONES static void activate_##name(const Activation *f, float clip, int64_t n, float *x)       \
    {                                                                                              \
        const float a = f->alpha, b = f->beta, pre = f->pre, post = f->post, shift = f->shift;     \
        (void)a, (void)b;                                                                          \
        INDEPENDENT for (int64_t i = 0; i < n; i++)                                                \
        {                                                                                          \
            const float v = x[i] < -clip ? -clip : x[i] > clip ? clip : x[i];                      \
            x[i] = scalar_##name##0_float(v * pre, a, b) * post + shift;                           \
        }                                                                                          \
    }
ACTIVATION_LIST(ACTIVATE)

#define ACTIVATE_ROW(name) [OP_##name] = activate_##name,
static ActivateFn *const activations[OP_COUNT] = {ACTIVATION_LIST(ACTIVATE_ROW)};

static void activate(const Activation *f, float clip, int64_t n, float *x)
{
    activations[f->op](f, clip > 0 ? clip : INFINITY, n, x);
}

CLONES static void add(int64_t n, float *restrict y, const float *restrict x)
{
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

CLONES static void multiply(int64_t n, float *restrict y, const float *restrict x)
{
    for (int64_t i = 0; i < n; i++) y[i] *= x[i];
}

CLONES static void add_product(int64_t n, float *restrict y, const float *restrict a,
                               const float *restrict b)
{
    for (int64_t i = 0; i < n; i++) y[i] += a[i] * b[i];
}

/* c = f c + i g */
CLONES static void next_cell(int64_t n, float *restrict c, const float *restrict i,
                             const float *restrict f, const float *restrict g)
{
    for (int64_t k = 0; k < n; k++) c[k] = f[k] * c[k] + i[k] * g[k];
}

/* h = (1 - z) g + z h */
CLONES static void blend(int64_t n, float *restrict h, const float *restrict z,
                         const float *restrict g)
{
    for (int64_t k = 0; k < n; k++) h[k] = (1 - z[k]) * g[k] + z[k] * h[k];
}

/* ---- preparation -------------------------------------------------------------------- */

/* y[rows, columns] = a[rows, depth] b', b[columns, depth] being row-major. */
static int make_product(Primitive *q, int64_t rows, int64_t depth, int64_t columns,
                        const float *constant)
{
    const dnnl_dims_t size[3] = {{rows, depth}, {depth, columns}, {rows, columns}};
    const dnnl_dims_t stride[3] = {{depth, 1}, {1, depth}, {columns, 1}};
    static const int arg[3] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    MemDesc own[3] = {0}, packed = {0};
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    int status = dnnl_engine_create(&q->engine, dnnl_cpu, 0) == dnnl_success ? 0 : -1;
    for (int k = 0; k < 3 && status == 0; k++)
        status = md_strided(&own[k], 2, size[k], dnnl_f32, stride[k]) == dnnl_success ? 0 : -1;
    if (status == 0)
        status = md_any(&packed, 2, size[1], dnnl_f32) == dnnl_success &&
                         primitive_attr(&attr) == dnnl_success
                     ? 0
                     : -1;
    if (status == 0)
        status = matmul_desc(&pd, q->engine, &own[0], constant ? &packed : &own[1], &own[2],
                             attr) == dnnl_success
                     ? 0
                     : -1;
    for (int k = 0; k < 3 && status == 0; k++)
        status = primitive_operand(q, pd, arg[k], &own[k], k == 1 ? constant : NULL);
    if (status == 0) status = primitive_finish(q, pd);
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (attr) dnnl_primitive_attr_destroy(attr);
    for (int k = 0; k < 3; k++) md_free(&own[k]);
    md_free(&packed);
    return status;
}

/* From element `offset` of a constant on; NULL if input i is none. */
static const float *constant_at(const Prepare *p, int i, int64_t offset)
{
    const float *data = p->const_data ? p->const_data[i] : NULL;
    return data ? data + offset : NULL;
}

static int make_products(Layer *l, const Prepare *p)
{
    const Recurrent *r = &l->r;
    for (int d = 0; d < r->dirs; d++) {
        Products *q = &l->product[d];
        const int64_t rec = d * l->width * r->hidden;
        TRY(make_product(&q->input, l->chunk * r->batch, r->in, l->width,
                         constant_at(p, IN_W, d * l->width * r->in)));
        TRY(make_product(&q->state, r->batch, r->hidden, l->joined, constant_at(p, IN_R, rec)));
        if (l->joined < l->width)
            TRY(make_product(&q->fresh, r->batch, r->hidden, r->hidden,
                             constant_at(p, IN_R, rec + l->joined * r->hidden)));
    }
    return 0;
}

void cpu_recurrent_release(void *state)
{
    Layer *l = state;
    for (int d = 0; l && d < 2; d++) {
        primitive_free(&l->product[d].input);
        primitive_free(&l->product[d].state);
        primitive_free(&l->product[d].fresh);
    }
    free(l);
}

static size_t largest_pad(const Layer *l)
{
    size_t pad = 0;
    for (int d = 0; d < 2; d++) {
        const Primitive *q[] = {&l->product[d].input, &l->product[d].state, &l->product[d].fresh};
        for (int k = 0; k < 3; k++) {
            primitive_check_memory(q[k]);
            if (q[k]->scratch > pad) pad = q[k]->scratch;
        }
    }
    return pad;
}

/* ---- one direction ------------------------------------------------------------------ */

typedef struct Run {
    const Layer *l;
    const RecurrentOperands *o;
    int dir;
    int64_t first;                    /* step of the first row of xw; -1: there is none yet */
    float *x, *xw;                    /* [chunk, batch, in], [chunk, batch, width] */
    float *gate, *h, *c, *kept, *sum; /* [batch, width], [batch, hidden] three times, [width] */
    void *pad;
} Run;

enum { STATES = 3 };

static size_t floats_wanted(const Layer *l)
{
    const Recurrent *r = &l->r;
    int64_t rows = l->chunk * r->batch;
    int64_t n = mul_sat(rows, r->in + l->width) + mul_sat(r->batch, l->width + STATES * r->hidden) +
                l->width;
    return (size_t)n * sizeof(float);
}

static void place(Run *k, void *scratch)
{
    const Recurrent *r = &k->l->r;
    const int64_t rows = k->l->chunk * r->batch, width = k->l->width, states = r->batch * r->hidden;
    char *base = scratch;
    k->pad = base;
    k->x = (float *)(void *)(base + k->l->pad);
    k->xw = k->x + rows * r->in;
    k->gate = k->xw + rows * width;
    k->h = k->gate + r->batch * width;
    k->c = k->h + states;
    k->kept = k->c + states;
    k->sum = k->kept + states;
}

static const float *vector(const Tensor *t, int64_t i)
{
    return t->rank < 0 ? NULL : (const float *)t->data + i * t->stride[0];
}

static bool resets_after(const Layer *l) { return l->r.gates == 3 && l->r.reset_after; }

/* All biases that may be added before the gates: but for a GRU's candidate, whose recurrent part
 * the reset gate multiplies. */
static void sum_biases(Run *k)
{
    const float *b = vector(&k->o->b, k->dir);
    const int64_t width = k->l->width;
    memset(k->sum, 0, (size_t)width * sizeof *k->sum);
    if (!b) return;
    add(width, k->sum, b);
    add(resets_after(k->l) ? 2 * k->l->r.hidden : width, k->sum, b + width);
}

/* Rows of x in the order of time and sample. */
static const float *input_rows(const Run *k)
{
    const Tensor *x = &k->o->x;
    const Recurrent *r = &k->l->r;
    const float *from = (const float *)x->data + k->first * x->stride[0];
    if (!r->batch_first) return from;
    for (int64_t t = 0; t < k->l->chunk; t++)
        for (int64_t s = 0; s < r->batch; s++)
            memcpy(k->x + (t * r->batch + s) * r->in, from + t * x->stride[0] + s * x->stride[1],
                   (size_t)r->in * sizeof *from);
    return k->x;
}

/* Makes x W' and the biases of step t, and of those that follow it. */
static void project(Run *k, int64_t t)
{
    const Layer *l = k->l;
    const int64_t last = l->r.time - l->chunk, back = t - l->chunk + 1;
    if (k->first >= 0 && t >= k->first && t < k->first + l->chunk) return;
    k->first = l->r.reverse[k->dir] ? (back > 0 ? back : 0) : (t < last ? t : last);
    void *data[] = {(void *)(uintptr_t)input_rows(k), (void *)(uintptr_t)vector(&k->o->w, k->dir),
                    k->xw};
    primitive_run(&l->product[k->dir].input, data, k->pad);
    for (int64_t row = 0; row < l->chunk * l->r.batch; row++)
        add(l->width, k->xw + row * l->width, k->sum);
}

static void lstm_cell(const Run *k, float *a, float *h, float *c)
{
    const Recurrent *r = &k->l->r;
    const Activation *act = r->act[k->dir];
    const int64_t n = r->hidden;
    const float *p = vector(&k->o->p, k->dir);
    if (p) add_product(n, a, p, c);
    if (p) add_product(n, a + 2 * n, p + 2 * n, c);
    activate(&act[0], r->clip, n, a);
    if (!r->input_forget) activate(&act[0], r->clip, n, a + 2 * n);
    for (int64_t j = 0; j < n && r->input_forget; j++) a[2 * n + j] = 1 - a[j];
    activate(&act[1], r->clip, n, a + 3 * n);
    next_cell(n, c, a, a + 2 * n, a + 3 * n);
    if (p) add_product(n, a + n, p + n, c);
    activate(&act[0], r->clip, n, a + n);
    memcpy(h, c, (size_t)n * sizeof *h);
    activate(&act[2], 0, n, h);
    multiply(n, h, a + n);
}

/* g = act(g + b + x), the reset gate applied to the product before; h blends it in. */
static void gru_cell(const Run *k, const float *z, const float *reset, float *g, const float *x,
                     float *h)
{
    const Recurrent *r = &k->l->r;
    const float *b = vector(&k->o->b, k->dir);
    const int64_t n = r->hidden;
    if (r->reset_after && b) add(n, g, b + k->l->width + 2 * n);
    if (r->reset_after) multiply(n, g, reset);
    add(n, g, x);
    activate(&r->act[k->dir][1], r->clip, n, g);
    blend(n, h, z, g);
}

static void multiply_state(const Run *k, const Primitive *q, const float *h, int64_t row, float *y)
{
    const float *rec = vector(&k->o->rec, k->dir) + row * k->l->r.hidden;
    void *data[] = {(void *)(uintptr_t)h, (void *)(uintptr_t)rec, y};
    primitive_run(q, data, k->pad);
}

static bool counts(const Run *k, int64_t s, int64_t t) { return t < recurrent_length(k->o, s); }

/* x: the rows of x W' of this step. */
static void gru_step(Run *k, const float *x, int64_t t)
{
    const Layer *l = k->l;
    const int64_t n = l->r.hidden;
    const bool before = l->joined < l->width;
    for (int64_t s = 0; s < l->r.batch; s++) {
        float *a = k->gate + s * l->joined, *kept = k->kept + s * n;
        add(2 * n, a, x + s * l->width);
        activate(&l->r.act[k->dir][0], l->r.clip, 2 * n, a);
        memcpy(kept, k->h + s * n, (size_t)n * sizeof *kept);
        multiply(n, kept, a + n);
    }
    if (before) multiply_state(k, &l->product[k->dir].fresh, k->kept, 2 * n, k->c);
    for (int64_t s = 0; s < l->r.batch; s++) {
        float *a = k->gate + s * l->joined, *g = before ? k->c + s * n : a + 2 * n;
        if (counts(k, s, t)) gru_cell(k, a, a + n, g, x + s * l->width + 2 * n, k->h + s * n);
    }
}

static void plain_step(Run *k, const float *x, int64_t t)
{
    const Layer *l = k->l;
    const int64_t n = l->r.hidden;
    for (int64_t s = 0; s < l->r.batch; s++) {
        float *a = k->gate + s * l->width, *h = k->h + s * n;
        if (!counts(k, s, t)) continue;
        add(l->width, a, x + s * l->width);
        if (l->r.gates == 4) {
            lstm_cell(k, a, h, k->c + s * n);
        } else {
            activate(&l->r.act[k->dir][0], l->r.clip, n, a);
            memcpy(h, a, (size_t)n * sizeof *h);
        }
    }
}

static void copy_row(float *to, const float *from, int64_t n)
{
    if (from)
        memcpy(to, from, (size_t)n * sizeof *to);
    else
        memset(to, 0, (size_t)n * sizeof *to);
}

/* Row s of one direction of a state [dirs, batch, hidden]; NULL if there is none. */
static float *state_row(const Run *k, const Tensor *t, int64_t s)
{
    return t->rank < 0 ? NULL : (float *)t->data + k->dir * t->stride[0] + s * t->stride[1];
}

static void store_step(const Run *k, int64_t t)
{
    const Tensor *y = &k->o->y;
    const int64_t n = k->l->r.hidden;
    for (int64_t s = 0; s < k->l->r.batch && y->rank >= 0; s++)
        copy_row((float *)y->data + t * y->stride[0] + k->dir * y->stride[1] + s * y->stride[2],
                 counts(k, s, t) ? k->h + s * n : NULL, n);
}

static void run_direction(Run *k)
{
    const Recurrent *r = &k->l->r;
    const RecurrentOperands *o = k->o;
    const int64_t n = r->hidden;
    sum_biases(k);
    k->first = -1;
    for (int64_t s = 0; s < r->batch; s++) {
        copy_row(k->h + s * n, state_row(k, &o->h0, s), n);
        copy_row(k->c + s * n, state_row(k, &o->c0, s), n);
    }
    for (int64_t i = 0; i < r->time; i++) {
        const int64_t t = r->reverse[k->dir] ? r->time - 1 - i : i;
        project(k, t);
        const float *x = k->xw + (t - k->first) * r->batch * k->l->width;
        multiply_state(k, &k->l->product[k->dir].state, k->h, 0, k->gate);
        if (r->gates == 3)
            gru_step(k, x, t);
        else
            plain_step(k, x, t);
        store_step(k, t);
    }
    for (int64_t s = 0; s < r->batch; s++) {
        float *h = state_row(k, &o->yh, s), *c = state_row(k, &o->yc, s);
        if (h) copy_row(h, k->h + s * n, n);
        if (c) copy_row(c, k->c + s * n, n);
    }
}

/* ---- the kernel --------------------------------------------------------------------- */

static bool only_floats(const Prepare *p)
{
    for (int i = 0; i < p->nin; i++)
        if (i != IN_LENGTHS && p->in[i].rank >= 0 && p->in[i].dtype != DT_F32) return false;
    return true;
}

/* No state: the reference kernel runs. */
int cpu_recurrent_prepare(Prepare *p)
{
    Recurrent r;
    TRY(recurrent_args(p->node, &r, p->diag));
    if (!only_floats(p) || r.time < 1 || r.batch < 1 || r.in < 1 || r.hidden < 1)
        return cpu_naive_prepare(p);
    Layer *l = calloc(1, sizeof *l);
    if (!l) trap(TRAP_NO_MEMORY, "out of memory for a recurrent layer");
    p->state = l;
    l->r = r;
    l->width = r.gates * r.hidden;
    l->chunk = CHUNK_ROWS / r.batch;
    l->chunk = l->chunk < 1 ? 1 : l->chunk > r.time ? r.time : l->chunk;
    l->joined = r.gates == 3 && !r.reset_after ? 2 * r.hidden : l->width;
    int threads = single_thread_begin(), status = make_products(l, p);
    single_thread_end(threads);
    l->pad = largest_pad(l);
    if (status < 0) {
        cpu_recurrent_release(l);
        p->state = NULL;
        return cpu_naive_prepare(p);
    }
    p->scratch = l->pad + floats_wanted(l);
    return 0;
}

void cpu_recurrent_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                       void *scratch)
{
    if (!state) {
        cpu_naive_run(n, NULL, in, out, scratch);
        return;
    }
    const RecurrentOperands o = recurrent_operands(n, in, out);
    Run k = {.l = state, .o = &o};
    place(&k, scratch);
    for (k.dir = 0; k.dir < o.r.dirs; k.dir++) run_direction(&k);
}
