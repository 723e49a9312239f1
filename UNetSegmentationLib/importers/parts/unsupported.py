"""Models that are recognised but cannot be imported, with advice."""

from __future__ import annotations

from pathlib import Path


def reason_against(folder: Path) -> str | None:
    """Return why the model in a folder cannot be imported, or None if it is not recognised."""
    if any(folder.rglob("plans.pkl")) or any(folder.rglob("*.model.pkl")):
        return (
            f"{folder.name} is a model of nnU-Net v1, whose plans are code (plans.pkl), so they are not read: train "
            "the data set again with nnU-Net v2"
        )
    for name in ("*.ts", "*.torchscript"):
        for script in sorted(folder.rglob(name)):
            return f"{script.name} is TorchScript, which is code, so it is not read: choose the training folder"
    return None
