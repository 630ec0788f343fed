# statehouse_grpc: gRPC, protobuf and what they need, linked statically and with every symbol of the program hidden.
#
# Why static and hidden: Debian's libsentencepiece.so carries an old protobuf of its own and exports its symbols. In one process
# with libprotobuf.so, whichever comes first answers for both, and the program crashes or aborts at start. Here
#  - libprotobuf.a is taken whole, so that its definitions win over the shared library's wherever it stands on the link line;
#  - the version script keeps our definitions out of the dynamic symbol table, so that the shared library keeps its own.
# Abseil's imported targets are switched to their archives too: a program must not hold two copies of it.
include_guard(GLOBAL)

find_program(STATEHOUSE_PROTOC protoc REQUIRED)
find_program(STATEHOUSE_GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)

get_property(_imported DIRECTORY ${CMAKE_SOURCE_DIR} PROPERTY IMPORTED_TARGETS)
foreach(target IN LISTS _imported)
  get_target_property(type ${target} TYPE)
  if(NOT target MATCHES "^absl::" OR NOT type STREQUAL SHARED_LIBRARY)
    continue()
  endif()
  get_target_property(configurations ${target} IMPORTED_CONFIGURATIONS)
  foreach(configuration IN LISTS configurations)
    get_target_property(shared ${target} IMPORTED_LOCATION_${configuration})
    string(REGEX REPLACE "\\.so[.0-9]*$" ".a" archive "${shared}")
    if(EXISTS "${archive}")
      set_target_properties(${target} PROPERTIES IMPORTED_LOCATION_${configuration} "${archive}")
    endif()
  endforeach()
endforeach()

# statehouse_archive(NAME DEPS ...): an imported target for lib<NAME>.a.
function(statehouse_archive name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  find_library(STATEHOUSE_ARCHIVE_${name} NAMES lib${name}.a REQUIRED)
  mark_as_advanced(STATEHOUSE_ARCHIVE_${name})
  add_library(statehouse_archive_${name} STATIC IMPORTED GLOBAL)
  set_target_properties(statehouse_archive_${name} PROPERTIES
    IMPORTED_LOCATION ${STATEHOUSE_ARCHIVE_${name}} INTERFACE_LINK_LIBRARIES "${ARG_DEPS}")
endfunction()

set(_absl absl::flat_hash_map absl::flat_hash_set absl::inlined_vector absl::bind_front absl::statusor absl::status
          absl::cord absl::str_format absl::strings absl::time absl::synchronization absl::optional absl::variant
          absl::random_random absl::hash absl::memory absl::cleanup absl::any_invocable)
statehouse_archive(z)
statehouse_archive(crypto DEPS ${CMAKE_DL_LIBS} Threads::Threads)
statehouse_archive(ssl DEPS statehouse_archive_crypto)
statehouse_archive(cares)
statehouse_archive(re2 DEPS Threads::Threads)
statehouse_archive(address_sorting)
statehouse_archive(upb)
statehouse_archive(gpr DEPS ${_absl} Threads::Threads)
statehouse_archive(grpc DEPS statehouse_archive_upb statehouse_archive_address_sorting statehouse_archive_re2
                             statehouse_archive_cares statehouse_archive_ssl statehouse_archive_gpr statehouse_archive_z m)
statehouse_archive(protobuf DEPS statehouse_archive_z Threads::Threads)
statehouse_archive(grpc++ DEPS statehouse_archive_grpc statehouse_archive_protobuf)
statehouse_archive(grpc++_reflection DEPS statehouse_archive_grpc++)

file(WRITE ${CMAKE_BINARY_DIR}/hide_all_symbols.map "{ local: *; };\n")
add_library(statehouse_grpc INTERFACE)
target_link_libraries(statehouse_grpc INTERFACE statehouse_archive_grpc++)
target_link_options(statehouse_grpc INTERFACE
  "LINKER:--version-script=${CMAKE_BINARY_DIR}/hide_all_symbols.map"
  "LINKER:--whole-archive" "${STATEHOUSE_ARCHIVE_protobuf}" "LINKER:--no-whole-archive")
if(STATEHOUSE_SANITIZE STREQUAL thread)
  # Under ThreadSanitizer protobuf's headers add members to map fields that Debian's library does not have.
  target_compile_options(statehouse_grpc INTERFACE -U__SANITIZE_THREAD__)
endif()
add_library(statehouse_grpc_reflection INTERFACE)
target_link_libraries(statehouse_grpc_reflection INTERFACE statehouse_archive_grpc++_reflection statehouse_grpc)
