# Everything comes from Debian packages; README names the command that installs them.
find_package(PkgConfig REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS C)
find_package(ZLIB REQUIRED)
find_package(LAPACK REQUIRED)
find_package(MPI COMPONENTS C) # optional: mpirun spreads the shards over processes
pkg_check_modules(LIBZIP REQUIRED IMPORTED_TARGET libzip)
pkg_check_modules(JPEG REQUIRED IMPORTED_TARGET libturbojpeg)
pkg_check_modules(PNG REQUIRED IMPORTED_TARGET libpng)
pkg_check_modules(PROTOBUF_C REQUIRED IMPORTED_TARGET libprotobuf-c)
pkg_check_modules(CJSON REQUIRED IMPORTED_TARGET libcjson)

find_path(DNNL_INCLUDE_DIR dnnl.h REQUIRED)
find_library(DNNL_LIBRARY NAMES dnnl REQUIRED)
add_library(dnnl::dnnl UNKNOWN IMPORTED)
set_target_properties(dnnl::dnnl PROPERTIES IMPORTED_LOCATION ${DNNL_LIBRARY}
  INTERFACE_INCLUDE_DIRECTORIES ${DNNL_INCLUDE_DIR})

# protobuf-c code for ONNX, generated from the system's proto2 file.
find_program(PROTOC_C protoc-c REQUIRED)
if(NOT EHAP_ONNX_PROTO)
  find_file(ONNX_PROTO_FILE onnx/onnx.proto REQUIRED)
  set(EHAP_ONNX_PROTO ${ONNX_PROTO_FILE})
endif()
get_filename_component(onnx_proto_dir ${EHAP_ONNX_PROTO} DIRECTORY)
set(onnx_gen ${PROJECT_BINARY_DIR}/generated)
file(MAKE_DIRECTORY ${onnx_gen})
add_custom_command(OUTPUT ${onnx_gen}/onnx.pb-c.c ${onnx_gen}/onnx.pb-c.h
  COMMAND ${PROTOC_C} --c_out=${onnx_gen} -I ${onnx_proto_dir} ${EHAP_ONNX_PROTO}
  DEPENDS ${EHAP_ONNX_PROTO} VERBATIM)
add_library(onnx_proto STATIC ${onnx_gen}/onnx.pb-c.c)
target_compile_options(onnx_proto PRIVATE -w)
target_include_directories(onnx_proto SYSTEM PUBLIC ${onnx_gen})
target_link_libraries(onnx_proto PUBLIC PkgConfig::PROTOBUF_C)
