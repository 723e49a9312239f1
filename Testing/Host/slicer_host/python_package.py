"""The Python half of package `slicer`, which is in no wheel: Slicer's own where it is given, else stand-ins.

The environment variable `SLICER_PYTHON_DIR` names the folder that holds Slicer's own files
(`Base/Python/slicer` of its source: ScriptedLoadableModule.py, parameterNodeWrapper and so on).
"""

import importlib
import os
import sys
import types
from pathlib import Path

import slicer

STAND_INS = Path(__file__).parent / "python_stand_ins"
_TREE_MODULE = "qSlicerSubjectHierarchyModuleWidgetsPythonQt"
_LEAKED_PREFIXES = ("vtkITK", "vtkTeem", "vtkHTTPHandler")


def python_half() -> Path:
    """Return the folder of the Python half.

    Raises:
        FileNotFoundError: SLICER_PYTHON_DIR names a folder that does not hold it.
    """
    given = os.environ.get("SLICER_PYTHON_DIR")
    if not given:
        return STAND_INS
    folder = Path(given)
    if not (folder / "ScriptedLoadableModule.py").is_file():
        raise FileNotFoundError(
            f"SLICER_PYTHON_DIR is '{given}', which holds no ScriptedLoadableModule.py: "
            "give the folder Base/Python/slicer of Slicer's source, or unset it"
        )
    return folder


def add_python_half() -> None:
    """Make `slicer.ScriptedLoadableModule` and the others importable, under the names that they use inside Slicer."""
    folder = os.fspath(python_half())
    if folder not in slicer.__path__:
        slicer.__path__.append(folder)
    for name, module in list(sys.modules.items()):
        if name.startswith("slicer_core."):
            sys.modules.setdefault(f"{name.removeprefix('slicer_core.')}Python", module)
    # The wrapper of parameter nodes takes a widget from where it is wrapped.
    sys.modules.setdefault(_TREE_MODULE, types.ModuleType(_TREE_MODULE))
    sys.modules[_TREE_MODULE].qMRMLSubjectHierarchyTreeView = slicer.qMRMLSubjectHierarchyTreeView
    slicer.selfTests = {}
    for name in ("i18n", "packaging", "ScriptedLoadableModule", "parameterNodeWrapper", "testing"):
        if name in ("packaging", "testing") and not (Path(folder) / f"{name}.py").exists():
            continue
        importlib.import_module(f"slicer.{name}")


def close_wheel_leaks() -> None:
    """Take out of `slicer` what the wheel puts there and the application does not, so that nobody relies on it."""
    for name, value in list(vars(slicer).items()):
        from_util = isinstance(value, types.FunctionType | type) and getattr(value, "__module__", "") == "slicer.util"
        if from_util or name.startswith(_LEAKED_PREFIXES):
            delattr(slicer, name)
