/* Graph to ModelProto. The tree is made in an arena and points at names, lists and constants of
 * the graph instead of copying them. What the IR carries as bytes is attached as unknown
 * fields, which protobuf-c writes out as they are. */
#include "backend/emit.h"

#include <string.h>

#include "backend/fields.h"

enum { EXTERNAL_FROM = 1024, ALIGN = 64, BIG = 1 << 20, ALIGN_BIG = 4096 };
enum { FIELD_ATTRIBUTE = 5, FIELD_TYPE = 2 };

/* A message of type T with its defaults. */
#define MAKE(e, T, INIT) init_message(arena_alloc((e)->a, sizeof(T)), &(T)INIT, sizeof(T))

static void *init_message(void *p, const void *init, size_t n) { return memcpy(p, init, n); }

static char *str(const char *s) { return (char *)(uintptr_t)s; }

static int64_t default_opset(const ModelInfo *info)
{
    for (size_t i = 0; i < info->nopsets; i++)
        if (!*info->opsets[i].domain) return info->opsets[i].version;
    return 18;
}

Emit emit_begin(const Graph *g, const EmitOptions *o, Arena *a, Diag *d)
{
    static const EmitOptions none;
    Emit e = {.g = g, .o = o ? o : &none, .a = a, .d = d};
    e.file_opset = default_opset(&g->info);
    e.opset = e.o->min_opset > e.file_opset ? e.o->min_opset : e.file_opset;
    e.opset = needed_opset(&e);
    return e;
}

/* ---- types -------------------------------------------------------------------------- */

static void *arena_take(void *a, size_t n) { return arena_alloc(a, n); }
static void arena_leave(void *a, void *p) { (void)a, (void)p; }

static Onnx__TensorShapeProto *emit_shape(Emit *e, const Type *t)
{
    Onnx__TensorShapeProto *s = MAKE(e, Onnx__TensorShapeProto, ONNX__TENSOR_SHAPE_PROTO__INIT);
    s->n_dim = (size_t)t->rank;
    s->dim = NEW_ARRAY(e->a, Onnx__TensorShapeProto__Dimension *, t->rank);
    for (int i = 0; i < t->rank; i++) {
        Onnx__TensorShapeProto__Dimension *d =
            MAKE(e, Onnx__TensorShapeProto__Dimension, ONNX__TENSOR_SHAPE_PROTO__DIMENSION__INIT);
        s->dim[i] = d;
        const char *name = dim_is_sym(t->dim[i]) ? e->g->symbols[t->dim[i] - DIM_SYM_BASE] : NULL;
        if (!dim_is_sym(t->dim[i])) {
            d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
            d->dim_value = t->dim[i];
        } else if (name) {
            d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
            d->dim_param = str(name);
        }
    }
    return s;
}

static Onnx__TypeProto *emit_type(Emit *e, const Type *t)
{
    Onnx__TypeProto *p = MAKE(e, Onnx__TypeProto, ONNX__TYPE_PROTO__INIT);
    Onnx__TypeProto__Tensor *tensor =
        MAKE(e, Onnx__TypeProto__Tensor, ONNX__TYPE_PROTO__TENSOR__INIT);
    tensor->has_elem_type = true;
    tensor->elem_type = (int32_t)t->dtype;
    if (t->rank >= 0) tensor->shape = emit_shape(e, t);
    p->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    p->tensor_type = tensor;
    return p;
}

/* Whether what the file declared is still true. */
static bool agrees(const Onnx__TypeProto *p, const Type *t)
{
    if (p->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE) return t->dtype == DT_NONE;
    const Onnx__TensorShapeProto *s = p->tensor_type->shape;
    if (p->tensor_type->elem_type != (int32_t)t->dtype) return false;
    if (!s || t->rank < 0) return true;
    if (s->n_dim != (size_t)t->rank) return false;
    for (int i = 0; i < t->rank; i++) {
        bool number = s->dim[i]->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
        if (number && s->dim[i]->dim_value >= 0 && t->dim[i] >= 0 &&
            s->dim[i]->dim_value != t->dim[i])
            return false;
    }
    return true;
}

static Onnx__TypeProto *declared_type(Emit *e, const Value *v)
{
    ProtobufCAllocator arena = {arena_take, arena_leave, e->a};
    if (!v->declared.n) return NULL;
    Onnx__TypeProto *p = onnx__type_proto__unpack(&arena, v->declared.n, v->declared.p);
    return p && agrees(p, &v->type) ? p : NULL;
}

static Onnx__ValueInfoProto *emit_value_info(Emit *e, const Value *v)
{
    Onnx__ValueInfoProto *p = MAKE(e, Onnx__ValueInfoProto, ONNX__VALUE_INFO_PROTO__INIT);
    p->name = str(v->name);
    p->doc_string = str(v->doc);
    p->type = declared_type(e, v);
    if (!p->type && v->opaque_type.n)
        fields_append_bytes(e->a, &p->base, FIELD_TYPE, v->opaque_type);
    else if (!p->type && v->type.dtype)
        p->type = emit_type(e, &v->type);
    return fields_append(e->a, &p->base, v->extra, e->d) < 0 ? NULL : p;
}

/* ---- tensors ------------------------------------------------------------------------ */

static Onnx__TensorProto *emit_tensor(Emit *e, const char *name, const Type *t, Bytes elements)
{
    Onnx__TensorProto *p = MAKE(e, Onnx__TensorProto, ONNX__TENSOR_PROTO__INIT);
    p->name = str(name);
    p->has_data_type = true;
    p->data_type = (int32_t)t->dtype;
    p->n_dims = (size_t)t->rank;
    p->dims = arena_memdup(e->a, t->dim, (size_t)t->rank * sizeof *t->dim);
    p->has_raw_data = true;
    p->raw_data = (ProtobufCBinaryData){elements.n, (uint8_t *)(uintptr_t)elements.p};
    return p;
}

static Onnx__StringStringEntryProto *entry(Emit *e, const char *key, const char *value)
{
    Onnx__StringStringEntryProto *p =
        MAKE(e, Onnx__StringStringEntryProto, ONNX__STRING_STRING_ENTRY_PROTO__INIT);
    p->key = str(key);
    p->value = str(value);
    return p;
}

/* Gives v its place in the data file. */
static void make_external(Emit *e, const Value *v, Onnx__TensorProto *p)
{
    size_t n = p->raw_data.len, align = n >= BIG ? ALIGN_BIG : ALIGN;
    size_t offset = (e->data_size + align - 1) / align * align;
    e->external[e->nexternal++] = (struct External){v, offset};
    e->data_size = offset + n;
    p->has_raw_data = false;
    p->raw_data = (ProtobufCBinaryData){0, NULL};
    p->has_data_location = true;
    p->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
    p->n_external_data = 3;
    p->external_data = NEW_ARRAY(e->a, Onnx__StringStringEntryProto *, 3);
    p->external_data[0] = entry(e, "location", e->location);
    p->external_data[1] = entry(e, "offset", arena_printf(e->a, "%zu", offset));
    p->external_data[2] = entry(e, "length", arena_printf(e->a, "%zu", n));
}

static void emit_constant(Emit *e, const Value *v, Onnx__GraphProto *g)
{
    size_t n = (size_t)type_bytes(&v->type);
    Onnx__TensorProto *p = emit_tensor(e, v->name, &v->type, (Bytes){v->data, n});
    p->doc_string = str(v->doc);
    if (e->location && n >= EXTERNAL_FROM) make_external(e, v, p);
    g->initializer[g->n_initializer++] = p;
}

/* ---- nodes -------------------------------------------------------------------------- */

static void emit_strings(Emit *e, const Attr *a, Onnx__AttributeProto *p)
{
    p->n_strings = a->n;
    p->strings = NEW_ARRAY(e->a, ProtobufCBinaryData, a->n);
    for (size_t i = 0; i < a->n; i++)
        p->strings[i] =
            (ProtobufCBinaryData){a->strings[i].n, (uint8_t *)(uintptr_t)a->strings[i].p};
}

static Onnx__AttributeProto *emit_attr(Emit *e, const Attr *a)
{
    static const Onnx__AttributeProto__AttributeType types[] = {
        [ATTR_INT] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT,
        [ATTR_FLOAT] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT,
        [ATTR_STRING] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING,
        [ATTR_INTS] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS,
        [ATTR_FLOATS] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS,
        [ATTR_STRINGS] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRINGS,
        [ATTR_TENSOR] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR,
    };
    Onnx__AttributeProto *p = MAKE(e, Onnx__AttributeProto, ONNX__ATTRIBUTE_PROTO__INIT);
    p->name = str(a->name);
    p->has_type = true;
    p->type = types[a->kind];
    p->has_i = a->kind == ATTR_INT;
    p->i = a->i;
    p->has_f = a->kind == ATTR_FLOAT;
    p->f = a->f;
    p->has_s = a->kind == ATTR_STRING;
    if (p->has_s) p->s = (ProtobufCBinaryData){a->s.n, (uint8_t *)(uintptr_t)a->s.p};
    p->n_ints = a->kind == ATTR_INTS ? a->n : 0;
    p->ints = (int64_t *)(uintptr_t)a->ints;
    p->n_floats = a->kind == ATTR_FLOATS ? a->n : 0;
    p->floats = (float *)(uintptr_t)a->floats;
    if (a->kind == ATTR_STRINGS) emit_strings(e, a, p);
    if (a->kind == ATTR_TENSOR) p->t = emit_tensor(e, NULL, &a->type, a->s);
    return p;
}

/* Attributes in their order. Where some are only bytes, all go the same way. */
static int emit_attrs(Emit *e, const Node *n, Onnx__NodeProto *p)
{
    bool opaque = false;
    for (int k = 0; k < n->nattrs; k++) opaque |= n->attrs[k].kind == ATTR_OPAQUE;
    p->attribute = NEW_ARRAY(e->a, Onnx__AttributeProto *, n->nattrs);
    for (int k = 0; k < n->nattrs; k++) {
        const Attr *a = &n->attrs[k];
        Bytes b;
        Onnx__AttributeProto *plain = a->kind == ATTR_OPAQUE ? NULL : emit_attr(e, a);
        if (!opaque) {
            p->attribute[p->n_attribute++] = plain;
            continue;
        }
        if (plain) {
            b.n = onnx__attribute_proto__get_packed_size(plain);
            b.p = arena_alloc(e->a, b.n);
            onnx__attribute_proto__pack(plain, (uint8_t *)(uintptr_t)b.p);
        } else {
            TRY(emit_body(e, n, a->s, &b));
        }
        fields_append_bytes(e->a, &p->base, FIELD_ATTRIBUTE, b);
    }
    return 0;
}

static char **names_of(Emit *e, Value *const *v, int n)
{
    char **names = NEW_ARRAY(e->a, char *, n);
    for (int i = 0; i < n; i++) names[i] = str(v[i] ? v[i]->name : "");
    return names;
}

/* *legal receives the node as it is written. */
static int emit_node(Emit *e, const Node *node, Node *legal, Onnx__NodeProto **out)
{
    TRY(legalize_node(e, node, legal));
    const Node n = *legal;
    Onnx__NodeProto *p = MAKE(e, Onnx__NodeProto, ONNX__NODE_PROTO__INIT);
    *out = p;
    p->name = str(n.name);
    p->doc_string = str(n.doc);
    p->op_type = str(node_op_name(&n));
    p->domain = n.op == OP_Opaque && n.domain && *n.domain ? str(n.domain) : NULL;
    p->n_input = (size_t)(n.nin - n.ncapture);
    p->input = names_of(e, n.in, n.nin);
    p->n_output = (size_t)n.nout;
    p->output = names_of(e, n.out, n.nout);
    TRY(emit_attrs(e, &n, p));
    return fields_append(e->a, &p->base, n.extra, e->d);
}

/* ---- the graph ---------------------------------------------------------------------- */

/* Constants that emitted nodes and graph outputs read, once each. */
typedef struct Wanted {
    bool *seen;
    const Value **v;
    size_t n;
} Wanted;

static void want(Wanted *w, const Value *v)
{
    if (!v || !v->data || w->seen[v->id]) return;
    w->seen[v->id] = true;
    w->v[w->n++] = v;
}

static int emit_nodes(Emit *e, Onnx__GraphProto *p, Wanted *w)
{
    const Graph *g = e->g;
    p->node = NEW_ARRAY(e->a, Onnx__NodeProto *, g->nnodes);
    p->value_info = NEW_ARRAY(e->a, Onnx__ValueInfoProto *, g->nvalues);
    bool *is_output = NEW_ARRAY(e->a, bool, g->nvalues);
    for (int o = 0; o < g->noutputs; o++) is_output[g->outputs[o]->id] = true;
    for (int k = 0; k < g->nnodes; k++) {
        const Node *n = g->nodes[k];
        Node legal;
        TRY(emit_node(e, n, &legal, &p->node[p->n_node++]));
        for (int i = 0; i < legal.nin; i++) want(w, legal.in[i]);
        for (int o = 0; o < n->nout; o++) {
            const Value *v = n->out[o];
            if (!v || is_output[v->id] || (!v->type.dtype && !v->opaque_type.n)) continue;
            if (n->op != OP_Opaque && !v->declared.n) continue;
            if (!(p->value_info[p->n_value_info++] = emit_value_info(e, v))) return -1;
        }
    }
    for (int o = 0; o < g->noutputs; o++) want(w, g->outputs[o]);
    return 0;
}

static int emit_graph(Emit *e, int64_t ir_version, Onnx__GraphProto **out)
{
    const Graph *g = e->g;
    Onnx__GraphProto *p = MAKE(e, Onnx__GraphProto, ONNX__GRAPH_PROTO__INIT);
    Wanted w = {NEW_ARRAY(e->a, bool, g->nvalues), NEW_ARRAY(e->a, const Value *, g->nvalues), 0};
    *out = p;
    p->name = str(g->name);
    p->doc_string = str(g->doc);
    TRY(emit_nodes(e, p, &w));
    p->initializer = NEW_ARRAY(e->a, Onnx__TensorProto *, w.n);
    e->external = NEW_ARRAY(e->a, struct External, w.n);
    for (size_t i = 0; i < w.n; i++) emit_constant(e, w.v[i], p);
    /* IR 3 lists initializers as inputs. */
    size_t also = ir_version < 4 ? w.n : 0;
    p->input = NEW_ARRAY(e->a, Onnx__ValueInfoProto *, (size_t)g->ninputs + also);
    p->output = NEW_ARRAY(e->a, Onnx__ValueInfoProto *, g->noutputs);
    for (int i = 0; i < g->ninputs; i++)
        if (!(p->input[p->n_input++] = emit_value_info(e, g->inputs[i]))) return -1;
    for (size_t i = 0; i < also; i++)
        if (!(p->input[p->n_input++] = emit_value_info(e, w.v[i]))) return -1;
    for (int o = 0; o < g->noutputs; o++)
        if (!(p->output[p->n_output++] = emit_value_info(e, g->outputs[o]))) return -1;
    return fields_append(e->a, &p->base, g->info.graph_extra, e->d);
}

/* ---- the model ---------------------------------------------------------------------- */

/* The IR version that a model of this opset must have at least. */
static int64_t ir_version_of(int64_t opset)
{
    static const int8_t ir[] = {3, 3, 3, 3, 3, 3, 3,  3,  3,  4,  5,  6,  7,  7, 7,
                                8, 8, 8, 8, 9, 9, 10, 10, 11, 12, 13, 13, 13, 14};
    int64_t last = (int64_t)sizeof ir - 1;
    return ir[opset < 0 ? 0 : opset > last ? last : opset];
}

static bool uses_default_domain(const Graph *g)
{
    for (int k = 0; k < g->nnodes; k++)
        if (g->nodes[k]->op != OP_Opaque || !g->nodes[k]->domain || !*g->nodes[k]->domain)
            return true;
    return g->info.nopsets == 0;
}

static void emit_opsets(Emit *e, Onnx__ModelProto *m)
{
    const ModelInfo *info = &e->g->info;
    bool missing = uses_default_domain(e->g);
    m->opset_import = NEW_ARRAY(e->a, Onnx__OperatorSetIdProto *, info->nopsets + 1);
    for (size_t i = 0; i <= info->nopsets; i++) {
        const OpsetImport *from = i < info->nopsets ? &info->opsets[i] : &(OpsetImport){"", 0};
        bool standard = !*from->domain;
        if (standard && i == info->nopsets && !missing) break;
        Onnx__OperatorSetIdProto *p =
            MAKE(e, Onnx__OperatorSetIdProto, ONNX__OPERATOR_SET_ID_PROTO__INIT);
        p->domain = str(from->domain);
        p->has_version = true;
        p->version = standard ? e->opset : from->version;
        if (standard) missing = false;
        m->opset_import[m->n_opset_import++] = p;
    }
}

static void set_prop(Emit *e, Onnx__ModelProto *m, const char *key, const char *value)
{
    for (size_t i = 0; i < m->n_metadata_props; i++)
        if (strcmp(m->metadata_props[i]->key, key) == 0) {
            m->metadata_props[i]->value = str(value);
            return;
        }
    m->metadata_props[m->n_metadata_props++] = entry(e, key, value);
}

static void emit_props(Emit *e, Onnx__ModelProto *m)
{
    const ModelInfo *info = &e->g->info;
    m->metadata_props =
        NEW_ARRAY(e->a, Onnx__StringStringEntryProto *, info->nprops + e->o->nprops + 1);
    for (size_t i = 0; i < info->nprops; i++)
        m->metadata_props[m->n_metadata_props++] =
            entry(e, info->props[i].key, info->props[i].value);
    if (info->producer_name && strcmp(info->producer_name, "ehapc") != 0)
        set_prop(e, m, "ehapc.source_producer",
                 info->producer_version
                     ? arena_printf(e->a, "%s %s", info->producer_name, info->producer_version)
                     : info->producer_name);
    for (size_t i = 0; i < e->o->nprops; i++)
        set_prop(e, m, e->o->props[i].key, e->o->props[i].value);
}

int emit_model(Emit *e, Onnx__ModelProto **out)
{
    const ModelInfo *info = &e->g->info;
    Onnx__ModelProto *m = MAKE(e, Onnx__ModelProto, ONNX__MODEL_PROTO__INIT);
    int64_t need = ir_version_of(e->opset);
    bool raised = e->opset > e->file_opset || info->nopsets == 0;
    *out = m;
    m->has_ir_version = true;
    m->ir_version = raised && info->ir_version < need ? need : info->ir_version;
    m->producer_name = str("ehapc");
    m->producer_version = str(EHAP_VERSION);
    m->domain = str(info->domain);
    m->has_model_version = info->model_version != 0;
    m->model_version = info->model_version;
    m->doc_string = str(info->doc);
    emit_opsets(e, m);
    emit_props(e, m);
    TRY(emit_graph(e, m->ir_version, &m->graph));
    return fields_append(e->a, &m->base, info->extra, e->d);
}
