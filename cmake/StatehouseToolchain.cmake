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

add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wno-unused-parameter>"
                    # Bits must not depend on what the compiler contracts: FMA is written where it is meant.
                    "$<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>")
if(STATEHOUSE_WERROR)
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Werror>")
endif()

# `assert` and the library's own bounds checks are on in every build but the one that users run.
if(NOT CMAKE_BUILD_TYPE STREQUAL "Release")
  # -g1: functions and lines, for traces. Types and locals of gRPC's templates take longer to write than the code.
  # Only in place of CMake's own choice: what somebody asked for stays, but for what would turn assertions off.
  if(CMAKE_CXX_FLAGS_RELWITHDEBINFO STREQUAL "-O2 -g -DNDEBUG")
    set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1")
  else()
    string(REPLACE "-DNDEBUG" "" CMAKE_CXX_FLAGS_RELWITHDEBINFO "${CMAKE_CXX_FLAGS_RELWITHDEBINFO}")
  endif()
  add_compile_definitions(_GLIBCXX_ASSERTIONS)
endif()

# For folders that wait for the wire, the disk or a test's answer: in builds that users do not run, half the time to compile.
macro(statehouse_compile_quickly)
  if(CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo")
    add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-O1>)
  endif()
endmacro()

if(STATEHOUSE_SANITIZE)
  set(known_sanitizers address undefined thread)
  if(NOT STATEHOUSE_SANITIZE IN_LIST known_sanitizers)
    message(FATAL_ERROR "STATEHOUSE_SANITIZE is '${STATEHOUSE_SANITIZE}'; it must be address, undefined, thread or empty")
  endif()
  add_compile_options(-fsanitize=${STATEHOUSE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${STATEHOUSE_SANITIZE})
endif()

# What a test program finds in its environment: a finding ends it, and known false alarms of uninstrumented libraries are
# suppressed by name.
set(STATEHOUSE_TEST_ENVIRONMENT "")
if(STATEHOUSE_SANITIZE STREQUAL "address")
  list(APPEND STATEHOUSE_TEST_ENVIRONMENT
       "ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1:check_initialization_order=1:detect_leaks=1")
  if(EXISTS ${PROJECT_SOURCE_DIR}/tests/lsan.supp)
    list(APPEND STATEHOUSE_TEST_ENVIRONMENT "LSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/lsan.supp")
  endif()
elseif(STATEHOUSE_SANITIZE STREQUAL "undefined")
  list(APPEND STATEHOUSE_TEST_ENVIRONMENT "UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1")
elseif(STATEHOUSE_SANITIZE STREQUAL "thread")
  set(tsan_options "halt_on_error=1:second_deadlock_stack=1:ignore_noninstrumented_modules=1")
  if(EXISTS ${PROJECT_SOURCE_DIR}/tests/tsan.supp)
    string(APPEND tsan_options ":suppressions=${PROJECT_SOURCE_DIR}/tests/tsan.supp")
  endif()
  list(APPEND STATEHOUSE_TEST_ENVIRONMENT "TSAN_OPTIONS=${tsan_options}")
endif()

# A package that one folder looks for is known to the tests of that folder, too.
set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON)
find_package(Threads REQUIRED)
find_package(absl CONFIG REQUIRED)

# The machine-independent half builds everywhere; CUDA kernels join it where there is a CUDA compiler.
include(StatehouseCuda)
