/* Least squares by normal equations that are added up from blocks of rows.
 *
 * Unknowns: W [targets, columns] with W x ~ t over all rows (x, t). Memory is (columns + targets) *
 * columns whatever the number of rows: products among targets are not wanted. */
#ifndef EHAP_PASSES_PRUNE_LEAST_SQUARES_H
#define EHAP_PASSES_PRUNE_LEAST_SQUARES_H

#include "ir/arena.h"

typedef struct LeastSquares {
    Arena *arena;
    int columns, targets, width; /* width = columns + targets: of a row [x | t] */
    double *gram;                /* [width, columns], lower triangle: sums of products */
    double *held;                /* the same of the rows that are held out; NULL: none may be */
    int64_t rows, held_rows;
    double *diagonal, *right; /* of the x products, and of the equations, once they are solved */
} LeastSquares;

/* may_hold: rows may be held out, which takes as much memory again. */
LeastSquares least_squares_new(Arena *a, int columns, int targets, bool may_hold);
size_t least_squares_bytes(const LeastSquares *q); /* of a part */
/* Adds the products of n rows [n, width] to part [width, columns], which the caller zeroed; only
 * the lower triangle is meant. For several threads, each with its part. */
void least_squares_part(const LeastSquares *q, const float *rows, int64_t n, float *part);
void least_squares_add(LeastSquares *q, const float *part, int64_t rows, bool hold);

/* Minimizes sum |W x - t|^2 + lambda |W - w0|^2 with lambda = ridge times the mean diagonal of the
 * x products; the last column (the constant 1 of an intercept) goes free when `intercept`.
 * w [targets, columns] holds w0 and receives the solution. `mean` and `variance` (per target;
 * may be NULL) receive those of W x without its intercept over the rows. Returns false, w
 * untouched, when there is nothing to fit or the matrix is not positive definite. No rows may be
 * added afterwards. */
bool least_squares_solve(LeastSquares *q, double ridge, bool intercept, double *w, double *mean,
                         double *variance);
/* The ridge with which a fit to the other rows leaves least on those held out, of powers of ten;
 * INFINITY where w0 leaves no more than any. No rows may be added afterwards. */
double least_squares_choose(LeastSquares *q, bool intercept, const double *w0);

float dot_product(const float *x, const float *y, int64_t n);

#endif
