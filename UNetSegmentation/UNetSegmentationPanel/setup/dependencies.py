"""Packages that the worker requires in Slicer's Python, and how to install them; found without importing them."""

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import slicer
from slicer.i18n import tr as _

TORCH_REQUIREMENT = ">=2.6"
TORCH_MINIMUM = (2, 6)
OTHER_MODULES = {"safetensors": "safetensors", "psutil": "psutil", "nibabel": "nibabel"}
# Bundled with Slicer, which requires exactly these versions.
BUNDLED = ("numpy", "scipy", "SimpleITK", "requests", "vtk", "pip", "setuptools")
MISSING, BROKEN, READY = "missing", "broken", "ready"
# From this version, pip can print the download progress line by line.
PIP_WITH_RAW_PROGRESS = (24, 1)


@dataclass(frozen=True, kw_only=True)
class DependencyState:
    """Whether the worker can run.

    Attributes:
        kind: MISSING, BROKEN or READY.
        message: Why not, and what to do, in one or two sentences.
        isTorch: Whether PyTorch is the cause.
    """

    kind: str
    message: str = ""
    isTorch: bool = True

    @property
    def isReady(self) -> bool:
        return self.kind == READY


@dataclass(frozen=True, kw_only=True)
class PythonStep:
    """A Python module to run with Slicer's Python."""

    module: str
    arguments: tuple[str, ...]


def findState() -> DependencyState:
    """Look for PyTorch and the other packages without importing them."""
    if importlib.util.find_spec("torch") is None:
        return DependencyState(
            kind=MISSING, message=_("PyTorch, which is required for segmentation, is not installed yet.")
        )
    version = _versionOf("torch")
    if not version:
        message = _("PyTorch is damaged: the remains of an earlier installation must be replaced.")
        return DependencyState(kind=BROKEN, message=message)
    if _release(version) < TORCH_MINIMUM:
        message = _("PyTorch {version} is too old: version {minimum} or newer is required.")
        minimum = ".".join(map(str, TORCH_MINIMUM))
        return DependencyState(kind=BROKEN, message=message.format(version=version, minimum=minimum))
    missing = missingPackages()
    if missing:
        message = _("Python packages required for segmentation are not installed yet: {names}.").format(
            names=", ".join(missing)
        )
        return DependencyState(kind=MISSING, message=message, isTorch=False)
    return DependencyState(kind=READY)


def failedToLoad(reason: str) -> DependencyState:
    """Return the state of a PyTorch that is installed but cannot be loaded."""
    message = _("PyTorch is installed but cannot be loaded ({reason}). Reinstall it; if that does not help, restart.")
    return DependencyState(kind=BROKEN, message=message.format(reason=reason))


class DependencyWatch:
    """Keeps track of whether the worker can run.

    Attributes:
        state: The last known state.
    """

    def __init__(self) -> None:
        self.state = findState()

    def look(self) -> None:
        """Check again, since packages may have changed."""
        self.state = findState()

    def evaluateStartupFailure(self, output: str) -> bool:
        """Evaluate the last output of a worker that failed to start; return whether PyTorch was the cause."""
        lines = [line for line in output.splitlines() if line.strip()]
        isTorch = any("import torch" in line or "/torch/" in line.replace("\\", "/") for line in lines)
        if isTorch:
            self.state = failedToLoad(lines[-1].strip())
        return isTorch


def missingPackages() -> list[str]:
    """Return the missing packages other than PyTorch."""
    return [title for module, title in OTHER_MODULES.items() if importlib.util.find_spec(module) is None]


def hasTorchExtension() -> bool:
    """Return whether the "PyTorch" extension, which provides the installation tools, is installed."""
    return hasattr(slicer.modules, "pytorchutils") or importlib.util.find_spec("PyTorchUtils") is not None


def question(state: DependencyState) -> str:
    """Return the question to ask before downloading anything."""
    if state.isTorch:
        return _(
            "PyTorch {requirement} will be downloaded from pytorch.org and installed in Slicer: about 0.2 GB, or up to "
            "3 GB with an NVIDIA graphics card. This takes a few minutes; you can keep using Slicer. Continue?"
        ).format(requirement=TORCH_REQUIREMENT)
    names = ", ".join(missingPackages())
    question = _("Python packages (a few MB) will be downloaded from the Python Package Index: {names}. Continue?")
    return question.format(names=names)


def stepsFor(state: DependencyState, constraints: Path) -> list[PythonStep]:
    """Return the steps that install PyTorch, using the tool with which the "PyTorch" extension selects the build.

    The extension's own installTorch does the same, but blocks the window and cannot be cancelled.

    Args:
        state: The current state.
        constraints: File with the versions of packages that must not change.
    """
    if not state.isTorch:
        return []
    steps = []
    if importlib.util.find_spec("light_the_torch") is None:
        steps.append(_install("pip", ["light-the-torch>=0.5"], constraints))
    # Other extensions use both, and their versions must match.
    wanted = [f"torch{TORCH_REQUIREMENT}", "torchvision"]
    if state.kind == BROKEN:
        wanted = ["--force-reinstall", "--no-deps", *wanted]
    steps.append(_install("light_the_torch", wanted, constraints))
    return steps


def _install(module: str, wanted: Sequence[str], constraints: Path) -> PythonStep:
    options = ["--constraint", str(constraints), "--disable-pip-version-check", "--no-input"]
    if _release(_versionOf("pip")) >= PIP_WITH_RAW_PROGRESS:
        options += ["--progress-bar", "raw"]
    return PythonStep(module=module, arguments=("install", *wanted, *options))


def bundledVersions() -> str:
    """Return the versions of the packages bundled with Slicer, as constraints for pip."""
    found = [(name, _versionOf(name)) for name in BUNDLED]
    return "".join(f"{name}=={version}\n" for name, version in found if version)


def installPackages(requirements: Path) -> None:
    """Install the missing packages other than PyTorch; the user has already agreed.

    Raises:
        Exception: pip failed.
    """
    if not missingPackages():
        return
    try:
        from slicer.packaging import load_requirements, pip_ensure
    except ImportError:
        # Slicer 5.10 has no slicer.packaging.
        slicer.util.pip_install(["-r", str(requirements)])
        return
    pip_ensure(
        load_requirements(str(requirements)),
        skip_packages=["torch", *BUNDLED],
        prompt_install=False,
        requester="UNetSegmentation",
    )


def _versionOf(name: str) -> str:
    """Return the version of an installed package; empty if it is missing or only remains of it are left."""
    try:
        return importlib.metadata.version(name) or ""
    except importlib.metadata.PackageNotFoundError:
        return ""


def _release(version: str) -> tuple[int, ...]:
    parts = version.split("+", maxsplit=1)[0].split(".")[:2]
    return tuple(int(part) for part in parts if part.isdigit())
