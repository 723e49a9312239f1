"""MONAI bundles (Cardoso et al. 2022, arXiv:2211.02701; the format is Apache-2.0): configuration, metadata, weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...core.errors import InputError
from ...image.labels import PALETTE, Label
from ...models.description import Channel, ModelDescription, id_from
from ...networks import SegmentationNetwork, build_network
from ...planning.monai_recipe import MonaiRecipe
from ...planning.plan import Normalization, Plan
from ..contract import ForeignModel, ImportOptions
from ..parts.torch_checkpoint import read_checkpoint, read_torchscript, tensors_of
from .network_plan import NetworkPlan
from .networks import network_of
from .references import BundleConfiguration, Code, read_configuration
from .results import Outcome, outcome_of, region_order, tiling_of
from .transforms import preparation_of
from .weights import select_outputs

METADATA = Path("configs") / "metadata.json"
CONFIGURATIONS = ("inference.json", "inference.yaml", "inference.yml")
WEIGHTS = "model.pt"
SCRIPT = "model.ts"
LICENCE_FILES = ("LICENSE", "LICENSE.txt", "docs/license.txt")
ADVICE = "save the state dictionary of the network alone and import that"
# Keys under which training loops store the network's weights.
_STATES = ("model", "state_dict", "network", "net")
_PRESETS = {"CT": "ct", "MR": "mri", "MRI": "mri", "CR": "xray", "DX": "xray", "XR": "xray", "X-RAY": "xray"}
# Names that bundles use for the only channel of an image.
_NAMELESS = ("image", "input", "img", "")


def find_bundles(folder: Path) -> list[Path]:
    """Return the bundles at or below a folder, at most three levels deep."""
    candidates = [folder, *(path for depth in ("*", "*/*", "*/*/*") for path in sorted(folder.glob(depth)))]
    return [path for path in candidates if (path / METADATA).is_file()]


def read_bundle(folder: Path, options: ImportOptions) -> ForeignModel:
    """Return the model in a bundle.

    Raises:
        InputError: It cannot be imported; the message says why and what would help.
    """
    bundles = find_bundles(folder)
    if len(bundles) > 1:
        names = ", ".join(path.name for path in bundles)
        raise InputError(f"there are several bundles, {names}: choose the folder of one")
    bundle = bundles[0]
    path = next((bundle / "configs" / name for name in CONFIGURATIONS if (bundle / "configs" / name).is_file()), None)
    if path is None:
        raise InputError(f"{bundle.name} has no configs/{CONFIGURATIONS[0]}: copy the whole bundle")
    metadata = read_configuration(bundle / METADATA)
    configuration = BundleConfiguration(read_configuration(path), path.name)
    try:
        return _translate(bundle, metadata, configuration, options)
    except KeyError as error:
        raise InputError(f"{bundle.name}: entry {error} is missing: copy the whole bundle") from error
    except (TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{bundle.name}: metadata.json or {path.name} cannot be understood ({error})") from error


def _translate(
    bundle: Path, metadata: Mapping[str, Any], configuration: BundleConfiguration, options: ImportOptions
) -> ForeignModel:
    network_plan = network_of(_network_definition(configuration))
    inputs, outputs = (_data_format(metadata, kind) for kind in ("inputs", "outputs"))
    tiling, patch, axes = tiling_of(
        configuration.get("inferer"), dimensions=network_plan.dimensions, patch_shape=inputs.get("spatial_shape") or ()
    )
    preparation = preparation_of(configuration.get("preprocessing"), axes=axes)
    outcome = outcome_of(configuration.get("postprocessing"), steps=preparation.steps)
    recipe = MonaiRecipe(steps=tuple(preparation.steps), tiling=tiling, restored=outcome.restored)
    channels = _channels(inputs, network_plan.config["in_channels"])
    labels, output, order, warnings = _labels(outputs, network_plan.config["num_classes"], outcome)
    network = _network(network_plan, _weights(bundle, configuration, options), order)
    plan = Plan(
        dimensions=network_plan.dimensions,
        spacing_mm=preparation.spacing_mm,
        patch_size=patch,
        batch_size=2,
        orientation=preparation.orientation,
        normalization=(Normalization(scheme="none"),) * len(channels),
        # MONAI's arrays are (x, y, z), ours (z, y, x).
        transpose=_transpose_of(axes),
        conventions="monai",
        recipe=recipe,
    )
    name = str(metadata.get("name") or metadata.get("task") or bundle.name)
    description = ModelDescription(
        id=id_from(f"monai-{name}"),
        title=f"{name} (MONAI)",
        network=network_plan.network,
        network_config=network.config.to_dict(),
        plan=plan,
        preset=_preset(inputs, network_plan.dimensions, axes),
        channels=channels,
        labels=labels,
        postprocess=outcome.postprocess,
        training=_training(metadata, network_plan),
        licence=_licence(bundle, metadata),
        output=output,
    )
    warnings = [*outcome.warnings, *warnings]
    return ForeignModel(
        description=description, network=network, card=_card(metadata, network_plan, name), warnings=tuple(warnings)
    )


def _network_definition(configuration: BundleConfiguration) -> Any:
    for key in ("network_def", "network", "net", "model"):
        if key not in configuration:
            continue
        definition = configuration.get(key)
        if isinstance(definition, Code):
            raise InputError(f"{key} is '{definition.text}', which is code and never run: write the network out")
        return definition
    raise InputError("the bundle's configuration has no network_def: copy the whole bundle")


def _data_format(metadata: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Return the entry of metadata.json for the network's only input or output."""
    entries = (metadata.get("network_data_format") or {}).get(kind) or {}
    return dict(next(iter(entries.values()), {}))


def _channels(inputs: Mapping[str, Any], count: int) -> tuple[Channel, ...]:
    names = inputs.get("channel_def") or {}
    modality = str(inputs.get("modality") or "")
    found = [str(names.get(str(index), "")).strip() for index in range(count)]
    if count == 1 and found[0].lower() in _NAMELESS:
        found = [modality or "image"]
    return tuple(Channel(name=name or f"channel {index + 1}", modality=modality) for index, name in enumerate(found))


def _labels(
    outputs: Mapping[str, Any], classes: int, outcome: Outcome
) -> tuple[tuple[Label, ...], str, tuple[int | None, ...], list[str]]:
    """Return the labels, the output (one of models.description.OUTPUTS), the source of each logit, and warnings."""
    names = _class_names(outputs, classes)
    if not outcome.is_regions:
        if classes < 2:
            raise InputError("the bundle's network has a single output, which argmax always selects: fix the bundle")
        return _named(range(1, classes), names[1:]), "labels", tuple(range(classes)), []
    if classes == 1:
        # A single region becomes a label plus a background whose logit is always 0.
        return _named(outcome.values or (1,), names), "labels", (None, 0), []
    order, warnings = (outcome.order, []) if outcome.order else region_order(names)
    if any(not 0 <= channel < classes for channel in order) or len(set(order)) != len(order):
        raise InputError(f"the bundle paints the outputs {list(order)} of {classes}: fix its postprocessing")
    values = outcome.values or tuple(range(1, len(order) + 1))
    if len(order) < 2:
        return _named(values, [names[order[0]]]), "labels", (None, order[0]), warnings
    return _named(values, [names[channel] for channel in order]), "regions", order, warnings


def _class_names(outputs: Mapping[str, Any], classes: int) -> list[str]:
    given = outputs.get("channel_def") or {}
    names: list[str] = []
    for index in range(classes):
        name = str(given.get(str(index), "")).strip() or f"Class {index}"
        names.append(name if name not in names else f"{name} ({index})")
    return names


def _named(values: Any, names: Any) -> tuple[Label, ...]:
    return tuple(
        Label(value=value, name=name, color=PALETTE[index % len(PALETTE)])
        for index, (value, name) in enumerate(zip(values, names, strict=True))
    )


def _network(plan: NetworkPlan, weights: Mapping[str, Tensor], order: tuple[int | None, ...]) -> SegmentationNetwork:
    state = plan.translate(weights)
    classes = plan.config["num_classes"]
    if order != tuple(range(classes)):
        state = select_outputs(state, plan.class_axes, order)
    network = build_network(plan.network, {**plan.config, "num_classes": len(order)})
    wanted = {name: value.shape for name, value in network.state_dict().items()}
    wrong = [name for name, shape in wanted.items() if name not in state or state[name].shape != shape]
    if wrong:
        raise InputError(
            f"the weights do not fit the bundle's {plan.title} ({', '.join(wrong[:3])} differ): they do not belong to "
            "the network that it describes"
        )
    network.load_state_dict(state)
    return network.eval()


def _weights(bundle: Path, configuration: BundleConfiguration, options: ImportOptions) -> dict[str, Tensor]:
    path = bundle / "models" / _weights_name(configuration)
    script = bundle / "models" / SCRIPT
    if not path.is_file() and script.is_file():
        if not options.allow_code:
            raise InputError(
                f"{bundle.name} has its weights in models/{SCRIPT} alone, which is TorchScript, that is, code: add "
                f"models/{WEIGHTS}, or allow code to be run (--allow-code) if you trust it"
            )
        return read_torchscript(script)
    content = read_checkpoint(path, advice=ADVICE, missing="copy the whole bundle")
    state = next((content[key] for key in _STATES if isinstance(content.get(key), dict)), content)
    return tensors_of(state, path)


def _weights_name(configuration: BundleConfiguration) -> str:
    """Return the name of the file in `models` that the bundle loads, if it says so in plain data."""
    for key in ("checkpointloader", "handlers"):
        found = configuration.get(key)
        for entry in found if isinstance(found, list) else [found]:
            if isinstance(entry, Mapping) and str(entry.get("_target_", "")).endswith("CheckpointLoader"):
                path = entry.get("load_path")
                name = re.split(r"[\\/]", path)[-1] if isinstance(path, str) else ""
                if name.endswith((".pt", ".pth")):
                    return name
    return WEIGHTS


def _transpose_of(axes: tuple[int | None, int | None, int | None]) -> tuple[int, int, int]:
    first, second, third = (0 if axis is None else 2 - axis for axis in axes)
    return first, second, third


def _preset(inputs: Mapping[str, Any], dimensions: int, axes: tuple[int | None, ...]) -> str:
    modality = str(inputs.get("modality") or "").upper()
    preset = _PRESETS.get(modality) or ("ct" if inputs.get("format") == "hounsfield" else "mri")
    is_flat = dimensions == 2 and axes[0] is None
    return "xray" if is_flat else "mri" if preset == "xray" else preset


def _training(metadata: Mapping[str, Any], plan: NetworkPlan) -> dict[str, Any]:
    return {
        "imported_from": "MONAI bundle",
        "data": str(metadata.get("data_source") or ""),
        "version": str(metadata.get("version") or ""),
        "network": plan.title,
    }


def _licence(bundle: Path, metadata: Mapping[str, Any]) -> str:
    stated = str(metadata.get("license") or metadata.get("licence") or "").strip()
    for name in () if stated else LICENCE_FILES:
        if (bundle / name).is_file():
            text = (bundle / name).read_text(encoding="utf-8", errors="replace")
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            stated = ", ".join(lines[:2])
            break
    return stated


def _card(metadata: Mapping[str, Any], plan: NetworkPlan, name: str) -> tuple[str, ...]:
    version = f", version {metadata['version']}" if metadata.get("version") else ""
    lines = [
        f"MONAI bundle {name}{version}, network {plan.title}.",
        "Preprocessing, sliding window and restoration follow MONAI.",
    ]
    for key, title in (
        ("description", "What it is"),
        ("data_source", "Data"),
        ("authors", "Authors"),
        ("copyright", "Copyright"),
        ("intended_use", "Intended use"),
    ):
        if metadata.get(key):
            lines.append(f"{title}: {_one_line(metadata[key])}")
    references = metadata.get("references") or []
    lines += [f"Cite: {_one_line(entry)}" for entry in (references if isinstance(references, list) else [references])]
    return tuple(lines)


def _one_line(value: Any) -> str:
    return " ".join(str(value).split())
