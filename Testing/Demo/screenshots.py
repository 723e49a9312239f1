"""Take screenshots of every state of the panel, reached as a user would; run in the host with `make screenshots`."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import qt
import slicer
from PIL import Image
from slicer_host.style import apply_style

LIMIT_S = 120
SETTLE_S = 1.0
WINDOW = (1440, 900)
SMALL_WINDOW = (1280, 720)
XRAY_WINDOW = (1120, 640)
COLOURS = (256, 128, 96, 64)
LARGEST_KB, LARGEST_SUM_KB = 150, 1500
# A worker with so little memory left after loading the model that the result does not fit.
WITHOUT_MEMORY = """
import resource, runpy
from UNetSegmentationLib.inference.predictor import Predictor
segment = Predictor.segment
def segment_in_little_memory(*arguments, **options):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 16 * 2**20, resource.RLIM_INFINITY))
    try:
        return segment(*arguments, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
Predictor.segment = segment_in_little_memory
runpy.run_module("UNetSegmentationLib.worker", run_name="__main__")
"""
# A worker on a computer with nearly full memory.
ON_A_FULL_COMPUTER = """
import runpy
from UNetSegmentationLib.inference import memory
memory.free_bytes = lambda _device: 25_000_000
runpy.run_module("UNetSegmentationLib.worker", run_name="__main__")
"""


def wait_until(holds: Callable[[], Any], what: str) -> None:
    """Keep the window responsive until a condition holds; exit with a message if it never does."""
    end = time.monotonic() + LIMIT_S
    while not holds():
        if time.monotonic() > end:
            sys.exit(f"no screenshots: {what} took longer than {LIMIT_S} s")
        slicer.app.processEvents()
        time.sleep(0.005)


class Photographer:
    """Brings the panel into its states and takes screenshots.

    Args:
        folder: Folder for the screenshots.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sizes_kb: dict[str, float] = {}
        self.window = slicer.util.mainWindow()
        slicer.util.selectModule("UNetSegmentation")
        self.widget = slicer.modules.UNetSegmentationWidget

    @property
    def ui(self) -> Any:
        return self.widget.ui

    @property
    def parameters(self) -> Any:
        return self.widget.logic.getParameterNode()

    @property
    def isRunning(self) -> bool:
        return self.widget.logic.jobs.isRunning

    def takeWindow(self, name: str, size: tuple[int, int] = WINDOW) -> None:
        self.window.resize(*size)
        self.settle()
        self.save(name, self.window.grab())

    def takePanel(self, name: str, *, isMoving: bool = False) -> None:
        """Take only the panel, cropped to its contents; a moving state would end if the panel had to settle first."""
        self.window.resize(*WINDOW)
        if not isMoving:
            self.settle()
        form = self.ui.inputSection.parent()
        picture = form.grab()
        bottom = max(child.y + child.height for child in form.children() if _isShown(child))
        self.save(name, picture.copy(0, 0, picture.width(), min(picture.height(), bottom + 10)))

    def save(self, name: str, picture: Any) -> None:
        path = self.folder / f"{name}.png"
        if not picture.save(str(path)):
            sys.exit(f"the picture could not be written to {path}")
        image = Image.open(path).convert("RGB")
        # As many colours as the size allows; dithering would increase the size several times.
        for colours in COLOURS:
            image.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
            if path.stat().st_size <= 1000 * LARGEST_KB:
                break
        self.sizes_kb[name] = path.stat().st_size / 1000
        sys.stdout.write(f"{self.sizes_kb[name]:6.0f} kB  {path}\n")
        sys.stdout.flush()

    def settle(self) -> None:
        end = time.monotonic() + SETTLE_S
        wait_until(lambda: time.monotonic() > end, "drawing")

    def readLinksAnew(self) -> None:
        """Set link texts again: their colour is set with the text, not when the style changes."""
        for label in (self.ui.modelLabel, self.ui.statusLabel, self.ui.provenanceLabel):
            text = label.text
            label.text = ""
            label.text = text

    def clear(self) -> None:
        slicer.mrmlScene.Clear()
        self.settle()

    def loadSample(self) -> Any:
        self.ui.statusLabel.linkActivated.emit("sample")
        wait_until(lambda: self.ui.applyButton.enabled, "preparing the panel")
        wait_until(lambda: self.widget.logic.jobs.worker.ready, "starting the worker")
        return self.parameters.inputVolume

    def start(self) -> None:
        self.ui.applyButton.click()
        if not self.isRunning:
            sys.exit(f"Apply did not start a run: {self.ui.statusLabel.text}")

    def run(self) -> None:
        self.start()
        wait_until(lambda: not self.isRunning, "a run")


def _isShown(child: Any) -> bool:
    return isinstance(child, qt.QWidget) and child.visible


def takeBeginning(take: Photographer) -> None:
    take.takeWindow("empty-scene")
    take.ui.hintButton.click()
    takeDependencies(take)
    take.loadSample()
    take.takePanel("ready")
    take.clear()


def takeDependencies(take: Photographer) -> None:
    """Simulate that torch is missing, is being installed, and cannot be loaded."""
    from UNetSegmentationPanel.jobs.job import Job, Progress
    from UNetSegmentationPanel.setup import dependencies

    class PretendedInstallation(Job):
        kind = "install"

        def start(self) -> None:
            self._onProgress(Progress(fraction=0.42, stage="Downloading torch (184.5 MB)"))

        def whyWait(self) -> str:
            return ""

    panel = take.widget.panel
    panel.dependencies.state = dependencies.DependencyState(
        kind=dependencies.MISSING, message="PyTorch, which is required for segmentation, is not installed yet."
    )
    panel.refresh()
    take.takePanel("no-torch")
    section = next(one for one in panel.sections if type(one).__name__ == "DependencySection")
    installation = PretendedInstallation(onProgress=section._onProgress, onFinished=lambda _outcome: None)
    panel.jobs.start(installation)
    panel.refresh()
    take.takePanel("installing", isMoving=True)
    installation.abandon("")
    panel.dependencies.state = dependencies.failedToLoad("OSError: libcudnn.so.9: cannot open shared object file")
    panel.refresh()
    take.takePanel("torch-broken")
    panel.dependencies.look()
    panel.refresh()


def takeRuns(take: Photographer) -> None:
    # Large enough to interrupt a run.
    volume = take.loadSample()
    slicer.util.updateVolumeFromArray(volume, np.tile(slicer.util.arrayFromVolume(volume), (4, 3, 3)))
    slicer.util.resetSliceViews()
    worker = take.widget.logic.jobs.worker
    worker.stop()
    worker.command = (sys.executable, "-c", ON_A_FULL_COMPUTER)
    take.widget.panel.enter()
    wait_until(lambda: "memory" in take.ui.statusLabel.text, "the warning about memory")
    take.takePanel("foreseen")
    worker.stop()
    worker.command = None
    take.start()
    wait_until(lambda: "left" in take.ui.statusLabel.text or not take.isRunning, "progress")
    take.takePanel("running", isMoving=True)
    take.ui.applyButton.click()
    wait_until(lambda: not take.isRunning, "a run")
    take.takePanel("cancelled")
    take.start()
    wait_until(lambda: take.ui.progressBar.value > 5, "progress")
    os.kill(worker.ready["pid"], signal.SIGKILL)
    wait_until(lambda: not take.isRunning, "a run")
    take.takePanel("failed")
    worker.stop()
    worker.command = (sys.executable, "-c", WITHOUT_MEMORY)
    take.run()
    if "memory" not in take.ui.statusLabel.text:
        sys.exit(f"memory did not run out: {take.ui.statusLabel.text}")
    take.takePanel("out-of-memory")
    worker.stop()
    worker.command = None
    take.clear()
    # When entered again, the panel starts a new worker.
    take.widget.enter()


def takeResults(take: Photographer) -> None:
    take.loadSample()
    take.run()
    take.takeWindow("panel")
    take.takeWindow("small-window", SMALL_WINDOW)
    takeQuestion(take)
    take.ui.advancedSection.collapsed = False
    take.ui.uncertaintyCheckBox.click()
    take.run()
    take.ui.mostUncertainButton.click()
    take.ui.overlayCheckBox.click()
    take.takeWindow("uncertainty")
    take.ui.overlayCheckBox.click()
    take.ui.uncertaintyCheckBox.click()
    take.ui.advancedSection.collapsed = True
    apply_style(slicer.app, isDark=True)
    take.readLinksAnew()
    take.takeWindow("dark")
    apply_style(slicer.app)
    take.readLinksAnew()


def takeQuestion(take: Photographer) -> None:
    segment = take.parameters.outputSegmentation.GetSegmentation().GetNthSegment(0)
    name = segment.GetName()
    segment.SetName("Head of the hippocampus")
    take.ui.applyButton.click()
    take.takePanel("question")
    take.ui.replaceButton.click()
    wait_until(lambda: not take.isRunning, "a run")
    take.takePanel("undo")
    segment.SetName(name)


def takeInputs(take: Photographer) -> None:
    take.clear()
    take.loadSample()
    take.ui.regionSelector.addNode()
    take.run()
    take.takeWindow("region")
    take.clear()
    for name, values in (("CT", (-900, 40, 60)), ("PET", (0, 1, 9)), ("MR T2", (20, 300, 700))):
        slicer.util.addVolumeFromArray(phantom(*values), name=f"Leg {name}")
    wait_until(lambda: take.parameters.inputVolume is not None, "choosing a volume")
    preset = take.ui.presetComboBox
    preset.setCurrentIndex(preset.findData("multimodal"))
    slicer.util.setSliceViewerLayers(background=take.parameters.inputVolume, fit=True)
    take.takePanel("channels")
    take.clear()
    slicer.util.loadVolume(str(Path("Resources/Samples/xray_lungs.png").resolve()))
    wait_until(lambda: take.ui.applyButton.enabled, "preparing the panel")
    layout = slicer.app.layoutManager().layout
    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    take.run()
    slicer.util.resetSliceViews()
    take.takeWindow("xray", XRAY_WINDOW)
    slicer.app.layoutManager().setLayout(layout)
    take.clear()


def phantom(outside: float, tissue: float, tumour: float) -> np.ndarray:
    """Return a leg with a tumour, as an image with three values."""
    k, j, i = np.ogrid[:40, :64, :64]
    leg = ((j - 32) / 26) ** 2 + ((i - 32) / 24) ** 2 < 1
    lump = ((k - 20) / 9) ** 2 + ((j - 26) / 8) ** 2 + ((i - 40) / 7) ** 2 < 1
    return np.where(lump, tumour, np.where(leg, tissue, outside)).astype(np.float32)


PARTS = {"beginning": takeBeginning, "runs": takeRuns, "results": takeResults, "inputs": takeInputs}


def main() -> None:
    """Take the screenshots; `sys.exit` ends the application with its exit code."""
    parser = argparse.ArgumentParser(prog="screenshots.py", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("Resources/Screenshots"), help="folder for the screenshots")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="states to take")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    take = Photographer(options.output)
    for name in options.parts:
        PARTS[name](take)
    too_large = [name for name, size in take.sizes_kb.items() if size > LARGEST_KB]
    total = sum(take.sizes_kb.values())
    sys.stdout.write(f"{total:6.0f} kB  in total\n")
    if too_large or total > LARGEST_SUM_KB:
        sys.exit(f"too large for the repository: {', '.join(too_large) or 'all screenshots'}")
    sys.exit(0)


main()
