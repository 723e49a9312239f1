"""What helps a person: the hint, keys, tooltips, and texts that can be translated."""

import ast
from pathlib import Path
from xml.etree import ElementTree

import pytest
import qt
import slicer
from conftest import REPOSITORY

SOURCES = sorted((REPOSITORY / "UNetSegmentation").rglob("*.py"))
FORM = REPOSITORY / "UNetSegmentation" / "Resources" / "UI" / "UNetSegmentation.ui"
# What is said to developers, by the log or by an exception, or compared with what others say.
NOT_SHOWN = {"debug", "info", "error", "exception", "RuntimeError", "startswith", "match", "fullmatch", "search"}
INTERACTIVE = {"QPushButton", "QToolButton", "QComboBox", "QCheckBox", "qMRMLNodeComboBox", "ctkSliderWidget"}


@pytest.fixture
def newcomer(panel):
    """The panel as it is opened for the first time."""
    slicer.app.settings().remove("UNetSegmentation/HintIsDone")
    slicer.modules.unetsegmentation.widgetRepresentation().reload()
    panel.open()
    return panel


def reopened(panel):
    slicer.modules.unetsegmentation.widgetRepresentation().reload()
    panel.open()
    return panel


def test_the_hint_goes_for_good_when_it_was_read(newcomer):
    assert newcomer.ui.hintFrame.visible
    newcomer.ui.hintButton.click()
    assert not newcomer.ui.hintFrame.visible
    assert not reopened(newcomer).ui.hintFrame.visible


def test_the_hint_goes_with_the_first_result_and_not_with_a_failure(newcomer):
    newcomer.addVolume()
    newcomer.run("refuse")
    assert newcomer.ui.hintFrame.visible
    newcomer.run("plain")
    assert not newcomer.ui.hintFrame.visible
    assert not reopened(newcomer).ui.hintFrame.visible


def shortcuts(widget):
    return {
        child.key.toString(): child
        for child in widget.findChildren(qt.QShortcut)
        if child.context == qt.Qt.WidgetWithChildrenShortcut
    }


def test_keys_work_in_the_panel_only(panel):
    panel.addVolume()
    panel.chooseModel("slow")
    form = panel.ui.inputSection.parent()
    keys = shortcuts(form)
    assert set(keys) == {"Ctrl+Return", "Esc"}
    assert all(key.context == qt.Qt.WidgetWithChildrenShortcut for key in form.findChildren(qt.QShortcut))
    keys["Ctrl+Return"].activated.emit()
    assert panel.jobs.isRunning
    keys["Ctrl+Return"].activated.emit()
    panel.waitForEnd()
    assert "Cancelled" in panel.says


def test_escape_withdraws_the_question(panel):
    panel.addVolume()
    panel.run()
    panel.parameters.outputSegmentation.GetSegmentation().GetNthSegment(0).SetName("Mine")
    panel.press()
    assert panel.ui.questionFrame.visible
    shortcuts(panel.ui.questionFrame)["Esc"].activated.emit()
    assert not panel.ui.questionFrame.visible


def test_everything_that_can_be_used_says_what_it_does():
    silent = []
    for widget in ElementTree.parse(FORM).iter("widget"):
        hasTip = any(one.get("name") == "toolTip" for one in widget.findall("property"))
        if widget.get("class") in INTERACTIVE and not hasTip:
            silent.append(widget.get("name"))
    # Their tips depend on the state, and are set with it.
    assert sorted(silent) == ["applyButton", "importButton", "installButton"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_sentence_that_is_shown_can_be_translated(path: Path):
    if path.name == "self_test.py":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    allowed = {id(one) for node in ast.walk(tree) for one in _notShown(node)}
    bare = [
        f"{node.lineno}: {node.value}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and id(node) not in allowed and _isSentence(node.value)
    ]
    assert bare == []


def _isSentence(value):
    # Marks of rich text, and dotted names, are none.
    words = value.split() if isinstance(value, str) and "<" not in value else []
    return sum(word.strip(".,:;()").isalpha() for word in words) >= 2


def _notShown(node):
    """Return the nodes of texts that are translated, or that nobody is shown."""
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return ast.walk(node) if name in NOT_SHOWN | {"_", "translate"} else ()
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
        return ast.walk(node.body[0]) if isinstance(node.body[0], ast.Expr) else ()
    if isinstance(node, ast.Compare):
        return ast.walk(node)
    if isinstance(node, ast.Assign) and getattr(node.targets[0], "attr", "") == "contributors":
        return ast.walk(node)
    if isinstance(node, ast.Assign) and all(getattr(one, "id", "").isupper() for one in node.targets):
        values = node.value.keys if isinstance(node.value, ast.Dict) else [node.value]
        return [one for value in values for one in ast.walk(value)]
    return ()
