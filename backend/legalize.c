/* The way back from the IR's normal form to the opset that is written: inputs that used to be
 * attributes, attributes that did not exist yet, and the few ops whose meaning moved. */
#include <string.h>

#include "backend/emit.h"

enum { UNLESS_INT, UNLESS_ONES, UNLESS_SCALAR, UNLESS_ANY };
#define INT(x) UNLESS_INT, x
#define ONES UNLESS_ONES, 0
#define SCALAR UNLESS_SCALAR, 0
#define ANY UNLESS_ANY, 0

static const struct {
    Op op;
    const char *attr;
    int64_t since;
    int unless;
    int64_t value;
} attr_since[] = {
#define ATTR_SINCE(op, attr, opset, ...) {OP_##op, attr, opset, __VA_ARGS__},
#include "backend/opsets.def"
};

static const struct {
    Op op;
    int64_t opset;
} since[] = {
#define SINCE(op, opset) {OP_##op, opset},
#include "backend/opsets.def"
};

static const struct {
    const char *op;
    int64_t opset;
    const char *attr;
} breaks[] = {
#define BREAKS(op, opset, attr) {op, opset, attr},
#include "backend/opsets.def"
};

static int too_old(Emit *e, const Node *n, const char *what, int64_t opset)
{
    if (e->needed) {
        if (opset > *e->needed) *e->needed = opset;
        return -1;
    }
    return node_error(e->d, n, "%s needs opset %lld, and opset %lld is written", what,
                      (long long)opset, (long long)e->opset);
}

static void add_attr(Emit *e, Node *n, Attr a)
{
    node_remove_attr(n, a.name);
    Attr *attrs = NEW_ARRAY(e->a, Attr, n->nattrs + 1);
    if (n->nattrs) memcpy(attrs, n->attrs, (size_t)n->nattrs * sizeof *attrs);
    attrs[n->nattrs++] = a;
    n->attrs = attrs;
}

/* ---- inputs to attributes ----------------------------------------------------------- */

static int input_to_attr(Emit *e, Node *n, const Value *v, const char *attr, InputKind kind,
                         int64_t below)
{
    double x;
    if (kind == KIND_FLOAT) {
        if (!v->data || !value_scalar(v, &x)) return too_old(e, n, "a computed bound", below);
        add_attr(e, n, attr_float(attr, (float)x));
        return 0;
    }
    int64_t count = v->data ? type_count(&v->type) : -1;
    int64_t *ints = NEW_ARRAY(e->a, int64_t, count < 0 ? 0 : count);
    if (count < 0 || count > INT32_MAX || value_ints(v, ints, (int)count) != count)
        return too_old(e, n, arena_printf(e->a, "a computed '%s'", attr), below);
    if (kind == KIND_INT && count != 1) return too_old(e, n, "a list", below);
    add_attr(e, n, kind == KIND_INT ? attr_int(attr, *ints) : attr_ints(attr, (size_t)count, ints));
    return 0;
}

static bool all_equal(const Value *v, int64_t x)
{
    int64_t at[64];
    int n = value_ints(v, at, 64);
    for (int i = 0; i < n; i++)
        if (at[i] != x) return false;
    return n >= 0;
}

/* An input that no attribute ever stood for: steps of 1, not training. */
static bool says_nothing(const Node *n, int i)
{
    if (n->op == OP_Slice && i == 4) return all_equal(n->in[i], 1);
    if (n->op == OP_Dropout && i == 2) return all_equal(n->in[i], 0);
    return false;
}

static int inputs_to_attrs(Emit *e, Node *n)
{
    int keep = n->nin;
    int64_t below = 0;
    for (const OpsetInput *was = opset_inputs; was->attr; was++) {
        if (was->op != n->op || e->opset >= was->below) continue;
        const Value *v = node_in(n, was->index);
        below = was->below;
        if (was->index < keep) keep = was->index;
        if (v) TRY(input_to_attr(e, n, v, was->attr, was->kind, below));
        if (v) n->in[was->index] = NULL;
    }
    for (int i = keep; i < n->nin; i++)
        if (n->in[i] && !says_nothing(n, i))
            return too_old(e, n, arena_printf(e->a, "input %d", i), below);
    n->nin = keep;
    if (n->op == OP_Pad && e->opset < 18 && node_in(n, 3)) return too_old(e, n, "input 'axes'", 18);
    return 0;
}

/* ---- attributes --------------------------------------------------------------------- */

static bool says_default(const Node *n, const Attr *a, int unless, int64_t value)
{
    if (unless == UNLESS_INT) return a->kind == ATTR_INT && a->i == value;
    if (unless == UNLESS_SCALAR) return n->nin > 1 && type_count(&n->in[1]->type) == 1;
    for (size_t i = 0; unless == UNLESS_ONES && i < a->n; i++)
        if (a->ints[i] != 1) return false;
    return true;
}

static int drop_young_attrs(Emit *e, Node *n)
{
    for (size_t k = 0; k < sizeof attr_since / sizeof *attr_since; k++) {
        if (attr_since[k].op != n->op || e->opset >= attr_since[k].since) continue;
        const Attr *a = node_attr(n, attr_since[k].attr);
        if (!a) continue;
        if (!says_default(n, a, attr_since[k].unless, attr_since[k].value))
            return too_old(e, n, arena_printf(e->a, "attribute '%s'", a->name),
                           attr_since[k].since);
        node_remove_attr(n, attr_since[k].attr);
    }
    return 0;
}

/* Axes count from the end only since opset 11. */
static void positive_axes(Emit *e, Node *n)
{
    int rank = n->nin && n->in[0] ? n->in[0]->type.rank : -1;
    if (e->opset >= 11 || rank < 0) return;
    for (int k = 0; k < n->nattrs; k++) {
        Attr *a = &n->attrs[k];
        if (strcmp(a->name, "axis") == 0 && a->kind == ATTR_INT && a->i < 0) a->i += rank;
        if (strcmp(a->name, "axes") != 0 || a->kind != ATTR_INTS) continue;
        int64_t *ints = arena_memdup(e->a, a->ints, a->n * sizeof *ints);
        for (size_t i = 0; i < a->n; i++)
            if (ints[i] < 0) ints[i] += rank + (n->op == OP_Unsqueeze ? (int64_t)a->n : 0);
        a->ints = ints;
    }
}

/* Before opset 13 all axes from `axis` on are one: fine if the later ones are 1 long. */
static int flat_softmax(Emit *e, Node *n)
{
    const Type *t = &n->in[0]->type;
    int64_t axis = node_int(n, "axis", -1);
    if (e->opset >= 13) return 0;
    if (t->rank < 0)
        return node_attr(n, "axis") ? 0 : too_old(e, n, "an input of unknown rank", 13);
    if (axis < 0) axis += t->rank;
    for (int64_t i = axis + 1; i < t->rank; i++)
        if (t->dim[i] != 1) return too_old(e, n, "an axis that is not the last", 13);
    if (!node_attr(n, "axis") || e->opset < 11) add_attr(e, n, attr_int("axis", axis));
    return 0;
}

/* num_outputs came with opset 18; before, equal parts were what no sizes meant. */
static int split_parts(Emit *e, Node *n)
{
    const Type *t = &n->in[0]->type;
    int64_t axis = node_int(n, "axis", 0);
    bool sizes = node_in(n, 1) || node_attr(n, "split");
    if (sizes || e->opset < 18) node_remove_attr(n, "num_outputs");
    if (sizes || e->opset >= 18 || t->rank < 0) return 0;
    int64_t dim = t->dim[axis < 0 ? axis + t->rank : axis];
    return dim >= 0 && dim % n->nout ? too_old(e, n, "a split into unequal parts", 18) : 0;
}

static int quantize(Emit *e, Node *n)
{
    DType t = n->op == OP_QuantizeLinear ? n->out[0]->type.dtype : n->in[0]->type.dtype;
    if (e->opset < 21 && (t == DT_U16 || t == DT_I16))
        return too_old(e, n, "16-bit quantization", 21);
    if (e->opset < 13 && type_count(&n->in[1]->type) != 1)
        return too_old(e, n, "a scale per channel", 13);
    return 0;
}

/* Its name was Scatter in opsets 9 and 10. */
static int scatter(Emit *e, Node *n)
{
    if (e->opset >= 11) return 0;
    if (e->opset < 9) return too_old(e, n, "this op", 9);
    if (node_attr(n, "reduction")) return too_old(e, n, "attribute 'reduction'", 16);
    n->op = OP_Opaque;
    n->op_type = "Scatter";
    n->domain = "";
    return 0;
}

static bool attr_is(const Node *n, const char *attr, const char *value)
{
    return strcmp(node_str(n, attr, ""), value) == 0;
}

/* Resize<asymmetric>(x, -, scales) with the nearest neighbour below was Upsample(x, scales) until
 * opset 9 and Resize(x, scales) in opset 10; there were no other kinds. */
static int first_resize(Emit *e, Node *n)
{
    Value *scales = node_in(n, 2);
    bool near = attr_is(n, "mode", "nearest") || !node_attr(n, "mode");
    if (!scales || node_in(n, 3) || attr_is(n, "mode", "cubic") || node_int(n, "antialias", 0) ||
        !attr_is(n, "coordinate_transformation_mode", "asymmetric") ||
        (near && !attr_is(n, "nearest_mode", "floor")))
        return too_old(e, n, "this kind of Resize", 11);
    Attr mode = attr_str("mode", near ? "nearest" : "linear");
    n->attrs = NEW(e->a, Attr);
    n->attrs[0] = mode;
    n->nattrs = 1;
    n->in = arena_memdup(e->a, (Value *[]){n->in[0], scales}, 2 * sizeof *n->in);
    n->nin = 2;
    if (e->opset >= 10) return 0;
    n->op = OP_Opaque;
    n->op_type = "Upsample";
    n->domain = "";
    if (e->opset == 9) return 0;
    if (!scales->data || scales->type.dtype != DT_F32) return too_old(e, n, "computed scales", 9);
    add_attr(e, n,
             (Attr){.name = "scales",
                    .kind = ATTR_FLOATS,
                    .n = (size_t)type_count(&scales->type),
                    .floats = scales->data});
    n->nin = 1;
    return 0;
}

static int resize(Emit *e, Node *n)
{
    bool policy = node_attr(n, "keep_aspect_ratio_policy") &&
                  !attr_is(n, "keep_aspect_ratio_policy", "stretch");
    if (e->opset < 19 && attr_is(n, "coordinate_transformation_mode", "half_pixel_symmetric"))
        return too_old(e, n, "mode 'half_pixel_symmetric'", 19);
    if (e->opset >= 18) return 0;
    if (node_attr(n, "axes") || policy) return too_old(e, n, "this kind of Resize", 18);
    node_remove_attr(n, "keep_aspect_ratio_policy");
    if (e->opset >= 13) return 0;
    if (e->opset >= 11) return node_in(n, 1) ? 0 : too_old(e, n, "no region", 13);
    return first_resize(e, n);
}

/* Modes lost their "bi" in opset 20, with which came other ranks than 4. */
static int grid_sample(Emit *e, Node *n)
{
    const char *mode = node_str(n, "mode", NULL);
    bool bi = mode && strncmp(mode, "bi", 2) == 0;
    if (e->opset < 20 && n->in[0]->type.rank >= 0 && n->in[0]->type.rank != 4)
        return too_old(e, n, "an input that is not of rank 4", 20);
    if (!mode || strcmp(mode, "nearest") == 0 || bi == (e->opset < 20)) return 0;
    add_attr(e, n, attr_str("mode", bi ? mode + 2 : arena_printf(e->a, "bi%s", mode)));
    return 0;
}

static int roi_align(Emit *e, Node *n)
{
    if (e->opset >= 16) return 0;
    if (!attr_is(n, "coordinate_transformation_mode", "output_half_pixel"))
        return too_old(e, n, "coordinates of pixel centres", 16);
    node_remove_attr(n, "coordinate_transformation_mode");
    return 0;
}

static int depth_to_space(Emit *e, Node *n)
{
    if (e->opset >= 11) return 0;
    if (attr_is(n, "mode", "CRD")) return too_old(e, n, "mode 'CRD'", 11);
    node_remove_attr(n, "mode");
    return 0;
}

static int space_to_depth(Emit *e, Node *n)
{
    enum { WITH_MODE = 28 };
    if (e->opset >= WITH_MODE) return 0;
    if (attr_is(n, "mode", "CRD")) return too_old(e, n, "mode 'CRD'", WITH_MODE);
    node_remove_attr(n, "mode");
    return 0;
}

/* Scale and bias per group until opset 20, per channel since. */
static int group_norm(Emit *e, Node *n)
{
    const Type *x = &n->in[0]->type, *scale = &n->in[1]->type;
    int64_t groups = node_int(n, "num_groups", 1);
    if (x->rank < 2 || scale->rank != 1 || x->dim[1] == groups) return 0;
    bool by_group = scale->dim[0] == groups;
    if (!by_group && e->opset < 21) return too_old(e, n, "a scale per channel", 21);
    if (!by_group || e->opset < 21 || e->needed) return 0;
    return node_error(e->d, n, "has a scale per group, which opset 21 does not know");
}

static const struct {
    Op op;
    int (*rule)(Emit *e, Node *n);
} rules[] = {
    {OP_Softmax, flat_softmax},
    {OP_LogSoftmax, flat_softmax},
    {OP_Split, split_parts},
    {OP_QuantizeLinear, quantize},
    {OP_DequantizeLinear, quantize},
    {OP_ScatterElements, scatter},
    {OP_Resize, resize},
    {OP_DepthToSpace, depth_to_space},
    {OP_SpaceToDepth, space_to_depth},
    {OP_Hardmax, flat_softmax},
    {OP_GridSample, grid_sample},
    {OP_RoiAlign, roi_align},
    {OP_GroupNormalization, group_norm},
};

int check_carried(Emit *e, const Node *n, const char *op_type,
                  bool (*has_attr)(const void *ctx, const char *attr), const void *ctx)
{
    for (size_t k = 0; k < sizeof breaks / sizeof *breaks; k++) {
        if (breaks[k].opset <= e->file_opset || breaks[k].opset > e->opset) continue;
        if (strcmp(breaks[k].op, op_type) != 0) continue;
        if (breaks[k].attr && !has_attr(ctx, breaks[k].attr)) continue;
        return node_error(
            e->d, n,
            "%s changed its meaning in opset %lld, so the model cannot be raised from "
            "opset %lld to %lld",
            op_type, (long long)breaks[k].opset, (long long)e->file_opset, (long long)e->opset);
    }
    return 0;
}

/* ---- carried nodes ------------------------------------------------------------------ */

static bool attr_of(const void *ctx, const char *attr) { return node_attr(ctx, attr) != NULL; }

static int legalize_carried(Emit *e, const Node *n)
{
    const char *domain = n->domain ? n->domain : "";
    if (*domain && strcmp(domain, "ai.onnx") != 0) return 0;
    return check_carried(e, n, n->op_type, attr_of, n);
}

/* ---- the whole ---------------------------------------------------------------------- */

int legalize_node(Emit *e, const Node *n, Node *out)
{
    *out = *n;
    out->in = arena_memdup(e->a, n->in, (size_t)n->nin * sizeof *n->in);
    out->attrs = arena_memdup(e->a, n->attrs, (size_t)n->nattrs * sizeof *n->attrs);
    if (n->op == OP_Opaque) return legalize_carried(e, n);
    for (size_t k = 0; k < sizeof since / sizeof *since; k++)
        if (since[k].op == n->op && e->opset < since[k].opset)
            return too_old(e, n, "this op", since[k].opset);
    TRY(inputs_to_attrs(e, out));
    TRY(drop_young_attrs(e, out));
    for (size_t k = 0; k < sizeof rules / sizeof *rules; k++)
        if (rules[k].op == n->op) TRY(rules[k].rule(e, out));
    positive_axes(e, out);
    return 0;
}

bool has_arity(const Node *n)
{
    const OpInfo *op = &op_info[n->op];
    if (n->nin < op->min_in || (op->max_in >= 0 && n->nin > op->max_in)) return false;
    if (n->nout < 1 || (op->max_out >= 0 && n->nout > op->max_out)) return false;
    if (!n->out[0] && !(op->flags & OPF_ANY_OUT)) return false;
    for (int i = 0; i < n->nin; i++)
        if (!n->in[i] && (i < op->min_in || op->max_in < 0)) return false;
    return true;
}

int64_t needed_opset(Emit *e)
{
    int64_t needed = e->opset;
    Emit probe = *e;
    Node out;
    probe.needed = &needed;
    do {
        probe.opset = needed;
        for (int k = 0; k < e->g->nnodes; k++)
            if (e->g->nodes[k]->op != OP_Opaque && has_arity(e->g->nodes[k]))
                legalize_node(&probe, e->g->nodes[k], &out);
    } while (needed > probe.opset);
    return needed;
}
