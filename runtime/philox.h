/* Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011): random numbers as a function of a counter, the
 * same on every device. Included by C and by CUDA. */
#ifndef EHAP_RUNTIME_PHILOX_H
#define EHAP_RUNTIME_PHILOX_H

#include <stdint.h>

#ifndef SCALAR_FN
#define SCALAR_FN static inline __attribute__((unused))
#endif

/* 128 random bits: ten rounds over `counter` under `key`. */
SCALAR_FN void philox4x32(const uint32_t counter[4], uint64_t key, uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xd2511f53u * c0, p1 = (uint64_t)0xcd9e8d57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The signs of elements 128 block … 128 block + 127 of a Rademacher stream: element i is +1 where
 * bit i % 32 of word i / 32 % 4 is set, else -1. Draw whole blocks: one call per element is
 * 100 times slower. */
SCALAR_FN void rademacher_block(uint64_t seed, uint64_t probe, uint32_t stream, uint32_t block,
                                uint32_t out[4])
{
    const uint32_t counter[4] = {block, stream, (uint32_t)probe, (uint32_t)(probe >> 32)};
    philox4x32(counter, seed, out);
}

/* 1.0f with the sign bit set where bit `bit` is clear. */
SCALAR_FN float rademacher_sign(const uint32_t words[4], unsigned bit)
{
    return (words[bit / 32] >> (bit % 32)) & 1 ? 1.f : -1.f;
}

#endif
