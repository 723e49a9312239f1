"""Stand-in for `slicer.parameterNodeWrapper`: typed parameters on a vtkMRMLScriptedModuleNode, bound to widgets.

Values are stored under the same names and in the same texts as by Slicer, so that scenes are interchangeable. It has
the field types that scripted modules commonly use: str, bool, int, float, Enum, paths, nodes, FloatRange, parameter
packs, and lists, tuples, dicts, unions and Optional of them.
"""

from .annotations import (
    Choice,
    Decimals,
    Default,
    Exclude,
    IsInstance,
    Label,
    Maximum,
    Minimum,
    NotNone,
    RangeBounds,
    SingleStep,
    Validator,
    WithinRange,
)
from .packs import FloatRange, isParameterPack, nestedParameterNames, parameterPack
from .widget_bindings import SlicerParameterNamePropertyName, createGuiConnector, findChildWidgetForParameter
from .wrapper import isParameterNodeWrapper, parameterNodeWrapper

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Exclude",
    "FloatRange",
    "IsInstance",
    "Label",
    "Maximum",
    "Minimum",
    "NotNone",
    "RangeBounds",
    "SingleStep",
    "SlicerParameterNamePropertyName",
    "Validator",
    "WithinRange",
    "createGuiConnector",
    "findChildWidgetForParameter",
    "isParameterNodeWrapper",
    "isParameterPack",
    "nestedParameterNames",
    "parameterNodeWrapper",
    "parameterPack",
]
