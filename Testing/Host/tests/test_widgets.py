"""What the CTK look-alikes do."""

import pytest


@pytest.mark.usefixtures("slicer_app")
def test_slider_cuts_rounds_and_tells_once():
    import ctk

    got = []
    slider = ctk.ctkSliderWidget()
    slider.decimals = 2
    slider.singleStep = 0.05
    slider.maximum = 1.0
    slider.connect("valueChanged(double)", got.append)
    for value in (0.333, 0.333, 7, -2):
        slider.value = value
    assert got == [0.33, 1.0, 0.0]
    slider.minimum = 0.5
    assert slider.value == 0.5
    slider.Slider.value = slider.Slider.maximum
    assert slider.value == 1.0
    with pytest.raises(AttributeError):
        slider.setRange(0, 1)


@pytest.mark.usefixtures("slicer_app")
def test_range_keeps_its_ends_in_order():
    import ctk

    got = []
    widget = ctk.ctkRangeWidget()
    widget.setRange(-100, 100)
    widget.connect("valuesChanged(double,double)", lambda low, high: got.append((low, high)))
    widget.setValues(50, -20)
    assert (widget.minimumValue, widget.maximumValue) == (-20, 50)
    widget.minimumValue = 80
    assert (widget.minimumValue, widget.maximumValue) == (50, 50)
    widget.maximum = 30
    assert got[-1] == (30, 30)


def test_collapsible_button_hides_its_contents(slicer_app):
    import ctk
    import qt

    button, got = ctk.ctkCollapsibleButton(), []
    layout = qt.QVBoxLayout(button)
    inner = qt.QLabel("contents")
    layout.addWidget(inner)
    button.connect("contentsCollapsed(bool)", got.append)
    button.show()
    tall = button.maximumHeight
    button.collapsed = True
    assert not inner.visible
    assert button.maximumHeight < tall
    assert not button.checked
    late = qt.QLabel("added while collapsed")
    layout.addWidget(late)
    slicer_app.processEvents()
    assert not late.visible
    button.collapsed = False
    assert inner.visible
    assert late.visible
    assert got == [True, False]
    button.hide()


@pytest.mark.usefixtures("slicer_app")
def test_path_line_keeps_its_history(tmp_path):
    import ctk

    got = []
    line = ctk.ctkPathLineEdit()
    line.settingKey = "HostTest/Path"
    line.connect("currentPathChanged(QString)", got.append)
    line.currentPath = str(tmp_path)
    line.addCurrentPathToHistory()
    other = ctk.ctkPathLineEdit()
    other.settingKey = "HostTest/Path"
    assert other.currentPath == str(tmp_path)
    assert got == [str(tmp_path)]


@pytest.mark.usefixtures("slicer_app")
def test_directory_button_tells_of_its_folder(tmp_path):
    import ctk

    got = []
    button = ctk.ctkDirectoryButton()
    button.connect("directoryChanged(QString)", got.append)
    button.directory = str(tmp_path)
    button.directory = str(tmp_path)
    assert got == [button.directory] == [str(tmp_path)]


@pytest.mark.usefixtures("slicer_app")
def test_message_box_remembers_the_answer():
    import ctk

    box = ctk.ctkMessageBox()
    box.dontShowAgainSettingsKey = "HostTest/DontAsk"
    assert not box.dontShowAgain
    box.setDontShowAgain(True)
    assert box.dontShowAgain


@pytest.mark.usefixtures("slicer_app")
def test_segments_table_edits_the_segmentation():
    import qt
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.CreateDefaultDisplayNodes()
    ids = [node.GetSegmentation().AddEmptySegment("", name) for name in ("One", "Two")]
    table = slicer.qMRMLSegmentsTableView()
    table.setMRMLScene(slicer.mrmlScene)
    table.setSegmentationNode(node)
    assert table.segmentCount == 2
    widget = table.tableWidget()
    widget.item(1, 0).setCheckState(qt.Qt.Unchecked)
    assert not node.GetDisplayNode().GetSegmentVisibility(ids[1])
    widget.item(0, 4).setText("Renamed")
    assert node.GetSegmentation().GetSegment(ids[0]).GetName() == "Renamed"
    table.setSelectedSegmentIDs([ids[1]])
    assert table.selectedSegmentIDs() == (ids[1],)
    node.GetSegmentation().AddEmptySegment("", "Three")
    assert table.selectedSegmentIDs() == (ids[1],)
    assert widget.rowCount == 3
    table.setMRMLScene(None)
    assert table.segmentationNode() is None
    table.delete()


def test_place_widget_switches_the_mouse_mode(slicer_app):
    import slicer

    got = []
    widget = slicer.qSlicerMarkupsPlaceWidget()
    widget.setMRMLScene(slicer.mrmlScene)
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    widget.connect("activeMarkupsPlaceModeChanged(bool)", got.append)
    widget.setCurrentNode(points)
    widget.placeModeEnabled = True
    assert slicer_app.applicationLogic().GetInteractionNode().GetCurrentInteractionMode() == (
        slicer.vtkMRMLInteractionNode.Place
    )
    widget.setPlaceModeEnabled(False)
    assert got == [True, False]
    points.AddControlPoint(1, 2, 3)
    widget.deleteLastPoint()
    assert points.GetNumberOfControlPoints() == 0
    widget.delete()
