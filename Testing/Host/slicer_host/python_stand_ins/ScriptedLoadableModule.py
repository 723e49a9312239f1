"""Stand-in for `slicer.ScriptedLoadableModule`: the four base classes of a scripted module."""

import importlib
import logging
import unittest
from pathlib import Path

import ctk
import qt
import slicer

__all__ = [
    "ScriptedLoadableModule",
    "ScriptedLoadableModuleLogic",
    "ScriptedLoadableModuleTest",
    "ScriptedLoadableModuleWidget",
]

_NODE_CLASS = "vtkMRMLScriptedModuleNode"


class ScriptedLoadableModule:
    """Describes the module; `parent` is the application's module object."""

    def __init__(self, parent):
        super().__init__()
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title = ""
        for name in ("categories", "dependencies", "contributors"):
            setattr(parent, name, [])
        icons = Path(parent.path).parent / "Resources" / "Icons"
        for icon in (icons / f"{self.moduleName}.svg", icons / f"{self.moduleName}.png"):
            if icon.is_file():
                parent.icon = qt.QIcon(str(icon))
                break
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename):
        """Return the path of a file of the module's folder `Resources`."""
        return str(Path(self.parent.path).parent / "Resources" / filename)

    def getDefaultModuleDocumentationLink(self, docPage=None):
        """Return HTML with a link to the module's documentation."""
        base = slicer.app.documentationBaseUrl
        url = base + docPage if docPage else slicer.app.moduleDocumentationUrl(self.moduleName)
        return f'<p>More in the <a href="{url}">online documentation</a>.</p>'

    def runTest(self, msec=100, **kwargs):
        """Run the module's test class."""
        name = f"{self.moduleName}Test"
        test_class = getattr(importlib.import_module(type(self).__module__), name, None)
        if test_class is None:
            raise AssertionError(f"there is no test class {name} in {type(self).__module__}")
        test = test_class()
        test.messageDelay = msec
        test.runTest(**kwargs)


class ScriptedLoadableModuleWidget:
    """The module's panel; `parent` is the application's widget for it."""

    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = slicer.util.settingsValue("Developer/DeveloperMode", False, converter=slicer.util.toBool)
        self.parent = parent if parent else slicer.qMRMLWidget()
        if not parent:
            self.parent.setLayout(qt.QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        self.layout = self.parent.layout()
        if not parent:
            self.setup()
            self.parent.show()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, filename):
        """Return the path of a file of the module's folder `Resources`."""
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / filename)

    def setup(self):
        """Build the panel."""
        self.setupDeveloperSection()

    def cleanup(self):
        """Undo what `setup` did; called before the module goes."""

    def _onModuleAboutToBeUnloaded(self, name):
        if name == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def setupDeveloperSection(self):
        """In developer mode, add the buttons that reload and test the module."""
        if not self.developerMode:
            return
        self.reloadCollapsibleButton = ctk.ctkCollapsibleButton()
        self.reloadCollapsibleButton.text = "Reload && Test"
        self.layout.addWidget(self.reloadCollapsibleButton)
        row = qt.QHBoxLayout(self.reloadCollapsibleButton)
        self.reloadButton, self.testButton = qt.QPushButton("Reload"), qt.QPushButton("Reload and Test")
        for button, slot in ((self.reloadButton, self.onReload), (self.testButton, self.onReloadAndTest)):
            button.connect("clicked()", slot)
            row.addWidget(button)

    def onReload(self):
        """Load the module's file and build the panel anew."""
        logging.info("Reloading module: %s", self.moduleName)
        slicer.util.reloadScriptedModule(self.moduleName)

    def onTest(self, **kwargs):
        """Run the module's tests."""
        with slicer.util.tryWithErrorDisplay("Test failed."):
            slicer.selfTests[self.moduleName](**kwargs)

    def onReloadAndTest(self, **kwargs):
        """Reload, then run the module's tests."""
        with slicer.util.tryWithErrorDisplay("Reload and Test failed."):
            self.onReload()
            slicer.selfTests[self.moduleName](**kwargs)


class ScriptedLoadableModuleLogic:
    """The module's computations and its parameter node."""

    def __init__(self, parent=None):  # noqa: ARG002 - Slicer's signature
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getAllParameterNodes(self):
        """Return every parameter node of this module in the scene."""
        nodes = slicer.util.getNodesByClass(_NODE_CLASS)
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def getParameterNode(self):
        """Return the module's parameter node, made where the scene has none."""
        if self.isSingletonParameterNode:
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, _NODE_CLASS)
            if node is not None:
                # Closing the scene takes the attributes of singleton nodes away.
                node.SetAttribute("ModuleName", self.moduleName)
                return node
        else:
            nodes = self.getAllParameterNodes()
            if nodes:
                return nodes[0]
        return slicer.mrmlScene.AddNode(self.createParameterNode())

    def createParameterNode(self):
        """Return a new parameter node outside the scene."""
        node = slicer.mrmlScene.CreateNodeByClass(_NODE_CLASS)
        node.UnRegister(None)
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """The module's self test: every method with "test" in its name, or those of `moduleTestNames`."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.messageDelay = None

    def delayDisplay(self, message, requestedDelay=None, msec=None):
        """Show a message for a moment, so that the event loop can turn."""
        delays = (self.messageDelay, msec, requestedDelay, 100)
        slicer.util.delayDisplay(message, next(item for item in delays if item is not None))

    def runTest(self):
        """Run the tests, each between `setUp` and `tearDown`."""
        reserved = dir(ScriptedLoadableModuleTest)
        default = [name for name in dir(self) if "test" in name.lower() and name not in reserved]
        names = getattr(self, "moduleTestNames", default)
        if not names:
            logging.warning("No test is defined in %s", type(self).__name__)
        for name in names:
            method = getattr(self, name)
            if callable(method):
                self.setUp()
                method()
                self.tearDown()
