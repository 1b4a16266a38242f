/* Products of 8-bit integers: MatMulInteger, QLinearMatMul, ConvInteger, QLinearConv, by oneDNN, as
 * unsigned by signed bytes with sums in 32 bits.
 *
 *   sum (a - a0) (b - b0) = sum a b - a0 sum b - b0 sum a + k a0 b0
 *
 * A signed a and an unsigned b, and their zero points with them, move by 128. A convolution sees
 * its images channels-last and padded with their zero point, so both are matrices: rows of a
 * (places) by columns of b (filters). Only where the CPU has VNNI: without it oneDNN's sums
 * saturate at 16 bits. The rest is left to the reference kernels: several zero points of a, stacks
 * of matrices b, weights of a convolution whose zero point is not in their middle. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ir/simd.h"
#include "ir/window.h"
#include "runtime/cpu/cpu.h"
#include "runtime/cpu/primitive.h"

/* The inputs of a node: numbers of its operands; -1: it has none. */
typedef struct Roles {
    int a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero, bias;
} Roles;

static Roles roles_of(const Node *n)
{
    if (n->op == OP_MatMulInteger || n->op == OP_ConvInteger)
        return (Roles){0, -1, 2, 1, -1, 3, -1, -1, -1};
    return (Roles){0, 1, 2, 3, 4, 5, 6, 7, n->op == OP_QLinearConv ? 8 : -1};
}

typedef struct IntegerState {
    PrimitiveState base; /* first: cpu_primitive_release frees it */
    int64_t rows, columns, depth;
    Tensor x;        /* of a convolution: the padded images, channels-last */
    int64_t from[2]; /* where the image begins in them, < 0: what of it is cut off */
    size_t at_a, at_b, at_c, at_fix, at_factor, at_y; /* in scratch, behind the primitive's */
} IntegerState;

/* ---- bytes --------------------------------------------------------------------------- */

enum { MIDDLE = 128, DEEPEST = 1 << 14 /* sums, and what is taken off them, in 31 bits */ };

CLONES static void move_bytes(uint8_t *y, const uint8_t *x, int64_t n)
{
    INDEPENDENT
    for (int64_t i = 0; i < n; i++) y[i] = x[i] ^ MIDDLE;
}

CLONES static void add_bytes(int32_t *restrict sum, const int8_t *restrict x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) sum[i] += x[i];
}

CLONES static int32_t sum_unsigned(const uint8_t *x, int64_t n)
{
    int32_t sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    return sum;
}

CLONES static int32_t sum_signed(const int8_t *x, int64_t n)
{
    int32_t sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    return sum;
}

CLONES static void add_row(int32_t *restrict c, const int32_t *restrict fix, int64_t n)
{
    for (int64_t i = 0; i < n; i++) c[i] = (int32_t)((uint32_t)c[i] + (uint32_t)fix[i]);
}

/* The zero point of a as unsigned, of column j of b as signed bytes. */
static int32_t zero_of(const Tensor *in, int i, int64_t j, bool has, int32_t shift)
{
    if (!has) return shift;
    return (int32_t)element_load_int(&in[i], tensor_count(&in[i]) > 1 ? j : 0) + shift;
}

static int32_t a_shift(const Tensor *a) { return a->dtype == DT_I8 ? MIDDLE : 0; }
static int32_t b_shift(const Tensor *b) { return b->dtype == DT_U8 ? -MIDDLE : 0; }

static bool has_input(const Node *n, int i) { return i >= 0 && node_in(n, i); }

/* ---- results ------------------------------------------------------------------------- */

/* y = saturate(round(c factor) + zero), in float as ONNX Runtime. */
#define STORE_ROW(T, lo, hi)                                                                       \
    CLONES static void store_row_##T(T *restrict y, const int32_t *restrict c,                     \
                                     const float *restrict factor, float zero, int64_t n)          \
    {                                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                          \
            float v = rintf((float)c[i] * factor[i]) + zero;                                       \
            v = v > (lo) ? v : (lo);                                                               \
            y[i] = (T)(int32_t)(v < (hi) ? v : (hi));                                              \
        }                                                                                          \
    }
STORE_ROW(uint8_t, 0.f, 255.f)
STORE_ROW(int8_t, -128.f, 127.f)

static float scale_at(const Tensor *t, int64_t j)
{
    return (float)element_load(t, tensor_count(t) > 1 ? j : 0);
}

/* Sums in 32 bits, [rows, columns], onto the grid of y. */
static void requantize(const IntegerState *s, const Roles *r, const Tensor *in, const int32_t *c,
                       float *factor, DType t, void *y)
{
    const float zero = (float)element_load(&in[r->y_zero], 0);
    for (int64_t j = 0; j < s->columns; j++)
        factor[j] = scale_at(&in[r->a_scale], 0) * scale_at(&in[r->b_scale], j) /
                    scale_at(&in[r->y_scale], 0);
    for (int64_t k = 0; k < s->rows; k++, c += s->columns)
        if (t == DT_U8)
            store_row_uint8_t((uint8_t *)y + k * s->columns, c, factor, zero, s->columns);
        else
            store_row_int8_t((int8_t *)y + k * s->columns, c, factor, zero, s->columns);
}

/* ---- preparing ----------------------------------------------------------------------- */

static size_t take(size_t *at, int64_t bytes)
{
    const size_t here = *at;
    *at += ((size_t)bytes + 63) & ~(size_t)63;
    return here;
}

static size_t lay_out(IntegerState *s, const Node *n, int64_t a, int64_t b)
{
    const int64_t c = s->rows * s->columns;
    size_t end = 0;
    s->at_a = take(&end, a);
    s->at_b = take(&end, b);
    s->at_c = take(&end, c * 4);
    s->at_fix = take(&end, s->columns * 4);
    s->at_factor = take(&end, s->columns * 4);
    s->at_y = take(&end, n->op == OP_ConvInteger ? 0 : c);
    return end;
}

static dnnl_status_t bytes_desc(MemDesc *md, const Tensor *t, dnnl_data_type_t type)
{
    dnnl_dims_t dim = {0}, stride = {0};
    for (int i = 0; i < t->rank; i++) dim[i] = t->dim[i], stride[i] = t->stride[i];
    return md_strided(md, t->rank, dim, type, stride);
}

static Tensor dense(int rank, const int64_t *dim, bool channels_last)
{
    Tensor t = {.dtype = DT_U8, .rank = rank};
    for (int i = 0; i < rank; i++) t.dim[i] = dim[i];
    tensor_set_strides(&t, channels_last);
    return t;
}

/* a [u8], b [s8], c [s32]; a convolution where `shape` is given. */
static bool create(Primitive *q, const Tensor *a, const Tensor *b, const Tensor *c,
                   const ConvShape *shape, const void *constant)
{
    MemDesc src = {0}, user = {0}, weights = {0}, dst = {0};
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_dims_t dim = {0};
    for (int i = 0; i < b->rank; i++) dim[i] = b->dim[i];
    const int threads = single_thread_begin();
    bool made = dnnl_engine_create(&q->engine, dnnl_cpu, 0) == dnnl_success &&
                primitive_attr(&attr) == dnnl_success &&
                bytes_desc(&src, a, dnnl_u8) == dnnl_success &&
                bytes_desc(&user, b, dnnl_s8) == dnnl_success &&
                bytes_desc(&dst, c, dnnl_s32) == dnnl_success &&
                md_any(&weights, b->rank, dim, dnnl_s8) == dnnl_success;
    if (made && shape)
        made = conv_desc(&pd, CONV_FORWARD, q->engine, &src, &weights, NULL, &dst, shape, NULL,
                         attr) == dnnl_success;
    else if (made)
        made = matmul_desc(&pd, q->engine, &src, &weights, &dst, attr) == dnnl_success;
    made = made && primitive_operand(q, pd, DNNL_ARG_SRC, &src, NULL) == 0 &&
           primitive_operand(q, pd, DNNL_ARG_WEIGHTS, &user, constant) == 0 &&
           primitive_operand(q, pd, DNNL_ARG_DST, &dst, NULL) == 0 && primitive_finish(q, pd) == 0;
    single_thread_end(threads);
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (attr) dnnl_primitive_attr_destroy(attr);
    md_free(&src), md_free(&user), md_free(&weights), md_free(&dst);
    primitive_check_memory(q);
    return made;
}

static bool is_single(const Prepare *p, int i)
{
    return i < 0 || i >= p->nin || p->in[i].rank < 0 || tensor_count(&p->in[i]) == 1;
}

static const void *signed_constant(const Prepare *p, int b)
{
    return p->in[b].dtype == DT_I8 && p->const_data ? p->const_data[b] : NULL;
}

static bool prepare_product(IntegerState *s, Prepare *p, const Roles *r)
{
    const Tensor *a = &p->in[r->a], *b = &p->in[r->b];
    if (a->rank < 2 || b->rank != 2 || !is_single(p, r->a_zero) || !is_single(p, r->a_scale))
        return false;
    s->depth = b->dim[0];
    s->columns = b->dim[1];
    s->rows = s->depth ? tensor_count(a) / s->depth : 0;
    if (!s->rows || !s->columns || s->depth > DEEPEST) return false;
    const Tensor x = dense(2, (int64_t[]){s->rows, s->depth}, false),
                 w = dense(2, (int64_t[]){s->depth, s->columns}, false),
                 y = dense(2, (int64_t[]){s->rows, s->columns}, false);
    if (!create(&s->base.prim, &x, &w, &y, NULL, signed_constant(p, r->b))) return false;
    p->scratch = s->base.prim.scratch + lay_out(s, p->node, tensor_count(a), tensor_count(b));
    return true;
}

/* Whether the weights' zero points are 0 once they are signed. */
static bool is_centered(const Prepare *p, const Roles *r)
{
    const int i = r->b_zero, shift = b_shift(&p->in[r->b]);
    if (!has_input(p->node, i)) return shift == 0;
    if (!p->const_data[i]) return false;
    for (int64_t k = 0; k < tensor_count(&p->in[i]); k++)
        if (element_load_int(&p->in[i], k) + shift != 0) return false;
    return true;
}

/* The padded images, of just the size that the windows reach over. */
static bool pad_images(IntegerState *s, ConvShape *c, const Prepare *p, const Tensor *y)
{
    Window w;
    int64_t dim[4] = {p->in[0].dim[0], p->in[0].dim[1]};
    if (node_window(p->node, &w, p->diag) < 0) return false;
    memset(c, 0, sizeof *c);
    for (int i = 0; i < 2; i++) {
        c->stride[i] = w.stride[i];
        c->dilation[i] = w.dilation[i] - 1;
        s->from[i] = w.pad[i];
        dim[i + 2] = (y->dim[i + 2] - 1) * w.stride[i] + (w.kernel[i] - 1) * w.dilation[i] + 1;
    }
    s->x = dense(4, dim, true);
    return true;
}

static bool prepare_conv(IntegerState *s, Prepare *p, const Roles *r)
{
    const int64_t group = node_int(p->node, "group", 1);
    const Tensor *w = &p->in[r->b];
    ConvShape shape;
    if (p->in[r->a].rank != 4 || !is_centered(p, r) || tensor_count(p->out) == 0 ||
        tensor_count(&p->in[r->a]) == 0 || !pad_images(s, &shape, p, p->out))
        return false;
    const Tensor y = dense(4, p->out->dim, true);
    const int64_t filters = w->dim[0],
                  dim[5] = {group, filters / group, w->dim[1], w->dim[2], w->dim[3]};
    const Tensor b = group > 1 ? dense(5, dim, false) : dense(4, w->dim, false);
    s->columns = filters;
    s->rows = tensor_count(p->out) / filters;
    s->depth = tensor_count(w) / filters;
    if (s->depth > DEEPEST) return false;
    if (!create(&s->base.prim, &s->x, &b, &y, &shape, signed_constant(p, r->b))) return false;
    p->scratch = s->base.prim.scratch + lay_out(s, p->node, tensor_count(&s->x), tensor_count(w));
    return true;
}

CPU_PREPARE(integer)
{
    const Roles r = roles_of(p->node);
    const bool conv = p->node->op == OP_ConvInteger || p->node->op == OP_QLinearConv;
    IntegerState *s = calloc(1, sizeof *s);
    if (!s) trap(TRAP_NO_MEMORY, "out of memory for a product of integers");
    p->state = s;
    s->base.naive =
        !runtime_cpu_has_vnni() || !(conv ? prepare_conv(s, p, &r) : prepare_product(s, p, &r));
    return s->base.naive ? cpu_naive_prepare(p) : 0;
}

/* ---- running ------------------------------------------------------------------------- */

/* The signed bytes of b, and per column what is added to its sums: bias - a0 sum b + k a0 b0. */
static const int8_t *read_b(const IntegerState *s, const Node *n, const Roles *r, const Tensor *in,
                            char *scratch, int32_t *fix)
{
    const bool by_row = s->x.rank == 0; /* the columns of b lie side by side */
    const Tensor *b = &in[r->b];
    const int32_t a0 = zero_of(in, r->a_zero, 0, has_input(n, r->a_zero), a_shift(&in[r->a]));
    const int8_t *x = b->data;
    if (b->dtype == DT_U8) {
        move_bytes((uint8_t *)scratch + s->at_b, b->data, s->depth * s->columns);
        x = (const int8_t *)scratch + s->at_b;
    }
    memset(fix, 0, (size_t)s->columns * sizeof *fix);
    for (int64_t k = 0; k < s->depth && by_row && a0; k++)
        add_bytes(fix, x + k * s->columns, s->columns);
    for (int64_t j = 0; j < s->columns; j++) {
        if (!by_row && a0) fix[j] = sum_signed(x + j * s->depth, s->depth);
        const int32_t b0 = zero_of(in, r->b_zero, j, has_input(n, r->b_zero), b_shift(b));
        const int32_t bias = has_input(n, r->bias) ? (int32_t)element_load_int(&in[r->bias], j) : 0;
        fix[j] = (int32_t)((uint32_t)bias - (uint32_t)(a0 * (fix[j] - (int32_t)s->depth * b0)));
    }
    return x;
}

/* The rows of a as unsigned bytes. */
static const uint8_t *read_a(const IntegerState *s, const Tensor *a, char *scratch)
{
    uint8_t *x = (uint8_t *)scratch + s->at_a;
    if (a->dtype == DT_U8) return a->data;
    move_bytes(x, a->data, s->rows * s->depth);
    return x;
}

/* The images in the padded ones. */
static const uint8_t *read_images(const IntegerState *s, const Node *n, const Roles *r,
                                  const Tensor *in, char *scratch)
{
    Tensor to = s->x, from = in[r->a];
    uint8_t *x = (uint8_t *)scratch + s->at_a;
    const int64_t count = tensor_count(&s->x);
    to.data = x;
    to.dtype = from.dtype;
    memset(x, zero_of(in, r->a_zero, 0, has_input(n, r->a_zero), 0) & 255, (size_t)count);
    for (int i = 0; i < 2; i++) {
        const int64_t skip = s->from[i] < 0 ? -s->from[i] : 0, at = s->from[i] + skip;
        int64_t size = from.dim[i + 2] - skip;
        if (size > to.dim[i + 2] - at) size = to.dim[i + 2] - at;
        if (size <= 0) return x;
        from = tensor_section(&from, i + 2, skip, size);
        to = tensor_section(&to, i + 2, at, size);
    }
    cpu_copy(&to, &from);
    if (in[r->a].dtype == DT_I8) move_bytes(x, x, count);
    return x;
}

/* c - b0 sum a, row by row: those of b may differ from column to column. */
static void take_rows(const IntegerState *s, const Node *n, const Roles *r, const Tensor *in,
                      const uint8_t *a, int32_t *c)
{
    const bool has = has_input(n, r->b_zero);
    bool any = false;
    for (int64_t j = 0; j < s->columns; j++)
        any |= zero_of(in, r->b_zero, j, has, b_shift(&in[r->b])) != 0;
    for (int64_t k = 0; k < s->rows && any; k++) {
        const int32_t sum = sum_unsigned(a + k * s->depth, s->depth);
        for (int64_t j = 0; j < s->columns; j++)
            c[k * s->columns + j] -= sum * zero_of(in, r->b_zero, j, has, b_shift(&in[r->b]));
    }
}

/* Rows by columns as the output lies: channels before places. */
static void put_images(const Tensor *out, void *data)
{
    Tensor y = *out;
    y.data = data;
    tensor_set_strides(&y, true);
    cpu_copy(out, &y);
}

CPU_RUN(integer)
{
    const IntegerState *s = state;
    const Roles r = roles_of(n);
    const bool conv = s->x.rank > 0, integers = out->dtype == DT_I32;
    if (s->base.naive) {
        cpu_naive_run(n, NULL, in, out, scratch);
        return;
    }
    char *own = (char *)scratch + s->base.prim.scratch;
    int32_t *fix = (int32_t *)(void *)(own + s->at_fix);
    int32_t *c = integers && !conv ? out->data : (void *)(own + s->at_c);
    float *factor = (float *)(void *)(own + s->at_factor);
    void *y = conv ? (void *)(own + s->at_y) : out->data;
    const int8_t *b = read_b(s, n, &r, in, own, fix);
    const uint8_t *a = conv ? read_images(s, n, &r, in, own) : read_a(s, &in[r.a], own);
    void *data[] = {(void *)(uintptr_t)a, (void *)(uintptr_t)b, c};
    primitive_run(&s->base.prim, data, scratch);
    for (int64_t k = 0; k < s->rows; k++) add_row(c + k * s->columns, fix, s->columns);
    if (!conv) take_rows(s, n, &r, in, a, c);
    if (!integers) requantize(s, &r, in, c, factor, out->dtype, y);
    if (conv) put_images(out, integers ? (void *)c : y);
}
