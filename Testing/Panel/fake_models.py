"""Model folders whose id tells the fake worker how to behave."""

from pathlib import Path

from UNetSegmentationLib.labels import Label
from UNetSegmentationLib.model_folder import Channel, ModelDescription, write_description
from UNetSegmentationLib.planning import Normalization, Plan

BEHAVIOURS = ("plain", "slow", "deaf", "crash", "refuse", "empty")
LABELS = (
    Label(value=1, name="Body", color=(210, 160, 120)),
    Label(value=2, name="Core", color=(220, 60, 50)),
    Label(value=5, name="Absent", color=(60, 90, 220)),
)
CARD = "# Spheres\n\nTrained on **spheres**, for tests.\n"


def describe(identifier: str, *, network: str = "unet", preset: str = "mri", channels: int = 1) -> ModelDescription:
    """Return the description of a model that finds bright spheres."""
    plan = Plan(
        dimensions=3,
        spacing_mm=(1.0, 1.0, 1.0),
        patch_size=(16, 16, 16),
        batch_size=1,
        orientation="RAS",
        normalization=(Normalization(scheme="zscore"),) * channels,
        mirror_axes=(),
    )
    return ModelDescription(
        id=identifier,
        title=f"Spheres, {identifier}",
        network=network,
        network_config={},
        plan=plan,
        preset=preset,
        channels=tuple(Channel(name=f"channel {index}") for index in range(channels)),
        labels=LABELS,
        figures={"cases": 12, "labels": {"Body": {"dice": 0.9}, "Core": {"dice": 0.8}}},
        licence="CC BY 4.0",
    )


def write_models(folder: Path) -> None:
    """Write one model for each behaviour, for MRI, and two for CT."""
    descriptions = [describe(behaviour) for behaviour in BEHAVIOURS]
    for description in [*descriptions, describe("ct-other", preset="ct"), describe("ct-plain", preset="ct")]:
        path = folder / description.id
        path.mkdir(parents=True)
        write_description(path, description)
        (path / "CARD.md").write_text(CARD, encoding="utf-8")
