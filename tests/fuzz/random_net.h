/* Random valid networks: any bytes make one, the same bytes the same one. */
#ifndef EHAP_TESTS_RANDOM_NET_H
#define EHAP_TESTS_RANDOM_NET_H

#include "ir/lanes.h"

/* A network of up to 16 blocks (convolutions, products, norms, attention, recurrence; joined by
 * sums, concats, gates; cut by splits and slices; among them custom operators, If and Loop, halves
 * and what is quantized already: random_odd.c) with random weights at which values stay near 1, in
 * arena `a`. It has one input, named "x", floats or indices below 20, whose batch, height and width
 * or length may be open (N, H, W, T), and at least one output. */
Graph *random_net(Arena *a, const uint8_t *bytes, size_t n);

#endif
