"""The module as Slicer sees it: loading, self test, reload, closing."""

import os
import subprocess
import sys

import slicer
from conftest import REPOSITORY
from panel_driver import spin

CODE = """
import sys, slicer
slicer.modules.unetsegmentation.widgetRepresentation()
assert 'torch' not in sys.modules
slicer.app.quit()
"""


def test_the_self_test_passes(panel, monkeypatch):  # noqa: ARG001
    from UNetSegmentationPanel.setup import dependencies

    absent = dependencies.DependencyState(kind=dependencies.MISSING, message="not here")
    monkeypatch.setattr(dependencies, "findState", lambda: absent)
    slicer.selfTests["UNetSegmentation"]()


def test_the_module_says_what_it_is(module):  # noqa: ARG001
    about = slicer.modules.unetsegmentation
    assert about.title == "UNet Segmentation"
    assert about.categories == ("Segmentation",)
    assert "Apply" in about.helpText


def test_the_panel_can_be_made_anew(panel):
    panel.addVolume()
    slicer.modules.unetsegmentation.widgetRepresentation().reload()
    panel.open()
    assert spin(lambda: panel.ui.applyButton.enabled)
    panel.run()
    assert "Found" in panel.says


def test_a_panel_that_went_with_a_reload_can_be_cleaned_up_again(panel):
    panel.addVolume()
    former, table = panel.widget, panel.ui.segmentsTable
    slicer.modules.unetsegmentation.widgetRepresentation().reload()
    # Slicer's own reload deletes at once, the host's when its event loop is back.
    table.delete()
    former.cleanup()
    panel.open()
    assert spin(lambda: panel.ui.applyButton.enabled)


def test_cleanup_ends_the_worker(panel):
    panel.addVolume()
    assert spin(lambda: panel.jobs.worker.ready)
    pid = panel.jobs.worker.ready["pid"]
    panel.widget.cleanup()
    assert spin(lambda: not _isAlive(pid), 2.0)
    slicer.modules.unetsegmentation.widgetRepresentation().reload()
    panel.open()


def test_it_loads_without_a_window_and_without_torch():
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "Testing" / "Host")}
    command = [sys.executable, "-m", "slicer_host", "--testing", "--no-main-window", "--python-code", CODE]
    command += ["--additional-module-paths", str(REPOSITORY / "UNetSegmentation")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


def _isAlive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


HEADLESS_RUN = """
import sys, numpy as np, slicer
sys.path.insert(0, {tests!r})
from pathlib import Path
from fake_models import write_models
from panel_driver import FAKE_WORKER, spheres
write_models(Path({folder!r}))
logic = slicer.modules.unetsegmentation.widgetRepresentation().self().logic
logic.jobs.worker.command = FAKE_WORKER
outcome = logic.segment(slicer.util.addVolumeFromArray(spheres()), Path({folder!r}) / "plain")
assert outcome.kind == "done", outcome
logic.jobs.cleanup()
slicer.app.quit()
"""


def test_a_script_segments_without_a_window(tmp_path):
    code = HEADLESS_RUN.format(tests=str(REPOSITORY / "Testing" / "Panel"), folder=str(tmp_path / "models"))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "Testing" / "Host")}
    command = [sys.executable, "-m", "slicer_host", "--testing", "--no-main-window", "--python-code", code]
    command += ["--additional-module-paths", str(REPOSITORY / "UNetSegmentation")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
