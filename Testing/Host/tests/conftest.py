"""The host on the path, its fixtures, and the demo module."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from slicer_host.pytest_plugin import clean_scene, pytest_pyfunc_call, slicer_app, uncaught_errors

__all__ = ["clean_scene", "pytest_pyfunc_call", "slicer_app", "uncaught_errors"]

DEMO_FOLDER = Path(__file__).parent / "demo_module"


@pytest.fixture(scope="session")
def demo_module(slicer_app):
    """The demo module, loaded once a process."""
    from slicer_host.modules import load_modules

    load_modules([DEMO_FOLDER])
    return slicer_app.moduleManager().module("HostDemo")


@pytest.fixture
def ball(slicer_app):  # noqa: ARG001 - only there to be started
    """A function that puts a bright ball of 40 voxels a side into the scene."""
    import numpy as np
    import slicer

    def add(name="Ball"):
        z, y, x = np.mgrid[:40, :40, :40] - 20.0
        voxels = 200 * np.exp(-(x**2 + y**2 + z**2) / 200)
        return slicer.util.addVolumeFromArray(voxels.astype(np.int16), name=name)

    return add
