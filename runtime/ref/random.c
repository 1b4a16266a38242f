/* Signs from Philox: element i, in row-major order, of stream `stream` under key {seed, probe}. */
#include "runtime/philox.h"
#include "runtime/ref/ref.h"

REF_KERNEL(rademacher)
{
    UNUSED_STATE;
    const uint64_t seed = (uint64_t)element_load_int(in, 0);
    const uint64_t probe = (uint64_t)element_load_int(in, in->stride[0]);
    const uint32_t stream = (uint32_t)node_int(n, "stream", 0);
    const int64_t count = tensor_count(out);
    uint32_t words[4];
    for (int64_t k = 0; k < count; k++) {
        if (k % 128 == 0) rademacher_block(seed, probe, stream, (uint32_t)(k / 128), words);
        element_store(out, ref_offset(out, k), (double)rademacher_sign(words, (unsigned)(k % 128)));
    }
}
