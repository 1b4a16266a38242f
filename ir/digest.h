/* A 64-bit digest (FNV-1a, eight bytes at a time) that tells contents apart; not for enemies. */
#ifndef EHAP_IR_DIGEST_H
#define EHAP_IR_DIGEST_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define DIGEST_START 14695981039346656037u

/* Continues h, at first DIGEST_START, over n bytes. */
static inline uint64_t digest(uint64_t h, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t x;
        memcpy(&x, p, 8);
        h = (h ^ x) * 1099511628211u;
        h ^= h >> 32; /* high bits would never reach the low ones */
    }
    for (; n; n--) h = (h ^ *p++) * 1099511628211u;
    return h;
}

#endif
