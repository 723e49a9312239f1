"""The question that comes before a run would touch segments that are not its own."""

import html
from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from ..scene.scene_exchange import nodeById
from ..scene.segmentations import ADD, BESIDE, REPLACE, Target, canAdd, isFree
from ..scene.undo import fingerprint


class QuestionSection:
    """A frame with the question and its answers, hidden while there is none.

    Args:
        ui: The widgets of the form.
        onAnswer: Called with the target, None for a new segmentation, once a person has decided to go on.
        onChanged: Called when the question was put, or withdrawn by its button.
    """

    def __init__(self, ui: Any, *, onAnswer: Callable[[Target | None], None], onChanged: Callable[[], None]) -> None:
        self.ui = ui
        self._onAnswer = onAnswer
        self._onChanged = onChanged
        self._segmentationId: str | None = None
        ui.questionFrame.visible = False
        ui.replaceButton.connect("clicked(bool)", lambda _checked: self._answer(REPLACE))
        ui.addButton.connect("clicked(bool)", lambda _checked: self._answer(ADD))
        ui.newButton.connect("clicked(bool)", lambda _checked: self._answer(BESIDE))
        ui.withdrawButton.connect("clicked(bool)", self._onWithdraw)

    @property
    def isOpen(self) -> bool:
        return self._segmentationId is not None

    def ask(self, segmentationNode: Any, volumeNode: Any) -> None:
        """Answer at once where a segmentation holds nothing of a person's work, otherwise ask."""
        if segmentationNode is None:
            self._onAnswer(None)
            return
        if isFree(segmentationNode, volumeNode):
            self._onAnswer(_target(segmentationNode, REPLACE))
            return
        self._segmentationId = segmentationNode.GetID()
        count = segmentationNode.GetSegmentation().GetNumberOfSegments()
        text = _(
            "“{name}” holds {count} segments that are not from the last run or were changed since. Where shall the "
            "result go?"
        )
        self.ui.questionLabel.text = html.escape(text.format(name=segmentationNode.GetName(), count=count))
        self.ui.addButton.enabled = canAdd(segmentationNode)
        self.ui.questionFrame.visible = True
        # Return must not overwrite anything.
        self.ui.newButton.setFocus()
        self._onChanged()

    def withdraw(self) -> None:
        """Close the question without an answer."""
        self._segmentationId = None
        self.ui.questionFrame.visible = False

    def _onWithdraw(self, _checked: bool) -> None:
        self.withdraw()
        self._onChanged()

    def _answer(self, mode: str) -> None:
        segmentationNode = nodeById(self._segmentationId)
        self.withdraw()
        self._onAnswer(_target(segmentationNode, mode) if segmentationNode is not None else None)


def _target(segmentationNode: Any, mode: str) -> Target:
    return Target(segmentationId=segmentationNode.GetID(), fingerprint=fingerprint(segmentationNode), mode=mode)
