/* Moving elements between strided tensors. Runs that are dense on both sides are memcpy'd;
 * where the source is dense along another loop than the destination (a transposition, as
 * between row-major and channels-last), that pair of loops goes in square tiles, so that
 * both sides use whole cache lines. Elements are 1, 2, 4 or 8 bytes wide. */
#include "runtime/cpu/nest.h"

#include <string.h>

enum { TILE = 16 };

typedef struct Loop2 {
    int64_t n, m;         /* outer, inner */
    int64_t dst_n, dst_m; /* strides in elements */
    int64_t src_n, src_m;
} Loop2;

#define COPY2(bits)                                                                                \
    static void copy_tile_##bits(void *d, const void *s, const Loop2 *l)                           \
    {                                                                                              \
        uint##bits##_t *dst = d;                                                                   \
        const uint##bits##_t *src = s;                                                             \
        for (int64_t i = 0; i < l->n; i++)                                                         \
            for (int64_t j = 0; j < l->m; j++)                                                     \
                dst[i * l->dst_n + j * l->dst_m] = src[i * l->src_n + j * l->src_m];               \
    }
COPY2(8)
COPY2(16)
COPY2(32)
COPY2(64)

static void copy_elements(void *dst, const void *src, size_t size, const Loop2 *l)
{
    switch (size) {
    case 1:
        copy_tile_8(dst, src, l);
        break;
    case 2:
        copy_tile_16(dst, src, l);
        break;
    case 4:
        copy_tile_32(dst, src, l);
        break;
    default:
        copy_tile_64(dst, src, l);
        break;
    }
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static void copy_tiled(char *dst, const char *src, size_t size, const Loop2 *l)
{
    int64_t w = (int64_t)size;
    for (int64_t i = 0; i < l->n; i += TILE)
        for (int64_t j = 0; j < l->m; j += TILE) {
            Loop2 tile = *l;
            tile.n = least(TILE, l->n - i);
            tile.m = least(TILE, l->m - j);
            copy_elements(dst + (i * l->dst_n + j * l->dst_m) * w,
                          src + (i * l->src_n + j * l->src_m) * w, size, &tile);
        }
}

static void copy_rows(char *dst, const char *src, size_t size, const Loop2 *l)
{
    int64_t w = (int64_t)size;
    if (l->dst_m != 1 || l->src_m != 1) {
        copy_elements(dst, src, size, l);
        return;
    }
    for (int64_t i = 0; i < l->n; i++)
        memcpy(dst + i * l->dst_n * w, src + i * l->src_n * w, (size_t)(l->m * w));
}

/* Moves the loop over which the source is dense next to the innermost. */
static bool pair_for_tiles(Nest *n)
{
    int last = n->loops - 1;
    if (n->stride[1][last] == 1) return false;
    for (int i = 0; i < last; i++) {
        if (n->stride[1][i] != 1) continue;
        int64_t dim = n->dim[i], s0 = n->stride[0][i], s1 = n->stride[1][i];
        for (int j = i; j + 1 < last; j++) {
            n->dim[j] = n->dim[j + 1];
            for (int k = 0; k < 2; k++) n->stride[k][j] = n->stride[k][j + 1];
        }
        n->dim[last - 1] = dim, n->stride[0][last - 1] = s0, n->stride[1][last - 1] = s1;
        return true;
    }
    return false;
}

void cpu_copy(const Tensor *dst, const Tensor *src)
{
    const Tensor *t[] = {dst, src};
    size_t size = dtype_size(dst->dtype);
    Nest n;
    NestPos pos = {0};
    nest_make(&n, 2, t);
    for (int i = 0; i < n.loops; i++)
        if (n.dim[i] == 0) return;
    bool tiled = pair_for_tiles(&n);
    int in = n.loops - 1, out = in > 0 ? in - 1 : 0;
    Loop2 l = {.n = in > 0 ? n.dim[out] : 1,
               .m = n.dim[in],
               .dst_n = in > 0 ? n.stride[0][out] : 0,
               .src_n = in > 0 ? n.stride[1][out] : 0,
               .dst_m = n.stride[0][in],
               .src_m = n.stride[1][in]};
    do {
        char *d = (char *)dst->data + pos.offset[0] * (int64_t)size;
        const char *s = (const char *)src->data + pos.offset[1] * (int64_t)size;
        (tiled ? copy_tiled : copy_rows)(d, s, size, &l);
    } while (nest_next(&n, out, &pos));
}

void cpu_fill_zero(const Tensor *dst)
{
    static const uint64_t zero = 0;
    Tensor src = {.dtype = dst->dtype, .rank = 0, .data = (void *)(uintptr_t)&zero};
    const Tensor *t[] = {dst};
    Nest n;
    nest_make(&n, 1, t);
    if (n.loops == 1 && n.stride[0][0] == 1)
        memset(dst->data, 0, (size_t)n.dim[0] * dtype_size(dst->dtype));
    else
        cpu_copy(dst, &src);
}
