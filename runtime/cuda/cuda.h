/* Shared by the CUDA kernels; kernels.c lists them. */
#ifndef EHAP_RUNTIME_CUDA_CUDA_H
#define EHAP_RUNTIME_CUDA_CUDA_H

#include "runtime/cpu/cpu.h" /* views of tensors */
#include "runtime/cuda/codegen.h"
#include "runtime/cuda/gpu.h"

/* A kernel's functions as kernels.c names them: cuda_<name>_prepare, _run, _release. State is
 * always made by prepare: cuda_free_release frees it. */
#define CUDA_KERNEL(name)                                                                          \
    int cuda_##name##_prepare(Prepare *p);                                                         \
    void cuda_##name##_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,  \
                           void *scratch)
CUDA_KERNEL(host);
void cuda_host_release(void *state);
CUDA_KERNEL(map);
CUDA_KERNEL(copy);
CUDA_KERNEL(conv);
void cuda_conv_release(void *state);
CUDA_KERNEL(matmul);
CUDA_KERNEL(reduce);
CUDA_KERNEL(sum_product);
CUDA_KERNEL(global_pool);
CUDA_KERNEL(pool);
CUDA_KERNEL(batchnorm_train);
CUDA_KERNEL(batchnorm_train_grad);
CUDA_KERNEL(layernorm);
CUDA_KERNEL(softmax);
CUDA_KERNEL(fake_quant_grad);
CUDA_KERNEL(transpose);
void cuda_reshape_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                      void *scratch);
CUDA_KERNEL(concat);
CUDA_KERNEL(split);
CUDA_KERNEL(slice);
CUDA_KERNEL(slice_grad);
CUDA_KERNEL(pad);
CUDA_KERNEL(rademacher);
void cuda_free_release(void *state);

/* Whether the kernel of the node's op takes these operands (constants have their data on the host);
 * otherwise cuda_host_kernel does. */
typedef bool CudaCan(const Device *d, const Node *n, const Tensor *in, const Tensor *out);
CudaCan conv_can, matmul_can, floats_can, pool_can, moves_can, cuda_can_run;
extern const Kernel cuda_host_kernel;

/* Gives steps without a kernel to the host. */
void cuda_send_to_host(Program *p);

/* What kernels compute with. */
static inline bool cuda_is_float(DType d) { return d == DT_F32 || d == DT_F16 || d == DT_BF16; }

/* Zeroed; traps when there is none. */
void *cuda_state(size_t size);

/* ---- building blocks of kernels --------------------------------------------------------- */

/* dst = src, same element type, any strides; src broadcasts. */
void cuda_copy(const Tensor *dst, const Tensor *src);
/* The same between types, compiled ahead of its use. */
typedef struct Convert {
    bool plain; /* equal types: cuda_copy does it */
    Map map;
} Convert;
void convert_make(Convert *c, const Tensor *dst, const Tensor *src);
/* … between views that begin so many elements behind where buffers do. */
void convert_make_at(Convert *c, const Tensor *dst, int64_t dst_at, const Tensor *src,
                     int64_t src_at);
void convert_run(const Convert *c, const Tensor *dst, const Tensor *src);
bool cuda_is_dense(const Tensor *t); /* row-major or channels-last */
void cuda_zero(const Tensor *dst);   /* any strides */

/* A reduction over the axes where `kept` (a tensor of x[0]'s rank) has dimension 1; operands
 * broadcast to x[0]. y[e] = scale * sum of the term; y is dense and has kept's elements. */
typedef struct Reduce {
    ReduceArgs args;
    FinishArgs finish;
} Reduce;
void reduce_make(Reduce *r, enum GpuTerm term, int operands, const Tensor *const *x,
                 const Tensor *kept, float scale);
size_t reduce_scratch(const Reduce *r);
void reduce_run(const Reduce *r, const void *const *x, void *y, void *scratch);

/* [C] floats (or a scalar) along axis 1 of x. */
Tensor channel_view(const Tensor *x, void *data);

#endif
