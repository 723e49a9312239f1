"""Why a run cannot start, and why its result may be wrong, as far as this is known beforehand."""

from typing import Any

from slicer.i18n import tr as _

from UNetSegmentationLib.image.geometry import spacing_of
from UNetSegmentationLib.models.fit import spacing_warning

from ..choices import channels, wording
from ..choices.choices import Choices
from ..choices.modality import Look
from ..choices.parameters import regionNode
from ..scene import samples, scene_exchange
from ..setup.dependencies import DependencyState


def whyNoRun(parameters: Any, found: Choices, *, dependencies: DependencyState, whyWait: str) -> str:
    """Return why no run can be started, in one sentence that says what to do; empty if it can.

    Args:
        parameters: The parameter node.
        found: The resolved choices.
        dependencies: Whether the worker can run.
        whyWait: Why the current job prevents starting another; empty if none is running.
    """
    volume = parameters.inputVolume
    if not dependencies.isReady:
        return _whyNotInstalled()
    if volume is None:
        hint = _("Load an image by dragging it into the window.")
        link = _('Or <a href="sample">try the sample image</a>.') if samples.available() else ""
        return f"{hint} {link}".strip()
    if whyWait:
        return whyWait
    if found.model is None:
        return wording.whyNoModel(found)
    return (
        scene_exchange.whyUnusable(volume)
        or wording.whyUnfit(found.model, volume)
        or channels.whyUnusable(parameters, found.model.description)
        or _whyNoRegion(parameters)
    )


def whyNoImport(*, dependencies: DependencyState, whyWait: str) -> str:
    """Return why no model can be imported now, in one sentence; empty if it can."""
    return whyWait if dependencies.isReady else _whyNotInstalled()


def doubts(parameters: Any, found: Choices, look: Look | None) -> list[str]:
    """Return why the result of a possible run may be wrong, in sentences."""
    if look is None or found.model is None:
        return []
    description = found.model.description
    volumes = channels.volumesByChannel(parameters, description)
    # Other channels may have other modalities.
    isFirst = volumes[description.channels[0].name] is parameters.inputVolume
    spacing = spacing_of(scene_exchange.worldAffine(parameters.inputVolume))
    possible = [
        wording.doubtOfModality(look, found.preset) if isFirst else "",
        wording.sentence(spacing_warning(description, spacing)),
    ]
    return [doubt for doubt in possible if doubt]


def _whyNotInstalled() -> str:
    return _("Install the missing packages first (see above).")


def _whyNoRegion(parameters: Any) -> str:
    region = regionNode(parameters)
    return scene_exchange.whyRegionUnusable(region, parameters.inputVolume) if region is not None else ""
