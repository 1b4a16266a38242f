/* What a device's kernels see. One table per device: kernels.c, [OP_Conv] = {prepare, run}.
 *
 * A kernel works on strided tensors. Layout is decided by the plan, per value: activations
 * around convolutions and pools are channels-last (strides of NHWC under the logical shape
 * N,C,H,W), everything else is row-major. A kernel that cannot take the layouts at hand says
 * so in prepare by asking for a copy; all others follow strides. */
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

typedef struct Prepare {
    const Node *node;
    Tensor *in,
        *out; /* shapes and strides; no data, except of constants. in[i].rank < 0: omitted */
    int nin, nout;
    const void *const *const_data; /* per input: a constant's bytes, or NULL */
    void *state;                   /* out: kept for run */
    size_t scratch;                /* out: bytes wanted while running, 64-byte aligned */
    Diag *diag;
} Prepare;

typedef struct Kernel {
    /* Creates primitives; may be NULL. Called once per program, single-threaded. */
    int (*prepare)(Prepare *p);
    /* in[i].data is NULL where omitted. Called by many threads at once, each with its own
     * tensors and scratch; state is shared and must not be written. */
    void (*run)(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                void *scratch);
    void (*release)(void *state);
    unsigned flags;
} Kernel;

enum KernelFlags {
    KF_INPLACE = 1 << 0,   /* out[0] may share the memory of an input of equal size and layout */
    KF_F16 = 1 << 1,       /* handles F16 storage itself; otherwise the executor converts */
    KF_ROW_MAJOR = 1 << 2, /* wants all operands row-major */
};

typedef struct Device {
    const char *name;
    const Kernel *kernels; /* OP_COUNT entries; run == NULL: not supported */
    bool channels_last;    /* the plan may choose that layout */
    bool threads;
} Device;

extern const Device device_ref, device_cpu;

#endif
