/* Element-wise ops: one loop per function of runtime/scalar.h, over the blocks of nest.h.
 * Broadcasting, layouts and half storage are the blocks' business, so a function here sees
 * dense floats only. Types that blocks do not carry (64-bit integers, double) take the
 * reference kernels: they occur in shape arithmetic, not in tensors of size. */
#include "ir/simd.h"
#include "runtime/cpu/cpu.h"

#include <math.h>

/* ---- functions of one operand, and d * f^(k)(x) -------------------------------------- */

#define UNARY_LOOP(name, k)                                                                        \
    CLONES static void unary_##name##k(const void *ctx, int n, float *y, const float *const *x)    \
    {                                                                                              \
        const UnarySpec *s = ctx;                                                                  \
        const float a = s->a, b = s->b, *p = x[0];                                                 \
        (void)p;                                                                                   \
        INDEPENDENT for (int i = 0; i < n; i++) y[i] = scalar_##name##k##_float(p[i], a, b);       \
    }
#define DERIVATIVE_LOOP(name, k)                                                                   \
    CLONES static void derivative_##name##k(const void *ctx, int n, float *y,                      \
                                            const float *const *x)                                 \
    {                                                                                              \
        const UnarySpec *s = ctx;                                                                  \
        const float a = s->a, b = s->b, *d = x[0], *p = x[1];                                      \
        (void)p;                                                                                   \
        INDEPENDENT for (int i = 0; i < n; i++) y[i] =                                             \
            d[i] * scalar_##name##k##_float(p[i], a, b);                                           \
    }
#define UNARY_LOOPS(name, ...) UNARY_LOOP(name, 0) DERIVATIVE_LOOP(name, 1) DERIVATIVE_LOOP(name, 2)
SCALAR_UNARY_LIST(UNARY_LOOPS, float, SCALAR_MATH_float, SCALAR_F_float)

/* By order of differentiation. */
#define UNARY_ROW(name, ...) {unary_##name##0, derivative_##name##1, derivative_##name##2},
static MapFn *const unary_loop[UNARY_COUNT][3] = {
    SCALAR_UNARY_LIST(UNARY_ROW, float, SCALAR_MATH_float, SCALAR_F_float)};

/* Inputs from `first` on. */
static bool all_float(const Prepare *p, int first)
{
    for (int i = first; i < p->nin; i++)
        if (p->in[i].rank >= 0 && !block_float(p->in[i].dtype)) return false;
    return true;
}

static bool all_blocks(const Prepare *p)
{
    for (int i = 0; i < p->nin; i++)
        if (!block_dtype(p->in[i].dtype)) return false;
    return true;
}

int cpu_unary_map(MapLoop *l, const Prepare *p)
{
    const UnarySpec *s = &l->with.unary;
    TRY(unary_spec(&l->with.unary, p->node, p->diag));
    if (!all_float(p, 0)) return 0;
    if (p->node->op == OP_Derivative && s->order == 0) trap(TRAP_INTERNAL, "derivative of order 0");
    return loop_over(l, unary_loop[s->fn][s->order], p, p->node->op == OP_Derivative ? 2 : 1);
}

/* Where the bounds are, which may be omitted. */
CLONES static void clip(const void *ctx, int n, float *y, const float *const *x)
{
    const float *p = x[0], *lo = x[1], *hi = x[2];
    (void)ctx;
    INDEPENDENT for (int i = 0; i < n; i++) y[i] = scalar_Clip0_float(p[i], lo[i], hi[i]);
}

int cpu_clip_map(MapLoop *l, const Prepare *p)
{
    static const float none[2] = {-INFINITY, INFINITY};
    loop_over(l, clip, p, 1);
    for (int k = 0; k < 2; k++) {
        const bool given = k + 1 < p->nin && p->in[k + 1].rank >= 0;
        const Tensor omitted = {.dtype = DT_F32, .data = (void *)(uintptr_t)&none[k]};
        const Tensor *bound = given ? &p->in[k + 1] : &omitted;
        loop_operand(l, along_axis(bound, -1, p->in[0].rank), given ? k + 1 : -1);
    }
    return all_float(p, 0);
}

/* ---- two and more operands ----------------------------------------------------------- */

#define BINARY_LOOP(name, expr)                                                                    \
    CLONES static void binary_##name(const void *ctx, int n, float *z, const float *const *x)      \
    {                                                                                              \
        const float *p = x[0], *q = x[1];                                                          \
        (void)ctx;                                                                                 \
        INDEPENDENT for (int i = 0; i < n; i++) z[i] = expr;                                       \
    }
#define SCALAR_BINARY_LOOP(name, ...) BINARY_LOOP(name, scalar_##name##_float(p[i], q[i]))
SCALAR_BINARY_LIST(SCALAR_BINARY_LOOP, float, SCALAR_MATH_float)
BINARY_LOOP(Greater, p[i] > q[i] ? 1.f : 0.f)
BINARY_LOOP(Less, p[i] < q[i] ? 1.f : 0.f)
BINARY_LOOP(GreaterOrEqual, p[i] >= q[i] ? 1.f : 0.f)
BINARY_LOOP(LessOrEqual, p[i] <= q[i] ? 1.f : 0.f)
BINARY_LOOP(Equal, p[i] == q[i] ? 1.f : 0.f)
BINARY_LOOP(And, p[i] != 0.f && q[i] != 0.f ? 1.f : 0.f)
BINARY_LOOP(Or, p[i] != 0.f || q[i] != 0.f ? 1.f : 0.f)
BINARY_LOOP(Xor, (p[i] != 0.f) != (q[i] != 0.f) ? 1.f : 0.f)

#define BINARY_ENTRY(name, ...) [OP_##name] = binary_##name,
static MapFn *const binary_loop[OP_COUNT] = {
    SCALAR_BINARY_LIST(BINARY_ENTRY, , SCALAR_MATH_float)[OP_Greater] = binary_Greater,
    [OP_Less] = binary_Less,
    [OP_GreaterOrEqual] = binary_GreaterOrEqual,
    [OP_LessOrEqual] = binary_LessOrEqual,
    [OP_Equal] = binary_Equal,
    [OP_And] = binary_And,
    [OP_Or] = binary_Or,
    [OP_Xor] = binary_Xor,
    [OP_Sum] = binary_Add,
    [OP_Mean] = binary_Add,
};

int cpu_binary_map(MapLoop *l, const Prepare *p)
{
    return all_float(p, 0) ? loop_over(l, binary_loop[p->node->op], p, 2) : 0;
}

/* Comparisons and truth values: exact on bytes too. */
int cpu_compare_map(MapLoop *l, const Prepare *p)
{
    return all_blocks(p) ? loop_over(l, binary_loop[p->node->op], p, 2) : 0;
}

CLONES static void map_not(const void *ctx, int n, float *y, const float *const *x)
{
    const float *p = x[0];
    (void)ctx;
    INDEPENDENT for (int i = 0; i < n; i++) y[i] = p[i] == 0.f ? 1.f : 0.f;
}

int cpu_negation_map(MapLoop *l, const Prepare *p) { return loop_over(l, map_not, p, 1); }

CLONES static void map_nan(const void *ctx, int n, float *y, const float *const *x)
{
    const float *p = x[0];
    (void)ctx;
    INDEPENDENT for (int i = 0; i < n; i++) y[i] = p[i] != p[i] ? 1.f : 0.f;
}

CLONES static void map_inf(const void *ctx, int n, float *y, const float *const *x)
{
    const Grid ends = *(const Grid *)ctx;
    const float *p = x[0];
    INDEPENDENT for (int i = 0; i < n; i++) y[i] = p[i] == ends.lo || p[i] == ends.hi ? 1.f : 0.f;
}

/* IsNaN and IsInf; nothing is equal to NaN. */
int cpu_float_test_map(MapLoop *l, const Prepare *p)
{
    const bool low = node_int(p->node, "detect_negative", 1) != 0,
               high = node_int(p->node, "detect_positive", 1) != 0;
    if (!block_float(p->in[0].dtype)) return 0;
    l->with.grid = (Grid){low ? -INFINITY : NAN, high ? INFINITY : NAN};
    return loop_over(l, p->node->op == OP_IsNaN ? map_nan : map_inf, p, 1);
}

static void fold(const void *ctx, int n, float *y, const float *const *x)
{
    const Fold *fold = ctx;
    const float *pair[2] = {x[0], x[1]};
    float sum[BLOCK];
    for (int k = 1; k < fold->operands; k++) {
        pair[1] = x[k];
        fold->f(NULL, n, k + 1 < fold->operands ? sum : y, pair);
        pair[0] = sum;
    }
    if (fold->scale != 1.f)
        for (int i = 0; i < n; i++) y[i] *= fold->scale;
}

/* Sum, Mean, Max and Min of any number of operands; one alone is a copy. */
int cpu_variadic_map(MapLoop *l, const Prepare *p)
{
    const float scale = p->node->op == OP_Mean ? 1.f / (float)p->nin : 1.f;
    if (!all_float(p, 0) || p->nin > LOOP_OPERANDS) return 0;
    if (p->nin == 1) return loop_over(l, unary_Identity0, p, 1);
    l->with.fold = (Fold){binary_loop[p->node->op], p->nin, scale};
    return loop_over(l, fold, p, p->nin);
}

CLONES static void where_loop(const void *ctx, int n, float *y, const float *const *x)
{
    const float *c = x[0], *p = x[1], *q = x[2];
    (void)ctx;
    INDEPENDENT for (int i = 0; i < n; i++) y[i] = c[i] != 0.f ? p[i] : q[i];
}

int cpu_where_map(MapLoop *l, const Prepare *p)
{
    return all_float(p, 1) && block_dtype(p->in[0].dtype) ? loop_over(l, where_loop, p, 3) : 0;
}

/* Floats among themselves and from bytes. Casts to integers truncate and wrap: reference. */
int cpu_cast_map(MapLoop *l, const Prepare *p)
{
    if (!block_dtype(p->in[0].dtype) || !block_float(p->out[0].dtype)) return 0;
    return loop_over(l, unary_Identity0, p, 1);
}

/* Identity, Expand, and Dropout in inference, within chains; alone they are copies. */
int cpu_identity_map(MapLoop *l, const Prepare *p)
{
    return block_float(p->in[0].dtype) ? loop_over(l, unary_Identity0, p, 1) : 0;
}

/* A copy, and a mask of ones. */
void cpu_dropout_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                     void *scratch)
{
    if (n->nout > 1 && n->out[1])
        cpu_naive_run(n, state, in, out, scratch);
    else
        cpu_identity_run(n, state, in, out, scratch);
}

void cpu_add_into(const Tensor *y, const Tensor *x)
{
    const Tensor *t[] = {y, y, x};
    block_map(3, t, binary_Add, NULL);
}
