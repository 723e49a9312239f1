"""Fixtures for tests in the host.

A folder of tests takes them over in its conftest.py:

    from slicer_host.pytest_plugin import clean_scene, pytest_pyfunc_call, slicer_app, uncaught_errors

A test that uses `slicer_app` runs inside the event loop, on an empty scene, and fails where an exception ended
in a slot or an observer, which the application would only print.
"""

from collections.abc import Callable
from typing import Any

import pytest

from slicer_host.display import choose_display


@pytest.fixture(scope="session")
def slicer_app():
    """Start the application, offscreen where there is no display, once a process; it is in testing mode."""
    choose_display()
    from slicer_host.application import HostOptions, start_application

    app = start_application(HostOptions(testing=True))
    yield app
    app._shut_down()


@pytest.fixture
def uncaught_errors(slicer_app) -> list[str]:  # noqa: ARG001 - only there to be started
    """What ended in slots and observers so far; a test that expects something clears it."""
    from slicer_host.uncaught import UNCAUGHT

    return UNCAUGHT


@pytest.fixture(autouse=True)
def clean_scene(request: pytest.FixtureRequest):
    """Give each test that uses the application an empty scene, no module shown, and check what it left behind."""
    if "slicer_app" not in request.fixturenames:
        yield
        return
    app = request.getfixturevalue("slicer_app")
    from slicer_host.event_loop import process_events
    from slicer_host.uncaught import UNCAUGHT

    UNCAUGHT.clear()
    yield
    if app.layoutManager() is not None:
        app._main_window._selector.selectModule("")
    app.mrmlScene().Clear(0)
    process_events()
    left, UNCAUGHT[:] = "\n".join(UNCAUGHT), []
    if left:
        pytest.fail(f"an exception ended in a slot or an observer:\n{left}")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Any:
    """Run the body of a test that uses the application inside the event loop."""
    if "slicer_app" not in pyfuncitem.fixturenames:
        return None
    from slicer_host.event_loop import run_in_event_loop

    names = pyfuncitem._fixtureinfo.argnames
    body: Callable[..., Any] = pyfuncitem.obj
    run_in_event_loop(lambda: body(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
