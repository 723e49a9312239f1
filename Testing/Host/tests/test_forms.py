"""The form loader refuses what Slicer cannot load."""

import pytest

_FORM = """<ui version="4.0"><class>Form</class><widget class="{root}" name="Form">{inner}</widget>
<customwidgets>{custom}</customwidgets><connections>{connections}</connections></ui>"""
_CUSTOM = "<customwidget><class>{0}</class><extends>QWidget</extends><header>{0}.h</header></customwidget>"


@pytest.fixture
def load(slicer_app, tmp_path):  # noqa: ARG001 - only there to be started
    def load_form(root="QWidget", inner="", custom=(), connections=""):
        import slicer

        path = tmp_path / "form.ui"
        declared = "".join(_CUSTOM.format(name) for name in custom)
        path.write_text(
            _FORM.format(root=root, inner=inner, custom=declared, connections=connections), encoding="utf-8"
        )
        return slicer.util.loadUI(str(path))

    return load_form


def test_properties_of_look_alikes_are_set(load):
    inner = (
        '<widget class="ctkSliderWidget" name="slider"><property name="maximum"><double>5.0</double></property>'
        '<property name="value"><double>4.5</double></property><property name="SlicerParameterName" stdset="0">'
        '<string>size</string></property></widget><widget class="ctkPathLineEdit" name="path"><property name="filters">'
        "<set>ctkPathLineEdit::Dirs|ctkPathLineEdit::Writable</set></property></widget>"
    )
    form = load(inner=inner, custom=("ctkSliderWidget", "ctkPathLineEdit"))
    assert form.slider.value == 4.5
    assert form.slider.property("SlicerParameterName") == "size"
    assert form.path.filters == form.path.Dirs | form.path.Writable


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inner": '<widget class="ctkUnknown" name="a"/>', "custom": ("ctkUnknown",)}, "no look-alike for ctkUnknown"),
        ({"inner": '<widget class="ctkSliderWidget" name="a"/>'}, "without a <customwidget> entry"),
        (
            {
                "inner": '<widget class="QSlider" name="a"><property name="orientation">'
                "<enum>Qt::Orientation::Horizontal</enum></property></widget>"
            },
            "two scopes",
        ),
        (
            {
                "connections": "<connection><sender>Form</sender><signal>windowTitleChanged(QString)</signal>"
                "<receiver>absent</receiver><slot>show()</slot></connection>"
            },
            "'absent'",
        ),
    ],
)
def test_what_slicer_cannot_load_is_refused(load, arguments, message):
    with pytest.raises(RuntimeError, match=message):
        load(**arguments)


def test_wrong_signal_in_a_form_is_refused(load):
    connection = (
        "<connection><sender>Form</sender><signal>mrmlSceneChanged(vtkMRMLNode*)</signal>"
        "<receiver>Form</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection>"
    )
    with pytest.raises(ValueError, match="does not exist"):
        load(root="qMRMLWidget", custom=("qMRMLWidget",), connections=connection)
