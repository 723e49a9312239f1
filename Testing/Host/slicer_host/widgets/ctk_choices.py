"""Look-alikes of CTK's combo box, check box, colour button and message box."""

from slicer_host.look_alikes import look_alike, stored_property
from slicer_host.pythonqt import QtCore, QtGui, QtWidgets


@look_alike()
class ctkComboBox(QtWidgets.QComboBox):
    """A combo box with a text for "nothing chosen"."""

    returnRelease = QtCore.Signal()
    AlwaysScroll, NeverScroll, ScrollWithFocus, ScrollWithNoVScrollBar = range(4)

    def _show_default(self):
        self.setPlaceholderText(self.defaultText)

    def setCurrentUserDataAsString(self, text):
        """Choose the item whose user data is `text`."""
        self.setCurrentIndex(self.findData(text))

    currentUserDataAsString = property(lambda self: str(self.currentData or ""), setCurrentUserDataAsString)
    defaultText = stored_property("", str, changed="_show_default")
    defaultIcon = stored_property(QtGui.QIcon())
    forceDefault = stored_property(False, bool)
    elideMode = stored_property(QtCore.Qt.ElideNone)
    scrollWheelEffect = stored_property(0, int)


@look_alike()
class ctkCheckBox(QtWidgets.QCheckBox):
    """A check box that can carry an icon."""

    indicatorIcon = stored_property(QtGui.QIcon())
    indicatorIconSize = stored_property(QtCore.QSize())


@look_alike()
class ctkColorPickerButton(QtWidgets.QPushButton):
    """A button that shows a colour and lets the user choose another."""

    colorChanged = QtCore.Signal(QtGui.QColor)
    colorNameChanged = QtCore.Signal(str)
    ShowAlphaChannel, NoButtons, DontUseNativeDialog, UseCTKColorDialog = 0x1, 0x2, 0x4, 0xC

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._color, self._color_name = QtGui.QColor(0, 0, 0), ""
        self.clicked.connect(self._on_clicked)
        self._show_color()

    def _on_clicked(self):
        if not self.checkable:
            self.changeColor()

    def _show_color(self):
        pixmap = QtGui.QPixmap(16, 16)
        pixmap.fill(self._color)
        self.setIcon(QtGui.QIcon(pixmap))
        if self.displayColorName:
            self.setText(self._color_name or self._color.name())

    def changeColor(self):
        """Let the user choose in a colour dialog."""
        color = QtWidgets.QColorDialog.getColor(self._color, self)
        if color.isValid():
            self.setColor(color)

    def setColor(self, color):
        """Show `color`."""
        color = QtGui.QColor(color)
        changed, self._color = color != self._color, color
        self._show_color()
        if changed:
            self.colorChanged.emit(color)

    def setDisplayColorName(self, value):
        """Show the name of the colour beside it."""
        self.displayColorName = value

    def _set_color_name(self, name):
        changed, self._color_name = name != self._color_name, name
        self._show_color()
        if changed:
            self.colorNameChanged.emit(name)

    color = property(lambda self: self._color, setColor)
    colorName = property(lambda self: self._color_name or self._color.name(), _set_color_name)
    displayColorName = stored_property(True, bool, changed="_show_color")
    dialogOptions = stored_property(0, int)


@look_alike()
class ctkMessageBox(QtWidgets.QMessageBox):
    """A message box that the user can send away for good."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._roles = [QtWidgets.QMessageBox.AcceptRole]
        self._check_box = None
        self.finished.connect(self.onFinished)

    def _show_check_box(self):
        if self.dontShowAgainVisible and self._check_box is None:
            self._check_box = QtWidgets.QCheckBox("Don't show this message again")
            self.setCheckBox(self._check_box)
        if self._check_box is not None:
            self._check_box.setVisible(self.dontShowAgainVisible)

    def _key_changed(self):
        if self.dontShowAgainSettingsKey:
            self.dontShowAgainVisible = True
            stored = str(QtCore.QSettings().value(self.dontShowAgainSettingsKey) or "")
            self.setDontShowAgain(stored not in ("", "0", "false"))

    def setDontShowAgain(self, value):
        """Tick or clear the check mark."""
        if self._check_box is None:
            self.dontShowAgainVisible = True
        self._check_box.setChecked(bool(value))

    def addDontShowAgainButtonRole(self, role):
        """Let buttons of `role` keep the choice."""
        self._roles.append(role)

    def onFinished(self, _result):
        """Keep the choice in the application's settings."""
        if self.dontShowAgainSettingsKey and self._check_box is not None:
            kept = self.dontShowAgain and self.buttonRole(self.clickedButton()) in self._roles
            QtCore.QSettings().setValue(self.dontShowAgainSettingsKey, int(kept))

    def setVisible(self, visible):
        """Close at once with the default button where the user has asked not to be asked."""
        super().setVisible(visible)
        if visible and self.dontShowAgain:
            QtCore.QTimer.singleShot(0, self.accept)

    dontShowAgain = property(lambda self: bool(self._check_box and self._check_box.checked), setDontShowAgain)
    dontShowAgainVisible = stored_property(False, bool, changed="_show_check_box")
    dontShowAgainSettingsKey = stored_property("", str, changed="_key_changed")
    dontShowAgainButtonRoles = property(
        lambda self: tuple(self._roles), lambda self, v: setattr(self, "_roles", list(v))
    )
