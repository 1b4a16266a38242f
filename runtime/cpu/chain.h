/* Element-wise nodes, and sums over them, as loops over dense floats: what a node contributes to a
 * chain (chain.c). The table of kernels names each op's rule. */
#ifndef EHAP_RUNTIME_CPU_CHAIN_H
#define EHAP_RUNTIME_CPU_CHAIN_H

#include "runtime/cpu/nest.h"
#include "runtime/kernel.h"
#include "runtime/unary.h"

enum { LOOP_OPERANDS = 8 };

typedef struct Grid {
    float lo, hi;
} Grid;

typedef struct Fold {
    MapFn *f;
    int operands;
    float scale;
} Fold;

typedef union LoopNumbers {
    UnarySpec unary;
    Grid grid;
    Fold fold;
} LoopNumbers;

/* y[i] and term[i] at once. */
typedef void PairFn(const void *ctx, int n, float *y, float *term, const float *const *x);
typedef double SumFinish(double sum, double each);

struct MapLoop {
    MapFn *map; /* output 0 is map(&with, x0, x1, …); NULL: there is only a sum */
    bool sums;  /* the next output is the sum of term(&with, x0, x1, …), of x0 if NULL … */
    MapFn *term;
    PairFn *both;      /* map and term, where that is cheaper; or NULL */
    Tensor kept;       /* … over the axes where this has dimension 1 … */
    SumFinish *finish; /* … of `each` elements; NULL: the sum itself */
    LoopNumbers with;
    int operands;
    Tensor x[LOOP_OPERANDS]; /* as they broadcast to the shape that is walked */
    int from[LOOP_OPERANDS]; /* the node's input; -1: x has data */
};

/* The first n inputs as they are; returns 1. */
int loop_over(MapLoop *l, MapFn *f, const Prepare *p, int n);
void loop_operand(MapLoop *l, Tensor x, int from);

#endif
