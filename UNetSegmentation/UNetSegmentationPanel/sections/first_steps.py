"""Hint for first-time users, and keyboard shortcuts."""

from collections.abc import Callable
from typing import Any

import qt
import slicer

from .section import PanelAccess, Section, State

SETTING = "UNetSegmentation/HintIsDone"


class HintSection(Section):
    """A hint that disappears once it was dismissed or a run has succeeded."""

    def __init__(self, panel: PanelAccess) -> None:
        super().__init__(panel)
        self.ui.hintButton.connect("clicked(bool)", self._onRead)

    def refresh(self, _state: State) -> None:
        self.ui.hintFrame.visible = not slicer.util.toBool(slicer.app.settings().value(SETTING, False))

    def _onRead(self, _checked: bool) -> None:
        dismissHint()
        self.panel.refresh()


def dismissHint() -> None:
    """Hide the hint from the next refresh on, also in later sessions."""
    slicer.app.settings().setValue(SETTING, True)


def addShortcut(keys: str, widget: Any, action: Callable[[], None]) -> Any:
    """Return a shortcut that works only while a widget has the focus, so that the rest of Slicer is not affected."""
    shortcut = qt.QShortcut(qt.QKeySequence(keys), widget)
    shortcut.setContext(qt.Qt.WidgetWithChildrenShortcut)
    shortcut.connect("activated()", action)
    return shortcut
