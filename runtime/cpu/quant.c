/* Quantization and its float simulation: element-wise maps with a scale and a zero point per
 * tensor or per channel. Steps are counted in float, x / scale rounded to nearest even, as ONNX
 * Runtime does, so that training meets the grid of deployment exactly. */
#include "ir/simd.h"
#include "runtime/cpu/cpu.h"

#include <math.h>

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

/* Operands: inputs 0 … first - 1, all of x's shape, then scale and zero point (0 if omitted). */
static int loop_on_grid(MapLoop *l, MapFn *f, const Prepare *p, int first)
{
    static const float zero = 0;
    const Tensor none = {.dtype = DT_F32, .data = (void *)(uintptr_t)&zero}, *x = &p->in[first - 1];
    const bool given = first + 1 < p->nin && p->in[first + 1].rank >= 0;
    loop_over(l, f, p, first);
    loop_operand(l, parameter(p->node, &p->in[first], x), first);
    loop_operand(l, parameter(p->node, given ? &p->in[first + 1] : &none, x),
                 given ? first + 1 : -1);
    return 1;
}

static bool is_byte(DType d) { return d == DT_U8 || d == DT_I8; }

static inline float clamp(float x, const Grid *g)
{
    return x < g->lo ? g->lo : x > g->hi ? g->hi : x;
}

CLONES static void quantize(const void *ctx, int n, float *q, const float *const *v)
{
    const Grid g = *(const Grid *)ctx;
    const float *x = v[0], *scale = v[1], *zero = v[2];
    INDEPENDENT
    for (int i = 0; i < n; i++) q[i] = clamp(rintf(x[i] / scale[i]) + zero[i], &g);
}

int cpu_quantize_map(MapLoop *l, const Prepare *p)
{
    const DType d = p->out[0].dtype;
    if (!block_float(p->in[0].dtype) || !block_float(p->in[1].dtype) || !is_byte(d)) return 0;
    l->with.grid = d == DT_I8 ? (Grid){-128, 127} : (Grid){0, 255};
    return loop_on_grid(l, quantize, p, 1);
}

/* Sixteen at a time. */
CLONES static Grid range_with_zero(const float *x, int64_t n)
{
    float lo[16] = {0}, hi[16] = {0};
    Grid g = {0, 0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int k = 0; k < 16; k++) {
            lo[k] = x[i + k] < lo[k] ? x[i + k] : lo[k];
            hi[k] = x[i + k] > hi[k] ? x[i + k] : hi[k];
        }
    for (; i < n; i++) {
        lo[0] = x[i] < lo[0] ? x[i] : lo[0];
        hi[0] = x[i] > hi[0] ? x[i] : hi[0];
    }
    for (int k = 0; k < 16; k++) {
        g.lo = lo[k] < g.lo ? lo[k] : g.lo;
        g.hi = hi[k] > g.hi ? hi[k] : g.hi;
    }
    return g;
}

/* x -> y, scale, zero point: the range of x and 0 onto 0 … 255. */
CPU_RUN(dynamic_quantize)
{
    const Tensor *t[] = {out, in, NULL, NULL};
    if (in->dtype != DT_F32) {
        cpu_naive_run(n, state, in, out, scratch);
        return;
    }
    const Grid byte = {0, 255}, range = range_with_zero(in->data, tensor_count(in));
    float scale = range.hi > range.lo ? (range.hi - range.lo) / 255.f : 1.f;
    float zero = clamp(rintf((0.f - range.lo) / scale), &byte);
    const Tensor s = {.dtype = DT_F32, .data = &scale}, z = {.dtype = DT_F32, .data = &zero};
    t[2] = &s, t[3] = &z;
    block_map(4, t, quantize, &byte);
    if (n->nout > 1 && out[1].rank >= 0) element_store(&out[1], 0, (double)scale);
    if (n->nout > 2 && out[2].rank >= 0) element_store(&out[2], 0, (double)zero);
}

CLONES static void dequantize(const void *ctx, int n, float *x, const float *const *v)
{
    const float *q = v[0], *scale = v[1], *zero = v[2];
    (void)ctx;
    INDEPENDENT
    for (int i = 0; i < n; i++) x[i] = (q[i] - zero[i]) * scale[i];
}

int cpu_dequantize_map(MapLoop *l, const Prepare *p)
{
    const DType y = p->out[0].dtype;
    if (!is_byte(p->in[0].dtype) || !block_float(p->in[1].dtype) || !block_float(y)) return 0;
    return loop_on_grid(l, dequantize, p, 1);
}

CLONES static void fake_quant(const void *ctx, int n, float *y, const float *const *v)
{
    const Grid g = *(const Grid *)ctx;
    const float *x = v[0], *scale = v[1], *zero = v[2];
    INDEPENDENT
    for (int i = 0; i < n; i++)
        y[i] = (clamp(rintf(x[i] / scale[i]) + zero[i], &g) - zero[i]) * scale[i];
}

int cpu_fake_quant_map(MapLoop *l, const Prepare *p)
{
    l->with.grid = grid_of(p->node);
    return loop_on_grid(l, fake_quant, p, 1);
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

/* Also dy times d y / d scale: round(u) - u inside the range, u = x / scale; outside the end's
 * step. */
CLONES static void inside_and_term(const void *ctx, int n, float *dx, float *term,
                                   const float *const *v)
{
    const Grid g = *(const Grid *)ctx;
    const float *dy = v[0], *x = v[1], *scale = v[2], *zero = v[3];
    INDEPENDENT
    for (int i = 0; i < n; i++) {
        const float d = dy[i], u = x[i] / scale[i], q = rintf(u) + zero[i];
        const bool in = q >= g.lo && q <= g.hi;
        term[i] = d * (in ? rintf(u) - u : clamp(q, &g) - zero[i]);
        dx[i] = in ? d : 0.f;
    }
}

/* dx, and dscale where it is wanted. */
int cpu_fake_quant_grad_map(MapLoop *l, const Prepare *p)
{
    const Tensor *x = &p->in[1];
    l->with.grid = grid_of(p->node);
    loop_on_grid(l, pass_inside, p, 2);
    l->sums = p->nout > 1 && p->out[1].rank >= 0;
    l->both = inside_and_term;
    l->kept = *x;
    for (int i = 0; i < x->rank; i++) l->kept.dim[i] = l->x[2].dim[i];
    return 1;
}
