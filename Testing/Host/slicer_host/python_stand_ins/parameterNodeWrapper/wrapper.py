"""The class decorator `parameterNodeWrapper`."""

import qt
import slicer
import vtk

from .parameters import check_name, data_type, declared_parameters, split_name
from .widget_bindings import PropertyBinding, SlicerParameterNamePropertyName, createGuiConnector


def _stored_parameter(name, parameter):
    def read(wrapper):
        node = wrapper.parameterNode
        if not parameter.serializer.is_in(node, name):
            parameter.serializer.write(node, name, parameter.default.value)
        return parameter.serializer.read(node, name)

    def write(wrapper, value):
        parameter.serializer.check(value)
        with slicer.util.NodeModify(wrapper.parameterNode):
            parameter.serializer.write(wrapper.parameterNode, name, value)

    return property(read, write)


class WrapperMethods:
    """What the decorator adds to a class."""

    _is_parameter_node_wrapper = True

    def __init__(self, parameterNode, prefix=None):
        if prefix:
            raise NotImplementedError("the stand-in of the parameter node wrapper has no prefixes")
        self.parameterNode = parameterNode
        self._bindings, self._next_tag, self._showing = {}, 0, False
        for name, parameter in self.allParameters.items():
            if not parameter.serializer.is_in(parameterNode, name):
                setattr(self, name, parameter.default.value)

    def default(self, name):
        """Return the default of a parameter, an object with the attribute `value`."""
        check_name(self.allParameters, name)
        return self.allParameters[name].default

    def isCached(self, name):
        """Tell whether values are kept outside the node; the stand-in keeps none."""
        check_name(self.allParameters, name)
        return False

    @classmethod
    def dataType(cls, name):
        """Return the type of a parameter, with annotations."""
        return data_type(cls.allParameters, name)

    def getValue(self, name):
        """Return the value of a name with dots."""
        check_name(self.allParameters, name)
        top, rest = split_name(name)
        value = getattr(self, top)
        return value if rest is None else value.getValue(rest)

    def setValue(self, name, value):
        """Set the value of a name with dots."""
        check_name(self.allParameters, name)
        top, rest = split_name(name)
        if rest is None:
            setattr(self, top, value)
        else:
            getattr(self, top).setValue(rest, value)

    def connectGui(self, gui):
        """Bind the widgets, children of a widget or attributes of an object, that name a parameter."""
        is_widget = getattr(gui, "isWidgetType", lambda: False)()
        widgets = gui.findChildren(qt.QWidget) if is_widget else gui.__dict__.values()
        named = ((widget.property(SlicerParameterNamePropertyName), widget) for widget in widgets)
        return self.connectParametersToGui({name: widget for name, widget in named if name})

    def connectParametersToGui(self, mapping):
        """Bind parameters, by names with dots, to widgets; return a tag for `disconnectGui`."""
        for name in mapping:
            check_name(self.allParameters, name)
        bindings = {
            name: item if isinstance(item, PropertyBinding) else createGuiConnector(item, self.dataType(name))
            for name, item in mapping.items()
        }
        for name, binding in bindings.items():
            binding.write(self.getValue(name))
            binding.onChanged(self._reader_of(name, binding))
        observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_event: self._show())
        tag, self._next_tag = self._next_tag, self._next_tag + 1
        self._bindings[tag] = (bindings, observer)
        return tag

    def disconnectGui(self, tag):
        """Undo a binding."""
        bindings, observer = self._bindings.pop(tag, ({}, None))
        for binding in bindings.values():
            binding.onChanged(None)
        if observer is not None:
            self.RemoveObserver(observer)

    def _reader_of(self, name, binding):
        def read():
            if not self._showing:
                with slicer.util.NodeModify(self):
                    self.setValue(name, binding.read())

        return read

    def _show(self):
        if self._showing:
            return
        self._showing = True
        try:
            with slicer.util.NodeModify(self):
                for bindings, _observer in list(self._bindings.values()):
                    for name, binding in bindings.items():
                        binding.write(self.getValue(name))
        finally:
            self._showing = False

    def StartModify(self):
        """Hold the node's events back."""
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified):
        """Let the node's events go."""
        return self.parameterNode.EndModify(wasModified)

    def AddObserver(self, event, callback, priority=0.0):
        """Observe the node."""
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag):
        """End an observation of the node."""
        return self.parameterNode.RemoveObserver(tag)

    def Modified(self):
        """Say that the node has changed."""
        self.parameterNode.Modified()


def parameterNodeWrapper(classtype=None):
    """Class decorator: make the annotated fields of a class parameters of the node that its constructor gets."""
    if classtype is None:
        return parameterNodeWrapper
    parameters = declared_parameters(classtype)
    reserved = [
        name for name in (*parameters, *vars(classtype)) if not name.startswith("__") and hasattr(WrapperMethods, name)
    ]
    if reserved:
        raise ValueError(f"Cannot use reserved name '{reserved[0]}' in a parameterNodeWrapper")
    for name, method in vars(WrapperMethods).items():
        if not name.startswith("__") or name == "__init__":
            setattr(classtype, name, method)
    for name, parameter in parameters.items():
        setattr(classtype, name, _stored_parameter(name, parameter))
    classtype.allParameters = parameters
    return classtype


def isParameterNodeWrapper(classOrObj):
    """Tell whether a class or object is a wrapper."""
    return getattr(classOrObj, "_is_parameter_node_wrapper", False)
