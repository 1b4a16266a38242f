# The GPU's part of the runtime: a module that the program loads when it is asked for
# (runtime/load.c), built where CMake finds the CUDA toolkit (12.8 or later) and cuDNN 9. It takes
# the runtime's symbols from the program, which therefore exports them.
file(GLOB cuda_sources CONFIGURE_DEPENDS runtime/cuda/*.c)
set(cuda_driver ${PROJECT_SOURCE_DIR}/runtime/cuda/driver.c
  ${PROJECT_SOURCE_DIR}/runtime/cuda/conv_cudnn.c ${PROJECT_SOURCE_DIR}/runtime/cuda/gemm_cublas.c
  ${PROJECT_SOURCE_DIR}/runtime/cuda/nvrtc.c ${PROJECT_SOURCE_DIR}/runtime/cuda/lanes.c
  ${PROJECT_SOURCE_DIR}/runtime/cuda/nccl.c)
list(REMOVE_ITEM cuda_sources ${cuda_driver})

set(cuda_texts ${onnx_gen}/cuda_sources.c)
set(prelude ${PROJECT_SOURCE_DIR}/runtime/cuda/prelude.h)
set(scalar ${PROJECT_SOURCE_DIR}/runtime/scalar.h)
add_custom_command(OUTPUT ${cuda_texts}
  COMMAND ${CMAKE_COMMAND} -DOUTPUT=${cuda_texts}
    "-DTEXTS=gpu_prelude=${prelude};gpu_scalar=${scalar}"
    -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
  DEPENDS runtime/cuda/prelude.h runtime/scalar.h cmake/embed.cmake VERBATIM)

# The host side, for the module and for the emulated one of the tests.
add_library(cuda_text OBJECT ${cuda_texts})
add_library(cuda_host OBJECT ${cuda_sources})
set_target_properties(cuda_host cuda_text PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_include_directories(cuda_host PUBLIC ${PROJECT_SOURCE_DIR})
target_include_directories(cuda_text PUBLIC ${PROJECT_SOURCE_DIR})

target_compile_definitions(runtime PRIVATE EHAP_LIBDIR="${CMAKE_INSTALL_FULL_LIBDIR}")
find_package(CUDAToolkit 12.8 QUIET)
if(CUDAToolkit_FOUND)
  find_path(CUDNN_INCLUDE_DIR cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS} ENV CUDNN_ROOT
    PATH_SUFFIXES include)
  find_library(CUDNN_LIBRARY cudnn HINTS ${CUDAToolkit_LIBRARY_DIR} ENV CUDNN_ROOT
    PATH_SUFFIXES lib lib64)
  if(NOT CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
  endif()
endif()
option(EHAP_CUDA "build the CUDA module where the toolkit and cuDNN are found" ON)
if(NOT EHAP_CUDA OR NOT CUDAToolkit_FOUND OR NOT CUDNN_INCLUDE_DIR OR NOT CUDNN_LIBRARY)
  message(STATUS "no CUDA 12.8 with cuDNN, or EHAP_CUDA off: no module for --device cuda")
  return()
endif()

# 7.0 while the toolkit knows it, 8.0 and 9.0, and the newest as code for later devices to compile.
execute_process(COMMAND ${CUDAToolkit_NVCC_EXECUTABLE} --list-gpu-arch OUTPUT_VARIABLE known)
string(REGEX MATCHALL "[0-9]+" known "${known}")
list(SORT known COMPARE NATURAL)
list(GET known 0 oldest)
list(GET known -1 newest)
if(oldest LESS 70)
  set(oldest 70)
endif()
set(EHAP_CUDA_ARCHITECTURES ${oldest} 80 90 ${newest} CACHE STRING
  "compute capabilities to compile for")
set(gencode)
foreach(arch ${EHAP_CUDA_ARCHITECTURES})
  list(APPEND gencode -gencode arch=compute_${arch},code=sm_${arch})
endforeach()
list(APPEND gencode -gencode arch=compute_${newest},code=compute_${newest})
set(kernels ${PROJECT_BINARY_DIR}/kernels.o)
file(GLOB cuda_bodies CONFIGURE_DEPENDS runtime/cuda/*.cuh)
add_custom_command(OUTPUT ${kernels}
  COMMAND ${CUDAToolkit_NVCC_EXECUTABLE} -std=c++17 -O2 -t 2 --fmad=false ${gencode}
    -Xcompiler -fPIC,-Wall,-Wextra -Werror all-warnings -I${PROJECT_SOURCE_DIR}
    -c ${PROJECT_SOURCE_DIR}/runtime/cuda/kernels.cu -o ${kernels}
  DEPENDS runtime/cuda/kernels.cu runtime/cuda/kernels.h runtime/cuda/prelude.h runtime/scalar.h
    runtime/philox.h ${cuda_bodies} VERBATIM)

add_library(ehap_cuda MODULE ${cuda_driver} ${kernels} $<TARGET_OBJECTS:cuda_host>
  $<TARGET_OBJECTS:cuda_text>)
target_include_directories(ehap_cuda PRIVATE ${PROJECT_SOURCE_DIR})
target_include_directories(ehap_cuda SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS}
  ${CUDNN_INCLUDE_DIR})
target_link_libraries(ehap_cuda PRIVATE CUDA::cudart CUDA::cublas CUDA::nvrtc ${CUDNN_LIBRARY}
  stdc++)
# NCCL adds over the GPUs of several processes; loaded when they are more than one.
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS} ENV NCCL_ROOT
  PATH_SUFFIXES include)
if(NCCL_INCLUDE_DIR)
  target_compile_definitions(ehap_cuda PRIVATE EHAP_NCCL)
  target_include_directories(ehap_cuda SYSTEM PRIVATE ${NCCL_INCLUDE_DIR})
endif()
set_target_properties(ehap_cuda PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tools
  INSTALL_RPATH_USE_LINK_PATH ON
  LINKER_LANGUAGE C)
install(TARGETS ehap_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
