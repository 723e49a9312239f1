"""What the worker needs in Slicer's Python, and how it gets there; nothing is imported here to find out."""

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
# Slicer brings these along, and its own parts need just these versions.
BUNDLED = ("numpy", "scipy", "SimpleITK", "requests", "vtk", "pip", "setuptools")
MISSING, BROKEN, READY = "missing", "broken", "ready"
# Tells the share that is downloaded, line by line.
PIP_WITH_RAW_PROGRESS = (24, 1)


@dataclass(frozen=True, kw_only=True)
class DependencyState:
    """Whether the worker can run.

    Attributes:
        kind: MISSING, BROKEN or READY.
        message: Why not and what to do, in one or two sentences.
        isTorch: Whether PyTorch is what is not right.
    """

    kind: str
    message: str = ""
    isTorch: bool = True

    @property
    def isReady(self) -> bool:
        return self.kind == READY


@dataclass(frozen=True, kw_only=True)
class PythonStep:
    """A module to run with Slicer's Python."""

    module: str
    arguments: tuple[str, ...]


def findState() -> DependencyState:
    """Look for PyTorch and the rest without importing them."""
    if importlib.util.find_spec("torch") is None:
        return DependencyState(kind=MISSING, message=_("PyTorch is not installed yet; segmenting needs it."))
    version = _versionOf("torch")
    if not version:
        message = _("PyTorch is damaged: what an earlier installation left behind has to be replaced.")
        return DependencyState(kind=BROKEN, message=message)
    if _release(version) < TORCH_MINIMUM:
        message = _("PyTorch {version} is too old; version {minimum} or newer is needed.")
        minimum = ".".join(map(str, TORCH_MINIMUM))
        return DependencyState(kind=BROKEN, message=message.format(version=version, minimum=minimum))
    missing = missingOthers()
    if missing:
        message = _("Python packages that segmenting needs are not installed yet: {names}.").format(
            names=", ".join(missing)
        )
        return DependencyState(kind=MISSING, message=message, isTorch=False)
    return DependencyState(kind=READY)


def unloadable(reason: str) -> DependencyState:
    """Return the state of a PyTorch that is there and cannot be loaded."""
    message = _("PyTorch is there and cannot be loaded ({reason}). Install it anew; if that does not help, restart.")
    return DependencyState(kind=BROKEN, message=message.format(reason=reason))


class DependencyWatch:
    """Knows whether the worker can run, as far as it has been looked for and has come out.

    Attributes:
        state: What was found out last.
    """

    def __init__(self) -> None:
        self.state = findState()

    def look(self) -> None:
        """Look again for what may have changed outside."""
        self.state = findState()

    def takeStartupFailure(self, output: str) -> bool:
        """Take note of the last output of a worker that failed to start; tell whether PyTorch was the reason."""
        lines = [line for line in output.splitlines() if line.strip()]
        isTorch = any("import torch" in line or "/torch/" in line.replace("\\", "/") for line in lines)
        if isTorch:
            self.state = unloadable(lines[-1].strip())
        return isTorch


def missingOthers() -> list[str]:
    """Return what is missing besides PyTorch."""
    return [title for module, title in OTHER_MODULES.items() if importlib.util.find_spec(module) is None]


def hasTorchExtension() -> bool:
    """Tell whether the extension "PyTorch" is installed, through which PyTorch comes into Slicer."""
    return hasattr(slicer.modules, "pytorchutils") or importlib.util.find_spec("PyTorchUtils") is not None


def question(state: DependencyState) -> str:
    """Return what to ask before anything is downloaded."""
    if state.isTorch:
        return _(
            "PyTorch {requirement} will be downloaded from pytorch.org and installed into Slicer: about 0.2 GB, and up "
            "to 3 GB with an NVIDIA graphics card. It takes some minutes, and Slicer can be used meanwhile. Go on?"
        ).format(requirement=TORCH_REQUIREMENT)
    names = ", ".join(missingOthers())
    question = _("Python packages will be downloaded from the Python Package Index, a few MB: {names}. Go on?")
    return question.format(names=names)


def stepsFor(state: DependencyState, constraints: Path) -> list[PythonStep]:
    """Return what brings PyTorch, with the tool by which the extension "PyTorch" finds the build for the graphics card.

    The extension's own installTorch does the same, holds up the window meanwhile and cannot be stopped.

    Args:
        state: What is not right.
        constraints: File with the versions of what must not be changed.
    """
    if not state.isTorch:
        return []
    steps = []
    if importlib.util.find_spec("light_the_torch") is None:
        steps.append(_install("pip", ["light-the-torch>=0.5"], constraints))
    # Other extensions take both from here, and they have to fit each other.
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
    """Return the versions of what Slicer brings along, as constraints for pip."""
    found = [(name, _versionOf(name)) for name in BUNDLED]
    return "".join(f"{name}=={version}\n" for name, version in found if version)


def installOthers(requirements: Path) -> None:
    """Install what is missing besides PyTorch, which was agreed to.

    Raises:
        Exception: pip failed.
    """
    if not missingOthers():
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
    """Return the version of an installed package; empty where it, or all but remains of it, is not there."""
    try:
        return importlib.metadata.version(name) or ""
    except importlib.metadata.PackageNotFoundError:
        return ""


def _release(version: str) -> tuple[int, ...]:
    parts = version.split("+", maxsplit=1)[0].split(".")[:2]
    return tuple(int(part) for part in parts if part.isdigit())
