/* Sliding windows: attributes to numbers, and the sizes that follow.
 *
 *   reach = (kernel - 1) * dilation + 1
 *   out   = floor or ceil of (in + pad + pad_end - reach) / stride, plus 1
 *   out   = (in - 1) * stride + output_padding + reach - pad - pad_end      (ConvTranspose)
 *
 * SAME_UPPER and SAME_LOWER choose pads so that out = ceil(in / stride), or in * stride for
 * ConvTranspose. Where strides leave gaps, those of pools may be negative: what is left over is cut
 * off at both ends, as ONNX Runtime does. Attributes are bounded by 2^31, so that their products
 * fit in 64 bits. */
#include "ir/window.h"

#include <string.h>

#include "ir/op.h"
#include "ir/ops/common.h"

/* Which input the window slides over (-1: attribute input_shape) and which gives the kernel
 * its size (-1: attribute kernel_shape). */
static const struct {
    Op op;
    int x, weight;
} window_ops[] = {
    {OP_Conv, 0, 1},         {OP_ConvTranspose, 0, 1},     {OP_ConvWgrad, 0, -1},
    {OP_MaxPool, 0, -1},     {OP_AveragePool, 0, -1},      {OP_MaxPoolGrad, 1, -1},
    {OP_MaxPoolPick, 1, -1}, {OP_AveragePoolGrad, -1, -1}, {OP_LpPool, 0, -1},
    {OP_MaxUnpool, 0, -1},   {OP_ConvInteger, 0, 1},       {OP_QLinearConv, 0, 3},
    {OP_DeformConv, 0, 1},
};

enum { WINDOW_OPS = sizeof window_ops / sizeof *window_ops };

/* attr as `count` numbers of at least `low`; `otherwise` for all where it is absent. */
static int window_attr(const Node *n, const char *attr, int count, int64_t low, int64_t otherwise,
                       int64_t *out, Diag *d)
{
    size_t have = 0;
    const int64_t *list = node_ints(n, attr, &have);
    if (list && have != (size_t)count)
        return node_error(d, n, "'%s' has %zu numbers, needs %d", attr, have, count);
    for (int i = 0; i < count; i++) {
        out[i] = list ? list[i] : otherwise;
        if (out[i] < low || out[i] > INT32_MAX)
            return node_error(d, n, "'%s' has %lld, allowed is %lld to %d", attr, (long long)out[i],
                              (long long)low, INT32_MAX);
    }
    return 0;
}

static int window_kernel(const Node *n, const Type *weight, Window *w, Diag *d)
{
    if (!weight && !node_attr(n, "kernel_shape"))
        return node_error(d, n, "attribute 'kernel_shape' is missing");
    TRY(window_attr(n, "kernel_shape", w->n, 1, 1, w->kernel, d));
    if (!weight || weight->rank < 0) return 0;
    if (weight->rank != w->n + 2)
        return node_error(d, n, "weight has rank %d, input needs %d", weight->rank, w->n + 2);
    for (int i = 0; i < w->n; i++) {
        int64_t k = weight->dim[i + 2];
        if (k < 1 || k > INT32_MAX)
            return node_error(d, n, "weight has %s on kernel axis %d",
                              k == 0 ? "no elements" : "an unusable size", i);
        if (node_attr(n, "kernel_shape") && w->kernel[i] != k)
            return node_error(d, n, "'kernel_shape' says %lld on axis %d, the weight has %lld",
                              (long long)w->kernel[i], i, (long long)k);
        w->kernel[i] = k;
    }
    return 0;
}

typedef enum AutoPad { PAD_EXPLICIT, PAD_VALID, PAD_UPPER, PAD_LOWER } AutoPad;

static int auto_pad_of(const Node *n, AutoPad *out, Diag *d)
{
    static const char *const names[] = {"NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"};
    const char *s = node_str(n, "auto_pad", "NOTSET");
    for (int k = 0; k < 4; k++)
        if (strcmp(s, names[k]) == 0) {
            *out = (AutoPad)k;
            return 0;
        }
    return node_error(d, n, "'auto_pad' is '%s'", s);
}

static int64_t reach(const Window *w, int i) { return (w->kernel[i] - 1) * w->dilation[i] + 1; }

/* Splits a total padding; the odd one goes to the end for SAME_UPPER. */
static void split_pad(Window *w, int i, int64_t total, bool upper)
{
    w->pad[i] = upper ? total / 2 : (total + 1) / 2;
    w->pad_end[i] = total - w->pad[i];
}

static bool is_pool(const Node *n)
{
    return n->op != OP_Conv && n->op != OP_ConvWgrad && n->op != OP_ConvInteger &&
           n->op != OP_QLinearConv;
}

static void same_axis(const Node *n, Window *w, int i, AutoPad mode)
{
    int64_t in = w->in[i], s = w->stride[i];
    w->pad[i] = w->pad_end[i] = 0;
    w->out[i] = s == 1 ? in : DIM_UNKNOWN;
    if (in < 0) return;
    w->out[i] = in / s + (in % s != 0);
    const int64_t total = (w->out[i] - 1) * s + reach(w, i) - in;
    split_pad(w, i, in == 0 || (total < 0 && !is_pool(n)) ? 0 : total, mode == PAD_UPPER);
}

static int slide_axis(const Node *n, Window *w, int i, bool ceil_mode, Diag *d)
{
    int64_t s = w->stride[i], pads = w->pad[i] + w->pad_end[i], room, start;
    if (w->in[i] < 0) {
        w->out[i] = s == 1 && pads == reach(w, i) - 1 ? w->in[i] : DIM_UNKNOWN;
        return 0;
    }
    if (__builtin_add_overflow(w->in[i], pads - reach(w, i), &room) || room < 0)
        return node_error(d, n, "window reaches over %lld, the padded input has %lld on axis %d",
                          (long long)reach(w, i), (long long)w->in[i] + (long long)pads, i + 2);
    w->out[i] = room / s + 1;
    if (!ceil_mode || room % s == 0) return 0;
    /* One more window, unless it would start in the padding at the end. */
    start = w->out[i] * s;
    if (start < w->in[i] + w->pad[i]) w->out[i]++;
    return 0;
}

static int slide(const Node *n, Window *w, Diag *d)
{
    AutoPad mode = PAD_EXPLICIT;
    bool ceil_mode = node_int(n, "ceil_mode", 0) != 0;
    TRY(auto_pad_of(n, &mode, d));
    for (int i = 0; i < w->n; i++) {
        if (mode == PAD_VALID) w->pad[i] = w->pad_end[i] = 0;
        if (mode >= PAD_UPPER)
            same_axis(n, w, i, mode);
        else
            TRY(slide_axis(n, w, i, ceil_mode, d));
    }
    return 0;
}

/* The last w->n numbers of output_shape (some exporters write the batch and channels too). */
static int wanted_output(const Node *n, const Window *w, const int64_t **out, Diag *d)
{
    size_t have = 0;
    const int64_t *list = node_ints(n, "output_shape", &have);
    *out = NULL;
    if (!list) return 0;
    if (have != (size_t)w->n && have != (size_t)w->n + 2)
        return node_error(d, n, "'output_shape' has %zu numbers, needs %d", have, w->n);
    *out = list + (have - (size_t)w->n);
    return 0;
}

static int spread_axis(const Node *n, Window *w, int i, AutoPad mode, int64_t extra,
                       const int64_t *wanted, Diag *d)
{
    int64_t in = w->in[i], s = w->stride[i], span, same;
    w->out[i] = wanted ? wanted[i] : DIM_UNKNOWN;
    if (mode == PAD_VALID) w->pad[i] = w->pad_end[i] = 0;
    if (in < 0) return 0;
    if (__builtin_mul_overflow(in - 1, s, &span) || span > INT64_MAX / 4 ||
        __builtin_mul_overflow(in, s, &same))
        return node_error(d, n, "output size overflows on axis %d", i + 2);
    span += extra + reach(w, i);
    if (wanted || mode >= PAD_UPPER) {
        w->out[i] = wanted ? wanted[i] : same;
        split_pad(w, i, span < w->out[i] ? 0 : span - w->out[i], mode == PAD_UPPER);
    } else {
        w->out[i] = span - w->pad[i] - w->pad_end[i];
    }
    if (w->out[i] >= 0) return 0;
    return node_error(d, n, "output has %lld positions on axis %d", (long long)w->out[i], i + 2);
}

static int spread(const Node *n, Window *w, Diag *d)
{
    AutoPad mode = PAD_EXPLICIT;
    const int64_t *wanted;
    int64_t extra[MAX_RANK];
    TRY(auto_pad_of(n, &mode, d));
    TRY(window_attr(n, "output_padding", w->n, 0, 0, extra, d));
    TRY(wanted_output(n, w, &wanted, d));
    for (int i = 0; i < w->n; i++) TRY(spread_axis(n, w, i, mode, extra[i], wanted, d));
    return 0;
}

/* Sizes of the spatial axes of what the window slides over. */
static int window_input(const Node *n, int x, Window *w, Diag *d)
{
    int64_t pads[2 * MAX_RANK];
    size_t rank = 0;
    const int64_t *dim = x < 0 ? node_ints(n, "input_shape", &rank) : n->in[x]->type.dim;
    if (!dim) return node_error(d, n, "attribute 'input_shape' is missing");
    if (x >= 0) rank = (size_t)n->in[x]->type.rank;
    if (rank < 3 || rank > MAX_RANK)
        return node_error(d, n, "input has rank %zu, needs 3 to %d", rank, MAX_RANK);
    w->n = (int)rank - 2;
    for (int i = 0; i < w->n; i++) {
        w->in[i] = dim[i + 2];
        if (w->in[i] > INT64_MAX / 4 || (w->in[i] < 0 && !dim_is_sym(w->in[i])))
            return node_error(d, n, "axis %d has size %lld", i + 2, (long long)w->in[i]);
    }
    TRY(window_attr(n, "strides", w->n, 1, 1, w->stride, d));
    TRY(window_attr(n, "dilations", w->n, 1, 1, w->dilation, d));
    TRY(window_attr(n, "pads", 2 * w->n, 0, 0, pads, d));
    memcpy(w->pad, pads, (size_t)w->n * sizeof *pads);
    memcpy(w->pad_end, pads + w->n, (size_t)w->n * sizeof *pads);
    return 0;
}

int node_window(const Node *n, Window *w, Diag *d)
{
    int k = 0;
    while (k < WINDOW_OPS && window_ops[k].op != n->op) k++;
    if (k == WINDOW_OPS) trap(TRAP_INTERNAL, "%s has no window", op_info[n->op].name);
    *w = (Window){0};
    const Type *weight = window_ops[k].weight < 0 ? NULL : &n->in[window_ops[k].weight]->type;
    TRY(window_input(n, window_ops[k].x, w, d));
    TRY(window_kernel(n, weight, w, d));
    bool spreads = n->op == OP_ConvTranspose || n->op == OP_MaxUnpool;
    return spreads ? spread(n, w, d) : slide(n, w, d);
}
