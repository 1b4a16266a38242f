/* Sample data: what the frontend reads and passes draw batches from.
 *
 * Samples stay where their files put them: in memory, or in a mapped file of any size, of which
 * only the samples being gathered take memory; images are decoded as they are gathered.
 *
 * Elements stay in their stored type (CIFAR: bytes), so 20,000 images are 61 MB, and become
 * floats as a batch is gathered: x = (stored - shift[c]) * factor[c] with c the index of
 * channel_axis. */
#ifndef EHAP_IR_SAMPLES_H
#define EHAP_IR_SAMPLES_H

#include "ir/ir.h"

/* Makes sample i of a piece, as stored, in `out`; by any thread. */
typedef void SampleMaker(const void *data, int64_t i, void *out);

/* Samples that lie at equal distances, or are made when they are wanted. */
typedef struct SamplePiece {
    const void *data;
    int64_t first;     /* which sample of the set its first one is */
    size_t pitch;      /* bytes from one to the next */
    SampleMaker *make; /* NULL: they lie there */
} SamplePiece;

typedef struct SampleInput {
    const char *name;          /* of the graph input it feeds; NULL: by position */
    Type type;                 /* of one sample, without the batch axis; dtype as stored */
    int batch_axis;            /* of the graph input (ir/batch.h); -1: it has none */
    bool same;                 /* there is one sample, which goes with all others */
    const void *data;          /* count samples, row-major; NULL: they lie in pieces */
    const SamplePiece *pieces; /* in the order of their samples */
    int npieces;
    size_t room;                 /* bytes that making one takes, beside its own */
    int channel_axis;            /* of one sample; -1: factor[0], shift[0] for all */
    const float *factor, *shift; /* NULL: as stored */
} SampleInput;

typedef struct Samples {
    int64_t count;
    SampleInput *inputs;
    int ninputs;
    const int32_t *labels; /* NULL: unlabelled */
    int nclasses;
    const char *source; /* "cifar (20000 images)", "synthesized from BatchNormalization" … */
} Samples;

/* Sample i of an input, as stored: where it lies, or made in `room`, which holds one. */
const void *sample_at(const SampleInput *in, int64_t i, void *room);
/* Gathers samples index[0..n) of one input along its batch axis, where it has none index[0] alone,
 * in `out`; float inputs become float, integer ones keep their type when factor is NULL and
 * out_type says so. */
void samples_gather(const Samples *s, int input, const int64_t *index, int64_t n, DType out_type,
                    void *out);

#endif
