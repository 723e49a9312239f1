"""Segment the bundled case as a user would: open the panel, load the sample, press Apply, check the result.

Run in the host with `make demo`.
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
# Views are redrawn a moment after their data has changed.
SETTLE_S = 1.5


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Keep the window responsive until a condition holds; exit with a message if it never does."""
    end = time.monotonic() + LIMIT_S
    while not holds():
        if time.monotonic() > end:
            sys.exit(f"the demo failed: {what} took longer than {LIMIT_S} s")
        slicer.app.processEvents()
        time.sleep(0.005)


def settle() -> None:
    end = time.monotonic() + SETTLE_S
    wait_until(lambda: time.monotonic() > end, "drawing")


def segment_sample(widget: Any) -> tuple[Any, Any]:
    """Follow the panel's link to the sample, press Apply, and return the volume and segmentation nodes."""
    ui, parameters = widget.ui, widget.logic.getParameterNode()
    if "sample" not in ui.statusLabel.text:
        sys.exit("the panel offers no sample image: Resources/Samples contains none")
    ui.statusLabel.linkActivated.emit("sample")
    wait_until(lambda: parameters.inputVolume is not None, "loading the sample")
    say(f"volume    {parameters.inputVolume.GetName()}")
    say(f"model     {ui.modelComboBox.currentText}: {plain(ui.modelLabel.text)}")
    if not ui.applyButton.enabled:
        sys.exit(f"Apply is disabled: {plain(ui.statusLabel.text)}")
    start = time.monotonic()
    ui.applyButton.click()
    if ui.applyButton.text != "Cancel":
        sys.exit(f"Apply did not start a run: {plain(ui.statusLabel.text)}")
    wait_until(lambda: ui.applyButton.text == "Apply", "the run")
    say(f"result    {plain(ui.statusLabel.text)} ({time.monotonic() - start:.1f} s after pressing Apply)")
    if parameters.outputSegmentation is None:
        sys.exit(1)
    return parameters.inputVolume, parameters.outputSegmentation


def plain(text: str) -> str:
    """Return rich text without tags and links."""
    return re.sub(r"<[^>]+>", "", re.sub(r"<a .*?</a>", "", text)).strip()


def save_picture(path: Path) -> None:
    settle()
    path.parent.mkdir(parents=True, exist_ok=True)
    if not slicer.util.mainWindow().grab().save(str(path)):
        sys.exit(f"the picture could not be written to {path}")
    say(f"picture   {path}")


def measure(saved: Path, volume: Any) -> dict[str, float]:
    """Return the Dice of each saved segment against the sample's reference, on the grid of the volume."""
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
    """Return the reference segmentation next to the sample."""
    image = Path(volume.GetStorageNode().GetFileName())
    stem = image.name.split(".", maxsplit=1)[0]
    found = sorted({*image.parent.glob(f"{stem}_*.nii.gz"), *image.parent.glob(f"{stem}.seg.nrrd")} - {image})
    if not found:
        sys.exit(f"there is no reference segmentation next to {image}")
    return found[0]


def model_labels() -> tuple[Any, ...]:
    from UNetSegmentationLib.models.installed import find_model

    chosen = slicer.util.getModuleWidget("UNetSegmentation").ui.modelComboBox.currentData
    return find_model(chosen).description.labels


def main() -> None:
    """Run the demo; `sys.exit` ends the application with its exit code."""
    parser = argparse.ArgumentParser(prog="demo.py", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder for the result and the picture")
    parser.add_argument("--picture", type=Path, help="file for the picture, if not in the output folder")
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
