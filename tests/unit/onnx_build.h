/* Small ONNX models made field by field with the generated code, and errors caught as text. */
#ifndef EHAP_TESTS_ONNX_BUILD_H
#define EHAP_TESTS_ONNX_BUILD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "onnx.pb-c.h"

#include "backend/backend.h"
#include "frontend/frontend.h"
#include "ir/op.h"

/* ---- diagnostics -------------------------------------------------------------------- */

typedef struct Caught {
    char text[4096];
    Diag d;
} Caught;

static inline void caught_line(void *ctx, Severity sev, const char *text)
{
    Caught *c = ctx;
    (void)sev;
    size_t n = strlen(c->text);
    snprintf(c->text + n, sizeof c->text - n, "%s\n", text);
}

static inline Diag *caught(Caught *c)
{
    memset(c, 0, sizeof *c);
    c->d = (Diag){.sink = caught_line, .ctx = c};
    return &c->d;
}

/* The message says this. */
static inline void assert_says(const Caught *c, const char *what)
{
    if (strstr(c->text, what)) return;
    fail_msg("wanted \"%s\" in:\n%s", what, c->text);
}

/* ---- models ------------------------------------------------------------------------- */

enum { MOST = 64 };

typedef struct Maker {
    Arena *a;
    Onnx__ModelProto m;
    Onnx__GraphProto g;
    Onnx__OperatorSetIdProto opset;
    Onnx__OperatorSetIdProto *opsets[MOST];
    Onnx__NodeProto *nodes[MOST];
    Onnx__ValueInfoProto *inputs[MOST], *outputs[MOST], *infos[MOST];
    Onnx__TensorProto *tensors[MOST];
} Maker;

#define MESSAGE(a, T, INIT) ((T *)arena_memdup((a), &(T)INIT, sizeof(T)))

static inline Maker *maker_new(Arena *a, int64_t opset)
{
    Maker *k = NEW(a, Maker);
    k->a = a;
    onnx__model_proto__init(&k->m);
    onnx__graph_proto__init(&k->g);
    onnx__operator_set_id_proto__init(&k->opset);
    k->m.has_ir_version = true;
    k->m.ir_version = 8;
    k->m.graph = &k->g;
    k->m.opset_import = k->opsets;
    k->m.n_opset_import = 1;
    k->opsets[0] = &k->opset;
    k->opset.has_version = true;
    k->opset.version = opset;
    k->g.name = arena_strdup(a, "test");
    k->g.node = k->nodes;
    k->g.input = k->inputs;
    k->g.output = k->outputs;
    k->g.value_info = k->infos;
    k->g.initializer = k->tensors;
    return k;
}

/* Dimensions: >= 0, -1 for the symbol N, -2 for none. */
static inline Onnx__ValueInfoProto *maker_info(Maker *k, const char *name, DType t, int rank,
                                               const int64_t *dim)
{
    Onnx__ValueInfoProto *v = MESSAGE(k->a, Onnx__ValueInfoProto, ONNX__VALUE_INFO_PROTO__INIT);
    v->name = arena_strdup(k->a, name);
    v->type = MESSAGE(k->a, Onnx__TypeProto, ONNX__TYPE_PROTO__INIT);
    v->type->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    Onnx__TypeProto__Tensor *p =
        MESSAGE(k->a, Onnx__TypeProto__Tensor, ONNX__TYPE_PROTO__TENSOR__INIT);
    v->type->tensor_type = p;
    p->has_elem_type = true;
    p->elem_type = (int32_t)t;
    if (rank < 0) return v;
    p->shape = MESSAGE(k->a, Onnx__TensorShapeProto, ONNX__TENSOR_SHAPE_PROTO__INIT);
    p->shape->n_dim = (size_t)rank;
    p->shape->dim = NEW_ARRAY(k->a, Onnx__TensorShapeProto__Dimension *, rank);
    for (int i = 0; i < rank; i++) {
        Onnx__TensorShapeProto__Dimension *x = MESSAGE(k->a, Onnx__TensorShapeProto__Dimension,
                                                       ONNX__TENSOR_SHAPE_PROTO__DIMENSION__INIT);
        p->shape->dim[i] = x;
        if (dim[i] == -1) {
            x->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
            x->dim_param = arena_strdup(k->a, "N");
        } else if (dim[i] != -2) {
            x->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
            x->dim_value = dim[i];
        }
    }
    return v;
}

#define D(...)                                                                                     \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (int64_t[]) { __VA_ARGS__ }

static inline void maker_input(Maker *k, const char *name, DType t, int rank, const int64_t *dim)
{
    k->inputs[k->g.n_input++] = maker_info(k, name, t, rank, dim);
}

static inline void maker_output(Maker *k, const char *name, DType t, int rank, const int64_t *dim)
{
    k->outputs[k->g.n_output++] = maker_info(k, name, t, rank, dim);
}

/* An initializer with n bytes of raw data. */
static inline Onnx__TensorProto *maker_tensor(Maker *k, const char *name, DType t, int rank,
                                              const int64_t *dim, const void *raw, size_t n)
{
    Onnx__TensorProto *p = MESSAGE(k->a, Onnx__TensorProto, ONNX__TENSOR_PROTO__INIT);
    p->name = arena_strdup(k->a, name);
    p->has_data_type = true;
    p->data_type = (int32_t)t;
    p->n_dims = (size_t)rank;
    p->dims = arena_memdup(k->a, dim, (size_t)rank * sizeof *dim);
    p->has_raw_data = true;
    p->raw_data.data = arena_memdup(k->a, raw, n);
    p->raw_data.len = n;
    return k->tensors[k->g.n_initializer++] = p;
}

/* A weight of that shape whose elements are 0.25, 0.5, … */
static inline Onnx__TensorProto *maker_weight(Maker *k, const char *name, int rank,
                                              const int64_t *dim)
{
    Type t = type_of(DT_F32, rank, dim);
    int64_t n = type_count(&t);
    float *x = NEW_ARRAY(k->a, float, n);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(i % 16 + 1) / 4;
    return maker_tensor(k, name, DT_F32, rank, dim, x, (size_t)n * sizeof *x);
}

static inline size_t split_names(Arena *a, const char *list, char ***out)
{
    char *copy = arena_strdup(a, list), **names = NEW_ARRAY(a, char *, MOST);
    size_t n = 0;
    while (*list && copy) names[n++] = strsep(&copy, " ");
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], "-") == 0) names[i] = arena_strdup(a, "");
    *out = names;
    return n;
}

/* Names are separated by spaces; "-" is an omitted one. */
static inline Onnx__NodeProto *maker_node(Maker *k, const char *op, const char *in, const char *out)
{
    Onnx__NodeProto *n = MESSAGE(k->a, Onnx__NodeProto, ONNX__NODE_PROTO__INIT);
    n->name = arena_printf(k->a, "%s%zu", op, k->g.n_node);
    n->op_type = arena_strdup(k->a, op);
    n->n_input = split_names(k->a, in, &n->input);
    n->n_output = split_names(k->a, out, &n->output);
    n->attribute = NEW_ARRAY(k->a, Onnx__AttributeProto *, MOST);
    return k->nodes[k->g.n_node++] = n;
}

static inline Onnx__AttributeProto *maker_attr(Maker *k, Onnx__NodeProto *n, const char *name,
                                               Onnx__AttributeProto__AttributeType type)
{
    Onnx__AttributeProto *p = MESSAGE(k->a, Onnx__AttributeProto, ONNX__ATTRIBUTE_PROTO__INIT);
    p->name = arena_strdup(k->a, name);
    p->has_type = true;
    p->type = type;
    return n->attribute[n->n_attribute++] = p;
}

static inline void maker_int(Maker *k, Onnx__NodeProto *n, const char *name, int64_t i)
{
    Onnx__AttributeProto *p = maker_attr(k, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);
    p->has_i = true;
    p->i = i;
}

static inline void maker_float(Maker *k, Onnx__NodeProto *n, const char *name, float f)
{
    Onnx__AttributeProto *p = maker_attr(k, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT);
    p->has_f = true;
    p->f = f;
}

static inline void maker_ints(Maker *k, Onnx__NodeProto *n, const char *name, int count,
                              const int64_t *ints)
{
    Onnx__AttributeProto *p = maker_attr(k, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);
    p->n_ints = (size_t)count;
    p->ints = arena_memdup(k->a, ints, (size_t)count * sizeof *ints);
}

static inline Bytes maker_bytes(Maker *k)
{
    size_t n = onnx__model_proto__get_packed_size(&k->m);
    uint8_t *p = arena_alloc(k->a, n);
    onnx__model_proto__pack(&k->m, p);
    return (Bytes){p, n};
}

/* Reads what was made; NULL after an error, which is in c. */
static inline Graph *maker_read(Maker *k, Caught *c)
{
    Graph *g = NULL;
    Bytes b = maker_bytes(k);
    if (onnx_read_memory(&g, k->a, b.p, b.n, NULL, caught(c)) == 0 &&
        onnx_check_weights(g, &c->d) == 0)
        return g;
    assert_true(c->d.errors > 0);
    return NULL;
}

/* x [N,2,4,4] -> Relu -> y, the smallest model of all. */
static inline Maker *maker_relu(Arena *a, int64_t opset)
{
    Maker *k = maker_new(a, opset);
    maker_input(k, "x", DT_F32, D(-1, 2, 4, 4));
    maker_node(k, "Relu", "x", "y");
    maker_output(k, "y", DT_F32, D(-1, 2, 4, 4));
    return k;
}

/* The bytes that a graph is written as, in `a`; empty after an error. */
static inline Bytes written(Arena *a, const Graph *g, const EmitOptions *o, Diag *d)
{
    void *p;
    size_t n;
    if (onnx_serialize(g, o, &p, &n, d) < 0) return (Bytes){0};
    Bytes b = {arena_memdup(a, p, n), n};
    free(p);
    return b;
}

#endif
