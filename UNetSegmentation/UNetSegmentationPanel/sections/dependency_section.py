"""The panel's top: what is missing in Slicer's Python, how it gets there, and how far that is."""

import importlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from ..jobs.job import Outcome, Progress, newFolder
from ..setup import dependencies
from ..setup.dependencies import BROKEN
from ..setup.installation import Installation
from .menus import showIcon


class DependencySection:
    """A frame that is hidden once everything is there.

    Args:
        ui: The widgets of the form.
        requirements: File with what is needed besides PyTorch.
        onChanged: Called when the state may have changed.
    """

    def __init__(self, ui: Any, *, requirements: Path, onChanged: Callable[[], None]) -> None:
        self.ui = ui
        self.state = dependencies.findState()
        self.python: str | None = None
        self._requirements = requirements
        self._onChanged = onChanged
        self._installation: Installation | None = None
        self._folder: Path | None = None
        self._report = ""
        ui.installButton.connect("clicked(bool)", self._onInstall)

    @property
    def isInstalling(self) -> bool:
        return self._installation is not None

    def look(self) -> None:
        """Look again for what may have changed outside."""
        if not self.isInstalling:
            self.state = dependencies.findState()

    def tellUnloadable(self, details: str) -> None:
        """Take note that the worker ended while it loaded PyTorch."""
        lines = [line for line in details.splitlines() if line.strip()]
        if lines and any("import torch" in line or "/torch/" in line.replace("\\", "/") for line in lines):
            self.state = dependencies.unloadable(lines[-1].strip())
            self._onChanged()

    def refresh(self) -> None:
        """Bring the frame up to date."""
        self.ui.dependencyFrame.visible = self.isInstalling or not self.state.isReady
        self.ui.installProgressBar.visible = self.isInstalling
        self.ui.installButton.text = self._buttonText()
        self.ui.installButton.enabled = self._installation is None or self._installation.canCancel
        self.ui.installButton.toolTip = (
            _("Stop; nothing is installed then.")
            if self.isInstalling
            else _("Download and install what is missing; you are asked first.")
        )
        if not self.isInstalling:
            showIcon(
                self.ui.dependencyIcon, "SP_MessageBoxWarning" if self.state.kind == BROKEN or self._report else ""
            )
            self.ui.dependencyLabel.text = " ".join(part for part in (self._report, self.state.message) if part)

    def cleanup(self) -> None:
        """Let go of the widgets; an installation that can be stopped is."""
        self._onChanged = _nothing
        if self._installation is not None:
            self._installation.cancel()

    def _buttonText(self) -> str:
        if self.isInstalling:
            return _("Cancel")
        return _("Reinstall …") if self.state.kind == BROKEN else _("Install …")

    def _onInstall(self, _checked: bool) -> None:
        if self._installation is not None:
            self._installation.cancel()
            return
        self._report = ""
        if self.state.isTorch and not dependencies.hasTorchExtension():
            self._report = _(
                'Install the extension "PyTorch" first (Extensions Manager), restart Slicer and come back here.'
            )
        elif slicer.util.confirmOkCancelDisplay(dependencies.question(self.state), _("UNet Segmentation")):
            self._start()
        self._onChanged()

    def _start(self) -> None:
        try:
            self._folder = newFolder()
            constraints = self._folder / "constraints.txt"
            constraints.write_text(dependencies.bundledVersions(), encoding="utf-8")
        except OSError as error:
            self._onFinished(Outcome(kind="failed", message=_("Installing failed: {error}").format(error=error)))
            return
        steps = dependencies.stepsFor(self.state, constraints)
        self._installation = Installation(
            steps, onProgress=self._onProgress, onFinished=self._onFinished, python=self.python
        )
        self._installation.start()

    def _onProgress(self, progress: Progress) -> None:
        showIcon(self.ui.dependencyIcon, "")
        self.ui.dependencyLabel.text = f"{progress.stage} …"
        self.ui.installProgressBar.maximum = 100 if progress.fraction else 0
        self.ui.installProgressBar.value = round(100 * progress.fraction)
        if self._installation is not None:
            self.ui.installButton.enabled = self._installation.canCancel

    def _onFinished(self, outcome: Outcome) -> None:
        self._installation = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if outcome.details:
            logging.error("%s\n%s", outcome.message, outcome.details)
        self._report = outcome.message
        importlib.invalidate_caches()
        if outcome.kind == "done":
            self._installOthers()
        self.state = dependencies.findState()
        self._onChanged()

    def _installOthers(self) -> None:
        try:
            dependencies.installOthers(self._requirements)
        except Exception as error:
            # pip fails in many ways, and an exception in a slot would only be printed.
            logging.exception("Installing the components of UNetSegmentation failed")
            self._report = _("Installing failed: {error} Try again, or see the application log.").format(error=error)
        importlib.invalidate_caches()


def _nothing() -> None:
    """Stand in for a callback that is not wanted any more."""
