"""Look-alikes of the number widgets that take their unit from the scene."""

from slicer_host.look_alikes import look_alike, stored_property
from slicer_host.widgets.ctk_numbers import ctkDoubleSpinBox, ctkSliderWidget
from slicer_host.widgets.ctk_ranges import ctkRangeWidget
from slicer_host.widgets.mrml_widget import SceneReader


class _Quantity(SceneReader):
    """A quantity such as "length"; the scene's unit node for it gives the suffix."""

    def _scene_changed(self):
        self._show_unit()

    def _show_unit(self):
        if self._scene is None or not self.quantity:
            return
        selection = self._scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
        unit = selection.GetUnitNode(self.quantity) if selection is not None else None
        if unit is not None:
            self.suffix = unit.GetSuffix() or ""

    def setQuantity(self, quantity):
        """Choose what is measured."""
        self.quantity = quantity

    quantity = stored_property("", str, changed="_show_unit")


@look_alike()
class qMRMLSliderWidget(_Quantity, ctkSliderWidget):
    """A slider with a unit."""

    def setOrientation(self, orientation):
        """Lay the slider along `orientation`."""
        self._slider.setOrientation(orientation)

    def setUnitAwareProperties(self, flags):
        """Choose what the unit sets."""
        self.unitAwareProperties = flags

    orientation = property(lambda self: self._slider.orientation, setOrientation)
    unitAwareProperties = stored_property(0x3B, int)


@look_alike()
class qMRMLSpinBox(_Quantity, ctkDoubleSpinBox):
    """A spin box with a unit."""

    def setUnitAwareProperties(self, flags):
        """Choose what the unit sets."""
        self.unitAwareProperties = flags

    unitAwareProperties = stored_property(0x3B, int)


@look_alike()
class qMRMLRangeWidget(ctkRangeWidget):
    """A range with a unit."""

    _scene = None

    def setMRMLScene(self, scene):
        """Set the scene."""
        self._scene = scene

    def setQuantity(self, quantity):
        """Choose what is measured."""
        self.quantity = quantity

    mrmlScene = property(lambda self: self._scene, setMRMLScene)
    quantity = stored_property("", str)
