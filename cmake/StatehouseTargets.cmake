# How targets are declared here. docs/building.md says how to use these two functions.
#
# Layering is enforced by the include path. Headers are named from the root of the repository ("kernels/norm/norm.h"), but
# no library has the root on its include path. Each one exports a tree of links, build/include/<target>/, that holds exactly
# the headers it lists. A target therefore reaches its own headers and those of its DEPS, and any other include fails to
# build. tests/build/ holds this to be true.

# Makes `dir` hold one link per file of ARGN, at the file's path from the root of the repository, and nothing else.
function(_statehouse_link_tree dir)
  set(wanted "")
  foreach(file IN LISTS ARGN)
    cmake_path(ABSOLUTE_PATH file BASE_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR} NORMALIZE)
    cmake_path(IS_PREFIX PROJECT_BINARY_DIR "${file}" is_generated)
    cmake_path(IS_PREFIX PROJECT_SOURCE_DIR "${file}" is_ours)
    if(is_generated OR NOT is_ours)
      continue()
    endif()
    cmake_path(RELATIVE_PATH file BASE_DIRECTORY ${PROJECT_SOURCE_DIR} OUTPUT_VARIABLE path)
    cmake_path(GET path PARENT_PATH folder)
    file(MAKE_DIRECTORY ${dir}/${folder})
    file(CREATE_LINK ${file} ${dir}/${path} SYMBOLIC)
    list(APPEND wanted ${dir}/${path})
  endforeach()
  file(MAKE_DIRECTORY ${dir})
  file(GLOB_RECURSE present LIST_DIRECTORIES false ${dir}/*)
  foreach(file IN LISTS present)
    if(NOT file IN_LIST wanted)
      file(REMOVE ${file})
    endif()
  endforeach()
endfunction()

# statehouse_library(<name> [HDRS <header>...] [SRCS <file>...] [DEPS <target>...] [PRIVATE_DEPS <target>...])
#
# One library with its dependencies written down. Paths are relative to the calling CMakeLists.txt.
#   HDRS          what other targets may include; each must compile alone (target all_verify_interface_header_sets)
#   SRCS          sources, and headers that only this target may include
#   DEPS          what the headers need; dependants get it too
#   PRIVATE_DEPS  what only the sources need
# A header that is listed nowhere cannot be included. Without SRCS the library is header-only.
function(statehouse_library name)
  cmake_parse_arguments(ARG "" "" "HDRS;SRCS;DEPS;PRIVATE_DEPS" ${ARGN})
  set(tree ${PROJECT_BINARY_DIR}/include/${name})
  _statehouse_link_tree(${tree} ${ARG_HDRS})
  set(headers "")
  foreach(header IN LISTS ARG_HDRS)
    cmake_path(ABSOLUTE_PATH header BASE_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR} NORMALIZE)
    cmake_path(RELATIVE_PATH header BASE_DIRECTORY ${PROJECT_SOURCE_DIR} OUTPUT_VARIABLE path)
    list(APPEND headers ${tree}/${path})
    set_property(GLOBAL APPEND PROPERTY STATEHOUSE_LISTED_HEADERS ${path})
  endforeach()

  if(ARG_SRCS)
    add_library(${name} STATIC ${ARG_SRCS})
    target_sources(${name} PUBLIC FILE_SET HEADERS BASE_DIRS ${tree} FILES ${headers})
    target_link_libraries(${name} PUBLIC ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
    # Sources are in the private tree because Highway compiles a file once per instruction set by including it again.
    _statehouse_link_tree(${tree}.private ${ARG_SRCS})
    target_include_directories(${name} PRIVATE ${tree}.private)
    foreach(source IN LISTS ARG_SRCS)
      cmake_path(ABSOLUTE_PATH source BASE_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR} NORMALIZE)
      cmake_path(RELATIVE_PATH source BASE_DIRECTORY ${PROJECT_SOURCE_DIR} OUTPUT_VARIABLE path)
      set_property(GLOBAL APPEND PROPERTY STATEHOUSE_LISTED_HEADERS ${path})
    endforeach()
  else()
    add_library(${name} INTERFACE)
    target_sources(${name} INTERFACE FILE_SET HEADERS BASE_DIRS ${tree} FILES ${headers})
    target_link_libraries(${name} INTERFACE ${ARG_DEPS})
  endif()
  cmake_path(RELATIVE_PATH CMAKE_CURRENT_SOURCE_DIR BASE_DIRECTORY ${PROJECT_SOURCE_DIR} OUTPUT_VARIABLE folder)
  set_target_properties(${name} PROPERTIES VERIFY_INTERFACE_HEADER_SETS ON STATEHOUSE_FOLDER ${folder})
  set_property(GLOBAL APPEND PROPERTY STATEHOUSE_LIBRARIES ${name})
endfunction()

# statehouse_test(<name> SRCS <file>... DEPS <target>... [LABELS <label>...] [TIMEOUT <seconds>] [ENVIRONMENT <VAR=value>...])
#
# One GoogleTest program and one CTest entry. Tests may include anything: the root is on their include path.
# STATEHOUSE_SOURCE_DIR names the root for tests that read files of the repository. The label `soak` marks a test that runs
# as long as the environment variable STATEHOUSE_SOAK_SECONDS says.
function(statehouse_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SRCS;DEPS;LABELS;ENVIRONMENT" ${ARGN})
  foreach(src IN LISTS ARG_SRCS)
    set_property(GLOBAL APPEND PROPERTY STATEHOUSE_TEST_FILES ${CMAKE_CURRENT_SOURCE_DIR}/${src})
  endforeach()
  if("statehouse_tokenizer" IN_LIST ARG_DEPS AND NOT STATEHOUSE_TOKENIZER)
    return()
  endif()
  if("statehouse_kernels_cuda" IN_LIST ARG_DEPS AND NOT STATEHOUSE_CUDA_ENABLED)
    return()
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(STATEHOUSE_SANITIZE)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 5")
  endif()
  if("soak" IN_LIST ARG_LABELS)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} + 10 * ${STATEHOUSE_SOAK_SECONDS}")
  endif()
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gtest GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE STATEHOUSE_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}"
                       ENVIRONMENT "${STATEHOUSE_TEST_ENVIRONMENT};${ARG_ENVIRONMENT}")
endfunction()

# Names the headers under the folders ARGN that no target lists: nothing can include them, nothing compiles them alone.
function(statehouse_report_unlisted_headers)
  get_property(listed GLOBAL PROPERTY STATEHOUSE_LISTED_HEADERS)
  set(unlisted "")
  foreach(folder IN LISTS ARGN)
    file(GLOB_RECURSE present CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/${folder}/*.h)
    list(APPEND unlisted ${present})
  endforeach()
  list(REMOVE_ITEM unlisted ${listed})
  if(NOT STATEHOUSE_TOKENIZER)
    list(FILTER unlisted EXCLUDE REGEX "^models/tokenizer/")
  endif()
  if(NOT STATEHOUSE_CUDA_ENABLED)
    list(FILTER unlisted EXCLUDE REGEX "/cuda/")
  endif()
  set_property(GLOBAL PROPERTY STATEHOUSE_UNLISTED_HEADERS ${unlisted})
  if(unlisted)
    list(JOIN unlisted ", " names)
    message(STATUS "Statehouse: in no statehouse_library(), so nothing can include them: ${names}")
  endif()
endfunction()
