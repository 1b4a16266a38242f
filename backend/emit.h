/* What the files of the writer share. */
#ifndef EHAP_BACKEND_EMIT_H
#define EHAP_BACKEND_EMIT_H

#include "onnx.pb-c.h"

#include "backend/backend.h"
#include "ir/op.h"

/* One emission. Everything made lives in `a`. */
typedef struct Emit {
    const Graph *g;
    const EmitOptions *o;
    Arena *a;
    Diag *d;
    int64_t file_opset, opset; /* of the default domain: as read, as written */
    int64_t *needed;           /* not NULL: only find out which opset the nodes need */
    char *location;            /* file of external data, relative; NULL: none */
    size_t data_size;          /* of that file */
    struct External {
        const Value *v;
        size_t offset;
    } * external;
    size_t nexternal;
} Emit;

Emit emit_begin(const Graph *g, const EmitOptions *o, Arena *a, Diag *d);
/* emit.c: the whole model; constants are pointed at, not copied. */
int emit_model(Emit *e, Onnx__ModelProto **out);

/* Whether n has the inputs and outputs that its op must have. */
bool has_arity(const Node *n);
/* legalize.c: *out becomes n as the opset that is written has it; an error if it has no such
 * form. The lists of *out are its own. */
int legalize_node(Emit *e, const Node *n, Node *out);
/* The opset that all nodes of the graph can be written at, at least e->opset. */
int64_t needed_opset(Emit *e);
/* Whether a node that is only carried keeps its meaning at the opset that is written. */
int check_carried(Emit *e, const Node *n, const char *op_type,
                  bool (*has_attr)(const void *ctx, const char *attr), const void *ctx);

/* body.c: the bytes of an opaque attribute with the names of captured values put in; checks
 * what its nodes mean at the opset that is written. */
int emit_body(Emit *e, const Node *n, Bytes attr, Bytes *out);

#endif
