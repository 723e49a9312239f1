"""Status line of the panel: what is missing, the progress of a job, and its outcome."""

import html

from slicer.i18n import tr as _

from ..choices import wording
from ..jobs.job import Outcome, Progress
from ..scene import samples
from .menus import OUTCOME_ICONS, showIcon
from .section import PanelAccess, Section, State


class StatusSection(Section):
    """Label, icon and progress bar; each link in the label is handled by the section that it belongs to."""

    def __init__(self, panel: PanelAccess) -> None:
        super().__init__(panel)
        self.ui.statusLabel.connect("linkActivated(QString)", self._onStatusLink)

    def refresh(self, state: State) -> None:
        self.ui.progressBar.visible = state.progress is not None
        if state.progress is not None:
            self.showProgress(state.progress)
            return
        self.ui.progressBar.value = 0
        if state.question is not None:
            self._say("")
        elif state.whyNoRun and state.parameters.inputVolume is None:
            self._sayNoVolume(state.whyNoRun, state.outcome)
        elif state.whyNoRun:
            self._sayHint(state.whyNoRun)
        elif state.outcome is not None:
            self._sayOutcome(state.outcome)
        else:
            self._sayHint("<br>".join(state.doubts))

    def showProgress(self, progress: Progress) -> None:
        self.ui.progressBar.value = round(100 * progress.fraction)
        left = wording.timeLeft(progress.left_s)
        self._say(f"{progress.stage}, {left}" if left else progress.stage)

    def _say(self, text: str, *, icon: str = "") -> None:
        """Show rich text with a standard icon; hide the line if the text is empty."""
        self.ui.statusLabel.text = text
        self.ui.statusLabel.visible = bool(text)
        showIcon(self.ui.statusIcon, icon)

    def _sayHint(self, text: str) -> None:
        self._say(text, icon="SP_MessageBoxInformation" if text else "")

    def _sayNoVolume(self, reason: str, outcome: Outcome | None) -> None:
        """Show that there is no volume; if a run was cancelled because its volume was removed, show that first."""
        isCancelled = outcome is not None and outcome.kind == "cancelled"
        self._say(f"{html.escape(outcome.message)}<br>{reason}" if isCancelled else reason)

    def _sayOutcome(self, outcome: Outcome) -> None:
        lines = [outcome.message, *(wording.sentence(warning) for warning in outcome.warnings)]
        icon = "SP_MessageBoxWarning" if outcome.warnings else OUTCOME_ICONS[outcome.kind]
        undo = f' <a href="undo">{_("Undo")}</a>' if outcome.former is not None else ""
        self._say("<br>".join(html.escape(line) for line in lines) + undo, icon=icon)

    def _onStatusLink(self, link: str) -> None:
        volume = samples.load() if link == "sample" else None
        if volume is not None:
            self.panel.choose(inputVolume=volume)
