/* Shapes of products that float and integer ops share. For ir/ only. */
#ifndef EHAP_IR_OPS_PRODUCTS_H
#define EHAP_IR_OPS_PRODUCTS_H

#include "ir/ir.h"

/* Inputs a and b of n as matrices (numpy's rule): the dims of their product; rank -1 if unknown. */
int matmul_type(const Node *n, int a, int b, Type *t, Diag *d);
/* Inputs x, w and bias of n as a convolution. */
int conv_type(const Node *n, int x, int w, int bias, Type *t, Diag *d);

#endif
