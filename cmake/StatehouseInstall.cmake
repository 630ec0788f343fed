# The operators for other programs: by add_subdirectory() or, installed, by find_package(statehouse). Either way a target
# statehouse::kernels and, where CUDA kernels are built, statehouse::kernels_cuda. docs/building.md says how.
include(GNUInstallDirs)

# statehouse_install_library(<target> <name>): makes it statehouse::<name> and installs it with its headers.
function(statehouse_install_library target name)
  add_library(statehouse::${name} ALIAS ${target})
  target_compile_features(${target} PUBLIC cxx_std_20)
  install(TARGETS ${target} DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT kernels)
  # Not as a file set: its files are links into the sources.
  get_target_property(headers ${target} STATEHOUSE_HEADERS)
  foreach(header IN LISTS headers)
    cmake_path(GET header PARENT_PATH folder)
    install(FILES ${PROJECT_SOURCE_DIR}/${header} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/statehouse/${folder}
            COMPONENT kernels)
  endforeach()
endfunction()

function(statehouse_install_config)
  include(CMakePackageConfigHelpers)
  set(STATEHOUSE_CUDA_DIRS "")
  if(STATEHOUSE_CUDA_ENABLED)
    cmake_path(GET STATEHOUSE_CUDART_STATIC PARENT_PATH STATEHOUSE_CUDA_DIRS)
  endif()
  set(folder ${CMAKE_INSTALL_LIBDIR}/cmake/statehouse)
  configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/statehouse-config.cmake.in
    ${PROJECT_BINARY_DIR}/statehouse-config.cmake INSTALL_DESTINATION ${folder}
    PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
  write_basic_package_version_file(${PROJECT_BINARY_DIR}/statehouse-config-version.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${PROJECT_BINARY_DIR}/statehouse-config.cmake ${PROJECT_BINARY_DIR}/statehouse-config-version.cmake
          DESTINATION ${folder} COMPONENT kernels)
endfunction()
