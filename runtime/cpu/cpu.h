/* Shared by the CPU kernels; kernels.c lists them. */
#ifndef EHAP_RUNTIME_CPU_CPU_H
#define EHAP_RUNTIME_CPU_CPU_H

#include "runtime/cpu/chain.h"
#include "runtime/element.h"
#include "runtime/kernel.h"

/* A kernel's functions as kernels.c names them: cpu_<name>_prepare, _run, _release. */
#define CPU_RUN(name)                                                                              \
    void cpu_##name##_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,   \
                          void *scratch)
#define CPU_PREPARE(name) int cpu_##name##_prepare(Prepare *p)
#define CPU_RELEASE(name) void cpu_##name##_release(void *state)

CPU_PREPARE(conv);
CPU_RUN(conv);
CPU_PREPARE(matmul);
CPU_RUN(matmul);
CPU_RELEASE(primitive);
CPU_RELEASE(free); /* frees state */
CPU_PREPARE(map);
CPU_RUN(map);
CPU_PREPARE(reduce);
CPU_RUN(reduce);
CPU_PREPARE(logsumexp);
CPU_RUN(logsumexp);
CPU_PREPARE(pool);
CPU_RUN(pool);
CPU_PREPARE(global_pool);
CPU_RUN(global_pool);
CPU_RUN(blocks);
CPU_PREPARE(resize);
CPU_RUN(resize);
CPU_RELEASE(resize);
CPU_PREPARE(softmax);
CPU_RUN(softmax);
CPU_PREPARE(batchnorm);
CPU_RUN(batchnorm);
CPU_PREPARE(batchnorm_train);
CPU_RUN(batchnorm_train);
CPU_PREPARE(batchnorm_train_grad);
CPU_RUN(batchnorm_train_grad);
CPU_PREPARE(layernorm);
CPU_RUN(layernorm);
CPU_PREPARE(groupnorm);
CPU_RUN(groupnorm);
CPU_PREPARE(recurrent);
CPU_RUN(recurrent);
CPU_RELEASE(recurrent);
CPU_RUN(identity);
CPU_RUN(plan_copy);
CPU_RUN(dropout);
CPU_RUN(reshape);
CPU_RUN(transpose);
CPU_RUN(concat);
CPU_RUN(split);
CPU_RUN(slice);
CPU_RUN(slice_grad);
CPU_RUN(pad);
CPU_RUN(tile);
CPU_RUN(gather);
CPU_RUN(gather_grad);
CPU_RUN(grid_sample);
CPU_RUN(roi_align);
CPU_PREPARE(deform_conv);
CPU_RUN(deform_conv);
CPU_RUN(whole);
CPU_PREPARE(over_axes);
CPU_RUN(mvn);
CPU_RUN(lpnorm);
CPU_PREPARE(lrn);
CPU_RUN(lrn);
CPU_RUN(dynamic_quantize);
CPU_PREPARE(integer);
CPU_RUN(integer);
CPU_PREPARE(arg);
CPU_RUN(arg);
CPU_RUN(hardmax);
CPU_RUN(topk);
CPU_RUN(cumsum);
CPU_RUN(one_hot);
CPU_RUN(gather_elements);
CPU_RUN(scatter_elements);
CPU_RUN(gather_nd);
CPU_RUN(scatter_nd);
CPU_RUN(compress);
CPU_RUN(trilu);
CPU_RUN(reverse_sequence);
CPU_PREPARE(rademacher);
CPU_RUN(rademacher);

/* What a node is within a chain, and with cpu_map_run alone. */
MapRule cpu_unary_map, cpu_clip_map, cpu_binary_map, cpu_variadic_map, cpu_compare_map,
    cpu_negation_map, cpu_float_test_map, cpu_where_map, cpu_cast_map, cpu_identity_map,
    cpu_quantize_map, cpu_dequantize_map, cpu_fake_quant_map, cpu_fake_quant_grad_map,
    cpu_reduce_map, cpu_sum_product_map;
bool cpu_can_fuse(const Prepare *p);
bool cpu_computes_with(DType t); /* convolutions */

/* The reference kernel of the node's op: for types and shapes too rare to deserve more. */
CPU_PREPARE(naive);
CPU_RUN(naive);

/* A [C] vector seen along `axis` of a shape of `rank`: [1,…,C,…,1]. */
Tensor along_axis(const Tensor *v, int axis, int rank);
/* Dense row-major tensor of the same shape. */
Tensor dense_like(const Tensor *t, DType dtype, void *data);
/* An omitted input has no data. */
static inline const Tensor *optional(const Node *n, const Tensor *in, int i)
{
    return i < n->nin && in[i].data ? &in[i] : NULL;
}
int axis_index(int64_t axis, int rank); /* counted from the end if negative */

/* Sums over dimensions, in double. The walk is over t[0]; further operands broadcast to its
 * shape; `kept` has dimension 1 where t[0] is reduced. Element e of kept (in row-major order)
 * receives
 *   REDUCE_SUM   acc[e] = sum x0          REDUCE_DOT   and acc[count(kept) + e] = sum x0 x1
 *   REDUCE_MAX, REDUCE_MIN likewise, from -inf and inf.
 * term, if not NULL, computes what is reduced from all the operands. */
typedef enum Reduction { REDUCE_SUM, REDUCE_DOT, REDUCE_MAX, REDUCE_MIN } Reduction;
void cpu_accumulate(Reduction r, MapFn *term, const void *ctx, int operands, const Tensor *const *t,
                    const Tensor *kept, double *acc);
/* Element (r, c) of rows x cols goes to acc[r * outer + c * inner]. */
void cpu_sum_block(double *acc, const float *x, int rows, int cols, int64_t inner, int64_t outer);
double cpu_row_sum(const float *x, int n);
/* dst (float or half, any layout) from row-major doubles. */
void store_doubles(const Tensor *dst, double *x);

#endif
