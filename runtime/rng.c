/* Host random numbers: word `counter` of the Philox sequence under `key`. The third counter word
 * keeps these sequences apart from the Rademacher streams of philox.h. */
#include "runtime/philox.h"
#include "runtime/runtime.h"

#include <math.h>

/* splitmix64's finalizer: near keys become unrelated ones. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

Rng rng_new(uint64_t seed, uint64_t stream)
{
    return (Rng){.key = mix(seed + 0x9e3779b97f4a7c15u * (mix(stream) | 1))};
}

uint32_t rng_u32(Rng *r)
{
    const uint64_t block = r->counter / 4;
    const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), 0x52474e21u, ~0u};
    if (r->counter % 4 == 0) philox4x32(counter, r->key, r->block);
    return r->block[r->counter++ % 4];
}

/* Lemire's multiply-shift; the low product decides rejection, so that no value is favoured. */
uint32_t rng_below(Rng *r, uint32_t n)
{
    uint64_t product = (uint64_t)rng_u32(r) * n;
    if ((uint32_t)product < n) {
        const uint32_t threshold = -n % n;
        while ((uint32_t)product < threshold) product = (uint64_t)rng_u32(r) * n;
    }
    return (uint32_t)(product >> 32);
}

float rng_uniform(Rng *r) { return (float)(rng_u32(r) >> 8) * 0x1p-24f; }

/* Box-Muller, one of the pair. */
float rng_normal(Rng *r)
{
    const double u = ((double)rng_u32(r) + 0.5) * 0x1p-32, v = (double)rng_u32(r) * 0x1p-32;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}
