/* The kernels that are compiled ahead: their numbers and argument structs. Bodies: *.cuh. */
#ifndef EHAP_RUNTIME_CUDA_KERNELS_H
#define EHAP_RUNTIME_CUDA_KERNELS_H

#include "runtime/cuda/prelude.h"

/* dst = src element for element, of `size` bytes each (up to 16: several of the tensor's); a stride
 * of 0 repeats. */
typedef struct CopyArgs {
    int64_t threads;
    int loops, size;
    int64_t dim[MAP_DIMS], to[MAP_DIMS], from[MAP_DIMS];
    void *dst;
    const void *src;
} CopyArgs;

/* One partial result per kept element and slice: slice s of element e takes the reduced elements
 * s, s + slices, … and adds them with Kahan's compensation. partial is [slices, kept]. */
enum GpuTerm {
    TERM_X,         /* sum of x0 */
    TERM_DOT,       /* x0 x1 */
    TERM_SQUARE,    /* (x0 - x1)^2 */
    TERM_CENTRED,   /* x0 (x1 - x2) */
    TERM_EXP,       /* exp(x0 - x1) */
    TERM_FAKE_STEP, /* x0 d fake_quant(x1; scale x2, zero point x3) / d scale; p: the grid's ends */
    TERM_MAX,       /* the largest of x0; a NaN wins */
    TERM_MIN
};
enum { REDUCE_OPERANDS = 4 };
typedef struct ReduceArgs {
    int64_t threads, kept, reduced, slices;
    int term, operands, kept_loops, reduced_loops;
    int wide;        /* neighbouring kept elements per thread: 1 or 4, counted as one */
    int slice_first; /* neighbouring threads are neighbouring slices, not neighbouring elements */
    int64_t kept_dim[MAP_DIMS], reduced_dim[MAP_DIMS];
    int64_t kept_stride[REDUCE_OPERANDS][MAP_DIMS], reduced_stride[REDUCE_OPERANDS][MAP_DIMS];
    const void *x[REDUCE_OPERANDS];
    int dtype[REDUCE_OPERANDS];
    float p[2];
    float *partial;
} ReduceArgs;

/* y[e] = scale * (sum, or extreme, over slices of partial[s][e]); y dense. */
typedef struct FinishArgs {
    int64_t threads, slices;
    int term, dtype;
    float scale;
    const float *partial;
    void *y;
} FinishArgs;

/* Sliding windows over up to three axes (leading ones may be of size 1), one thread per element of
 * the result. big: the tensor that windows slide over; small: one element per window. */
enum GpuPool { POOL_MAX, POOL_MEAN, POOL_MEAN_GRAD, POOL_MAX_GRAD, POOL_MAX_PICK };
typedef struct PlaceArgs {
    void *data;
    int dtype;
    int64_t n, c, at[3]; /* strides */
} PlaceArgs;
typedef struct PoolArgs {
    int64_t threads;
    int pool, count_pad;
    int64_t n, c;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], lo[3], hi[3];
    PlaceArgs a, x, y; /* the first operand; the pool's x in gradients of maxima; the result */
} PoolArgs;

/* y[i] = +-1 by Philox under key = int64[2] {seed, probe}. */
typedef struct SignArgs {
    int64_t threads;
    const int64_t *key;
    uint32_t stream;
    int dtype;
    void *y;
} SignArgs;

/* With r = *counter + lane: rows[r * row + at + i] = x[i]; *bad falls to r where x[i] is Inf or
 * NaN. */
typedef struct AppendArgs {
    int64_t threads, lane, row, at;
    const int64_t *counter;
    int64_t *bad;
    const float *x;
    float *rows;
} AppendArgs;

/* keys[i, size - 1] and *counter go up by the number of threads, of which there is one per lane. */
typedef struct BumpArgs {
    int64_t threads, size;
    int64_t *counter, *keys;
} BumpArgs;

/* total[i] += rows[i] */
typedef struct GatherArgs {
    int64_t threads;
    const float *rows;
    double *total;
} GatherArgs;

/* Column i of total[n, threads] are observations before + 1 … before + n, times factor[i], of the
 * moments [4, threads]: mean, sum of squared deviations (Welford), sums of the even and of the odd
 * observations. Leaves total zero. */
typedef struct ObserveArgs {
    int64_t threads, n, before;
    const double *factor;
    double *total, *moments;
} ObserveArgs;

/* y[i] = all[0, i] op all[1, i] … of all [ranks, threads], in that order; doubles or floats. */
typedef struct RankedArgs {
    int64_t threads, ranks;
    int op, wide; /* a RankOp; doubles */
    const void *all;
    void *y;
} RankedArgs;

#define GPU_KERNELS(X)                                                                             \
    X(copy, CopyArgs)                                                                              \
    X(reduce, ReduceArgs)                                                                          \
    X(finish, FinishArgs)                                                                          \
    X(pool, PoolArgs)                                                                              \
    X(sign, SignArgs)                                                                              \
    X(append, AppendArgs)                                                                          \
    X(bump, BumpArgs)                                                                              \
    X(gather, GatherArgs)                                                                          \
    X(observe, ObserveArgs)                                                                        \
    X(ranked, RankedArgs)

#define GPU_NUMBER(name, Args) GPU_##name,
enum GpuKernel { GPU_KERNELS(GPU_NUMBER) GPU_KERNEL_COUNT };
#undef GPU_NUMBER

#endif
