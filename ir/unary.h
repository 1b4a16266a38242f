/* Unary functions with parameters, called a and b wherever formulas are written. */
#ifndef EHAP_IR_UNARY_H
#define EHAP_IR_UNARY_H

#include "ir/ir.h"

/* The attributes of a unary node (or a Derivative node) that hold a and b: alpha and beta, but for
 * a few functions. */
const char *unary_param(const Node *n, int which);

#endif
