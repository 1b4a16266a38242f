/* Everything that is read: ONNX models and sample data. */
#ifndef EHAP_FRONTEND_H
#define EHAP_FRONTEND_H

#include "ir/ir.h"
#include "ir/samples.h"

/* Reads an ONNX model (opset 7 to the newest known). Weights stay in the mapped file, which
 * lives as long as `a` (arena_defer unmaps it). Every op is brought to the IR's normal form;
 * what is not understood becomes OP_Opaque. Types are inferred. Hostile input of any kind ends
 * in an error. */
int onnx_read(Graph **out, Arena *a, const char *path, Diag *d);
int onnx_read_memory(Graph **out, Arena *a, const void *bytes, size_t n, const char *dir, Diag *d);
/* Which of its bodies takes the place of an If. */
typedef enum Branch { BRANCH_NONE, BRANCH_THEN, BRANCH_ELSE } Branch;
bool onnx_is_if(const Node *n);
/* Replaces every If of g for which taken[] (by node index) names a branch by the nodes of that
 * branch, under names that are unique in g. Ifs among them stay to be looked at. */
int onnx_take_branches(Graph *g, const Branch *taken, Diag *d);
/* Error: a weight is NaN or infinite. Reads them all, which onnx_read does not. */
int onnx_check_weights(const Graph *g, Diag *d);
/* One TensorProto (.pb) file, as in ONNX test data: a constant of graph g. */
int onnx_read_tensor(Value **out, Graph *g, const char *path, Diag *d);

/* --preprocess "scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,layout=nchw":
 * x = (stored * scale - mean[c]) / std[c]. */
typedef struct Preprocess {
    double scale;
    int n; /* channels given; 0: no mean and std */
    double mean[16], std[16];
    bool nhwc; /* the model wants N,H,W,C */
    /* Of images: their size where the model leaves it open, the shorter side before the crop (0: as
     * it has to be), no crop, blue first. */
    int64_t height, width, resize;
    bool stretch, bgr;
    /* By symbol of the model: what its open dimensions are taken as; -1: nothing. */
    const int64_t *dims;
    int ndims;
    size_t memory; /* that the process may hold; 0: no limit */
    bool given;
} Preprocess;
int preprocess_parse(Preprocess *out, const char *text, Diag *d);

/* Reads the comma-separated files or folders: CIFAR binary, idx (plain or .gz, its labels beside it
 * or in the list), npy, npz, TensorProto .pb, JPEG and PNG images (labelled by their folder, where
 * it is one of several in a folder that is given). Shapes and dtypes are checked against the
 * model's inputs (a graph with static sample shapes). */
int samples_read(Samples **out, Arena *a, const char *list, const Preprocess *pre, const Graph *g,
                 Diag *d);

/* Continues a digest over the sizes and times of change of the files that samples_read would read;
 * list may be NULL. */
uint64_t samples_stamp(uint64_t h, const char *list);

/* Named arrays of an npz file, for `ehapc run`. */
typedef struct NamedArray {
    const char *name;
    Type type;
    const void *data;
} NamedArray;
int npz_read(NamedArray **out, int *n, Arena *a, const char *path, Diag *d);
int npz_write(const char *path, const NamedArray *arrays, int n, Diag *d);

#endif
