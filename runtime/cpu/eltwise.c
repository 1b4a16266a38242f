/* Element-wise ops: one loop per function of runtime/scalar.h, over the blocks of nest.h.
 * Broadcasting, layouts and half storage are the blocks' business, so a function here sees
 * dense floats only. Types that blocks do not carry (64-bit integers, double) take the
 * reference kernels: they occur in shape arithmetic, not in tensors of size. */
#include "runtime/cpu/cpu.h"
#include "runtime/cpu/simd.h"
#include "runtime/unary.h"

#include <stdlib.h>

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
static bool all_float(const Node *n, const Tensor *in, int first)
{
    for (int i = first; i < n->nin; i++)
        if (in[i].data && !block_float(in[i].dtype)) return false;
    return true;
}

static bool all_blocks(const Node *n, const Tensor *in)
{
    for (int i = 0; i < n->nin; i++)
        if (!block_dtype(in[i].dtype)) return false;
    return true;
}

int cpu_unary_prepare(Prepare *p)
{
    UnarySpec *s = malloc(sizeof *s);
    if (!s) trap(TRAP_NO_MEMORY, "out of memory for a kernel");
    p->state = s;
    return unary_spec(s, p->node, p->diag);
}

void cpu_unary_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                   void *scratch)
{
    const UnarySpec *s = state;
    const Tensor *t[] = {&out[0], &in[0], &in[n->nin - 1]};
    if (!all_float(n, in, 0)) {
        cpu_naive_run(n, NULL, in, out, scratch);
        return;
    }
    if (n->op == OP_Derivative && s->order == 0) trap(TRAP_INTERNAL, "derivative of order 0");
    block_map(n->op == OP_Derivative ? 3 : 2, t, unary_loop[s->fn][s->order], s);
}

void cpu_clip_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                  void *scratch)
{
    const Tensor *t[] = {&out[0], &in[0]}, *lo = optional(n, in, 1), *hi = optional(n, in, 2);
    UnarySpec s = {.a = -INFINITY, .b = INFINITY};
    (void)state;
    if (!all_float(n, in, 0)) {
        cpu_naive_run(n, NULL, in, out, scratch);
        return;
    }
    if (lo) s.a = (float)element_load(lo, 0);
    if (hi) s.b = (float)element_load(hi, 0);
    block_map(2, t, unary_Clip0, &s);
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

void cpu_binary_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                    void *scratch)
{
    const Tensor *t[] = {&out[0], &in[0], &in[1]};
    (void)state;
    if (all_float(n, in, 0))
        block_map(3, t, binary_loop[n->op], NULL);
    else
        cpu_naive_run(n, NULL, in, out, scratch);
}

/* Comparisons and truth values: exact on bytes too. */
void cpu_compare_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                     void *scratch)
{
    const Tensor *t[] = {&out[0], &in[0], &in[1]};
    (void)state;
    if (all_blocks(n, in))
        block_map(3, t, binary_loop[n->op], NULL);
    else
        cpu_naive_run(n, NULL, in, out, scratch);
}

CLONES static void map_not(const void *ctx, int n, float *y, const float *const *x)
{
    const float *p = x[0];
    (void)ctx;
    INDEPENDENT for (int i = 0; i < n; i++) y[i] = p[i] == 0.f ? 1.f : 0.f;
}

void cpu_negation_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                      void *scratch)
{
    const Tensor *t[] = {&out[0], &in[0]};
    (void)n, (void)state, (void)scratch;
    block_map(2, t, map_not, NULL);
}

typedef struct Fold {
    MapFn *f;
    int operands;
    float scale;
} Fold;

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
void cpu_variadic_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                      void *scratch)
{
    const Tensor *t[NEST_OPERANDS] = {&out[0]};
    Fold f = {binary_loop[n->op], n->nin, n->op == OP_Mean ? 1.f / (float)n->nin : 1.f};
    UnarySpec s = {0};
    (void)state;
    if (!all_float(n, in, 0) || n->nin >= NEST_OPERANDS) {
        cpu_naive_run(n, NULL, in, out, scratch);
        return;
    }
    for (int k = 0; k < n->nin; k++) t[k + 1] = &in[k];
    if (n->nin == 1)
        block_map(2, t, unary_Identity0, &s);
    else
        block_map(n->nin + 1, t, fold, &f);
}

CLONES static void where_loop(const void *ctx, int n, float *y, const float *const *x)
{
    const float *c = x[0], *p = x[1], *q = x[2];
    (void)ctx;
    INDEPENDENT for (int i = 0; i < n; i++) y[i] = c[i] != 0.f ? p[i] : q[i];
}

void cpu_where_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                   void *scratch)
{
    const Tensor *t[] = {&out[0], &in[0], &in[1], &in[2]};
    (void)state;
    if (all_float(n, in, 1))
        block_map(4, t, where_loop, NULL);
    else
        cpu_naive_run(n, NULL, in, out, scratch);
}

/* Floats among themselves and from bytes. Casts to integers truncate and wrap: reference. */
void cpu_cast_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                  void *scratch)
{
    const Tensor *t[] = {&out[0], &in[0]};
    UnarySpec s = {0};
    DType d = out[0].dtype;
    (void)state;
    if (block_dtype(in[0].dtype) && block_float(d))
        block_map(2, t, unary_Identity0, &s);
    else
        cpu_naive_run(n, NULL, in, out, scratch);
}

/* In inference: a copy, and a mask of ones. */
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
