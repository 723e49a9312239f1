# What find_package(Slicer) gives an extension, as far as a scripted one uses it. Files are copied into the build tree
# at configure time and installed from there, and every call is recorded in <build>/recorded.txt, one
# "kind|owner|source|place" a line, for the tests to read.
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/SlicerExtensionGenerateConfig.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/SlicerExtensionCPack.cmake")
