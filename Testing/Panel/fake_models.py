"""Model folders whose id tells the fake worker how to behave."""

from pathlib import Path

from UNetSegmentationLib.image.labels import Label
from UNetSegmentationLib.models.description import Channel, ModelDescription, write_description
from UNetSegmentationLib.planning.plan import Normalization, Plan

BEHAVIOURS = ("plain", "slow", "deaf", "crash", "refuse", "empty", "vast")
LABELS = (
    Label(value=1, name="Body", color=(210, 160, 120)),
    Label(value=2, name="Core", color=(220, 60, 50)),
    Label(value=5, name="Absent", color=(60, 90, 220)),
)
CARD = "# Spheres\n\nTrained on **spheres**, for tests.\n"


SINGLE = (Channel(name="image"),)
PAIR = (Channel(name="T1"), Channel(name="FLAIR"))
FUSED = tuple(Channel(name=name, is_optional=True) for name in ("T1", "T1 contrast", "FLAIR"))


def describe(
    identifier: str,
    *,
    network: str = "unet",
    preset: str = "mri",
    dimensions: int = 3,
    title: str | None = None,
    channels: tuple[Channel, ...] = SINGLE,
) -> ModelDescription:
    """Return the description of a model that finds bright spheres."""
    plan = Plan(
        dimensions=dimensions,
        spacing_mm=(1.0, 1.0, 1.0),
        patch_size=(16 if dimensions == 3 else 1, 16, 16),
        batch_size=1,
        orientation="RAS",
        normalization=(Normalization(scheme="zscore"),) * len(channels),
        mirror_axes=(),
    )
    return ModelDescription(
        id=identifier,
        title=title or f"Spheres, {identifier}",
        network=network,
        network_config={},
        plan=plan,
        preset=preset,
        channels=channels,
        labels=LABELS,
        figures={"cases": 12, "labels": {"Body": {"dice": 0.9}, "Core": {"dice": 0.8}}},
        licence="CC BY 4.0",
    )


def write_models(folder: Path) -> None:
    """Write one model for each behaviour and two of several channels, for MRI, two for CT and one for X-ray."""
    descriptions = [describe(behaviour) for behaviour in BEHAVIOURS]
    descriptions += [describe("pair", channels=PAIR), describe("fused", channels=FUSED)]
    descriptions += [describe("ct-other", preset="ct"), describe("ct-plain", preset="ct")]
    descriptions.append(describe("xray-plain", preset="xray", dimensions=2))
    for description in descriptions:
        path = folder / description.id
        path.mkdir(parents=True)
        write_description(path, description)
        (path / "CARD.md").write_text(CARD, encoding="utf-8")
