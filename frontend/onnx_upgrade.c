/* Opset normalization: nodes of opset 7 and later in the form of opset 18.
 *
 * Most of it is attributes that became inputs, listed in ir/opset.def. The rest are the rules
 * below, each with the opset until which it applies. */
#include <string.h>

#include "frontend/onnx_import.h"

static int make_opaque(Node *n)
{
    if (!n->op_type) n->op_type = op_info[n->op].name;
    n->domain = "";
    n->op = OP_Opaque;
    return 0;
}

/* ---- attributes that became inputs -------------------------------------------------- */

static void set_input(Import *im, Node *n, int index, Value *v)
{
    if (index >= n->nin) {
        Value **in = NEW_ARRAY(im->g->arena, Value *, index + 1);
        if (n->nin) memcpy(in, n->in, (size_t)n->nin * sizeof *in);
        n->in = in;
        n->nin = index + 1;
    }
    n->in[index] = v;
}

static const char *helper_name(Import *im, const Node *n, const char *what)
{
    const char *base = n->nout && n->out[0] ? n->out[0]->name : what;
    return arena_printf(im->tmp, "%s_%s", base, what);
}

static Value *ints_input(Import *im, const Node *n, const Attr *a)
{
    bool one = a->kind == ATTR_INT;
    int64_t dim = one ? 1 : (int64_t)a->n;
    const int64_t *ints = one ? arena_memdup(im->g->arena, &a->i, sizeof a->i) : a->ints;
    return value_const(im->g, helper_name(im, n, a->name), type_of(DT_I64, 1, &dim), ints);
}

/* Of the type of the data, as Clip and Pad demand; Dropout's ratio is float. */
static Value *float_input(Import *im, const Node *n, const Attr *a)
{
    double wide = a->f;
    bool is_double = n->op != OP_Dropout && n->in[0]->type.dtype == DT_F64;
    const void *data = is_double ? arena_memdup(im->g->arena, &wide, sizeof wide)
                                 : arena_memdup(im->g->arena, &a->f, sizeof a->f);
    return value_const(im->g, helper_name(im, n, a->name),
                       type_of(is_double ? DT_F64 : DT_F32, 0, NULL), data);
}

static bool float_input_fits(const Node *n)
{
    DType t = n->nin && n->in[0] ? n->in[0]->type.dtype : DT_NONE;
    return n->op == OP_Dropout || t == DT_F32 || t == DT_F64;
}

static int attrs_to_inputs(Import *im, Node *n)
{
    for (const OpsetInput *was = opset_inputs; was->attr; was++) {
        if (was->op != n->op || im->opset >= was->below) continue;
        const Attr *a = node_attr(n, was->attr);
        if (!a) continue;
        static const AttrKind kinds[] = {ATTR_INTS, ATTR_INT, ATTR_FLOAT};
        bool ints = was->kind != KIND_FLOAT;
        if (a->kind != kinds[was->kind])
            return node_error(im->d, n, "attribute '%s' has the wrong type", a->name);
        if (!ints && !float_input_fits(n)) return make_opaque(n);
        if (was->index < n->nin && n->in[was->index])
            return node_error(im->d, n, "it has %d inputs; at opset %lld '%s' is an attribute",
                              n->nin, (long long)im->opset, a->name);
        set_input(im, n, was->index, ints ? ints_input(im, n, a) : float_input(im, n, a));
        node_remove_attr(n, was->attr);
    }
    return 0;
}

/* ---- rules -------------------------------------------------------------------------- */

static Value *helper(Import *im, Node *of, Op op, int nin, Value *const *in, const char *what,
                     int64_t axis)
{
    Graph *g = im->g;
    g->at = of;
    Node *n = node_new(g, op, nin, in, 1);
    g->at = NULL;
    n->out[0] = value_new(g, helper_name(im, of, what), (Type){.rank = -1});
    if (op == OP_Flatten) node_set_attr(g, n, attr_int("axis", axis));
    return append_node(im, n) < 0 ? NULL : n->out[0];
}

/* Before opset 13 softmax ran over all axes from `axis` on, as if flattened to a matrix. Where
 * only one of those is longer than 1 that is today's meaning; else
 * y = Reshape(Softmax<axis=1>(Flatten<axis>(x)), Shape(x)). */
static int flat_softmax(Import *im, Node *n, Node **after)
{
    Graph *g = im->g;
    if (n->nin != 1 || !n->in[0] || n->nout != 1 || !n->out[0])
        return node_error(im->d, n, "it takes one input and makes one output");
    const Type *t = &n->in[0]->type;
    int64_t axis = node_int(n, "axis", 1);
    bool same = t->rank >= 0 && axis >= -t->rank && axis < t->rank;
    for (int64_t i = same ? (axis < 0 ? axis + t->rank : axis) + 1 : 0; same && i < t->rank; i++)
        same = t->dim[i] == 1;
    node_set_attr(g, n, attr_int("axis", same ? axis : 1));
    if (same) return 0;
    Value *y = n->out[0], *x = n->in[0];
    Value *flat = helper(im, n, OP_Flatten, IN(x), "flat", axis);
    Value *shape = flat ? helper(im, n, OP_Shape, IN(x), "shape", 0) : NULL;
    if (!shape) return -1;
    n->in[0] = flat;
    n->out[0] = value_new(g, helper_name(im, n, "softmax"), (Type){.rank = -1});
    g->at = n;
    *after = node_new(g, OP_Reshape, IN(n->out[0], shape), 1);
    g->at = NULL;
    (*after)->out[0] = y;
    return 0;
}

/* Training-mode normalization, and the per-activation kind of opset 8, stay as they are. */
static int batch_norm(Import *im, Node *n, Node **after)
{
    (void)im;
    (void)after;
    for (int o = 1; o < n->nout; o++)
        if (n->out[o]) return make_opaque(n);
    if (node_int(n, "training_mode", 0) || !node_int(n, "spatial", 1)) return make_opaque(n);
    node_remove_attr(n, "spatial");
    return 0;
}

/* Pixel corners, not centres, were where the coordinates began. */
static int roi_align(Import *im, Node *n, Node **after)
{
    (void)after;
    node_set_attr(im->g, n, attr_str("coordinate_transformation_mode", "output_half_pixel"));
    return 0;
}

/* The axis was 1, not the last but one. Half of a spectrum back to real numbers is not known. */
static int dft(Import *im, Node *n, Node **after)
{
    static const int64_t one = 1;
    (void)after;
    if (node_int(n, "onesided", 0) && node_int(n, "inverse", 0)) return make_opaque(n);
    if (im->opset >= 20) return 0;
    if (!node_in(n, 2))
        set_input(im, n, 2,
                  value_const(im->g, helper_name(im, n, "axis"), type_of(DT_I64, 0, NULL), &one));
    if (value_is_const(n->in[2]) && type_count(&n->in[2]->type) == 1) n->in[2]->type.rank = 0;
    return 0;
}

/* Of images; other ranks are not known. */
static int deform_conv(Import *im, Node *n, Node **after)
{
    (void)im, (void)after;
    int rank = node_in(n, 0) ? n->in[0]->type.rank : -1;
    return rank >= 0 && rank != 4 ? make_opaque(n) : 0;
}

static int split_parts(Import *im, Node *n, Node **after)
{
    (void)after;
    if (!node_in(n, 1) && !node_attr(n, "num_outputs"))
        node_set_attr(im->g, n, attr_int("num_outputs", n->nout));
    return 0;
}

/* Blocked scales, float8 and the like. */
static int quantize(Import *im, Node *n, Node **after)
{
    (void)im;
    (void)after;
    int64_t to = node_int(n, "output_dtype", 0);
    if (node_int(n, "block_size", 0) || node_int(n, "precision", 0) ||
        (to && !dtype_size(tensor_dtype((int32_t)to))))
        return make_opaque(n);
    return 0;
}

static int cast(Import *im, Node *n, Node **after)
{
    (void)im;
    (void)after;
    int64_t to = node_int(n, "to", 0);
    bool known = to > 0 && to < 32 && dtype_size(tensor_dtype((int32_t)to));
    return node_attr(n, "to") && !known ? make_opaque(n) : 0;
}

/* Upsample until opset 9 and Resize of opset 10 are Resize<asymmetric> with (x, scales), or scales
 * as an attribute. Their nearest neighbour was left to the runtimes; that of ONNX Runtime is the
 * one below where the image grows, as Upsample's does, and above where it shrinks. */
static int resize_10(Import *im, Node *n, Node **after)
{
    const int64_t none = 0, rank = n->nin ? n->in[0]->type.rank : -1;
    const Attr *listed = node_attr(n, "scales");
    double scale[MAX_RANK];
    int count = 0;
    bool grows = false, shrinks = false;
    (void)after;
    if (listed && listed->kind == ATTR_FLOATS && n->nin == 1 && (int64_t)listed->n == rank) {
        const int64_t dim = rank;
        set_input(im, n, 1,
                  value_const(im->g, helper_name(im, n, "scales"), type_of(DT_F32, 1, &dim),
                              listed->floats));
        node_remove_attr(n, "scales");
    }
    if (n->nin == 2 && n->in[1]) count = value_floats(n->in[1], scale, MAX_RANK);
    for (int i = 0; i < count; i++) {
        grows |= scale[i] > 1;
        shrinks |= scale[i] < 1;
    }
    bool known = count > 0 || n->op_type || strcmp(node_str(n, "mode", "nearest"), "nearest") != 0;
    if (!node_in(n, 1) || !known || (grows && shrinks)) return make_opaque(n);
    set_input(im, n, 2, n->in[1]);
    n->in[1] = value_const(im->g, helper_name(im, n, "roi"), type_of(DT_F32, 1, &none), "");
    node_set_attr(im->g, n, attr_str("coordinate_transformation_mode", "asymmetric"));
    node_set_attr(im->g, n, attr_str("nearest_mode", shrinks ? "ceil" : "floor"));
    n->op_type = NULL;
    return 0;
}

static const struct {
    Op op;
    int64_t below;
    int (*rule)(Import *im, Node *n, Node **after);
} rules[] = {
    {OP_Softmax, 13, flat_softmax},
    {OP_LogSoftmax, 13, flat_softmax},
    {OP_Hardmax, 13, flat_softmax},
    {OP_BatchNormalization, INT64_MAX, batch_norm},
    {OP_Resize, 11, resize_10},
    {OP_RoiAlign, 16, roi_align},
    {OP_DFT, INT64_MAX, dft},
    {OP_DeformConv, INT64_MAX, deform_conv},
    {OP_Split, INT64_MAX, split_parts},
    {OP_QuantizeLinear, INT64_MAX, quantize},
    {OP_DequantizeLinear, INT64_MAX, quantize},
    {OP_Cast, INT64_MAX, cast},
};

int upgrade_node(Import *im, Node *n, Node **after)
{
    TRY(attrs_to_inputs(im, n));
    for (size_t k = 0; k < sizeof rules / sizeof *rules; k++)
        if (rules[k].op == n->op && im->opset < rules[k].below) return rules[k].rule(im, n, after);
    return 0;
}
