"""What draws a view, without Qt: render window, displayable managers, logic and interactor style."""

from collections.abc import Callable

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

SLICE_MANAGERS = (
    "VolumeGlyphSlice",
    "ModelSlice",
    "Crosshair",
    "OrientationMarker",
    "Ruler",
    "ScalarBar",
    "ColorLegend",
    "Markups",
    "Segmentations2D",
    "Transforms2D",
    "LinearTransforms",
)
THREE_D_MANAGERS = (
    "Camera",
    "View",
    "Model",
    "ThreeDReformat",
    "Crosshair3D",
    "OrientationMarker",
    "Ruler",
    "ColorLegend",
    "Markups",
    "Segmentations3D",
    "Transforms3D",
    "LinearTransforms",
    "VolumeRendering",
)

_ROOM_FOR_BOX = 0.85


def _manager_class(name: str) -> str:
    for dimension in ("2D", "3D"):
        if name.endswith(dimension):
            return f"vtkMRML{name.removesuffix(dimension)}DisplayableManager{dimension}"
    return f"vtkMRML{name}DisplayableManager"


def register_displayable_managers(application_logic) -> None:
    """Tell both factories which managers every view gets."""
    for factory_class, names in (
        (slicer.vtkMRMLSliceViewDisplayableManagerFactory, SLICE_MANAGERS),
        (slicer.vtkMRMLThreeDViewDisplayableManagerFactory, THREE_D_MANAGERS),
    ):
        factory = factory_class.GetInstance()
        factory.SetMRMLApplicationLogic(application_logic)
        for name in map(_manager_class, names):
            if hasattr(slicer, name) and not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)


class OffscreenView:
    """A render window without a screen, with an interactor that takes the events of a widget."""

    factory_class: type
    interactor_style_class: type

    def __init__(self, view_node, size: tuple[int, int], request_render: Callable[[], None]):
        self.view_node = view_node
        self.needs_render = True
        self._request_render = request_render
        self.render_window = vtk.vtkRenderWindow()
        self.render_window.SetOffScreenRendering(1)
        self.render_window.SetShowWindow(False)
        self.render_window.SetMultiSamples(0)  # pictures are then the same with every OpenGL
        self.render_window.SetSize(*size)
        self.renderer = vtk.vtkRenderer()
        self.render_window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkGenericRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.render_window)
        self.interactor.SetSize(*size)

    def _add_displayable_managers(self) -> None:
        self.managers = self.factory_class.GetInstance().InstantiateDisplayableManagers(self.renderer)
        self.managers.AddObserver(vtk.vtkCommand.UpdateEvent, self.mark_dirty)
        self.managers.SetMRMLDisplayableNode(self.view_node)

    def _add_style(self, qt_free_style) -> None:
        self.style = self.interactor_style_class()
        self.style.SetDisplayableManagers(self.managers)
        self.interactor.SetInteractorStyle(qt_free_style)

    def mark_dirty(self, *_event) -> None:
        """Ask for a new picture."""
        self.needs_render = True
        self._request_render()

    def resize(self, width: int, height: int) -> None:
        """Draw in another size, in pixels."""
        self.render_window.SetSize(width, height)
        self.interactor.UpdateSize(width, height)
        self.mark_dirty()

    def picture(self) -> np.ndarray:
        """Draw and return the picture, uint8 (height, width, 4), first row on top."""
        self.render_window.Render()
        self.needs_render = False
        width, height = self.render_window.GetSize()
        pixels = vtk.vtkUnsignedCharArray()
        self.render_window.GetRGBACharPixelData(0, 0, width - 1, height - 1, 0, pixels)
        return np.ascontiguousarray(vtk_to_numpy(pixels).reshape(height, width, 4)[::-1])

    def close(self) -> None:
        """Free what the window holds on the graphics card."""
        self.managers.SetMRMLDisplayableNode(None)
        self.render_window.Finalize()


class SlicePipeline(OffscreenView):
    """Draws one slice node."""

    factory_class = slicer.vtkMRMLSliceViewDisplayableManagerFactory
    interactor_style_class = slicer.vtkMRMLSliceViewInteractorStyle

    def __init__(self, application_logic, view_node, size, request_render):
        super().__init__(view_node, size, request_render)
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        # The image goes in before the managers add theirs: props of a 2D layer blend in the order of their coming.
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._image = vtk.vtkActor2D()
        self._image.SetMapper(self._mapper)
        self._image.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddViewProp(self._image)
        self._add_overlay()
        self._add_displayable_managers()
        self._add_logic(application_logic)
        self._add_style(vtk.vtkInteractorStyleUser())
        self.style.SetSliceLogic(self.logic)
        self.style.SetInteractor(self.interactor)
        self.resize(*size)
        self._show_image()

    def _add_overlay(self) -> None:
        self.render_window.SetNumberOfLayers(2)
        self._overlay = vtk.vtkRenderer()
        self._overlay.SetLayer(1)
        self._overlay.GetActiveCamera().ParallelProjectionOn()
        self.render_window.AddRenderer(self._overlay)
        self.corner_annotation = vtk.vtkCornerAnnotation()
        self.corner_annotation.SetMaximumFontSize(14)
        self._overlay.AddViewProp(self.corner_annotation)

    def _add_logic(self, application_logic) -> None:
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(application_logic)
        self.logic.SetMRMLScene(self.view_node.GetScene())
        self.logic.SetSliceNode(self.view_node)
        application_logic.GetSliceLogics().AddItem(self.logic)
        self.logic.AddObserver(vtk.vtkCommand.ModifiedEvent, self._show_image)

    def _show_image(self, *_event) -> None:
        connection = self.logic.GetImageDataConnection()
        self._mapper.SetInputConnection(connection)
        self._image.SetVisibility(connection is not None)
        self.mark_dirty()

    def resize(self, width, height):
        """Draw in another size, in pixels."""
        self.logic.ResizeSliceNode(width, height)
        super().resize(width, height)

    def fit(self) -> None:
        """Show the whole background volume, on one of its own slices."""
        self.logic.FitSliceToBackground()
        self.logic.SnapSliceOffsetToIJK()


class ThreeDPipeline(OffscreenView):
    """Draws one 3D view node."""

    factory_class = slicer.vtkMRMLThreeDViewDisplayableManagerFactory
    interactor_style_class = slicer.vtkMRMLThreeDViewInteractorStyle

    def __init__(self, application_logic, view_node, size, request_render):
        super().__init__(view_node, size, request_render)
        self.renderer.SetGradientBackground(True)
        self._add_displayable_managers()
        self.logic = slicer.vtkMRMLViewLogic()
        self.logic.SetMRMLApplicationLogic(application_logic)
        self.logic.SetName(view_node.GetLayoutName())
        self.logic.SetMRMLScene(view_node.GetScene())
        application_logic.GetViewLogics().AddItem(self.logic)
        self._add_style(vtk.vtkInteractorStyle3D())
        self.style.SetInteractor(self.interactor)

    def reset_focal_point(self) -> None:
        """Look at the middle of what is visible, box and labels aside."""
        node = self.view_node
        shown = node.GetBoxVisible(), node.GetAxisLabelsVisible()
        node.SetBoxVisible(0)
        node.SetAxisLabelsVisible(0)
        self.render_window.Render()
        bounds = [0.0] * 6
        self.renderer.ComputeVisiblePropBounds(bounds)
        if bounds[0] <= bounds[1]:
            self.renderer.GetActiveCamera().SetFocalPoint([(bounds[axis] + bounds[axis + 1]) / 2 for axis in (0, 2, 4)])
            self.renderer.ResetCamera()
            self.renderer.GetActiveCamera().Dolly(_ROOM_FOR_BOX)
        node.SetBoxVisible(shown[0])
        node.SetAxisLabelsVisible(shown[1])
        node.InvokeEvent(slicer.vtkMRMLViewNode.ResetFocalPointRequestedEvent)
        self.renderer.ResetCameraClippingRange()
        self.mark_dirty()

    def camera_node(self):
        """Return the node of the view's camera."""
        return self.managers.GetDisplayableManagerByClassName("vtkMRMLCameraDisplayableManager").GetCameraNode()

    def reset_camera(self, *, rotation: bool = True, translation: bool = True, distance: bool = True) -> None:
        """Move the camera until everything is in the picture, looking at it from the front."""
        self.camera_node().Reset(rotation, translation, distance, self.renderer)
        self.mark_dirty()
