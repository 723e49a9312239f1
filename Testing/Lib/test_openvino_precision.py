"""Which layers of an OpenVINO graph are marked to stay in float32."""

from importlib.util import find_spec
from xml.etree import ElementTree

import pytest
import torch

from UNetSegmentationLib.backends.contract import Computation
from UNetSegmentationLib.backends.openvino_cpu import _converted, load_openvino
from UNetSegmentationLib.backends.parts.devices import computes_in_bfloat16
from UNetSegmentationLib.backends.parts.openvino_precision import keep_in_float32
from UNetSegmentationLib.networks import build_network


def graph(kinds, ways):
    """Return a description of layers 0, 1, ... and of the ways between them."""
    layers = "".join(f'<layer id="{place}" type="{kind}"><data/><output/></layer>' for place, kind in enumerate(kinds))
    edges = "".join(f'<edge from-layer="{source}" to-layer="{target}"/>' for source, target in ways)
    return f"<net><layers>{layers}</layers><edges>{edges}</edges></net>".encode()


def marked(description):
    root = ElementTree.fromstring(keep_in_float32(description))
    return [
        int(layer.get("id"))
        for layer in root.iter("layer")
        if layer.find("rt_info/attribute[@name='precise']") is not None
    ]


def chain(length):
    return [(place, place + 1) for place in range(length - 1)]


def test_the_ends_of_a_chain_are_marked_up_to_the_second_weights():
    kinds = ["Parameter", "Convolution", "MVN", "Convolution", "MVN", "Convolution", "MVN", "Convolution", "Result"]
    assert marked(graph(kinds, chain(9))) == [1, 2, 6, 7]


def test_weights_and_what_is_computed_of_constants_alone_are_no_inputs():
    kinds = ["Const", "Reshape", "Parameter", "Convolution", "Add", "Convolution", "Convolution", "Result"]
    ways = [(0, 1), (1, 3), (2, 3), (3, 4), (0, 4), (4, 5), (5, 6), (6, 7)]
    assert marked(graph(kinds, ways)) == [3, 4, 6]


def test_marks_end_where_layers_meet():
    """A skip from the first layers to a concatenation far behind: the first are marked, the concatenation is not."""
    kinds = ["Parameter", "Convolution", "PReLU", "Convolution", "Concat", "Convolution", "Convolution", "Result"]
    assert marked(graph(kinds, [*chain(8), (2, 4)])) == [1, 2, 6]


def test_sums_before_the_logits_are_passed():
    """Two members of an ensemble: the last layers of both, and their mean."""
    kinds = ["Parameter", "Convolution", "Convolution", "MVN", "Convolution"]
    kinds += ["Convolution", "Convolution", "MVN", "Convolution", "Add", "Divide", "Result"]
    ways = [(0, 1), (1, 2), (2, 3), (3, 4), (0, 5), (5, 6), (6, 7), (7, 8), (4, 9), (8, 9), (9, 10), (10, 11)]
    assert marked(graph(kinds, ways)) == [1, 3, 4, 5, 7, 8, 9, 10]


def test_what_others_read_is_not_of_the_logits_alone():
    kinds = ["Parameter", "Convolution", "Convolution", "MVN", "Convolution", "Add", "Result"]
    assert marked(graph(kinds, [*chain(7), (3, 5)])) == [1, 4, 5]


def test_a_mark_stands_where_openvino_reads_it():
    root = ElementTree.fromstring(keep_in_float32(graph(["Parameter", "Convolution", "Result"], chain(3))))
    assert [part.tag for part in root.find("layers/layer[@id='1']")] == ["data", "rt_info", "output"]


def test_what_is_named_so_stays():
    description = graph(["Parameter", *["Convolution", "MVN"] * 4, "Convolution", "Result"], chain(11))
    named = description.replace(b'id="4"', b'id="4" name="float32: norm"')
    assert set(marked(named)) - set(marked(description)) == {4}


def precisions_at_work(options, size=16):
    """Return the kinds of layers that OpenVINO runs for a U-Net, and the precisions of what they give."""
    if not find_spec("openvino"):
        pytest.skip("openvino is not installed")
    openvino = load_openvino()
    if not computes_in_bfloat16(torch.device("cpu")):
        pytest.skip("this CPU does not compute in bfloat16")
    network = build_network("unet", {"in_channels": 1, "num_classes": 2, "dimensions": 3, **options})
    computation = Computation(network=network.eval(), shape=(1, 1, size, size, size), device=torch.device("cpu"))
    core = openvino.Core()
    model = _converted(computation, openvino, core, precision="bfloat16")
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    notes = [layer.get_rt_info() for layer in compiled.get_runtime_model().get_ordered_ops()]
    kinds = [(note["layerType"].astype(str), note["outputPrecisions"].astype(str)) for note in notes]
    return [[precision for kind, precision in kinds if kind == wanted] for wanted in ("Convolution", "MVN")]


def test_the_ends_give_what_is_not_rounded():
    """The last convolution but one, the norm behind it and the layer of the logits; others in bfloat16."""
    convolutions, norms = precisions_at_work({"features_per_stage": [16, 16]})
    assert (norms[-1], convolutions[-2:]) == ("f32", ["f32", "f32"])
    assert "bf16" in norms
    assert "bf16" in convolutions


@pytest.mark.parametrize("activation", ["leaky_relu", "relu", "prelu"])
def test_small_features_are_not_rounded_between_convolution_and_norm(activation):
    """Four convolutions of 16^3 x 16 voxels, two of 8^3 x 32 between them: an eighth of the size, a quarter of all."""
    convolutions, norms = precisions_at_work({"features_per_stage": [16, 32], "activation": activation})
    assert convolutions == ["f32", "bf16", "f32", "f32", "bf16", "f32", "f32"]
    assert norms[1:] == ["bf16", "f32", "f32", "bf16", "f32"]
