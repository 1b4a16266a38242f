/* The programs behind the criteria: graphs that compute, per channel, second-order (hvp_build)
 * and first-order (gradient_build) quantities of one shard of the batch.
 *
 * Both clone the model, bind its batch to the shard's size, append what is wanted and simplify;
 * the result is an ordinary graph to compile. Scored weights stay constants, so a device may
 * pack them once. Every quantity is a sum over the samples of the shard: the caller adds shards.
 *
 * Inputs are in this order; `stage` is what ProgramOptions wants (0 parameters, 1 the batch,
 * 2 the probe), so that all that does not depend on the probe runs once per batch:
 *
 *     0 … nx-1      the model's inputs, dim 0 bound to the shard              stage 1
 *     in_target     [N, C]  (hvp, and COTANGENT_LOSS)                         stage 1
 *     in_key        int64[2] {seed, probe}: the random directions             stage 2
 *     in_class      float[C], one-hot (COTANGENT_CLASS)                       stage 2
 *     in_loss_scale, in_probe_scale    float scalars, see below               stage 1, 2
 *
 * Scales: loss_scale multiplies the loss (or the cotangent), probe_scale the direction v.
 * Outputs are divided by them again in FP32, so results never depend on them unless FP16
 * overflows: then outputs hold inf or NaN; halve a scale and run again, without a rebuild. In
 * FP32 bind 1. Powers of two keep everything exact. */
#ifndef EHAP_PASSES_DERIVE_HVP_H
#define EHAP_PASSES_DERIVE_HVP_H

#include "passes/passes.h"

/* A weight whose output channels are scored. */
typedef struct ScoredLayer {
    Node *node;       /* of the graph it was found in */
    Value *weight;    /* constant, a whole input of node; appears in one layer only */
    int axis;         /* of the weight: output channels */
    int64_t channels; /* size of that axis (of a ConvTranspose: of one group, for all alike) */
    /* Where a gate on the layer's channels sits: the node's output, or that of the
     * BatchNormalization which alone reads it. */
    Value *gate;
    int gate_axis;   /* of `gate`: channels */
    int sample_axis; /* of `gate`: samples, maybe several rows of each */
} ScoredLayer;

/* The layers of g in topological order; returns their number. Works for any graph, also on
 * the caller's own model: entry k here and output k of the programs below agree. */
int scored_layers(const Graph *g, Arena *a, ScoredLayer **out);

/* A clone in `a` with the batch symbol of every input bound. NULL after an error: an input that
 * has other unknown dimensions. */
Graph *graph_with_batch(const Graph *model, Arena *a, int64_t batch, Diag *d);

typedef enum LossKind { LOSS_CROSS_ENTROPY, LOSS_MSE } LossKind;
/* {loss=…} of the passes; cross entropy without it. */
int loss_option(LossKind *loss, Context *c, const char *opt);

/* EHAP: v is +-1 per weight. GATE: v = s_c * w with one sign s_c per channel, so that
 * v_c' (Hv)_c estimates the curvature along the channel's own gate. */
typedef enum ProbeKind { PROBE_WEIGHT, PROBE_GATE } ProbeKind;

typedef struct HvpOptions {
    LossKind loss;
    double total; /* the loss is the sum over samples / total (samples of all shards) */
    ProbeKind probe;
    DType precision;  /* DT_F16, DT_BF16: lower_precision is applied; 0, DT_F32: none */
    bool no_contract; /* keep the weight-gradient convolutions (tests) */
} HvpOptions;

typedef struct Hvp {
    Graph *g;
    int64_t batch; /* samples per run: shard_batch, or the model's own if it is fixed */
    int nx;        /* the model's inputs come first */
    int in_target, in_key, in_class, in_loss_scale, in_probe_scale; /* -1: has none */
    uint8_t *stage;                                                 /* per input of g */
    ScoredLayer *layers;                                            /* of the model given */
    int nlayers;
    int out_loss;   /* graph output: float scalar, this shard's loss; -1 if none */
    int out_logits; /* graph output: logits [N, C]; -1 if none */
    int *out_layer; /* graph output per layer, see the builders */
} Hvp;

/* Per layer: q[channels] = v_c' (Hv)_c of this shard, one probe, where H is the Hessian of the
 * loss by all scored weights together. The mean over probes of the sum over shards is the trace
 * of the channel's block. out_loss is set. in_target: probabilities [N, C] for
 * LOSS_CROSS_ENTROPY (one-hot labels or the teacher's softmax); for LOSS_MSE the values that
 * graph_logits(model) should have. */
int hvp_build(Hvp *out, const Graph *model, Arena *a, int64_t shard_batch, const HvpOptions *o,
              Diag *d);

/* The cotangent at the logits z, p = softmax(z), for every sample:
 *   LOSS   p - target: the gradient of the sample's own cross entropy (not divided by N);
 *   CLASS  column k of diag(sqrt p) - p sqrt(p)', k given one-hot in in_class: the C of them
 *          together give the Gauss-Newton matrix exactly (label-free);
 *   SIGNS  the same matrix times a vector of random signs drawn from in_key, independent per
 *          sample: one backward pass estimates Gauss-Newton without bias. Use a key that
 *          differs between shards.
 * Or, for networks of any kind, at all float outputs y:
 *   OUTPUTS  random signs / |y|: squared, the Gauss-Newton matrix of the sum over outputs of
 *          |y - t|^2 / |t|^2 at t = y. */
typedef enum CotangentKind {
    COTANGENT_LOSS,
    COTANGENT_CLASS,
    COTANGENT_SIGNS,
    COTANGENT_OUTPUTS,
} CotangentKind;

/* Per layer:
 *   GATES    [N, channels]: sum over positions of A * dA at the layer's gate. Its square summed
 *            over samples (and classes) is the gate's Gauss-Newton (Fisher) curvature; add the
 *            members of a coupled group first. Samples of a layer without batch axis in front
 *            (a reshaped product) are its rows.
 *   SQUARES  [channels]: sum over the channel's weights of dW^2, with dW summed over the shard:
 *            in expectation over SIGNS the Gauss-Newton trace of the channel's block. */
typedef enum GradientKind { GRADIENT_GATES, GRADIENT_SQUARES } GradientKind;

typedef struct GradientOptions {
    CotangentKind cotangent;
    GradientKind what;
    DType precision; /* likewise */
} GradientOptions;

/* The backward pass. out_logits is set. */
int gradient_build(Hvp *out, const Graph *model, Arena *a, int64_t shard_batch,
                   const GradientOptions *o, Diag *d);

/* Whether any of n numbers is inf or NaN: the sign to lower a scale and repeat. */
bool hvp_overflowed(const float *x, int64_t n);

#endif
