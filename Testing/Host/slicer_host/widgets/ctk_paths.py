"""Look-alikes of the CTK widgets that choose files and folders."""

from pathlib import Path

from slicer_host.look_alikes import look_alike, stored_property, string_tuple
from slicer_host.pythonqt import QtCore, QtWidgets

_HISTORY_LENGTH = 20


def _parent_of(arguments):
    return next((item for item in arguments if isinstance(item, QtWidgets.QWidget)), None)


@look_alike()
class ctkPathLineEdit(QtWidgets.QWidget):
    """A line for a path, with a history and a browse button."""

    currentPathChanged = QtCore.Signal(str)
    validInputChanged = QtCore.Signal(bool)

    # The values of QDir's filters, as in CTK.
    NoFilter = -1
    Dirs, Files, Drives, NoSymLinks, AllEntries, TypeMask = 0x1, 0x2, 0x4, 0x8, 0x7, 0xF
    Readable, Writable, Executable, PermissionMask = 0x10, 0x20, 0x40, 0x70
    Modified, Hidden, System, AccessMask = 0x80, 0x100, 0x200, 0x3F0
    AllDirs, CaseSensitive, NoDot, NoDotDot, NoDotAndDotDot = 0x400, 0x800, 0x2000, 0x4000, 0x6000
    AdjustToContents, AdjustToContentsOnFirstShow, AdjustToMinimumContentsLength = range(3)

    def __init__(self, *arguments):
        super().__init__(_parent_of(arguments))
        self._last_path, self._was_valid = "", True
        self._combo = QtWidgets.QComboBox(self)
        self._combo.setEditable(True)
        self._combo.setInsertPolicy(QtWidgets.QComboBox.NoInsert)
        self._combo.setSizePolicy(QtWidgets.QSizePolicy.Ignored, QtWidgets.QSizePolicy.Fixed)
        self._button = QtWidgets.QToolButton(self)
        self._button.setText("…")
        self._button.clicked.connect(self.browse)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo, 1)
        layout.addWidget(self._button)
        self._combo.editTextChanged.connect(self._on_text_changed)

    def _on_text_changed(self, text):
        if text == self._last_path:
            return
        self._last_path = text
        self.currentPathChanged.emit(text)
        valid = self._is_valid(text)
        if valid != self._was_valid:
            self._was_valid = valid
            self.validInputChanged.emit(valid)

    def _is_valid(self, text):
        if not text:
            return True
        path, filters = Path(text), self.filters
        return (bool(filters & self.Files) and path.is_file()) or (bool(filters & self.Dirs) and path.is_dir())

    def browse(self):
        """Let the user choose in a file dialog."""
        if self.filters & self.Dirs and not self.filters & self.Files:
            path = QtWidgets.QFileDialog.getExistingDirectory(self, "Select a folder", self.currentPath)
        elif self.filters & self.Writable:
            path = QtWidgets.QFileDialog.getSaveFileName(self, "Save", self.currentPath, ";;".join(self.nameFilters))
        else:
            path = QtWidgets.QFileDialog.getOpenFileName(self, "Open", self.currentPath, ";;".join(self.nameFilters))
        if path:
            self.setCurrentPath(path)
            self.addCurrentPathToHistory()

    def setCurrentPath(self, path):
        """Show `path`."""
        self._combo.setEditText(str(path))

    def _stored_history(self):
        stored = QtCore.QSettings().value(self.settingKey) or []
        return [stored] if isinstance(stored, str) else list(stored)

    def addCurrentPathToHistory(self):
        """Put the path first in the history that the application's settings keep under `settingKey`."""
        if not self.settingKey or not self.currentPath:
            return
        others = [item for item in self._stored_history() if item != self.currentPath]
        QtCore.QSettings().setValue(self.settingKey, [self.currentPath, *others][:_HISTORY_LENGTH])
        self.retrieveHistory()

    def retrieveHistory(self):
        """Read the history from the application's settings and show its first path."""
        history = self._stored_history()
        blocker = QtCore.QSignalBlocker(self._combo)
        self._combo.clear()
        self._combo.addItems(history)
        del blocker
        self._on_text_changed(self._combo.currentText)

    def comboBox(self):
        """Return the combo box that holds line and history."""
        return self._combo

    currentPath = property(lambda self: self._combo.currentText, setCurrentPath)
    settingKey = stored_property("", str, changed="retrieveHistory")
    filters = stored_property(AllEntries | NoDot | NoDotDot | Readable, int)
    nameFilters = stored_property((), string_tuple)
    showBrowseButton = property(lambda self: not self._button.isHidden(), lambda self, v: self._button.setVisible(v))
    showHistoryButton = stored_property(True, bool)
    label = stored_property("", str)
    options = stored_property(0, int)
    sizeAdjustPolicy = stored_property(0, int)
    minimumContentsLength = stored_property(0, int)


@look_alike()
class ctkDirectoryButton(QtWidgets.QWidget):
    """A button that shows a folder and lets the user choose another."""

    directoryChanged = QtCore.Signal(str)
    directorySelected = QtCore.Signal(str)

    def __init__(self, *arguments):
        super().__init__(_parent_of(arguments))
        self._directory, self._fixed_text = str(Path.cwd()), ""
        self._button = QtWidgets.QPushButton(self)
        self._button.setIcon(self.style().standardIcon(QtWidgets.QStyle.SP_DirIcon))
        self._button.setSizePolicy(QtWidgets.QSizePolicy.Ignored, QtWidgets.QSizePolicy.Fixed)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._button)
        self._button.clicked.connect(self.browse)
        self._show_text()

    def _show_text(self):
        self._button.setText(self._fixed_text or self._directory)

    def browse(self):
        """Let the user choose; return the folder."""
        path = QtWidgets.QFileDialog.getExistingDirectory(self, self.caption, self._directory)
        if path:
            self._set_directory(path)
            self.directorySelected.emit(self._directory)
        return self._directory

    def _set_directory(self, path):
        path = str(path)
        changed = Path(path).absolute() != Path(self._directory).absolute()
        self._directory = path
        self._show_text()
        if changed:
            self.directoryChanged.emit(path)

    def _set_text(self, text):
        self._fixed_text = str(text)
        self._show_text()

    directory = property(lambda self: self._directory, _set_directory)
    text = property(lambda self: self._fixed_text, _set_text)
    icon = property(lambda self: self._button.icon, lambda self, icon: self._button.setIcon(icon))
    caption = stored_property("", str)
    acceptMode = stored_property(QtWidgets.QFileDialog.AcceptOpen)
    elideMode = stored_property(QtCore.Qt.ElideNone)
    options = stored_property(0, int)
