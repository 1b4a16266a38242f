/* Gathering samples into batches: rows are picked by index and turned from their stored type
 * into the program's, x = (stored - shift[c]) * factor[c], one run of equal channel at a time. */
#include "ir/samples.h"

#include <string.h>

#include "ir/batch.h"
#include "ir/mapped.h"

static double half_to_double(uint16_t h)
{
    int exponent = h >> 10 & 31, fraction = h & 1023;
    double x;
    if (exponent == 31)
        x = fraction ? (double)__builtin_nanf("") : (double)__builtin_inff();
    else if (exponent)
        x = __builtin_ldexp(1024 + fraction, exponent - 25);
    else
        x = __builtin_ldexp(fraction, -24);
    return h & 0x8000 ? -x : x;
}

static double bf16_to_double(uint16_t h)
{
    const uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return (double)x;
}

/* Loads n stored elements from element `at` on as (x - shift) * factor. */
#define LOAD_AS(T, value)                                                                          \
    for (int64_t i = 0; i < n; i++) {                                                              \
        T e = ((const T *)data)[at + i];                                                           \
        out[i] = (float)(((value)-shift) * factor);                                                \
    }                                                                                              \
    break

static void load_run(float *out, const void *data, DType t, int64_t at, int64_t n, double shift,
                     double factor)
{
    switch (t) {
    case DT_F32:
        LOAD_AS(float, (double)e);
    case DT_F64:
        LOAD_AS(double, e);
    case DT_F16:
        LOAD_AS(uint16_t, half_to_double(e));
    case DT_BF16:
        LOAD_AS(uint16_t, bf16_to_double(e));
    case DT_U8:
    case DT_BOOL:
        LOAD_AS(uint8_t, (double)e);
    case DT_I8:
        LOAD_AS(int8_t, (double)e);
    case DT_U16:
        LOAD_AS(uint16_t, (double)e);
    case DT_I16:
        LOAD_AS(int16_t, (double)e);
    case DT_U32:
        LOAD_AS(uint32_t, (double)e);
    case DT_I32:
        LOAD_AS(int32_t, (double)e);
    case DT_U64:
        LOAD_AS(uint64_t, (double)e);
    case DT_I64:
        LOAD_AS(int64_t, (double)e);
    default:
        trap(TRAP_INTERNAL, "samples of type %s", dtype_name(t));
    }
}
#undef LOAD_AS

/* One sample as floats: channels are runs of `inner` elements, repeating every C runs. */
static void load_sample(float *out, const SampleInput *in, const void *data, int64_t count)
{
    int64_t channels = 1, inner = count;
    if (in->channel_axis >= 0 && in->factor) {
        channels = in->type.dim[in->channel_axis];
        inner = 1;
        for (int k = in->channel_axis + 1; k < in->type.rank; k++) inner *= in->type.dim[k];
    }
    for (int64_t at = 0, c = 0; at < count; at += inner, c = c + 1 == channels ? 0 : c + 1)
        load_run(out + at, data, in->type.dtype, at, inner, in->shift ? (double)in->shift[c] : 0,
                 in->factor ? (double)in->factor[c] : 1);
}

/* The piece that holds sample i; NULL: all lie in in->data. */
static const SamplePiece *piece_of(const SampleInput *in, int64_t i)
{
    if (in->data) return NULL;
    int lo = 0, hi = in->npieces; /* the piece is in [lo, hi) */
    while (hi - lo > 1) {
        const int mid = (lo + hi) / 2;
        if (in->pieces[mid].first <= i)
            lo = mid;
        else
            hi = mid;
    }
    return &in->pieces[lo];
}

/* Sample i, which piece p holds. */
static const void *sample_in(const SampleInput *in, const SamplePiece *p, int64_t i, void *room)
{
    if (!p) return (const char *)in->data + i * type_bytes(&in->type);
    if (!p->make) return (const char *)p->data + (size_t)(i - p->first) * p->pitch;
    p->make(p->data, i - p->first, room);
    return room;
}

const void *sample_at(const SampleInput *in, int64_t i, void *room)
{
    return sample_in(in, piece_of(in, i), i, room);
}

/* Floats at the end of a row of doubles become those doubles. */
static void widen(void *row, int64_t count)
{
    char *to = row;
    const char *from = to + (size_t)count * sizeof(float);
    for (int64_t i = 0; i < count; i++) {
        float f;
        memcpy(&f, from + (size_t)i * sizeof f, sizeof f);
        const double x = (double)f;
        memcpy(to + (size_t)i * sizeof x, &x, sizeof x);
    }
}

/* Sample `from` in the type that a program takes, float or double. */
static void convert(void *to, DType type, const SampleInput *in, const void *from, int64_t count)
{
    if (type == DT_F64) {
        load_sample((float *)to + count, in, from, count);
        widen(to, count);
    } else {
        load_sample(to, in, from, count);
    }
}

void samples_gather(const Samples *s, int input, const int64_t *index, int64_t n, DType out_type,
                    void *out)
{
    const SampleInput *in = &s->inputs[input];
    const size_t stored = (size_t)type_bytes(&in->type);
    int64_t count = type_count(&in->type);
    size_t row = (size_t)count * dtype_size(out_type);
    bool verbatim = in->type.dtype == out_type && !in->factor;
    if (!verbatim && out_type != DT_F32 && out_type != DT_F64)
        trap(TRAP_INTERNAL, "samples of type %s for an input of type %s",
             dtype_name(in->type.dtype), dtype_name(out_type));
    const int64_t outer = batch_outer(&in->type, in->batch_axis);
    Arena *a = outer > 1 ? arena_new() : NULL;
    void *room = NULL, *apart = outer > 1 ? arena_alloc(a, row) : NULL;
    if (in->batch_axis < 0) n = n > 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = in->same ? 0 : index[i];
        void *to = outer > 1 ? apart : (char *)out + (size_t)i * row;
        const SamplePiece *p = piece_of(in, at);
        const bool made = p && p->make;
        if (!a && made) a = arena_new();
        if (made && !room) room = arena_alloc(a, stored);
        const void *from = sample_in(in, p, at, room);
        if (verbatim)
            memcpy(to, from, row);
        else
            convert(to, out_type, in, from, count);
        if (outer > 1) batch_put(out, apart, outer, i, n, row);
        if (p && !made) mapped_passed(from, stored);
    }
    arena_free(a);
}
