"""Which presets, networks and models there are, and which of them a user's choices mean; nothing is imported for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from UNetSegmentationLib.core.registry import Registry
from UNetSegmentationLib.models.installed import InstalledModel
from UNetSegmentationLib.presets import PRESETS

FIRST_PRESET = "mri"
FIRST_NETWORK = "unet"


def declaredPresets() -> dict[str, str]:
    """Return titles of the modality presets by name."""
    return PRESETS.declared


def declaredNetworks() -> dict[str, str]:
    """Return titles of the networks by name, read from their sources: importing them would load torch."""
    return Registry("network", "UNetSegmentationLib.networks").declared


def modalitiesByPreset() -> dict[str, tuple[str, ...]]:
    """Return the DICOM modality codes that each preset stands for."""
    return {name: preset.modalities for name, preset in PRESETS.items()}


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the menus offer and what is chosen in them.

    Attributes:
        preset: Name of the preset.
        networks: Name, title and whether a model of it fits the preset, for every network; those with models first.
        network: Name of the network.
        models: Models of that network that fit the preset.
        model: The chosen one; None where there is none.
    """

    preset: str
    networks: tuple[tuple[str, str, bool], ...]
    network: str
    models: tuple[InstalledModel, ...]
    model: InstalledModel | None


def findChoices(
    installed: Sequence[InstalledModel],
    *,
    preset: str,
    network: str,
    model: str,
    networkTitles: Mapping[str, str],
) -> Choices:
    """Return what a user's choices mean; an empty or vanished choice takes the first that works.

    Args:
        installed: All models.
        preset: Chosen preset or empty.
        network: Chosen network or empty.
        model: Chosen model's id or empty.
        networkTitles: Titles of the networks by name.
    """
    preset = preset or FIRST_PRESET
    fitting = [entry for entry in installed if entry.description.preset == preset]
    withModel = {entry.description.network for entry in fitting}
    order = sorted(networkTitles, key=lambda name: (name not in withModel, name != FIRST_NETWORK, networkTitles[name]))
    if network not in networkTitles:
        network = order[0] if order else ""
    models = tuple(entry for entry in fitting if entry.description.network == network)
    chosen = next((entry for entry in models if entry.description.id == model), models[0] if models else None)
    networks = tuple((name, networkTitles[name], name in withModel) for name in order)
    return Choices(preset=preset, networks=networks, network=network, models=models, model=chosen)
