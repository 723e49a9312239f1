"""Segment the bundled case as a user would: open the panel, load the sample, press Apply, look at the result.

The host runs it: `make demo`.
"""

import argparse
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import slicer

LIMIT_S = 120
# Views draw a moment after their data changed.
SETTLE_S = 1.5


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Keep the window alive until a claim holds; leave with a sentence where it does not come to hold."""
    end = time.monotonic() + LIMIT_S
    while not holds():
        if time.monotonic() > end:
            sys.exit(f"the demo gave up: {what} did not happen within {LIMIT_S} s")
        slicer.app.processEvents()
        time.sleep(0.005)


def settle() -> None:
    end = time.monotonic() + SETTLE_S
    wait_until(lambda: time.monotonic() > end, "drawing")


def segment_sample(widget: Any) -> tuple[Any, Any]:
    """Follow the panel's link to the sample, press Apply, and return the nodes of volume and result."""
    ui, parameters = widget.ui, widget.logic.getParameterNode()
    if "sample" not in ui.statusLabel.text:
        sys.exit("the panel offers no sample image: Resources/Samples holds none")
    ui.statusLabel.linkActivated.emit("sample")
    wait_until(lambda: parameters.inputVolume is not None, "loading the sample")
    say(f"volume    {parameters.inputVolume.GetName()}")
    say(f"model     {ui.modelComboBox.currentText}: {plain(ui.modelLabel.text)}")
    if not ui.applyButton.enabled:
        sys.exit(f"Apply cannot be pressed: {plain(ui.statusLabel.text)}")
    start = time.monotonic()
    ui.applyButton.click()
    if ui.applyButton.text != "Cancel":
        sys.exit(f"Apply started nothing: {plain(ui.statusLabel.text)}")
    wait_until(lambda: ui.applyButton.text == "Apply", "the end of the run")
    say(f"result    {plain(ui.statusLabel.text)} ({time.monotonic() - start:.1f} s after Apply was pressed)")
    if parameters.outputSegmentation is None:
        sys.exit(1)
    return parameters.inputVolume, parameters.outputSegmentation


def plain(text: str) -> str:
    """Return rich text without its marks and links."""
    return re.sub(r"<[^>]+>", "", re.sub(r"<a .*?</a>", "", text)).strip()


def save_picture(path: Path) -> None:
    settle()
    path.parent.mkdir(parents=True, exist_ok=True)
    if not slicer.util.mainWindow().grab().save(str(path)):
        sys.exit(f"the picture could not be written to {path}")
    say(f"picture   {path}")


def measure(saved: Path, volume: Any) -> dict[str, float]:
    """Return the Dice of each segment of the saved file against the sample's reference, on the volume's grid."""
    from UNetSegmentationLib.evaluation.metrics import dice
    from UNetSegmentationLib.image.volume_io import read_labelmap

    reference = read_labelmap(find_reference(volume)).array[0]
    segmentation = slicer.util.loadSegmentation(str(saved))
    segments = segmentation.GetSegmentation()
    figures = {}
    for label in model_labels():
        segment_id = segments.GetSegmentIdBySegmentName(label.name)
        found = np.zeros(reference.shape, bool)
        if segment_id:
            found = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume) > 0
        figures[label.name] = dice(found, reference == label.value)
    slicer.mrmlScene.RemoveNode(segmentation)
    return figures


def find_reference(volume: Any) -> Path:
    """Return the reference segmentation that lies beside the sample."""
    image = Path(volume.GetStorageNode().GetFileName())
    stem = image.name.split(".", maxsplit=1)[0]
    found = sorted({*image.parent.glob(f"{stem}_*.nii.gz"), *image.parent.glob(f"{stem}.seg.nrrd")} - {image})
    if not found:
        sys.exit(f"there is no reference segmentation beside {image}")
    return found[0]


def model_labels() -> tuple[Any, ...]:
    from UNetSegmentationLib.models.installed import find_model

    chosen = slicer.util.getModuleWidget("UNetSegmentation").ui.modelComboBox.currentData
    return find_model(chosen).description.labels


def main() -> None:
    """Run the demo; `sys.exit` leaves the application with its exit code."""
    parser = argparse.ArgumentParser(prog="demo.py", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder for the result and the picture")
    parser.add_argument("--picture", type=Path, help="where to save the picture instead")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    slicer.util.selectModule("UNetSegmentation")
    volume, segmentation = segment_sample(slicer.util.getModuleWidget("UNetSegmentation"))
    save_picture(options.picture or options.output / "window.png")
    saved = options.output / f"{volume.GetName()}.seg.nrrd"
    if not slicer.util.saveNode(segmentation, str(saved)):
        sys.exit(f"the result could not be written to {saved}")
    say(f"saved     {saved}")
    figures = measure(saved, volume)
    for name, value in figures.items():
        say(f"Dice      {value:.3f}  {name}")
    say(f"Dice      {np.mean(list(figures.values())):.3f}  mean, against the bundled reference")
    sys.exit(0)


main()
