# statehouse_build_info: which sources and which compiler made this program, as "statehouse/build_info.h".
#
# The commit is looked up on every build, not at configure time, and the file is rewritten only when it changed: the program
# always tells the truth, and a build without a new commit compiles nothing.
if(CMAKE_SCRIPT_MODE_FILE)  # run at build time with SOURCE_DIR, TEMPLATE, OUTPUT, VERSION, BUILD_TYPE, COMPILER
  set(COMMIT "unknown")
  find_program(git git)
  if(git AND EXISTS ${SOURCE_DIR}/.git)
    execute_process(COMMAND ${git} -c safe.directory=* -C ${SOURCE_DIR} rev-parse --short=12 HEAD
                    OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE result)
    if(result EQUAL 0)
      set(COMMIT ${commit})
      execute_process(COMMAND ${git} -c safe.directory=* -C ${SOURCE_DIR} diff --quiet HEAD RESULT_VARIABLE result ERROR_QUIET)
      if(result EQUAL 1)
        string(APPEND COMMIT "+changes")
      endif()
    endif()
  elseif(DEFINED ENV{STATEHOUSE_COMMIT})  # a source tree without its history, as in an image build
    set(COMMIT $ENV{STATEHOUSE_COMMIT})
  endif()
  configure_file(${TEMPLATE} ${OUTPUT} @ONLY)
  return()
endif()

set(_build_info ${PROJECT_BINARY_DIR}/build_info)
file(MAKE_DIRECTORY ${_build_info}/statehouse)
configure_file(${CMAKE_CURRENT_LIST_DIR}/build_info.h.in ${_build_info}/statehouse/build_info.h COPYONLY)
add_custom_target(statehouse_build_info_stamp
  COMMAND ${CMAKE_COMMAND} -DSOURCE_DIR=${PROJECT_SOURCE_DIR} -DTEMPLATE=${CMAKE_CURRENT_LIST_DIR}/build_info.cc.in
          -DOUTPUT=${_build_info}/build_info.cc -DVERSION=${PROJECT_VERSION}
          "-DBUILD_TYPE=$<CONFIG>$<$<BOOL:${STATEHOUSE_SANITIZE}>:+${STATEHOUSE_SANITIZE}>"
          "-DCOMPILER=${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}" -P ${CMAKE_CURRENT_LIST_FILE}
  BYPRODUCTS ${_build_info}/build_info.cc
  COMMENT "Looking up the commit" VERBATIM)
add_library(statehouse_build_info STATIC ${_build_info}/build_info.cc)
add_dependencies(statehouse_build_info statehouse_build_info_stamp)
target_include_directories(statehouse_build_info PUBLIC ${_build_info})
