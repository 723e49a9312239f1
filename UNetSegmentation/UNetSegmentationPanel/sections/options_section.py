"""Advanced options of the panel: device, output segmentation and additional outputs."""

from typing import Any

from .menus import deviceEntries, fill
from .section import PanelAccess, Section, State

# Parameters with a check box of the same name.
CHECKED = ("mirror", "uncertainty", "probabilities")


class OptionsSection(Section):
    """Widgets whose defaults suit most runs."""

    def __init__(self, panel: PanelAccess) -> None:
        super().__init__(panel)
        self.ui.deviceComboBox.connect("currentIndexChanged(int)", self._onDeviceChosen)
        self.ui.outputSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onOutputChosen)
        for name in CHECKED:
            box = getattr(self.ui, f"{name}CheckBox")
            box.connect("toggled(bool)", lambda isChecked, name=name: self.panel.choose(**{name: isChecked}))

    def refresh(self, state: State) -> None:
        parameters = state.parameters
        self.ui.advancedContents.enabled = not state.isSceneInUse
        self.ui.outputSelector.setCurrentNode(parameters.outputSegmentation)
        for name in CHECKED:
            getattr(self.ui, f"{name}CheckBox").checked = getattr(parameters, name)
        fill(self.ui.deviceComboBox, deviceEntries(state.devices, parameters.device), parameters.device)

    def _onDeviceChosen(self, _index: int) -> None:
        self.panel.choose(device=self.ui.deviceComboBox.currentData or "auto")

    def _onOutputChosen(self, node: Any) -> None:
        self.panel.choose(outputSegmentation=node)
