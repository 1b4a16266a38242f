/* Quantisation and its float simulation: element-wise maps with a scale and a zero point per
 * tensor or per channel. Steps are counted in float, x / scale rounded to nearest even, as ONNX
 * Runtime does, so that training meets the grid of deployment exactly. */
#include "runtime/cpu/cpu.h"
#include "runtime/cpu/simd.h"

#include <math.h>

typedef struct Grid {
    float lo, hi;
} Grid;

static Grid grid_of(const Node *n)
{
    return (Grid){(float)node_int(n, "qmin", 0), (float)node_int(n, "qmax", 255)};
}

/* The axis of per-channel parameters; -1: none. */
static int grid_axis(const Node *n, const Tensor *x)
{
    bool fake = n->op == OP_FakeQuant || n->op == OP_FakeQuantGrad;
    if (fake && !node_attr(n, "axis")) return -1;
    return axis_index(node_int(n, "axis", 1), x->rank);
}

/* A parameter of one element or of as many as the axis has, broadcasting to x. */
static Tensor parameter(const Node *n, const Tensor *v, const Tensor *x)
{
    return along_axis(v, tensor_count(v) == 1 ? -1 : grid_axis(n, x), x->rank);
}

/* An omitted zero point. */
static Tensor zero_point(const Node *n, const Tensor *in, int i, const Tensor *x)
{
    static const float zero = 0;
    Tensor none = {.dtype = DT_F32, .rank = 0, .data = (void *)(uintptr_t)&zero};
    const Tensor *z = optional(n, in, i);
    return parameter(n, z ? z : &none, x);
}

static bool is_byte(DType d) { return d == DT_U8 || d == DT_I8; }

/* Storing saturates. */
CLONES static void quantize(const void *ctx, int n, float *q, const float *const *v)
{
    const float *x = v[0], *scale = v[1], *zero = v[2];
    (void)ctx;
    INDEPENDENT
    for (int i = 0; i < n; i++) q[i] = rintf(x[i] / scale[i]) + zero[i];
}

void cpu_quantize_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                      void *scratch)
{
    Tensor scale = parameter(n, &in[1], &in[0]), zero = zero_point(n, in, 2, &in[0]);
    const Tensor *t[] = {&out[0], &in[0], &scale, &zero};
    if (block_float(in[0].dtype) && block_float(scale.dtype) && is_byte(out[0].dtype))
        block_map(4, t, quantize, NULL);
    else
        cpu_naive_run(n, state, in, out, scratch);
}

CLONES static void dequantize(const void *ctx, int n, float *x, const float *const *v)
{
    const float *q = v[0], *scale = v[1], *zero = v[2];
    (void)ctx;
    INDEPENDENT
    for (int i = 0; i < n; i++) x[i] = (q[i] - zero[i]) * scale[i];
}

void cpu_dequantize_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                        void *scratch)
{
    Tensor scale = parameter(n, &in[1], &in[0]), zero = zero_point(n, in, 2, &in[0]);
    const Tensor *t[] = {&out[0], &in[0], &scale, &zero};
    if (is_byte(in[0].dtype) && block_float(scale.dtype) && block_float(out[0].dtype))
        block_map(4, t, dequantize, NULL);
    else
        cpu_naive_run(n, state, in, out, scratch);
}

static inline float clamp(float x, const Grid *g)
{
    return x < g->lo ? g->lo : x > g->hi ? g->hi : x;
}

CLONES static void fake_quant(const void *ctx, int n, float *y, const float *const *v)
{
    const Grid g = *(const Grid *)ctx;
    const float *x = v[0], *scale = v[1], *zero = v[2];
    INDEPENDENT
    for (int i = 0; i < n; i++)
        y[i] = (clamp(rintf(x[i] / scale[i]) + zero[i], &g) - zero[i]) * scale[i];
}

void cpu_fake_quant_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                        void *scratch)
{
    Grid g = grid_of(n);
    Tensor scale = parameter(n, &in[1], &in[0]), zero = zero_point(n, in, 2, &in[0]);
    const Tensor *t[] = {&out[0], &in[0], &scale, &zero};
    (void)state, (void)scratch;
    block_map(4, t, fake_quant, &g);
}

/* Operands dy, x, scale, zero point. */
CLONES static void pass_inside(const void *ctx, int n, float *dx, const float *const *v)
{
    const Grid g = *(const Grid *)ctx;
    const float *dy = v[0], *x = v[1], *scale = v[2], *zero = v[3];
    INDEPENDENT
    for (int i = 0; i < n; i++) {
        float q = rintf(x[i] / scale[i]) + zero[i];
        dx[i] = q >= g.lo && q <= g.hi ? dy[i] : 0.f;
    }
}

/* dy times d y / d scale: round(u) - u inside the range, u = x / scale; the end's step outside. */
CLONES static void scale_term(const void *ctx, int n, float *term, const float *const *v)
{
    const Grid g = *(const Grid *)ctx;
    const float *dy = v[0], *x = v[1], *scale = v[2], *zero = v[3];
    for (int i = 0; i < n; i++) {
        float u = x[i] / scale[i], q = rintf(u) + zero[i];
        float inside = rintf(u) - u, outside = clamp(q, &g) - zero[i];
        term[i] = dy[i] * (q >= g.lo && q <= g.hi ? inside : outside);
    }
}

static bool wants_scale(const Tensor *out, int nout) { return nout > 1 && out[1].rank >= 0; }

int cpu_fake_quant_grad_prepare(Prepare *p)
{
    if (wants_scale(p->out, p->nout))
        p->scratch = (size_t)tensor_count(&p->out[1]) * sizeof(double);
    return 0;
}

void cpu_fake_quant_grad_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                             void *scratch)
{
    Grid g = grid_of(n);
    const Tensor *x = &in[1];
    Tensor scale = parameter(n, &in[2], x), zero = zero_point(n, in, 3, x);
    const Tensor *t[] = {&out[0], &in[0], x, &scale, &zero};
    (void)state;
    if (wants_scale(out, n->nout) && n->out[1] && out[1].data) {
        Tensor kept = *x;
        for (int i = 0; i < x->rank; i++) kept.dim[i] = scale.dim[i];
        cpu_accumulate(REDUCE_SUM, scale_term, &g, 4, t + 1, &kept, scratch);
        store_doubles(&out[1], scratch);
    }
    block_map(5, t, pass_inside, &g);
}
