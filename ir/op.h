/* What the compiler knows about an operator. ops.def has one line per op; the columns name
 * rules that live together in ir/ops/<family>.c, and a missing rule is a link error.
 *
 * Adding an op: its line in ops.def, its rules in ir/ops/, a kernel in runtime/ref (and cpu).
 */
#ifndef EHAP_IR_OP_H
#define EHAP_IR_OP_H

#include "ir/ir.h"

typedef struct Ad Ad;       /* differentiation in progress: ir/ad.h */
typedef struct Lanes Lanes; /* channel analysis in progress: ir/lanes.h */

/* Sets the types of n's outputs (and `elems` where known) from its inputs. The inputs have
 * types unless their producer is opaque (dtype DT_NONE or rank -1): then outputs stay as
 * unknown as they must. Bad models get a node_error. */
typedef int InferRule(Node *n, Diag *d);

/* Cotangents: given dy[o] for each output (NULL: zero), sets dx[i] for each input that
 * ad_wants(). A dx[i] may still have the broadcast shape of the output: the sweep sums it
 * down. Emits with build(). Returns -1 after an error. */
typedef int VjpRule(Ad *ad, const Node *n, Value *const *dy, Value **dx);

/* Tangents: given dx[i] for each input (NULL: zero), sets dy[o] (NULL: zero). */
typedef int JvpRule(Ad *ad, const Node *n, Value *const *dx, Value **dy);

/* How channels flow: ties lanes of inputs to lanes of outputs (ir/lanes.h). */
typedef void LaneRule(Lanes *l, const Node *n);

/* After lanes were removed and constants sliced: corrects attributes and shape inputs that
 * repeat a size (group, Reshape's target, Pad's amounts). NULL in most ops. */
typedef int ShrinkRule(Lanes *l, Graph *g, Node *n, Diag *d);

/* 2 per multiply-add. */
typedef int64_t FlopsRule(const Node *n);

enum OpFlags {
    OPF_ELTWISE = 1 << 0, /* out[i] depends on in[i] alone, broadcasting apart */
    OPF_MOVES = 1 << 1,   /* moves or selects elements, computes nothing */
    OPF_COMMUTES = 1 << 2,
    OPF_LINEAR = 1 << 3,   /* jointly linear in its differentiable inputs: the tangent is the op */
    OPF_FEEDBACK = 1 << 5, /* results act on later steps inside the node */
    OPF_ANY_OUT = 1 << 6,  /* the first output may be omitted, too */
    OPF_KEEP = 1 << 4,     /* never removed as dead nor merged (randomness, opaque side effects) */
};

typedef struct OpInfo {
    const char *name, *domain;
    int min_in, max_in, max_out; /* max < 0: any number */
    InferRule *infer;
    VjpRule *vjp; /* NULL: no gradient passes (integer, opaque): reaching it is an error */
    JvpRule *jvp;
    LaneRule *lanes; /* lanes_pin: all channels touched stay */
    ShrinkRule *shrink;
    FlopsRule *flops;
    unsigned flags;
} OpInfo;

extern const OpInfo op_info[OP_COUNT];

/* OP_COUNT if (domain, name) is not one of ours. "" and "ai.onnx" are the same domain. */
Op op_of_name(const char *domain, const char *name);

/* Attributes that became inputs: a line of opset.def. */
typedef enum InputKind { KIND_INTS, KIND_INT, KIND_FLOAT } InputKind;

typedef struct OpsetInput {
    Op op;
    int64_t below;
    int index;
    const char *attr; /* NULL: the end */
    InputKind kind;
} OpsetInput;

extern const OpsetInput opset_inputs[];

#endif
