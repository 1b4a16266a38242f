/* Graph to ONNX file. */
#ifndef EHAP_BACKEND_H
#define EHAP_BACKEND_H

#include "ir/ir.h"

typedef struct EmitOptions {
    int64_t min_opset;     /* raise the default domain's opset to at least this */
    bool external_data;    /* weights of 1 KiB and more to PATH.<digest>.data */
    const KeyValue *props; /* added to (or replacing in) metadata_props */
    size_t nprops;
    size_t largest;   /* of the model file, beyond which weights go beside it; 0: 2 GiB */
    int64_t *written; /* not NULL: receives the bytes of all files */
} EmitOptions;

/* Checks the model (onnx_check), then writes it to `path` by way of a temporary file in the same
 * folder and a rename: the file appears whole or not at all, and with the external data that
 * belongs to it; data files of its predecessors at `path` are removed. Same graph, same bytes. */
int onnx_write(const Graph *g, const char *path, const EmitOptions *o, Diag *d);
/* The serialized model in malloc'ed memory. */
int onnx_serialize(const Graph *g, const EmitOptions *o, void **bytes, size_t *n, Diag *d);
/* What the ONNX specification demands of the graph that would be emitted: names unique, inputs
 * defined, ops legal at the opset, types legal. */
int onnx_check(const Graph *g, const EmitOptions *o, Diag *d);
/* One array as a .npy / TensorProto is not written here: see npz_write in the frontend. */

#endif
