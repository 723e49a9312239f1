"""What every section of the panel is: told of the scene and of the panel's state, and of its end."""

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
    """A segmentation that holds a person's work, of which they have to decide before something goes on.

    Attributes:
        segmentationId: ID of the segmentation.
        onAnswer: Called with the target that they have decided on, None for a new segmentation.
    """

    segmentationId: str
    onAnswer: Callable[[Target | None], None]


@dataclass(frozen=True, kw_only=True)
class State:
    """How the panel stands at one moment; computed once for all sections.

    Attributes:
        parameters: The parameter node that holds what is chosen; read it only.
        models: All installed models.
        choices: What the menus offer and what is chosen in them.
        look: What the volume shows of its kind; None while there is none that can be segmented.
        dependencies: Whether the worker can run.
        devices: What the worker offers; empty before it is ready.
        jobKind: Kind of the current job; empty while none is running.
        isSceneInUse: Whether the current job works on the scene, so that its input must not be changed.
        whyWait: Why the current job keeps others from being started, in a sentence; empty while none is running.
        whyNoRun: Why no run can be started, in a sentence of rich text; empty when one can.
        doubts: What speaks against the result of a run that can be started, in sentences of rich text.
        question: What has to be decided before something goes on, or None.
        progress: How far the current job is, where the status line tells of it.
        outcome: How the last job ended that the status line tells of, or None where that holds no more.
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
        """Tell whether a run can be started now."""
        return not (self.jobKind or self.whyNoRun or self.question)


class PanelAccess(Protocol):
    """What a section may use of the panel.

    Attributes:
        form: The panel's form.
        ui: The widgets of the form.
        jobs: The one current job, and the worker.
        dependencies: What is known of missing packages.
        requirements: File with what is needed besides PyTorch.
        parameters: The parameter node; None while the scene is closed.
        outcome: How the last job ended that the status line tells of, or None.
    """

    form: Any
    ui: Any
    jobs: Jobs
    dependencies: DependencyWatch
    requirements: Path
    parameters: Any
    outcome: Outcome | None

    def refresh(self, *, onlyIfChanged: bool = False) -> None:
        """Bring all sections up to date, or only where the state is another one than before."""

    def choose(self, **values: Any) -> None:
        """Store choices by their names in the parameter node, unless a widget only shows what is chosen already."""

    def edit(self, change: Callable[[Any], None]) -> None:
        """Like `choose`, for what is stored otherwise: call a function with the parameter node."""

    def listModels(self) -> None:
        """Look again which models there are."""

    def ask(self, question: Question | None) -> None:
        """Put a question, or withdraw it."""

    def showProgress(self, progress: Progress) -> None:
        """Tell in the status line how far the current job is."""

    def tell(self, outcome: Outcome | None) -> None:
        """Tell in the status line how a job ended; None takes away what was told."""


class Section:
    """A part of the panel: the widgets of one frame of the form and what they do.

    A section changes nothing of another one: it changes the parameter node or the jobs, and `refresh` brings what
    follows from it to all of them.

    Args:
        panel: What the section may use.
    """

    def __init__(self, panel: PanelAccess) -> None:
        self.panel = panel
        self.ui = panel.ui

    def follow(self, parameters: Any) -> None:
        """Get ready for another parameter node, or the same one anew; None: let go of the scene, which is closing."""

    def refresh(self, state: State) -> None:
        """Bring the widgets up to date."""

    def showProgress(self, progress: Progress) -> None:
        """Show how far the current job is: more often than everything is brought up to date."""

    def cleanup(self) -> None:
        """Let go of everything for good."""
