"""Translation of a MONAI bundle's inferer and post-processing: tiling, and the meaning of the logits."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...core.errors import InputError
from ...core.messages import sentence
from ...planning.monai_recipe import Resample, Step, Tiling
from .options import Options
from .references import Code
from .transforms import components_in, plain_name

_IGNORED = {"SaveImage", "EnsureType", "ToTensor", "ToDevice", "CopyItems", "SelectItems", "DeleteItems", "SqueezeDim"}
_MACHINE_OPTIONS = ("sw_batch_size", "sw_device", "device", "progress", "cache_roi_weight_map", "cpu_thresh")
_BUFFER_OPTIONS = ("buffer_steps", "buffer_dim")
_BOOKKEEPING = ("keys", "allow_missing_keys", "meta_keys", "meta_key_postfix", "orig_keys", "orig_meta_keys")
# Nested tumour regions of BraTS, outermost first.
_NESTED = ("whole tumor", "tumor core", "enhancing tumor")
# Patch size for fine-tuning along axes whose tile is the whole image.
WHOLE_PATCH = {2: 256, 3: 96}


@dataclass(kw_only=True)
class Outcome:
    """Treatment of the logits.

    Attributes:
        activation: "softmax", "sigmoid" or "".
        decision: "argmax", "threshold" or "".
        restored: Entry of the recipe.
        order: Channels of the logits in the order in which regions are painted; empty: unchanged.
        values: Label value of each region in that order; empty: 1, 2, 3, ...
        postprocess: Our post-processing steps.
        warnings: Sentences for the user.
    """

    activation: str = ""
    decision: str = ""
    restored: str = ""
    order: tuple[int, ...] = ()
    values: tuple[int, ...] = ()
    postprocess: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)

    @property
    def is_regions(self) -> bool:
        """Whether each channel is decided separately."""
        return self.decision == "threshold" or (not self.decision and self.activation == "sigmoid")


def tiling_of(
    inferer: Any, *, dimensions: int, patch_shape: Sequence[Any]
) -> tuple[Tiling, tuple[int, int, int], tuple[int | None, int | None, int | None]]:
    """Return the tiling, the patch (D, H, W), and MONAI's axis for each of the network's (D, H, W).

    Args:
        inferer: Entry "inferer" of the configuration.
        dimensions: Dimensions of the network.
        patch_shape: Patch size in the metadata, for the axes along which a tile is the whole image.

    Raises:
        InputError: An inferer, or one of its options, that is not supported.
    """
    components = components_in(inferer, "inferer")
    if len(components) != 1:
        raise InputError("the bundle has no inferer: copy the whole bundle")
    name, values = components[0]
    options = Options(name, values, ignored=(*_MACHINE_OPTIONS, *_BUFFER_OPTIONS))
    plane = 2
    if name == "SliceInferer":
        plane = int(options.take_number("spatial_dim", 0))
        if dimensions != 2 or plane not in (0, 1, 2):
            raise InputError(f"{name} with spatial_dim {plane} and a network of {dimensions} axes do not go together")
    elif name not in ("SlidingWindowInferer", "SlidingWindowInfererAdapt", "SimpleInferer"):
        raise InputError(
            f"the inferer '{name}' is not supported: SlidingWindowInferer, SliceInferer and SimpleInferer are"
        )
    axes: tuple[int | None, int | None, int | None] = (0, 1, 2)
    if dimensions == 2:
        others = [axis for axis in range(3) if axis != plane]
        axes = (plane, others[0], others[1]) if name == "SliceInferer" else (None, 0, 1)
    if name == "SimpleInferer":
        options.finish()
        sizes: tuple[float, ...] = (-1,) * dimensions
        tiling = Tiling()
    else:
        sizes = options.take_numbers("roi_size", None, dimensions)
        tiling = _sliding(options)
    patch = [int(size) if size > 0 else _patch_size(patch_shape, index) for index, size in enumerate(sizes)]
    first = 3 - dimensions
    whole = tuple(first + index for index, size in enumerate(sizes) if size <= 0)
    depth, height, width = [1] * first + patch
    return _with_whole_axes(tiling, whole), (depth, height, width), axes


def outcome_of(postprocessing: Any, *, steps: Sequence[Step]) -> Outcome:
    """Return how the transforms treat the logits.

    Args:
        postprocessing: Entry "postprocessing" of the configuration.
        steps: Steps of the recipe to invert.

    Raises:
        InputError: A transform, or one of its options, that is not supported.
    """
    outcome = Outcome()
    for name, values in components_in(postprocessing, "postprocessing"):
        plain = plain_name(name)
        if plain in _IGNORED:
            continue
        if plain not in _HANDLERS:
            known = ", ".join(sorted(_HANDLERS))
            raise InputError(f"the postprocessing has '{name}', which is not supported: {known} are")
        _HANDLERS[plain](name, values, outcome, steps)
    _check(outcome)
    # Without an inversion the result is resampled to the image's grid by nearest neighbour.
    outcome.restored = outcome.restored or "classes"
    return outcome


def region_order(names: Sequence[str]) -> tuple[tuple[int, ...], list[str]]:
    """Return the order in which regions are painted if the bundle does not define one, and warnings."""
    plain = [name.lower().replace("tumour", "tumor") for name in names]
    if sorted(plain) == sorted(_NESTED):
        return tuple(plain.index(name) for name in _NESTED), []
    if len(names) < 2:
        return tuple(range(len(names))), []
    order = sentence(
        "regions may overlap, and the bundle does not say which lies on top: they are painted in this order, "
        f"{', '.join(names)}"
    )
    return tuple(range(len(names))), [order]


def _sliding(options: Options) -> Tiling:
    overlap = options.take_numbers("overlap", 0.25, 3)
    if len(set(overlap)) > 1:
        raise InputError(f"{options.name}: overlap is {list(overlap)}: only one for all axes is supported")
    sigma = options.take_numbers("sigma_scale", 0.125, 3)
    if len(set(sigma)) > 1:
        raise InputError(f"{options.name}: sigma_scale is {list(sigma)}: only one for all axes is supported")
    mode, padding = options.take("mode", "constant"), options.take("padding_mode", "constant")
    value = options.take_number("cval", 0.0)
    options.expect("with_coord", False)
    options.finish()
    return Tiling(
        overlap=overlap[0], weights=str(mode), sigma_ratio=sigma[0], padding=str(padding), padding_value=value
    )


def _with_whole_axes(tiling: Tiling, whole_axes: tuple[int, ...]) -> Tiling:
    return replace(tiling, whole_axes=whole_axes)


def _patch_size(patch_shape: Sequence[Any], index: int) -> int:
    size = patch_shape[index] if index < len(patch_shape) else None
    return size if isinstance(size, int) and size > 0 else WHOLE_PATCH[3 if len(patch_shape) != 2 else 2]


def _activations(name: str, values: Mapping[str, Any], outcome: Outcome, steps: Sequence[Step]) -> None:  # noqa: ARG001
    options = Options(name, values, ignored=_BOOKKEEPING)
    for kind in ("softmax", "sigmoid"):
        if options.take(kind, False):
            outcome.activation = kind
    options.expect("other", None)
    options.finish()


def _as_discrete(name: str, values: Mapping[str, Any], outcome: Outcome, steps: Sequence[Step]) -> None:  # noqa: ARG001
    options = Options(name, values, ignored=(*_BOOKKEEPING, "to_onehot", "n_classes", "num_classes", "dtype"))
    if options.take("argmax", False):
        outcome.decision = "argmax"
    threshold = options.take("threshold")
    limit = options.take("logit_thresh", 0.5)
    if threshold is True or options.take("threshold_values", False):
        threshold = limit
    if threshold not in (None, False):
        if threshold != 0.5:
            raise InputError(f"{name}: threshold is {threshold}: only 0.5 is supported")
        outcome.decision = "threshold"
    options.expect("rounding", None)
    options.finish()


def _invert(name: str, values: Mapping[str, Any], outcome: Outcome, steps: Sequence[Step]) -> None:
    options = Options(name, values, ignored=(*_BOOKKEEPING, "transform", "to_tensor", "device"))
    is_nearest = bool(options.take("nearest_interp", True))
    options.expect("post_func", None)
    options.finish()
    resampling = next((step for step in steps if isinstance(step, Resample)), None)
    if outcome.decision:
        if not is_nearest and resampling is not None:
            outcome.warnings.append(
                "the bundle interpolates label numbers, which creates labels in between: the nearest is used instead"
            )
        outcome.restored = "classes"
    elif is_nearest or (resampling is not None and resampling.is_nearest):
        outcome.restored = "classes"
    else:
        outcome.restored = "probabilities" if outcome.activation else "logits"


def _keep_largest(name: str, values: Mapping[str, Any], outcome: Outcome, steps: Sequence[Step]) -> None:  # noqa: ARG001
    options = Options(name, values, ignored=(*_BOOKKEEPING, "is_onehot"))
    applied = options.take("applied_labels")
    options.expect("independent", True)
    options.expect("connectivity", None, 3)
    options.expect("num_components", 1)
    options.finish()
    labels = [applied] if isinstance(applied, int) else list(applied or [])
    regions = "" if not labels else ":regions=" + "/".join(str(label) for label in labels)
    outcome.postprocess = (*outcome.postprocess, f"keep_largest_component{regions}")
    outcome.warnings.append("the largest components are kept on the image's grid, not on the network's")


def _lambda(name: str, values: Mapping[str, Any], outcome: Outcome, steps: Sequence[Step]) -> None:  # noqa: ARG001
    function = values.get("func")
    text = function.text if isinstance(function, Code) else str(function)
    painted = _painted(text)
    if painted is None or outcome.decision != "threshold":
        raise InputError(
            f"the postprocessing has '{name}' with '{text}', which is code and never run: it is not supported"
        )
    outcome.order = tuple(channel for channel, _ in painted)
    outcome.values = tuple(value for _, value in painted)


def _painted(text: str) -> list[tuple[int, int]] | None:
    """Return channel and label value, in painting order, of `lambda x: torch.where(x[[2]] > 0, 4, ...)`."""
    try:
        tree = ast.parse(text.removeprefix("$").strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not isinstance(tree, ast.Lambda):
        return None
    painted: list[tuple[int, int]] = []
    rest: ast.expr = tree.body
    while not (isinstance(rest, ast.Constant) and rest.value == 0):
        match rest:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="torch"), attr="where"),
                args=[
                    ast.Compare(
                        left=ast.Subscript(
                            value=ast.Name(), slice=ast.List(elts=[ast.Constant(value=int() as channel)])
                        ),
                        ops=[ast.Gt()],
                        comparators=[ast.Constant(value=0)],
                    ),
                    ast.Constant(value=int() as value),
                    following,
                ],
                keywords=[],
            ):
                painted.insert(0, (channel, value))
                rest = following
            case _:
                return None
    return painted or None


def _check(outcome: Outcome) -> None:
    pair = (outcome.activation, outcome.decision)
    if pair == ("", ""):
        raise InputError(
            "the postprocessing has neither Activations nor AsDiscrete, so it is unknown how labels are chosen: "
            "add them to the bundle's configuration"
        )
    if pair in (("softmax", "threshold"), ("sigmoid", "argmax")):
        raise InputError(f"the postprocessing takes a {pair[1]} of a {pair[0]}, which is not supported")
    if pair == ("", "threshold"):
        raise InputError("the postprocessing thresholds the logits themselves, which is not supported")
    if not outcome.decision:
        outcome.warnings.append(
            "the bundle returns probabilities: the most probable label is used"
            if outcome.activation == "softmax"
            else "the bundle returns probabilities: a region is kept where its probability is above 0.5"
        )


_HANDLERS: dict[str, Callable[[str, Mapping[str, Any], Outcome, Sequence[Step]], None]] = {
    "Activations": _activations,
    "AsDiscrete": _as_discrete,
    "Invert": _invert,
    "KeepLargestConnectedComponent": _keep_largest,
    "Lambda": _lambda,
}
