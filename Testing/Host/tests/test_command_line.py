"""`python -m slicer_host` takes the options of Slicer's command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def _run(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(_HERE.parent), "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, "-m", "slicer_host", "--testing", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_code_modules_data_and_picture(tmp_path):
    data = tmp_path / "points.mrk.json"
    code = f"""
import slicer
assert slicer.util.selectedModule() == "HostDemo", slicer.util.selectedModule()
assert slicer.modules.HostDemoInstance.startups == 1
points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "P")
points.AddControlPoint(1, 2, 3)
assert slicer.util.saveNode(points, {str(data)!r})
print("code ran")
"""
    picture = tmp_path / "picture.png"
    folder = _HERE / "demo_module"
    done = _run("--additional-module-paths", folder, "--python-code", code, "--screenshot", picture)
    assert (done.returncode, done.stdout.strip()) == (0, "code ran"), done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert data.stat().st_size > 0


@pytest.mark.parametrize(("code", "status"), [("slicer.util.exit(5)", 5), ("1 // 0", 1)])
def test_script_decides_the_exit_code(tmp_path, code, status):
    script = tmp_path / "script.py"
    script.write_text(f"import sys, slicer\nassert sys.argv[1:] == ['--own', 'x']\n{code}\n", encoding="utf-8")
    assert _run("--no-main-window", "--no-splash", "--python-script", script, "--own", "x").returncode == status


def test_wrong_option_is_refused():
    done = _run("--no-such-option")
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr


def test_wrong_python_dir_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SLICER_PYTHON_DIR", str(tmp_path))
    done = _run("--no-main-window", "--python-code", "slicer.util.exit(0)")
    assert done.returncode == 1
    assert "holds no ScriptedLoadableModule.py" in done.stderr
