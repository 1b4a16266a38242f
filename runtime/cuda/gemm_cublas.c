/* Matrix products by cuBLAS, which thinks in columns: row-major y = a b is, in its eyes, y' = b'
 * a'. */
#include "runtime/cuda/real.h"

static cudaDataType_t type_of_storage(DType t)
{
    return t == DT_F16 ? CUDA_R_16F : t == DT_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

void gpu_gemm(const GpuGemm *g, const void *a, const void *b, void *y)
{
    const cudaDataType_t in = type_of_storage(g->storage), out = type_of_storage(g->result);
    const cublasComputeType_t compute =
        g->tf32 && g->storage == DT_F32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    const cublasMath_t math =
        (cublasMath_t)(CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION);
    CHECK(cublas, cublasSetMathMode(gpu.cublas, math));
    CHECK(cublas, cublasGemmStridedBatchedEx(gpu.cublas, g->tb ? CUBLAS_OP_T : CUBLAS_OP_N,
                                             g->ta ? CUBLAS_OP_T : CUBLAS_OP_N, g->n, g->m, g->k,
                                             &g->alpha, b, in, g->ldb, g->stride_b, a, in, g->lda,
                                             g->stride_a, &g->beta, y, out, g->ldy, g->stride_y,
                                             g->batch, compute, CUBLAS_GEMM_DEFAULT));
}
