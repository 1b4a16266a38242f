/* What the rules of several op families share: arithmetic on dimensions, setting output types,
 * axes, broadcasting, known elements. For ir/ only. */
#ifndef EHAP_IR_OPS_COMMON_H
#define EHAP_IR_OPS_COMMON_H

#include "ir/lanes.h"

/* A dimension while a rule computes it: a number, a symbol, or one of these. An unknown one
 * keeps what the value declared before, or becomes a fresh symbol. */
enum { DIM_UNKNOWN = -1, DIM_BAD = -2 };

enum { MAX_ELEMS = 64 }; /* elements of shape tensors that are tracked */

/* An element that is a size, but not known which. */
#define ELEM_UNKNOWN (DIM_SYM_BASE - 1)

/* Sums and products of dimensions: DIM_UNKNOWN if a symbol would have to be computed with,
 * DIM_BAD if the result overflows or is negative. */
int64_t dim_sum(int64_t a, int64_t b);
int64_t dim_times(int64_t a, int64_t b);
/* The same for a dimension and a number of either sign. */
int64_t dim_plus(int64_t dim, int64_t delta);
/* What two dimensions that must agree tell together; false if they are different numbers. */
bool dim_agree(int64_t a, int64_t b, int64_t *out);

/* Sets the type of output o, where the node has it: resolves unknown dimensions, refuses bad
 * ones and sizes beyond 2^59 elements. Rank -1 leaves the declared shape. */
int infer_out(Node *n, int o, Type t, Diag *d);
/* Output o has these known elements (copied; ELEM_UNKNOWN among them becomes a symbol). The
 * count must be that of its type, else nothing is recorded. */
void infer_elems(Node *n, int o, int count, const int64_t *elems);

/* Known elements of output 0 from those of input 0 where the op moves elements: the one at
 * coordinates c comes from offset + sum of c[k] * stride[k]. */
void infer_moved_elems(Node *n, int64_t offset, const int64_t *stride);
/* Strides of a row-major tensor of that (static) type. */
void row_major_strides(const Type *t, int64_t *stride);

/* The type of input i; rank -1 and DT_NONE where it is omitted. */
Type input_type(const Node *n, int i);
Type type_unknown(DType t);
/* Product of dimensions [from, to), with symbols and unknowns counting 1; saturates. */
int64_t dims_product(const Type *t, int from, int to);
int64_t mul_sat(int64_t a, int64_t b);

/* Errors unless inputs i and j have the same dtype (unknown ones agree with all). */
int expect_same_dtype(const Node *n, int i, int j, Diag *d);
/* Errors unless input i has the rank (an unknown one does). */
int expect_rank(const Node *n, int i, int rank, Diag *d);
/* A 1-D input of `count` elements, as biases are. `count` may be symbolic. */
int expect_vector(const Node *n, int i, int64_t count, const char *what, Diag *d);

/* Input i, an integer of at least `least` that counts something: its value, a symbol, or
 * DIM_UNKNOWN until it is known. */
int count_input(const Node *n, int i, int64_t least, const char *what, int64_t *count, Diag *d);
/* `axis` counted from the end if negative; errors outside [-rank, rank). */
int axis_of(const Node *n, int64_t axis, int rank, int *out, Diag *d);
/* The attribute 'axis' of a node that inference has checked, counted from the front; -1 without a
 * rank. */
int axis_attr(const Node *n, int64_t otherwise, int rank);
/* The axes that input i lists: sets mask[axis]. Returns 1 if they are known, 0 if the input is
 * omitted or not known, -1 after an error. */
int axes_of(const Node *n, int i, int rank, bool mask[MAX_RANK], Diag *d);

/* The broadcast type of inputs [from, to); dtype is that of the first. */
int broadcast_inputs(const Node *n, int from, int to, Type *t, Diag *d);

/* Ties y with those of the first nin inputs that have its size on an axis, along the axes that
 * broadcasting aligns, if one of them is open there. The last skip_in axes of inputs and skip_out
 * of y (rows and columns) are left out. */
void lanes_broadcast(Lanes *l, const Node *n, int nin, const Value *y, int skip_in, int skip_out);

#endif
