"""Who may import whom: the layers of the library, and the wall between the library and Slicer."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "UNetSegmentationLib"
SLICER_SIDE = ROOT / "UNetSegmentation"

# A package stands for everything in it. A module imports its own layer and those before it.
LAYERS = (
    {
        *(
            "__init__",
            "errors",
            "events",
            "configuration",
            "process_environment",
            "files",
            "registry",
            "labels",
            "geometry",
            "nifti_header",
            "volume_io",
            "dicom_series",
            "segment_header",
            "presets",
            "modalities",
            "planning",
            "monai_recipe",
            "metrics",
        ),
        *(
            "postprocess",
            "protocol",
            "uncertainty",
            "model_folder",
            "user_models",
            "model_card",
            "stages",
            "training_record",
            "training_curve",
            "case_library",
            "fingerprint",
            "plan_explanation",
            "postprocess_choice",
            "configuration_choice",
        ),
    },
    {
        "networks",
        "losses",
        "preprocessing",
        "nnunet_conventions",
        "monai_conventions",
        "augmentation",
        "cascade",
        "tensor_files",
        "checkpoint",
        "devices",
        "convolution_peak",
        "device_planning",
        "probability_steps",
        "distributed",
        "shared_batch_norm",
    },
    {
        "backends",
        "sliding_window",
        "source_grid",
        "memory",
        "applying",
        "prediction",
        "restoring",
        "prompts",
        "dataset",
        "prepared_cases",
        "training",
        "training_options",
        "training_state",
        "patches",
        "finetuning",
        "gate",
        "replay",
        "retention",
        "training_folder",
        "training_job",
        "training_plan",
        "replay_packing",
        "measuring",
        "study",
        "study_model",
        "initialisation",
        "evaluation",
        "comparison",
        "importers",
        "model_import",
        "feature_view",
        "finishing",
    },
    {"worker", "worker_jobs", "cli", "commands", "__main__", "inference_benchmark", "benchmark_engines"},
)
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}

SLICER_PACKAGES = {"slicer", "qt", "vtk", "ctk", "vtkmodules", "PythonQt", "mrml", "PySide6"}
TORCH_PACKAGES = {"torch", "torchvision", "monai"}
TORCH_FREE_LAYER = 0


def _sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def _module(path: Path) -> tuple[str, ...]:
    """Return the dotted name of a library source, split: ("networks", "contract")."""
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def _layer(top_level: str) -> int:
    assert top_level in LAYER_OF, (
        f"UNetSegmentationLib.{top_level} belongs to no layer: add '{top_level}' to LAYERS in {Path(__file__).name}, "
        "in the lowest layer whose imports suffice for it"
    )
    return LAYER_OF[top_level]


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """Return every module that a source imports anywhere, relative names made absolute, names imported included."""
    package = path.parent.relative_to(ROOT).parts
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*start, *([node.module] if node.module else [])])
            found += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return tuple(found)


def _packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in _imports(path)}


def _imported_from_library(path: Path) -> set[str]:
    """Return the top-level modules and packages of the library that a source imports."""
    split = (name.split(".") for name in _imports(path))
    names = {parts[1] for parts in split if parts[0] == "UNetSegmentationLib" and len(parts) > 1}
    # A name that is no module is something defined in the library's own __init__.
    return {name for name in names if (LIBRARY / name).is_dir() or (LIBRARY / f"{name}.py").is_file()}


def _id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", _sources(LIBRARY), ids=_id)
def test_library_imports_downward_only(path: Path) -> None:
    own = _module(path)[0]
    above = {name for name in _imported_from_library(path) if _layer(name) > _layer(own)}
    assert not above, f"{_id(path)} (layer {_layer(own)}) imports {sorted(above)} of a layer above it"


@pytest.mark.parametrize("path", _sources(LIBRARY), ids=_id)
def test_library_knows_nothing_of_slicer(path: Path) -> None:
    assert not _packages(path) & (SLICER_PACKAGES | {"UNetSegmentation", "UNetSegmentationPanel"})


@pytest.mark.parametrize(
    "path", [p for p in _sources(LIBRARY) if LAYER_OF.get(_module(p)[0]) == TORCH_FREE_LAYER], ids=_id
)
def test_layer_0_imports_no_torch(path: Path) -> None:
    assert not _packages(path) & TORCH_PACKAGES


@pytest.mark.parametrize("path", _sources(SLICER_SIDE), ids=_id)
def test_slicer_side_imports_layer_0_only(path: Path) -> None:
    assert not _packages(path) & TORCH_PACKAGES
    above = {name for name in _imported_from_library(path) if _layer(name) > TORCH_FREE_LAYER}
    assert not above, f"{_id(path)} imports {sorted(above)}, which load torch into Slicer: ask the worker instead"


def test_relative_imports_are_resolved() -> None:
    """Without this, a fault of the parser would pass every other test here."""
    assert {"UNetSegmentationLib.core.errors", "UNetSegmentationLib.core.registry"} <= set(
        _imports(LIBRARY / "presets/contract.py")
    )
    assert _imported_from_library(LIBRARY / "networks/contract.py") == {"configuration", "registry"}
    assert "torch" in _packages(LIBRARY / "networks/contract.py")


def test_layers_name_no_module_twice() -> None:
    assert sum(len(names) for names in LAYERS) == len(LAYER_OF)


def test_layer_0_leaves_torch_unloaded() -> None:
    modules = [
        ".".join(["UNetSegmentationLib", *_module(path)])
        for path in _sources(LIBRARY)
        if LAYER_OF.get(_module(path)[0]) == TORCH_FREE_LAYER
    ]
    program = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(*sorted({TORCH_PACKAGES | SLICER_PACKAGES!r} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == ""
