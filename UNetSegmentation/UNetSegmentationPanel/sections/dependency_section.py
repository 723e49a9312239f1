"""Top of the panel: packages missing from Slicer's Python, and their installation."""

import importlib
import logging

import slicer
from slicer.i18n import tr as _

from ..jobs.job import Outcome, Progress
from ..setup import dependencies
from ..setup.dependencies import BROKEN
from ..setup.installation import Installation
from .menus import showIcon
from .section import PanelAccess, Section, State


class DependencySection(Section):
    """A frame that is hidden once all packages are installed."""

    def __init__(self, panel: PanelAccess) -> None:
        super().__init__(panel)
        self._report = ""
        self.ui.installButton.connect("clicked(bool)", self._onInstall)

    def refresh(self, state: State) -> None:
        isInstalling = state.jobKind == Installation.kind
        isBroken = state.dependencies.kind == BROKEN
        self.ui.dependencyFrame.visible = isInstalling or not state.dependencies.isReady
        self.ui.installProgressBar.visible = isInstalling
        if isInstalling:
            self.ui.installButton.text = _("Cancel")
            self.ui.installButton.toolTip = _("Cancel the download; nothing will be installed.")
            self.ui.installButton.enabled = self.panel.jobs.current.canCancel
            return
        self.ui.installButton.text = _("Reinstall …") if isBroken else _("Install …")
        self.ui.installButton.toolTip = state.whyWait or _("Download and install the missing packages; asks you first.")
        self.ui.installButton.enabled = not state.jobKind
        showIcon(self.ui.dependencyIcon, "SP_MessageBoxWarning" if isBroken or self._report else "")
        self.ui.dependencyLabel.text = " ".join(part for part in (self._report, state.dependencies.message) if part)

    def _onInstall(self, _checked: bool) -> None:
        if self.panel.jobs.isRunning:
            self.panel.jobs.cancel()
            return
        missing = self.panel.dependencies.state
        self._report = ""
        if missing.isTorch and not dependencies.hasTorchExtension():
            self._report = _(
                'Install the "PyTorch" extension first (Extensions Manager), then restart Slicer and return here.'
            )
        elif slicer.util.confirmOkCancelDisplay(dependencies.question(missing), _("UNet Segmentation")):
            self.panel.jobs.start(Installation(missing, onProgress=self._onProgress, onFinished=self._onFinished))
        self.panel.refresh()

    def _onProgress(self, progress: Progress) -> None:
        showIcon(self.ui.dependencyIcon, "")
        self.ui.dependencyLabel.text = f"{progress.stage} …"
        self.ui.installProgressBar.maximum = 100 if progress.fraction else 0
        self.ui.installProgressBar.value = round(100 * progress.fraction)
        self.ui.installButton.enabled = self.panel.jobs.current.canCancel

    def _onFinished(self, outcome: Outcome) -> None:
        self._report = outcome.message
        importlib.invalidate_caches()
        if outcome.kind == "done":
            self._installPackages()
        self.panel.dependencies.look()
        self.panel.refresh()

    def _installPackages(self) -> None:
        try:
            dependencies.installPackages(self.panel.requirements)
        except Exception as error:
            # pip can fail in many ways, and an exception in a slot would only be printed.
            logging.exception("Installing the components of UNetSegmentation failed")
            self._report = _("Installation failed: {error} Try again, or see the application log.").format(error=error)
        importlib.invalidate_caches()
