"""Translation of a MONAI bundle's preprocessing: orientation, spacing and the steps of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...core.errors import InputError
from ...planning.monai_recipe import (
    CropForeground,
    Resample,
    ScaleExtremes,
    ScalePercentiles,
    ScaleRange,
    Standardise,
    Step,
)
from .options import Options
from .references import Code

_LINEAR = ("bilinear", "linear", "trilinear")
# Transforms that read an image or change its memory layout.
IGNORED_TRANSFORMS = {
    *("LoadImage", "EnsureChannelFirst", "AddChannel", "AsChannelFirst", "EnsureType", "ToTensor", "ToDevice"),
    *("Identity", "SelectItems", "DeleteItems", "FromMetaTensor", "ToMetaTensor"),
}
_BOOKKEEPING = ("keys", "allow_missing_keys", "lazy", "meta_keys", "meta_key_postfix")
_FLOATS = ("torch.float32", "torch.float", "np.float32", "numpy.float32", "float32")


@dataclass(kw_only=True)
class Preparation:
    """Preprocessing collected from the transforms so far.

    Attributes:
        axes: For each axis (D, H, W) of the network, the axis of MONAI's array, or None.
        image_key: Key of the image in the transforms.
        orientation: Orientation of the plan.
        spacing_mm: Spacing (D, H, W) of the plan.
        steps: Steps of the recipe.
    """

    axes: tuple[int | None, int | None, int | None]
    image_key: str = "image"
    orientation: str = "stored"
    spacing_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    steps: list[Step] = field(default_factory=list)

    def on_axes(self, values: Sequence[float], missing: float) -> tuple[float, float, float]:
        """Return numbers along MONAI's axes in the order of the network's (D, H, W)."""
        depth, height, width = (missing if axis is None else values[axis] for axis in self.axes)
        return depth, height, width


def components_in(value: Any, what: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return name and options of the enabled components of a `Compose`.

    Args:
        value: The `Compose`, or a list of components.
        what: Purpose, for messages.

    Raises:
        InputError: Any other value, or a component that is code.
    """
    if isinstance(value, Mapping):
        if short_name(value) != "Compose":
            return [(short_name(value), value)]
        value = value.get("transforms", [])
    if isinstance(value, Code):
        raise InputError(f"the {what} is '{value.text}', which is code and never run: list the transforms instead")
    if value is None:
        return []
    if not isinstance(value, list):
        raise InputError(f"the {what} is {value!r}, which is not a list of transforms: copy the whole bundle")
    return [(short_name(entry), entry) for entry in value if _is_enabled(entry, what)]


def _is_enabled(entry: Any, what: str) -> bool:
    if isinstance(entry, Code):
        raise InputError(f"the {what} has '{entry.text}', which is code and never run: write the transform out")
    if not isinstance(entry, Mapping) or "_target_" not in entry:
        raise InputError(f"the {what} has {entry!r}, which is not a transform: copy the whole bundle")
    switch = entry.get("_disabled_")
    if isinstance(switch, Code):
        raise InputError(f"the {what} has a transform that '{switch.text}' may switch off: write true or false")
    return switch not in (True, "true", "True")


def short_name(component: Mapping[str, Any]) -> str:
    """Return the name of a component without its package; names from other packages than MONAI are kept in full."""
    target = str(component.get("_target_", ""))
    package, _, name = target.rpartition(".")
    return name if package in ("", "monai") or package.startswith("monai.") else target


def plain_name(name: str) -> str:
    """Return a transform's name without the suffix for dictionary transforms."""
    for suffix in ("Dict", "d", "D"):
        stem = name.removesuffix(suffix)
        if stem != name and stem in {*HANDLERS, *IGNORED_TRANSFORMS, *OTHERS}:
            return stem
    return name


def preparation_of(
    transforms: Any, *, axes: tuple[int | None, int | None, int | None], what: str = "preprocessing"
) -> Preparation:
    """Return the preprocessing of a `Compose` of transforms.

    Args:
        transforms: Entry "preprocessing" of the configuration.
        axes: For each axis (D, H, W) of the network, the axis of MONAI's array, or None.
        what: Purpose, for messages.

    Raises:
        InputError: A transform, or one of its options, that is not supported.
    """
    preparation = Preparation(axes=axes)
    components = components_in(transforms, what)
    for name, values in components:
        if plain_name(name) == "LoadImage":
            keys = _keys_of(values)
            preparation.image_key = keys[0] if keys else preparation.image_key
    for name, values in components:
        plain = plain_name(name)
        keys = _keys_of(values)
        if keys and preparation.image_key not in keys:
            continue
        if plain in IGNORED_TRANSFORMS:
            continue
        if plain not in HANDLERS:
            known = ", ".join(sorted(HANDLERS))
            raise InputError(f"the {what} has the transform '{name}', which is not supported: {known} are")
        index = keys.index(preparation.image_key) if keys else 0
        chosen = {key: _for_key(key, value, index, len(keys)) for key, value in values.items()}
        ignored = _BOOKKEEPING if plain == "CastToType" else (*_BOOKKEEPING, "dtype")
        HANDLERS[plain](Options(name, chosen, ignored=ignored), preparation)
    return preparation


def _keys_of(values: Mapping[str, Any]) -> list[str]:
    keys = values.get("keys", [])
    return [str(key) for key in keys] if isinstance(keys, list | tuple) else [str(keys)]


def _for_key(name: str, value: Any, index: int, count: int) -> Any:
    """Return an option for one of several keys if it lists one per key."""
    is_listed = name in ("mode", "padding_mode", "align_corners") and isinstance(value, list | tuple)
    if not is_listed or not value:
        return value
    return value[index] if len(value) == count else value[0]


def _orientation(options: Options, preparation: Preparation) -> None:
    code = options.take("axcodes")
    is_canonical = options.take("as_closest_canonical", False)
    labels = options.take("labels")
    if labels not in (None, [["L", "R"], ["P", "A"], ["I", "S"]]):
        raise InputError(f"{options.name}: labels are {labels!r}, which are not supported: leave them out")
    options.finish()
    if any(isinstance(step, Resample | CropForeground) for step in preparation.steps):
        raise InputError(f"{options.name} comes after resampling or cropping, which is not supported")
    preparation.orientation = "RAS" if is_canonical else "".join(str(letter) for letter in code or ())


def _spacing(options: Options, preparation: Preparation) -> None:
    mode = options.take("mode", "bilinear")
    if mode not in (*_LINEAR, "nearest"):
        raise InputError(f"{options.name}: mode is {mode!r}, which is not supported: 'bilinear' and 'nearest' are")
    options.expect("padding_mode", "border")
    options.expect("diagonal", False)
    options.expect("scale_extent", False)
    # Positions are exact in voxels, so the alignment of corners has no effect.
    for name in ("align_corners", "recompute_affine", "ensure_same_shape"):
        options.take(name)
    spacing = options.take_numbers("pixdim", None, 3)
    options.finish()
    preparation.spacing_mm = preparation.on_axes([max(0.0, step) for step in spacing], 0.0)
    preparation.steps.append(Resample(is_nearest=mode == "nearest"))


def _crop_foreground(options: Options, preparation: Preparation) -> None:
    options.expect("select_fn", None)
    options.expect("channel_indices", None)
    for name in ("start_coord_key", "end_coord_key", "return_coords"):
        options.take(name)
    source = options.take("source_key", preparation.image_key)
    if source != preparation.image_key:
        raise InputError(f"{options.name} crops by '{source}', which is not the image: it cannot be imported")
    mode = options.take("mode", "constant")
    depth, height, width = preparation.on_axes(options.take_numbers("margin", 0, 3), 0)
    first, second, third = preparation.on_axes(options.take_numbers("k_divisible", 1, 3), 1)
    step = CropForeground(
        margin=(int(depth), int(height), int(width)),
        divisor=(int(first), int(second), int(third)),
        is_within=bool(options.take("allow_smaller", False)),
    )
    options.finish()
    if mode != "constant" and (max(step.divisor) > 1 or (max(step.margin) > 0 and not step.is_within)):
        raise InputError(f"{options.name}: mode is {mode!r} outside the image, which is not supported")
    preparation.steps.append(step)


def _scale_range(options: Options, preparation: Preparation) -> None:
    source = options.take_pair("a_min", "a_max")
    if source is None:
        raise InputError(f"{options.name} has no a_min and a_max: copy the whole bundle")
    target = options.take_pair("b_min", "b_max")
    is_clipped = bool(options.take("clip", False)) and target is not None
    options.finish()
    preparation.steps.append(ScaleRange(source=source, target=target, is_clipped=is_clipped))


def _scale_percentiles(options: Options, preparation: Preparation) -> None:
    lower, upper = options.take_number("lower"), options.take_number("upper")
    target = options.take_pair("b_min", "b_max")
    if options.take("relative", False) and target is not None:
        low, width = target[0], target[1] - target[0]
        target = (width * (lower / 100) + low, width * (upper / 100) + low)
    is_clipped = bool(options.take("clip", False)) and target is not None
    is_each_channel = bool(options.take("channel_wise", False))
    options.finish()
    preparation.steps.append(
        ScalePercentiles(
            percentiles=(lower, upper), target=target, is_clipped=is_clipped, is_each_channel=is_each_channel
        )
    )


def _scale_extremes(options: Options, preparation: Preparation) -> None:
    low, high, factor = options.take("minv", 0.0), options.take("maxv", 1.0), options.take("factor")
    is_each_channel = bool(options.take("channel_wise", False))
    options.finish()
    if low is None and high is None:
        if factor is not None:
            preparation.steps.append(ScaleRange(source=(0.0, 1.0), target=(0.0, 1.0 + float(factor))))
        return
    target = (0.0, 1.0) if low is None or high is None else (float(low), float(high))
    preparation.steps.append(ScaleExtremes(target=target, is_each_channel=is_each_channel))


def _standardise(options: Options, preparation: Preparation) -> None:
    means, deviations = (_values_of(options, name) for name in ("subtrahend", "divisor"))
    is_masked = bool(options.take("nonzero", False))
    is_each_channel = bool(options.take("channel_wise", False))
    options.finish()
    preparation.steps.append(
        Standardise(means=means, deviations=deviations, is_masked=is_masked, is_each_channel=is_each_channel)
    )


def _values_of(options: Options, name: str) -> tuple[float, ...]:
    value = options.take(name)
    values = [] if value is None else value if isinstance(value, list | tuple) else [value]
    if any(isinstance(entry, bool) or not isinstance(entry, int | float) for entry in values):
        raise InputError(f"{options.name}: {name} is {value!r}: only numbers are supported")
    return tuple(float(entry) for entry in values)


def _cast(options: Options, preparation: Preparation) -> None:  # noqa: ARG001
    options.expect("dtype", *_FLOATS)
    options.finish()


HANDLERS: dict[str, Callable[[Options, Preparation], None]] = {
    "Orientation": _orientation,
    "Spacing": _spacing,
    "CropForeground": _crop_foreground,
    "ScaleIntensityRange": _scale_range,
    "ScaleIntensityRangePercentiles": _scale_percentiles,
    "ScaleIntensity": _scale_extremes,
    "NormalizeIntensity": _standardise,
    "CastToType": _cast,
}
# Transforms of the result, without the suffix as well.
OTHERS = {
    *("Activations", "AsDiscrete", "Invert", "SaveImage", "Lambda", "KeepLargestConnectedComponent", "SqueezeDim"),
}
