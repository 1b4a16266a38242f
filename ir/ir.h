/* The graph: SSA values, nodes in topological order, one arena.
 *
 * Operators are ONNX's in their newest form that our reader normalizes to (opset 18:
 * reductions take axes as an input, Split has num_outputs), plus a few of our own in the
 * domain "ehap" (ops.def). Constants are values with data. What we do not understand is an
 * OP_Opaque node, kept verbatim.
 *
 * Ownership: everything reachable from a Graph lives in graph->arena, except constant bytes,
 * which may also point into a mapped file that outlives the graph. */
#ifndef EHAP_IR_IR_H
#define EHAP_IR_IR_H

#include "ir/arena.h"
#include "ir/diag.h"

enum { MAX_RANK = 8 };

/* ONNX's TensorProto.DataType numbers, so that nothing needs mapping. */
typedef enum DType {
    DT_NONE = 0, /* unknown, or not a tensor */
    DT_F32 = 1,
    DT_U8 = 2,
    DT_I8 = 3,
    DT_U16 = 4,
    DT_I16 = 5,
    DT_I32 = 6,
    DT_I64 = 7,
    DT_STRING = 8,
    DT_BOOL = 9,
    DT_F16 = 10,
    DT_F64 = 11,
    DT_U32 = 12,
    DT_U64 = 13,
    DT_BF16 = 16,
} DType;

size_t dtype_size(DType t);        /* bytes per element; 0 for DT_NONE, DT_STRING and unknown */
const char *dtype_name(DType t);   /* ONNX text syntax: "float", "int64", … */
DType dtype_of_name(const char *); /* DT_NONE if unknown */
bool dtype_is_float(DType t);      /* f16, bf16, f32, f64 */
bool dtype_is_int(DType t);        /* any integer, not bool */

/* A dimension is >= 0, or a symbol: DIM_SYM_BASE + index into graph->symbols. The range is far
 * from every number a model may hold in a shape computation (ends of -INT64_MAX included). */
#define DIM_SYM_BASE (-0x6000000000000000LL)
static inline bool dim_is_sym(int64_t d)
{
    return d >= DIM_SYM_BASE && d < DIM_SYM_BASE + INT32_MAX;
}

typedef struct Type {
    DType dtype;
    int rank; /* -1: unknown */
    int64_t dim[MAX_RANK];
} Type;

typedef struct Bytes {
    const void *p;
    size_t n;
} Bytes;

typedef struct Graph Graph;
typedef struct Node Node;

typedef struct Value {
    uint32_t id;      /* dense in its graph: side tables are arrays by id */
    const char *name; /* unique in its graph */
    Type type;
    Node *def; /* producer; NULL for graph inputs and constants */
    Graph *graph;
    const void *data;     /* a constant's elements: row-major, aligned to dtype; else NULL */
    const int64_t *elems; /* known elements of a small integer tensor, symbols among them
                             (dims as Shape delivers them); NULL if unknown */
    const char *doc;
    Bytes opaque_type; /* serialized TypeProto when not a tensor */
    Bytes declared;    /* serialized TypeProto that the file declares; written back while it
                          agrees with `type` */
    Bytes extra;       /* unknown protobuf fields of its ValueInfo, kept verbatim */
    const Node *aside; /* a graph output: what reads it among the nodes that are set aside */
} Value;

typedef enum AttrKind {
    ATTR_INT,
    ATTR_FLOAT,
    ATTR_STRING,
    ATTR_INTS,
    ATTR_FLOATS,
    ATTR_STRINGS,
    ATTR_TENSOR,
    ATTR_OPAQUE, /* a serialized AttributeProto: subgraphs, types, sparse tensors */
} AttrKind;

typedef struct Attr {
    const char *name;
    AttrKind kind;
    size_t n; /* of the lists */
    int64_t i;
    float f;
    Bytes s; /* ATTR_STRING; NUL-terminated beyond n */
    const int64_t *ints;
    const float *floats;
    const Bytes *strings;
    Type type; /* ATTR_TENSOR, with its elements in `s` */
} Attr;

/* OP_Conv, … in the order of ops.def. */
typedef enum Op {
#define OP(name, ...) OP_##name,
#include "ir/ops.def"
#undef OP
    OP_COUNT
} Op;

struct Node {
    Op op;
    const char *name; /* ONNX node name; NULL if none */
    Value **in;       /* an entry is NULL where an optional input is omitted */
    Value **out;      /* likewise for optional outputs */
    int nin, nout;
    int ncapture; /* the last so many inputs are outer values used inside a subgraph, where the
                     attribute's bytes call the K-th "ehap:capture:K" */
    Attr *attrs;
    int nattrs;
    const char *op_type, *domain; /* OP_Opaque: what the file said */
    const char *doc;
    Bytes extra;      /* unknown protobuf fields (metadata_props, overload), kept verbatim */
    const char *from; /* for messages: name of the node a pass derived this one from */
};

typedef struct OpsetImport {
    const char *domain;
    int64_t version;
} OpsetImport;

typedef struct KeyValue {
    const char *key, *value;
} KeyValue;

/* What a model file carries around its graph. */
typedef struct ModelInfo {
    int64_t ir_version, model_version;
    const char *producer_name, *producer_version, *domain, *doc; /* NULL: absent */
    OpsetImport *opsets;
    size_t nopsets;
    KeyValue *props;
    size_t nprops;
    Bytes extra;             /* unknown fields and local functions, verbatim */
    Bytes graph_extra;       /* likewise of the GraphProto */
    bool external_data;      /* weights were in files beside the model … */
    int64_t external_bytes;  /* … of so many bytes … */
    uint64_t external_stamp; /* … whose sizes and times of change this digest tells apart */
} ModelInfo;

struct Graph {
    Arena *arena;
    const char *name, *doc;
    Value **inputs, **outputs;
    int ninputs, noutputs;
    Node **nodes;
    int nnodes, cap_nodes;
    uint32_t nvalues;     /* ids are below this */
    const char **symbols; /* name of each symbolic dimension; NULL where it has none */
    int nsymbols, cap_symbols;
    ModelInfo info;
    struct Names *names;
    const Node *at; /* builder: the node that new nodes are derived from, or NULL */
};

/* ---- building (build.c) ------------------------------------------------------------- */

Graph *graph_new(Arena *a, const char *name);
/* A symbolic dimension; an equal non-NULL name gives the same symbol. NULL: a fresh one. */
int64_t graph_symbol(Graph *g, const char *name);
/* A value named `name`, or `name`_1, _2 … if that is taken; NULL gives "t", "t_1", … */
Value *value_new(Graph *g, const char *name, Type type);
/* A constant; `data` is borrowed (copy into the arena first if it does not last). */
Value *value_const(Graph *g, const char *name, Type type, const void *data);
Value *graph_add_input(Graph *g, const char *name, Type type);
void graph_add_output(Graph *g, Value *v);
/* Turns a constant into the last graph input (a parameter of training or of an HVP). */
void value_make_input(Graph *g, Value *v);

Value *const_f32(Graph *g, float x);                  /* a scalar */
Value *const_ints(Graph *g, int n, const int64_t *x); /* int64[n] */
#define CONST_INTS(g, ...)                                                                         \
    const_ints((g), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                     \
               (int64_t[]){__VA_ARGS__})

/* A node without outputs' types, not yet in the graph; node_append adds it at the end. */
Node *node_new(Graph *g, Op op, int nin, Value *const *in, int nout);
void node_set_attr(Graph *g, Node *n, Attr a); /* adds or replaces; copies lists */
void node_remove_attr(Node *n, const char *name);
void node_append(Graph *g, Node *n);

Attr attr_int(const char *name, int64_t i);
Attr attr_float(const char *name, float f);
Attr attr_str(const char *name, const char *s);
Attr attr_ints(const char *name, size_t n, const int64_t *ints);

/* Appends a node with one output, infers its type and returns the output. The rules of
 * passes never build ill-typed nodes: a failing inference is an internal error (trap).
 *     y = build(g, OP_Conv, IN(x, w), ATTRS(attr_int("group", 2)));
 *     z = build(g, OP_Add, IN(y, b), NO_ATTRS); */
Value *build(Graph *g, Op op, int nin, Value *const *in, int nattrs, const Attr *attrs);
Node *build_multi(Graph *g, Op op, int nout, int nin, Value *const *in, int nattrs,
                  const Attr *attrs);
/* Gemm: alpha op(a) op(b), op transposing where ta, tb; attributes that have their default are left
 * out, so that equal products are equal nodes whatever the model spelled out. */
Value *build_gemm(Graph *g, Value *a, Value *b, float alpha, bool ta, bool tb);
#define IN(...)                                                                                    \
    (int)(sizeof((Value *[]){__VA_ARGS__}) / sizeof(Value *)), (Value *[]) { __VA_ARGS__ }
#define ATTRS(...)                                                                                 \
    (int)(sizeof((Attr[]){__VA_ARGS__}) / sizeof(Attr)), (Attr[]) { __VA_ARGS__ }
#define NO_ATTRS 0, NULL

/* ---- reading (build.c) -------------------------------------------------------------- */

const Attr *node_attr(const Node *n, const char *name); /* NULL if absent */
int64_t node_int(const Node *n, const char *name, int64_t otherwise);
float node_float(const Node *n, const char *name, float otherwise);
/* The list, or NULL and *n untouched if absent. */
const int64_t *node_ints(const Node *n, const char *name, size_t *count);
const char *node_str(const Node *n, const char *name, const char *otherwise);
Value *node_in(const Node *n, int i); /* NULL if omitted or beyond nin */
/* What a node computes under that name, or NULL. */
Value *graph_computed(const Graph *g, const char *name);

bool value_is_const(const Value *v);
bool value_is_input(const Value *v);
/* Elements of a constant of any integer or bool dtype, or known `elems`, as int64: their
 * number, or -1 if unknown, of another type, or more than max. Symbols may be among them. */
int value_ints(const Value *v, int64_t *out, int max);
/* Elements of a constant of float, double or any integer dtype: their number, or -1 as above. */
int value_floats(const Value *v, double *out, int max);
/* The one element of a constant float or integer scalar (or [1]). */
bool value_scalar(const Value *v, double *out);

bool type_equal(const Type *a, const Type *b);
Type type_of(DType dtype, int rank, const int64_t *dim);
bool type_is_static(const Type *t); /* known rank, every dim a number */
/* Number of elements / bytes; -1 if a dim is symbolic or the product overflows. */
int64_t type_count(const Type *t);
int64_t type_bytes(const Type *t);

/* "node 'conv1' (Conv)" errors; return -1. */
int node_error(Diag *d, const Node *n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
const char *node_op_name(const Node *n);
/* What people call a node: its name, else that of its first result; "" without either. */
const char *node_label(const Node *n);
/* "node 'conv1' (Conv)", in arena `a`. */
const char *node_describe(const Node *n, Arena *a);
/* "float[N,64,8,8]" into buf; returns buf. */
const char *type_print(const Graph *g, const Type *t, char *buf, size_t size);

/* ---- rewriting (rewrite.c) ---------------------------------------------------------- */

/* A pass rebuilds the node list front to back:
 *     Rewrite r = rewrite_begin(g);
 *     for (int i = 0; i < r.nold; i++) {
 *         Node *n = r.old[i];
 *         rewrite_map_inputs(&r, n);             inputs now name the replacements
 *         if (…) rewrite_replace(&r, n->out[0], build(g, …)); else node_append(g, n);
 *     }
 *     rewrite_end(&r);                           graph outputs follow the replacements
 * A replaced graph output hands its name to the replacement. */
typedef struct Rewrite {
    Graph *g;
    Node **old;
    int nold;
    Value **to; /* by value id; NULL: itself */
    uint32_t cap;
} Rewrite;

Rewrite rewrite_begin(Graph *g);
void rewrite_map_inputs(Rewrite *r, Node *n);
void rewrite_replace(Rewrite *r, Value *from, Value *to);
Value *rewrite_value(const Rewrite *r, Value *v);
void rewrite_end(Rewrite *r);
/* For a value that stands for another from now on. */
void value_swap_names(Value *a, Value *b);

/* A deep copy of structure into arena `a`; constant bytes are shared. map (if not NULL)
 * receives an array in `a`, by old value id, of the new values. */
Graph *graph_clone(const Graph *g, Arena *a, Value ***map);
/* A clone with symbol k bound to dims[k] (< 0: left symbolic) and all types inferred anew. */
Graph *graph_specialize(const Graph *g, Arena *a, const int64_t *dims, Diag *d);
/* The same with the map of graph_clone. */
Graph *graph_specialize_mapped(const Graph *g, Arena *a, const int64_t *dims, Value ***map,
                               Diag *d);
/* Appends src's nodes to dst (inputs given by in[], constants shared) and returns its
 * outputs in out[]. Used to put a teacher beside its student. */
void graph_inline(Graph *dst, const Graph *src, Value *const *in, Value **out);

/* Where each value is read: uses.at[v->id] lists the nodes, uses.n[v->id] counts them; a
 * graph output counts as a use by node NULL. */
typedef struct Uses {
    Node ***at;
    int *n;
} Uses;
Uses graph_uses(const Graph *g, Arena *a);
/* Whether a node reads v, or the graph names it as an output. */
bool value_is_read(const Graph *g, const Value *v);
/* The node that reads v, if that is its one use; else NULL. */
Node *only_reader(const Uses *u, const Value *v);

/* ---- whole-graph services ----------------------------------------------------------- */

/* Types of all values from those of inputs and constants (infer.c). -1 after an error. */
int graph_infer(Graph *g, Diag *d);
/* Shape inference of one node through its op's rule. */
int node_infer(Node *n, Diag *d);
/* All invariants (listed in verify.c); prints the graph with errors beside the nodes. */
int graph_verify(const Graph *g, Diag *d);

/* 2 per multiply-add of convolutions and matrix products; other nodes are memory-bound and
 * count 0. Symbolic dims count as 1, so the figure is per sample for a symbolic batch. */
int64_t node_flops(const Node *n);
int64_t graph_flops(const Graph *g);
/* Elements of float constants that nodes read, and of quantized ones. */
int64_t graph_params(const Graph *g);

#endif
