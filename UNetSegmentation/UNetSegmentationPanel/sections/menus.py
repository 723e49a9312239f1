"""Menus of names and titles, and icons of messages."""

from collections.abc import Mapping, Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

from ..choices.choices import Choices

ICON_SIZE = 16
# What the style's icon is called for how a job ended.
OUTCOME_ICONS = {"done": "SP_DialogApplyButton", "cancelled": "", "failed": "SP_MessageBoxWarning"}

# What a menu gives as data and text of a line between its entries.
SEPARATOR = (None, "")


def networkEntries(found: Choices) -> list[tuple[str | None, str]]:
    """Return the networks that can be used, then, set apart, those that wait for a model."""
    usable = [(name, title) for name, title, hasModel in found.networks if hasModel]
    waiting = [
        (name, _("{title} (no model yet)").format(title=title))
        for name, title, hasModel in found.networks
        if not hasModel
    ]
    return [*usable, SEPARATOR, *waiting] if usable and waiting else [*usable, *waiting]


def deviceEntries(offered: Sequence[Mapping[str, Any]], chosen: str) -> list[tuple[str | None, str]]:
    """Return the devices that a worker offers, and the chosen one in any case."""
    entries = {
        "auto": _("Automatic"),
        "cpu": _("CPU"),
        **{str(device["id"]): str(device["title"]) for device in offered},
    }
    # The choice may come from another machine's scene, or from before the worker is ready.
    entries.setdefault(chosen, chosen)
    return list(entries.items())


def fill(combo: Any, entries: list[tuple[str | None, str]], current: str) -> None:
    """Offer (name, title) entries, leaving the menu alone where nothing changed: it may be open."""
    blocked = combo.blockSignals(True)
    present = [(combo.itemData(index), combo.itemText(index)) for index in range(combo.count)]
    if present != entries:
        combo.clear()
        for name, title in entries:
            if (name, title) == SEPARATOR:
                combo.insertSeparator(combo.count)
            else:
                combo.addItem(title, name)
    combo.setCurrentIndex(next((index for index, (name, _title) in enumerate(entries) if name == current), -1))
    combo.blockSignals(blocked)


def showIcon(label: Any, name: str) -> None:
    """Show one of the style's standard icons in a label, or none."""
    label.visible = bool(name)
    if name:
        standard = label.style().standardIcon(getattr(qt.QStyle, name))
        label.setPixmap(standard.pixmap(ICON_SIZE, ICON_SIZE))
