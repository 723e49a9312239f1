"""Make tiny MONAI bundles and what MONAI itself finds with them.

Needs monai and nibabel of Testing/requirements.txt:

    python Testing/Fixtures/make_monai_fixtures.py [NAME ...]

Every fixture is a folder of `monai/` with the bundle, and `images.npz` with an image (C, D, H, W), its affine from
voxel index (x, y, z) to RAS millimetres and the expected labelmap (D, H, W), from MONAI's own transforms, inferer and
inversion in float32. The networks are trained for a few steps to tell smooth regions of a made image apart.
"""

from __future__ import annotations

import json
import sys
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism
from scipy import ndimage
from torch.nn import functional as F

FOLDER = Path(__file__).parent / "monai"
IMAGE = {"keys": "image"}
LOAD = [{"_target_": "LoadImaged", **IMAGE}, {"_target_": "EnsureChannelFirstd", **IMAGE}]
RAS = {"_target_": "Orientationd", **IMAGE, "axcodes": "RAS"}
TYPE = {"_target_": "EnsureTyped", **IMAGE, "device": "@device"}
SOFTMAX = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
SIGMOID = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
ARGMAX = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
THRESHOLD = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}
INVERT = {
    "_target_": "Invertd",
    "keys": "pred",
    "transform": "@preprocessing",
    "orig_keys": "image",
    "nearest_interp": False,
    "to_tensor": True,
}
SAVE = {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"}
PAINT = "$lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, torch.where(x[[1]] > 0, 2, 0)))"


def spacing(*pixdim: float, mode: str = "bilinear") -> dict[str, Any]:
    return {"_target_": "Spacingd", **IMAGE, "pixdim": list(pixdim), "mode": mode}


def sliding(*roi_size: int, **options: Any) -> dict[str, Any]:
    return {"_target_": "SlidingWindowInferer", "roi_size": list(roi_size), "sw_batch_size": 2, **options}


def affine_of(
    spacing_xyz: tuple[float, ...], *, turn: str = "xyz", angles: tuple[float, ...] = (0, 0, 0)
) -> np.ndarray:
    """Return an affine whose axes run along `turn`, such as "-yxz", and are then turned by angles in degrees."""
    directions, sign = [], 1
    for letter in turn:
        if letter == "-":
            sign = -1
            continue
        directions.append(sign * np.eye(3)["xyz".index(letter)])
        sign = 1
    rotation = np.stack(directions, axis=1)
    for axis, angle in enumerate(np.deg2rad(angles)):
        first, second = [other for other in range(3) if other != axis]
        turned = np.eye(3)
        turned[[first, first, second, second], [first, second, first, second]] = [
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        ]
        rotation = turned @ rotation
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(spacing_xyz)
    affine[:3, 3] = (-31.5, 12.25, 40.0)
    return affine


def smooth_image(shape_xyz: tuple[int, ...], channels: int, seed: int, *, border: int = 0) -> np.ndarray:
    """Return (C, x, y, z) of smooth noise rounded to whole numbers, 0 or below within a border."""
    noise = np.random.default_rng(seed).normal(size=(channels, *shape_xyz))
    image = ndimage.gaussian_filter(noise, (0, 2, 2, 2)[: noise.ndim])
    image = np.round(image / image.std() * 90 + 120).astype(np.int16)
    if border:
        inside = np.zeros(shape_xyz, dtype=bool)
        inside[tuple(slice(border, size - border - 1) for size in shape_xyz)] = True
        image[:, ~inside] = 0
    return image


def targets(image: torch.Tensor, classes: int, *, is_regions: bool) -> torch.Tensor:
    """Return classes (...), or regions (K, ...), by quantiles of the smoothed mean of the channels.

    The second of several regions holds the first, as in BraTS.
    """
    mean = image.mean(dim=0).numpy()
    mean = ndimage.gaussian_filter(mean, 1.5)
    limits = np.quantile(mean, np.arange(1, classes + is_regions) / (classes + is_regions))
    level = torch.from_numpy(np.digitize(mean, limits))
    nesting = [1, 0, *range(2, classes)][:classes] if classes > 1 else [0]
    return torch.stack([level > index for index in nesting]).float() if is_regions else level


def train(
    network: torch.nn.Module, image: torch.Tensor, *, classes: int, is_regions: bool, is_sliced: bool, steps: int
) -> None:
    wanted = targets(image, classes, is_regions=is_regions)
    # A 2D network takes the planes of the last axis as its batch.
    batch = image.permute(3, 0, 1, 2) if is_sliced else image[None]
    wanted = wanted.permute(2, 0, 1) if is_sliced else wanted[None]
    step = 16 if not is_sliced else 8
    padding = [side for size in reversed(batch.shape[2:]) for side in (0, -size % step)]
    batch = F.pad(batch, padding)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    network.train()
    for _ in range(steps):
        logits = network(batch)
        logits = logits[0] if isinstance(logits, list) else logits
        logits = logits[(..., *(slice(0, size) for size in wanted.shape[-(batch.ndim - 2) :]))]
        loss = F.binary_cross_entropy_with_logits(logits, wanted) if is_regions else F.cross_entropy(logits, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()


def make(
    name: str,
    network: dict[str, Any],
    *,
    preprocessing: list[dict[str, Any]],
    inferer: dict[str, Any],
    postprocessing: list[dict[str, Any]],
    shape: tuple[int, ...],
    affine: np.ndarray,
    names: list[str],
    modality: str = "MR",
    border: int = 0,
    extra: dict[str, Any] | None = None,
    checkpoint_key: str | None = None,
    steps: int = 40,
) -> None:
    set_determinism(sum(map(ord, name)))
    config = {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        **(extra or {}),
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": preprocessing},
        "inferer": inferer,
        "postprocessing": {"_target_": "Compose", "transforms": [*postprocessing, SAVE]},
        "checkpointloader": {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {"model": "@network"},
        },
        "run": ["$@evaluator.run()"],
    }
    channels = network.get("in_channels", 1)
    folder = FOLDER / name
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    (folder / "models").mkdir(exist_ok=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(config, indent=1) + "\n")
    metadata = metadata_of(name, channels=channels, names=names, modality=modality)
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata, indent=1) + "\n")
    (folder / "LICENSE").write_text("CC0 1.0 Universal\n\nMade by a script.\n")
    image = smooth_image(shape, channels, seed=len(name), border=border)
    run(folder, config, image, affine, names=names, checkpoint_key=checkpoint_key, steps=steps)


def metadata_of(name: str, *, channels: int, names: list[str], modality: str) -> dict[str, Any]:
    channel_names = ["T1c", "T1", "T2", "FLAIR"][:channels] if channels > 1 else ["image"]
    return {
        "version": "0.1.0",
        "monai_version": "1.6.1",
        "name": f"Fixture {name}",
        "task": "Smooth regions of a made image",
        "authors": "Made by a script",
        "copyright": "None",
        "data_source": "smooth noise",
        "intended_use": "Tests",
        "references": ["Nobody, 'Nothing', 2026"],
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "modality": modality,
                    "num_channels": channels,
                    "spatial_shape": ["8*n", "8*n", "8*n"],
                    "channel_def": {str(index): text for index, text in enumerate(channel_names)},
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": len(names),
                    "channel_def": {str(index): text for index, text in enumerate(names)},
                }
            },
        },
    }


def run(
    folder: Path,
    config: dict[str, Any],
    image: np.ndarray,
    affine: np.ndarray,
    *,
    names: list[str],
    checkpoint_key: str | None,
    steps: int,
) -> None:
    """Train the network on the image, and store weights, image and what MONAI finds."""
    settings = deepcopy(config)
    del settings["postprocessing"]["transforms"][-1]
    parser = ConfigParser(settings)
    preprocessing = parser.get_parsed_content("preprocessing")
    network = parser.get_parsed_content("network_def")
    with tempfile.TemporaryDirectory() as temporary:
        paths = [str(Path(temporary) / f"{index}.nii") for index in range(len(image))]
        for path, channel in zip(paths, image, strict=True):
            nib.save(nib.Nifti1Image(channel, affine), path)
        stored_affine = nib.load(paths[0]).affine
        data = preprocessing({"image": paths if len(paths) > 1 else paths[0]})
    prepared = data["image"].as_tensor().float()
    is_regions = names[0] != "background"
    train(
        network,
        prepared,
        classes=len(names),
        is_regions=is_regions,
        is_sliced=config["inferer"]["_target_"] == "SliceInferer",
        steps=steps,
    )
    with torch.no_grad():
        logits = parser.get_parsed_content("inferer")(data["image"][None], network)
    data["pred"] = (logits[0] if isinstance(logits, list | tuple) else logits)[0]
    found = parser.get_parsed_content("postprocessing")(data)["pred"].as_tensor().numpy()[0]
    labels = np.round(found).astype(np.uint8)
    state = network.state_dict()
    torch.save({checkpoint_key: state} if checkpoint_key else state, folder / "models" / "model.pt")
    np.savez_compressed(
        folder / "images.npz",
        image=image.transpose(0, 3, 2, 1),
        affine_ras=stored_affine,
        labels=labels.transpose(2, 1, 0),
    )
    shares = np.bincount(labels.ravel()) / labels.size
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1000
    sys.stdout.write(f"{folder.name}: shares {np.round(shares, 2)}, {size:.0f} kB\n")


TWO = ["background", "front", "back"]
OBLIQUE = {"turn": "-yxz", "angles": (12, -7, 21)}

FIXTURES: dict[str, dict[str, Any]] = {
    # As spleen_ct_segmentation of the model zoo.
    "residual_oblique": {
        "network": {
            "_target_": "UNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": "$len(@names)",
            "channels": [4, 8, 8],
            "strides": [2, 2],
            "num_res_units": 2,
            "norm": "batch",
        },
        "extra": {"names": TWO},
        "preprocessing": [
            *LOAD,
            RAS,
            spacing(1.5, 1.5, 2.0),
            {
                "_target_": "ScaleIntensityRanged",
                **IMAGE,
                "a_min": -57,
                "a_max": 264,
                "b_min": 0,
                "b_max": 1,
                "clip": True,
            },
            TYPE,
        ],
        "inferer": sliding(16, 16, 16, overlap=0.5),
        "postprocessing": [SOFTMAX, INVERT, ARGMAX],
        "shape": (37, 31, 14),
        "affine": affine_of((0.9, 1.1, 3.3), **OBLIQUE),
        "names": TWO,
        "modality": "CT",
    },
    # As brats_mri_segmentation.
    "nested_regions": {
        "network": {
            "_target_": "monai.networks.nets.SegResNet",
            "blocks_down": [1, 1],
            "blocks_up": [1],
            "init_filters": 8,
            "in_channels": 4,
            "out_channels": 3,
            "dropout_prob": 0.2,
        },
        "preprocessing": [
            LOAD[0],
            {"_target_": "NormalizeIntensityd", **IMAGE, "nonzero": True, "channel_wise": True},
        ],
        "inferer": sliding(16, 16, 16, overlap=0.625, mode="gaussian"),
        "postprocessing": [SIGMOID, INVERT, THRESHOLD, {"_target_": "Lambdad", "keys": "pred", "func": PAINT}],
        "shape": (22, 26, 18),
        "affine": affine_of((1.0, 1.0, 1.0), turn="-x-yz"),
        "names": ["Tumor core", "Whole tumor", "Enhancing tumor"],
        "border": 3,
    },
    # As wholeBody_ct_segmentation; the image is smaller than the tile along one axis.
    "nearest_back": {
        "network": {
            "_target_": "SegResNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 3,
            "init_filters": 8,
            "blocks_down": [1, 1],
            "blocks_up": [1],
            "upsample_mode": "deconv",
        },
        "extra": {
            "image_key": "image",
            "displayable": {"highres": False},
            "pixdim": "$[1.5, 1.5, 1.5] if @displayable#highres else [1.7, 1.9, 2.3]",
        },
        "preprocessing": [
            LOAD[0],
            {"_target_": "EnsureTyped", "keys": "@image_key"},
            LOAD[1],
            RAS,
            {"_target_": "Spacingd", **IMAGE, "pixdim": "@pixdim", "mode": "bilinear"},
            {"_target_": "NormalizeIntensityd", **IMAGE, "nonzero": True},
            {"_target_": "ScaleIntensityd", **IMAGE, "minv": -1.0, "maxv": 1.0},
        ],
        "inferer": sliding(16, 16, 16, overlap=0.25, mode="gaussian", padding_mode="replicate"),
        "postprocessing": [SOFTMAX, ARGMAX, {**INVERT, "nearest_interp": True}],
        "shape": (30, 33, 12),
        "affine": affine_of((1.13, 0.97, 2.71), turn="x-yz", angles=(3, 5, -8)),
        "names": TWO,
        "modality": "CT",
        "border": 2,
    },
    "cropped": {
        "network": {
            "_target_": "BasicUNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 2,
            "features": [2, 2, 4, 8, 16, 2],
        },
        "preprocessing": [
            *LOAD,
            RAS,
            # No axis keeps its spacing: there MONAI's rounding noise labels one voxel outside the box.
            spacing(1.3, 1.1, 1.6),
            {
                "_target_": "ScaleIntensityRanged",
                **IMAGE,
                "a_min": 0,
                "a_max": 300,
                "b_min": 0,
                "b_max": 1,
                "clip": True,
            },
            {"_target_": "CropForegroundd", **IMAGE, "source_key": "image", "margin": [2, 0, 4], "k_divisible": 8},
            {"_target_": "CastToTyped", **IMAGE, "dtype": "$torch.float32"},
        ],
        "inferer": sliding(32, 32, 32, overlap=0.75),
        "postprocessing": [SOFTMAX, INVERT, ARGMAX],
        "shape": (34, 40, 22),
        "affine": affine_of((1.2, 1.0, 2.2), turn="y-xz", angles=(0, 9, 4)),
        "names": ["background", "lump"],
        "steps": 160,
        "border": 6,
    },
    "lps_percentiles": {
        "network": {
            "_target_": "UNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 3,
            "channels": [4, 6, 8],
            "strides": [2, [2, 2, 1]],
            "act": ["LeakyReLU", {"negative_slope": 0.1}],
            "kernel_size": 3,
            "dropout": 0.1,
        },
        "preprocessing": [
            *LOAD,
            {"_target_": "Orientationd", **IMAGE, "axcodes": "LPS"},
            spacing(1.4, -1, 2.1),
            {
                "_target_": "ScaleIntensityRangePercentilesd",
                **IMAGE,
                "lower": 2,
                "upper": 97,
                "b_min": -1,
                "b_max": 1,
                "clip": True,
                "relative": True,
            },
        ],
        "inferer": sliding(24, -1, 16, overlap=0.4),
        "postprocessing": [INVERT, SOFTMAX, ARGMAX],
        "shape": (33, 24, 15),
        "affine": affine_of((0.8, 1.3, 2.9), turn="-x-yz", angles=(-6, 0, 15)),
        "names": TWO,
        "checkpoint_key": "model",
    },
    # As ventricular_short_axis_3label.
    "slices": {
        "network": {
            "_target_": "UNet",
            "spatial_dims": 2,
            "in_channels": 1,
            "out_channels": 3,
            "channels": [4, 8, 8],
            "strides": [2, 2],
            "num_res_units": 2,
        },
        "preprocessing": [*LOAD, {"_target_": "ScaleIntensityd", **IMAGE}, TYPE],
        "inferer": {"_target_": "SliceInferer", "roi_size": [24, 16], "spatial_dim": 2},
        "postprocessing": [SOFTMAX, {**INVERT, "meta_key_postfix": "meta_dict"}, ARGMAX],
        "shape": (41, 29, 6),
        "affine": affine_of((1.2, 1.2, 8.0), angles=(20, 0, 5)),
        "names": TWO,
    },
    "lone_region": {
        "network": {
            "_target_": "DynUNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 1,
            "kernel_size": [[3, 3, 1], 3, 3],
            "strides": [1, [2, 2, 1], 2],
            "upsample_kernel_size": [[2, 2, 1], 2],
            "filters": [4, 8, 8],
        },
        "preprocessing": [
            *LOAD,
            {"_target_": "CropForegroundd", **IMAGE, "source_key": "image", "allow_smaller": True},
            {"_target_": "NormalizeIntensityd", **IMAGE, "subtrahend": 120, "divisor": 90},
            RAS | {"_disabled_": True},
        ],
        "inferer": sliding(16, 16, 8, overlap=0.3, mode="gaussian", sigma_scale=0.2),
        "postprocessing": [SIGMOID, THRESHOLD, {**INVERT, "nearest_interp": True}],
        "shape": (31, 26, 17),
        "affine": affine_of((1.0, 1.0, 2.5), **OBLIQUE),
        "names": ["lesion"],
        "border": 3,
    },
    "attention_whole": {
        "network": {
            "_target_": "AttentionUnet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 3,
            "channels": [4, 8],
            "strides": [2],
        },
        "extra": {"transforms": [*LOAD, RAS, spacing(1.9, 1.7, 2.1, mode="nearest")]},
        "preprocessing": "$@transforms",
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": [ARGMAX, {**INVERT, "nearest_interp": True}],
        "shape": (28, 33, 16),
        "affine": affine_of((1.23, 1.0, 2.9), angles=(0, 0, 30)),
        "names": TWO,
    },
}


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or FIXTURES:
        values = dict(FIXTURES[name])
        make(name, values.pop("network"), **values)


if __name__ == "__main__":
    main()
