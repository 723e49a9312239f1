"""What is said and done about missing packages."""

import importlib.metadata
import importlib.util
import os
import sys
import time
import tomllib
import types
from pathlib import Path

import pytest
import slicer
from panel_driver import Heartbeat, spin

# What pip says with --progress-bar raw; the behaviour is the file `behaviour` beside it.
FAKE_INSTALLER = """
import sys, time
from pathlib import Path
folder = Path(__file__).parent
behaviour = (folder / "behaviour").read_text()
(folder / "arguments").write_text("\\n".join(sys.argv[1:]))
print("Collecting torch>=2.6", flush=True)
print("  Downloading https://somewhere/torch-2.9.1%2Bcpu-cp312-cp312-linux_x86_64.whl (184.5 MB)", flush=True)
print("Progress 30 of 120", flush=True)
while behaviour == "slow":
    time.sleep(0.02)
if behaviour == "full":
    print("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", flush=True)
    sys.exit(1)
print("Installing collected packages: torch", flush=True)
while behaviour == "late" and not (folder / "go on").exists():
    time.sleep(0.02)
(folder / "installed").touch()
"""


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
    from UNetSegmentationPanel.setup import dependencies

    assert dependencies.findState().isReady
    assert "torch" not in sys.modules


@pytest.mark.parametrize(
    ("hidden", "named"),
    [("torch", "PyTorch"), ("safetensors", "safetensors"), ("psutil", "psutil"), ("nibabel", "nibabel")],
)
def test_what_is_missing_is_named(without, hidden, named):
    from UNetSegmentationPanel.setup import dependencies

    without(hidden)
    state = dependencies.findState()
    assert not state.isReady
    assert named in state.message


def test_what_is_looked_for_is_what_is_installed_and_what_the_library_asks_for(module):  # noqa: ARG001
    from UNetSegmentationPanel.setup import dependencies

    root = Path(__file__).parents[2]
    shipped = (root / "UNetSegmentation/Resources/requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = {line for line in shipped if line and not line.startswith("#")}
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert wanted == {
        line for line in project["dependencies"] if line.split(">=")[0] not in {*dependencies.BUNDLED, "torch"}
    }
    assert {line.split(">=")[0] for line in wanted} == set(dependencies.OTHER_MODULES.values())


def test_an_old_torch_is_told_with_the_version_that_is_needed(module, monkeypatch):  # noqa: ARG001
    from UNetSegmentationPanel.setup import dependencies

    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "1.13.1+cpu")
    message = dependencies.findState().message
    assert "1.13.1+cpu" in message
    assert "2.6" in message
    assert dependencies.findState().kind == dependencies.BROKEN


def test_remains_of_a_torch_are_told_and_do_not_keep_the_panel_from_opening(module, monkeypatch):  # noqa: ARG001
    from UNetSegmentationPanel.setup import dependencies

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    state = dependencies.findState()
    assert state.kind == dependencies.BROKEN
    assert "damaged" in state.message


def test_no_bundled_package_may_be_changed(module, tmp_path):  # noqa: ARG001
    from UNetSegmentationPanel.setup import dependencies

    state = dependencies.DependencyState(kind=dependencies.MISSING)
    constraints = tmp_path / "constraints.txt"
    for step in dependencies.stepsFor(state, constraints):
        position = step.arguments.index("--constraint")
        assert step.arguments[position + 1] == str(constraints)
    pinned = dict(line.split("==") for line in dependencies.bundledVersions().splitlines())
    assert pinned["numpy"] == importlib.metadata.version("numpy")
    assert "torch" not in pinned


def test_the_tool_of_the_pytorch_extension_is_brought_first(without, tmp_path):
    from UNetSegmentationPanel.setup import dependencies

    without("torch", "light_the_torch")
    steps = dependencies.stepsFor(dependencies.findState(), tmp_path / "c.txt")
    assert [step.module for step in steps] == ["pip", "light_the_torch"]
    assert steps[1].arguments[:3] == ("install", "torch>=2.6", "torchvision")


def test_a_broken_torch_is_replaced_without_its_dependencies(module, tmp_path):  # noqa: ARG001
    from UNetSegmentationPanel.setup import dependencies

    steps = dependencies.stepsFor(dependencies.failedToLoad("DLL load failed"), tmp_path / "c.txt")
    assert {"--force-reinstall", "--no-deps"} <= set(steps[-1].arguments)


def test_a_missing_small_package_needs_no_torch_step(without, tmp_path):
    from UNetSegmentationPanel.setup import dependencies

    without("safetensors")
    assert dependencies.stepsFor(dependencies.findState(), tmp_path / "c.txt") == []
    assert "safetensors" in dependencies.question(dependencies.findState())


def test_pip_ensure_gets_lower_bounds_and_leaves_alone_what_slicer_brings(without, monkeypatch, tmp_path):
    from UNetSegmentationPanel.setup import dependencies

    calls = []
    monkeypatch.setattr(slicer.packaging, "pip_ensure", lambda wanted, **options: calls.append((wanted, options)))
    without("safetensors")
    (tmp_path / "requirements.txt").write_text("safetensors>=0.4.5\n")
    dependencies.installPackages(tmp_path / "requirements.txt")
    [(wanted, options)] = calls
    assert [str(item) for item in wanted] == ["safetensors>=0.4.5"]
    assert {"numpy", "scipy", "SimpleITK", "requests", "torch"} <= set(options["skip_packages"])


def test_without_slicer_packaging_pip_gets_the_file_as_one_argument(without, monkeypatch, tmp_path):
    from UNetSegmentationPanel.setup import dependencies

    calls = []
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    monkeypatch.setattr(slicer.util, "pip_install", calls.append, raising=False)
    without("safetensors")
    requirements = tmp_path / "a folder with spaces" / "requirements.txt"
    dependencies.installPackages(requirements)
    assert calls == [["-r", str(requirements)]]


@pytest.fixture
def bare(panel, monkeypatch, tmp_path):
    """The panel without torch, and a pretended installer that brings it."""
    from UNetSegmentationPanel.setup import dependencies

    folder = tmp_path / "installer"
    folder.mkdir()
    (folder / "light_the_torch.py").write_text(FAKE_INSTALLER)
    (folder / "behaviour").write_text("plain")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder) + os.pathsep + os.environ.get("PYTHONPATH", ""))
    missing = dependencies.DependencyState(kind=dependencies.MISSING, message="PyTorch is not installed yet.")
    ready = dependencies.DependencyState(kind=dependencies.READY)
    monkeypatch.setattr(dependencies, "findState", lambda: ready if (folder / "installed").exists() else missing)
    monkeypatch.setattr(dependencies, "hasTorchExtension", lambda: True)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_texts: True)
    panel.addVolume()
    panel.widget.enter()
    assert not panel.ui.applyButton.enabled
    return types.SimpleNamespace(panel=panel, ui=panel.ui, folder=folder)


def behave(bare, behaviour):
    (bare.folder / "behaviour").write_text(behaviour)
    bare.ui.installButton.click()


def test_without_the_pytorch_extension_the_panel_says_where_to_get_it(bare, monkeypatch):
    from UNetSegmentationPanel.setup import dependencies

    monkeypatch.setattr(dependencies, "hasTorchExtension", lambda: False)
    bare.ui.installButton.click()
    assert "Extensions Manager" in bare.ui.dependencyLabel.text
    assert bare.ui.installButton.enabled


def test_nothing_is_installed_without_consent(bare, monkeypatch):
    asked = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, *_title: asked.append(text))
    bare.ui.installButton.click()
    assert "pytorch.org" in asked[0]
    assert bare.ui.installButton.text == "Install …"
    assert not (bare.folder / "arguments").exists()


def test_an_installation_tells_what_it_does_and_makes_the_panel_ready(bare):
    behave(bare, "late")
    assert spin(lambda: "Installing" in bare.ui.dependencyLabel.text)
    assert bare.ui.installProgressBar.visible
    assert not bare.ui.installButton.enabled
    assert not bare.ui.applyButton.enabled
    assert "torch>=2.6" in (bare.folder / "arguments").read_text()
    (bare.folder / "go on").touch()
    assert spin(lambda: not bare.ui.dependencyFrame.visible)
    assert bare.ui.applyButton.enabled
    assert bare.panel.leftovers() == []


def test_a_download_can_be_cancelled_and_shows_how_far_it_is(bare):
    with Heartbeat() as heartbeat:
        behave(bare, "slow")
        assert spin(lambda: bare.ui.installProgressBar.value == 25)
    assert min(heartbeat.gaps_s) < 0.1
    assert bare.ui.dependencyLabel.text == "Downloading torch (184.5 MB) …"
    assert bare.ui.installButton.text == "Cancel"
    before = time.monotonic()
    bare.ui.installButton.click()
    assert spin(lambda: bare.ui.installButton.text == "Install …")
    assert time.monotonic() - before < 1.0
    assert "Cancelled" in bare.ui.dependencyLabel.text
    assert not bare.ui.installProgressBar.visible


def test_a_failed_installation_says_why_and_what_to_do_and_can_be_tried_again(bare):
    behave(bare, "full")
    assert spin(lambda: "disk is full" in bare.ui.dependencyLabel.text)
    assert "No space left" in bare.ui.dependencyLabel.text
    assert bare.ui.installButton.enabled
    behave(bare, "plain")
    assert spin(lambda: bare.ui.applyButton.enabled)


def test_a_program_that_is_not_there_is_told(bare, monkeypatch):
    from UNetSegmentationPanel.setup import installation

    monkeypatch.setattr(installation, "defaultPython", lambda: "/no/such/python")
    bare.ui.installButton.click()
    assert spin(lambda: "/no/such/python" in bare.ui.dependencyLabel.text)


def test_a_closed_panel_stops_the_download(bare):
    behave(bare, "slow")
    assert spin(lambda: bare.ui.installProgressBar.value == 25)
    installation = bare.panel.jobs.current
    bare.panel.widget.cleanup()
    assert spin(lambda: installation._process.state() == 0)
    slicer.modules.unetsegmentation.widgetRepresentation().reload()
    bare.panel.open()


def test_a_torch_that_cannot_be_loaded_is_told_as_broken(panel):
    panel.jobs.worker.stop()
    code = """import sys; sys.exit('File "worker.py", line 3: import torch\\nOSError: DLL load failed')"""
    panel.jobs.worker.command = (sys.executable, "-c", code)
    panel.addVolume()
    panel.widget.enter()
    assert spin(lambda: "DLL load failed" in panel.ui.dependencyLabel.text)
    assert panel.ui.installButton.text == "Reinstall …"
    assert not panel.ui.applyButton.enabled
