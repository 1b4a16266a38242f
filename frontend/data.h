/* Internal to the sample readers: one file's worth of samples, before they are joined. */
#ifndef EHAP_FRONTEND_DATA_H
#define EHAP_FRONTEND_DATA_H

#include "frontend/frontend.h"
#include "ir/samples.h"

/* `count` samples for one model input. */
typedef struct Part {
    int input; /* index of the model input it feeds */
    int64_t count;
    Type sample; /* of one sample */
    const void *data;
    const int32_t *labels;            /* NULL: none */
    size_t pitch;                     /* bytes from one sample to the next; 0: they are dense */
    SampleMaker *make;                /* NULL: they lie there */
    size_t (*room)(const void *data); /* that making one takes; NULL: none but its own */
} Part;

typedef struct Parts {
    Arena *arena; /* of the files as read, where the samples are used */
    const Graph *graph;
    const int *axes; /* of its inputs: batch_axes */
    const Preprocess *pre;
    int32_t label; /* of images that are read now; -1: none */
    Diag *diag;
    Part *list;
    int n, cap;
} Parts;

void parts_add(Parts *ps, Part p);
/* An array of samples as the input takes a batch of them, or one after the other; for an input
 * without a batch, also what it takes itself. Error: `what` is a single number, and no sample. */
int parts_add_array(Parts *ps, int input, const Type *t, const void *data, const char *what);
/* The sample type (without the batch axis) of model input i. */
Type sample_type(const Parts *ps, int i);

/* A whole file, valid as long as the arena: mapped if large (frontend/file.h), unpacked if gzip'ed
 * (at most 4 GiB, half of what the machine has free, and what --memory leaves). */
int data_load(Bytes *out, const Parts *ps, const char *path);

/* The file of labels that goes with a file of idx images by name; NULL: `path` is none. */
const char *idx_labels_path(Arena *a, const char *path);

/* Readers by kind; each reports its own errors with the path in them. */
int cifar_read(Parts *ps, const char *path);
int idx_read(Parts *ps, const char *path);
int npy_read(Parts *ps, const char *path);
int npz_read_samples(Parts *ps, const char *path);
int pb_read(Parts *ps, const char *path);
int image_read(Parts *ps, const char *path);

/* One .npy image: type and elements (borrowed from `bytes`, copied if misaligned or in
 * Fortran order). `what` names it in messages. */
int npy_parse(NamedArray *out, Arena *a, Bytes bytes, const char *what, Diag *d);

#endif
