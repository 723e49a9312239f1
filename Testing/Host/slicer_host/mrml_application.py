"""The MRML application without Qt: scene, application logic, module logics and data IO."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
import vtk

from slicer_host.subject_hierarchy import SubjectHierarchyKeeper
from slicer_host.views.pipelines import register_displayable_managers

# Colors comes first: the logic of Volumes needs it.
MODULE_LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Units": "vtkSlicerUnitsLogic",
    "Cameras": "vtkSlicerCamerasModuleLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Models": "vtkSlicerModelsLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Annotations": "vtkSlicerAnnotationModuleLogic",
    "Data": "vtkSlicerDataModuleLogic",
}
_GENERIC_COLORS = "\n".join(
    f"{number} {name} {red} {green} {blue} 255"
    for number, name, red, green, blue in (
        (0, "Background", 0, 0, 0),
        (1, "tissue", 128, 174, 128),
        (2, "bone", 241, 214, 145),
        (3, "skin", 177, 122, 101),
        (4, "connective-tissue", 111, 184, 210),
        (5, "blood", 216, 101, 79),
        (6, "organ", 221, 130, 101),
        (7, "mass", 144, 238, 144),
        (8, "muscle", 192, 104, 88),
    )
)


@dataclass(frozen=True, kw_only=True)
class MrmlApplication:
    """Scene and logics; `keep_alive` holds what C++ does not own."""

    scene: Any
    logic: Any
    module_logics: dict[str, Any]
    keep_alive: tuple[Any, ...]


def _add_data_io(logic, scene, cache_folder: Path) -> tuple[Any, ...]:
    """Add what reading .mrb and .mrml files needs."""
    cache_folder.mkdir(parents=True, exist_ok=True)
    remote_io, data_io = slicer.vtkMRMLRemoteIOLogic(), slicer.vtkDataIOManagerLogic()
    remote_io.SetMRMLApplicationLogic(logic)
    remote_io.SetMRMLScene(scene)
    remote_io.GetCacheManager().SetRemoteCacheDirectory(os.fspath(cache_folder))
    data_io.SetMRMLApplicationLogic(logic)
    data_io.SetAndObserveDataIOManager(remote_io.GetDataIOManager())
    remote_io.AddDataIOToScene()
    return remote_io, data_io


def _new_logic(home: Path, temporary_folder: Path):
    logic = slicer.vtkSlicerApplicationLogic()
    colors = home / "share" / "ColorFiles"
    colors.mkdir(parents=True, exist_ok=True)
    (colors / "GenericColors.txt").write_text(f"# Color table file\n{_GENERIC_COLORS}\n", encoding="utf-8")
    logic.SetHomeDirectory(os.fspath(home))
    logic.SetShareDirectory("share")
    logic.SetTemporaryPath(os.fspath(temporary_folder))
    return logic


def _add_module_logics(logic, scene, terminology_folder: Path | None) -> dict[str, Any]:
    module_logics = {}
    for name, class_name in MODULE_LOGICS.items():
        module_logic = getattr(slicer, class_name)()
        if name == "Terminologies" and terminology_folder is not None:
            module_logic.SetModuleShareDirectory(os.fspath(terminology_folder))
        module_logic.SetMRMLApplicationLogic(logic)
        # Without terminologies their logic complains of each one; codes and names are stored all the same.
        vtk.vtkObject.SetGlobalWarningDisplay(name != "Terminologies" or terminology_folder is not None)
        module_logic.SetMRMLScene(scene)
        vtk.vtkObject.GlobalWarningDisplayOn()
        logic.SetModuleLogic(name, module_logic)
        module_logics[name] = module_logic
    return module_logics


def create_mrml_application(temporary_folder: Path, terminology_folder: Path | None = None) -> MrmlApplication:
    """Create scene and logics.

    Args:
        temporary_folder: where the application may write; also its home.
        terminology_folder: folder with `.term.json` files, for the names behind terminology codes.
    """
    scene, logic = slicer.vtkMRMLScene(), _new_logic(temporary_folder / "home", temporary_folder)
    crosshair = slicer.vtkMRMLCrosshairNode()
    crosshair.SetCrosshairName("default")
    scene.AddNode(crosshair)
    logic.SetMRMLScene(scene)
    logic.GetColorLogic().SetMRMLScene(scene)
    logic.GetColorLogic().AddDefaultColorNodes()
    logic.SetSliceLogics(vtk.vtkCollection())
    logic.SetViewLogics(vtk.vtkCollection())
    data_io = _add_data_io(logic, scene, temporary_folder / "cache")
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene)
    slicer.mrmlScene = scene
    module_logics = _add_module_logics(logic, scene, terminology_folder)
    register_displayable_managers(logic)
    keep_alive = (*data_io, SubjectHierarchyKeeper(scene))
    return MrmlApplication(scene=scene, logic=logic, module_logics=module_logics, keep_alive=keep_alive)
