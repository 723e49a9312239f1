"""What speaks against a run, and what against its result, as far as it can be told beforehand."""

from typing import Any

from slicer.i18n import tr as _

from UNetSegmentationLib.image.geometry import spacing_of
from UNetSegmentationLib.models.fit import doubt_of_spacing

from ..choices import channels, wording
from ..choices.choices import Choices
from ..choices.modality import Look
from ..choices.parameters import regionNode
from ..scene import samples, scene_exchange
from ..setup.dependencies import DependencyState


def whyNoRun(parameters: Any, found: Choices, *, dependencies: DependencyState, isImporting: bool) -> str:
    """Return why Apply cannot be pressed, in a sentence that says what to do; empty when it can."""
    volume = parameters.inputVolume
    if not dependencies.isReady:
        return _("Install the missing components above first.")
    if volume is None:
        hint = _("Load an image: drag it into the window.")
        link = _('Or <a href="sample">try the sample image</a>.') if samples.available() else ""
        return f"{hint} {link}".strip()
    if isImporting:
        return _("A model is being imported: wait for its end, or cancel it.")
    if found.model is None:
        return wording.whyNoModel(found)
    return (
        scene_exchange.whyUnusable(volume)
        or wording.whyUnfit(found.model, volume)
        or channels.whyUnusable(parameters, found.model.description)
        or _whyNoRegion(parameters)
    )


def whyNoImport(*, dependencies: DependencyState, isRunning: bool, isImporting: bool) -> str:
    """Return why no model can be imported now, in a sentence; empty when one can."""
    if not dependencies.isReady:
        return _("Install the missing components above first.")
    if isRunning:
        return _("Wait for the end of the run, or cancel it, before you import a model.")
    return _("A model is being imported: wait for its end, or cancel it.") if isImporting else ""


def doubts(parameters: Any, found: Choices, look: Look | None) -> list[str]:
    """Return what speaks against the result of a run that is possible, in sentences."""
    if look is None or found.model is None:
        return []
    description = found.model.description
    volumes = channels.volumesByChannel(parameters, description)
    # The other channels may well be of other modalities.
    isFirst = volumes[description.channels[0].name] is parameters.inputVolume
    spacing = spacing_of(scene_exchange.worldAffine(parameters.inputVolume))
    possible = [
        wording.doubt(look, found.preset) if isFirst else "",
        wording.sentence(doubt_of_spacing(description, spacing)),
    ]
    return [doubt for doubt in possible if doubt]


def _whyNoRegion(parameters: Any) -> str:
    region = regionNode(parameters)
    return scene_exchange.whyRegionUnusable(region, parameters.inputVolume) if region is not None else ""
