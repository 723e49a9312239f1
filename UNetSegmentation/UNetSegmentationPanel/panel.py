"""The panel: computes its state from the scene and the jobs, and updates its sections."""

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import slicer
from slicer.util import VTKObservationMixin
from vtk import vtkCommand

from UNetSegmentationLib.models.installed import InstalledModel, list_models

from .choices.suggestions import Suggestions
from .jobs.foresight import Foresight, requestFor
from .jobs.job import Outcome, Progress
from .jobs.jobs import Jobs
from .scene import segmentations
from .scene.scene_exchange import idOf, nodeById
from .sections import readiness
from .sections.dependency_section import DependencySection
from .sections.first_steps import HintSection
from .sections.import_section import ImportSection
from .sections.input_section import InputSection
from .sections.models_section import ModelsSection
from .sections.options_section import OptionsSection
from .sections.question_section import QuestionSection
from .sections.result_section import ResultSection
from .sections.section import Question, Section, State
from .sections.segment_section import SegmentSection
from .sections.status_section import StatusSection
from .setup.dependencies import DependencyWatch
from .setup.installation import Installation

SECTIONS = (
    HintSection,
    DependencySection,
    InputSection,
    ModelsSection,
    ImportSection,
    OptionsSection,
    SegmentSection,
    QuestionSection,
    StatusSection,
    ResultSection,
)

# Changing these keeps the message of the last run; selectors may select a volume on their own, see _onVolumeChosen.
KEEPING_OUTCOME = {"show3D", "outputSegmentation", "inputVolume"}


class Panel(VTKObservationMixin):
    """Updates the sections in one direction: from parameter node and jobs to state, from state to widgets.

    Widgets are connected by hand: connections of the wrapper's connectGui outlive the widgets when the module is
    reloaded. PanelAccess describes what sections may use.

    Args:
        form: The panel's form.
        jobs: The current job and the worker.
        requirements: Requirements file for the packages needed in addition to PyTorch.
        sections: Section classes.
    """

    def __init__(
        self, form: Any, jobs: Jobs, *, requirements: Path, sections: Sequence[type[Section]] = SECTIONS
    ) -> None:
        super().__init__()
        self.form = form
        self.ui = slicer.util.childWidgetVariables(form)
        self.jobs = jobs
        self.dependencies = DependencyWatch()
        self.requirements = requirements
        self.parameters: Any = None
        self.outcome: Outcome | None = None
        self._progress: Progress | None = None
        self._question: Question | None = None
        self._models: tuple[InstalledModel, ...] = ()
        self._volumeId: str | None = None
        self._state: State | None = None
        self._isUpdating = False
        self._isWarm = False
        self._suggestions = Suggestions(onVolumeModified=self._onVolumeModified)
        self._foresight = Foresight(jobs.worker, onChanged=self.refresh)
        self.sections = tuple(kind(self) for kind in sections)
        jobs.worker.onReady = self._onWorkerReady
        jobs.worker.onStartupFailed = self._onStartupFailed

    def follow(self, parameters: Any) -> None:
        """Show a parameter node, or update the current one; None while the scene is closing."""
        former, self.parameters = self.parameters, parameters
        self.removeObservers()
        self._question = None
        if former is not None and (parameters is None or former.parameterNode is not parameters.parameterNode):
            # A run that ends because the scene changes reports later, and that message must stay visible.
            self.outcome = None
            for part in (self._suggestions, *self.sections):
                part.follow(None)
        if parameters is None:
            return
        self._volumeId = idOf(parameters.inputVolume)
        for part in (self._suggestions, *self.sections):
            part.follow(parameters)
        self.addObserver(parameters.parameterNode, vtkCommand.ModifiedEvent, self._onParametersModified)
        self.refresh()

    def enter(self) -> None:
        """Check again what may have changed outside: models, installed packages and free memory."""
        self.listModels()
        if self.jobs.currentKind != Installation.kind:
            self.dependencies.look()
        self._foresight.askAgain()
        self._isWarm = False
        self.refresh()

    def cleanup(self) -> None:
        """Release the scene and the worker."""
        self.removeObservers()
        self._suggestions.follow(None)
        self.parameters = None
        self.jobs.worker.onReady = self.jobs.worker.onStartupFailed = None
        for section in self.sections:
            section.cleanup()
        self._foresight.cleanup()
        self.jobs.cleanup()

    def refresh(self, *, onlyIfChanged: bool = False) -> None:
        """Update all sections, or only if the state has changed."""
        if self.parameters is None or self._isUpdating:
            return
        self._isUpdating = True
        try:
            self._discardOutdated()
            former, self._state = self._state, self._computeState()
            if onlyIfChanged and self._state == former:
                return
            for section in self.sections:
                section.refresh(self._state)
        finally:
            self._isUpdating = False
        if self._state.canRun and not self._isWarm:
            # Start early, so that torch is loaded when Apply is pressed.
            self._isWarm = True
            self.jobs.worker.start()

    def _discardOutdated(self) -> None:
        if self.outcome is not None and self.outcome.segmentationId and nodeById(self.outcome.segmentationId) is None:
            self.outcome = None
        if self.jobs.isRunning:
            # The segmentation may have changed by the end of the job.
            self._question = None

    def _computeState(self) -> State:
        parameters, whyWait = self.parameters, self.jobs.whyWait()
        found = self._suggestions.complete(parameters, self._models)
        whyNoRun = readiness.whyNoRun(parameters, found, dependencies=self.dependencies.state, whyWait=whyWait)
        self._foresight.follow(requestFor(parameters, found.model) if not whyNoRun else None)
        doubts = readiness.doubts(parameters, found, self._suggestions.look) if not whyNoRun else []
        return State(
            parameters=parameters,
            models=self._models,
            choices=found,
            look=self._suggestions.look,
            dependencies=self.dependencies.state,
            devices=tuple(self.jobs.worker.ready.get("devices", ())),
            jobKind=self.jobs.currentKind,
            isSceneInUse=self.jobs.isSceneInUse,
            whyWait=whyWait,
            whyNoRun=whyNoRun,
            doubts=(*doubts, *filter(None, [html.escape(self._foresight.doubt)])),
            question=self._question,
            progress=self._progress,
            outcome=self.outcome,
        )

    def choose(self, **values: Any) -> None:
        """Store choices in the parameter node by name; ignored while the widgets are being updated."""
        if self._isUpdating or self.parameters is None:
            return
        if not values.keys() & KEEPING_OUTCOME:
            self.outcome = None
        for name, value in values.items():
            setattr(self.parameters, name, value)

    def edit(self, change: Callable[[Any], None]) -> None:
        """Like `choose`, for node references: call a function with the parameter node."""
        if self._isUpdating or self.parameters is None:
            return
        self.outcome = None
        change(self.parameters)
        self.refresh()

    def listModels(self) -> None:
        """Refresh the list of installed models."""
        self._models = tuple(list_models())

    def ask(self, question: Question | None) -> None:
        """Show a question, or hide it if None."""
        self._question = question
        self.refresh()

    def showProgress(self, progress: Progress) -> None:
        """Show the progress of the current job in the status line."""
        self._progress = progress
        for section in self.sections:
            section.showProgress(progress)

    def tell(self, outcome: Outcome | None) -> None:
        """Show in the status line how a job ended; None clears the message."""
        self.outcome, self._progress = outcome, None
        self.refresh()

    def _onParametersModified(self, _caller: Any, _event: str) -> None:
        if self._isUpdating or self.parameters is None:
            return
        # The question was about the previous choices.
        self._question = None
        if idOf(self.parameters.inputVolume) != self._volumeId:
            self._onVolumeChosen()
        self.refresh()

    def _onVolumeChosen(self) -> None:
        volume, output = self.parameters.inputVolume, self.parameters.outputSegmentation
        isRemoved = self._volumeId is not None and nodeById(self._volumeId) is None
        if self.outcome is not None and not (isRemoved and self.outcome.kind == "cancelled"):
            self.outcome = None
        self._volumeId = idOf(volume)
        self._suggestions.followVolume(volume)
        if volume is not None and output is not None and not segmentations.belongsTo(output, volume):
            self.parameters.outputSegmentation = None

    def _onVolumeModified(self) -> None:
        if not self.jobs.isSceneInUse:
            self.refresh()

    def _onWorkerReady(self, _message: dict[str, Any]) -> None:
        self._foresight.askAgain()
        self.refresh()

    def _onStartupFailed(self, output: str) -> None:
        if self.dependencies.evaluateStartupFailure(output):
            self.refresh()
