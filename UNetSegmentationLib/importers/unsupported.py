"""Models that are known for what they are but cannot be imported, and what would help."""

from __future__ import annotations

import json
from pathlib import Path

MONAI_METADATA = "metadata.json"
MONAI_CONFIGURATIONS = ("inference.json", "train.json")


def reason_against(folder: Path) -> str | None:
    """Return the reason why the model in a folder cannot be imported; None where nothing is recognised."""
    for metadata in sorted(folder.rglob(f"configs/{MONAI_METADATA}")):
        network = _monai_network(metadata.parent)
        named = f" with the network {network}" if network else ""
        return (
            f"{metadata.parent.parent.name} is a MONAI bundle{named}: bundles are not imported, because their "
            "transforms and networks have no equal here; train on the same data with `unetseg train`, or import an "
            "nnU-Net v2 model"
        )
    if any(folder.rglob("plans.pkl")) or any(folder.rglob("*.model.pkl")):
        return (
            f"{folder.name} is a model of nnU-Net v1, whose plans are code (plans.pkl), so they are not read: train "
            "the data set again with nnU-Net v2"
        )
    for name in ("*.ts", "*.torchscript"):
        for script in sorted(folder.rglob(name)):
            return f"{script.name} is TorchScript, which is code, so it is not read: give the folder of the training"
    return None


def _monai_network(configs: Path) -> str:
    """Return the `_target_` of a bundle's network; empty where the configuration does not say."""
    for name in MONAI_CONFIGURATIONS:
        try:
            values = json.loads((configs / name).read_text(encoding="utf-8"))
            return str((values.get("network_def") or values["network"])["_target_"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return ""
