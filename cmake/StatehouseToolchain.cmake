# Compiler settings that hold for every target.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()

find_program(STATEHOUSE_CCACHE ccache)
if(STATEHOUSE_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${STATEHOUSE_CCACHE})
endif()
find_program(STATEHOUSE_MOLD mold)
if(STATEHOUSE_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

add_compile_options(-Wall -Wextra -Wno-unused-parameter
                    # Bits must not depend on what the compiler contracts: FMA is written where it is meant.
                    -ffp-contract=off)
if(STATEHOUSE_WERROR)
  add_compile_options(-Werror)
endif()
if(STATEHOUSE_SANITIZE)
  add_compile_options(-fsanitize=${STATEHOUSE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${STATEHOUSE_SANITIZE})
endif()

find_package(Threads REQUIRED)
find_package(absl CONFIG REQUIRED)

# The machine-independent half builds everywhere; CUDA kernels join it where there is a CUDA compiler.
include(CheckLanguage)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  message(STATUS "Statehouse: CUDA compiler ${CMAKE_CUDA_COMPILER} found; there is no CUDA code to build yet")
else()
  message(STATUS "Statehouse: no CUDA compiler found; building for the CPU only")
endif()
