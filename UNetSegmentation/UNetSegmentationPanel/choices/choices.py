"""Available presets, networks and models, and the current choice among them; found without importing them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from UNetSegmentationLib.core.registry import Registry
from UNetSegmentationLib.models.installed import InstalledModel
from UNetSegmentationLib.presets import PRESETS

FIRST_PRESET = "mri"
FIRST_NETWORK = "unet"


def declaredPresets() -> dict[str, str]:
    """Return the titles of the modality presets by name."""
    return PRESETS.declared


def declaredNetworks() -> dict[str, str]:
    """Return the titles of the networks by name, read from their sources because importing them would load torch."""
    return Registry("network", "UNetSegmentationLib.networks").declared


def modalitiesByPreset() -> dict[str, tuple[str, ...]]:
    """Return the DICOM modality codes of each preset."""
    return {name: preset.modalities for name, preset in PRESETS.items()}


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Entries of the menus and the current choices.

    Attributes:
        preset: Name of the preset.
        networks: Name and title of each network, and whether it has a model for the preset; those with models first.
        network: Name of the network.
        models: Models of this network for the preset.
        model: The chosen model, or None.
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
    """Resolve the user's choices; an empty or unavailable choice is replaced by the first suitable entry.

    Args:
        installed: All installed models.
        preset: Chosen preset, or empty.
        network: Chosen network, or empty.
        model: ID of the chosen model, or empty.
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
