/* The op table, and names to ops. */
#include "ir/op.h"

#include <string.h>

#include "ir/ad.h"
#include "ir/lanes.h"

#include "ir/rules.h"

#define infer_none NULL
#define vjp_none NULL
#define jvp_none NULL
#define rule_lanes_none NULL
#define shrink_none NULL
#define flops_none NULL

const OpInfo op_info[OP_COUNT] = {
#define OP(op, dom, lo, hi, outs, i, v, j, l, s, f, bits)                                          \
    [OP_##op] = {.name = #op,                                                                      \
                 .domain = dom,                                                                    \
                 .min_in = lo,                                                                     \
                 .max_in = hi,                                                                     \
                 .max_out = outs,                                                                  \
                 .infer = infer_##i,                                                               \
                 .vjp = vjp_##v,                                                                   \
                 .jvp = jvp_##j,                                                                   \
                 .lanes = rule_lanes_##l,                                                          \
                 .shrink = shrink_##s,                                                             \
                 .flops = flops_##f,                                                               \
                 .flags = bits},
#include "ir/ops.def"
#undef OP
};

const OpsetInput opset_inputs[] = {
#define OPSET_INPUT(op, below, index, attr, kind) {OP_##op, below, index, attr, KIND_##kind},
#include "ir/opset.def"
#undef OPSET_INPUT
    {0},
};

Op op_of_name(const char *domain, const char *name)
{
    if (strcmp(domain, "ai.onnx") == 0) domain = "";
    for (int op = 0; op < OP_COUNT; op++)
        if (op != OP_Opaque && strcmp(op_info[op].name, name) == 0 &&
            strcmp(op_info[op].domain, domain) == 0)
            return (Op)op;
    return OP_COUNT;
}
