/* Normal equations: a blocked product in single precision over at most some thousand rows, summed
 * in double precision; Cholesky by LAPACK. */
#include "passes/prune/least_squares.h"

#include <string.h>

#include "ir/simd.h"

/* LAPACK, Fortran calling convention. */
void dposv_(const char *uplo, const int *n, const int *nrhs, double *a, const int *lda, double *b,
            const int *ldb, int *info, size_t uplo_length);

enum { TILE = 6, LANES = 16, BLOCK = 256 };

LeastSquares least_squares_new(Arena *a, int columns, int targets)
{
    int width = columns + targets;
    return (LeastSquares){.columns = columns,
                          .targets = targets,
                          .width = width,
                          .gram = NEW_ARRAY(a, double, (size_t)width *(size_t)columns)};
}

size_t least_squares_bytes(const LeastSquares *q)
{
    return (size_t)q->width * (size_t)q->columns * sizeof(float);
}

typedef float Vec __attribute__((vector_size(LANES * sizeof(float))));

/* part[i0 + i][j0 + j] += sum over rows of row[i0 + i] row[j0 + j], TILE by LANES of them. The
 * rows are padded so that loads beyond the width stay inside. */
CLONES static void tile(const float *rows, int64_t n, int64_t stride, int64_t i0, int64_t j0,
                        float sums[TILE][LANES])
{
    Vec acc[TILE] = {0};
    for (int64_t r = 0; r < n; r++) {
        const float *row = rows + r * stride;
        Vec b;
        memcpy(&b, row + j0, sizeof b);
        for (int i = 0; i < TILE; i++) acc[i] += row[i0 + i] * b;
    }
    memcpy(sums, acc, sizeof acc);
}

CLONES float dot_product(const float *x, const float *y, int64_t n)
{
    Vec acc = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        Vec a, b;
        memcpy(&a, x + i, sizeof a);
        memcpy(&b, y + i, sizeof b);
        acc += a * b;
    }
    float sum = 0;
    for (; i < n; i++) sum += x[i] * y[i];
    for (int k = 0; k < LANES; k++) sum += acc[k];
    return sum;
}

static void add_tile(const LeastSquares *q, const float *rows, int64_t n, int64_t i0, int64_t j0,
                     float *part)
{
    float sums[TILE][LANES];
    const int64_t width = q->width, columns = q->columns;
    const int64_t iend = width - i0 < TILE ? width - i0 : TILE;
    const int64_t jend = columns - j0 < LANES ? columns - j0 : LANES;
    tile(rows, n, width, i0, j0, sums);
    for (int64_t i = 0; i < iend; i++)
        for (int64_t j = 0; j < jend; j++) part[(i0 + i) * columns + j0 + j] += sums[i][j];
}

void least_squares_part(const LeastSquares *q, const float *rows, int64_t n, float *part)
{
    int64_t width = q->width;
    for (int64_t r = 0; r < n; r += BLOCK) {
        int64_t count = n - r < BLOCK ? n - r : BLOCK;
        const float *block = rows + r * width;
        for (int64_t i0 = 0; i0 < width; i0 += TILE)
            for (int64_t j0 = 0; j0 <= i0 + TILE - 1 && j0 < q->columns; j0 += LANES)
                add_tile(q, block, count, i0, j0, part);
    }
}

void least_squares_add(LeastSquares *q, const float *part, int64_t rows)
{
    for (int64_t i = 0; i < q->width; i++)
        for (int64_t j = 0; j <= i && j < q->columns; j++)
            q->gram[i * q->columns + j] += (double)part[i * q->columns + j];
    q->rows += rows;
}

/* Copies the lower triangle of the x products above the diagonal, where the factorization does not
 * come, and the diagonal apart. */
static double *keep_products(LeastSquares *q, Arena *scratch)
{
    double *diagonal = NEW_ARRAY(scratch, double, q->columns);
    for (int64_t i = 0; i < q->columns; i++) {
        diagonal[i] = q->gram[i * q->columns + i];
        for (int64_t j = 0; j < i; j++) q->gram[j * q->columns + i] = q->gram[i * q->columns + j];
    }
    return diagonal;
}

/* Mean and variance over the rows of w x, from sum x (the products with the constant column `one`)
 * and sum x x'. */
static void output_moments(const LeastSquares *q, const double *diagonal, const double *w,
                           double *mean, double *variance)
{
    const int64_t n = q->columns - 1, columns = q->columns;
    const double *g = q->gram;
    double sum = 0, square = 0;
    for (int64_t i = 0; i < n; i++) {
        double cross = 0;
        for (int64_t j = i + 1; j < n; j++) cross += g[i * columns + j] * w[j];
        sum += w[i] * g[i * columns + n];
        square += w[i] * (w[i] * diagonal[i] + 2 * cross);
    }
    *mean = sum / (double)q->rows;
    *variance = square / (double)q->rows - *mean * *mean;
    if (*variance < 0) *variance = 0;
}

bool least_squares_solve(LeastSquares *q, double ridge, bool intercept, double *w, double *mean,
                         double *variance, Arena *scratch)
{
    int n = q->columns, free_ = intercept ? n - 1 : n, info = 0;
    const int64_t columns = n;
    double trace = 0;
    const double *diagonal = keep_products(q, scratch);
    for (int i = 0; i < free_; i++) trace += diagonal[i];
    double lambda = free_ > 0 ? ridge * trace / free_ : 0;
    if (!(lambda > 0)) return false;
    for (int64_t i = 0; i < free_; i++) {
        q->gram[i * columns + i] += lambda;
        for (int64_t t = 0; t < q->targets; t++)
            q->gram[(n + t) * columns + i] += lambda * w[t * n + i];
    }
    /* Row-major and lower is column-major and upper; row n + t is right-hand side t. */
    dposv_("U", &n, &q->targets, q->gram, &n, q->gram + n * columns, &n, &info, 1);
    if (info != 0) return false;
    for (int64_t t = 0; t < q->targets; t++) {
        memcpy(w + t * n, q->gram + (n + t) * columns, (size_t)n * sizeof *w);
        if (mean) output_moments(q, diagonal, w + t * n, &mean[t], &variance[t]);
    }
    return true;
}
