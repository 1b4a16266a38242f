/* Rademacher signs on the device, the CPU's numbers. Another layout than row-major goes through
 * scratch. */
#include "runtime/cuda/cuda.h"

int cuda_rademacher_prepare(Prepare *p)
{
    const Tensor *y = &p->out[0];
    if (!tensor_is_row_major(y)) p->scratch = (size_t)tensor_count(y) * dtype_size(y->dtype);
    return 0;
}

void cuda_rademacher_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                         void *scratch)
{
    const Tensor *y = &out[0];
    const bool direct = tensor_is_row_major(y);
    const SignArgs a = {.threads = tensor_count(y),
                        .key = in[0].data,
                        .stream = (uint32_t)node_int(n, "stream", 0),
                        .dtype = (int)y->dtype,
                        .y = direct ? y->data : scratch};
    (void)state;
    if (a.threads == 0) return;
    gpu_launch(GPU_sign, &a);
    if (direct) return;
    const Tensor dense = dense_like(y, y->dtype, scratch);
    cuda_copy(y, &dense);
}
