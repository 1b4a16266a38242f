/* Views, and the way back to the reference kernels. */
#include "runtime/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

Tensor along_axis(const Tensor *v, int axis, int rank)
{
    Tensor t = {.dtype = v->dtype, .rank = rank, .data = v->data};
    for (int i = 0; i < rank; i++) t.dim[i] = 1;
    if (axis < 0 || axis >= rank || v->rank == 0) return t; /* a scalar */
    t.dim[axis] = v->dim[0];
    t.stride[axis] = v->stride[0];
    return t;
}

Tensor dense_like(const Tensor *t, DType dtype, void *data)
{
    Tensor d = *t;
    d.dtype = dtype;
    d.data = data;
    tensor_set_strides(&d, false);
    return d;
}

bool cpu_computes_with(DType t) { return t != DT_F16 && (t != DT_BF16 || runtime_cpu_has_bf16()); }

int axis_index(int64_t axis, int rank) { return (int)(axis < 0 ? axis + rank : axis); }

void cpu_free_release(void *state) { free(state); }

/* The reference kernels keep what they need in their own state. */
int cpu_naive_prepare(Prepare *p)
{
    const Kernel *k = &device_ref.kernels[p->node->op];
    return k->prepare ? k->prepare(p) : 0;
}

void cpu_naive_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                   void *scratch)
{
    device_ref.kernels[n->op].run(n, state, in, out, scratch);
}
