/* Crop and flip, as one gather: out(y, x) = in(reflect(y + dy), reflect(±x + dx)). Reflection
 * needs no fill colour, so it suits any normalization of the pixels. */
#include "passes/train/augment.h"

#include <string.h>

static bool few_channels(int64_t n) { return n == 1 || n == 3 || n == 4; }

bool augment_for(Augment *out, const Type *t)
{
    if (t->rank != 3 || !type_is_static(t)) return false;
    bool first = few_channels(t->dim[0]) && t->dim[1] >= 8 && t->dim[2] >= 8;
    bool last = few_channels(t->dim[2]) && t->dim[0] >= 8 && t->dim[1] >= 8;
    if (!first && !last) return false;
    const int64_t *size = first ? t->dim + 1 : t->dim;
    *out = (Augment){.channels = first ? t->dim[0] : t->dim[2],
                     .height = size[0],
                     .width = size[1],
                     .channels_last = !first,
                     .pad = (size[0] < size[1] ? size[0] : size[1]) / 8};
    out->mirror = out->channels >= 3;
    return true;
}

static int64_t reflect(int64_t i, int64_t n)
{
    if (i < 0) i = -i;
    return i < n ? i : 2 * (n - 1) - i;
}

void augment_image(const Augment *a, Rng *r, float *image, float *scratch)
{
    uint32_t moves = (uint32_t)(2 * a->pad + 1);
    int64_t dy = (int64_t)rng_below(r, moves) - a->pad;
    int64_t dx = (int64_t)rng_below(r, moves) - a->pad;
    bool mirror = a->mirror && rng_below(r, 2);
    int64_t planes = a->channels_last ? 1 : a->channels;
    int64_t pixel = a->channels_last ? a->channels : 1, w = a->width, h = a->height;
    memcpy(scratch, image, sizeof(float) * (size_t)(a->channels * w * h));
    for (int64_t c = 0; c < planes; c++)
        for (int64_t y = 0; y < h; y++) {
            const float *from = scratch + (c * h + reflect(y + dy, h)) * w * pixel;
            float *to = image + (c * h + y) * w * pixel;
            for (int64_t x = 0; x < w; x++) {
                int64_t sx = reflect(x + dx, w);
                memcpy(to + x * pixel, from + (mirror ? w - 1 - sx : sx) * pixel,
                       sizeof(float) * (size_t)pixel);
            }
        }
}
