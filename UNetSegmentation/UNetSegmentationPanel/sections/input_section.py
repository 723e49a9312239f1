"""Input of the panel: the volume, the other channels of the model, and the region of interest."""

from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin
from vtk import vtkCommand

from UNetSegmentationLib.models.installed import InstalledModel

from ..choices import channels
from ..choices import parameters as stored
from ..scene import scene_exchange
from ..scene.display_window import DisplayWindow
from .menus import fill
from .section import PanelAccess, Section, State

# Below the volume and its channel.
FIRST_CHANNEL_ROW = 2


class InputSection(Section, VTKObservationMixin):
    """Widgets for the input; those for channels are shown only for multi-channel models."""

    def __init__(self, panel: PanelAccess) -> None:
        Section.__init__(self, panel)
        VTKObservationMixin.__init__(self)
        self._rows: list[_ChannelRow] = []
        self._followedIds: list[str] = []
        self._window = DisplayWindow()
        self.ui.inputSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onVolumeChosen)
        self.ui.channelComboBox.connect("currentIndexChanged(int)", self._onInputChannelChosen)
        self.ui.regionSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onRegionChosen)
        self.ui.regionSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self._onRegionAdded)

    def follow(self, parameters: Any) -> None:
        if parameters is None:
            # Another scene may have nodes with the same IDs.
            self.cleanup()
            self._window.forget()

    def refresh(self, state: State) -> None:
        parameters, isEnabled = state.parameters, not state.isSceneInUse
        self.ui.inputSelector.setCurrentNode(parameters.inputVolume)
        self.ui.inputSelector.enabled = isEnabled
        self._refreshChannels(parameters, state.choices.model, isEnabled)
        region = stored.regionNode(parameters)
        self.ui.regionSelector.setCurrentNode(region)
        self.ui.regionSelector.enabled = isEnabled
        self._observe([region, *(row.selector.currentNode() for row in self._rows if row.isShown)])
        # A removed volume leaves the parameters before `look` is updated.
        if state.look is not None and parameters.inputVolume is not None:
            self._window.follow(parameters.inputVolume, state.choices.preset)

    def cleanup(self) -> None:
        self.removeObservers()
        self._followedIds = []

    def _refreshChannels(self, parameters: Any, model: InstalledModel | None, isEnabled: bool) -> None:
        description = model.description if model is not None else None
        isSeveral = description is not None and len(description.channels) > 1
        for widget in (self.ui.channelLabel, self.ui.channelComboBox):
            widget.visible = isSeveral
        shown = []
        if isSeveral:
            volume = parameters.inputVolume
            own = channels.inputChannel(
                description, volume.GetName() if volume is not None else "", parameters.inputChannel
            )
            fill(self.ui.channelComboBox, [(channel.name, channel.name) for channel in description.channels], own)
            self.ui.channelComboBox.enabled = isEnabled
            shown = [channel for channel in description.channels if channel.name != own]
        while len(self._rows) < len(shown):
            row = _ChannelRow(self._onChannelChosen)
            self.ui.inputSection.layout().insertRow(FIRST_CHANNEL_ROW + len(self._rows), row.label, row.selector)
            self._rows.append(row)
        for row in self._rows[len(shown) :]:
            row.hide()
        for row, channel in zip(self._rows, shown, strict=False):
            row.show(channel, stored.channelVolume(parameters, channel.name), isEnabled=isEnabled)

    def _observe(self, nodes: list[Any]) -> None:
        """Observe changes of these nodes."""
        nodeIds = [node.GetID() for node in nodes if node is not None]
        if nodeIds == self._followedIds:
            return
        self.removeObservers()
        self._followedIds = nodeIds
        for node in nodes:
            for event in _eventsOf(node) if node is not None else ():
                self.addObserver(node, event, self._onNodeModified)

    def _onNodeModified(self, _caller: Any, _event: str) -> None:
        # Dragging a handle triggers an event per pixel.
        self.panel.refresh(onlyIfChanged=True)

    def _onVolumeChosen(self, node: Any) -> None:
        self.panel.choose(inputVolume=node)

    def _onInputChannelChosen(self, _index: int) -> None:
        self.panel.choose(inputChannel=self.ui.channelComboBox.currentData or "")

    def _onChannelChosen(self, channel: str, node: Any) -> None:
        self.panel.edit(lambda parameters: stored.setChannelVolume(parameters, channel, node))

    def _onRegionChosen(self, node: Any) -> None:
        self.panel.edit(lambda parameters: stored.setRegionNode(parameters, node))

    def _onRegionAdded(self, node: Any) -> None:
        volume = self.panel.parameters.inputVolume
        if volume is not None:
            scene_exchange.fitRegion(node, volume)
        node.CreateDefaultDisplayNodes()
        # Keep the image inside visible while the handles are dragged.
        node.GetDisplayNode().SetFillVisibility(False)


class _ChannelRow:
    """Label and selector of one channel."""

    def __init__(self, onChosen: Callable[[str, Any], None]) -> None:
        self._channel = ""
        self._onChosen = onChosen
        self.label = qt.QLabel()
        self.selector = slicer.qMRMLNodeComboBox()
        self.selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.selector.hideChildNodeTypes = list(scene_exchange.NOT_INPUT)
        self.selector.noneEnabled = True
        self.selector.addEnabled = False
        self.selector.removeEnabled = False
        self.selector.setMRMLScene(slicer.mrmlScene)
        self.label.setBuddy(self.selector)
        self.selector.connect("currentNodeChanged(vtkMRMLNode*)", self._onNodeChosen)

    @property
    def isShown(self) -> bool:
        return bool(self._channel)

    def show(self, channel: Any, node: Any, *, isEnabled: bool) -> None:
        blocked = self.selector.blockSignals(True)
        self._channel = channel.name
        self.label.text = f"{channel.name}:"
        self.selector.noneDisplay = _("None (missing)") if channel.is_optional else _("Choose a volume")
        self.selector.toolTip = (
            _("Volume for this channel. Optional: without it, the model is slightly less accurate.")
            if channel.is_optional
            else _("Volume for this channel. It is resampled to the geometry of the volume above if needed.")
        )
        self.selector.setCurrentNode(node)
        self.selector.blockSignals(blocked)
        self.selector.enabled = isEnabled
        self.label.visible = True
        self.selector.visible = True

    def hide(self) -> None:
        self._channel = ""
        self.label.visible = False
        self.selector.visible = False

    def _onNodeChosen(self, node: Any) -> None:
        if self._channel:
            self._onChosen(self._channel, node)


def _eventsOf(node: Any) -> tuple[Any, ...]:
    own = node.PointModifiedEvent if node.IsA("vtkMRMLMarkupsNode") else node.ImageDataModifiedEvent
    return (vtkCommand.ModifiedEvent, node.TransformModifiedEvent, own)
