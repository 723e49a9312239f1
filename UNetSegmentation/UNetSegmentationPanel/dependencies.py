"""What the worker needs in Slicer's Python, and how it gets there; nothing is imported here to find out."""

import importlib.metadata
import importlib.util
import logging
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import slicer
from slicer.i18n import tr as _

TORCH_REQUIREMENT = ">=2.6"
TORCH_MINIMUM = (2, 6)
OTHER_MODULES = {"safetensors": "safetensors"}


@dataclass(frozen=True, kw_only=True)
class DependencyState:
    """Whether the worker can run: `isReady`, and otherwise why not and what to do, in one or two sentences."""

    isReady: bool
    message: str = ""


def findState() -> DependencyState:
    """Look for PyTorch and the rest without importing them."""
    if importlib.util.find_spec("torch") is None:
        return DependencyState(isReady=False, message=_("PyTorch is not installed yet; segmenting needs it."))
    version = _torchVersion()
    if not version:
        message = _("PyTorch is damaged: what an earlier installation left behind has to be replaced.")
        return DependencyState(isReady=False, message=message)
    if _release(version) < TORCH_MINIMUM:
        message = _("PyTorch {version} is too old; version {minimum} or newer is needed.")
        return DependencyState(
            isReady=False, message=message.format(version=version, minimum=".".join(map(str, TORCH_MINIMUM)))
        )
    missing = [title for module, title in OTHER_MODULES.items() if importlib.util.find_spec(module) is None]
    if missing:
        message = _("{names} is not installed yet; reading models needs it.").format(names=", ".join(missing))
        return DependencyState(isReady=False, message=message)
    return DependencyState(isReady=True)


def install(requirements: Path, *, find: Callable[[], DependencyState] = findState) -> DependencyState:
    """Install what is missing, each part with the user's consent; what Slicer brings along is left alone.

    Args:
        requirements: File with what is needed besides PyTorch.
        find: Looks for the state afterwards.

    Returns:
        The state afterwards, with what to do where it did not work.
    """
    try:
        if _hasTorch() or _installTorch():
            _installOthers(requirements)
    except (ImportError, RuntimeError, ValueError, OSError, subprocess.SubprocessError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "PyTorchUtils":
            message = _(
                'Install the extension "PyTorch" first (Extensions Manager), restart Slicer and come back here.'
            )
            return DependencyState(isReady=False, message=message)
        logging.exception("Installing the components of UNetSegmentation failed")
        message = _("Installing failed: {error} Try again, or see the application log.").format(error=error)
        return DependencyState(isReady=False, message=message)
    importlib.invalidate_caches()
    return find()


def _installTorch() -> bool:
    """Let the extension "PyTorch" install torch; False when the user declines."""
    import PyTorchUtils

    logic = PyTorchUtils.PyTorchUtilsLogic()
    return logic.installTorch(askConfirmation=True, torchVersionRequirement=TORCH_REQUIREMENT) is not None


def _hasTorch() -> bool:
    return importlib.util.find_spec("torch") is not None and _release(_torchVersion()) >= TORCH_MINIMUM


def _torchVersion() -> str:
    """Return the version of the installed torch; empty where only remains of one are there."""
    try:
        return importlib.metadata.version("torch") or ""
    except importlib.metadata.PackageNotFoundError:
        return ""


def _installOthers(requirements: Path) -> None:
    try:
        from slicer.packaging import load_requirements, pip_ensure
    except ImportError:
        # Slicer 5.10 has no slicer.packaging.
        if all(importlib.util.find_spec(module) for module in OTHER_MODULES):
            return
        question = _("Small Python packages are needed to read models. Install them now?")
        if slicer.util.confirmOkCancelDisplay(question):
            slicer.util.pip_install(["-r", str(requirements)])
        return
    pip_ensure(
        load_requirements(str(requirements)),
        skip_packages=["torch", "SimpleITK", "numpy", "scipy", "requests"],
        requester="UNetSegmentation",
    )


def _release(version: str) -> tuple[int, ...]:
    parts = version.split("+", maxsplit=1)[0].split(".")[:2]
    return tuple(int(part) for part in parts if part.isdigit())
