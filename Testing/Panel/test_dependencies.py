"""What is said and done about missing packages."""

import importlib.metadata
import importlib.util
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
