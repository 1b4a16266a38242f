/* What the recurrent kernels of all devices share: activations and operands in one order of axes.
 */
#ifndef EHAP_RUNTIME_RECURRENT_H
#define EHAP_RUNTIME_RECURRENT_H

#include "ir/recurrent.h"
#include "runtime/kernel.h"
#include "runtime/scalar.h"

/* The functions that activations may name, as cases of a switch over OP_*. */
#define ACTIVATION_LIST(X)                                                                         \
    X(Identity)                                                                                    \
    X(Relu)                                                                                        \
    X(Tanh)                                                                                        \
    X(Sigmoid)                                                                                     \
    X(LeakyRelu)                                                                                   \
    X(ThresholdedRelu)                                                                             \
    X(HardSigmoid)                                                                                 \
    X(Elu)                                                                                         \
    X(Softsign)                                                                                    \
    X(Softplus)

/* Operands with time in front of the batch, whatever the layout: x [time, batch, in],
 * y [time, dirs, batch, hidden], states [dirs, batch, hidden]. rank < 0: omitted. */
typedef struct RecurrentOperands {
    Recurrent r;
    Tensor x, w, rec, b, lengths, h0, c0, p, y, yh, yc;
} RecurrentOperands;

RecurrentOperands recurrent_operands(const Node *n, const Tensor *in, const Tensor *out);
/* Steps of sample `s` that count. */
int64_t recurrent_length(const RecurrentOperands *o, int64_t s);

#endif
