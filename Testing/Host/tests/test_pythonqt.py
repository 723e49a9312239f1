"""PySide behaves like PythonQt, as far as a script can tell."""

import numpy as np
import pytest


@pytest.mark.usefixtures("slicer_app")
class TestProperties:
    def test_property_hides_its_getter(self):
        import qt

        label = qt.QLabel("a")
        label.text = "b"
        assert label.text == "b"
        with pytest.raises(TypeError, match="not callable"):
            label.text()
        assert qt.QLabel.text(label) == "b"
        assert type(label) is qt.QLabel

    def test_name_is_the_object_name(self):
        import qt

        widget = qt.QWidget()
        widget.name = "given"
        assert widget.objectName == "given"
        assert widget.className() == "QWidget"

    @pytest.mark.parametrize("class_name", ["QLabel", "ctkSliderWidget", "qMRMLNodeComboBox"])
    def test_unknown_attributes_are_refused(self, class_name):
        import ctk
        import qt
        import slicer

        module = next(item for item in (qt, ctk, slicer) if hasattr(item, class_name))
        widget = getattr(module, class_name)()
        with pytest.raises(AttributeError, match="txet"):
            widget.txet = 1
        with pytest.raises(AttributeError, match="txet"):
            _ = widget.txet

    def test_python_subclass_may_have_attributes(self):
        import qt

        class Own(qt.QWidget):
            pass

        widget = Own()
        widget.anything = 3
        widget.enabled = False
        assert (widget.anything, widget.isEnabled()) == (3, False)

    def test_slots_cannot_be_overwritten(self):
        import qt

        with pytest.raises(AttributeError, match="overwritten"):
            qt.QWidget().show = None

    def test_read_only_properties_refuse(self):
        import qt

        with pytest.raises(AttributeError, match="not writable"):
            qt.QWidget().width = 3

    def test_string_properties_take_anything(self):
        import qt

        label = qt.QLabel()
        label.text = None
        assert label.text == "None"

    def test_whole_numbers_take_python_floats_but_no_numpy_ones(self):
        import qt

        box = qt.QSpinBox()
        box.value = 3.9
        assert box.value == 3
        for value in (np.float32(5), np.float64(5)):
            with pytest.raises(AttributeError, match="does not accept"):
                box.value = value

    def test_string_lists_are_tuples(self):
        import slicer

        selector = slicer.qMRMLNodeComboBox()
        selector.nodeTypes = ["vtkMRMLModelNode"]
        assert selector.nodeTypes == ("vtkMRMLModelNode",)

    def test_children_and_dynamic_properties_are_attributes(self):
        import qt

        parent = qt.QWidget()
        child = qt.QLabel(parent)
        child.name = "inner"
        parent.setProperty("SlicerParameterName", "threshold")
        assert parent.inner is child
        assert parent.SlicerParameterName == "threshold"

    def test_enums_are_integers_and_values_of_the_object(self):
        import qt

        assert qt.QProcess().Running == qt.QProcess.Running == 2
        assert int(qt.Qt.AlignLeft | qt.Qt.AlignTop) == 33

    def test_keyword_arguments_are_refused(self):
        import qt

        with pytest.raises(ValueError, match="keyword"):
            qt.QLabel(text="a")

    def test_destroyed_objects_are_refused(self):
        import qt

        label = qt.QLabel("a")
        label.delete()
        with pytest.raises((ValueError, RuntimeError)):
            _ = label.text

    def test_names_that_crash_slicer_are_absent(self):
        import qt

        assert not hasattr(qt, "Signal")


@pytest.mark.usefixtures("slicer_app")
class TestSignals:
    def test_arguments_are_cut_to_what_the_slot_takes(self):
        import qt

        got = []
        button = qt.QPushButton()
        button.connect("clicked(bool)", lambda: got.append("none"))
        button.connect("clicked(bool)", lambda checked=7: got.append(checked))
        button.connect("clicked()", lambda *every: got.append(every))
        button.click()
        assert got == ["none", False, ()]

    @pytest.mark.parametrize("signal", ["clickd()", "clicked(int)", "textChanged(QString)"])
    def test_unknown_signals_are_refused(self, signal):
        import qt

        with pytest.raises(ValueError, match="does not exist"):
            qt.QPushButton().connect(signal, print)

    def test_connect_to_receiver_and_slot(self):
        import qt

        line, label = qt.QLineEdit(), qt.QLabel()
        line.connect("textChanged(QString)", label, "setText(QString)")
        line.text = "typed"
        assert label.text == "typed"
        with pytest.raises(ValueError, match="slot"):
            line.connect("textChanged(QString)", label, "setTxet(QString)")

    def test_disconnect_compares_callables(self):
        import qt

        got = []
        button = qt.QPushButton()
        button.connect("clicked()", got.clear)
        button.connect("clicked()", got.clear)
        assert button.disconnect("clicked()", got.clear)
        assert not button.disconnect("clicked()", got.clear)

    def test_errors_in_slots_are_printed_and_remembered(self, uncaught_errors, capsys):
        import qt

        button = qt.QPushButton()
        button.connect("clicked()", lambda: 1 // 0)
        button.clicked.connect(lambda: {}["absent"])
        button.click()
        errors = "".join(uncaught_errors)
        assert "ZeroDivisionError" in errors
        assert "KeyError" in errors
        assert "ZeroDivisionError" in capsys.readouterr().err
        uncaught_errors.clear()

    def test_scene_signals_of_look_alikes(self):
        import slicer

        got = []
        widget = slicer.qMRMLWidget()
        widget.connect("mrmlSceneChanged(vtkMRMLScene*)", got.append)
        widget.setMRMLScene(slicer.mrmlScene)
        widget.setMRMLScene(slicer.mrmlScene)
        assert got == [slicer.mrmlScene]
        with pytest.raises(ValueError, match="does not exist"):
            widget.connect("mrmlSceneChanged(vtkMRMLNode*)", got.append)


@pytest.mark.usefixtures("slicer_app")
class TestCalls:
    def test_process_takes_paths_and_numbers(self):
        import sys
        from pathlib import Path

        import qt

        process = qt.QProcess()
        process.start(Path(sys.executable), ["-c", "import sys; print(sys.argv[1])", 3])
        assert process.waitForFinished(20000)
        assert process.readAllStandardOutput().data().decode().strip() == "3"

    def test_python_slicer_is_this_python(self):
        import subprocess
        import sys

        code = "import sys; print(sys.prefix)"
        done = subprocess.run(["PythonSlicer", "-c", code], check=True, capture_output=True, text=True)
        assert done.stdout.strip() == sys.prefix

    def test_settings_are_isolated(self, slicer_app):
        from pathlib import Path

        import qt

        assert Path(qt.QSettings().fileName()).is_relative_to(slicer_app.temporaryPath)

    def test_wheel_leaks_are_closed(self):
        import slicer

        assert not hasattr(slicer, "arrayFromVolume")
        assert not [name for name in vars(slicer) if name.startswith(("vtkITK", "vtkTeem"))]


def test_a_destroyed_look_alike_answers_no_method(slicer_app):  # noqa: ARG001
    import slicer

    table = slicer.qMRMLSegmentsTableView()
    table.delete()
    with pytest.raises(ValueError, match="destroyed"):
        table.setSegmentationNode(None)
