"""The button that starts and cancels a run, and the link that undoes it."""

import logging

from slicer.i18n import tr as _

from UNetSegmentationLib.models.installed import InstalledModel

from ..jobs.job import Outcome
from ..jobs.run_settings import settingsFor
from ..jobs.segment_job import SegmentJob
from ..scene import scene_exchange, uncertainty_maps
from ..scene.segmentations import REPLACE, Target, isReplaceable, targetIn
from .first_steps import addShortcut, dismissHint
from .section import PanelAccess, Question, Section, State


class SegmentSection(Section):
    """The Apply button, which becomes Cancel during a run."""

    def __init__(self, panel: PanelAccess) -> None:
        super().__init__(panel)
        self._model: InstalledModel | None = None
        self._segmentedId: str | None = None
        addShortcut("Ctrl+Return", panel.form, self.ui.applyButton.click)
        self.ui.applyButton.connect("clicked(bool)", self._onApply)
        self.ui.statusLabel.connect("linkActivated(QString)", self._onStatusLink)

    def refresh(self, state: State) -> None:
        self._model = state.choices.model
        isSegmenting = state.jobKind == SegmentJob.kind
        self.ui.applyButton.text = _("Cancel") if isSegmenting else _("Apply")
        self.ui.applyButton.enabled = isSegmenting or state.canRun
        self.ui.applyButton.toolTip = (
            _("Cancel the run; nothing in the scene is changed. (Ctrl+Return)")
            if isSegmenting
            else state.whyNoRun or _("Segment the volume with the model chosen above. (Ctrl+Return)")
        )

    def _onApply(self, _checked: bool) -> None:
        if self.panel.jobs.isRunning:
            self.panel.jobs.cancel()
            return
        segmentation = self.panel.parameters.outputSegmentation
        if segmentation is None:
            self._start(None)
        elif isReplaceable(segmentation, self.panel.parameters.inputVolume):
            self._start(targetIn(segmentation, REPLACE))
        else:
            self.panel.ask(Question(segmentationId=segmentation.GetID(), onAnswer=self._start))

    def _start(self, target: Target | None) -> None:
        parameters = self.panel.parameters
        self._segmentedId = parameters.inputVolume.GetID()
        self.panel.tell(None)
        job = SegmentJob(
            settingsFor(parameters, self._model, target),
            worker=self.panel.jobs.worker,
            onProgress=self.panel.showProgress,
            onFinished=self._onFinished,
        )
        self.panel.jobs.start(job)
        self.panel.refresh()

    def _onFinished(self, outcome: Outcome) -> None:
        logging.info("UNetSegmentation: %s", " ".join([outcome.message, *outcome.warnings]))
        if outcome.kind == "done":
            dismissHint()
        parameters = self.panel.parameters
        segmentation = scene_exchange.nodeById(outcome.segmentationId)
        if parameters is None or segmentation is None:
            self.panel.tell(outcome)
        elif parameters.inputVolume is not None and parameters.inputVolume.GetID() == self._segmentedId:
            parameters.outputSegmentation = segmentation
            self.panel.tell(outcome)
        else:
            # Another volume was chosen in the meantime; the outcome does not apply to it.
            self.panel.tell(None)

    def _onStatusLink(self, link: str) -> None:
        former = self.panel.outcome.former if self.panel.outcome is not None else None
        if link != "undo" or former is None:
            return
        if former.restore():
            uncertainty_maps.removeMaps(former.segmentationNode)
            message = _("The run was undone; the segmentation is as it was before.")
        else:
            message = _("Undo is not possible: the segmentation was changed after the run.")
        self.panel.tell(Outcome(kind="cancelled", message=message))
