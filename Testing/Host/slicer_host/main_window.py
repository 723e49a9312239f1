"""The main window: toolbar with module selector, module panel on the left, views on the right."""

import slicer

from slicer_host.look_alikes import look_alike
from slicer_host.pythonqt import QtCore, QtWidgets
from slicer_host.views.layout_manager import qSlicerLayoutManager
from slicer_host.widgets.mrml_widget import qSlicerWidget

_WINDOW_SIZE = (1440, 900)
_PANEL_WIDTH = 480


@look_alike()
class qSlicerModuleSelectorToolBar(QtWidgets.QToolBar):
    """Chooses the module that the panel shows."""

    moduleSelected = QtCore.Signal(str)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._manager = None
        self._combo = QtWidgets.QComboBox(self)
        self._combo.setMinimumWidth(220)
        self._combo.setPlaceholderText("Choose a module")
        self.addWidget(QtWidgets.QLabel("Module: "))
        self.addWidget(self._combo)
        self._combo.activated.connect(lambda index: self.selectModule(self._combo.itemData(index)))

    def setModuleManager(self, manager):
        """List the scripted modules of a manager, now and later."""
        self._manager = manager
        manager.moduleLoaded.connect(self._on_module_loaded)
        for name in manager.modulesNames():
            self._on_module_loaded(name)

    def _on_module_loaded(self, name):
        module = self._manager.module(name)
        if isinstance(module, slicer.qSlicerScriptedLoadableModule) and not module.hidden:
            self._combo.addItem(module.title, name)

    def selectModule(self, name):
        """Show the panel of a module."""
        if name == self.selectedModule:
            return
        index = self._combo.findData(name)
        self._combo.setCurrentIndex(index)
        if index >= 0 or not name:
            self.moduleSelected.emit(name)

    selectedModule = property(lambda self: self._combo.currentData or "", selectModule)


@look_alike()
class qSlicerAbstractModulePanel(qSlicerWidget):
    """A place for panels."""

    moduleAdded = QtCore.Signal(str)
    moduleRemoved = QtCore.Signal(str)
    _manager = None

    def moduleManager(self):
        """Return the module manager."""
        return self._manager

    def setModuleManager(self, manager):
        """Take modules from a manager."""
        self._manager = manager


@look_alike()
class qSlicerModulePanel(qSlicerAbstractModulePanel):
    """Shows one module's panel in a scroll area, and tells it when the user comes and goes."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._shown_name = ""
        self._scroll_area = QtWidgets.QScrollArea(self)
        self._scroll_area.setObjectName("ScrollArea")
        self._scroll_area.setWidgetResizable(True)
        self._scroll_area.setFrameShape(QtWidgets.QFrame.NoFrame)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._scroll_area)

    def setModule(self, name):
        """Show the panel of a module; an empty name shows none."""
        if name == self._shown_name:
            return
        shown = self._scroll_area.takeWidget()
        if shown is not None:
            shown.exit()
            shown.setParent(None)
            self.moduleRemoved.emit(self._shown_name)
        self._shown_name = name
        module = self._manager.module(name) if name else None
        widget = module.widgetRepresentation() if module is not None else None
        if widget is None:
            return
        self._scroll_area.setWidget(widget)
        widget.show()
        widget.enter()
        self.moduleAdded.emit(name)


@look_alike()
class qSlicerMainWindow(QtWidgets.QMainWindow):
    """The application's window."""

    initialWindowShown = QtCore.Signal()

    def __init__(self, parent=None):
        super().__init__(parent)
        self.setObjectName("qSlicerMainWindow")
        self.setWindowTitle("Module host (Slicer core)")
        self.setAcceptDrops(True)
        self._panel = qSlicerModulePanel()
        self._panel.setObjectName("ModulePanel")
        self._viewport = QtWidgets.QFrame()
        self._viewport.setObjectName("CentralWidgetLayoutFrame")
        splitter = QtWidgets.QSplitter(self)
        splitter.addWidget(self._panel)
        splitter.addWidget(self._viewport)
        splitter.setStretchFactor(1, 1)
        splitter.setSizes([_PANEL_WIDTH, _WINDOW_SIZE[0] - _PANEL_WIDTH])
        self.setCentralWidget(splitter)
        self._selector = qSlicerModuleSelectorToolBar(self)
        self._selector.setObjectName("ModuleSelectorToolBar")
        self._add_tool_bar()
        self.statusBar().showMessage("Ready")
        self.resize(*_WINDOW_SIZE)

    def _add_tool_bar(self):
        bar = QtWidgets.QToolBar("Data", self)
        bar.setObjectName("MainToolBar")
        bar.setToolButtonStyle(QtCore.Qt.ToolButtonTextBesideIcon)
        style, io_manager = self.style(), slicer.app.ioManager()
        for icon, text, slot in (
            (QtWidgets.QStyle.SP_DialogOpenButton, "Load data", io_manager.openAddDataDialog),
            (QtWidgets.QStyle.SP_DialogSaveButton, "Save", io_manager.openSaveDataDialog),
        ):
            action = bar.addAction(style.standardIcon(icon), text)
            action.triggered.connect(lambda _checked, slot=slot: slot())
        for tool_bar in (bar, self._selector):
            tool_bar.setMovable(False)
            self.addToolBar(tool_bar)

    def moduleSelector(self):
        """Return the module selector."""
        return self._selector

    def pythonConsole(self):
        """Return None: there is no Python console."""

    def setLayout(self, layout):
        """Show a layout of views by its number."""
        slicer.app.layoutManager().setLayout(layout)

    def dragEnterEvent(self, event):
        """Accept files."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event):
        """Load files."""
        slicer.app.loadFiles([url.toLocalFile() for url in event.mimeData().urls()])


def create_main_window(app):
    """Create the main window with its views, and show it."""
    window = qSlicerMainWindow()
    app._main_window = window
    manager = qSlicerLayoutManager(window)
    app.setLayoutManager(manager)
    manager._start(window._viewport, app.applicationLogic(), app.mrmlScene())
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    window._panel.setModuleManager(app.moduleManager())
    window._selector.moduleSelected.connect(window._panel.setModule)
    window._selector.setModuleManager(app.moduleManager())
    window.show()
    window.initialWindowShown.emit()
    return window
