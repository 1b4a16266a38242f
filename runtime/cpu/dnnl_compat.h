/* One spelling for oneDNN 2.x and 3.x.
 *
 * Between them memory descriptors turned from structs into handles, and operation
 * descriptors disappeared. The functions here are the few that changed; everything else is
 * called by its own name. */
#ifndef EHAP_RUNTIME_CPU_DNNL_COMPAT_H
#define EHAP_RUNTIME_CPU_DNNL_COMPAT_H

#include <dnnl.h>

#if DNNL_VERSION_MAJOR >= 3

typedef dnnl_memory_desc_t MemDesc; /* owned: md_free */
typedef const_dnnl_memory_desc_t MemDescRef;

static inline MemDescRef md_ref(const MemDesc *m) { return *m; }
static inline MemDescRef md_arg(const MemDesc *m) { return m ? *m : NULL; }
static inline void md_free(MemDesc *m)
{
    if (*m) dnnl_memory_desc_destroy(*m);
    *m = NULL;
}
static inline dnnl_status_t md_copy(MemDesc *out, MemDescRef m)
{
    return dnnl_memory_desc_clone(out, m);
}
static inline dnnl_status_t md_any(MemDesc *out, int rank, const dnnl_dims_t dim,
                                   dnnl_data_type_t type)
{
    return dnnl_memory_desc_create_with_tag(out, rank, dim, type, dnnl_format_tag_any);
}
static inline dnnl_status_t md_strided(MemDesc *out, int rank, const dnnl_dims_t dim,
                                       dnnl_data_type_t type, const dnnl_dims_t stride)
{
    return dnnl_memory_desc_create_with_strides(out, rank, dim, type, stride);
}

#else

typedef dnnl_memory_desc_t MemDesc;
typedef const dnnl_memory_desc_t *MemDescRef;

static inline MemDescRef md_ref(const MemDesc *m) { return m; }
static inline MemDescRef md_arg(const MemDesc *m) { return m; }
static inline void md_free(MemDesc *m) { (void)m; }
static inline dnnl_status_t md_copy(MemDesc *out, MemDescRef m)
{
    *out = *m;
    return dnnl_success;
}
static inline dnnl_status_t md_any(MemDesc *out, int rank, const dnnl_dims_t dim,
                                   dnnl_data_type_t type)
{
    return dnnl_memory_desc_init_by_tag(out, rank, dim, type, dnnl_format_tag_any);
}
static inline dnnl_status_t md_strided(MemDesc *out, int rank, const dnnl_dims_t dim,
                                       dnnl_data_type_t type, const dnnl_dims_t stride)
{
    return dnnl_memory_desc_init_by_strides(out, rank, dim, type, stride);
}

#endif

/* Everything that describes a convolution but its memory formats. */
typedef struct ConvShape {
    dnnl_dims_t stride, dilation, pad_lo, pad_hi; /* dilation - 1, as oneDNN counts */
} ConvShape;

typedef enum ConvKind { CONV_FORWARD, CONV_BY_DATA, CONV_BY_WEIGHTS } ConvKind;

/* src, weights, dst are the operands of the forward convolution, or their gradients; bias may
 * be NULL. hint: the forward primitive descriptor, for the two gradients. */
static inline dnnl_status_t conv_desc(dnnl_primitive_desc_t *pd, ConvKind kind, dnnl_engine_t e,
                                      const MemDesc *src, const MemDesc *weights,
                                      const MemDesc *bias, const MemDesc *dst, const ConvShape *c,
                                      dnnl_primitive_desc_t hint, const_dnnl_primitive_attr_t attr)
{
    dnnl_alg_kind_t alg = dnnl_convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
    switch (kind) {
    case CONV_FORWARD:
        return dnnl_convolution_forward_primitive_desc_create(
            pd, e, dnnl_forward_training, alg, md_arg(src), md_arg(weights), md_arg(bias),
            md_arg(dst), c->stride, c->dilation, c->pad_lo, c->pad_hi, attr);
    case CONV_BY_DATA:
        return dnnl_convolution_backward_data_primitive_desc_create(
            pd, e, alg, md_arg(src), md_arg(weights), md_arg(dst), c->stride, c->dilation,
            c->pad_lo, c->pad_hi, hint, attr);
    default:
        return dnnl_convolution_backward_weights_primitive_desc_create(
            pd, e, alg, md_arg(src), md_arg(weights), md_arg(bias), md_arg(dst), c->stride,
            c->dilation, c->pad_lo, c->pad_hi, hint, attr);
    }
#else
    dnnl_convolution_desc_t d;
    dnnl_status_t s;
    switch (kind) {
    case CONV_FORWARD:
        s = dnnl_dilated_convolution_forward_desc_init(
            &d, dnnl_forward_training, alg, md_arg(src), md_arg(weights), md_arg(bias), md_arg(dst),
            c->stride, c->dilation, c->pad_lo, c->pad_hi);
        break;
    case CONV_BY_DATA:
        s = dnnl_dilated_convolution_backward_data_desc_init(&d, alg, md_arg(src), md_arg(weights),
                                                             md_arg(dst), c->stride, c->dilation,
                                                             c->pad_lo, c->pad_hi);
        break;
    default:
        s = dnnl_dilated_convolution_backward_weights_desc_init(
            &d, alg, md_arg(src), md_arg(weights), md_arg(bias), md_arg(dst), c->stride,
            c->dilation, c->pad_lo, c->pad_hi);
    }
    return s == dnnl_success ? dnnl_primitive_desc_create(pd, &d, attr, e, hint) : s;
#endif
}

static inline dnnl_status_t matmul_desc(dnnl_primitive_desc_t *pd, dnnl_engine_t e,
                                        const MemDesc *a, const MemDesc *b, const MemDesc *y,
                                        const_dnnl_primitive_attr_t attr)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_matmul_primitive_desc_create(pd, e, md_arg(a), md_arg(b), NULL, md_arg(y), attr);
#else
    dnnl_matmul_desc_t d;
    dnnl_status_t s = dnnl_matmul_desc_init(&d, md_arg(a), md_arg(b), NULL, md_arg(y));
    return s == dnnl_success ? dnnl_primitive_desc_create(pd, &d, attr, e, NULL) : s;
#endif
}

#endif
