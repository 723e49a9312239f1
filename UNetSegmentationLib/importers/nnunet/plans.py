"""Translation of nnU-Net v2's plans.json and dataset.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...core.errors import InputError
from ...image.labels import PALETTE, Label
from ...models.description import Channel
from ...networks.parts.blocks import NORM_EPSILON
from ...planning.plan import Normalization, Plan

Values = Mapping[str, Any]

NETWORKS_OF = {"PlainConvUNet": "nnunet_plain", "ResidualEncoderUNet": "nnunet_residual"}
NETWORK_PACKAGE = "dynamic_network_architectures."
NORMS_OF = {
    "InstanceNorm2d": "instance",
    "InstanceNorm3d": "instance",
    "BatchNorm2d": "batch",
    "BatchNorm3d": "batch",
    "None": "none",
}
ACTIVATIONS_OF = {"LeakyReLU": "leaky_relu", "ReLU": "relu", "ELU": "elu"}
NORMALIZATIONS_OF = {
    "ZScoreNormalization": "zscore",
    "CTNormalization": "ct",
    "RescaleTo01Normalization": "rescale",
    "RGBTo01Normalization": "rgb",
    "NoNormalization": "none",
}
ORIENTATIONS_OF = {
    "SimpleITKIO": "stored",
    "NibabelIO": "stored",
    "NibabelIOWithReorient": "RAS",
    "NaturalImage2DIO": "stored",
    "Tiff3DIO": "stored",
}
# Supported trainers that override the network of the plans.
NORM_OF_TRAINER = {"nnUNetTrainerBN": "batch"}
RESAMPLING = "resample_data_or_seg_to_shape"
SEGMENTATION_RESAMPLING = {"resampling_fn_seg": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None}}
RESAMPLING_OPTIONS = {
    "resampling_fn_data": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
    "resampling_fn_probabilities": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
}
_USED_OPTIONS = {
    *("n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", "n_conv_per_stage"),
    *("n_blocks_per_stage", "n_conv_per_stage_decoder", "conv_bias", "norm_op", "norm_op_kwargs"),
    *("nonlin", "nonlin_kwargs"),
}
# These change training alone.
_TRAINING_OPTIONS = {"dropout_op", "dropout_op_kwargs", "deep_supervision", "stochastic_depth_p"}


def configuration_of(plans: Values, name: str) -> dict[str, Any]:
    """Return a configuration including what it inherits.

    Raises:
        InputError: The name is unknown, or configurations inherit from each other in a circle.
    """
    merged: dict[str, Any] = {}
    seen: list[str] = []
    current: str | None = name
    while current:
        if current in seen:
            raise InputError(f"plans.json: configurations {', '.join(seen)} inherit from each other in a circle")
        if current not in plans["configurations"]:
            known = ", ".join(plans["configurations"])
            raise InputError(f"plans.json has no configuration '{current}': it has {known}")
        seen.append(current)
        merged = {**plans["configurations"][current], **merged}
        current = plans["configurations"][current].get("inherits_from")
    return merged


def network_of(configuration: Values, *, trainer: str, channels: int, classes: int) -> tuple[str, dict[str, Any]]:
    """Return the name of our network and its options.

    Raises:
        InputError: The architecture, or one of its options, is not supported.
    """
    architecture = configuration.get("architecture") or _architecture_of_old(configuration)
    full_name = str(architecture["network_class_name"])
    short_name = full_name.rpartition(".")[2]
    if short_name not in NETWORKS_OF or not full_name.startswith(NETWORK_PACKAGE):
        raise InputError(
            f"the network '{full_name}' is not supported: {' and '.join(NETWORKS_OF)} of nnU-Net v2 can be imported"
        )
    options = architecture["arch_kwargs"]
    _check_options(options)
    dimensions = len(configuration["patch_size"])
    if _last(options["conv_op"]) != f"Conv{dimensions}d":
        raise InputError(f"the network has '{options['conv_op']}' for patches of {dimensions} axes: export it again")
    stages = int(options["n_stages"])
    is_residual = short_name == "ResidualEncoderUNet"
    convs = options["n_blocks_per_stage" if is_residual else "n_conv_per_stage"]
    decoder_convs = _per_stage(options["n_conv_per_stage_decoder"], stages - 1)
    features = _per_stage(options["features_per_stage"], stages)
    return NETWORKS_OF[short_name], {
        "in_channels": channels,
        "num_classes": classes,
        "dimensions": dimensions,
        "features_per_stage": features,
        "strides": [_per_axis(stride, dimensions) for stride in _per_stage(options["strides"], stages)],
        "kernel_sizes": [_per_axis(kernel, dimensions) for kernel in _per_stage(options["kernel_sizes"], stages)],
        "encoder_convs": _per_stage(convs, stages),
        # nnU-Net counts from the coarsest stage.
        "decoder_convs": decoder_convs[::-1],
        "conv_bias": bool(options["conv_bias"]),
        "norm": NORM_OF_TRAINER.get(trainer) or _norm_of(options),
        "activation": _activation_of(options),
    }


def plan_of(plans: Values, configuration: Values, *, mirror_axes: Sequence[int]) -> Plan:
    """Return the plan of a configuration.

    Args:
        plans: Content of plans.json.
        configuration: Including what it inherits.
        mirror_axes: Patch axes, as in the checkpoint.

    Raises:
        InputError: The preprocessor, reader, resampling or normalization is not supported.
    """
    _check_preprocessing(configuration)
    missing = 3 - len(configuration["patch_size"])
    reader = str(plans["image_reader_writer"])
    depth, height, width = (0.0,) * missing + tuple(float(step) for step in configuration["spacing"])
    size = (1,) * missing + tuple(int(extent) for extent in configuration["patch_size"])
    transpose = tuple(int(axis) for axis in plans["transpose_forward"])
    return Plan(
        dimensions=3 - missing,
        spacing_mm=(depth, height, width),
        patch_size=(size[0], size[1], size[2]),
        batch_size=int(configuration["batch_size"]),
        orientation=_known(reader, ORIENTATIONS_OF, "reader of images"),
        normalization=_normalizations_of(plans, configuration),
        mirror_axes=tuple(int(axis) + missing for axis in mirror_axes),
        transpose=(transpose[0], transpose[1], transpose[2]),
        conventions="nnunet",
    )


def channels_of(dataset: Values) -> tuple[Channel, ...]:
    """Return the channels that dataset.json names, in order."""
    names = dataset.get("channel_names") or dataset["modality"]
    return tuple(Channel(name=str(names[key])) for key in sorted(names, key=int))


def labels_of(dataset: Values) -> tuple[tuple[Label, ...], str]:
    """Return the labels of dataset.json and the kind of output, one of models.description.OUTPUTS.

    Raises:
        InputError: Label values with gaps, or regions without an order or with duplicate values.
    """
    found = {
        str(name): [int(part) for part in value] if isinstance(value, list | tuple) else [int(value)]
        for name, value in dataset["labels"].items()
        if name != "ignore"
    }
    found = {name: values for name, values in found.items() if set(values) != {0}}
    if any(len(values) > 1 for values in found.values()):
        order = [int(value) for value in dataset.get("regions_class_order") or ()]
        if len(order) != len(found) or len(set(order)) != len(order):
            raise InputError(
                f"dataset.json has {len(found)} regions and regions_class_order {order}: must be one value per region"
            )
        values_by_name, output = dict(zip(found, order, strict=True)), "regions"
    else:
        values_by_name, output = {name: values[0] for name, values in found.items()}, "labels"
        if sorted(values_by_name.values()) != list(range(1, len(found) + 1)):
            raise InputError(
                f"dataset.json has the label values {sorted(values_by_name.values())}: nnU-Net trains on 1, 2, 3, ... "
                "without gaps"
            )
    named = list(values_by_name.items())
    if output == "labels":
        named.sort(key=lambda entry: entry[1])
    return tuple(
        Label(value=value, name=name, color=PALETTE[index % len(PALETTE)]) for index, (name, value) in enumerate(named)
    ), output


def label_values_of(dataset: Values) -> tuple[int, ...]:
    """Return the values of foreground voxels in its labelmaps: the channels added by a first stage, in order."""
    parts = [
        int(part)
        for name, value in dataset["labels"].items()
        if name != "ignore"
        for part in (value if isinstance(value, list | tuple) else [value])
    ]
    return tuple(sorted(set(parts) - {0}))


def _architecture_of_old(configuration: Values) -> dict[str, Any]:
    """Return the architecture of plans from before 2024, which list its numbers separately."""
    name = str(configuration["UNet_class_name"])
    blocks = configuration["n_conv_per_stage_encoder"]
    stages = len(blocks)
    base, limit = int(configuration["UNet_base_num_features"]), int(configuration["unet_max_num_features"])
    dimensions = len(configuration["patch_size"])
    return {
        "network_class_name": f"{NETWORK_PACKAGE}architectures.unet.{name}",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": [min(base * 2**level, limit) for level in range(stages)],
            "conv_op": f"torch.nn.Conv{dimensions}d",
            "kernel_sizes": configuration["conv_kernel_sizes"],
            "strides": configuration["pool_op_kernel_sizes"],
            "n_blocks_per_stage" if name == "ResidualEncoderUNet" else "n_conv_per_stage": blocks,
            "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"torch.nn.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": NORM_EPSILON, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
    }


def _check_options(options: Values) -> None:
    unknown = [
        name
        for name, value in options.items()
        if name not in _USED_OPTIONS | _TRAINING_OPTIONS and value not in (None, False)
    ]
    if unknown:
        raise InputError(
            f"the network has options that ours does not ({', '.join(sorted(unknown))}): it cannot be imported; "
            "only networks as nnU-Net's planners make them can"
        )


def _norm_of(options: Values) -> str:
    norm = _known(_last(options["norm_op"]), NORMS_OF, "norm")
    settings = options.get("norm_op_kwargs") or {}
    # torch's instance norm is not affine by default, but its batch norm is.
    is_affine = settings.get("affine", norm == "batch")
    if norm != "none" and not (is_affine and settings.get("eps", NORM_EPSILON) == NORM_EPSILON):
        raise InputError(
            f"the network's norm has the settings {settings}: only affine ones with eps 1e-5 are supported"
        )
    return norm


def _activation_of(options: Values) -> str:
    activation = _known(_last(options["nonlin"]), ACTIVATIONS_OF, "activation")
    settings = {key: value for key, value in (options.get("nonlin_kwargs") or {}).items() if key != "inplace"}
    defaults = {"leaky_relu": {"negative_slope": 0.01}, "elu": {"alpha": 1.0}}.get(activation, {})
    if {**defaults, **settings} != defaults:
        raise InputError(f"the network's activation has the settings {settings}: only torch's defaults are supported")
    return activation


def _check_preprocessing(configuration: Values) -> None:
    preprocessor = configuration.get("preprocessor_name", "DefaultPreprocessor")
    if preprocessor != "DefaultPreprocessor":
        raise InputError(
            f"images are prepared by '{preprocessor}', which is not supported: only DefaultPreprocessor is"
        )
    # Only the second stage of a cascade resamples labels.
    needed = {**RESAMPLING_OPTIONS, **(SEGMENTATION_RESAMPLING if configuration.get("previous_stage") else {})}
    for name, options in needed.items():
        function = configuration.get(name, RESAMPLING)
        asked = configuration.get(f"{name}_kwargs", options)
        if function != RESAMPLING or {**options, **asked} != options:
            raise InputError(
                f"{name} is '{function}' with {asked}, which is not supported: only '{RESAMPLING}' with {options} is"
            )


def _normalizations_of(plans: Values, configuration: Values) -> tuple[Normalization, ...]:
    statistics = plans.get("foreground_intensity_properties_per_channel") or plans.get(
        "foreground_intensity_properties_by_modality", {}
    )
    schemes = configuration["normalization_schemes"]
    masks = configuration.get("use_mask_for_norm") or [False] * len(schemes)
    normalizations = []
    for index, (name, is_masked) in enumerate(zip(schemes, masks, strict=True)):
        scheme = _known(str(name), NORMALIZATIONS_OF, "normalization")
        if scheme != "ct":
            normalizations.append(Normalization(scheme=scheme, use_mask=bool(is_masked) and scheme == "zscore"))
            continue
        values = statistics[str(index)]
        normalizations.append(
            Normalization(
                scheme=scheme,
                mean=float(values["mean"]),
                std=float(values["std"]),
                lower=float(values["percentile_00_5"]),
                upper=float(values["percentile_99_5"]),
            )
        )
    return tuple(normalizations)


def _known(name: str, table: Mapping[str, str], kind: str) -> str:
    if name not in table:
        raise InputError(f"the {kind} '{name}' is not supported: {', '.join(table)} are")
    return table[name]


def _last(dotted_name: Any) -> str:
    return str(dotted_name).rpartition(".")[2]


def _per_stage(value: Any, stages: int) -> list[Any]:
    values = list(value) if isinstance(value, list | tuple) else [value] * stages
    if len(values) != stages:
        raise InputError(f"plans.json gives {values} for {stages} stages: export the plans again")
    return values


def _per_axis(value: Any, dimensions: int) -> list[int]:
    return [int(part) for part in value] if isinstance(value, list | tuple) else [int(value)] * dimensions
