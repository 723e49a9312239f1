"""The panel in the host, with a fake worker and models of its own."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(REPOSITORY / "Testing" / "Host"), str(REPOSITORY), str(HERE)]

import slicer_host.application  # noqa: E402, F401 - brings `qt` and `ctk`, which the tests import
from slicer_host.pytest_plugin import clean_scene, pytest_pyfunc_call, slicer_app, uncaught_errors  # noqa: E402

__all__ = ["clean_scene", "pytest_pyfunc_call", "slicer_app", "uncaught_errors"]


@pytest.fixture(scope="session", autouse=True)
def quick_workers(tmp_path_factory):
    """Let real workers measure nothing while they wait, and keep nothing on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNETSEG_BACKEND", "fused")
        patch.setenv("UNETSEG_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def module(slicer_app):  # noqa: ARG001
    """Load the module once, as Slicer does."""
    from slicer_host.modules import load_modules

    assert load_modules([str(REPOSITORY / "UNetSegmentation")]) == ["UNetSegmentation"]
    return sys.modules["UNetSegmentation"]


@pytest.fixture
def users(tmp_path, monkeypatch):
    """The folder of the user's own models, which is not there yet, for the panel and its worker."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "UNetSegmentation" / "models"


@pytest.fixture
def models(tmp_path, users, monkeypatch):
    """A folder of models, one for each behaviour of the fake worker, and no others but the user's own."""
    from fake_models import write_models

    from UNetSegmentationLib.models import installed

    write_models(tmp_path / "models")
    monkeypatch.setattr(installed, "model_folders", lambda: [users, tmp_path / "models"])
    return tmp_path / "models"


@pytest.fixture
def panel(module, models, clean_scene, uncaught_errors, tmp_path):  # noqa: ARG001
    """The opened panel on an empty scene with the fake worker; at the end nothing may be left lying about."""
    from panel_driver import PanelDriver

    driver = PanelDriver(tmp_path)
    driver.open()
    yield driver
    driver.close()
    assert driver.leftovers() == []
    assert "torch" not in sys.modules
