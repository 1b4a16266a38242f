/* TensorProto to elements. */
#ifndef EHAP_FRONTEND_TENSOR_H
#define EHAP_FRONTEND_TENSOR_H

#include "onnx.pb-c.h"

#include "ir/ir.h"

/* No shape may hold more: then bytes and offsets of any type fit in 63 bits. */
#define MAX_ELEMENTS (INT64_MAX / 16)

/* Where tensors find bytes that are not in the model: every file is opened once. */
typedef struct TensorFiles {
    Arena *arena;    /* the bytes live as long as this */
    const char *dir; /* the model's folder; NULL: it has none */
    struct TensorFile *files;
    Diag *d;
    bool used;      /* some tensor was external */
    uint64_t stamp; /* file_stamp over all files opened */
} TensorFiles;

int64_t tensor_files_bytes(const TensorFiles *f); /* of all files opened */

/* The elements of t, in the file's bytes where they are aligned there, else copied into the
 * arena. `what` names the tensor in errors ("initializer 'w'"). Returns 0; 1 if the IR cannot
 * hold such a tensor (strings, complex, small floats, rank above MAX_RANK); -1 after an error. */
int tensor_read(TensorFiles *f, const Onnx__TensorProto *t, const char *what, Type *type,
                const void **data);
/* Moves external bytes of a tensor that stays a TensorProto into its raw_data. */
int tensor_internalize(TensorFiles *f, Onnx__TensorProto *t);
/* A known element type that the IR computes shapes and bytes of, else DT_NONE. */
DType tensor_dtype(int32_t onnx);

#endif
