"""Wires the widgets of the panel to the parameter node and the jobs; it computes nothing."""

import html
import logging
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin
from vtk import vtkCommand

from UNetSegmentationLib.models.installed import InstalledModel

from .choices import choices, modality
from .choices.parameters import setChannelVolume, setRegionNode
from .jobs.foresight import Foresight, requestFor
from .jobs.job import Outcome, Progress
from .jobs.jobs import Jobs
from .jobs.run_settings import settingsFor
from .scene import samples, scene_exchange, segmentations, uncertainty_maps
from .scene.display_window import DisplayWindow
from .scene.segmentations import Target
from .sections import readiness
from .sections.dependency_section import DependencySection
from .sections.first_steps import Hint, addShortcut
from .sections.input_section import InputSection
from .sections.menus import deviceEntries, fill, networkEntries
from .sections.models_section import ModelsSection
from .sections.question_section import QuestionSection
from .sections.result_section import ResultSection
from .sections.status import Status

# Parameters with a check box of their name.
CHECKED = ("mirror", "show3D", "uncertainty", "probabilities")


class Panel(VTKObservationMixin):
    """The panel's widgets, brought up to date from the state in one direction: parameters and jobs to widgets.

    Widgets are bound by hand: what the wrapper's connectGui binds stays bound to the node for good, also after the
    module was reloaded and its widgets are gone.
    """

    def __init__(self, form: Any, jobs: Jobs, *, requirements: Path) -> None:
        super().__init__()
        self.ui = slicer.util.childWidgetVariables(form)
        self.jobs = jobs
        self._parameters: Any = None
        self._volumeId: str | None = None
        self._segmentedId: str | None = None
        self._isShown3D = True
        # None: to be guessed; otherwise the guess, or "" where the modality was chosen.
        self._guessed: str | None = None
        self._watch = modality.Watch(self._onVolumeModified)
        self._models: list[InstalledModel] = []
        self._choices: choices.Choices | None = None
        self._dependencySection = DependencySection(self.ui, requirements=requirements, onChanged=self.refresh)
        self._outcome: Outcome | None = None
        self._progress: Progress | None = None
        self._isUpdating = False
        self._isWarm = False
        self._reason = ""
        self._networkTitles = choices.declaredNetworks()
        self._modelsSection = ModelsSection(
            self.ui, jobs, whyNoImport=self._whyNoImport, onChanged=self._onModelsChanged
        )
        self._status = Status(self.ui)
        self._hint = Hint(self.ui)
        addShortcut("Ctrl+Return", form, self.ui.applyButton.click)
        addShortcut("Escape", self.ui.questionFrame, self.ui.withdrawButton.click)
        self._window = DisplayWindow()
        self._resultSection = ResultSection(self.ui)
        self._question = QuestionSection(self.ui, onAnswer=self._start, onChanged=self.refresh)
        self._inputSection = InputSection(self.ui, onChosen=self._onReferenceChosen, onChanged=self._onInputChanged)
        self._foresight = Foresight(jobs.worker, onChanged=self.refresh)
        jobs.worker.onReady = lambda _message: self._onWorkerReady()
        jobs.worker.onStillborn = self._dependencySection.tellUnloadable
        self._connect()

    def _connect(self) -> None:
        self.ui.inputSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onInputChosen)
        self.ui.channelComboBox.connect("currentIndexChanged(int)", self._onChannelChosen)
        self.ui.outputSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onOutputChosen)
        for name in CHECKED:
            box = getattr(self.ui, f"{name}CheckBox")
            box.connect("toggled(bool)", lambda isChosen, name=name: self._choose(**{name: isChosen}))
        self.ui.presetComboBox.connect("currentIndexChanged(int)", self._onPresetChosen)
        self.ui.networkComboBox.connect("currentIndexChanged(int)", self._onNetworkChosen)
        self.ui.modelComboBox.connect("currentIndexChanged(int)", self._onModelChosen)
        self.ui.deviceComboBox.connect("currentIndexChanged(int)", self._onDeviceChosen)
        self.ui.statusLabel.connect("linkActivated(QString)", self._onStatusLink)
        self.ui.applyButton.connect("clicked(bool)", self._onApply)

    def setParameters(self, parameters: Any) -> None:
        """Show another parameter node; None while the scene is closed."""
        former, self._parameters = self._parameters, parameters
        self.removeObservers()
        self._volumeId = None
        if former is None or parameters is None or former.parameterNode is not parameters.parameterNode:
            self._inputSection.forget()
            self._window.forget()
        if former is not None and (parameters is None or former.parameterNode is not parameters.parameterNode):
            # What ended a run while the scene changed comes after this, and is to be read; as is how a run ended when
            # a person comes back from another module.
            self._outcome = None
        self._question.withdraw()
        if parameters is None:
            self._watch.follow(None)
            self._resultSection.forget()
            return
        self._isShown3D = parameters.show3D
        if former is None or former.parameterNode is not parameters.parameterNode:
            self._guessed = "" if parameters.preset else None
        self.addObserver(parameters.parameterNode, vtkCommand.ModifiedEvent, self._onParametersModified)
        self._followVolume()
        self.refresh()

    def enter(self) -> None:
        """Look again for what may have changed outside: models and installed packages."""
        self._models = self.jobs.listModels()
        self._dependencySection.look()
        self._isWarm = False
        self._foresight.askAgain()
        self.refresh()

    def cleanup(self) -> None:
        """Let go of the scene and the worker."""
        self.removeObservers()
        self._watch.follow(None)
        self._parameters = None
        self.jobs.worker.onReady = self.jobs.worker.onStillborn = None
        self._dependencySection.cleanup()
        self._modelsSection.cleanup()
        self._inputSection.forget()
        self._foresight.cleanup()
        self.jobs.cleanup()

    def onNodeRemoved(self) -> None:
        """Say and offer no more what is about a result that is not in the scene any more."""
        if self._parameters is not None:
            self._resultSection.refresh(self._parameters.outputSegmentation, self._models)
        resultId = self._outcome.segmentationId if self._outcome is not None else None
        if resultId is not None and scene_exchange.nodeById(resultId) is None:
            self._outcome = None
            self.refresh()

    def refresh(self) -> None:
        """Bring every widget up to date."""
        if self._parameters is None or self._isUpdating:
            return
        self._isUpdating = True
        try:
            self._dependencySection.refresh()
            self._refreshParameters()
            self._refreshModel()
            self._refreshSegment()
            self._resultSection.refresh(self._parameters.outputSegmentation, self._models)
        finally:
            self._isUpdating = False
        self._warmUp()

    def _refreshParameters(self) -> None:
        self.ui.outputSelector.setCurrentNode(self._parameters.outputSegmentation)
        for name in CHECKED:
            getattr(self.ui, f"{name}CheckBox").checked = getattr(self._parameters, name)
        devices = deviceEntries(self.jobs.worker.ready.get("devices", []), self._parameters.device)
        fill(self.ui.deviceComboBox, devices, self._parameters.device)

    def _refreshModel(self) -> None:
        parameters = self._parameters
        self._choices = found = choices.findChoices(
            self._models,
            preset=parameters.preset,
            network=parameters.network,
            model=parameters.model,
            networkTitles=self._networkTitles,
        )
        fill(self.ui.presetComboBox, list(choices.declaredPresets().items()), found.preset)
        fill(self.ui.networkComboBox, networkEntries(found), found.network)
        models = [(entry.description.id, entry.description.title) for entry in found.models]
        fill(
            self.ui.modelComboBox,
            models or [("", _("None installed"))],
            found.model.description.id if found.model else "",
        )
        self.ui.modelComboBox.enabled = bool(models)
        self._modelsSection.refresh(found.model)

        # A removed volume has left the parameters before the watch hears of it.
        if self._watch.look is not None and parameters.inputVolume is not None:
            self._window.follow(parameters.inputVolume, found.preset)

    def _refreshSegment(self) -> None:
        self._inputSection.suggest(self._parameters, self._choices.model)
        isRunning, reason = self.jobs.isRunning, self._whyNot()
        self._reason = reason
        self._foresee()
        self._inputSection.refresh(self._parameters, self._choices.model, isEnabled=not isRunning)
        for section in (self.ui.presetComboBox, self.ui.networkComboBox, self.ui.advancedContents):
            section.enabled = not isRunning
        self.ui.modelComboBox.enabled = not isRunning and bool(self._choices.models)
        self.ui.applyButton.text = _("Cancel") if isRunning else _("Apply")
        self.ui.applyButton.enabled = isRunning or not (reason or self._question.isOpen)
        self.ui.applyButton.toolTip = (
            _("Stop the run; nothing in the scene is changed. (Ctrl+Return)")
            if isRunning
            else reason or _("Segment the volume with the model chosen above. (Ctrl+Return)")
        )
        self.ui.progressBar.visible = isRunning
        if isRunning:
            self._status.sayProgress(self._progress)
        elif self._question.isOpen:
            self._status.say("")
        elif reason and self._parameters.inputVolume is None:
            self._status.sayNoVolume(reason, self._outcome)
        elif reason:
            self._status.sayHint(reason)
        elif self._outcome is not None:
            self._status.sayOutcome(self._outcome)
        else:
            doubts = readiness.doubts(self._parameters, self._choices, self._watch.look)
            self._status.sayHint("<br>".join([*doubts, *filter(None, [html.escape(self._foresight.doubt)])]))

    def _foresee(self) -> None:
        isPossible = not (self.jobs.isRunning or self._reason)
        self._foresight.follow(requestFor(self._parameters, self._choices.model) if isPossible else None)

    def _whyNot(self) -> str:
        return readiness.whyNoRun(
            self._parameters,
            self._choices,
            dependencies=self._dependencySection.state,
            isImporting=self.jobs.isImporting,
        )

    def _whyNoImport(self) -> str:
        return readiness.whyNoImport(
            dependencies=self._dependencySection.state, isRunning=self.jobs.isRunning, isImporting=self.jobs.isImporting
        )

    def _onModelsChanged(self, model: InstalledModel | None) -> None:
        """Look again which models there are, and choose one of them."""
        self._models = self.jobs.listModels()
        if model is not None and self._parameters is not None:
            description = model.description
            self._choose(preset=description.preset, network=description.network, model=description.id)
        self.refresh()

    def _warmUp(self) -> None:
        """Start the worker once a run is possible, so that it has loaded torch by the time Apply is pressed."""
        if not self._isWarm and self.ui.applyButton.enabled:
            self._isWarm = True
            self.jobs.worker.start()

    def _onWorkerReady(self) -> None:
        self._foresight.askAgain()
        self.refresh()

    def _onParametersModified(self, _caller: Any, _event: str) -> None:
        if self._isUpdating or self._parameters is None:
            return
        # It was about another choice.
        self._question.withdraw()
        if _idOf(self._parameters.inputVolume) != self._volumeId:
            self._onVolumeChosen()
        if self._parameters.show3D != self._isShown3D:
            self._isShown3D = self._parameters.show3D
            if self._parameters.outputSegmentation is not None:
                self.jobs.show3D(self._parameters.outputSegmentation, self._isShown3D)
        self.refresh()

    def _onVolumeChosen(self) -> None:
        volume, output = self._parameters.inputVolume, self._parameters.outputSegmentation
        isRemoved = self._volumeId is not None and scene_exchange.nodeById(self._volumeId) is None
        if self._outcome is not None and not (isRemoved and self._outcome.kind == "cancelled"):
            self._outcome = None
        self._guessed = None
        self._followVolume()
        if volume is not None and output is not None and not segmentations.belongsTo(output, volume):
            self._isUpdating = True
            self._parameters.outputSegmentation = None
            self._isUpdating = False

    def _followVolume(self) -> None:
        self._volumeId = _idOf(self._parameters.inputVolume)
        self._watch.follow(self._parameters.inputVolume)
        self._guessPreset()

    def _onVolumeModified(self) -> None:
        if self._parameters is not None and not self.jobs.isRunning:
            self._guessPreset()
            self.refresh()

    def _guessPreset(self) -> None:
        """Suggest a modality, anew with all that becomes known of the volume, until a person chooses another one."""
        if self._watch.look is None or self._guessed not in (None, self._parameters.preset):
            return
        self._guessed = self._watch.look.guess()
        self._isUpdating = True
        self._parameters.preset = self._guessed
        self._isUpdating = False

    def _onInputChosen(self, node: Any) -> None:
        self._choose(inputVolume=node)

    def _onChannelChosen(self, _index: int) -> None:
        self._choose(inputChannel=self.ui.channelComboBox.currentData or "")

    def _onReferenceChosen(self, channel: str, node: Any) -> None:
        if self._isUpdating or self._parameters is None:
            return
        self._outcome = None
        if channel:
            setChannelVolume(self._parameters, channel, node)
        else:
            setRegionNode(self._parameters, node)
        self.refresh()

    def _onInputChanged(self) -> None:
        if self._parameters is None or self.jobs.isRunning:
            return
        former = self._reason, self._foresight.doubt
        self._reason = self._whyNot()
        self._foresee()
        # Dragging a handle tells of every pixel.
        if former != (self._reason, self._foresight.doubt):
            self.refresh()

    def _onOutputChosen(self, node: Any) -> None:
        self._choose(outputSegmentation=node)

    def _onPresetChosen(self, _index: int) -> None:
        self._choose(preset=self.ui.presetComboBox.currentData or "")

    def _onNetworkChosen(self, _index: int) -> None:
        self._choose(network=self.ui.networkComboBox.currentData or "")

    def _onModelChosen(self, _index: int) -> None:
        self._choose(model=self.ui.modelComboBox.currentData or "")

    def _onDeviceChosen(self, _index: int) -> None:
        self._choose(device=self.ui.deviceComboBox.currentData or "auto")

    def _choose(self, **values: Any) -> None:
        if self._isUpdating or self._parameters is None:
            return
        # A selector chooses by itself when its volume is removed, which may have ended a run: see _onVolumeChosen.
        if not values.keys() & {"show3D", "outputSegmentation", "inputVolume"}:
            # What was said about the last run does not hold for the next one.
            self._outcome = None
        for name, value in values.items():
            setattr(self._parameters, name, value)

    def _onStatusLink(self, link: str) -> None:
        if link == "import":
            self._modelsSection.chooseFolder()
        elif link == "sample":
            volume = samples.load()
            if volume is not None:
                self._parameters.inputVolume = volume
        elif link == "undo":
            self._undo()

    def _undo(self) -> None:
        former = self._outcome.former if self._outcome is not None else None
        if former is None:
            return
        if former.restore():
            uncertainty_maps.forget(former.segmentationNode)
            message = _("Undone: the segmentation is as it was before the run.")
        else:
            message = _("Not undone: the segmentation was changed since the run.")
        self._outcome = Outcome(kind="cancelled", message=message)
        self.refresh()

    def _onApply(self, _checked: bool) -> None:
        if self.jobs.isRunning:
            self.jobs.cancel()
            return
        self._question.ask(self._parameters.outputSegmentation, self._parameters.inputVolume)

    def _start(self, target: Target | None) -> None:
        parameters, model = self._parameters, self._choices.model
        self._segmentedId = parameters.inputVolume.GetID()
        self._outcome = None
        self._modelsSection.dismissReport()
        self.jobs.segment(
            settingsFor(parameters, model, target),
            onProgress=self._onProgress,
            onFinished=self._onFinished,
        )
        self.refresh()

    def _onProgress(self, progress: Progress) -> None:
        self._progress = progress
        self.ui.progressBar.value = round(100 * progress.fraction)
        self._status.sayProgress(progress)

    def _onFinished(self, outcome: Outcome) -> None:
        logging.info("UNetSegmentation: %s", " ".join([outcome.message, *outcome.warnings]))
        self._outcome = outcome
        if outcome.kind == "done":
            self._hint.dismiss()
        self._progress = None
        self.ui.progressBar.value = 0
        if self._parameters is None:
            return
        segmentation, volume = scene_exchange.nodeById(outcome.segmentationId), self._parameters.inputVolume
        if segmentation is not None and volume is not None and volume.GetID() == self._segmentedId:
            self._parameters.outputSegmentation = segmentation
        elif segmentation is not None:
            # Another volume was chosen meanwhile, and none of this is about it.
            self._outcome = None
        self.refresh()


def _idOf(node: Any) -> str | None:
    return node.GetID() if node is not None else None
