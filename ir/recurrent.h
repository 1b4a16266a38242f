/* Arguments of LSTM, GRU and RNN nodes, read once for shape inference, channels, derivatives and
 * kernels. */
#ifndef EHAP_IR_RECURRENT_H
#define EHAP_IR_RECURRENT_H

#include "ir/ir.h"

/* post * f(pre * x) + shift, f being a unary op with ONNX's alpha and beta. */
typedef struct Activation {
    Op op;
    float alpha, beta, pre, post, shift;
} Activation;

/* Whether f(0) = 0. */
bool activation_keeps_zero(const Activation *f);

/* Gates lie in the order of ONNX: input, output, forget, cell (LSTM); update, reset, hidden (GRU).
 * Sizes may be symbols or DIM_UNKNOWN (-1) where shapes do not tell. */
typedef struct Recurrent {
    int64_t time, batch, in, hidden;
    int dirs, gates, nact;
    bool reverse[2];   /* by direction */
    bool batch_first;  /* x is [batch, time, in], y [batch, time, dirs, hidden] */
    bool reset_after;  /* GRU: linear_before_reset */
    bool input_forget; /* LSTM: the forget gate is 1 - input gate */
    float clip;        /* 0: none */
    Activation act[2][3];
} Recurrent;

/* Of an LSTM, GRU or RNN node. -1 after an error. */
int recurrent_args(const Node *n, Recurrent *r, Diag *d);

enum { IN_X, IN_W, IN_R, IN_B, IN_LENGTHS, IN_H, IN_C, IN_P };

#endif
