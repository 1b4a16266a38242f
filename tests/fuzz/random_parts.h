/* What the families of random blocks share: the network in the making, and its smallest parts. A
 * block reads one value of the pool and adds one or more; one that does not fit its value adds
 * nothing. */
#ifndef EHAP_TESTS_RANDOM_PARTS_H
#define EHAP_TESTS_RANDOM_PARTS_H

#include <math.h>

#include "runtime/runtime.h"
#include "tests/fuzz/random_net.h"
#include "tests/types.h"

enum { POOL = 48, BLOCKS = 16, MOST_CHANNELS = 24, MOST_AREA = 36, VOCABULARY = 20 };

typedef struct Maker {
    Graph *g;
    const uint8_t *bytes;
    size_t n, at;
    Value *pool[POOL]; /* float values, the first made from the input */
    int npool;
    int64_t growth; /* how often images of open size have been enlarged */
} Maker;

typedef struct Block {
    int rank; /* of what it reads; 0: any */
    void (*make)(Maker *m, Value *x);
} Block;

/* random_any.c, random_images.c, random_tokens.c; random_odd.c: what is carried, not understood,
 * and what is not plain float. Each ends with a NULL `make`. */
extern const Block any_blocks[], image_blocks[], token_blocks[], odd_blocks[];

/* The next byte modulo `below`; 0 once they have ended. */
int64_t draw(Maker *m, int64_t below);
void add(Maker *m, Value *v);
int64_t dim(const Value *x, int axis);
int64_t last(const Value *x);
int channel_axis(const Value *x);
/* mean + deviation * normal numbers */
Value *numbers(Maker *m, int rank, const int64_t *size, float mean, float deviation);
/* Weights that keep the variance of what they multiply. */
Value *weight(Maker *m, int rank, const int64_t *size, int64_t fan_in);
Value *vector(Maker *m, int64_t n, float mean);
Value *unary(Maker *m, Op op, Value *x);
Value *binary(Maker *m, Op op, Value *x, Value *y);
Value *reshape(Maker *m, Value *x, int rank, const int64_t *to);
Value *transpose(Maker *m, Value *x, int rank, const int64_t *perm);
Value *product(Maker *m, Value *x, int64_t out);
Value *dense(Maker *m, Value *x, int64_t out);
/* k x k; `dilation` only widens it */
Value *conv(Maker *m, Value *x, int64_t out, int64_t k, int64_t group, int64_t stride,
            int64_t dilation);
Value *activation(Maker *m, Value *x);
/* Another value of the pool that agrees with x in all but `axis` (-1: in all); x itself if none. */
Value *partner(Maker *m, const Value *x, int axis);
/* Rows times columns of an image; MOST_AREA if they are open. */
int64_t area(const Value *x);
bool is_open(int64_t dim);
/* Whether an image may still grow. */
bool may_grow(Maker *m, const Value *x);

#endif
