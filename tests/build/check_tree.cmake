# Reads the sources under ROOT for what an include path cannot refuse.
#   UNLISTED  headers that no statehouse_library() lists
set(complaints "")
foreach(header IN LISTS UNLISTED)
  list(APPEND complaints "${header}: list it in HDRS or SRCS of a statehouse_library()")
endforeach()

# _refuse(<regex> <reason> <folder>...): no source of the folders may hold an include that matches.
function(_refuse regex reason)
  foreach(folder IN LISTS ARGN)
    file(GLOB_RECURSE sources RELATIVE ${ROOT} ${ROOT}/${folder}/*.h ${ROOT}/${folder}/*.cc)
    foreach(source IN LISTS sources)
      file(STRINGS ${ROOT}/${source} includes REGEX "^[ \t]*#[ \t]*include[ \t]*${regex}")
      foreach(include IN LISTS includes)
        list(APPEND complaints "${source}: ${include}: ${reason}")
      endforeach()
    endforeach()
  endforeach()
  set(complaints "${complaints}" PARENT_SCOPE)
endfunction()

_refuse("\"[^\"]*\\.\\./" "name headers from the root of the repository" kernels models engine server clients tests)
_refuse("[<\"](grpc|grpcpp|google/protobuf|statehouse/v1)/" "gRPC and protobuf stay above the engine" kernels models engine)
_refuse("[<\"]tests/" "nothing includes tests/" kernels models engine server clients)

if(complaints)
  list(JOIN complaints "\n  " text)
  message(FATAL_ERROR "The tree breaks the rules of docs/architecture.md:\n  ${text}")
endif()
