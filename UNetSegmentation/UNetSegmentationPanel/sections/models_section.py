"""Choice of modality, network and model, and the card of the chosen model."""

from slicer.i18n import tr as _

from UNetSegmentationLib.models.description import CARD_FILE
from UNetSegmentationLib.models.installed import InstalledModel

from ..choices import choices, wording
from .menus import fill, networkEntries
from .section import PanelAccess, Section, State


class ModelsSection(Section):
    """Menus for choosing a model, and its card."""

    def __init__(self, panel: PanelAccess) -> None:
        super().__init__(panel)
        self._model: InstalledModel | None = None
        self.ui.presetComboBox.connect("currentIndexChanged(int)", self._onPresetChosen)
        self.ui.networkComboBox.connect("currentIndexChanged(int)", self._onNetworkChosen)
        self.ui.modelComboBox.connect("currentIndexChanged(int)", self._onModelChosen)
        self.ui.modelLabel.connect("linkActivated(QString)", self._onCardLink)

    def refresh(self, state: State) -> None:
        found, isEnabled = state.choices, not state.isSceneInUse
        fill(self.ui.presetComboBox, list(choices.declaredPresets().items()), found.preset)
        fill(self.ui.networkComboBox, networkEntries(found), found.network)
        models = [(entry.description.id, entry.description.title) for entry in found.models]
        chosen = found.model.description.id if found.model is not None else ""
        fill(self.ui.modelComboBox, models or [("", _("None installed"))], chosen)
        self.ui.presetComboBox.enabled = self.ui.networkComboBox.enabled = isEnabled
        self.ui.modelComboBox.enabled = isEnabled and bool(models)
        self._refreshCard(found.model)

    def _refreshCard(self, model: InstalledModel | None) -> None:
        self._model = model
        self.ui.modelLabel.text = wording.describe(model)
        self.ui.modelLabel.visible = model is not None
        if model is None:
            self.ui.cardBrowser.visible = False
        elif self.ui.cardBrowser.visible:
            self._showCard()

    def _showCard(self) -> None:
        path = self._model.folder / CARD_FILE
        text = path.read_text(encoding="utf-8") if path.is_file() else _("This model has no card.")
        self.ui.cardBrowser.setMarkdown(text)

    def _onPresetChosen(self, _index: int) -> None:
        self.panel.choose(preset=self.ui.presetComboBox.currentData or "")

    def _onNetworkChosen(self, _index: int) -> None:
        self.panel.choose(network=self.ui.networkComboBox.currentData or "")

    def _onModelChosen(self, _index: int) -> None:
        self.panel.choose(model=self.ui.modelComboBox.currentData or "")

    def _onCardLink(self, _link: str) -> None:
        self.ui.cardBrowser.visible = not self.ui.cardBrowser.visible
        if self.ui.cardBrowser.visible:
            self._showCard()
