"""`slicer.app` and the start of the whole application in this process."""

import os
import shutil
import stat
import sys
import tempfile
import types
from dataclasses import dataclass, field
from pathlib import Path

import slicer

from slicer_host import (
    python_package,
    ui_loader,  # noqa: F401 - puts its loader into module `qt`
    uncaught,
    widgets,  # noqa: F401 - registers the look-alikes
)
from slicer_host.io_manager import qSlicerIOManager
from slicer_host.look_alikes import LOOK_ALIKES, constant, look_alike, stored_property, string_tuple
from slicer_host.modules import qSlicerLoadableModule, qSlicerModuleManager
from slicer_host.mrml_application import create_mrml_application
from slicer_host.pythonqt import QtCore, QtWidgets
from slicer_host.style import apply_style

_VERSION = (5, 12, 0)
_REVISION = "34000"


@dataclass(frozen=True, kw_only=True)
class HostOptions:
    """How the application is started; the names are those of Slicer's command line."""

    testing: bool = False
    no_main_window: bool = False
    additional_module_paths: tuple[str, ...] = ()
    python_script: str = ""
    python_code: str = ""
    terminology_folder: Path | None = None
    arguments: tuple[str, ...] = field(default=())


@look_alike()
class qSlicerCoreCommandOptions(QtCore.QObject):
    """The options given at the start."""

    def __init__(self, options):
        super().__init__()
        self._options = options

    testingEnabled = property(lambda self: self._options.testing)
    additionalModulePaths = property(lambda self: tuple(self._options.additional_module_paths))
    pythonScript = extraPythonScript = property(lambda self: self._options.python_script)
    pythonCode = property(lambda self: self._options.python_code)
    modulesToIgnore = constant(())
    ignoreSlicerRC = constant(True)
    pythonDisabled = verboseModuleDiscovery = constant(False)
    runPythonAndExit = stored_property(False, bool)


@look_alike()
class qSlicerCommandOptions(qSlicerCoreCommandOptions):
    """The options of an application with windows."""

    noMainWindow = property(lambda self: self._options.no_main_window)
    noSplash = constant(True)
    showPythonConsole = exitAfterStartup = disableToolTips = constant(False)


@look_alike(signals={"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"})
class qSlicerCoreApplication(QtWidgets.QApplication):
    """The application as far as it needs no window."""

    mrmlSceneChanged = QtCore.Signal(object)
    urlReceived = QtCore.Signal(str)

    def __init__(self, options):
        super().__init__([sys.argv[0] if sys.argv else "Slicer", *options.arguments])
        self._options = options
        self._temporary_folder = Path(tempfile.mkdtemp(prefix="Slicer-"))
        self._render_pauses = 0
        self._startup_environment = QtCore.QProcessEnvironment.systemEnvironment()
        self.setApplicationName("Slicer")
        self.setOrganizationName("NA-MIC")
        self.setOrganizationDomain("www.na-mic.org")
        self.setApplicationVersion(".".join(map(str, _VERSION)))
        self._isolate_settings()
        self._add_python_slicer()
        self._module_manager = qSlicerModuleManager(self)
        self._io_manager = qSlicerIOManager(self)
        self._layout_manager, self._mrml = None, None

    def _isolate_settings(self):
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.IniFormat)
        folder = os.fspath(self._temporary_folder / "settings")
        for scope in (QtCore.QSettings.UserScope, QtCore.QSettings.SystemScope):
            QtCore.QSettings.setPath(QtCore.QSettings.IniFormat, scope, folder)
        self._user_settings = QtCore.QSettings()
        self._user_settings.setParent(self)
        self._user_settings.setValue("Developer/SelfTestDisplayMessageDelay", 0)

    def _add_python_slicer(self):
        """Put `PythonSlicer`, as Slicer calls its Python interpreter, on the path of this process and its children."""
        folder = self._temporary_folder / "bin"
        folder.mkdir()
        launcher = folder / "PythonSlicer"
        launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
        launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)
        os.environ["PATH"] = os.fspath(folder) + os.pathsep + os.environ.get("PATH", "")

    temporaryPath = property(lambda self: os.fspath(self._temporary_folder))
    slicerHome = property(lambda self: os.fspath(self._temporary_folder / "home"))
    slicerSharePath = constant("share/Slicer-5.12")
    cachePath = property(lambda self: os.fspath(self._temporary_folder / "cache"))
    extensionsInstallPath = property(lambda self: os.fspath(self._temporary_folder / "extensions"))
    startupWorkingPath = constant(os.fspath(Path.cwd()))
    slicerUserSettingsFilePath = property(lambda self: self._user_settings.fileName())
    slicerRevisionUserSettingsFilePath = property(lambda self: self._user_settings.fileName())
    majorVersion = mainApplicationMajorVersion = constant(_VERSION[0])
    minorVersion = mainApplicationMinorVersion = constant(_VERSION[1])
    mainApplicationPatchVersion = constant(_VERSION[2])
    mainApplicationName = mainApplicationDisplayName = constant("Slicer")
    revision = repositoryRevision = mainApplicationRevision = constant(_REVISION)
    documentationBaseUrl = constant("https://slicer.readthedocs.io/en/latest/")
    documentationVersion = constant("latest")
    releaseType = constant("Experimental")
    applicationLocaleName = constant("en-US")
    os = constant("linux")
    arch = constant("amd64")
    platform = constant("linux-amd64")
    intDir = constant("")
    isInstalled = constant(True)
    isCustomMainApplication = constant(False)
    defaultScenePath = stored_property("", str)

    def testingEnabled(self):
        """Tell whether dialogs answer themselves."""
        return self._options.testing

    def applicationLogic(self):
        """Return the application logic."""
        return self._mrml.logic

    def mrmlScene(self):
        """Return the scene."""
        return self._mrml.scene

    def moduleManager(self):
        """Return the module manager."""
        return self._module_manager

    def moduleLogic(self, name):
        """Return the logic of a module of the application, or None."""
        return self._mrml.logic.GetModuleLogic(name)

    def coreIOManager(self):
        """Return the IO manager."""
        return self._io_manager

    def userSettings(self):
        """Return the settings; they live in a folder that ends with the process."""
        return self._user_settings

    def settings(self):
        """Return the settings."""
        return self._user_settings

    def revisionUserSettings(self):
        """Return the settings of this revision."""
        return self._user_settings

    def startupEnvironment(self):
        """Return the environment that the application was started in."""
        return self._startup_environment

    def environment(self):
        """Return the environment of the application."""
        return QtCore.QProcessEnvironment.systemEnvironment()

    def moduleDocumentationUrl(self, name):
        """Return the address of a module's documentation."""
        return f"{self.documentationBaseUrl}user_guide/modules/{name.lower()}.html"

    def toSlicerHomeAbsolutePath(self, path):
        """Return the path inside the application's home."""
        return os.fspath(Path(self.slicerHome) / path)

    def dicomDatabase(self):
        """Return None: there is no DICOM database."""

    def pauseRender(self):
        """Draw no view until `resumeRender`."""
        self.setRenderPaused(True)

    def resumeRender(self):
        """End one pause."""
        self.setRenderPaused(False)

    def setRenderPaused(self, paused):
        """Pause drawing or end one pause."""
        self._render_pauses = max(0, self._render_pauses + (1 if paused else -1))
        if not self._render_pauses and self._layout_manager is not None:
            for widget in self._layout_manager._view_widgets():
                widget.viewWidget().scheduleRender()

    def restart(self):
        """Leave; a host does not start again by itself."""
        self.quit()

    def loadFiles(self, paths, *_messages):
        """Load files of any known type; tell whether all could be read."""
        loaded = [self._io_manager.loadFile(path) for path in string_tuple(paths)]
        return all(loaded)


@look_alike()
class qSlicerApplication(qSlicerCoreApplication):
    """The application with its windows."""

    startupCompleted = QtCore.Signal()
    renderPaused = QtCore.Signal(bool)

    def setRenderPaused(self, paused):
        """Pause drawing or end one pause."""
        super().setRenderPaused(paused)
        self.renderPaused.emit(paused)

    def commandOptions(self):
        """Return the options given at the start."""
        return self._command_options

    def ioManager(self):
        """Return the IO manager."""
        return self._io_manager

    def layoutManager(self):
        """Return the layout manager; None without a main window."""
        return self._layout_manager

    def setLayoutManager(self, manager):
        """Set the layout manager."""
        self._layout_manager = manager

    def pythonConsole(self):
        """Return None: there is no Python console."""

    def _shut_down(self):
        """Leave every module as Slicer does at its end, then remove the temporary files."""
        self._module_manager.factoryManager()._clean_up()
        shutil.rmtree(self._temporary_folder, ignore_errors=True)


def _add_application_modules(app):
    for name in ("modules", "moduleNames"):
        module = types.ModuleType(f"slicer.{name}")
        sys.modules[f"slicer.{name}"] = module
        setattr(slicer, name, module)
    factory = app.moduleManager().factoryManager()
    for name, logic in app._mrml.module_logics.items():
        module = qSlicerLoadableModule(name, "")
        module.setParent(factory)
        module._logic = logic
        factory._add(module)


def start_application(options: HostOptions | None = None):
    """Start the application in this process: `slicer.app`, `slicer.mrmlScene`, `slicer.modules` and the main window.

    The event loop is left to the caller. A process can start it once.

    Returns:
        The application, which is `slicer.app`.

    Raises:
        RuntimeError: the process has a Qt application already.
    """
    options = HostOptions() if options is None else options
    if QtWidgets.QApplication.instance() is not None:
        raise RuntimeError("this process has a Qt application already: start the host once a process")
    uncaught.install()
    app = qSlicerApplication(options)
    app._command_options = qSlicerCommandOptions(options)
    slicer.app = app
    apply_style(app)
    python_package.close_wheel_leaks()
    python_package.add_python_half()
    app._mrml = create_mrml_application(app._temporary_folder, options.terminology_folder)
    _add_application_modules(app)
    app.aboutToQuit.connect(app._shut_down)
    if not options.no_main_window:
        from slicer_host.main_window import create_main_window

        create_main_window(app)
    app.processEvents()
    return app


__all__ = ["LOOK_ALIKES", "HostOptions", "start_application"]
