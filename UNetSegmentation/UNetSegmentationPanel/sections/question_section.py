"""Question shown before a run changes segments that it did not create."""

import html

from slicer.i18n import tr as _

from ..scene.scene_exchange import nodeById
from ..scene.segmentations import ADD, KEEP, REPLACE, canAdd, targetIn
from .first_steps import addShortcut
from .section import PanelAccess, Question, Section, State


class QuestionSection(Section):
    """A frame with the question and its answers, hidden if there is no question."""

    def __init__(self, panel: PanelAccess) -> None:
        super().__init__(panel)
        self._question: Question | None = None
        self.ui.questionFrame.visible = False
        addShortcut("Escape", self.ui.questionFrame, self.ui.withdrawButton.click)
        self.ui.replaceButton.connect("clicked(bool)", lambda _checked: self._answer(REPLACE))
        self.ui.addButton.connect("clicked(bool)", lambda _checked: self._answer(ADD))
        self.ui.newButton.connect("clicked(bool)", lambda _checked: self._answer(KEEP))
        self.ui.withdrawButton.connect("clicked(bool)", lambda _checked: self.panel.ask(None))

    def follow(self, _parameters: object) -> None:
        self._question = None
        self.ui.questionFrame.visible = False

    def refresh(self, state: State) -> None:
        if state.question is self._question:
            return
        self._question = state.question
        self.ui.questionFrame.visible = state.question is not None
        segmentation = nodeById(state.question.segmentationId) if state.question is not None else None
        if segmentation is None:
            return
        count = segmentation.GetSegmentation().GetNumberOfSegments()
        text = _(
            "“{name}” contains edits or segments that are not from the last run (segments: {count}). Where should "
            "the result go?"
        )
        self.ui.questionLabel.text = html.escape(text.format(name=segmentation.GetName(), count=count))
        self.ui.addButton.enabled = canAdd(segmentation)
        # Pressing Return must not overwrite anything.
        self.ui.newButton.setFocus()

    def _answer(self, mode: str) -> None:
        question = self._question
        segmentation = nodeById(question.segmentationId)
        self.panel.ask(None)
        question.onAnswer(targetIn(segmentation, mode) if segmentation is not None else None)
