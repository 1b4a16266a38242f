/* Loops over strided operands, cut into dense blocks of floats.
 *
 * A Nest is the loop nest over the elements of a shape with one stride per operand and loop:
 * dimensions of size 1 are gone, neighbours that run on are merged, and the order follows the
 * first operand's memory. block_each() walks it in blocks of up to BLOCK elements, rows x
 * cols of the two innermost loops, and hands every operand over as dense floats: in place
 * where it lies so, else gathered (and converted from half or bytes) into a buffer. A
 * gathered block that the next blocks share - a bias, a scalar - is gathered once. */
#ifndef EHAP_RUNTIME_CPU_NEST_H
#define EHAP_RUNTIME_CPU_NEST_H

#include "runtime/kernel.h"

enum { BLOCK = 512, NEST_OPERANDS = 24, MAP_BLOCKS = 8 };

typedef struct Nest {
    int loops, operands; /* loop 0 is the outermost; there is at least one */
    int64_t dim[MAX_RANK];
    int64_t stride[NEST_OPERANDS][MAX_RANK]; /* in elements */
} Nest;

/* The nest over the shape of `lead`, ordered by its memory; other operands broadcast to that
 * shape (aligned at the last dimension). operand 0 is lead. */
void nest_make(Nest *n, int operands, const Tensor *const *t);
/* The offset of each operand at the start of innermost row number `row`. */
typedef struct NestPos {
    int64_t index[MAX_RANK], offset[NEST_OPERANDS];
} NestPos;
/* Steps loops [0, upto) like an odometer; false at the end. Start from all zeros. */
bool nest_next(const Nest *n, int upto, NestPos *pos);

/* A walk over a nest, block by block. */
typedef struct Source {
    const Tensor *t;
    int64_t inner, outer; /* strides of the two innermost loops */
    int64_t at;           /* what the buffer holds: offset, rows, cols */
    int rows, cols;
    float *buffer; /* BLOCK floats; may be NULL for an operand of dense floats */
} Source;

typedef struct Walk {
    const Nest *n;
    int64_t rows, cols;     /* sizes of the two innermost loops */
    int64_t step_r, step_c; /* of a block */
    Source src[NEST_OPERANDS];
} Walk;

/* buffers: BLOCK floats per operand; NULL: the caller sets src[k].buffer. */
void walk_begin(Walk *w, const Nest *n, const Tensor *const *t, float *buffers);
/* at[k]: where the block begins in operand k. */
typedef void BlockFn(Walk *w, void *ctx, const int64_t *at, int rows, int cols);
void walk(Walk *w, BlockFn *f, void *ctx);
/* The block of rows x cols that starts at offset `at`, as dense floats; and such floats to there.
 */
const float *source_block(Source *s, int64_t at, int rows, int cols);
void source_store(const Source *s, int64_t at, const float *src, int rows, int cols);

/* A block: operand k is rows x cols floats at x[k]; `at[k]` is the offset of its first
 * element in its tensor. */
typedef struct Block {
    int rows, cols;
    const float *x[NEST_OPERANDS];
    int64_t at[NEST_OPERANDS];
} Block;

/* Reads all operands of the nest, at most MAP_BLOCKS, in blocks. */
typedef void ReadFn(void *ctx, const Block *b, const Nest *n);
void block_read(const Nest *n, const Tensor *const *t, ReadFn *f, void *ctx);

/* y[i] = f(x0[i], x1[i], …) for all elements: t[0] is the output, t[1…] the inputs, which may
 * share the output's memory if they have its layout. n elements of block x[1…] go to y. At most
 * MAP_BLOCKS operands. */
typedef void MapFn(const void *ctx, int n, float *y, const float *const *x);
void block_map(int operands, const Tensor *const *t, MapFn *f, const void *ctx);

/* The types that load and store fast; any other works, element by element. */
bool block_dtype(DType d);
bool block_float(DType d); /* those of them that are floats */

/* n floats from / to elements; bytes round to nearest even and saturate. */
void load_floats(float *dst, const void *src, DType d, int64_t n);
void store_floats(void *dst, const float *src, DType d, int64_t n);

/* The same for elements `stride` apart, from offset `at` on. */
void load_line(float *dst, const Tensor *t, int64_t at, int64_t stride, int64_t n);
void store_line(const Tensor *t, int64_t at, int64_t stride, const float *src, int64_t n);

/* dst = src (same shape up to broadcasting, same element size), any strides. */
void cpu_copy(const Tensor *dst, const Tensor *src);
/* The same between types, through float. */
void cpu_convert(const Tensor *dst, const Tensor *src);
void cpu_fill_zero(const Tensor *dst);
/* y += x, x broadcasting to y. */
void cpu_add_into(const Tensor *y, const Tensor *x);

#endif
