"""What helps at first: a hint that goes for good, and keys for who comes often."""

from collections.abc import Callable
from typing import Any

import qt
import slicer

from .section import PanelAccess, Section, State

SETTING = "UNetSegmentation/HintIsDone"


class HintSection(Section):
    """Three sentences for the first time; gone once they were read or a run has succeeded."""

    def __init__(self, panel: PanelAccess) -> None:
        super().__init__(panel)
        self.ui.hintButton.connect("clicked(bool)", self._onRead)

    def refresh(self, _state: State) -> None:
        self.ui.hintFrame.visible = not slicer.util.toBool(slicer.app.settings().value(SETTING, False))

    def _onRead(self, _checked: bool) -> None:
        dismissHint()
        self.panel.refresh()


def dismissHint() -> None:
    """Show the hint no more from the next refresh on, in later sessions neither."""
    slicer.app.settings().setValue(SETTING, True)


def addShortcut(keys: str, widget: Any, action: Callable[[], None]) -> Any:
    """Return a key that works only while the focus is in a widget, so that it takes none from the rest of Slicer."""
    shortcut = qt.QShortcut(qt.QKeySequence(keys), widget)
    shortcut.setContext(qt.Qt.WidgetWithChildrenShortcut)
    shortcut.connect("activated()", action)
    return shortcut
