/* NodeProto to Node: inputs, attributes, and what stays opaque. */
#include <stdio.h>
#include <string.h>

#include "frontend/onnx_expand.h"
#include "frontend/onnx_import.h"
#include "frontend/wire.h"

enum { MAX_ATTRS = 1000 };

int proto_error(Import *im, const Onnx__NodeProto *n, const char *fmt, ...)
{
    char where[512];
    va_list ap;
    const char *name = n->name && *n->name ? n->name : NULL, *op = n->op_type ? n->op_type : "";
    if (name)
        snprintf(where, sizeof where, "node '%s' (%s)", name, op);
    else
        snprintf(where, sizeof where, "node of '%s' (%s)", n->n_output ? n->output[0] : "", op);
    va_start(ap, fmt);
    diag_vreport(im->d, SEV_ERROR, where, fmt, ap);
    va_end(ap);
    return -1;
}

Bytes unknown_fields(Import *im, const ProtobufCMessage *m)
{
    Onnx__NodeProto only = ONNX__NODE_PROTO__INIT;
    if (m->n_unknown_fields == 0) return (Bytes){0};
    only.base.n_unknown_fields = m->n_unknown_fields;
    only.base.unknown_fields = m->unknown_fields;
    return wire_pack(im->g->arena, &only.base);
}

/* ---- attributes --------------------------------------------------------------------- */

/* Old writers left the type out: then it is the field that is set. */
static int attr_type(const Onnx__AttributeProto *p)
{
    if (p->has_type && p->type != ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__UNDEFINED)
        return (int)p->type;
    if (p->has_f) return ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT;
    if (p->has_i) return ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT;
    if (p->has_s) return ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING;
    if (p->t) return ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR;
    if (p->n_floats) return ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS;
    if (p->n_ints) return ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS;
    if (p->n_strings) return ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRINGS;
    return ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH;
}

/* With a NUL behind. */
static Bytes text(Arena *a, ProtobufCBinaryData b)
{
    char *s = arena_alloc(a, b.len + 1);
    if (b.len) memcpy(s, b.data, b.len);
    return (Bytes){s, b.len};
}

static Bytes *texts(Arena *a, const ProtobufCBinaryData *b, size_t n)
{
    Bytes *s = NEW_ARRAY(a, Bytes, n);
    for (size_t i = 0; i < n; i++) s[i] = text(a, b[i]);
    return s;
}

/* 0, 1 if no plain kind holds it, -1 after an error. */
static int plain_attr(Import *im, const char *what, const Onnx__AttributeProto *p, Attr *a)
{
    Arena *arena = im->g->arena;
    if (p->ref_attr_name && *p->ref_attr_name) return 1;
    switch (attr_type(p)) {
    case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT:
        *a = attr_float(a->name, p->f);
        return 0;
    case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT:
        *a = attr_int(a->name, p->i);
        return 0;
    case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING:
        a->kind = ATTR_STRING;
        a->s = text(arena, p->s);
        return 0;
    case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS:
        a->kind = ATTR_FLOATS;
        a->n = p->n_floats;
        a->floats = arena_memdup(arena, p->floats, p->n_floats * sizeof *p->floats);
        return 0;
    case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS:
        a->kind = ATTR_INTS;
        a->n = p->n_ints;
        a->ints = arena_memdup(arena, p->ints, p->n_ints * sizeof *p->ints);
        return 0;
    case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRINGS:
        a->kind = ATTR_STRINGS;
        a->n = p->n_strings;
        a->strings = texts(arena, p->strings, p->n_strings);
        return 0;
    case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR:
        a->kind = ATTR_TENSOR;
        if (!p->t) return 1;
        int status = tensor_read(&im->files, p->t, what, &a->type, &a->s.p);
        if (status == 0) a->s.n = (size_t)type_bytes(&a->type);
        return status;
    default:
        return 1;
    }
}

static int internalize(void *ctx, ProtobufCMessage *t)
{
    return tensor_internalize(ctx, (Onnx__TensorProto *)t);
}

static int verbatim_attr(Import *im, Onnx__AttributeProto *p, Attr *a)
{
    TRY(wire_each(&p->base, &onnx__tensor_proto__descriptor, internalize, &im->files));
    *a = (Attr){.name = a->name, .kind = ATTR_OPAQUE, .s = wire_pack(im->g->arena, &p->base)};
    return 0;
}

static int import_attr(Import *im, const Onnx__NodeProto *n, Onnx__AttributeProto *p, Attr *a)
{
    if (!p->name || !*p->name) return proto_error(im, n, "an attribute has no name");
    *a = (Attr){.name = arena_strdup(im->g->arena, p->name)};
    const char *what = arena_printf(im->tmp, "attribute '%s' of node '%s' (%s)", p->name,
                                    n->name ? n->name : "", n->op_type);
    int status = plain_attr(im, what, p, a);
    return status > 0 ? verbatim_attr(im, p, a) : status;
}

static int import_attrs(Import *im, const Onnx__NodeProto *p, Node *n)
{
    if (p->n_attribute > MAX_ATTRS)
        return proto_error(im, p, "it has %zu attributes", p->n_attribute);
    n->attrs = NEW_ARRAY(im->g->arena, Attr, p->n_attribute);
    for (size_t i = 0; i < p->n_attribute; i++) {
        Attr a;
        TRY(import_attr(im, p, p->attribute[i], &a));
        if (node_attr(n, a.name)) return proto_error(im, p, "attribute '%s' occurs twice", a.name);
        n->attrs[n->nattrs++] = a;
    }
    return 0;
}

/* ---- constants ---------------------------------------------------------------------- */

static int scalar_or_list(Import *im, DType dtype, int rank, size_t count, const void *p,
                          Type *type, const void **data)
{
    int64_t dim = (int64_t)count;
    *type = type_of(dtype, rank, &dim);
    *data = arena_memdup(im->g->arena, p, count * dtype_size(dtype));
    return 0;
}

int constant_value(Import *im, const Onnx__NodeProto *n, Type *type, const void **data)
{
    if (n->n_attribute != 1) return proto_error(im, n, "a Constant has one attribute");
    const Onnx__AttributeProto *p = n->attribute[0];
    const char *name = p->name ? p->name : "";
    if (strcmp(name, "value") == 0 && p->t)
        return tensor_read(&im->files, p->t, arena_printf(im->tmp, "constant '%s'", n->output[0]),
                           type, data);
    if (strcmp(name, "value_float") == 0)
        return scalar_or_list(im, DT_F32, 0, 1, &p->f, type, data);
    if (strcmp(name, "value_int") == 0) return scalar_or_list(im, DT_I64, 0, 1, &p->i, type, data);
    if (strcmp(name, "value_floats") == 0)
        return scalar_or_list(im, DT_F32, 1, p->n_floats, p->floats, type, data);
    if (strcmp(name, "value_ints") == 0)
        return scalar_or_list(im, DT_I64, 1, p->n_ints, p->ints, type, data);
    return 1;
}

int import_opaque_constant(Import *im, const char *name, Onnx__AttributeProto *value)
{
    Node *n = node_new(im->g, OP_Opaque, 0, NULL, 1);
    n->op_type = "Constant";
    n->domain = "";
    n->attrs = NEW(im->g->arena, Attr);
    n->nattrs = 1;
    n->attrs[0].name = arena_strdup(im->g->arena, value->name);
    n->out[0] = table_find(im->names, name, false)->v;
    TRY(verbatim_attr(im, value, &n->attrs[0]));
    return append_node(im, n);
}

/* ---- nodes -------------------------------------------------------------------------- */

/* Names that an operator had before. */
static const char *current_name(const char *op_type, int64_t opset)
{
    if (strcmp(op_type, "Scatter") == 0) return "ScatterElements";
    if (strcmp(op_type, "Upsample") == 0 && opset < 10) return "Resize";
    return op_type;
}

Op standard_op(const char *op_type, int64_t opset)
{
    Op op = op_of_name("", current_name(op_type, opset));
    return op == OP_COUNT ? OP_Opaque : op;
}

static int find_op(Import *im, const Onnx__NodeProto *p, Op *op)
{
    const char *domain = p->domain ? p->domain : "";
    *op = OP_Opaque;
    if (strcmp(domain, "ehap") == 0)
        return proto_error(im, p, "domain 'ehap' is internal and has no place in a model file");
    if (*domain && strcmp(domain, "ai.onnx") != 0) return 0;
    if (!im->opset) return proto_error(im, p, "the model imports no opset of the default domain");
    *op = standard_op(p->op_type, im->opset);
    return 0;
}

static int import_inputs(Import *im, const Onnx__NodeProto *p, const Captures *c, Node *n)
{
    for (size_t i = 0; i < p->n_input; i++) {
        if (!*p->input[i]) continue;
        const NameEntry *e = table_find(im->names, p->input[i], false);
        if (!e)
            return proto_error(im, p, "input '%s' is made by no node, input or initializer",
                               p->input[i]);
        n->in[i] = e->v;
    }
    for (int i = 0; i < c->n; i++) n->in[p->n_input + (size_t)i] = c->v[i];
    n->ncapture = c->n;
    for (size_t o = 0; o < p->n_output; o++)
        if (*p->output[o]) n->out[o] = table_find(im->names, p->output[o], false)->v;
    return 0;
}

/* Trailing omitted inputs and outputs say nothing; node_infer() checks the rest. */
static int trim(Import *im, Node *n)
{
    while (n->nin > 0 && !n->in[n->nin - 1]) n->nin--;
    while (n->nout > 0 && !n->out[n->nout - 1]) n->nout--;
    if (n->nout == 0 || (!n->out[0] && !(op_info[n->op].flags & OPF_ANY_OUT)))
        return node_error(im->d, n, "its first output has no name");
    for (int i = 0; i < n->nin; i++)
        if (!n->in[i] && op_info[n->op].max_in < 0)
            return node_error(im->d, n, "input %d is missing", i);
    return 0;
}

int append_node(Import *im, Node *n)
{
    if (n->op != OP_Opaque) TRY(trim(im, n));
    node_append(im->g, n);
    return node_infer(n, im->d);
}

int import_node(Import *im, const Onnx__NodeProto *p, const Captures *c)
{
    Graph *g = im->g;
    Op op;
    TRY(find_op(im, p, &op));
    if (p->n_output == 1 && *p->output[0] && table_find(im->names, p->output[0], false)->v->data)
        return 0; /* a Constant, declared already */
    Node *n = NEW(g->arena, Node), *after = NULL;
    n->op = op;
    n->name = p->name && *p->name ? arena_strdup(g->arena, p->name) : NULL;
    n->doc = p->doc_string && *p->doc_string ? arena_strdup(g->arena, p->doc_string) : NULL;
    n->extra = unknown_fields(im, &p->base);
    n->nin = (int)p->n_input + c->n;
    n->nout = (int)p->n_output;
    n->in = NEW_ARRAY(g->arena, Value *, n->nin);
    n->out = NEW_ARRAY(g->arena, Value *, n->nout);
    if (strcmp(op_info[op].name, p->op_type) != 0) n->op_type = arena_strdup(g->arena, p->op_type);
    if (op == OP_Opaque) {
        n->domain = p->domain ? arena_strdup(g->arena, p->domain) : "";
    }
    TRY(import_inputs(im, p, c, n));
    TRY(import_attrs(im, p, n));
    int expanded =
        op == OP_Opaque && (!*n->domain || strcmp(n->domain, "ai.onnx") == 0) && c->n == 0
            ? expand_node(im, n)
            : 0;
    if (expanded) return expanded < 0 ? -1 : 0;
    if (op != OP_Opaque) TRY(upgrade_node(im, n, &after));
    if (n->op == OP_Opaque && im->opset != im->file_opset) {
        im->kept[im->function] = true; /* it means this in its function's opset only */
        im->again = true;
    }
    TRY(append_node(im, n));
    return after ? append_node(im, after) : 0;
}
