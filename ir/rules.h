/* Prototypes of every rule that ops.def names. ("none" is declared too, and never defined.) */
#include "ir/op.h"

#define OP(name, domain, lo, hi, outs, i, v, j, l, s, f, flags)                                    \
    InferRule infer_##i;                                                                           \
    VjpRule vjp_##v;                                                                               \
    JvpRule jvp_##j;                                                                               \
    LaneRule rule_lanes_##l;                                                                       \
    ShrinkRule shrink_##s;                                                                         \
    FlopsRule flops_##f;
#include "ir/ops.def"
#undef OP
