"""Look-alikes of modules, their widgets and their manager, and the loading of scripted modules."""

import importlib.util
import sys
from pathlib import Path

import slicer

from slicer_host.look_alikes import constant, look_alike, stored_property, string_tuple
from slicer_host.pythonqt import QtCore, QtGui, QtWidgets
from slicer_host.uncaught import report_current
from slicer_host.widgets.mrml_widget import qSlicerWidget


@look_alike()
class qSlicerAbstractModuleWidget(qSlicerWidget):
    """A module's panel."""

    def __init__(self, module):
        super().__init__()
        self._module, self._entered = module, False

    isEntered = property(lambda self: self._entered)

    def module(self):
        """Return the module."""
        return self._module

    def enter(self):
        """The user comes to the panel."""
        self._entered = True

    def exit(self):
        """The user leaves the panel."""
        self._entered = False


@look_alike()
class qSlicerScriptedLoadableModuleWidget(qSlicerAbstractModuleWidget):
    """The panel of a scripted module: calls the methods of its Python widget."""

    def __init__(self, module):
        super().__init__(module)
        self._python_widget = None
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.setSpacing(6)

    moduleName = property(lambda self: self._module.name)

    def self(self):
        """Return the Python widget."""
        return self._python_widget

    def _set_up(self):
        name = self._module.name
        self._python_widget = getattr(sys.modules[name], f"{name}Widget")(self)
        setattr(slicer.modules, f"{name}Widget", self._python_widget)
        self.setMRMLScene(slicer.mrmlScene)
        self._python_widget.setup()
        self.layout().addStretch(1)

    def reload(self):
        """Make the Python widget anew from the source as it is now."""
        if self._python_widget is not None and hasattr(self._python_widget, "cleanup"):
            self._python_widget.cleanup()
        while self.layout().count():
            item = self.layout().takeAt(0)
            if item.widget() is not None:
                item.widget().deleteLater()
        import_module_file(self._module.path)
        self._set_up()

    def _call(self, method):
        function = getattr(self._python_widget, method, None)
        if function is None:
            return
        try:
            function()
        except Exception:  # noqa: BLE001 - the application prints it and goes on
            report_current()

    def enter(self):
        """Call `enter` of the Python widget."""
        super().enter()
        self._call("enter")

    def exit(self):
        """Call `exit` of the Python widget."""
        super().exit()
        self._call("exit")

    def _clean_up(self):
        self._call("cleanup")


@look_alike()
class qSlicerAbstractCoreModule(QtCore.QObject):
    """A module."""

    def __init__(self, name, path):
        super().__init__()
        self._module_name, self._path, self._logic, self._widget = name, path, None, None

    name = property(lambda self: self._module_name)
    path = property(lambda self: self._path)
    title = property(lambda self: self._module_name)
    categories = dependencies = contributors = associatedNodeTypes = constant(())
    helpText = acknowledgementText = defaultDocumentationLink = slicerWikiUrl = constant("")
    hidden = constant(False)
    index = constant(-1)
    isInstalled = isBuiltIn = constant(False)
    widgetRepresentationCreationEnabled = stored_property(True, bool)

    def logic(self):
        """Return the module's logic."""
        return self._logic

    def mrmlScene(self):
        """Return the scene."""
        return slicer.mrmlScene


@look_alike()
class qSlicerAbstractModule(qSlicerAbstractCoreModule):
    """A module with a panel."""

    icon = constant(QtGui.QIcon())

    def widgetRepresentation(self):
        """Return the panel, or None."""
        return self._widget

    def createNewWidgetRepresentation(self):
        """Return a panel of its own, or None."""


@look_alike()
class qSlicerLoadableModule(qSlicerAbstractModule):
    """A module of the application; the host has their logics, not their panels."""


@look_alike()
class qSlicerScriptedLoadableModule(qSlicerLoadableModule):
    """A module written in Python; its class sets the properties."""

    def __init__(self, path):
        super().__init__(Path(path).stem, str(path))
        self.title = self._module_name

    title = stored_property("", str)
    categories = stored_property(("",), string_tuple)
    dependencies = stored_property((), string_tuple)
    contributors = stored_property((), string_tuple)
    associatedNodeTypes = stored_property((), string_tuple)
    helpText = stored_property("", str)
    acknowledgementText = stored_property("", str)
    hidden = stored_property(False, bool)
    index = stored_property(-1, int)
    icon = stored_property(QtGui.QIcon())
    extensions = stored_property({}, dict)

    def logic(self):
        """Return the C++ logic that stands for the module in the application."""
        if self._logic is None:
            self._logic = slicer.vtkSlicerScriptedLoadableModuleLogic()
            self._logic.SetMRMLScene(slicer.mrmlScene)
        return self._logic

    def widgetRepresentation(self):
        """Return the panel, made at the first call."""
        if self._widget is None and hasattr(sys.modules[self.name], f"{self.name}Widget"):
            self._widget = qSlicerScriptedLoadableModuleWidget(self)
            self._widget.setObjectName(f"{self.name}ModuleWidget")
            self._widget._set_up()
        return self._widget

    def createNewWidgetRepresentation(self):
        """Return a panel of its own."""
        widget = qSlicerScriptedLoadableModuleWidget(self)
        widget._set_up()
        return widget


@look_alike()
class qSlicerAbstractModuleFactoryManager(QtCore.QObject):
    """Knows the modules by name."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._modules: dict[str, qSlicerAbstractCoreModule] = {}

    searchPaths = stored_property((), string_tuple)
    modulesToIgnore = stored_property((), string_tuple)

    def registeredModuleNames(self):
        """Return the names of all modules."""
        return tuple(self._modules)

    def instantiatedModuleNames(self):
        """Return the names of all modules."""
        return tuple(self._modules)

    def isRegistered(self, name):
        """Tell whether there is such a module."""
        return name in self._modules

    def isInstantiated(self, name):
        """Tell whether there is such a module."""
        return name in self._modules

    def moduleInstance(self, name):
        """Return a module, or None."""
        return self._modules.get(name)


@look_alike()
class qSlicerModuleFactoryManager(qSlicerAbstractModuleFactoryManager):
    """Loads modules."""

    moduleLoaded = QtCore.Signal(str)
    moduleAboutToBeUnloaded = QtCore.Signal(str)
    moduleUnloaded = QtCore.Signal(str)

    def loadedModuleNames(self):
        """Return the names of all modules."""
        return tuple(self._modules)

    def loadedModule(self, name):
        """Return a module, or None."""
        return self._modules.get(name)

    def isLoaded(self, name):
        """Tell whether there is such a module."""
        return name in self._modules

    def registerModule(self, file_info):
        """Import the scripted module of a file."""
        self._load(Path(file_info.absoluteFilePath()))

    def loadModules(self, names):
        """Tell whether all these modules are loaded."""
        return all(name in self._modules for name in names)

    def _add(self, module):
        name = module.name
        self._modules[name] = module
        setattr(slicer.modules, name.lower(), module)
        setattr(slicer.moduleNames, name, name)
        self.moduleLoaded.emit(name)

    def _load(self, path):
        python_module = import_module_file(path)
        module = qSlicerScriptedLoadableModule(path)
        module.setParent(self)
        instance = getattr(python_module, module.name)(module)
        setattr(slicer.modules, f"{module.name}Instance", instance)
        if hasattr(instance, "setup"):
            instance.setup()
        self._add(module)
        return module

    def _clean_up(self):
        for module in self._modules.values():
            widget = getattr(module, "_widget", None)
            if widget is not None:
                widget._clean_up()


@look_alike()
class qSlicerModuleManager(QtCore.QObject):
    """The application's view of its modules."""

    moduleLoaded = QtCore.Signal(str)
    moduleAboutToBeUnloaded = QtCore.Signal(str)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._factory = qSlicerModuleFactoryManager(self)
        self._factory.moduleLoaded.connect(self.moduleLoaded)

    def factoryManager(self):
        """Return what loads the modules."""
        return self._factory

    def module(self, name):
        """Return a module, or None."""
        return self._factory.loadedModule(name)

    def modulesNames(self):
        """Return the names of all modules."""
        return self._factory.loadedModuleNames()


def import_module_file(path):
    """Import a module file anew under its stem, with its folder on `sys.path`, and return the Python module."""
    path = Path(path).resolve()
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    python_module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = python_module
    spec.loader.exec_module(python_module)
    return python_module


def module_files(folder) -> list[Path]:
    """Return the module files of a folder.

    Raises:
        FileNotFoundError: there is no such folder.
        ImportError: a file holds no class of its own name; Slicer tries every .py file of the folder as a module.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"the module path '{folder}' is no folder")
    files = sorted(item for item in folder.glob("*.py") if item.name != "__init__.py")
    for file in files:
        if f"class {file.stem}(" not in file.read_text(encoding="utf-8"):
            raise ImportError(
                f"'{file.name}' has no class {file.stem}: put Python files that are no module in a sub-package"
            )
    return files


def load_modules(folders) -> list[str]:
    """Load the scripted modules of all folders and return their names."""
    factory = slicer.app.moduleManager().factoryManager()
    factory.searchPaths = (*factory.searchPaths, *(str(folder) for folder in folders))
    return [factory._load(file).name for folder in folders for file in module_files(folder)]
