"""What helps at first: a hint that goes for good, and keys for who comes often."""

from collections.abc import Callable
from typing import Any

import qt
import slicer

SETTING = "UNetSegmentation/HintIsDone"


class Hint:
    """Three sentences for the first time; gone once they were read or a run has succeeded.

    Args:
        ui: The widgets of the form.
    """

    def __init__(self, ui: Any) -> None:
        self.ui = ui
        ui.hintFrame.visible = not slicer.util.toBool(slicer.app.settings().value(SETTING, False))
        ui.hintButton.connect("clicked(bool)", lambda _checked: self.dismiss())

    def dismiss(self) -> None:
        """Show the hint no more, in later sessions neither."""
        if self.ui.hintFrame.visible:
            self.ui.hintFrame.visible = False
            slicer.app.settings().setValue(SETTING, True)


def addShortcut(keys: str, widget: Any, action: Callable[[], None]) -> Any:
    """Return a key that works only while the focus is in a widget, so that it takes none from the rest of Slicer."""
    shortcut = qt.QShortcut(qt.QKeySequence(keys), widget)
    shortcut.setContext(qt.Qt.WidgetWithChildrenShortcut)
    shortcut.connect("activated()", action)
    return shortcut
