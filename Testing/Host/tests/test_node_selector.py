"""Which node a node selector takes, and what it tells."""

import pytest


@pytest.fixture
def selector(slicer_app):  # noqa: ARG001 - only there to be started
    import slicer

    widget = slicer.qMRMLNodeComboBox()
    widget.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    yield widget
    widget.delete()


def _volume(name="Volume", class_name="vtkMRMLScalarVolumeNode"):
    import slicer

    return slicer.mrmlScene.AddNewNodeByClass(class_name, name)


def _in_scene(selector):
    import slicer

    selector.setMRMLScene(slicer.mrmlScene)
    return selector


def test_is_disabled_without_a_scene(selector):
    assert not selector.enabled
    assert _in_scene(selector).enabled
    selector.setMRMLScene(None)
    assert not selector.enabled
    assert selector.currentNode() is None


def test_takes_the_first_node_unless_none_is_enabled(selector):
    first = _volume()
    _volume()
    assert _in_scene(selector).currentNode() is first
    selector.setMRMLScene(None)
    selector.noneEnabled = True
    assert _in_scene(selector).currentNode() is None


def test_takes_the_first_node_that_comes(selector):
    got = []
    _in_scene(selector).connect("currentNodeChanged(vtkMRMLNode*)", got.append)
    first = _volume()
    _volume()
    assert selector.currentNode() is first
    assert got == [first]


def test_none_that_was_asked_for_stays(selector):
    _volume()
    _in_scene(selector).setCurrentNode(None)
    _volume()
    assert selector.currentNode() is None


def test_remembers_an_id_until_its_node_comes(selector):
    _volume()
    _in_scene(selector).setCurrentNodeID("vtkMRMLScalarVolumeNode2")
    assert selector.currentNode() is None
    assert _volume() is selector.currentNode()


def test_neighbour_follows_a_removed_node(selector):
    import slicer

    nodes = [_volume(name) for name in "abc"]
    _in_scene(selector).setCurrentNode(nodes[1])
    slicer.mrmlScene.RemoveNode(nodes[1])
    assert selector.currentNode() is nodes[2]
    selector.noneEnabled = True
    slicer.mrmlScene.RemoveNode(nodes[2])
    assert selector.currentNode() is None


def test_lists_what_types_attributes_and_hiding_allow(selector):
    volume, labels = _volume(), _volume("Labels", "vtkMRMLLabelMapVolumeNode")
    hidden = _volume("Hidden")
    hidden.SetHideFromEditors(True)
    _in_scene(selector)
    assert selector.nodeCount() == 2
    selector.hideChildNodeTypes = ["vtkMRMLLabelMapVolumeNode"]
    assert [selector.nodeFromIndex(0), selector.nodeFromIndex(1)] == [volume, None]
    selector.hideChildNodeTypes = []
    selector.showChildNodeTypes = False
    assert selector.nodeCount() == 1
    selector.showHidden = True
    assert selector.nodeCount() == 2
    selector.addAttribute("vtkMRMLScalarVolumeNode", "kind", "mri")
    assert selector.nodeCount() == 0
    labels.SetAttribute("kind", "mri")
    volume.SetAttribute("kind", "mri")
    selector.removeAttribute("vtkMRMLScalarVolumeNode", "kind")
    assert selector.nodeCount() == 2


def test_tells_of_renaming(selector):
    got = []
    node = _volume()
    _in_scene(selector).connect("currentNodeRenamed(QString)", got.append)
    node.SetName("Other")
    assert got == ["Other"]


def test_creates_nodes(selector):
    got = []
    selector.baseName = "Result"
    _in_scene(selector).connect("nodeAddedByUser(vtkMRMLNode*)", got.append)
    node = selector.addNode()
    assert got == [node]
    assert node.GetName() == "Result"
    assert selector.currentNode() is node


def test_keeps_its_node_over_a_batch(selector):
    import slicer

    nodes = [_volume(name) for name in "ab"]
    _in_scene(selector).setCurrentNode(nodes[1])
    slicer.mrmlScene.StartState(slicer.vtkMRMLScene.BatchProcessState)
    _volume("c")
    slicer.mrmlScene.EndState(slicer.vtkMRMLScene.BatchProcessState)
    assert selector.currentNode() is nodes[1]
    assert selector.nodeCount() == 3


@pytest.mark.usefixtures("slicer_app")
def test_dies_with_its_last_reference():
    import gc
    import weakref

    import slicer

    widget = slicer.qMRMLNodeComboBox()
    widget.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    widget.setMRMLScene(slicer.mrmlScene)
    reference = weakref.ref(widget)
    del widget
    gc.collect()
    assert reference() is None
    _volume()


@pytest.mark.usefixtures("slicer_app")
def test_checkable_selector():
    import qt
    import slicer

    selector = slicer.qMRMLCheckableNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.setMRMLScene(slicer.mrmlScene)
    nodes, changes = [_volume(name) for name in "abc"], []
    selector.connect("checkedNodesChanged()", lambda: changes.append(len(selector.checkedNodes())))
    assert selector.noneChecked()
    selector.check(nodes[0])
    selector.setCheckState(nodes[2], qt.Qt.Checked)
    selector.setCheckState(nodes[2], qt.Qt.Checked)
    assert selector.checkedNodes() == (nodes[0], nodes[2])
    assert selector.uncheckedNodes() == (nodes[1],)
    slicer.mrmlScene.RemoveNode(nodes[0])
    assert selector.checkedNodes() == (nodes[2],)
    selector.check(nodes[1])
    assert selector.allChecked()
    assert changes == [1, 2, 1, 2]
    selector.delete()
