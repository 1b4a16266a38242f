/* Sums over ranks whose devices do not know each other: down, through MPI, and up again, a part at
 * a time. */
#include <stdlib.h>
#include <string.h>

#include "runtime/cuda/cuda.h"

enum { PART = 1 << 20 }; /* bytes, a multiple of 64 */

void gpu_combine(void *y, const void *all, DType t, int64_t n, RankOp op)
{
    const RankedArgs a = {.threads = n,
                          .ranks = ranks_count(),
                          .op = (int)op,
                          .wide = t == DT_F64,
                          .all = all,
                          .y = y};
    if (n > 0) gpu_launch(GPU_ranked, &a);
}

/* Every rank's part, side by side on each device; memory of its own as long as it takes. */
static void combine_part(void *x, DType t, int64_t n, RankOp op, Arena *a)
{
    const size_t size = (size_t)n * dtype_size(t), padded = (size + 63) & ~(size_t)63;
    char *mine = arena_alloc(a, padded), *all = arena_alloc(a, padded * (size_t)ranks_count());
    gpu_download(mine, x, size);
    ranks_exchange(mine, padded, all);
    for (int r = 1; r < ranks_count(); r++) /* close the gaps */
        memmove(all + (size_t)r * size, all + (size_t)r * padded, size);
    char *there = gpu_alloc(size * (size_t)ranks_count());
    if (!there) trap(TRAP_DEVICE_MEMORY, "out of memory on the device for sums over ranks");
    gpu_upload(there, all, size * (size_t)ranks_count());
    gpu_combine(x, there, t, n, op);
    gpu_release(there);
}

void gpu_over_ranks_by_host(void *x, DType t, int64_t n, RankOp op)
{
    const int64_t step = PART / (int64_t)dtype_size(t);
    for (int64_t at = 0; at < n; at += step) {
        Arena *a = arena_new();
        combine_part((char *)x + (size_t)at * dtype_size(t), t, n - at < step ? n - at : step, op,
                     a);
        arena_free(a);
    }
}
