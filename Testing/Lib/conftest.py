"""What several tests of the library need: a model that is there at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from UNetSegmentationLib.backends.parts.engine import BACKEND_VARIABLE
from UNetSegmentationLib.backends.parts.store import FOLDER_VARIABLE
from UNetSegmentationLib.core.files import sha256_of
from UNetSegmentationLib.core.task import Event, Task
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.image.labels import Label
from UNetSegmentationLib.image.volume_io import write_labelmap, write_volume
from UNetSegmentationLib.models.description import WEIGHTS_FILE, Channel, ModelDescription, write_description
from UNetSegmentationLib.models.installed import MODELS_VARIABLE
from UNetSegmentationLib.networks import build_network
from UNetSegmentationLib.networks.parts.weights import save_weights
from UNetSegmentationLib.planning.plan import Normalization, Plan

COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115))


def make_tiny_model(
    folder: Path,
    *,
    channels: int = 1,
    labels: int = 2,
    patch_size: tuple[int, int, int] = (16, 16, 16),
    dimensions: int = 3,
    preset: str = "mri",
    features: tuple[int, ...] = (4, 8),
    seed: int = 0,
) -> Path:
    """Write a model folder with the random weights of `seed`; what it finds is arbitrary but always the same."""
    plan = Plan(
        dimensions=dimensions,
        spacing_mm=(1.0, 1.0, 1.0) if dimensions == 3 else (0.0, 0.0, 0.0),
        patch_size=patch_size,
        batch_size=2,
        orientation="RAS" if dimensions == 3 else "stored",
        normalization=(Normalization(scheme="zscore"),) * channels,
        mirror_axes=(2,),
    )
    config = {
        "in_channels": channels,
        "num_classes": labels + 1,
        "dimensions": dimensions,
        "features_per_stage": list(features),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network("unet", config)
    folder.mkdir(parents=True)
    save_weights(folder / WEIGHTS_FILE, network)
    description = ModelDescription(
        id=folder.name,
        title=f"Tiny {folder.name}",
        network="unet",
        network_config=config,
        plan=plan,
        preset=preset,
        channels=tuple(Channel(name=f"sequence {index + 1}") for index in range(channels)),
        labels=tuple(Label(value=n + 1, name=f"Structure {n + 1}", color=COLORS[n]) for n in range(labels)),
        weights_sha256=sha256_of(folder / WEIGHTS_FILE),
    )
    write_description(folder, description)
    return folder


def events_of(
    work: Callable[..., object], *arguments: object, is_cancelled: Callable[[], bool] | None = None, **options: object
) -> list[Event]:
    """Do some work to its end and return the events that it told its task."""
    events: list[Event] = []
    work(*arguments, task=Task(events.append, is_cancelled), **options)
    return events


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own: nothing is measured into the user's, and nothing known from there."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(BACKEND_VARIABLE, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def tiny_model(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a model folder `tmp_path/models/<name>`; see make_tiny_model for its options."""

    def make(name: str = "tiny", **options: object) -> Path:
        return make_tiny_model(tmp_path / "models" / name, **options)

    return make


@pytest.fixture
def write_balls() -> Callable[..., Path]:
    """Return a function that writes a data set of noise with a bright ball in it."""

    def write(folder: Path, count: int = 4) -> Path:
        rng = np.random.default_rng(0)
        (folder / "images").mkdir(parents=True)
        (folder / "labels").mkdir()
        for number in range(count):
            centre = rng.integers(5, 11, 3)[:, None, None, None]
            inside = (((np.indices((16, 16, 16)) - centre) ** 2).sum(axis=0) < 16).astype(np.uint8)
            array = (rng.normal(0, 10, (16, 16, 16)) + 60 * inside).astype(np.int16)
            write_volume(folder / "images" / f"case{number}.nii.gz", Volume(array[None], np.eye(4)))
            write_labelmap(folder / "labels" / f"case{number}.nii.gz", inside, affine_ras=np.eye(4))
        return folder

    return write


@pytest.fixture
def only_our_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide what is installed on this machine and what ships; models are looked for in `tmp_path/models`."""
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "models"))
    monkeypatch.setattr("UNetSegmentationLib.models.installed.user_models_folder", lambda: tmp_path / "none")
    monkeypatch.setattr("UNetSegmentationLib.models.installed.bundled_models_folder", lambda: tmp_path / "none")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread: tiny networks take longer with several, and the other core is left alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
