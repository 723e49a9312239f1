"""Stand-in for `slicer.packaging`: asks, then installs with the pip of this Python; nothing happens in testing mode."""

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import slicer
from packaging.requirements import Requirement


def load_requirements(path):
    """Return the requirements of a requirements file."""
    lines = (line.partition("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def load_pyproject_dependencies(path):
    """Return the dependencies of a pyproject.toml."""
    project = tomllib.loads(Path(path).read_text(encoding="utf-8"))["project"]
    return [Requirement(item) for item in project.get("dependencies", ())]


def _as_requirements(requirements):
    items = [requirements] if isinstance(requirements, str | Requirement) else requirements
    return [item if isinstance(item, Requirement) else Requirement(item) for item in items]


def _is_met(requirement):
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version, prereleases=True)


def pip_check(req):
    """Tell whether one requirement, or every one of a list, is met by what is installed."""
    return all(_is_met(item) for item in _as_requirements(req))


def isPipInstallInProgress():
    """Tell whether an installation runs; installations of the stand-in block."""
    return False


def pip_install(requirements, constraints=None, skip_packages=None, logCallback=None, completedCallback=None, **_shown):
    """Install packages and wait.

    Raises:
        subprocess.CalledProcessError: pip failed.
    """
    skipped = {name.lower() for name in skip_packages or ()}
    wanted = [str(item) for item in _as_requirements(requirements) if item.name.lower() not in skipped]
    command = [sys.executable, "-m", "pip", "install", *wanted]
    if constraints:
        command += ["-c", str(constraints)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines() if logCallback is not None else ():
        logCallback(line)
    if completedCallback is not None:
        completedCallback(done.returncode)
    done.check_returncode()


def pip_uninstall(requirements, **_shown):
    """Uninstall packages and wait."""
    names = [item.name for item in _as_requirements(requirements)]
    subprocess.run([sys.executable, "-m", "pip", "uninstall", "-y", *names], check=True, capture_output=True)


def pip_ensure(
    requirements,
    constraints=None,
    skip_packages=None,
    prompt_install=True,
    prompt_restart=True,  # noqa: ARG001 - Slicer's signature
    requester=None,
    skip_in_testing=True,
    show_progress=True,  # noqa: ARG001 - Slicer's signature
):
    """Install what is missing, after asking.

    Raises:
        RuntimeError: the user declined.
    """
    if skip_in_testing and slicer.app.testingEnabled():
        return
    skipped = {name.lower() for name in skip_packages or ()}
    missing = [
        item for item in _as_requirements(requirements) if item.name.lower() not in skipped and not _is_met(item)
    ]
    if not missing:
        return
    names = ", ".join(str(item) for item in missing)
    question = (
        f"{requester or 'This module'} needs Python packages that are not installed: {names}.\n\nInstall them now?"
    )
    if prompt_install and not slicer.util.confirmOkCancelDisplay(question, "Install Python packages"):
        raise RuntimeError(f"installing {names} was declined")
    pip_install(missing, constraints=constraints)
