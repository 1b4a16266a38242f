/* Rademacher signs: 128 per Philox block, the same bits as every other device. */
#include "ir/simd.h"
#include "runtime/cpu/cpu.h"
#include "runtime/philox.h"

#include <string.h>

enum { SIGNS = 128 };

CLONES static void signs(float *dst, const int64_t key[2], uint32_t stream, uint32_t block)
{
    uint32_t words[4], bits[SIGNS];
    rademacher_block((uint64_t)key[0], (uint64_t)key[1], stream, block, words);
    for (uint32_t w = 0; w < 4; w++)
        for (uint32_t i = 0; i < 32; i++)
            bits[32 * w + i] = 0x3f800000u | (~words[w] >> i & 1) << 31;
    memcpy(dst, bits, sizeof bits);
}

/* Another layout or type than dense floats goes through scratch. */
static bool direct(const Tensor *y) { return y->dtype == DT_F32 && tensor_is_row_major(y); }

int cpu_rademacher_prepare(Prepare *p)
{
    p->scratch = direct(&p->out[0]) ? 0 : (size_t)tensor_count(&p->out[0]) * sizeof(float);
    return 0;
}

void cpu_rademacher_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                        void *scratch)
{
    int64_t key[2] = {element_load_int(&in[0], 0), element_load_int(&in[0], in[0].stride[0])};
    int64_t count = tensor_count(&out[0]);
    uint32_t stream = (uint32_t)node_int(n, "stream", 0);
    float *dst = direct(&out[0]) ? out[0].data : scratch;
    (void)state;
    int64_t whole = count / SIGNS;
    for (int64_t b = 0; b < whole; b++) signs(dst + b * SIGNS, key, stream, (uint32_t)b);
    if (count % SIGNS != 0) {
        float last[SIGNS];
        signs(last, key, stream, (uint32_t)whole);
        memcpy(dst + whole * SIGNS, last, (size_t)(count % SIGNS) * sizeof *dst);
    }
    if (dst == out[0].data) return;
    Tensor dense = dense_like(&out[0], DT_F32, scratch);
    cpu_convert(&out[0], &dense);
}
