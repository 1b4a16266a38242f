/* Attributes of recurrent nodes to numbers. */
#include "ir/recurrent.h"

#include <string.h>

#include "ir/op.h"
#include "ir/ops/common.h"

/* Which numbers an activation takes from the lists, and what they are otherwise. */
static const struct {
    const char *name;
    bool alpha, beta;
    Activation f;
} activations[] = {
    {"Relu", false, false, {OP_Relu, 0, 0, 1, 1, 0}},
    {"Tanh", false, false, {OP_Tanh, 0, 0, 1, 1, 0}},
    {"Sigmoid", false, false, {OP_Sigmoid, 0, 0, 1, 1, 0}},
    {"Affine", true, true, {OP_Identity, 1, 0, 1, 1, 0}},
    {"LeakyRelu", true, false, {OP_LeakyRelu, 0.01f, 0, 1, 1, 0}},
    {"ThresholdedRelu", true, false, {OP_ThresholdedRelu, 1, 0, 1, 1, 0}},
    {"ScaledTanh", true, true, {OP_Tanh, 1, 1, 1, 1, 0}},
    {"HardSigmoid", true, true, {OP_HardSigmoid, 0.2f, 0.5f, 1, 1, 0}},
    {"Elu", true, false, {OP_Elu, 1, 0, 1, 1, 0}},
    {"Softsign", false, false, {OP_Softsign, 0, 0, 1, 1, 0}},
    {"Softplus", false, false, {OP_Softplus, 0, 0, 1, 1, 0}},
};

bool activation_keeps_zero(const Activation *f)
{
    bool open = f->op == OP_Sigmoid || f->op == OP_HardSigmoid || f->op == OP_Softplus ||
                (f->op == OP_ThresholdedRelu && f->alpha < 0);
    return !open && f->shift == 0;
}

/* The k-th number of a list of floats, if there is one. */
static float next_number(const Node *n, const char *list, size_t *k, float otherwise)
{
    const Attr *a = node_attr(n, list);
    return a && a->kind == ATTR_FLOATS && *k < a->n ? a->floats[(*k)++] : otherwise;
}

static int read_activation(const Node *n, const char *name, size_t at[2], Activation *out, Diag *d)
{
    size_t k = 0, count = sizeof activations / sizeof *activations;
    while (k < count && strcasecmp(activations[k].name, name) != 0) k++;
    if (k == count) return node_error(d, n, "activation '%s' is not known", name);
    Activation f = activations[k].f;
    if (activations[k].alpha) f.alpha = next_number(n, "activation_alpha", &at[0], f.alpha);
    if (activations[k].beta) f.beta = next_number(n, "activation_beta", &at[1], f.beta);
    if (strcmp(activations[k].name, "Affine") == 0) {
        f.post = f.alpha;
        f.shift = f.beta;
    }
    if (strcmp(activations[k].name, "ScaledTanh") == 0) {
        f.post = f.alpha;
        f.pre = f.beta;
    }
    *out = f;
    return 0;
}

static int read_activations(const Node *n, Recurrent *r, Diag *d)
{
    static const char *const lstm[] = {"Sigmoid", "Tanh", "Tanh"};
    const Attr *list = node_attr(n, "activations");
    size_t at[2] = {0}, have = list ? list->n : 0, need = (size_t)(r->dirs * r->nact);
    if (list && (list->kind != ATTR_STRINGS || (have != 0 && have != need)))
        return node_error(d, n, "it has %zu activations, needs %zu", have, need);
    for (int k = 0; k < r->dirs * r->nact; k++) {
        const char *name = have              ? (const char *)list->strings[k].p
                           : n->op == OP_RNN ? "Tanh"
                                             : lstm[k % r->nact];
        TRY(read_activation(n, name, at, &r->act[k / r->nact][k % r->nact], d));
    }
    return 0;
}

static int read_direction(const Node *n, Recurrent *r, Diag *d)
{
    const char *s = node_str(n, "direction", "forward");
    r->dirs = strcmp(s, "bidirectional") == 0 ? 2 : 1;
    r->reverse[0] = strcmp(s, "reverse") == 0;
    r->reverse[1] = true;
    if (r->dirs == 2 || r->reverse[0] || strcmp(s, "forward") == 0) return 0;
    return node_error(d, n, "'direction' is '%s'", s);
}

int recurrent_args(const Node *n, Recurrent *r, Diag *d)
{
    Type x = input_type(n, IN_X), w = input_type(n, IN_R);
    *r = (Recurrent){.gates = n->op == OP_LSTM  ? 4
                              : n->op == OP_GRU ? 3
                                                : 1,
                     .nact = n->op == OP_LSTM  ? 3
                             : n->op == OP_GRU ? 2
                                               : 1,
                     .batch_first = node_int(n, "layout", 0) != 0,
                     .reset_after = node_int(n, "linear_before_reset", 0) != 0,
                     .input_forget = node_int(n, "input_forget", 0) != 0,
                     .clip = node_float(n, "clip", 0)};
    for (int i = IN_X; i <= IN_R; i++) TRY(expect_rank(n, i, 3, d));
    TRY(read_direction(n, r, d));
    TRY(read_activations(n, r, d));
    r->time = x.rank < 0 ? DIM_UNKNOWN : x.dim[r->batch_first];
    r->batch = x.rank < 0 ? DIM_UNKNOWN : x.dim[!r->batch_first];
    r->in = x.rank < 0 ? DIM_UNKNOWN : x.dim[2];
    r->hidden = w.rank < 0 ? node_int(n, "hidden_size", DIM_UNKNOWN) : w.dim[2];
    int64_t hidden = node_int(n, "hidden_size", r->hidden);
    if (dim_agree(hidden, r->hidden, &hidden)) return 0;
    return node_error(d, n, "'hidden_size' is %lld, '%s' has %lld", (long long)hidden,
                      n->in[IN_R]->name, (long long)r->hidden);
}
