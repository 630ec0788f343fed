# The CUDA language, if it is wanted and a compiler is there; sets STATEHOUSE_CUDA_ENABLED.
#
# The compiler is nvcc from the PATH, from CUDACXX, or from .cuda/ in this clone (cmake/install-cuda.sh puts one there).
set(STATEHOUSE_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO (where there is a compiler), ON, or OFF")
set(STATEHOUSE_CUDA_INSTANCES one CACHE STRING "CUDA kernels for the usual head sizes and types (one), or for every one (all)")
set_property(CACHE STATEHOUSE_CUDA PROPERTY STRINGS AUTO ON OFF)
set_property(CACHE STATEHOUSE_CUDA_INSTANCES PROPERTY STRINGS one all)
if(NOT STATEHOUSE_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "STATEHOUSE_CUDA is '${STATEHOUSE_CUDA}'; it must be AUTO, ON or OFF")
endif()
if(NOT STATEHOUSE_CUDA_INSTANCES MATCHES "^(one|all)$")
  message(FATAL_ERROR "STATEHOUSE_CUDA_INSTANCES is '${STATEHOUSE_CUDA_INSTANCES}'; it must be one or all")
endif()

set(STATEHOUSE_CUDA_ENABLED OFF)
if(STATEHOUSE_CUDA STREQUAL OFF)
  message(STATUS "Statehouse: for the CPU only (STATEHOUSE_CUDA is OFF)")
  return()
endif()
if(STATEHOUSE_SANITIZE)
  message(STATUS "Statehouse: for the CPU only (host sanitizers do not go with CUDA)")
  return()
endif()

set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real)  # A100 and Hopper; no PTX
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(STATEHOUSE_NVCC nvcc PATHS ${PROJECT_SOURCE_DIR}/.cuda/bin /usr/local/cuda/bin)
  if(STATEHOUSE_NVCC)
    set(CMAKE_CUDA_COMPILER ${STATEHOUSE_NVCC})
  endif()
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(STATEHOUSE_CUDA STREQUAL ON OR DEFINED ENV{CI})
    message(FATAL_ERROR "Statehouse: no CUDA compiler. Put nvcc on the PATH, or run cmake/install-cuda.sh, "
                        "or build for the CPU only with -DSTATEHOUSE_CUDA=OFF")
  endif()
  message(STATUS "Statehouse: for the CPU only (no CUDA compiler found)")
  return()
endif()

enable_language(CUDA)
# CMake 3.25 does not know how nvcc is asked for C++20.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_RUNTIME_LIBRARY None)  # targets name statehouse_cudart, which knows where it is
# What is implicit for the host compiler must not be named to it again: -isystem /usr/include hides its own headers.
list(APPEND CMAKE_CUDA_IMPLICIT_INCLUDE_DIRECTORIES ${CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES})
# The static runtime. By hand, because CMake 3.25's FindCUDAToolkit gives up where a toolkit lacks libraries that nobody here uses.
file(REAL_PATH ${CMAKE_CUDA_COMPILER} _nvcc)
cmake_path(GET _nvcc PARENT_PATH _toolkit)
cmake_path(GET _toolkit PARENT_PATH _toolkit)
find_library(STATEHOUSE_CUDART_STATIC libcudart_static.a REQUIRED
  HINTS ${_toolkit}/lib64 ${_toolkit}/lib ${_toolkit}/targets/x86_64-linux/lib ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES})
find_path(STATEHOUSE_CUDA_INCLUDE cuda_runtime_api.h REQUIRED
  HINTS ${_toolkit}/include ${_toolkit}/targets/x86_64-linux/include ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
mark_as_advanced(STATEHOUSE_CUDART_STATIC STATEHOUSE_CUDA_INCLUDE)
find_package(Threads REQUIRED)
add_library(statehouse_cudart STATIC IMPORTED GLOBAL)
set_target_properties(statehouse_cudart PROPERTIES
  IMPORTED_LOCATION ${STATEHOUSE_CUDART_STATIC} INTERFACE_INCLUDE_DIRECTORIES ${STATEHOUSE_CUDA_INCLUDE}
  INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};rt")
if(STATEHOUSE_CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${STATEHOUSE_CCACHE})
endif()
set(STATEHOUSE_CUDA_ENABLED ON)
message(STATUS "Statehouse: CUDA ${CMAKE_CUDA_COMPILER_VERSION}, ${CMAKE_CUDA_COMPILER}; instances: ${STATEHOUSE_CUDA_INSTANCES}")

# Host flags reach the host compiler through nvcc; warnings of either are errors where warnings are.
set(_host -Wall,-Wextra,-Wno-unused-parameter,-ffp-contract=off)
if(STATEHOUSE_WERROR)
  string(APPEND _host ,-Werror)
  add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>")
endif()
add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${_host};--expt-relaxed-constexpr>")
