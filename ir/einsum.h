/* The equation of an Einsum node, read once for shape inference, derivatives, kernels and the pass
 * that turns it into MatMul.
 *
 * Every axis of an operand has a label; labels that are not in the output are summed over. The axes
 * that "..." stands for get labels of their own, aligned at the right. An axis of 1 broadcasts. */
#ifndef EHAP_IR_EINSUM_H
#define EHAP_IR_EINSUM_H

#include "ir/ir.h"

enum { EINSUM_INPUTS = 16, EINSUM_LABELS = 32 };

typedef struct Einsum {
    int nin, nlabels, out_rank;
    int rank[EINSUM_INPUTS];
    int label[EINSUM_INPUTS][MAX_RANK], out[MAX_RANK];
    int64_t size[EINSUM_LABELS]; /* of each label; may be a symbol, or DIM_UNKNOWN (-1) */
    char letter[EINSUM_LABELS];  /* 0 where "..." stands for it */
} Einsum;

/* 1, or 0 if the rank of an operand is not known, -1 after an error. */
int einsum_parse(const Node *n, Einsum *e, Diag *d);
/* Whether operand i has the label. */
bool einsum_has(const Einsum *e, int i, int label);
bool einsum_out_has(const Einsum *e, int label);

#endif
