"""Parameters are stored and checked as Slicer does; Slicer's own package passes the same tests."""

import enum
from pathlib import Path
from typing import Annotated, Optional, Union

import pytest


class Side(enum.Enum):
    LEFT = "l"
    RIGHT = 2


@pytest.fixture
def wrapper(slicer_app):  # noqa: ARG001 - only there to be started
    """Return a wrapper with a field of every kind on a fresh node."""
    import slicer
    from slicer.parameterNodeWrapper import (
        Choice,
        Default,
        FloatRange,
        Maximum,
        Minimum,
        WithinRange,
        parameterNodeWrapper,
        parameterPack,
    )

    @parameterPack
    class Pack:
        count: int = 3
        share: Annotated[float, WithinRange(0, 1)] = 0.5

    @parameterNodeWrapper
    class Parameters:
        volume: slicer.vtkMRMLScalarVolumeNode
        volumes: list[slicer.vtkMRMLScalarVolumeNode]
        optionalVolume: Optional[slicer.vtkMRMLScalarVolumeNode]  # noqa: UP045 - as module writers do
        text: str = "hello"
        flag: bool
        count: Annotated[int, Default(7), Minimum(2), Maximum(10)]
        share: float = 1.5
        side: Side
        choice: Annotated[str, Choice(["x", "y"])] = "y"
        names: list[str] = ["a", "b"]  # noqa: RUF012 - a default, as module writers give it
        note: Optional[str]  # noqa: UP045
        either: Union[int, str] = "q"  # noqa: UP007
        pack: Pack
        path: Path
        pair: tuple[int, float]
        counts: dict[str, int]
        bounds: FloatRange

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    return Parameters(node)


def _stored(wrapper):
    node = wrapper.parameterNode
    return {name: node.GetParameter(name) for name in node.GetParameterNames()}


def test_defaults_are_stored(wrapper):
    assert _stored(wrapper) == {
        **{
            "volume": "",
            "volumes.len": "0",
            "optionalVolume.1": "True",
            "text": "hello",
            "flag": "False",
            "count": "7",
        },
        **{"share": "1.5", "side": "LEFT", "choice": "y", "names.0": "a", "names.1": "b", "names.len": "2"},
        **{"note.1": "True", "either.1": "q", "pack.count": "3", "pack.share": "0.5", "path": ".", "pair.0": "0"},
        **{"pair.1": "0", "counts.len": "0", "bounds._minimum": "0", "bounds._maximum": "0"},
    }


def test_values_are_stored(wrapper, ball):
    first, second = ball(), ball()
    wrapper.volume = first
    wrapper.volumes = [first, second]
    wrapper.flag = True
    wrapper.side = Side.RIGHT
    wrapper.names.append("w,x")
    del wrapper.names[0]
    wrapper.note = "z"
    wrapper.either = 3
    wrapper.pack.count = 5
    wrapper.path = Path("data") / "x"
    wrapper.counts = {"k": 1}
    stored, node = _stored(wrapper), wrapper.parameterNode
    expected = {"flag": "True", "side": "RIGHT", "names.0": "b", "names.1": "w,x", "names.len": "2", "note.0": "z"}
    expected |= {"either.0": "3", "pack.count": "5", "path": "data/x", "counts.0.0": "k", "counts.0.1": "1"}
    assert {name: stored[name] for name in expected} == expected
    assert not {"note.1", "either.1", "names.2"} & set(stored)
    assert node.GetNodeReferenceID("volume") == first.GetID()
    assert node.GetNodeReferenceID("volumes.1") == second.GetID()


def test_another_wrapper_reads_the_same(wrapper, ball):
    wrapper.volume = ball()
    wrapper.pack.share = 0.25
    wrapper.counts = {"k": 1}
    wrapper.pair = (4, 0.5)
    again = type(wrapper)(wrapper.parameterNode)
    assert again.volume is wrapper.volume
    assert (again.pack.share, dict(again.counts), again.pair) == (0.25, {"k": 1}, (4, 0.5))
    assert list(again.names) == ["a", "b"]
    assert again.note is None


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("text", 3, TypeError),
        ("flag", 1, TypeError),
        ("count", 2.5, TypeError),
        ("count", 1, ValueError),
        ("count", 11, ValueError),
        ("share", "1", TypeError),
        ("side", "LEFT", TypeError),
        ("choice", "z", ValueError),
        ("names", [1], TypeError),
    ],
)
def test_wrong_values_are_refused_and_change_nothing(wrapper, name, value, error):
    before = _stored(wrapper)
    with pytest.raises(error):
        setattr(wrapper, name, value)
    if name != "names":
        assert _stored(wrapper) == before


def test_wrong_node_class_is_refused(wrapper):
    import slicer

    model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
    with pytest.raises(TypeError):
        wrapper.volume = model


def test_union_of_nodes(wrapper, ball):
    volume = ball()
    wrapper.optionalVolume = volume
    assert wrapper.parameterNode.GetNodeReferenceID("optionalVolume.0") == volume.GetID()
    assert wrapper.optionalVolume is volume
    wrapper.optionalVolume = None
    assert wrapper.optionalVolume is None


def test_names_with_dots(wrapper):
    wrapper.setValue("pack.count", 8)
    assert wrapper.getValue("pack.count") == wrapper.pack.count == 8
    assert wrapper.dataType("pack.count") is int
    with pytest.raises(ValueError, match="absent"):
        wrapper.getValue("absent")


def test_one_event_a_change(wrapper):
    import vtk

    events = []
    wrapper.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: events.append(1))
    wrapper.names = ["one", "two", "three"]
    assert len(events) == 1
    was_modified = wrapper.StartModify()
    wrapper.text = "x"
    wrapper.share = 2.0
    assert len(events) == 1
    wrapper.EndModify(was_modified)
    assert len(events) == 2


def test_bindings(wrapper, ball):
    import ctk
    import qt
    import slicer

    selector, box, line = slicer.qMRMLNodeComboBox(), qt.QSpinBox(), qt.QLineEdit()
    path = ctk.ctkPathLineEdit()
    selector.setMRMLScene(slicer.mrmlScene)
    volume = ball()
    mapping = {"volume": selector, "count": box, "text": line, "path": path}
    tag = wrapper.connectParametersToGui(mapping)
    assert selector.nodeTypes == ("vtkMRMLScalarVolumeNode",)
    assert selector.currentNode() is None
    assert (box.minimum, box.maximum, box.value) == (2, 10, 7)
    selector.setCurrentNode(volume)
    line.text = "typed"
    path.currentPath = "some/file"
    assert wrapper.volume is volume
    assert (wrapper.text, wrapper.path) == ("typed", Path("some/file"))
    wrapper.count = 4
    assert box.value == 4
    wrapper.disconnectGui(tag)
    box.value = 9
    assert wrapper.count == 4
    selector.delete()


@pytest.mark.parametrize(("name", "class_name"), [("text", "QSpinBox"), ("share", "QSlider"), ("choice", "QCheckBox")])
def test_pairs_that_slicer_cannot_bind_are_refused(wrapper, name, class_name):
    import qt

    with pytest.raises(RuntimeError):
        wrapper.connectParametersToGui({name: getattr(qt, class_name)()})


@pytest.mark.usefixtures("slicer_app")
def test_reserved_names_are_refused():
    from slicer.parameterNodeWrapper import parameterNodeWrapper

    class Parameters:
        default: int

    with pytest.raises(ValueError, match="reserved"):
        parameterNodeWrapper(Parameters)
