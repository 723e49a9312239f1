"""Model management: import, delete, open the folder."""

import html
import logging
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.models.description import read_description
from UNetSegmentationLib.models.installed import InstalledModel, user_models_folder
from UNetSegmentationLib.models.user_folder import delete_model, is_users_own

from ..background.steps import Steps, inThread
from ..choices import wording
from ..jobs.import_job import ImportJob, ImportOutcome
from ..jobs.job import Outcome, Progress
from . import readiness
from .drop_target import DropTarget
from .menus import OUTCOME_ICONS, showIcon
from .section import PanelAccess, Section, State

ARCHIVE_FILTER = "*.zip"


class ImportSection(Section):
    """Menu for managing models, and a frame for messages."""

    def __init__(self, panel: PanelAccess) -> None:
        super().__init__(panel)
        self._state: State | None = None
        self._importedName = ""
        self._deletion: Steps | None = None
        self._dropTarget = DropTarget(self.ui.modelSection, isWanted=_mayBeModel, onDropped=self._importModel)
        self._makeMenu()
        self.ui.importButton.connect("clicked(bool)", self._onImportButton)
        self.ui.statusLabel.connect("linkActivated(QString)", self._onStatusLink)

    def _makeMenu(self) -> None:
        self._menu = qt.QMenu(self.ui.manageButton)
        self._importFolderAction = self._menu.addAction(_("Import a model from a folder …"))
        self._importArchiveAction = self._menu.addAction(_("Import a model from a zip archive …"))
        self._menu.addSeparator()
        self._deleteAction = self._menu.addAction("")
        self._openAction = self._menu.addAction(_("Open my models folder"))
        self._importFolderAction.connect("triggered(bool)", lambda _checked: self._importFolder())
        self._importArchiveAction.connect("triggered(bool)", lambda _checked: self._importArchive())
        self._deleteAction.connect("triggered(bool)", lambda _checked: self._deleteChosen())
        self._openAction.connect("triggered(bool)", lambda _checked: self._openFolder())
        self.ui.manageButton.setMenu(self._menu)

    def refresh(self, state: State) -> None:
        former, self._state = self._state, state
        if state.isSceneInUse and not (former is not None and former.isSceneInUse):
            # The user has seen the message by the time a run starts.
            self._dismissReport()
        model = state.choices.model
        for action in (self._importFolderAction, self._importArchiveAction):
            action.enabled = not self._whyNoImport()
        isOwn = model is not None and is_users_own(model)
        self._deleteAction.enabled = isOwn and not state.jobKind and self._deletion is None
        self._deleteAction.text = (
            _("Delete “{title}” …").format(title=model.description.title)
            if isOwn
            else _("Delete (your own models only)")
        )

    def cleanup(self) -> None:
        """Stop following a deletion; once started, it runs to completion."""
        if self._deletion is not None:
            self._deletion.stop()

    def _whyNoImport(self) -> str:
        return readiness.whyNoImport(dependencies=self.panel.dependencies.state, whyWait=self.panel.jobs.whyWait())

    def _onStatusLink(self, link: str) -> None:
        if link == "import":
            self._importFolder()

    def _importFolder(self) -> None:
        """Ask for a folder and import the model in it."""
        title = _("Model folder: nnU-Net results, MONAI bundle, or UNetSegmentation model")
        folder = qt.QFileDialog.getExistingDirectory(self.ui.modelSection, title, "")
        if folder:
            self._importModel(Path(folder))

    def _importArchive(self) -> None:
        """Ask for a zip archive and import the model in it."""
        title = _("Model archive: nnU-Net results, MONAI bundle, or UNetSegmentation model")
        kinds = _("Zip archives ({suffixes})").format(suffixes=ARCHIVE_FILTER)
        archive = qt.QFileDialog.getOpenFileName(self.ui.modelSection, title, "", kinds)
        if archive:
            self._importModel(Path(archive))

    def _importModel(self, path: Path) -> None:
        """Import the model in a folder or zip archive, or show why this is not possible."""
        if self.panel.jobs.currentKind == ImportJob.kind:
            # Its progress is already shown.
            return
        reason = self._whyNoImport()
        if reason:
            self._report("SP_MessageBoxInformation", html.escape(reason))
            return
        self._importedName = path.name
        self.ui.importFrame.visible = True
        self.ui.importProgressBar.visible = True
        self.ui.importButton.text = _("Cancel")
        self.ui.importButton.toolTip = _("Stop the import; nothing is changed.")
        showIcon(self.ui.importIcon, "")
        job = ImportJob(
            path,
            modelsFolder=user_models_folder(),
            worker=self.panel.jobs.worker,
            onProgress=self._onProgress,
            onFinished=self._onFinished,
        )
        self.panel.jobs.start(job)
        self.panel.refresh()

    def _dismissReport(self) -> None:
        """Hide the report of the last import."""
        if self.panel.jobs.currentKind != ImportJob.kind:
            self.ui.importFrame.visible = False

    def _deleteChosen(self) -> None:
        """Delete the selected model if it is the user's own and they confirm."""
        model = self._state.choices.model
        if model is None or not is_users_own(model) or self._deletion is not None:
            return
        question = _("Delete the model “{title}”? Its folder and everything in it will be deleted:\n{folder}")
        text = question.format(title=model.description.title, folder=model.folder)
        if not slicer.util.confirmOkCancelDisplay(text, _("Delete model")):
            return
        failures: list[InputError] = []
        self._deletion = Steps(
            inThread(lambda: _delete(model, failures), isNeeded=True),
            onDone=lambda _nothing: self._onDeleted(model, failures),
            onFailed=lambda error: self._onDeleted(model, [InputError(str(error))]),
        )

    def _openFolder(self) -> None:
        """Open the user's models folder in the system's file browser."""
        folder = user_models_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = _("The folder {folder} cannot be created ({error}): check the permissions of its parent folder.")
            self._report("SP_MessageBoxWarning", html.escape(message.format(folder=folder, error=error.strerror)))
            return
        if not qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder))):
            message = _("Your models are in {folder}.").format(folder=folder)
            self._report("SP_MessageBoxInformation", html.escape(message))

    def _onProgress(self, progress: Progress) -> None:
        about = _("Importing {name}").format(name=self._importedName)
        text = f"{about}: {progress.stage}" if progress.stage else about
        self.ui.importLabel.text = html.escape(text)

    def _onFinished(self, outcome: Outcome) -> None:
        model = None
        lines = [outcome.message]
        if isinstance(outcome, ImportOutcome):
            model = InstalledModel(outcome.modelFolder, read_description(outcome.modelFolder))
            lines = [wording.describeImport(model)]
        lines += [wording.sentence(warning) for warning in outcome.warnings]
        logging.info("UNetSegmentation: import of %s: %s", self._importedName, " ".join(lines))
        icon = "SP_MessageBoxInformation" if outcome.warnings else OUTCOME_ICONS[outcome.kind]
        self._report(icon, "<br>".join(html.escape(line) for line in lines))
        self._showModels(model)

    def _onDeleted(self, model: InstalledModel, failures: list[InputError]) -> None:
        self._deletion = None
        if failures:
            self._report("SP_MessageBoxWarning", html.escape(wording.sentence(str(failures[0]))))
        else:
            message = _("Deleted “{title}”.").format(title=model.description.title)
            self._report("SP_DialogApplyButton", html.escape(message))
        self._showModels(None)

    def _report(self, icon: str, text: str) -> None:
        self.ui.importFrame.visible = True
        self.ui.importProgressBar.visible = False
        self.ui.importLabel.text = text
        self.ui.importButton.text = _("Close")
        self.ui.importButton.toolTip = _("Close this message.")
        showIcon(self.ui.importIcon, icon)

    def _onImportButton(self, _checked: bool) -> None:
        if self.panel.jobs.currentKind == ImportJob.kind:
            self.panel.jobs.cancel()
        else:
            self._dismissReport()

    def _showModels(self, model: InstalledModel | None) -> None:
        """Refresh the list of models and select one of them."""
        self.panel.listModels()
        if model is not None:
            description = model.description
            self.panel.choose(preset=description.preset, network=description.network, model=description.id)
        self.panel.refresh()


def _mayBeModel(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() == ".zip"


def _delete(model: InstalledModel, failures: list[InputError]) -> None:
    try:
        delete_model(model)
    except InputError as error:
        failures.append(error)
