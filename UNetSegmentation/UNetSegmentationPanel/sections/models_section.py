"""The panel's models: the card of the chosen one, importing, deleting, and where they lie."""

import html
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.models.description import CARD_FILE, read_description
from UNetSegmentationLib.models.installed import InstalledModel
from UNetSegmentationLib.models.user_folder import delete_model, is_users_own

from ..background.steps import Steps, beside
from ..choices import wording
from ..jobs.job import Outcome, Progress
from ..jobs.jobs import Jobs
from .drop_target import DropTarget
from .menus import showIcon

ARCHIVE_FILTER = "*.zip"


class ModelsSection:
    """Widgets that say what a model is and change which ones there are; which one is chosen is not theirs to say.

    Args:
        ui: The widgets of the form.
        jobs: Import through these.
        whyNoImport: Returns why nothing can be imported now, in a sentence; empty where it can.
        onChanged: Called when the models changed, or an import began or ended, with a model to choose or None.
    """

    def __init__(
        self,
        ui: Any,
        jobs: Jobs,
        *,
        whyNoImport: Callable[[], str],
        onChanged: Callable[[InstalledModel | None], None],
    ) -> None:
        self.ui = ui
        self.jobs = jobs
        self._whyNoImport = whyNoImport
        self._onChanged = onChanged
        self._model: InstalledModel | None = None
        self._deletion: Steps | None = None
        self._dropTarget = DropTarget(ui.modelSection, isWanted=_mayBeModel, onDropped=self.importModel)
        self._makeMenu()
        ui.modelLabel.connect("linkActivated(QString)", self._onModelLink)
        ui.importButton.connect("clicked(bool)", self._onImportButton)

    def _makeMenu(self) -> None:
        self._menu = qt.QMenu(self.ui.manageButton)
        self._importFolderAction = self._menu.addAction(_("Import a model from a folder …"))
        self._importArchiveAction = self._menu.addAction(_("Import a model from a zip archive …"))
        self._menu.addSeparator()
        self._deleteAction = self._menu.addAction("")
        self._openAction = self._menu.addAction(_("Open the folder of my models"))
        self._importFolderAction.connect("triggered(bool)", lambda _checked: self.chooseFolder())
        self._importArchiveAction.connect("triggered(bool)", lambda _checked: self.chooseArchive())
        self._deleteAction.connect("triggered(bool)", lambda _checked: self.deleteChosen())
        self._openAction.connect("triggered(bool)", lambda _checked: self.openFolder())
        self.ui.manageButton.setMenu(self._menu)

    def cleanup(self) -> None:
        """Stop what is at work; a deletion that has begun comes to its end."""
        self._onChanged = lambda _model: None
        if self._deletion is not None:
            self._deletion.stop()

    def refresh(self, model: InstalledModel | None) -> None:
        """Show the chosen model, and what can be done."""
        self._model = model
        self.ui.modelLabel.text = wording.describe(model)
        self.ui.modelLabel.visible = model is not None
        if model is None:
            self.ui.cardBrowser.visible = False
        elif self.ui.cardBrowser.visible:
            self._showCard()
        isFree = not (self.jobs.isRunning or self.jobs.isImporting)
        for action in (self._importFolderAction, self._importArchiveAction):
            action.enabled = not self._whyNoImport()
        isOwn = model is not None and is_users_own(model)
        self._deleteAction.enabled = isFree and isOwn and self._deletion is None
        self._deleteAction.text = (
            _("Delete “{title}” …").format(title=model.description.title)
            if isOwn
            else _("Delete (your own models only)")
        )

    def chooseFolder(self) -> None:
        """Ask for a folder and import the model in it."""
        title = _("Folder of a model: nnU-Net results, a MONAI bundle, or one of ours")
        folder = qt.QFileDialog.getExistingDirectory(self.ui.modelSection, title, "")
        if folder:
            self.importModel(Path(folder))

    def chooseArchive(self) -> None:
        """Ask for a zip archive and import the model in it."""
        title = _("Zip archive of a model: nnU-Net results, a MONAI bundle, or one of ours")
        kinds = _("Zip archives ({suffixes})").format(suffixes=ARCHIVE_FILTER)
        archive = qt.QFileDialog.getOpenFileName(self.ui.modelSection, title, "", kinds)
        if archive:
            self.importModel(Path(archive))

    def importModel(self, path: Path) -> None:
        """Import the model in a folder or zip archive, or say why not."""
        if self.jobs.isImporting:
            # Its progress is on display.
            return
        reason = self._whyNoImport()
        if reason:
            self._report("SP_MessageBoxInformation", html.escape(reason))
            return
        self._imported = path.name
        self.ui.importFrame.visible = True
        self.ui.importProgressBar.visible = True
        self.ui.importButton.text = _("Cancel")
        self.ui.importButton.toolTip = _("Stop the import; nothing is changed.")
        showIcon(self.ui.importIcon, "")
        self.jobs.importModel(path, onProgress=self._onProgress, onFinished=self._onFinished)
        self._onChanged(None)

    def dismissReport(self) -> None:
        """Take the report of the last import away."""
        if not self.jobs.isImporting:
            self.ui.importFrame.visible = False

    def deleteChosen(self) -> None:
        """Delete the chosen model of the user's own, where they confirm it."""
        model = self._model
        if model is None or not is_users_own(model) or self._deletion is not None:
            return
        question = _("Delete the model “{title}”? Its folder goes with everything in it:\n{folder}")
        text = question.format(title=model.description.title, folder=model.folder)
        if not slicer.util.confirmOkCancelDisplay(text, _("Delete model")):
            return
        failures: list[InputError] = []
        self._deletion = Steps(
            beside(lambda: _delete(model, failures), isNeeded=True),
            onDone=lambda _nothing: self._onDeleted(model, failures),
            onFailed=lambda error: self._onDeleted(model, [InputError(str(error))]),
        )

    def openFolder(self) -> None:
        """Show the folder of the user's own models in the system's file browser."""
        folder = self.jobs.modelsFolder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = _("The folder {folder} cannot be made ({error}): check the rights of the one above.")
            self._report("SP_MessageBoxWarning", html.escape(message.format(folder=folder, error=error.strerror)))
            return
        if not qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder))):
            message = _("Your models lie in {folder}.").format(folder=folder)
            self._report("SP_MessageBoxInformation", html.escape(message))

    def _onProgress(self, progress: Progress) -> None:
        about = _("Importing {name}").format(name=self._imported)
        text = f"{about}: {progress.stage}" if progress.stage else about
        self.ui.importLabel.text = html.escape(text)

    def _onFinished(self, outcome: Outcome) -> None:
        icons = {"done": "SP_DialogApplyButton", "cancelled": "", "failed": "SP_MessageBoxWarning"}
        model = None
        lines = [outcome.message]
        if outcome.modelFolder is not None:
            folder = Path(outcome.modelFolder)
            model = InstalledModel(folder, read_description(folder))
            lines = [wording.describeImport(model)]
        lines += [wording.sentence(warning) for warning in outcome.warnings]
        logging.info("UNetSegmentation: import of %s: %s", self._imported, " ".join(lines))
        icon = "SP_MessageBoxInformation" if outcome.warnings else icons[outcome.kind]
        self._report(icon, "<br>".join(html.escape(line) for line in lines))
        self._onChanged(model)

    def _onDeleted(self, model: InstalledModel, failures: list[InputError]) -> None:
        self._deletion = None
        if failures:
            self._report("SP_MessageBoxWarning", html.escape(wording.sentence(str(failures[0]))))
        else:
            message = _("Deleted “{title}”.").format(title=model.description.title)
            self._report("SP_DialogApplyButton", html.escape(message))
        self._onChanged(None)

    def _report(self, icon: str, text: str) -> None:
        self.ui.importFrame.visible = True
        self.ui.importProgressBar.visible = False
        self.ui.importLabel.text = text
        self.ui.importButton.text = _("Close")
        self.ui.importButton.toolTip = _("Take this message away.")
        showIcon(self.ui.importIcon, icon)

    def _onImportButton(self, _checked: bool) -> None:
        if self.jobs.isImporting:
            self.jobs.cancelImport()
        else:
            self.dismissReport()

    def _onModelLink(self, _link: str) -> None:
        self.ui.cardBrowser.visible = not self.ui.cardBrowser.visible
        if self.ui.cardBrowser.visible:
            self._showCard()

    def _showCard(self) -> None:
        path = self._model.folder / CARD_FILE
        text = path.read_text(encoding="utf-8") if path.is_file() else _("This model has no card.")
        self.ui.cardBrowser.setMarkdown(text)


def _mayBeModel(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() == ".zip"


def _delete(model: InstalledModel, failures: list[InputError]) -> None:
    try:
        delete_model(model)
    except InputError as error:
        failures.append(error)
