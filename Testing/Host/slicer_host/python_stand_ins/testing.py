"""Stand-in for `slicer.testing`: run a unit test and leave with an exit code."""

import sys
import traceback
import unittest

import slicer


def exitSuccess():
    """Leave the application with exit code 0."""
    slicer.util.exit(0)


def exitFailure(message=""):
    """Leave the application with exit code 1."""
    if message:
        sys.stderr.write(f"{message}\n")
    slicer.util.exit(1)


def runUnitTest(path, testname):
    """Run the tests of a Python module that one of the folders of `path` holds, then leave the application."""
    folders = [path] if isinstance(path, str) else list(path)
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]
    try:
        suite = unittest.TestLoader().loadTestsFromName(testname)
        passed = unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful()
    except Exception:  # noqa: BLE001 - a test module may raise anything at import
        traceback.print_exc()
        passed = False
    if passed:
        exitSuccess()
    else:
        exitFailure(f"{testname} failed")
