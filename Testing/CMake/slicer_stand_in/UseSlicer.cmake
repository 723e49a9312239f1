set(Slicer_USE_PYTHONQT ON)
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "lib/Slicer-5.12/qt-scripted-modules")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "${Slicer_QTSCRIPTEDMODULES_LIB_DIR}")
set(RECORD_FILE "${CMAKE_BINARY_DIR}/recorded.txt")
file(WRITE "${RECORD_FILE}" "")
option(BUILD_TESTING "Test the extension." ON)

function(record kind owner source place)
  file(APPEND "${RECORD_FILE}" "${kind}|${owner}|${source}|${place}\n")
endfunction()

# As in CTK, a file keeps its path relative to the folder of the calling CMakeLists.txt.
function(ctkMacroCompilePythonScript)
  cmake_parse_arguments(MY "NO_INSTALL_SUBDIR;GLOBAL_TARGET" "TARGET_NAME;DESTINATION_DIR;INSTALL_DIR;SOURCE_DIR"
    "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "ctkMacroCompilePythonScript() does not know ${MY_UNPARSED_ARGUMENTS}")
  endif()
  foreach(name TARGET_NAME SCRIPTS DESTINATION_DIR INSTALL_DIR)
    if(NOT MY_${name})
      message(FATAL_ERROR "ctkMacroCompilePythonScript() needs ${name}")
    endif()
  endforeach()
  if(NOT MY_NO_INSTALL_SUBDIR)
    get_filename_component(subfolder "${MY_DESTINATION_DIR}" NAME)
    string(APPEND MY_INSTALL_DIR "/${subfolder}")
  endif()
  foreach(kind SCRIPTS RESOURCES)
    foreach(file IN LISTS MY_${kind})
      place_file(${kind} ${MY_TARGET_NAME} "${file}" "${MY_DESTINATION_DIR}" "${MY_INSTALL_DIR}")
    endforeach()
  endforeach()
endfunction()

function(place_file kind owner file build_folder install_folder)
  if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
    message(FATAL_ERROR "${owner} lists ${file}, which does not exist")
  endif()
  configure_file("${CMAKE_CURRENT_SOURCE_DIR}/${file}" "${build_folder}/${file}" COPYONLY)
  get_filename_component(subfolder "${file}" DIRECTORY)
  install(FILES "${build_folder}/${file}" DESTINATION "${install_folder}/${subfolder}" COMPONENT RuntimePlugins)
  record(${kind} ${owner} "${CMAKE_CURRENT_SOURCE_DIR}/${file}" "${install_folder}/${file}")
endfunction()

macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MODULE "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MODULE_UNPARSED_ARGUMENTS OR NOT MODULE_NAME)
    message(FATAL_ERROR "slicerMacroBuildScriptedModule() needs NAME and does not know '${MODULE_UNPARSED_ARGUMENTS}'")
  endif()
  ctkMacroCompilePythonScript(
    TARGET_NAME ${MODULE_NAME}
    SCRIPTS "${MODULE_SCRIPTS}"
    RESOURCES "${MODULE_RESOURCES}"
    DESTINATION_DIR ${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}
    INSTALL_DIR ${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}
    NO_INSTALL_SUBDIR
    )
  if(BUILD_TESTING AND MODULE_WITH_GENERIC_TESTS)
    record(GENERIC_TEST ${MODULE_NAME} "" "")
  endif()
endmacro()

function(slicer_add_python_unittest)
  cmake_parse_arguments(MY "" "SCRIPT;TESTNAME_PREFIX" "SLICER_ARGS" ${ARGN})
  if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${MY_SCRIPT}")
    message(FATAL_ERROR "the test ${MY_SCRIPT} does not exist")
  endif()
  record(TEST ${MY_SCRIPT} "${CMAKE_CURRENT_SOURCE_DIR}/${MY_SCRIPT}" "")
endfunction()
