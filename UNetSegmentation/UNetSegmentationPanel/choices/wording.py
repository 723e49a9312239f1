"""Texts of the panel about models, results and time."""

import html
from collections.abc import Sequence
from typing import Any

from slicer.i18n import tr as _

from UNetSegmentationLib.models.fit import UNKNOWN_MODALITIES, value_warning, why_unsuited
from UNetSegmentationLib.models.installed import InstalledModel
from UNetSegmentationLib.presets import PRESETS
from UNetSegmentationLib.protocol.segment import SegmentFound

from .choices import Choices, declaredNetworks
from .modality import Look


def describe(model: InstalledModel | None) -> str:
    """Return what a model finds, its accuracy, its licence and a link to its card, as rich text."""
    if model is None:
        return ""
    description = model.description
    names = [label.name for label in description.labels]
    shown = names if len(names) <= 4 else [*names[:3], _("{count} more").format(count=len(names) - 3)]
    parts = [_("Finds {names}.").format(names=html.escape(", ".join(shown)))]
    if description.mean_dice is not None:
        cases = description.figures.get("cases")
        figure = _("Dice {dice:.2f}").format(dice=description.mean_dice)
        parts.append(
            _("{figure} on {cases} unseen cases.").format(figure=figure, cases=cases) if cases else f"{figure}."
        )
    if description.licence:
        parts.append(_("Licence {licence}.").format(licence=html.escape(description.licence)))
    parts.append(f'<a href="card">{_("Model card")}</a>')
    return " ".join(parts)


def describeImport(model: InstalledModel) -> str:
    """Return what was imported, in one sentence."""
    description = model.description
    network = declaredNetworks().get(description.network, description.network)
    if description.members > 1:
        network = _("{network}, {count} folds").format(network=network, count=description.members)
    sentence = _("Imported “{title}” ({network}): finds {names}.")
    names = _joined([label.name for label in description.labels])
    return sentence.format(title=description.title, network=network, names=names)


def whyUnfit(model: InstalledModel, volume: Any) -> str:
    """Return why a model cannot be used for a volume, in one sentence; empty if it can."""
    description = model.description
    isFlat = volume.GetImageData().GetDimensions()[2] == 1
    if isFlat and description.plan.dimensions == 3:
        return _("The volume is a single slice and this model is 3D: choose another model.")
    if PRESETS[description.preset].dimensions == (2,) and not isFlat:
        slices = volume.GetImageData().GetDimensions()[2]
        message = _("The volume has {slices} slices and this model is for single images: choose another model.")
        return message.format(slices=slices)
    return ""


def whyNoModel(found: Choices) -> str:
    """Return that no model is available for the choices, and what to do."""
    preset = PRESETS.title(found.preset)
    titles = {name: title for name, title, _hasModel in found.networks}
    other = next((title for _name, title, hasModel in found.networks if hasModel), "")
    if not other:
        return _('No {preset} model is installed: train one or <a href="import">import one</a>.').format(preset=preset)
    return _("No {network} model for {preset} is installed: choose {other} as the network.").format(
        network=titles.get(found.network, found.network), preset=preset, other=other
    )


def doubtOfModality(look: Look, presetName: str) -> str:
    """Return why the chosen modality may be wrong, in one sentence; empty if it seems right."""
    title = PRESETS.title(presetName)
    reason = why_unsuited(presetName, lowest=look.lowest, is_flat=look.isFlat, modality=look.code)
    if reason:
        return _("The volume {reason}, but {chosen} is selected: check the modality.").format(
            reason=reason, chosen=title
        )
    if look.code in UNKNOWN_MODALITIES and value_warning(presetName, lowest=look.lowest):
        return _("The intensities of the volume are unusual for {chosen}: check the modality.").format(chosen=title)
    return ""


def sentence(clause: str) -> str:
    """Return a message of the library as a sentence, with a capital and a full stop; empty if it is empty."""
    text = clause.strip()
    if not text:
        return ""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"


def describeResult(segments: Sequence[SegmentFound], *, duration_s: float, isInNewSegmentation: bool) -> str:
    """Return what was found and what was not, and whether the result is in a new segmentation, in sentences."""
    names = [segment.label.name for segment in segments if segment.voxels]
    missing = [segment.label.name for segment in segments if not segment.voxels]
    sentences = [_("Found {names} in {seconds:.0f}\u00a0s.").format(names=_joined(names), seconds=max(1.0, duration_s))]
    if missing:
        sentences.append(_("Not found: {names}.").format(names=_joined(missing)))
    if isInNewSegmentation:
        sentences.append(_("The result is in a new segmentation; the previous one was kept and hidden."))
    return " ".join(sentences)


def timeLeft(left_s: float | None) -> str:
    """Return the remaining time as text; empty if unknown."""
    if left_s is None:
        return ""
    if left_s < 5:
        return _("a few seconds left")
    if left_s < 90:
        return _("{seconds} s left").format(seconds=round(left_s))
    return _("{minutes} min left").format(minutes=round(left_s / 60))


def _joined(names: list[str]) -> str:
    shown = names if len(names) <= 6 else [*names[:5], _("{count} more").format(count=len(names) - 5)]
    return ", ".join(shown)
