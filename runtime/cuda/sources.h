/* What generated code is compiled after, as text (made by the build: cmake/embed.cmake). */
#ifndef EHAP_RUNTIME_CUDA_SOURCES_H
#define EHAP_RUNTIME_CUDA_SOURCES_H

extern const char gpu_prelude[]; /* runtime/cuda/prelude.h */
extern const char gpu_scalar[];  /* runtime/scalar.h */

#endif
