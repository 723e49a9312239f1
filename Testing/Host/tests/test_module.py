"""A scripted module in the application: loading, panel, parameter node, scene, reload, picture."""

import numpy as np
import pytest


@pytest.fixture
def panel(demo_module):  # noqa: ARG001 - only there to be started
    """The demo module's Python widget, shown."""
    import slicer

    slicer.util.selectModule("HostDemo")
    return slicer.util.getModuleWidget("HostDemo")


def test_module_is_where_scripts_look(demo_module, slicer_app):
    import slicer

    assert slicer.modules.hostdemo is demo_module
    assert slicer.util.getModule("HostDemo") is demo_module
    assert demo_module.title == "Host demo"
    assert demo_module.categories == ("Segmentation",)
    assert "HostDemo" in slicer_app.moduleManager().modulesNames()
    assert type(slicer.util.getModuleLogic("HostDemo")).__name__ == "HostDemoLogic"
    slicer_app.startupCompleted.emit()
    assert slicer.modules.HostDemoInstance.startups == 1


@pytest.mark.usefixtures("slicer_app")
def test_enter_and_exit_follow_the_selection(panel):
    import slicer

    assert panel.parent.isEntered
    assert slicer.util.selectedModule() == "HostDemo"
    panel.calls.clear()
    slicer.util.mainWindow().moduleSelector().selectModule("")
    assert panel.calls == ["exit"]
    assert not panel.parent.isEntered
    slicer.util.selectModule("HostDemo")
    assert panel.calls == ["exit", "enter"]


def test_widgets_and_parameters_follow_each_other(panel, ball):
    import slicer

    assert not panel.ui.applyButton.enabled
    volume = ball()
    parameters = panel._parameterNode
    panel.ui.inputVolume.setCurrentNode(volume)
    assert parameters.inputVolume is volume
    assert panel.ui.applyButton.enabled
    panel.ui.threshold.value = 0.25
    assert parameters.threshold == 0.25
    parameters.threshold = 0.75
    assert panel.ui.threshold.value == 0.75
    panel.ui.side.currentIndex = 1
    assert parameters.side.name == "BELOW"
    parameters.color = "blue"
    assert panel.ui.color.currentText == "blue"
    panel.ui.smoothing_radius.value = 4
    panel.ui.smoothing_enabled.checked = True
    assert (parameters.smoothing.radius, parameters.smoothing.enabled) == (4, True)
    assert panel.ui.smoothing_radius.maximum == 9
    slicer.mrmlScene.RemoveNode(volume)
    assert not panel.ui.applyButton.enabled


def test_state_survives_save_and_reload_of_the_scene(panel, ball, tmp_path):
    import slicer

    panel._parameterNode.inputVolume = ball("Input")
    panel._parameterNode.threshold = 0.125
    panel._parameterNode.labels = ["one", "two"]
    path = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear()
    assert panel._parameterNode.threshold == 0.5
    slicer.util.loadScene(path)
    panel.initializeParameterNode()
    assert panel._parameterNode.threshold == 0.125
    assert list(panel._parameterNode.labels) == ["one", "two"]
    assert panel._parameterNode.inputVolume.GetName() == "Input"
    assert panel.ui.inputVolume.currentNode() is panel._parameterNode.inputVolume


def test_picture_shows_segments_in_every_view(panel, ball, tmp_path):
    import slicer
    from slicer_host.event_loop import process_events

    volume = ball()
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    panel._parameterNode.inputVolume = volume
    panel._parameterNode.threshold = 0.4
    panel.ui.applyButton.click()
    panel.ui.show3DButton.click()
    assert panel.ui.segmentsTable.segmentCount == 2
    slicer.util.resetThreeDViews()
    process_events(0.1)
    manager = slicer.app.layoutManager()
    # Seen from the front and from below, the left half is on the right; the yellow view cuts through one half only.
    for name, colors in (("Red", 2), ("Green", 2), ("Yellow", 1), (0, 2)):
        widget = manager.threeDWidget(name) if name == 0 else manager.sliceWidget(name)
        pixels = _pixels(widget.viewWidget())
        red = (pixels[..., 0] > pixels[..., 2] + 60).sum()
        blue = (pixels[..., 2] > pixels[..., 0] + 60).sum()
        assert sum(count > 500 for count in (red, blue)) >= colors, (name, red, blue)
    picture = tmp_path / "window.png"
    assert slicer.util.mainWindow().grab().save(str(picture))
    assert picture.stat().st_size > 20_000


def test_segments_of_a_loaded_scene_show_in_slices(panel, ball, tmp_path):
    import slicer
    from slicer_host.event_loop import process_events

    volume = ball()
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    panel._parameterNode.inputVolume = volume
    panel._parameterNode.threshold = 0.4
    panel.ui.applyButton.click()
    path = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear()
    process_events(0.1)
    slicer.util.loadScene(path)
    process_events(0.1)
    pixels = _pixels(slicer.app.layoutManager().sliceWidget("Red").viewWidget())
    assert (abs(pixels[..., 0] - pixels[..., 2]) > 60).sum() > 500


def _pixels(widget):
    import qt

    image = widget.grab().toImage().convertToFormat(qt.QImage.Format_RGBX8888)
    rows = np.frombuffer(bytes(image.constBits()), np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : 4 * image.width()].reshape(image.height(), image.width(), 4).astype(int)


@pytest.mark.usefixtures("panel")
def test_slider_of_a_slice_view_moves_the_slice(ball):
    import slicer

    slicer.util.setSliceViewerLayers(background=ball(), fit=True)
    widget = slicer.app.layoutManager().sliceWidget("Red")
    slider = widget.sliceController().sliceOffsetSlider()
    slider.value = 12.0
    assert widget.sliceLogic().GetSliceOffset() == 12.0
    widget.sliceLogic().SetSliceOffset(15.0)
    assert slider.value == 15.0


@pytest.mark.usefixtures("panel")
def test_layout_of_own_views(slicer_app):
    import slicer

    manager = slicer_app.layoutManager()
    former, node = manager.layout, manager.layoutLogic().GetLayoutNode()
    axial = '<property name="orientation">Axial</property>'
    view = f'<item><view class="vtkMRMLSliceNode" singletontag="{{0}}">{axial}</view></item>'
    node.AddLayoutDescription(567, f'<layout type="horizontal">{view.format("First")}{view.format("Second")}</layout>')
    manager.setLayout(567)
    assert manager.layout == 567
    assert manager.sliceWidget("Second").mrmlSliceNode().IsMappedInLayout()
    assert not manager.sliceWidget("Red").mrmlSliceNode().IsMappedInLayout()
    assert manager.sliceWidget("Second").visible
    manager.setLayout(former)
    assert manager.sliceWidget("Red").mrmlSliceNode().IsMappedInLayout()
    assert slicer.app.layoutManager().threeDViewCount == 1


def test_reload_builds_the_panel_anew(panel):
    import slicer

    before = panel
    slicer.util.reloadScriptedModule("HostDemo")
    after = slicer.util.getModuleWidget("HostDemo")
    assert after is not before
    assert before.calls[-1] == "cleanup"
    assert after.ui.threshold.value == 0.5


@pytest.mark.usefixtures("panel")
def test_self_test_runs():
    import slicer

    slicer.selfTests["HostDemo"]()
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 1


def test_dialogs_answer_themselves_in_testing_mode(slicer_app):
    import slicer

    assert slicer_app.testingEnabled()
    slicer.util.infoDisplay("Nobody has to press OK.")
    assert slicer.util.confirmOkCancelDisplay("Sure?") in (True, False)


def test_errors_of_a_panel_do_not_stop_it(panel, uncaught_errors):
    panel.ui.applyButton.enabled = True
    panel._parameterNode.inputVolume = None
    panel.ui.applyButton.click()
    assert not any("Fatal" in item for item in uncaught_errors)
    uncaught_errors.clear()


@pytest.mark.usefixtures("slicer_app")
def test_folder_with_a_file_that_is_no_module_is_refused(tmp_path):
    from slicer_host.modules import load_modules

    (tmp_path / "helper.py").write_text("value = 3\n", encoding="utf-8")
    with pytest.raises(ImportError, match=r"helper\.py"):
        load_modules([tmp_path])
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_modules([tmp_path / "absent"])


@pytest.mark.usefixtures("panel")
def test_failing_view_is_reported_not_fatal(slicer_app, uncaught_errors, monkeypatch):
    view = slicer_app.layoutManager().sliceWidget("Red").sliceView()

    def fail():
        raise RuntimeError("the picture could not be drawn")

    monkeypatch.setattr(view._canvas.pipeline, "picture", fail)
    view.forceRender()
    assert "could not be drawn" in "".join(uncaught_errors)
    uncaught_errors.clear()


def test_click_in_a_view_places_a_point(panel, ball, slicer_app):
    import qt
    import slicer
    from slicer_host.event_loop import process_events

    slicer.util.setSliceViewerLayers(background=ball(), fit=True)
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    panel.ui.placeWidget.setCurrentNode(points)
    panel.ui.placeWidget.setPlaceModeEnabled(True)
    process_events(0.05)
    widget = slicer_app.layoutManager().sliceWidget("Red")
    canvas = widget.sliceView()._canvas
    place = qt.QPoint(canvas.width // 2, canvas.height // 3)
    qt.QTest.mouseMove(canvas, place)
    qt.QTest.mouseClick(canvas, qt.Qt.LeftButton, qt.Qt.NoModifier, place)
    process_events(0.05)
    assert points.GetNumberOfControlPoints() == 1
    view = widget.sliceView()
    expected = view.convertXYZToRAS(view.convertDeviceToXYZ((place.x(), place.y())))
    assert points.GetNthControlPointPosition(0) == pytest.approx(expected, abs=0.5)
    assert not panel.ui.placeWidget.placeModeEnabled
