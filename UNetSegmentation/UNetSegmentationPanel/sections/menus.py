"""Menu entries with names and titles, and message icons."""

from collections.abc import Mapping, Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

from ..choices.choices import Choices

ICON_SIZE = 16
# Standard icon for each outcome of a job.
OUTCOME_ICONS = {"done": "SP_DialogApplyButton", "cancelled": "", "failed": "SP_MessageBoxWarning"}

# Data and text of a separator between menu entries.
SEPARATOR = (None, "")


def networkEntries(found: Choices) -> list[tuple[str | None, str]]:
    """Return the usable networks, then, after a separator, those without a model."""
    usable = [(name, title) for name, title, hasModel in found.networks if hasModel]
    waiting = [
        (name, _("{title} (no model yet)").format(title=title))
        for name, title, hasModel in found.networks
        if not hasModel
    ]
    return [*usable, SEPARATOR, *waiting] if usable and waiting else [*usable, *waiting]


def deviceEntries(offered: Sequence[Mapping[str, Any]], chosen: str) -> list[tuple[str | None, str]]:
    """Return the devices that the worker offers, always including the chosen one."""
    entries = {
        "auto": _("Automatic"),
        "cpu": _("CPU"),
        **{str(device["id"]): str(device["title"]) for device in offered},
    }
    # The choice may come from a scene of another computer, or the worker may not be ready yet.
    entries.setdefault(chosen, chosen)
    return list(entries.items())


def fill(combo: Any, entries: list[tuple[str | None, str]], current: str) -> None:
    """Set (name, title) entries; an unchanged menu, which may be open, is not rebuilt."""
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
    """Show a standard icon of the style in a label; hide the label if the name is empty."""
    label.visible = bool(name)
    if name:
        standard = label.style().standardIcon(getattr(qt.QStyle, name))
        label.setPixmap(standard.pixmap(ICON_SIZE, ICON_SIZE))
