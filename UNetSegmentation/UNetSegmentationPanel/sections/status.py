"""The line of the panel that says how things stand: what is missing, what is being done, how it ended."""

import html
from typing import Any

from slicer.i18n import tr as _

from ..choices import wording
from ..jobs.job import Outcome, Progress
from .menus import showIcon

_ICONS = {"done": "SP_DialogApplyButton", "cancelled": "", "failed": "SP_MessageBoxWarning"}


class Status:
    """Label and icon of the status.

    Args:
        ui: The widgets of the form.
    """

    def __init__(self, ui: Any) -> None:
        self.ui = ui

    def say(self, text: str, *, icon: str = "") -> None:
        """Show a rich text with one of the style's icons; nothing where it is empty."""
        self.ui.statusLabel.text = text
        self.ui.statusLabel.visible = bool(text)
        showIcon(self.ui.statusIcon, icon)

    def sayHint(self, text: str) -> None:
        """Show what to know or to do."""
        self.say(text, icon="SP_MessageBoxInformation" if text else "")

    def sayProgress(self, progress: Progress | None) -> None:
        """Show the stage of a run and the time that is left."""
        left = wording.timeLeft(progress.left_s) if progress is not None else ""
        stage = progress.stage if progress is not None else ""
        self.say(f"{stage}, {left}" if left else stage)

    def sayNoVolume(self, reason: str, outcome: Outcome | None) -> None:
        """Show that there is no volume, and first how the run ended that lost its volume."""
        isCancelled = outcome is not None and outcome.kind == "cancelled"
        self.say(f"{html.escape(outcome.message)}<br>{reason}" if isCancelled else reason)

    def sayOutcome(self, outcome: Outcome) -> None:
        """Show how a run ended."""
        lines = [outcome.message, *(wording.sentence(warning) for warning in outcome.warnings)]
        icon = "SP_MessageBoxWarning" if outcome.warnings else _ICONS[outcome.kind]
        undo = f' <a href="undo">{_("Undo")}</a>' if outcome.former is not None else ""
        self.say("<br>".join(html.escape(line) for line in lines) + undo, icon=icon)
