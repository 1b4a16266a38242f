/* Random numbers from Philox. Signs: element i, in row-major order, of stream `stream` under key
 * {seed, probe}. */
#include <math.h>
#include <string.h>

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

/* The numbers of a node: by its seed and the name of its result, so that no two nodes share them.
 */
static Rng stream_of(const Node *n)
{
    const float seed = node_float(n, "seed", 0);
    uint64_t name = 14695981039346656037u;
    uint32_t bits;
    for (const char *s = n->out[0]->name; *s; s++) name = (name ^ (uint8_t)*s) * 1099511628211u;
    memcpy(&bits, &seed, sizeof bits);
    return rng_new(bits, name);
}

REF_KERNEL(random_uniform)
{
    UNUSED_STATE;
    const double low = (double)node_float(n, "low", 0), high = (double)node_float(n, "high", 1);
    Rng r = stream_of(n);
    FOR_EACH(at, out)
    element_store(out, ref_index(out, &at), low + (high - low) * (double)rng_uniform(&r));
}

REF_KERNEL(random_normal)
{
    UNUSED_STATE;
    const double mean = (double)node_float(n, "mean", 0), scale = (double)node_float(n, "scale", 1);
    Rng r = stream_of(n);
    FOR_EACH(at, out)
    element_store(out, ref_index(out, &at), mean + scale * (double)rng_normal(&r));
}

/* 1 with probability x */
REF_KERNEL(bernoulli)
{
    UNUSED_STATE;
    Rng r = stream_of(n);
    FOR_EACH(at, out)
    {
        const bool one = (double)rng_uniform(&r) < load(in, ref_index(in, &at));
        element_store_int(out, ref_index(out, &at), one);
    }
}

/* Class c with probability softmax(x)[c]: the first whose running sum exceeds a uniform number. */
REF_KERNEL(multinomial)
{
    UNUSED_STATE;
    Rng r = stream_of(n);
    FOR_EACH(at, out)
    {
        const int64_t row = at.i[0] * in->stride[0], classes = in->dim[1];
        double top = -INFINITY, sum = 0;
        int64_t c = 0;
        for (int64_t k = 0; k < classes; k++) top = fmax(top, load(in, row + k * in->stride[1]));
        for (int64_t k = 0; k < classes; k++) sum += exp(load(in, row + k * in->stride[1]) - top);
        double left = sum * (double)rng_uniform(&r);
        for (; c + 1 < classes; c++) {
            left -= exp(load(in, row + c * in->stride[1]) - top);
            if (left < 0) break;
        }
        element_store_int(out, ref_index(out, &at), c);
    }
}
