"""Look-alikes of CTK's push buttons."""

from slicer_host.look_alikes import look_alike, stored_property
from slicer_host.pythonqt import QtCore, QtWidgets


@look_alike()
class ctkPushButton(QtWidgets.QPushButton):
    """A push button with free alignment of text and icon."""

    buttonTextAlignment = stored_property(QtCore.Qt.AlignCenter)
    iconAlignment = stored_property(QtCore.Qt.AlignLeft)
    elideMode = stored_property(QtCore.Qt.ElideNone)


@look_alike()
class ctkCheckablePushButton(ctkPushButton):
    """A push button with a check box in it."""

    checkBoxToggled = QtCore.Signal(bool)
    checkStateChanged = QtCore.Signal(QtCore.Qt.CheckState)

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._check_state = QtCore.Qt.Unchecked

    def _set_check_state(self, state):
        state = QtCore.Qt.CheckState(state)
        if state == self._check_state:
            return
        self._check_state = state
        self.checkStateChanged.emit(state)
        self.checkBoxToggled.emit(state == QtCore.Qt.Checked)

    checkState = property(lambda self: self._check_state, _set_check_state)
    checkBoxControlsButton = stored_property(False, bool)
    checkBoxControlsButtonToggleState = stored_property(True, bool)
    checkBoxUserCheckable = stored_property(True, bool)
    indicatorAlignment = stored_property(QtCore.Qt.AlignLeft)


@look_alike()
class ctkMenuButton(QtWidgets.QPushButton):
    """A push button whose right edge opens its menu."""
