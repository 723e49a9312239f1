"""Calls whose arguments or results differ between PySide6 and PythonQt."""

import os

from PySide6 import QtCore, QtWidgets


def _first_of_result(function):
    """PythonQt drops output arguments: `QFileDialog.getOpenFileName()` gives a str, PySide a tuple."""
    return staticmethod(lambda *arguments: function(*arguments)[0])


def _process_start(native_start):
    """PythonQt turns the program and each argument into a QString."""

    def start(process, *arguments):
        converted = [os.fspath(item) if isinstance(item, os.PathLike) else item for item in arguments]
        if len(converted) > 1 and isinstance(converted[1], list | tuple):
            converted[1] = [str(item) for item in converted[1]]
        return native_start(process, *converted)

    return start


def _menu_init(native_init):
    """Slicer's own module class calls `QMenu(<object that is no widget>)`: PythonQt takes it as a title."""

    def init(menu, *arguments):
        if arguments and not isinstance(arguments[0], str | QtWidgets.QWidget | None):
            arguments = (str(arguments[0]), *arguments[1:])
        native_init(menu, *arguments)

    return init


def patch_calls():
    """Change the calls in place."""
    for name in ("getOpenFileName", "getSaveFileName", "getOpenFileNames"):
        setattr(QtWidgets.QFileDialog, name, _first_of_result(getattr(QtWidgets.QFileDialog, name)))
    for name in ("getText", "getInt", "getDouble", "getItem", "getMultiLineText"):
        setattr(QtWidgets.QInputDialog, name, _first_of_result(getattr(QtWidgets.QInputDialog, name)))
    for cls in (QtWidgets.QDialog, QtWidgets.QMenu, QtCore.QCoreApplication, QtCore.QEventLoop, QtCore.QThread):
        cls.exec_ = cls.exec
    QtCore.QProcess.start = _process_start(QtCore.QProcess.start)
    QtWidgets.QMenu.__init__ = _menu_init(QtWidgets.QMenu.__init__)
