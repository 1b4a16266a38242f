/* Convolutions: Conv, ConvTranspose and the weight gradient ConvWgrad. */
#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/ops/products.h"
#include "ir/rules.h"
#include "ir/window.h"

/* ---- shapes and costs --------------------------------------------------------------- */

/* x [N, C, in…], w [M, C/group, k…] -> [N, M, out…]. */
static int conv_channels(const Node *n, const Type *x, const Type *w, int64_t group, Diag *d)
{
    int64_t needs = dim_times(w->dim[1], group), both;
    if (needs == DIM_BAD || !dim_agree(x->dim[1], needs, &both))
        return node_error(d, n, "weight needs %lld input channels, input '%s' has %lld",
                          (long long)needs, n->in[0]->name, (long long)x->dim[1]);
    if (w->dim[0] >= 0 && w->dim[0] % group != 0)
        return node_error(d, n, "%lld output channels do not divide into %lld groups",
                          (long long)w->dim[0], (long long)group);
    return 0;
}

static int group_of(const Node *n, int64_t *group, Diag *d)
{
    *group = node_int(n, "group", 1);
    if (*group < 1) return node_error(d, n, "'group' is %lld", (long long)*group);
    return 0;
}

/* The batch and channels in front of the window's output. */
static Type windowed(DType dtype, int64_t batch, int64_t channels, const Window *w)
{
    Type t = {.dtype = dtype, .rank = w->n + 2, .dim = {batch, channels}};
    for (int i = 0; i < w->n; i++) t.dim[i + 2] = w->out[i];
    return t;
}

int conv_type(const Node *n, int ix, int iw, int bias, Type *t, Diag *d)
{
    Type x = input_type(n, ix), w = input_type(n, iw);
    int64_t group;
    Window win;
    *t = type_unknown(x.dtype);
    TRY(group_of(n, &group, d));
    if (x.rank < 0 || w.rank < 0) return 0;
    TRY(node_window(n, &win, d));
    TRY(conv_channels(n, &x, &w, group, d));
    TRY(expect_vector(n, bias, w.dim[0], "bias", d));
    *t = windowed(x.dtype, x.dim[0], w.dim[0], &win);
    return 0;
}

int infer_conv(Node *n, Diag *d)
{
    Type t;
    TRY(expect_same_dtype(n, 0, 1, d));
    TRY(conv_type(n, 0, 1, 2, &t, d));
    return infer_out(n, 0, t, d);
}

/* x [N, C, in…], w [C, M/group, k…] -> [N, M, out…]. */
int infer_conv_transpose(Node *n, Diag *d)
{
    Type x = input_type(n, 0), w = input_type(n, 1);
    int64_t group, channels, both;
    Window win;
    TRY(expect_same_dtype(n, 0, 1, d));
    TRY(group_of(n, &group, d));
    if (x.rank < 0 || w.rank < 0) return infer_out(n, 0, type_unknown(x.dtype), d);
    TRY(node_window(n, &win, d));
    if (!dim_agree(x.dim[1], w.dim[0], &both))
        return node_error(d, n, "weight needs %lld input channels, input '%s' has %lld",
                          (long long)w.dim[0], n->in[0]->name, (long long)x.dim[1]);
    if (both >= 0 && both % group != 0)
        return node_error(d, n, "%lld input channels do not divide into %lld groups",
                          (long long)both, (long long)group);
    channels = dim_times(w.dim[1], group);
    TRY(expect_vector(n, 2, channels, "bias", d));
    return infer_out(n, 0, windowed(x.dtype, x.dim[0], channels, &win), d);
}

/* x [N, C, in…], dy [N, M, out…] -> [M, C/group, kernel_shape…]. */
int infer_conv_wgrad(Node *n, Diag *d)
{
    Type x = input_type(n, 0), dy = input_type(n, 1);
    int64_t group, both;
    Window win;
    TRY(expect_same_dtype(n, 0, 1, d));
    TRY(group_of(n, &group, d));
    if (x.rank < 0 || dy.rank < 0) return infer_out(n, 0, type_unknown(x.dtype), d);
    TRY(expect_rank(n, 1, x.rank, d));
    TRY(node_window(n, &win, d));
    for (int i = 0; i < win.n; i++)
        if (!dim_agree(win.out[i], dy.dim[i + 2], &both))
            return node_error(d, n, "dy has %lld positions on axis %d, the window makes %lld",
                              (long long)dy.dim[i + 2], i + 2, (long long)win.out[i]);
    if (x.dim[1] >= 0 && x.dim[1] % group != 0)
        return node_error(d, n, "%lld input channels do not divide into %lld groups",
                          (long long)x.dim[1], (long long)group);
    Type t = {.dtype = x.dtype, .rank = x.rank, .dim = {dy.dim[1]}};
    t.dim[1] = x.dim[1] >= 0 ? x.dim[1] / group : group == 1 ? x.dim[1] : DIM_UNKNOWN;
    for (int i = 0; i < win.n; i++) t.dim[i + 2] = win.kernel[i];
    return infer_out(n, 0, t, d);
}

/* Two per multiply-add: every element of `each` meets every element of w[0] of a weight. */
static int64_t conv_flops(const Type *each, const Type *w)
{
    if (each->rank < 0 || w->rank < 0) return 0;
    return mul_sat(2, mul_sat(dims_product(each, 0, each->rank), dims_product(w, 1, w->rank)));
}

int64_t flops_conv(const Node *n) { return conv_flops(&n->out[0]->type, &n->in[1]->type); }

int64_t flops_conv_transpose(const Node *n) { return conv_flops(&n->in[0]->type, &n->in[1]->type); }

int64_t flops_conv_wgrad(const Node *n) { return conv_flops(&n->in[1]->type, &n->out[0]->type); }

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* The three ops are the partial maps of one trilinear form of (big, w, small):
 * Conv(big, w) -> small, ConvTranspose(small, w) -> big, ConvWgrad(big, small) -> w. */
typedef struct ConvForm {
    Value *big, *w, *small; /* the one that the op delivers is its output */
} ConvForm;

static ConvForm conv_form(const Node *n)
{
    Value *a = n->in[0], *b = n->in[1], *y = n->out[0];
    if (n->op == OP_Conv) return (ConvForm){a, b, y};
    if (n->op == OP_ConvTranspose) return (ConvForm){y, b, a};
    return (ConvForm){a, y, b};
}

/* A detached node of the given op with n's geometry, every attribute explicit and in one order, so
 * that all convolutions derived from one layer can be merged where they are equal. */
static Node *conv_normal(Graph *g, const Node *n, Op op)
{
    Window w;
    Diag quiet = {0};
    ConvForm f = conv_form(n);
    int64_t pads[2 * MAX_RANK], rest[MAX_RANK];
    if (node_window(n, &w, &quiet) < 0) trap(TRAP_INTERNAL, "convolution without geometry");
    for (int i = 0; i < w.n; i++) {
        int64_t reach = (f.small->type.dim[i + 2] - 1) * w.stride[i] +
                        (w.kernel[i] - 1) * w.dilation[i] + 1 - w.pad[i] - w.pad_end[i];
        pads[i] = w.pad[i];
        pads[i + w.n] = w.pad_end[i];
        rest[i] = f.big->type.dim[i + 2] - reach;
    }
    size_t rank = (size_t)w.n;
    Node *m = node_new(g, op, n->nin, n->in, 1);
    node_set_attr(g, m, attr_ints("dilations", rank, w.dilation));
    node_set_attr(g, m, attr_int("group", node_int(n, "group", 1)));
    node_set_attr(g, m, attr_ints("kernel_shape", rank, w.kernel));
    if (op == OP_ConvTranspose) node_set_attr(g, m, attr_ints("output_padding", rank, rest));
    node_set_attr(g, m, attr_ints("pads", 2 * rank, pads));
    node_set_attr(g, m, attr_ints("strides", rank, w.stride));
    return m;
}

static Value *conv_map(Ad *ad, const Node *n, Op op, Value *a, Value *b)
{
    Node *m = conv_normal(ad->g, n, op);
    return build(ad->g, op, IN(a, b), m->nattrs, m->attrs);
}

/* Sum over all but the channel axis 1. */
static Value *conv_bias_grad(Ad *ad, Value *dy)
{
    int64_t axes[MAX_RANK] = {0};
    for (int i = 1; i < dy->type.rank - 1; i++) axes[i] = i + 1;
    return build(ad->g, OP_ReduceSum, IN(dy, const_ints(ad->g, dy->type.rank - 1, axes)),
                 ATTRS(attr_int("keepdims", 0)));
}

int vjp_conv(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    if (ad_wants(ad, n->in[0])) dx[0] = conv_map(ad, n, OP_ConvTranspose, dy[0], n->in[1]);
    if (ad_wants(ad, n->in[1])) dx[1] = conv_map(ad, n, OP_ConvWgrad, n->in[0], dy[0]);
    if (ad_wants(ad, node_in(n, 2))) dx[2] = conv_bias_grad(ad, dy[0]);
    return 0;
}

int vjp_conv_transpose(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    if (ad_wants(ad, n->in[0])) dx[0] = conv_map(ad, n, OP_Conv, dy[0], n->in[1]);
    if (ad_wants(ad, n->in[1])) dx[1] = conv_map(ad, n, OP_ConvWgrad, dy[0], n->in[0]);
    if (ad_wants(ad, node_in(n, 2))) dx[2] = conv_bias_grad(ad, dy[0]);
    return 0;
}

int vjp_conv_wgrad(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    if (ad_wants(ad, n->in[0])) dx[0] = conv_map(ad, n, OP_ConvTranspose, n->in[1], dy[0]);
    if (ad_wants(ad, n->in[1])) dx[1] = conv_map(ad, n, OP_Conv, n->in[0], dy[0]);
    return 0;
}

/* Of all three ops. */
int jvp_conv(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    Node *m = conv_normal(ad->g, n, n->op);
    return jvp_multilinear(ad, m, dx, dy, 2);
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* group 1:    input c - weight[:, c]; weight[m] - bias[m] - output m.
 * depthwise:  input c - weight[m] - bias[m] - output m for the multiplier's m of c.
 * grouped:    equal positions of all groups go together, so that groups stay equally large:
 *             input g*C' + i - weight[:, i]; weight[g*M' + j] - output g*M' + j, tied over g. */
static void lanes_depthwise(Lanes *l, const Node *n, int in_axis)
{
    const Value *x = n->in[0], *w = n->in[1], *y = n->out[0];
    int64_t c = x->type.dim[1], multiplier = c ? y->type.dim[1] / c : 0;
    for (int64_t i = 0; i < c; i++)
        for (int64_t j = 0; j < multiplier; j++) {
            lanes_tie(l, x, 1, i, y, 1, i * multiplier + j);
            lanes_tie(l, x, 1, i, w, 0, in_axis == 0 ? i : i * multiplier + j);
        }
}

/* Axis 1 of v, in `groups` blocks, with the axis of one block or of all of them in w. */
static void tie_groups(Lanes *l, const Value *v, int64_t groups, const Value *w, int axis)
{
    int64_t per = v->type.dim[1] / groups;
    bool blocks = w->type.dim[axis] == v->type.dim[1] && groups > 1;
    for (int64_t g = 0; g < groups; g++)
        for (int64_t i = 0; i < per; i++) {
            lanes_tie(l, v, 1, g * per + i, w, axis, blocks ? g * per + i : i);
            lanes_tie(l, v, 1, g * per + i, v, 1, i);
        }
}

static bool is_depthwise(const Node *n, int64_t group)
{
    const Type *x = &n->in[0]->type, *y = &n->out[0]->type;
    return group > 1 && x->dim[1] == group && y->dim[1] >= 0;
}

/* in_axis: which axis of the weight meets the input channels. */
static void lanes_convolution(Lanes *l, const Node *n, int in_axis)
{
    const Value *x = n->in[0], *w = n->in[1], *y = n->out[0];
    const Value *b = node_in(n, n->op == OP_DeformConv ? 3 : 2);
    int64_t group = node_int(n, "group", 1);
    if (x->type.rank < 2 || w->type.rank < 2 || y->type.rank < 2) return;
    if (group > 1 && (x->type.dim[1] < 0 || y->type.dim[1] < 0)) return;
    lanes_pass(l, x, 0, y, 0);
    if (is_depthwise(n, group)) {
        lanes_depthwise(l, n, in_axis);
    } else if (group > 1) {
        tie_groups(l, x, group, w, in_axis);
        tie_groups(l, y, group, w, 1 - in_axis);
    } else {
        lanes_tie_axis(l, w, 1 - in_axis, y, 1);
        lanes_tie_axis(l, x, 1, w, in_axis);
    }
    if (b) lanes_tie_axis(l, b, 0, y, 1);
}

void rule_lanes_conv(Lanes *l, const Node *n) { lanes_convolution(l, n, 1); }

/* Channels that are moved alike, or outputs alone where there are several groups of those. */
void rule_lanes_deform_conv(Lanes *l, const Node *n)
{
    const Value *w = n->in[1], *b = node_in(n, 3), *y = n->out[0];
    if (node_int(n, "offset_group", 1) == 1) {
        lanes_convolution(l, n, 1);
    } else if (node_int(n, "group", 1) == 1) {
        lanes_tie_axis(l, w, 0, y, 1);
        if (b) lanes_tie_axis(l, b, 0, y, 1);
    }
}

void rule_lanes_conv_transpose(Lanes *l, const Node *n) { lanes_convolution(l, n, 0); }

/* A depthwise convolution has as many groups as input channels. */
int shrink_conv(Lanes *l, Graph *g, Node *n, Diag *d)
{
    const Value *x = n->in[0];
    int64_t group = node_int(n, "group", 1);
    (void)d;
    if (group > 1 && lanes_open(l, x, 1) && lanes_size(l, x, 1) == group)
        node_set_attr(g, n, attr_int("group", lanes_survivors(l, x, 1, 0, group)));
    return 0;
}

/* ---- end of channels ---------------------------------------------------------------- */
