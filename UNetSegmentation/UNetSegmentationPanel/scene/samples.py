"""Sample images bundled with the extension."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer

from UNetSegmentationLib.models.installed import bundled_resources_folder

FOLDER = "Samples"
# The smallest sample, with the most accurate model.
FIRST = "mri_hippocampus"
IMAGE_SUFFIXES = (".nii.gz", ".nrrd", ".mha", ".png")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A bundled sample image."""

    name: str
    path: Path


def available() -> list[Sample]:
    """Return the sample images, FIRST first, without the reference segmentations in the same folder.

    The reference of NAME.nii.gz is NAME_anything.nii.gz or NAME.seg.nrrd.
    """
    folder = bundled_resources_folder() / FOLDER
    paths = sorted(folder.glob("*")) if folder.is_dir() else []
    files = [path for path in paths if path.name.endswith(IMAGE_SUFFIXES) and not path.name.endswith(".seg.nrrd")]
    found = [Sample(name=path.name.split(".", maxsplit=1)[0], path=path) for path in files]
    images = [one for one in found if not any(one.name.startswith(f"{other.name}_") for other in found)]
    return sorted(images, key=lambda sample: sample.name != FIRST)


def load() -> Any:
    """Load the first sample into the scene and return its volume node, or None if there is no sample."""
    found = available()
    return slicer.util.loadVolume(str(found[0].path)) if found else None


def register() -> None:
    """Register the samples with Slicer's Sample Data module, if available."""
    try:
        import SampleData
    except ImportError:
        return
    for sample in available():
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category="UNetSegmentation",
            sampleName=sample.name,
            uris=sample.path.resolve().as_uri(),
            fileNames=sample.path.name,
            nodeNames=sample.name,
            loadFileType="VolumeFile",
        )
