/* Reference kernels: naive loops in double arithmetic over strided tensors of any type. */
#ifndef EHAP_RUNTIME_REF_H
#define EHAP_RUNTIME_REF_H

#include "runtime/element.h"
#include "runtime/kernel.h"

#define REF_KERNEL(name)                                                                           \
    void ref_##name(const Node *n, const void *state, const Tensor *in, const Tensor *out,         \
                    void *scratch)
REF_KERNEL(conv);
REF_KERNEL(conv_transpose);
REF_KERNEL(conv_wgrad);
REF_KERNEL(matmul);
REF_KERNEL(gemm);
REF_KERNEL(einsum);
REF_KERNEL(det);
REF_KERNEL(unary);
REF_KERNEL(derivative);
REF_KERNEL(clip);
REF_KERNEL(copy);
REF_KERNEL(dropout);
REF_KERNEL(binary);
REF_KERNEL(bits);
REF_KERNEL(float_test);
REF_KERNEL(where);
REF_KERNEL(maxpool);
REF_KERNEL(avgpool);
REF_KERNEL(global_pool);
REF_KERNEL(maxpool_grad);
REF_KERNEL(maxpool_pick);
REF_KERNEL(avgpool_grad);
REF_KERNEL(blocks);
REF_KERNEL(deform_conv);
REF_KERNEL(grid_sample);
REF_KERNEL(grid_sample_grad);
REF_KERNEL(roi_align_grad);
REF_KERNEL(roi_align);
REF_KERNEL(max_unpool);
REF_KERNEL(lppool);
REF_KERNEL(global_lppool);
REF_KERNEL(loss);
REF_KERNEL(resize);
REF_KERNEL(resize_grad);
REF_KERNEL(batchnorm);
REF_KERNEL(batchnorm_train);
REF_KERNEL(batchnorm_train_grad);
REF_KERNEL(layernorm);
REF_KERNEL(softmax);
REF_KERNEL(hardmax);
REF_KERNEL(groupnorm);
REF_KERNEL(mvn);
REF_KERNEL(lpnorm);
REF_KERNEL(lrn);
REF_KERNEL(reduce);
REF_KERNEL(sum_product);
REF_KERNEL(reshape);
REF_KERNEL(transpose);
REF_KERNEL(expand);
REF_KERNEL(shape);
REF_KERNEL(constant_of_shape);
REF_KERNEL(concat);
REF_KERNEL(split);
REF_KERNEL(slice);
REF_KERNEL(pad);
REF_KERNEL(gather);
REF_KERNEL(slice_grad);
REF_KERNEL(gather_grad);
REF_KERNEL(gather_elements);
REF_KERNEL(gather_nd);
REF_KERNEL(scatter_elements);
REF_KERNEL(scatter_nd);
REF_KERNEL(topk);
REF_KERNEL(arg);
REF_KERNEL(one_hot);
REF_KERNEL(nonzero);
REF_KERNEL(compress);
REF_KERNEL(unique);
REF_KERNEL(nms);
REF_KERNEL(tile);
REF_KERNEL(trilu);
REF_KERNEL(cumsum);
REF_KERNEL(reverse_sequence);
REF_KERNEL(eye_like);
REF_KERNEL(range);
REF_KERNEL(size);
REF_KERNEL(window_function);
REF_KERNEL(mel_weights);
REF_KERNEL(dft);
REF_KERNEL(stft);
REF_KERNEL(recurrent);
REF_KERNEL(matmul_integer);
REF_KERNEL(conv_integer);
REF_KERNEL(qlinear_matmul);
REF_KERNEL(qlinear_conv);
REF_KERNEL(dynamic_quantize);
REF_KERNEL(quantize);
REF_KERNEL(dequantize);
REF_KERNEL(fake_quant);
REF_KERNEL(fake_quant_grad);
REF_KERNEL(rademacher);
int ref_dropout_prepare(Prepare *p);
int ref_unary_prepare(Prepare *p);
int ref_topk_prepare(Prepare *p);
int ref_unique_prepare(Prepare *p);
int ref_det_prepare(Prepare *p);
int ref_dft_prepare(Prepare *p);
int ref_stft_prepare(Prepare *p);
int ref_recurrent_prepare(Prepare *p);
int ref_resize_prepare(Prepare *p);
int ref_grid_sample_grad_prepare(Prepare *p);
int ref_deform_conv_prepare(Prepare *p);
void ref_resize_release(void *state);
int ref_avgpool_grad_prepare(Prepare *p);
int ref_fake_quant_grad_prepare(Prepare *p);

#define UNUSED_STATE (void)n, (void)state, (void)in, (void)out, (void)scratch

/* ---- elements ----------------------------------------------------------------------- */

static inline double load(const Tensor *t, int64_t offset)
{
    return t->dtype == DT_F32 ? (double)((const float *)t->data)[offset] : element_load(t, offset);
}

static inline bool omitted(const Tensor *t) { return t->rank < 0; }
static inline bool is_exact_int(const Tensor *t)
{
    return dtype_is_int(t->dtype) || t->dtype == DT_BOOL;
}
/* Element by element copy without conversion; equal types. */
void ref_move(const Tensor *from, int64_t from_offset, const Tensor *to, int64_t to_offset);
/* Element k in row-major order. */
int64_t ref_offset(const Tensor *t, int64_t k);
double ref_at(const Tensor *t, int64_t k);
void ref_fill(const Tensor *t, double x);
/* Element k of a vector, or the only one there is. */
static inline double ref_number(const Tensor *t, int64_t k)
{
    return load(t, t->rank > 0 && t->dim[0] > 1 ? k * t->stride[0] : 0);
}
/* Stores a sum of products on the grid {scale, zero point} of y. */
void ref_requantize(const Tensor *y, int64_t offset, double sum, double a_scale, double b_scale,
                    const Tensor *grid);

/* ---- indices ------------------------------------------------------------------------ */

typedef struct Index {
    int64_t i[MAX_RANK];
} Index;

/* for (Index at = {{0}}, *more = ref_first(t, &at); more; more = ref_next(t, &at)) */
Index *ref_first(const Tensor *t, Index *at); /* NULL if t has no elements */
Index *ref_next(const Tensor *t, Index *at);
#define FOR_EACH(at, t)                                                                            \
    for (Index at = {{0}}, *at##_more = ref_first((t), &at); at##_more;                            \
         at##_more = ref_next((t), &at))

static inline int64_t ref_index(const Tensor *t, const Index *at)
{
    int64_t offset = 0;
    for (int k = 0; k < t->rank; k++) offset += at->i[k] * t->stride[k];
    return offset;
}

/* t seen with the rank and the dims of `like`: axes align at the right, repeated ones have
 * stride 0. */
Tensor ref_broadcast(const Tensor *t, const Tensor *like);
/* A vector along `axis` of `like` (or a scalar), broadcast to it. */
Tensor ref_broadcast_axis(const Tensor *t, int axis, const Tensor *like);
int ref_axis(int64_t axis, int rank); /* negative ones count from the end */

/* ---- windows ------------------------------------------------------------------------ */

/* An image seen as [N, C, D, H, W], missing leading spatial axes being of size 1. */
Tensor ref_image(const Tensor *t);

/* Window geometry in the same three axes. Position p of the output and k of the kernel meet input
 * p * stride + k * dilation - pad. */
typedef struct RefWindow {
    int64_t kernel[3], stride[3], dilation[3], pad[3], pad_end[3];
} RefWindow;

RefWindow ref_window(const Node *n);
/* The input coordinate on axis a, or -1 if it lies in the padding. */
static inline int64_t ref_input_at(const RefWindow *w, int a, int64_t p, int64_t k, int64_t size)
{
    const int64_t i = p * w->stride[a] + k * w->dilation[a] - w->pad[a];
    return i >= 0 && i < size ? i : -1;
}

#endif
