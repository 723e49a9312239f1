"""The command line, with the options of Slicer's own."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

_SCREENSHOT_DELAY_MS = 1500


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m slicer_host", description=__doc__, allow_abbrev=False)
    parser.add_argument("--testing", action="store_true", help="dialogs answer themselves")
    parser.add_argument("--no-main-window", action="store_true")
    parser.add_argument("--no-splash", action="store_true", help="taken for Slicer's sake; there is none")
    modules = {"dest": "module_paths", "action": "extend", "default": [], "metavar": "FOLDER"}
    parser.add_argument("--additional-module-path", nargs=1, help="load the scripted modules of this folder", **modules)
    parser.add_argument("--additional-module-paths", nargs="+", help="the same for several folders", **modules)
    parser.add_argument("--python-script", metavar="FILE", help="run a script; what follows are its arguments")
    parser.add_argument("--python-code", metavar="CODE")
    parser.add_argument("--module", metavar="NAME", help="show this module (else the first one loaded)")
    parser.add_argument("--screenshot", metavar="FILE", help="save a picture of the window and leave")
    parser.add_argument("files", nargs="*", metavar="FILE", help="data to load")
    return parser


def _split_script(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Cut the arguments of `--python-script FILE` off, whatever they look like."""
    arguments = list(arguments)
    if "--python-script" not in arguments:
        return arguments, []
    end = arguments.index("--python-script") + 2
    return arguments[:end], arguments[end:]


def _run_python(parsed: argparse.Namespace, script_arguments: list[str]) -> None:
    if parsed.python_code:
        exec(compile(parsed.python_code, "<--python-code>", "exec"), {"__name__": "__main__"})
    if parsed.python_script:
        path = Path(parsed.python_script)
        sys.argv = [os.fspath(path), *script_arguments]
        code = compile(path.read_text(encoding="utf-8"), os.fspath(path), "exec")
        exec(code, {"__name__": "__main__", "__file__": os.fspath(path)})


def _save_screenshot(app, path: str) -> None:
    saved = app._main_window.grab().save(path)
    if not saved:
        sys.stderr.write(f"the picture could not be written to '{path}'\n")
    app.exit(0 if saved else 1)


def _begin(app, parsed: argparse.Namespace, script_arguments: list[str], names: list[str]) -> None:
    """Do inside the event loop what was asked for."""
    import slicer

    from slicer_host.pythonqt import QtCore
    from slicer_host.uncaught import report_current

    try:
        if parsed.files:
            app.loadFiles(parsed.files)
        wanted = parsed.module or next(iter(names), None)
        if wanted and not parsed.no_main_window:
            slicer.util.selectModule(wanted)
        app.startupCompleted.emit()
        _run_python(parsed, script_arguments)
    except SystemExit as leaving:
        app.exit(leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None))
        return
    except Exception:  # noqa: BLE001 - a script may raise anything
        report_current()
        if parsed.testing or parsed.screenshot:
            app.exit(1)
            return
    if parsed.screenshot:
        QtCore.QTimer.singleShot(_SCREENSHOT_DELAY_MS, lambda: _save_screenshot(app, parsed.screenshot))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the application until it is left; return the exit code."""
    own, script_arguments = _split_script(sys.argv[1:] if arguments is None else arguments)
    parsed = _parser().parse_args(own)

    from slicer_host.application import HostOptions, start_application

    options = HostOptions(
        testing=parsed.testing,
        no_main_window=parsed.no_main_window,
        additional_module_paths=tuple(parsed.module_paths),
        python_script=parsed.python_script or "",
        python_code=parsed.python_code or "",
    )
    app = start_application(options)

    from slicer_host.modules import load_modules
    from slicer_host.pythonqt import QtCore

    names = load_modules(parsed.module_paths)
    QtCore.QTimer.singleShot(0, lambda: _begin(app, parsed, script_arguments, names))
    return app.exec()
