"""Drives the panel as a person does: chooses in menus, presses buttons, waits and looks."""

import ctypes
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import qt
import shiboken6
import slicer
from slicer_host.pythonqt import QtCore

WAIT_S = 8.0
FAKE_WORKER = (sys.executable, "-u", str(Path(__file__).with_name("fake_worker.py")))


def spin(claim: Callable[[], bool], seconds: float = WAIT_S) -> bool:
    """Keep the window alive until a claim holds; False when it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > end:
            return False
        slicer.app.processEvents()
        time.sleep(0.002)
    return True


def turnAsSlicer(seconds: float) -> None:
    """Let the event loop turn without giving up Python's lock, as Slicer's does and PySide's does not.

    A thread gets on only while a timer or an observer runs Python.
    """
    library = next((Path(QtCore.__file__).parent / "Qt" / "lib").glob("libQt6Core.so.*"))
    execute = ctypes.PyDLL(str(library))["_ZN10QEventLoop4execE6QFlagsINS_17ProcessEventsFlagEE"]
    execute.argtypes = (ctypes.c_void_p, ctypes.c_int)
    loop = QtCore.QEventLoop()
    QtCore.QTimer.singleShot(round(seconds * 1000), loop, QtCore.SLOT("quit()"))
    execute(shiboken6.getCppPointer(loop)[0], 0)


def spheres(size: int = 40, dtype: Any = np.int16) -> np.ndarray:
    """Return (size, size, size) voxels: background 10, a body of 150 and in it a core of 250."""
    axes = np.ogrid[:size, :size, :size]
    radius = np.sqrt(sum((axis - size / 2) ** 2 for axis in axes))
    return np.where(radius < size / 5, 250, np.where(radius < size / 2.6, 150, 10)).astype(dtype)


class PanelDriver:
    """The panel with a fake worker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self) -> None:
        slicer.util.selectModule("UNetSegmentation")
        self.widget = slicer.modules.UNetSegmentationWidget
        self.jobs = self.widget.logic.jobs
        self.jobs.worker.stop()
        self.jobs.worker.command = FAKE_WORKER
        # Opened anew, the panel sees the models of this test.
        self.widget.enter()
        # What the test before imported.
        self.ui.importButton.click()

    @property
    def ui(self) -> Any:
        return self.widget.ui

    @property
    def parameters(self) -> Any:
        return self.widget.logic.getParameterNode()

    @property
    def says(self) -> str:
        return self.ui.statusLabel.text if self.ui.statusLabel.visible else ""

    def addVolume(self, array: np.ndarray | None = None, name: str = "Head") -> Any:
        volume = slicer.util.addVolumeFromArray(spheres() if array is None else array, name=name)
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        slicer.app.processEvents()
        return volume

    def choose(self, combo: Any, name: str) -> None:
        index = combo.findData(name)
        assert index >= 0, f"{name} is not offered"
        combo.setCurrentIndex(index)

    def chooseModel(self, name: str) -> None:
        self.choose(self.ui.modelComboBox, name)

    def press(self) -> None:
        """Press the button that says Apply or Cancel."""
        assert self.ui.applyButton.enabled, self.says
        self.ui.applyButton.click()

    def waitForEnd(self) -> None:
        assert spin(lambda: not self.jobs.isRunning), self.says

    def run(self, model: str = "plain") -> None:
        self.chooseModel(model)
        self.press()
        self.waitForEnd()

    def section(self, name: str) -> Any:
        """Return the section of the panel whose class has a name; a reload makes other classes of the same name."""
        return next(section for section in self.widget.panel.sections if type(section).__name__ == name)

    def segmentations(self) -> list[Any]:
        return list(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"))

    def close(self) -> None:
        self.jobs.abandonSceneJob("The test is over.")
        spin(lambda: not self.leftovers(), 2.0)
        self.jobs.worker.stop()

    def leftovers(self) -> list[str]:
        """Return the folders of jobs that are still there."""
        return [path.name for path in Path(slicer.app.temporaryPath).glob("UNetSegmentation-*")]


class Heartbeat:
    """Measures how long the main thread was busy at a stretch, with a timer of 10 ms."""

    def __enter__(self) -> "Heartbeat":
        # A full collection of the objects that pytest keeps takes 0.2 s by itself.
        gc.collect()
        gc.freeze()
        self.gaps_s: list[float] = []
        self._last = time.perf_counter()
        self._timer = qt.QTimer()
        self._timer.setInterval(10)
        self._timer.connect("timeout()", self._beat)
        self._timer.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._beat()
        self._timer.stop()
        gc.unfreeze()

    def _beat(self) -> None:
        now = time.perf_counter()
        self.gaps_s.append(now - self._last)
        self._last = now
