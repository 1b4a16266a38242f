/* One line, one problem:
 *
 *   Conv x=f32[2,8,7,7] w=f32[4,8,3,3] strides=2,2 pads=1,1,1,1
 *   Reshape x=f32[2,6] shape=i64[2]{3,4}
 *   Log x=f32[5](0.1,2)
 *
 * The op, its inputs (name=dtype[dims]; a range of values in parentheses; the values of a constant
 * in braces; `_` for an omitted one), its attributes (strings if there is a semicolon, a string if
 * neither a digit nor a sign begins it, a list if there is a comma, a float if there is a point),
 * `->n` for n outputs or `->n/m` if only the first m are differentiable, and `!check` for a check
 * that the op does not promise to pass. An input written name:=… varies but is not differentiated
 * by. */
#ifndef EHAP_TESTS_OPS_CASE_H
#define EHAP_TESTS_OPS_CASE_H

#include "ir/op.h"

enum { CASE_INPUTS = 10, CASE_ATTRS = 12 };

typedef struct CaseInput {
    const char *name; /* NULL: omitted */
    Type type;
    double lo, hi;        /* range of drawn values */
    bool constant, fixed; /* fixed: not differentiated by */
    void *data;           /* row-major */
} CaseInput;

typedef struct Case {
    Op op;
    CaseInput in[CASE_INPUTS];
    int nin, nout, nsmooth; /* nsmooth: outputs that are differentiable */
    const char *skip[4];    /* names of checks */
    int nskip;
    Attr attrs[CASE_ATTRS];
    int nattrs;
    Arena *arena;
} Case;

/* Fills *out from a line; -1 after a message. Values are drawn, the same for the same line:
 * floats evenly spread over the range in random order, so that none are equal or at a kink. */
int case_parse(Case *out, Arena *a, const char *line, Diag *d);

/* The problem as a graph: one node; its variable inputs are the graph's inputs. Float
 * inputs are of type `storage`. `constants`: all inputs but the first are constants. */
Graph *case_graph(const Case *c, Arena *a, DType storage, bool constants);
/* An input's elements as such a graph wants them. */
void *case_data(const CaseInput *in, DType storage, Arena *a);

#endif
