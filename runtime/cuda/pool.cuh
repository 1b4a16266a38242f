/* Pools, their gradients, and the tangent of max pooling, one thread per element of the result. The
 * gradients gather: an element of x asks the windows that cover it, and a window is asked again by
 * each of its elements. Of equal maxima the first tap counts, as on the CPU. */
typedef struct PoolAt {
    int64_t n, c, pos[3];
} PoolAt;

SCALAR_FN PoolAt pool_at(const PoolArgs *a, const int64_t size[3], int64_t i)
{
    PoolAt p;
    p.c = i % a->c;
    i /= a->c;
    for (int k = 2; k >= 0; k--) {
        p.pos[k] = i % size[k];
        i /= size[k];
    }
    p.n = i;
    return p;
}

SCALAR_FN int64_t place_offset(const PlaceArgs *p, int64_t n, int64_t c, const int64_t pos[3])
{
    return n * p->n + c * p->c + pos[0] * p->at[0] + pos[1] * p->at[1] + pos[2] * p->at[2];
}

/* Calls for the taps of window `w` inside the input, in row-major order. */
#define POOL_TAPS(a, w, tap, body)                                                                 \
    for (int64_t k0 = 0; k0 < (a)->kernel[0]; k0++)                                                \
        for (int64_t k1 = 0; k1 < (a)->kernel[1]; k1++)                                            \
            for (int64_t k2 = 0; k2 < (a)->kernel[2]; k2++) {                                      \
                int64_t tap[3];                                                                    \
                tap[0] = (w)[0] * (a)->stride[0] - (a)->lo[0] + k0 * (a)->dilation[0];             \
                tap[1] = (w)[1] * (a)->stride[1] - (a)->lo[1] + k1 * (a)->dilation[1];             \
                tap[2] = (w)[2] * (a)->stride[2] - (a)->lo[2] + k2 * (a)->dilation[2];             \
                if (tap[0] >= 0 && tap[0] < (a)->in[0] && tap[1] >= 0 && tap[1] < (a)->in[1] &&    \
                    tap[2] >= 0 && tap[2] < (a)->in[2])                                            \
                    body                                                                           \
            }

/* Where the maximum of window w is in `other`, a place of x's shape; -1: an empty window. */
SCALAR_FN int64_t pool_argmax(const PoolArgs *a, const PlaceArgs *x, const PlaceArgs *other,
                              int64_t n, int64_t c, const int64_t w[3], float *best)
{
    int64_t at = -1;
    *best = -INFINITY;
    POOL_TAPS(a, w, tap, {
        const float v = gpu_load(x->data, x->dtype, place_offset(x, n, c, tap));
        if (at < 0 || !(v <= *best || *best != *best)) {
            *best = v;
            at = place_offset(other, n, c, tap);
        }
    })
    return at;
}

/* Elements of window w that its mean divides by. */
SCALAR_FN float pool_weight(const PoolArgs *a, const int64_t w[3])
{
    int64_t count = 1;
    for (int i = 0; i < 3; i++) {
        const int64_t start = w[i] * a->stride[i] - a->lo[i];
        const int64_t end = a->count_pad ? a->in[i] + a->hi[i] : a->in[i];
        const int64_t first = a->count_pad ? -a->lo[i] : 0;
        int64_t taps = 0;
        for (int64_t k = 0; k < a->kernel[i]; k++) {
            const int64_t at = start + k * a->dilation[i];
            taps += at >= first && at < end;
        }
        count *= taps;
    }
    return count > 0 ? 1.f / (float)count : 0.f;
}

/* Calls for the windows that cover position `pos` of the input. */
#define POOL_WINDOWS(a, pos, w, body)                                                              \
    for (int64_t k0 = 0; k0 < (a)->kernel[0]; k0++)                                                \
        for (int64_t k1 = 0; k1 < (a)->kernel[1]; k1++)                                            \
            for (int64_t k2 = 0; k2 < (a)->kernel[2]; k2++) {                                      \
                int64_t w[3], from[3];                                                             \
                from[0] = (pos)[0] + (a)->lo[0] - k0 * (a)->dilation[0];                           \
                from[1] = (pos)[1] + (a)->lo[1] - k1 * (a)->dilation[1];                           \
                from[2] = (pos)[2] + (a)->lo[2] - k2 * (a)->dilation[2];                           \
                for (int i_ = 0; i_ < 3; i_++) w[i_] = from[i_] / (a)->stride[i_];                 \
                if (from[0] >= 0 && from[1] >= 0 && from[2] >= 0 &&                                \
                    w[0] * (a)->stride[0] == from[0] && w[1] * (a)->stride[1] == from[1] &&        \
                    w[2] * (a)->stride[2] == from[2] && w[0] < (a)->out[0] &&                      \
                    w[1] < (a)->out[1] && w[2] < (a)->out[2])                                      \
                    body                                                                           \
            }

SCALAR_FN float pool_slide(const PoolArgs *a, const PoolAt *p)
{
    float best, sum = 0.f;
    if (a->pool == POOL_MAX) {
        pool_argmax(a, &a->a, &a->a, p->n, p->c, p->pos, &best);
        return best;
    }
    POOL_TAPS(a, p->pos, tap,
              { sum += gpu_load(a->a.data, a->a.dtype, place_offset(&a->a, p->n, p->c, tap)); })
    return sum * pool_weight(a, p->pos);
}

SCALAR_FN float pool_pick(const PoolArgs *a, const PoolAt *p)
{
    float best;
    const int64_t at = pool_argmax(a, &a->x, &a->a, p->n, p->c, p->pos, &best);
    return at < 0 ? 0.f : gpu_load(a->a.data, a->a.dtype, at);
}

SCALAR_FN float pool_spread(const PoolArgs *a, const PoolAt *p)
{
    const int64_t self = place_offset(&a->x, p->n, p->c, p->pos);
    float sum = 0.f, best;
    POOL_WINDOWS(a, p->pos, w, {
        const float dy = gpu_load(a->a.data, a->a.dtype, place_offset(&a->a, p->n, p->c, w));
        if (a->pool == POOL_MEAN_GRAD)
            sum += dy * pool_weight(a, w);
        else if (pool_argmax(a, &a->x, &a->x, p->n, p->c, w, &best) == self)
            sum += dy;
    })
    return sum;
}

SCALAR_FN void pool_thread(const PoolArgs *a, int64_t i)
{
    const int spread = a->pool == POOL_MEAN_GRAD || a->pool == POOL_MAX_GRAD;
    const PoolAt p = pool_at(a, spread ? a->in : a->out, i);
    const float y = spread                     ? pool_spread(a, &p)
                    : a->pool == POOL_MAX_PICK ? pool_pick(a, &p)
                                               : pool_slide(a, &p);
    gpu_store(a->y.data, a->y.dtype, place_offset(&a->y, p.n, p.c, p.pos), y);
}
