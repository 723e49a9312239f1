"""The parts of an OpenVINO graph that stay in float32 while the rest is bfloat16: both ends, and around small norms.

Eight bits are least adequate for the image and the logits. Of a plain U-Net (16 to 256 features, CT, three
tiles of 96^3) bfloat16 alone changes 0.10 to 0.19 % of the labels, and 0.04 to 0.06 % with both ends in float32, for
5 to 10 % more time. A convolution's output need not be rounded before a norm either: after the last one, and
for features of at most half the largest size, this costs neither time nor memory. Together with
kernel_rounding it halves the squared error once more (for a better trained network: 0.014 % of the labels instead of
0.020 %).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import prod
from typing import Any
from xml.etree import ElementTree

# Layers with weights; the first from either end is the last that stays in float32 on its side.
_WEIGHTED = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul"}
# Sums of ensemble members, or of a unit and its shortcut.
_JOINING = {"Add", "Subtract", "Multiply", "Divide"}
# OpenVINO's mark for operations computed in the precision given in the graph.
_MARK = {"name": "precise", "version": "0"}
_LARGEST = 3.4e38  # of float32
# What OpenVINO fuses into a norm.
_AFTER_NORM = {"Add", "Multiply", "PRelu", "Relu", "Elu"}
# Prefix of the names of layers that stay in float32.
_KEPT = "float32: "

_Ways = dict[str, list[str]]


def keep_in_float32(description: bytes) -> bytes:
    """Mark the layers from the image to the second convolution, those from the last norm to the logits, and those kept.

    Args:
        description: The graph in OpenVINO's XML. Marking stops where several layers meet, except at sums before the
            logits.
    """
    root = ElementTree.fromstring(description)
    layers = {layer.get("id", ""): layer for layer in root.iterfind("layers/layer")}
    kinds = {key: layer.get("type", "") for key, layer in layers.items()}
    sources, targets = _ways(root, kinds)
    single = {key for key in layers if len(sources[key]) == 1 and kinds[key] != "Result"}
    # Layers with other readers do not serve the logits alone, and cost more than they gain.
    before_logits = {
        key for key in layers if len(targets[key]) == 1 and (key in single or kinds[key] in _JOINING) and sources[key]
    }
    marked = {key for key, layer in layers.items() if layer.get("name", "").startswith(_KEPT)}
    for key, kind in kinds.items():
        if kind == "Parameter":
            marked |= _reach(targets[key], targets, single, kinds)
        elif kind == "Result":
            marked |= _reach(sources[key], sources, before_logits, kinds)
    for key in marked:
        _mark(layers[key])
    written: bytes = ElementTree.tostring(root)
    return written


def shield_from_rounding(model: Any, operations: Any) -> None:
    """Insert clamps that no finite feature reaches where OpenVINO would round values that stay in float32.

    OpenVINO rounds the output of the last operation of a fused group, even a lone convolution, and replaces leaky ReLUs
    by its own, which lose the mark of `keep_in_float32`. The clamps make NaN and infinity finite.

    Args:
        model: OpenVINO's, changed in place; `keep_in_float32` finds the layers to mark by name.
        operations: One of OpenVINO's operation sets.
    """
    for result in model.get_results():
        _shield_last_layers(result, operations)
    norms = [node for node in model.get_ordered_ops() if node.get_type_name() == "MVN"]
    largest = max((prod(norm.output(0).get_shape()) for norm in norms), default=0)
    for norm in norms:
        if prod(norm.output(0).get_shape()) * 2 <= largest:
            _shield_norm(norm, operations)


def _shield_last_layers(result: Any, operations: Any) -> None:
    """Shield the outputs of the last activation and of the last convolution but one."""
    layer = _weighted_before(result)
    before = _weighted_before(layer) if layer.get_input_size() else layer
    if before.get_type_name() not in _WEIGHTED:
        return
    if layer.input_value(0).get_node().get_type_name() == "PRelu":
        _shield(layer.input_value(0), [layer.input(0)], operations)
    if len(targets := before.output(0).get_target_inputs()) == 1:
        _shield(before.output(0), targets, operations)


def _weighted_before(layer: Any) -> Any:
    layer = layer.input_value(0).get_node()
    while layer.get_type_name() not in _WEIGHTED and layer.get_input_size():
        layer = layer.input_value(0).get_node()
    return layer


def _shield_norm(norm: Any, operations: Any) -> None:
    """Shield the output of a convolution before a norm, and that of the norm after scale, shift and activation."""
    source = norm.input_value(0)
    if len(source.get_target_inputs()) > 1:
        return
    _keep(_shield(source, source.get_target_inputs(), operations))
    last = norm
    _keep(last)
    while len(targets := list(last.output(0).get_target_inputs())) == 1:
        following = targets[0].get_node()
        sources = [value.get_node().get_type_name() for value in following.input_values()]
        if following.get_type_name() not in _AFTER_NORM or sources.count("Constant") < len(sources) - 1:
            break
        last = following
        _keep(last)
    _keep(_shield(last.output(0), last.output(0).get_target_inputs(), operations))


def _shield(output: Any, targets: Iterable[Any], operations: Any) -> Any:
    limit = operations.clamp(output, -_LARGEST, _LARGEST)
    for target in targets:
        target.replace_source_output(limit.output(0))
    return limit


def _keep(layer: Any) -> None:
    layer.set_friendly_name(_KEPT + layer.get_friendly_name())


def _ways(root: ElementTree.Element, kinds: dict[str, str]) -> tuple[_Ways, _Ways]:
    """Return the inputs and the readers of each layer, without constants."""
    read: _Ways = defaultdict(list)
    for edge in root.iterfind("edges/edge"):
        read[edge.get("to-layer", "")].append(edge.get("from-layer", ""))
    constant: set[str] = set()
    for key, kind in kinds.items():  # every layer comes after its inputs
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
    """Return the allowed layers reachable from some, up to the second layers with weights."""
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
