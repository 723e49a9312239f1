"""Where an OpenVINO graph stays in float32 while the rest computes in bfloat16: its first layers and its last.

Eight bits are least for what the image and the logits themselves hold. Of a plain U-Net (16 to 256 features, CT, three
tiles of 96^3) bfloat16 alone changes 0.10 to 0.19 % of the labels, and 0.04 to 0.06 % with both ends in float32, for
5 to 10 % more time.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any
from xml.etree import ElementTree

# What weights enter; the first of them from either end is the last that stays in float32 on its side.
_WEIGHTED = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul"}
# What sums up members of an ensemble, or a unit and its shortcut.
_JOINING = {"Add", "Subtract", "Multiply", "Divide"}
# OpenVINO's own mark for operations that are computed in the precision that the graph gives them.
_MARK = {"name": "precise", "version": "0"}
_LARGEST = 3.4e38  # of float32

_Ways = dict[str, list[str]]


def keep_ends_in_float32(description: bytes) -> bytes:
    """Mark the layers from the image to the second convolution, and those from the last norm to the logits.

    Args:
        description: The graph in OpenVINO's XML. The marks end where several layers meet, but for sums before the
            logits.
    """
    root = ElementTree.fromstring(description)
    layers = {layer.get("id", ""): layer for layer in root.iterfind("layers/layer")}
    kinds = {key: layer.get("type", "") for key, layer in layers.items()}
    sources, targets = _ways(root, kinds)
    single = {key for key in layers if len(sources[key]) == 1 and kinds[key] != "Result"}
    # What others read as well is not the logits' alone, and costs more than it gains.
    before_logits = {
        key for key in layers if len(targets[key]) == 1 and (key in single or kinds[key] in _JOINING) and sources[key]
    }
    marked: set[str] = set()
    for key, kind in kinds.items():
        if kind == "Parameter":
            marked |= _reach(targets[key], targets, single, kinds)
        elif kind == "Result":
            marked |= _reach(sources[key], sources, before_logits, kinds)
    for key in marked:
        _mark(layers[key])
    written: bytes = ElementTree.tostring(root)
    return written


def shield_last_activation(model: Any, operations: Any) -> None:
    """Put a limit that no finite feature reaches between the last activation and the weights behind it.

    OpenVINO replaces leaky ReLUs by its own, which lose the mark of `keep_ends_in_float32`, and rounds what the last
    operation of a fused group gives. NaN and infinity become finite by it.

    Args:
        model: OpenVINO's, changed in place.
        operations: One of OpenVINO's sets of operations.
    """
    for result in model.get_results():
        layer = result.input_value(0).get_node()
        while layer.get_type_name() not in _WEIGHTED and layer.get_input_size():
            layer = layer.input_value(0).get_node()
        if layer.get_input_size() and layer.input_value(0).get_node().get_type_name() == "PRelu":
            activated = layer.input_value(0)
            layer.input(0).replace_source_output(operations.clamp(activated, -_LARGEST, _LARGEST).output(0))


def _ways(root: ElementTree.Element, kinds: dict[str, str]) -> tuple[_Ways, _Ways]:
    """Return the layers that each layer reads and those that read it, without what is constant."""
    read: _Ways = defaultdict(list)
    for edge in root.iterfind("edges/edge"):
        read[edge.get("to-layer", "")].append(edge.get("from-layer", ""))
    constant: set[str] = set()
    for key, kind in kinds.items():  # every layer stands after those that it reads
        if kind == "Const" or (read[key] and constant.issuperset(read[key])):
            constant.add(key)
    sources: _Ways = defaultdict(list)
    targets: _Ways = defaultdict(list)
    for target, found in read.items():
        for source in found:
            if source not in constant:
                sources[target].append(source)
                targets[source].append(target)
    return sources, targets


def _reach(start: list[str], onwards: _Ways, allowed: set[str], kinds: dict[str, str]) -> set[str]:
    """Return the allowed layers on the way from some, up to those that the second weights enter."""
    found: set[str] = set()
    waiting = [(key, False) for key in start]
    while waiting:
        key, is_behind_weights = waiting.pop()
        is_weighted = kinds[key] in _WEIGHTED
        if key in found or key not in allowed or (is_weighted and is_behind_weights):
            continue
        found.add(key)
        waiting += [(further, is_weighted or is_behind_weights) for further in onwards[key]]
    return found


def _mark(layer: ElementTree.Element) -> None:
    notes = layer.find("rt_info")
    if notes is None:
        notes = ElementTree.Element("rt_info")
        data = layer.find("data")
        layer.insert(0 if data is None else list(layer).index(data) + 1, notes)
    ElementTree.SubElement(notes, "attribute", _MARK)
