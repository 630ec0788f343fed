# Compiles one include against one include path.
#   COMPILER, FLAGS  the compiler and a file of its -I options
#   HEADER, EXPECTED the include, and `accepted` or `refused`
#   PROBE            where to write the file that is compiled
#   ROOT             the repository: a header that must be refused has to exist there, else the test would prove nothing
# `refused` passes only if the compiler's sole complaint is that it cannot find this header.
file(WRITE ${PROBE} "#include \"${HEADER}\"\n")
set(ENV{LC_ALL} C)
execute_process(COMMAND ${COMPILER} -std=c++20 -fsyntax-only @${FLAGS} ${PROBE}
                RESULT_VARIABLE result OUTPUT_VARIABLE out ERROR_VARIABLE err)

if(EXPECTED STREQUAL "accepted")
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "\"${HEADER}\" must be reachable, but does not compile:\n${err}")
  endif()
  return()
endif()

if(NOT HEADER MATCHES "\\.pb\\.h$" AND NOT EXISTS ${ROOT}/${HEADER})
  message(FATAL_ERROR "${HEADER} does not exist: name another header of its folder in tests/build/CMakeLists.txt")
endif()
if(result EQUAL 0)
  message(FATAL_ERROR "\"${HEADER}\" must not be reachable, but it compiles. See the arrows in docs/architecture.md.")
endif()
string(REPLACE "." "\\." pattern "${HEADER}")
string(REGEX MATCHALL "error:" errors "${err}")
list(LENGTH errors num_errors)
if(NOT num_errors EQUAL 1 OR NOT err MATCHES "error: '?${pattern}'?(: No such file or directory| file not found)")
  message(FATAL_ERROR "\"${HEADER}\" fails, but not because it cannot be found:\n${err}")
endif()
