"""Lets a widget accept files and folders dropped from the desktop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt


class DropTarget(qt.QObject):
    """Filters the events of a widget; drops that it does not accept go to the main window, which loads them as data.

    Args:
        widget: Accepts the drops, including those on children that do not accept drops themselves.
        isWanted: Returns whether a path is accepted.
        onDropped: Called with the path.
    """

    def __init__(self, widget: Any, *, isWanted: Callable[[Path], bool], onDropped: Callable[[Path], None]) -> None:
        super().__init__()
        self._isWanted = isWanted
        self._onDropped = onDropped
        widget.setAcceptDrops(True)
        widget.installEventFilter(self)

    def eventFilter(self, _watched: Any, event: Any) -> bool:
        kind = event.type()
        if kind not in (qt.QEvent.DragEnter, qt.QEvent.DragMove, qt.QEvent.Drop):
            return False
        path = self._pathOf(event.mimeData())
        if path is None:
            return False
        event.acceptProposedAction()
        if kind == qt.QEvent.Drop:
            # The source application waits until this call returns.
            qt.QTimer.singleShot(0, lambda: self._onDropped(path))
        return True

    def _pathOf(self, data: Any) -> Path | None:
        urls = data.urls() if data.hasUrls() else ()
        path = Path(urls[0].toLocalFile()) if len(urls) == 1 and urls[0].isLocalFile() else None
        return path if path is not None and self._isWanted(path) else None
