/* What the files of the ONNX importer share. */
#ifndef EHAP_FRONTEND_ONNX_IMPORT_H
#define EHAP_FRONTEND_ONNX_IMPORT_H

#include "frontend/tensor.h"
#include "ir/names.h"
#include "ir/op.h"

enum { OLDEST_OPSET = 7, NEWEST_OPSET = 28, MAX_NODES = 1 << 20 };

/* Names of one scope: the graph's, or a subgraph's. */
typedef struct NameTable NameTable;
typedef struct NameEntry {
    const char *name;
    Value *v;
    int node;  /* index in the file of the node that makes it; -1: input or initializer */
    int index; /* free for the owner of the table */
} NameEntry;
NameTable *table_new(Arena *a);
/* The entry of that name; with `add`, a new one (node -1) if there is none, else NULL. */
NameEntry *table_find(NameTable *t, const char *name, bool add);

/* Where a node comes from once functions are inlined. */
typedef struct Origin {
    int64_t opset; /* of the default domain there */
    int function;  /* index in the file; -1: the graph itself */
} Origin;

typedef struct Import {
    Graph *g;
    Arena *tmp; /* dies with the import */
    Diag *d;
    Onnx__GraphProto *proto;
    int64_t opset;        /* of the default domain, where the node at hand comes from; 0: none */
    int64_t file_opset;   /* that of the model */
    const Origin *origin; /* of each node where functions were inlined; else NULL */
    int function;         /* of the node at hand */
    bool *kept;           /* by function: its calls stay */
    int nconstants;       /* inputs that are initializers, too */
    int ncalls;           /* calls of functions that have become nodes */
    int round;            /* how often the model was read before */
    bool again;           /* more are to be `kept` than were: what was read is void */
    bool is_body;         /* of a node of g, which has other nodes already */
    TensorFiles files;
    NameTable *names;
} Import;

/* "node 'conv1' (Conv)", for nodes not yet in the graph; return -1. */
int proto_error(Import *im, const Onnx__NodeProto *n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Outer values that subgraphs of a node read, and which node of the file makes each (as in
 * NameEntry). */
typedef struct Captures {
    Value **v;
    int *node;
    int n;
} Captures;

#define CAPTURE_PREFIX "ehap:capture:"
/* onnx_body.c: finds them. Each reference in the attributes is replaced by "ehap:capture:K" (K
 * counting from 0; the writer puts the name of the K-th captured input there), so that values
 * can be renamed without opening the attribute's bytes. */
int body_captures(Import *im, Onnx__NodeProto *n, Captures *out);

/* onnx_node.c: the operator of the default domain; OP_Opaque: it is none that we know. */
Op standard_op(const char *op_type, int64_t opset);
/* Makes a node, normalizes it and appends it to the graph. */
int import_node(Import *im, const Onnx__NodeProto *proto, const Captures *captures);
/* An initializer or Constant that the IR cannot hold, as an opaque Constant node. */
int import_opaque_constant(Import *im, const char *name, Onnx__AttributeProto *value);
/* The value that a Constant node makes: 0, 1 if the IR cannot hold it, -1 after an error. */
int constant_value(Import *im, const Onnx__NodeProto *n, Type *type, const void **data);
/* Unknown fields of a message, verbatim. */
Bytes unknown_fields(Import *im, const ProtobufCMessage *m);

/* onnx_upgrade.c: brings a node of the file's opset to the IR's form. Helper nodes that it reads
 * are appended to the graph; *after (or NULL) is one to be appended behind it. What has no
 * such form becomes opaque. */
int upgrade_node(Import *im, Node *n, Node **after);
/* Appends n and infers the types of its outputs. */
int append_node(Import *im, Node *n);

#endif
