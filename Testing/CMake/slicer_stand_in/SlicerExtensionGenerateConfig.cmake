# Slicer refuses an extension whose description has a gap.
foreach(name HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if(NOT EXTENSION_${name})
    message(FATAL_ERROR "EXTENSION_${name} is not set")
  endif()
  record(METADATA ${name} "${EXTENSION_${name}}" "")
endforeach()
