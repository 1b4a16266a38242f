/* Normal equations: a blocked product in single precision over at most some thousand rows, summed
 * in double precision; Cholesky by LAPACK. The products among x lie below the diagonal while they
 * are added up; then they are copied above it, and what is below is what a factorization takes. */
#include "passes/prune/least_squares.h"

#include <math.h>
#include <string.h>

#include "ir/simd.h"

/* LAPACK and BLAS, Fortran calling convention. */
void dposv_(const char *uplo, const int *n, const int *nrhs, double *a, const int *lda, double *b,
            const int *ldb, int *info, size_t uplo_length);
void dsymm_(const char *side, const char *uplo, const int *m, const int *n, const double *alpha,
            const double *a, const int *lda, const double *b, const int *ldb, const double *beta,
            double *c, const int *ldc, size_t side_length, size_t uplo_length);

enum { TILE = 6, LANES = 16, BLOCK = 256 };

LeastSquares least_squares_new(Arena *a, int columns, int targets, bool may_hold)
{
    const int width = columns + targets;
    const size_t size = (size_t)width * (size_t)columns;
    return (LeastSquares){.arena = a,
                          .columns = columns,
                          .targets = targets,
                          .width = width,
                          .gram = NEW_ARRAY(a, double, size),
                          .held = may_hold ? NEW_ARRAY(a, double, size) : NULL};
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

static void add_products(const LeastSquares *q, const float *part, double *sum)
{
    for (int64_t i = 0; i < q->width; i++)
        for (int64_t j = 0; j <= i && j < q->columns; j++)
            sum[i * q->columns + j] += (double)part[i * q->columns + j];
}

void least_squares_add(LeastSquares *q, const float *part, int64_t rows, bool hold)
{
    add_products(q, part, q->gram);
    q->rows += rows;
    if (!hold) return;
    add_products(q, part, q->held);
    q->held_rows += rows;
}

/* ---- solving ------------------------------------------------------------------------ */

/* Copies the lower triangle of the x products above the diagonal, where the factorization does not
 * come, and the diagonal apart. */
static void keep_products(LeastSquares *q)
{
    const int64_t columns = q->columns;
    if (q->diagonal) return;
    q->diagonal = NEW_ARRAY(q->arena, double, columns);
    q->right = NEW_ARRAY(q->arena, double, columns * q->targets);
    for (int64_t i = 0; i < columns; i++) {
        q->diagonal[i] = q->gram[i * columns + i];
        for (int64_t j = 0; j < i; j++) q->gram[j * columns + i] = q->gram[i * columns + j];
    }
}

/* Makes the equations, less those of the rows `held` (NULL: of all rows). False: there is nothing
 * to fit. */
static bool load(LeastSquares *q, const double *held, double ridge, bool intercept,
                 const double *w0)
{
    const int64_t n = q->columns, free_ = intercept ? n - 1 : n;
    double trace = 0;
    for (int64_t i = 0; i < n; i++) {
        double *row = q->gram + i * n;
        for (int64_t j = 0; j < i; j++) row[j] = q->gram[j * n + i];
        row[i] = q->diagonal[i];
        for (int64_t j = 0; held && j <= i; j++) row[j] -= held[i * n + j];
        if (i < free_) trace += row[i];
    }
    const double lambda = free_ > 0 ? ridge * trace / (double)free_ : 0;
    if (!(lambda > 0)) return false;
    for (int64_t i = 0; i < free_; i++) q->gram[i * n + i] += lambda;
    for (int64_t t = 0; t < q->targets; t++)
        for (int64_t i = 0; i < n; i++) {
            const int64_t at = t * n + i;
            q->right[at] = q->gram[n * n + at] - (held ? held[n * n + at] : 0);
            if (i < free_) q->right[at] += lambda * w0[at];
        }
    return true;
}

/* The solution takes the place of the right-hand sides. */
static bool fit(LeastSquares *q, const double *held, double ridge, bool intercept, const double *w0)
{
    const int n = q->columns;
    int info = 0;
    keep_products(q);
    if (!load(q, held, ridge, intercept, w0)) return false;
    /* Row-major and lower is column-major and upper; row t is right-hand side t. */
    dposv_("U", &n, &q->targets, q->gram, &n, q->right, &n, &info, 1);
    return info == 0;
}

/* Mean and variance over the rows of w x, from sum x (the products with the constant column `one`)
 * and sum x x'. */
static void output_moments(const LeastSquares *q, const double *w, double *mean, double *variance)
{
    const int64_t n = q->columns - 1, columns = q->columns;
    const double *g = q->gram;
    double sum = 0, square = 0;
    for (int64_t i = 0; i < n; i++) {
        double cross = 0;
        for (int64_t j = i + 1; j < n; j++) cross += g[i * columns + j] * w[j];
        sum += w[i] * g[i * columns + n];
        square += w[i] * (w[i] * q->diagonal[i] + 2 * cross);
    }
    *mean = sum / (double)q->rows;
    *variance = square / (double)q->rows - *mean * *mean;
    if (*variance < 0) *variance = 0;
}

bool least_squares_solve(LeastSquares *q, double ridge, bool intercept, double *w, double *mean,
                         double *variance)
{
    const int64_t n = q->columns;
    if (!fit(q, NULL, ridge, intercept, w)) return false;
    memcpy(w, q->right, (size_t)(n * q->targets) * sizeof *w);
    for (int64_t t = 0; mean && t < q->targets; t++)
        output_moments(q, w + t * n, &mean[t], &variance[t]);
    return true;
}

/* ---- held-out rows ------------------------------------------------------------------ */

/* sum |W x - t|^2 over the rows held out, less sum |t|^2: tr W A W' - 2 tr W B'. aw: as large as w.
 */
static double held_error(const LeastSquares *q, const double *w, double *aw)
{
    static const double one = 1, zero = 0;
    const int n = q->columns;
    const int64_t count = (int64_t)n * q->targets;
    const double *b = q->held + (int64_t)n * n;
    double error = 0;
    dsymm_("L", "U", &n, &q->targets, &one, q->held, &n, w, &n, &zero, aw, &n, 1, 1);
    for (int64_t i = 0; i < count; i++) error += w[i] * (aw[i] - 2 * b[i]);
    return error;
}

/* The error falls and rises again with the ridge: the first rise ends the search. */
double least_squares_choose(LeastSquares *q, bool intercept, const double *w0)
{
    static const double ridge[] = {1e-4, 1e-3, 1e-2, 1e-1, 1, 10};
    double *aw = NEW_ARRAY(q->arena, double, (size_t)q->columns *(size_t)q->targets);
    double best = INFINITY, least = held_error(q, w0, aw), before = INFINITY;
    for (size_t k = 0; k < sizeof ridge / sizeof *ridge; k++) {
        const bool fits = fit(q, q->held, ridge[k], intercept, w0);
        const double error = fits ? held_error(q, q->right, aw) : INFINITY;
        if (error < least) {
            least = error;
            best = ridge[k];
        }
        if (error > before) break;
        before = error;
    }
    return best;
}
