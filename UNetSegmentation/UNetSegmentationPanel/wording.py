"""What the panel says about models and time."""

import html
from typing import Any

from slicer.i18n import tr as _

from UNetSegmentationLib.model_folder import InstalledModel


def describe(model: InstalledModel | None) -> str:
    """Return what a model finds, how well, under which licence, and the link to its card, as rich text."""
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


def whyUnfit(model: InstalledModel, volume: Any) -> str:
    """Return why a model does not fit a volume, in one sentence; empty when it fits."""
    description = model.description
    isFlat = volume.GetImageData().GetDimensions()[2] == 1
    if len(description.channels) > 1:
        names = ", ".join(channel.name for channel in description.channels)
        return _("This model needs several volumes ({names}): choose a model for one.").format(names=names)
    if isFlat and description.plan.dimensions == 3:
        return _("The volume is a single slice and this model is three-dimensional: choose another model.")
    return ""


def sentence(clause: str) -> str:
    """Return a clause of the library, which has no capital and no full stop, as a sentence."""
    text = clause.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"


def timeLeft(left_s: float | None) -> str:
    """Return a remaining time as people say it; empty where it is not known."""
    if left_s is None:
        return ""
    if left_s < 5:
        return _("a few seconds left")
    if left_s < 90:
        return _("{seconds} s left").format(seconds=round(left_s))
    return _("{minutes} min left").format(minutes=round(left_s / 60))
