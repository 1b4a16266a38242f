/* Element-wise kernels generated as CUDA C. */
#ifndef EHAP_RUNTIME_CUDA_CODEGEN_H
#define EHAP_RUNTIME_CUDA_CODEGEN_H

#include "runtime/cuda/gpu.h"

typedef struct Map {
    void *built;
    MapArgs args; /* all but the data */
    int operands;
} Map;

/* Compiles body, statements that set float y0 … y<nout-1> from float x0 … x<nin-1> and a->p[k],
 * over the shape of out[0]; other outputs have that shape, inputs broadcast to it. Two maps with
 * the same body, types and number of loops share their code. */
void map_make(Map *m, int nout, const Tensor *const *out, int nin, const Tensor *const *in,
              const char *body, int nparams, const float *params);
/* One operand and one result, which need not lie at multiples of 16 bytes. */
void map_make_anywhere(Map *m, const Tensor *out, const Tensor *in, const char *body);
/* data: of the outputs, then of the inputs, at multiples of 16 bytes. */
void map_run(const Map *m, void *const *data);

/* The formula of node n as a body for its output `y` with operands called x[i] (NULL: omitted), its
 * numbers appended to params. text gets "const float <y> = …;". */
typedef struct Formula {
    char text[16384];
    size_t length;
    float params[MAP_PARAMS];
    int nparams;
} Formula;

/* Whether the node is a map that code can be generated for with these operands. */
bool map_can(const Device *d, const Node *n, const Tensor *in, const Tensor *out);
/* 0; -1 if the formula has no room left for the node: nothing is added then. A bad attribute is
 * reported and traps nothing: *error is set. */
int formula_add(Formula *f, const Node *n, const char *y, const char *const *x, int *error,
                Diag *d);
/* Operand i of n as it broadcasts to the output: vectors per channel get their axis. */
Tensor map_operand(const Node *n, int i, const Tensor *in, const Tensor *out);

#endif
