/* Training the small network on a device. */
#ifndef EHAP_TESTS_CUDA_TRAINED_H
#define EHAP_TESTS_CUDA_TRAINED_H

#include "tests/cuda/logged.h"

typedef struct Training {
    bool norm, quantized;
    int batch;
    const char *options;
} Training;

/* From step 18 of 24 on, every image is NaN. */
static bool poisoned;

static inline void poison(void *ctx, const char *pass, double fraction, const char *text)
{
    const Samples *s = ctx;
    int step;
    (void)pass, (void)fraction;
    if (sscanf(text, "step %d", &step) != 1 || step < 18) return;
    memset((void *)(uintptr_t)s->inputs[0].data, 0xff,
           sizeof(float[NET_SAMPLES * 2 * NET_SIZE * NET_SIZE]));
}

/* Every float constant of the small network after `steps` steps, in node order. */
static inline int64_t trained(float *out, const Training *how, const char *device, int64_t steps)
{
    Arena *a = arena_new();
    Diag d = {.sink = keep_message};
    Context c = small_context(a, &d, how->norm);
    int64_t n = 0;
    c.opt.device = device;
    c.opt.batch = how->batch;
    c.opt.steps = steps;
    if (poisoned) {
        c.progress = poison;
        c.progress_ctx = (void *)(uintptr_t)c.data;
    }
    if (how->quantized) assert_int_equal(pass_fake_quant(&c, ""), 0);
    forget();
    assert_int_equal(pass_train(&c, how->options), 0);
    for (int i = 0; i < c.graph->nnodes; i++)
        for (int k = 0; k < c.graph->nodes[i]->nin; k++) {
            const Value *v = c.graph->nodes[i]->in[k];
            if (!v || !value_is_const(v) || v->type.dtype != DT_F32) continue;
            memcpy(out + n, v->data, (size_t)type_bytes(&v->type));
            n += type_count(&v->type);
        }
    arena_free(a);
    return n;
}

#endif
