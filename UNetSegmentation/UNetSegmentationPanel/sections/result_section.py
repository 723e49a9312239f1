"""Result of a run: its segments, their display, and how they were made."""

import html
from typing import Any

from slicer.i18n import tr as _

from ..scene import provenance, scene_exchange, segmentations, uncertainty_maps
from ..scene.surfaces import SurfaceDisplay
from .section import PanelAccess, Section, State

# Keep the table small if there are few segments.
LEAST_TABLE_HEIGHT, TABLE_HEADER_HEIGHT, TABLE_ROW_HEIGHT = 110, 40, 30


class ResultSection(Section):
    """Widgets for one segmentation; hidden if there is none."""

    def __init__(self, panel: PanelAccess) -> None:
        super().__init__(panel)
        self._segmentationId: str | None = None
        self._isDetailed = False
        self._isShown3D = True
        self._surfaces = SurfaceDisplay()
        self.ui.show3DCheckBox.connect("toggled(bool)", lambda isChecked: self.panel.choose(show3D=isChecked))
        self.ui.provenanceLabel.connect("linkActivated(QString)", self._onDetails)
        self.ui.mostUncertainButton.connect("clicked(bool)", self._onMostUncertain)
        self.ui.overlayCheckBox.connect("toggled(bool)", self._onOverlay)
        self.ui.opacitySlider.connect("valueChanged(double)", self._onOpacity)

    def follow(self, parameters: Any) -> None:
        if parameters is not None:
            self._isShown3D = parameters.show3D
            return
        self._surfaces.stop()
        self._segmentationId = None
        self.ui.segmentsTable.setSegmentationNode(None)

    def refresh(self, state: State) -> None:
        segmentation = state.parameters.outputSegmentation
        self._refreshSurfaces(state)
        self.ui.resultSection.visible = segmentation is not None
        self.ui.segmentsTable.setSegmentationNode(segmentation)
        self._segmentationId = segmentation.GetID() if segmentation is not None else None
        if segmentation is None:
            return
        count = segmentation.GetSegmentation().GetNumberOfSegments()
        self.ui.segmentsTable.maximumHeight = max(LEAST_TABLE_HEIGHT, TABLE_HEADER_HEIGHT + count * TABLE_ROW_HEIGHT)
        display = segmentation.GetDisplayNode()
        if display is not None:
            blocked = self.ui.opacitySlider.blockSignals(True)
            self.ui.opacitySlider.value = display.GetOpacity()
            self.ui.opacitySlider.blockSignals(blocked)
        self._refreshUncertainty(uncertainty_maps.uncertaintyOf(segmentation))
        made = segmentations.provenanceOf(segmentation)
        self.ui.provenanceLabel.visible = bool(made)
        modelId = str(made.get("model_id", "?"))
        title = next((model.description.title for model in state.models if model.description.id == modelId), modelId)
        sentence = _("Made with {model} on {device}.").format(model=title, device=str(made.get("device", "?")).upper())
        self.ui.provenanceLabel.text = f'{html.escape(sentence)} <a href="details">{_("Details")}</a>'
        self.ui.provenanceBrowser.visible = self._isDetailed and bool(made)
        if self._isDetailed:
            self.ui.provenanceBrowser.setHtml(provenance.asTable(provenance.linesOf(made, title)))

    def cleanup(self) -> None:
        self._surfaces.stop()

    def _refreshSurfaces(self, state: State) -> None:
        parameters = state.parameters
        self.ui.show3DCheckBox.checked = parameters.show3D
        if state.isSceneInUse:
            # The job may replace the segments of these surfaces.
            self._surfaces.stop()
        if parameters.show3D != self._isShown3D:
            self._isShown3D = parameters.show3D
            if parameters.outputSegmentation is not None:
                self._surfaces.show(parameters.outputSegmentation, self._isShown3D)

    def _refreshUncertainty(self, uncertainty: Any) -> None:
        self.ui.mostUncertainButton.visible = self.ui.overlayCheckBox.visible = uncertainty is not None
        if uncertainty is not None:
            blocked = self.ui.overlayCheckBox.blockSignals(True)
            self.ui.overlayCheckBox.checked = uncertainty_maps.isOverlaid(uncertainty)
            self.ui.overlayCheckBox.blockSignals(blocked)

    def _onMostUncertain(self, _checked: bool) -> None:
        uncertainty = uncertainty_maps.uncertaintyOf(scene_exchange.nodeById(self._segmentationId))
        if uncertainty is not None:
            uncertainty_maps.goToMostUncertain(uncertainty)

    def _onOverlay(self, isShown: bool) -> None:
        uncertainty = uncertainty_maps.uncertaintyOf(scene_exchange.nodeById(self._segmentationId))
        if uncertainty is not None:
            uncertainty_maps.overlay(uncertainty, isShown)

    def _onDetails(self, _link: str) -> None:
        self._isDetailed = not self._isDetailed
        self.panel.refresh()

    def _onOpacity(self, value: float) -> None:
        segmentation = scene_exchange.nodeById(self._segmentationId)
        if segmentation is not None and segmentation.GetDisplayNode() is not None:
            segmentation.GetDisplayNode().SetOpacity(value)
