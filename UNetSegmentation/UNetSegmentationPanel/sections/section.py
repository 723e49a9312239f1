"""Base of the panel's sections, their state, and their access to the panel."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..choices.choices import Choices
from ..choices.modality import Look
from ..jobs.job import Outcome, Progress
from ..jobs.jobs import Jobs
from ..scene.segmentations import Target
from ..setup.dependencies import DependencyState, DependencyWatch


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question to the user about a segmentation that contains their edits.

    Attributes:
        segmentationId: ID of the segmentation.
        onAnswer: Called with the chosen target; None for a new segmentation.
    """

    segmentationId: str
    onAnswer: Callable[[Target | None], None]


@dataclass(frozen=True, kw_only=True)
class State:
    """State of the panel at one moment; computed once for all sections.

    Attributes:
        parameters: The parameter node with the user's choices; read only.
        models: All installed models.
        choices: Entries of the menus and the current choices.
        look: Properties of the volume; None if no volume can be segmented.
        dependencies: Whether the worker can run.
        devices: Devices offered by the worker; empty before it is ready.
        jobKind: Kind of the current job; empty if none is running.
        isSceneInUse: Whether the current job uses the scene, so that its input must not be changed.
        whyWait: Why no other job can be started now, in one sentence; empty if none is running.
        whyNoRun: Why no run can be started, in one sentence of rich text; empty if it can.
        doubts: Why the result of a possible run may be wrong, in sentences of rich text.
        question: Question that the user must answer first, or None.
        progress: Progress shown in the status line, or None.
        outcome: Outcome shown in the status line, or None.
    """

    parameters: Any
    models: tuple[Any, ...]
    choices: Choices
    look: Look | None
    dependencies: DependencyState
    devices: tuple[dict[str, Any], ...]
    jobKind: str
    isSceneInUse: bool
    whyWait: str
    whyNoRun: str
    doubts: tuple[str, ...]
    question: Question | None
    progress: Progress | None
    outcome: Outcome | None

    @property
    def canRun(self) -> bool:
        """Whether a run can be started now."""
        return not (self.jobKind or self.whyNoRun or self.question)


class PanelAccess(Protocol):
    """The parts of the panel that sections may use.

    Attributes:
        form: The panel's form.
        ui: The widgets of the form.
        jobs: The current job and the worker.
        dependencies: State of the required packages.
        requirements: Requirements file for the packages needed in addition to PyTorch.
        parameters: The parameter node; None while the scene is closing.
        outcome: Outcome shown in the status line, or None.
    """

    form: Any
    ui: Any
    jobs: Jobs
    dependencies: DependencyWatch
    requirements: Path
    parameters: Any
    outcome: Outcome | None

    def refresh(self, *, onlyIfChanged: bool = False) -> None:
        """Update all sections, or only if the state has changed."""

    def choose(self, **values: Any) -> None:
        """Store choices in the parameter node by name; ignored while the widgets are being updated."""

    def edit(self, change: Callable[[Any], None]) -> None:
        """Like `choose`, for node references: call a function with the parameter node."""

    def listModels(self) -> None:
        """Refresh the list of installed models."""

    def ask(self, question: Question | None) -> None:
        """Show a question, or hide it if None."""

    def showProgress(self, progress: Progress) -> None:
        """Show the progress of the current job in the status line."""

    def tell(self, outcome: Outcome | None) -> None:
        """Show in the status line how a job ended; None clears the message."""


class Section:
    """A part of the panel: the widgets of one frame of the form and their behaviour.

    A section never changes another one. It changes the parameter node or the jobs, and `refresh` then updates all
    sections.

    Args:
        panel: Access to the panel.
    """

    def __init__(self, panel: PanelAccess) -> None:
        self.panel = panel
        self.ui = panel.ui

    def follow(self, parameters: Any) -> None:
        """Use another parameter node, or update the current one; None releases the scene, which is closing."""

    def refresh(self, state: State) -> None:
        """Update the widgets."""

    def showProgress(self, progress: Progress) -> None:
        """Show the progress of the current job; called more often than `refresh`."""

    def cleanup(self) -> None:
        """Release all resources."""
