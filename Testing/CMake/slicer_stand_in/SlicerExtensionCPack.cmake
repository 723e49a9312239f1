record(PACKAGE ${PROJECT_NAME} "" "")
