/* What a device's kernels see. One table per device: kernels.c, [OP_Conv] = {prepare, run}.
 *
 * A kernel works on strided tensors. Layout is decided by the plan, per value: activations
 * around convolutions and pools are channels-last (strides of NHWC under the logical shape
 * N,C,H,W), everything else is row-major. A kernel that cannot follow strides says so with
 * KF_ROW_MAJOR and gets copies.
 *
 * What the plan promises on a device with channels_last, at rank 4 and 5: the images that a spatial
 * op reads and writes (table in runtime/layout.c) are channels-last, its other operands (weights,
 * scales) row-major. Element-wise kernels mostly see operands of one layout, but must be right for
 * all. Omitted operands have rank -1 and no data. A tensor may have no elements. */
#ifndef EHAP_RUNTIME_KERNEL_H
#define EHAP_RUNTIME_KERNEL_H

#include "runtime/runtime.h"

typedef struct Tensor {
    DType dtype;
    int rank;
    int64_t dim[MAX_RANK];
    int64_t stride[MAX_RANK]; /* in elements */
    void *data;
} Tensor;

int64_t tensor_count(const Tensor *t);
bool tensor_is_row_major(const Tensor *t);
bool tensor_is_channels_last(const Tensor *t); /* rank >= 3: N, spatial…, C */
/* Same shape and strides, no gaps: element k of one is element k of the other. */
bool tensor_same_layout(const Tensor *a, const Tensor *b);

typedef struct Step Step;

typedef struct Fusion Fusion; /* runtime/program.h */
typedef struct Device Device;

typedef struct Prepare {
    const Node *node;
    const Device *device;
    const Fusion *fusion; /* what the step computes instead of `node`; NULL: just that */
    Tensor *in,
        *out; /* shapes and strides; no data, except of constants. in[i].rank < 0: omitted */
    int nin, nout;
    const void *const *const_data; /* per input: a constant's bytes, or NULL */
    void *state;                   /* out: kept for run; freed by release, after errors and traps
                                      too: set it as soon as it is allocated */
    size_t scratch;                /* out: bytes wanted while running, 64-byte aligned */
    Diag *diag;
} Prepare;

/* How the CPU computes the node within a chain (runtime/cpu/chain.h): 1; 0 if loops over floats
 * cannot (the reference kernel does); -1 after an error. */
typedef struct MapLoop MapLoop;
typedef int MapRule(MapLoop *l, const Prepare *p);

typedef struct Kernel {
    /* Creates primitives; may be NULL. Called once per program, single-threaded. */
    int (*prepare)(Prepare *p);
    /* in[i].data is NULL where omitted. Called by many threads at once, each with its own
     * tensors and scratch; state is shared and must not be written. */
    void (*run)(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                void *scratch);
    void (*release)(void *state);
    unsigned flags;
    MapRule *map;
} Kernel;

enum KernelFlags {
    KF_INPLACE = 1 << 0,   /* out[0] may share the memory of an input of equal size and layout */
    KF_F16 = 1 << 1,       /* handles F16 storage itself; otherwise the executor converts */
    KF_ROW_MAJOR = 1 << 2, /* wants all operands row-major */
    KF_BF16 = 1 << 3,      /* likewise for BF16 storage */
    KF_HOST = 1 << 4,      /* on a device with its own memory: works on the host and waits */
    /* The two that make a step part of chains (fuse.c): output 0 is computed element by element;
     * the outputs (but for output 0 of a map) are sums over the shape of in[0]. */
    KF_MAP = 1 << 5,
    KF_SUM = 1 << 6,
    KF_MIXED = 1 << 7,   /* float operands may differ in type */
    KF_STRIDED = 1 << 8, /* inputs may have their axes in any order in memory */
};

/* Reshape and kin where neither side need be row-major, by a device's copy between equal shapes:
 * row-major memory has the input's shape and the output's alike. prepare asks for the scratch. */
typedef void TensorCopy(const Tensor *dst, const Tensor *src);
int tensor_reshape_prepare(Prepare *p);
void tensor_reshape(TensorCopy *copy, const Tensor *in, const Tensor *out, void *scratch);
/* Views: from element `offset` on; `size` elements of t's axis from `start` on; `in` with its axes
 * in the order of `out`, which the Transpose n makes of it. */
Tensor tensor_at(const Tensor *t, int64_t offset);
Tensor tensor_section(const Tensor *t, int axis, int64_t start, int64_t size);
Tensor tensor_transposed(const Node *n, const Tensor *in, const Tensor *out);

/* For device tables. Copy: equal shapes, any layouts and types (Identity, Cast). View: the same
 * elements in row-major order under another shape (Reshape and kin, where the plan could not make
 * an alias). */
extern const Kernel kernel_copy, kernel_view;

/* A device whose memory is not the host's. Calls are queued and run in order; what fails traps and
 * names the failing call and the node of the last begin(). */
typedef struct DeviceMemory {
    void *(*alloc)(size_t n); /* NULL: none left */
    void (*release)(void *p);
    size_t (*available)(void); /* bytes that alloc could still give, about */
    void (*upload)(void *to, const void *from, size_t n);   /* `from` may change after return */
    void (*download)(void *to, const void *from, size_t n); /* waits for all that was queued */
    void (*copy)(void *to, const void *from, size_t n);     /* both on the device */
    void (*begin)(const Node *n);
    /* What is queued between record() and recorded() is kept instead of run. */
    void (*record)(void);
    void *(*recorded)(void);
    void (*replay)(void *recording);
    void (*discard)(void *recording);
    /* Lanes, in which calls are queued side by side. lanes() makes n of them ready, or tells
     * how many there are; between fork()
     * and join(), lane() chooses the one that calls go to; each goes on from what was queued before
     * fork(), and what comes after join() waits for all. Otherwise lane 0 it is. */
    int (*lanes)(int n);
    void (*fork)(int n);
    void (*lane)(int k);
    void (*join)(int n);
    /* With r = *counter + lane: rows[r * row + at + k] = x[k] for k < n, and counter[1] is at most
     * r from then on if one of them is Inf or NaN. bump adds `lanes` to *counter and to the last of
     * each lane's `size` numbers in keys. */
    void (*append)(float *rows, int64_t *counter, int lane, int64_t row, int64_t at, const float *x,
                   int64_t n);
    void (*bump)(int64_t *counter, int64_t *keys, int64_t size, int lanes);
    /* total[k] += rows[k] for k < n. */
    void (*gather)(double *total, const float *rows, int64_t n);
    /* Row k of total[n, columns], times factor[columns], is observation before + k + 1 of
     * moments[4, columns] (instance_observe); total becomes zero. */
    void (*observe)(double *moments, double *total, const double *factor, int64_t columns,
                    int64_t n, int64_t before);
    /* x[k], F32 or F64, becomes that of all ranks together, the same on each; in_order: combined in
     * order of rank. Every rank calls it. */
    void (*over_ranks)(void *x, DType t, int64_t n, RankOp op, bool in_order);
    /* Before kernels are prepared: sends what the device cannot do to the host. */
    void (*rewrite)(Program *p);
} DeviceMemory;

struct Device {
    const char *name;
    const Kernel *kernels;              /* OP_COUNT entries; run == NULL: not supported */
    const Kernel *copy;                 /* for the plan's copies; NULL: kernel_copy */
    const Kernel *chain;                /* for joined steps; NULL: there are none */
    bool (*can_fuse)(const Prepare *p); /* a KF_MAP or KF_SUM step; NULL: any */
    bool (*computes_with)(DType t);     /* others it converts to F32 and back; NULL: with all */
    bool channels_last;                 /* the plan may choose that layout */
    bool threads;
    bool tf32;                  /* products of floats may round operands to 10 bits */
    bool deterministic;         /* the same bytes in every run */
    const DeviceMemory *memory; /* NULL: the host's */
};

/* ref_last ("ref-last") is ref with channels-last values, for testing the plan. */
extern const Device device_ref, device_ref_last, device_cpu;

/* The device of that name: "ref" (naive, double arithmetic), "ref-last", "cpu", "cuda", "auto". The
 * last two may end in "-tf32", then "-deterministic". NULL after an error, which for cuda says what
 * is missing. */
const Device *device_find(const char *name, Diag *d);

#endif
