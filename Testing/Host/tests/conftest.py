"""The host on the path, and its fixtures."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from slicer_host.pytest_plugin import clean_scene, pytest_pyfunc_call, slicer_app, uncaught_errors

__all__ = ["clean_scene", "pytest_pyfunc_call", "slicer_app", "uncaught_errors"]
