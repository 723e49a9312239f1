"""Models come and go through the panel: by menu, by drop, with a report, and never by halves."""

import re
import shutil
import sys
import time
from pathlib import Path

import pytest
import qt
import slicer
from fake_models import describe
from panel_driver import spheres, spin

from UNetSegmentationLib.models.description import write_description


@pytest.fixture
def loaded(module, monkeypatch):  # noqa: ARG001
    """What the main window was given to load as data."""
    paths = []
    monkeypatch.setattr(type(slicer.app), "loadFiles", lambda _app, given: paths.extend(given))
    return paths


@pytest.fixture
def source(tmp_path):
    """Return a function that makes a folder with a model to import; its name tells the fake worker what to do."""

    def make(name, **options):
        folder = tmp_path / "downloads" / name
        folder.mkdir(parents=True)
        write_description(folder, describe(options.pop("identifier", name), **options))
        return folder

    return make


def action(panel, text):
    """Return the entry of the menu that begins like this."""
    menu = panel.ui.manageButton.menu()
    return next(entry for entry in menu.actions() if entry.text.startswith(text))


def report(panel):
    return re.sub("<[^>]+>", "", panel.ui.importLabel.text.replace("<br>", " ")) if panel.ui.importFrame.visible else ""


def waitForImport(panel):
    assert spin(lambda: not panel.jobs.isRunning), report(panel)


def namesIn(folder):
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def chooseFolder(panel, monkeypatch, folder):
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", staticmethod(lambda *_arguments: str(folder)))
    action(panel, "Import a model from a folder").trigger()


def drop(panel, *paths):
    """Drag paths onto the section of models and let them go there."""
    data = qt.QMimeData()
    data.setUrls([qt.QUrl.fromLocalFile(str(path)) for path in paths])
    for make, point in ((qt.QDragEnterEvent, qt.QPoint(9, 9)), (qt.QDropEvent, qt.QPointF(9, 9))):
        event = make(point, qt.Qt.CopyAction, data, qt.Qt.LeftButton, qt.Qt.NoModifier)
        qt.QApplication.sendEvent(panel.ui.modelSection, event)
    slicer.app.processEvents()


def test_a_folder_is_imported_listed_chosen_and_told(panel, users, monkeypatch, source):
    panel.addVolume()
    chooseFolder(panel, monkeypatch, source("spheres", preset="ct", network="vnet", title="Kugeln <rot>"))
    waitForImport(panel)
    assert report(panel) == ("Imported “Kugeln &lt;rot&gt;” (V-Net): finds Body, Core, Absent.")
    assert namesIn(users) == ["spheres"]
    assert panel.ui.presetComboBox.currentData == "ct"
    assert panel.ui.networkComboBox.currentData == "vnet"
    assert panel.ui.modelComboBox.currentData == "spheres"
    assert panel.ui.importIcon.visible
    assert not panel.ui.importProgressBar.visible
    panel.ui.importButton.click()
    assert report(panel) == ""


def test_an_archive_is_chosen_by_its_kind(panel, monkeypatch, source):
    asked = []

    def answer(*arguments):
        asked.append(arguments[3])
        return str(source("spheres"))

    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", staticmethod(answer))
    action(panel, "Import a model from a zip archive").trigger()
    waitForImport(panel)
    assert asked == ["Zip archives (*.zip)"]
    assert "Imported" in report(panel)


def test_nothing_happens_where_no_folder_or_archive_is_chosen(panel, monkeypatch):
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", staticmethod(lambda *_arguments: ""))
    action(panel, "Import a model from a zip archive").trigger()
    chooseFolder(panel, monkeypatch, "")
    assert not panel.jobs.isRunning
    assert report(panel) == ""


def test_the_models_can_be_imported_before_there_is_a_volume(panel, monkeypatch, source):
    chooseFolder(panel, monkeypatch, source("spheres", preset="ct"))
    waitForImport(panel)
    assert panel.ui.modelComboBox.currentData == "spheres"
    assert "Load an image" in panel.says


def test_warnings_are_told_with_what_was_imported(panel, monkeypatch, source):
    chooseFolder(panel, monkeypatch, source("warned"))
    waitForImport(panel)
    assert report(panel).endswith("finds Body, Core, Absent. Fold_1 is &lt;missing&gt;.")


def test_the_reason_against_a_model_is_told_in_one_sentence(panel, users, monkeypatch, source):
    panel.addVolume()
    chosen = panel.ui.modelComboBox.currentData
    chooseFolder(panel, monkeypatch, source("refuse"))
    waitForImport(panel)
    assert report(panel) == "It is a &lt;cascade&gt;: give another one."
    assert namesIn(users) == []
    assert panel.ui.modelComboBox.currentData == chosen


@pytest.mark.parametrize("name", ["slow", "deaf"])
def test_a_cancelled_import_leaves_nothing(panel, users, monkeypatch, source, name):
    panel.addVolume()
    chooseFolder(panel, monkeypatch, source(name))
    assert spin(lambda: "Reading the model" in report(panel))
    assert panel.ui.importProgressBar.visible
    assert "being imported" in panel.says
    assert not panel.ui.applyButton.enabled
    before = time.monotonic()
    panel.ui.importButton.click()
    waitForImport(panel)
    assert time.monotonic() - before < 1.2
    assert report(panel) == "Cancelled; nothing was imported."
    assert spin(lambda: namesIn(users) == [])
    assert panel.ui.applyButton.enabled
    panel.run("plain")
    assert "Found" in panel.says
    assert report(panel) == ""


def test_a_worker_that_dies_in_an_import_leaves_nothing(panel, users, monkeypatch, source):
    chooseFolder(panel, monkeypatch, source("crash"))
    waitForImport(panel)
    assert "exit code 3" in report(panel)
    assert spin(lambda: namesIn(users) == [])


def test_an_import_goes_on_while_the_scene_is_closed(panel, users, monkeypatch, source):
    chooseFolder(panel, monkeypatch, source("spheres", preset="ct"))
    slicer.mrmlScene.Clear()
    waitForImport(panel)
    assert "Imported" in report(panel)
    assert namesIn(users) == ["spheres"]


def test_closing_the_panel_ends_an_import(panel, users, monkeypatch, source):
    chooseFolder(panel, monkeypatch, source("slow"))
    assert spin(lambda: "Reading the model" in report(panel))
    panel.widget.cleanup()
    assert not panel.jobs.isRunning
    assert spin(lambda: namesIn(users) == [])
    slicer.modules.unetsegmentation.widgetRepresentation().reload()
    panel.open()


def test_one_job_at_a_time(panel, users, monkeypatch, source, loaded):
    panel.addVolume()
    panel.chooseModel("slow")
    panel.press()
    assert not action(panel, "Import a model from a folder").enabled
    drop(panel, source("spheres"))
    assert report(panel).startswith("A run is in progress: wait for it to finish, or cancel it")
    panel.press()
    panel.waitForEnd()
    chooseFolder(panel, monkeypatch, source("slow"))
    assert not action(panel, "Import a model from a zip archive").enabled
    drop(panel, source("other"))
    assert report(panel).startswith("Importing slow")
    panel.ui.importButton.click()
    waitForImport(panel)
    assert spin(lambda: namesIn(users) == [])
    assert loaded == []


def test_what_is_dropped_onto_the_models_is_imported(panel, source, loaded):
    drop(panel, source("spheres"))
    assert spin(lambda: "Imported" in report(panel))
    assert loaded == []


def test_what_is_no_model_goes_on_to_the_main_window(panel, source, tmp_path, loaded):
    paths = [tmp_path / "image.nii.gz", source("spheres"), source("other")]
    drop(panel, paths[0])
    drop(panel, *paths[1:])
    assert not panel.jobs.isRunning
    assert loaded == [str(path) for path in paths]


def test_without_torch_a_dropped_model_is_told_why_not(panel, source, monkeypatch):
    from UNetSegmentationPanel.setup import dependencies

    missing = dependencies.DependencyState(kind=dependencies.MISSING, message="PyTorch is not installed yet.")
    monkeypatch.setattr(dependencies, "findState", lambda: missing)
    panel.widget.enter()
    drop(panel, source("spheres"))
    assert report(panel) == "Install the missing packages first (see above)."
    assert not action(panel, "Import a model from a folder").enabled


def test_the_sentence_about_no_model_leads_to_an_import(panel, models, monkeypatch, source):
    for folder in models.glob("ct-*"):
        shutil.rmtree(folder)
    panel.widget.enter()
    panel.addVolume(spheres(20) - 1024)
    folder = source("spheres", preset="ct")
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", staticmethod(lambda *_arguments: str(folder)))
    panel.ui.statusLabel.linkActivated.emit("import")
    assert spin(lambda: panel.ui.applyButton.enabled)


@pytest.mark.parametrize("answer", [True, False])
def test_a_model_of_the_users_own_is_deleted_when_they_say_so(panel, users, monkeypatch, source, answer):
    questions = []

    def confirm(text, *_title):
        questions.append(text)
        return answer

    panel.addVolume()
    chooseFolder(panel, monkeypatch, source("spheres"))
    waitForImport(panel)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", confirm)
    action(panel, "Delete “Spheres, spheres”").trigger()
    assert str(users / "spheres") in questions[0]
    if not answer:
        slicer.app.processEvents()
        assert (users / "spheres").is_dir()
        return
    assert spin(lambda: "Deleted “Spheres, spheres”" in report(panel))
    assert namesIn(users) == []
    assert panel.ui.modelComboBox.findData("spheres") == -1
    assert panel.ui.modelComboBox.currentData
    assert panel.ui.applyButton.enabled


def test_models_that_are_not_the_users_own_cannot_be_deleted(panel):
    panel.addVolume()
    assert not action(panel, "Delete (your own models only)").enabled


def test_a_model_that_cannot_be_deleted_is_told(panel, monkeypatch, source):
    chooseFolder(panel, monkeypatch, source("spheres"))
    waitForImport(panel)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_arguments: True)

    def refused(_path, _target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refused)
    action(panel, "Delete").trigger()
    assert spin(lambda: "cannot be deleted (Permission denied)" in report(panel))
    assert panel.ui.modelComboBox.findData("spheres") >= 0


@pytest.mark.parametrize("isOpened", [True, False])
def test_where_models_lie_is_shown_or_told(panel, users, monkeypatch, isOpened):
    opened = []

    def openUrl(url):
        opened.append(Path(url.toLocalFile()))
        return isOpened

    monkeypatch.setattr(qt.QDesktopServices, "openUrl", staticmethod(openUrl))
    action(panel, "Open my models folder").trigger()
    assert opened == [users]
    assert users.is_dir()
    assert report(panel) == ("" if isOpened else f"Your models are in {users}.")


def test_a_folder_of_models_that_cannot_be_made_is_told(panel, users):
    users.parent.parent.mkdir()
    users.parent.write_text("")
    action(panel, "Open my models folder").trigger()
    assert "cannot be created" in report(panel)


def test_an_import_does_not_load_torch(panel, monkeypatch, source):
    chooseFolder(panel, monkeypatch, source("spheres"))
    waitForImport(panel)
    assert "torch" not in sys.modules
