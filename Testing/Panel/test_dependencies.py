"""What is said and done about missing packages."""

import importlib.metadata
import importlib.util
import subprocess
import sys
import types

import pytest


@pytest.fixture
def without(module, monkeypatch):  # noqa: ARG001
    """Make some modules unfindable."""
    find = importlib.util.find_spec

    def hide(*names):
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *rest: None if name in names else find(name, *rest)
        )

    return hide


def test_a_complete_installation_is_ready(module):  # noqa: ARG001
    from UNetSegmentationPanel import dependencies

    assert dependencies.findState().isReady
    assert "torch" not in sys.modules


@pytest.mark.parametrize(("hidden", "named"), [("torch", "PyTorch"), ("safetensors", "safetensors")])
def test_what_is_missing_is_named(without, hidden, named):
    from UNetSegmentationPanel import dependencies

    without(hidden)
    state = dependencies.findState()
    assert not state.isReady
    assert named in state.message


def test_an_old_torch_is_told_with_the_version_that_is_needed(module, monkeypatch):  # noqa: ARG001
    from UNetSegmentationPanel import dependencies

    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "1.13.1+cpu")
    message = dependencies.findState().message
    assert "1.13.1+cpu" in message
    assert "2.6" in message


def test_without_the_pytorch_extension_the_panel_says_where_to_get_it(without, tmp_path):
    from UNetSegmentationPanel import dependencies

    without("torch")
    state = dependencies.install(tmp_path / "requirements.txt")
    assert not state.isReady
    assert "Extensions Manager" in state.message


def test_torch_is_installed_through_its_extension_with_consent(without, monkeypatch, tmp_path):
    from UNetSegmentationPanel import dependencies

    calls = []
    logic = types.SimpleNamespace(installTorch=lambda **options: calls.append(options))
    monkeypatch.setitem(sys.modules, "PyTorchUtils", types.SimpleNamespace(PyTorchUtilsLogic=lambda: logic))
    without("torch")
    (tmp_path / "requirements.txt").write_text("safetensors>=0.4.5\n")
    dependencies.install(tmp_path / "requirements.txt")
    assert calls == [{"askConfirmation": True, "torchVersionRequirement": ">=2.6"}]


def test_a_declined_installation_is_told(without, monkeypatch, tmp_path):
    from UNetSegmentationPanel import dependencies

    def decline(**_options):
        raise ValueError("PyTorch extension needs to be installed to use this module.")

    logic = types.SimpleNamespace(installTorch=decline)
    monkeypatch.setitem(sys.modules, "PyTorchUtils", types.SimpleNamespace(PyTorchUtilsLogic=lambda: logic))
    without("torch")
    state = dependencies.install(tmp_path / "requirements.txt")
    assert not state.isReady
    assert "Installing failed" in state.message


def test_remains_of_a_torch_are_told_and_do_not_keep_the_panel_from_opening(module, monkeypatch):  # noqa: ARG001
    from UNetSegmentationPanel import dependencies

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    state = dependencies.findState()
    assert not state.isReady
    assert "damaged" in state.message


@pytest.mark.parametrize(
    "error",
    [subprocess.CalledProcessError(1, ["pip", "install"]), ImportError("DLL load failed while importing torch")],
)
def test_a_failing_pip_is_told_and_not_only_printed(without, monkeypatch, tmp_path, error):
    from UNetSegmentationPanel import dependencies

    def fail(**_options):
        raise error

    logic = types.SimpleNamespace(installTorch=fail)
    monkeypatch.setitem(sys.modules, "PyTorchUtils", types.SimpleNamespace(PyTorchUtilsLogic=lambda: logic))
    without("torch")
    state = dependencies.install(tmp_path / "requirements.txt")
    assert not state.isReady
    assert str(error) in state.message


def test_who_declines_torch_is_not_asked_for_the_rest(without, monkeypatch, tmp_path):
    from UNetSegmentationPanel import dependencies

    logic = types.SimpleNamespace(installTorch=lambda **_options: None)
    monkeypatch.setitem(sys.modules, "PyTorchUtils", types.SimpleNamespace(PyTorchUtilsLogic=lambda: logic))
    asked = []
    monkeypatch.setattr(dependencies, "_installOthers", asked.append)
    without("torch")
    assert not dependencies.install(tmp_path / "requirements.txt").isReady
    assert asked == []


def test_without_slicer_packaging_pip_gets_the_file_as_one_argument(without, monkeypatch, tmp_path):
    import slicer
    from UNetSegmentationPanel import dependencies

    calls = []
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda _question: True)
    monkeypatch.setattr(slicer.util, "pip_install", calls.append, raising=False)
    without("safetensors")
    requirements = tmp_path / "a folder with spaces" / "requirements.txt"
    dependencies.install(requirements)
    assert calls == [["-r", str(requirements)]]
