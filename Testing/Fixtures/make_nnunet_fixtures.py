"""Make tiny results folders of nnU-Net v2 and what its own predictor finds with them.

Needs nnunetv2 (2.8.1 made the files beside this script) and nothing else but what the library needs:

    python Testing/Fixtures/make_nnunet_fixtures.py [CT_VOLUME]

Every fixture is a folder of `nnunet/` with the model as nnU-Net stores it, and `images.npz` with an image (C, D, H, W),
its spacing (D, H, W) and the expected labelmaps: `labels`, and `labels_mirrored` averaged over mirrored copies.
Both are computed in float32; nnU-Net blends tiles in half precision, whose result is in `labels_half`.
Weights are random: the heads are scaled so that every class is found. An optional CT volume gives a natural image.
"""

from __future__ import annotations

import json
import sys
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from nnunetv2.inference import predict_from_raw_data as nnunet
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from scipy import ndimage

FOLDER = Path(__file__).parent / "nnunet"
HALF = torch.half
RESAMPLING = {
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
    "resampling_fn_seg": "resample_data_or_seg_to_shape",
    "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
}
CT = {
    "mean": 40.0,
    "std": 60.0,
    "percentile_00_5": -100.0,
    "percentile_99_5": 180.0,
    "min": -1024.0,
    "max": 1500.0,
    "median": 40.0,
}


def architecture(dimensions: int, *, residual: bool = False, strides: list[list[int]] | None = None) -> dict[str, Any]:
    strides = strides or [[1] * dimensions, [2] * dimensions, [2] * dimensions]
    kernels = [[1 if strides[1][axis] == 1 and level == 0 else 3 for axis in range(dimensions)] for level in range(3)]
    options = {
        "n_stages": 3,
        "features_per_stage": [4, 6, 8],
        "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
        "kernel_sizes": kernels,
        "strides": strides,
        "n_blocks_per_stage" if residual else "n_conv_per_stage": [1, 2, 2] if residual else [2, 1, 2],
        "n_conv_per_stage_decoder": [1, 2],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    name = "unet.ResidualEncoderUNet" if residual else "unet.PlainConvUNet"
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.{name}",
        "arch_kwargs": options,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def configuration(patch: list[int], spacing: list[float], schemes: list[str], **others: Any) -> dict[str, Any]:
    return {
        "data_identifier": "tiny",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": patch,
        "median_image_size_in_voxels": patch,
        "spacing": spacing,
        "normalization_schemes": schemes,
        "use_mask_for_norm": [False] * len(schemes),
        "batch_dice": False,
        "architecture": architecture(len(patch)),
        **RESAMPLING,
        **others,
    }


def plans(
    name: str, configurations: dict[str, Any], *, transpose: list[int] | None = None, **others: Any
) -> dict[str, Any]:
    transpose = transpose or [0, 1, 2]
    return {
        "dataset_name": f"Dataset999_{name}",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "experiment_planner_used": "ExperimentPlanner",
        "transpose_forward": transpose,
        "transpose_backward": [transpose.index(axis) for axis in range(3)],
        "foreground_intensity_properties_per_channel": {"0": CT, "1": CT},
        "configurations": configurations,
        **others,
    }


def old_configuration(patch: list[int], spacing: list[float], schemes: list[str]) -> dict[str, Any]:
    values = configuration(patch, spacing, schemes)
    del values["architecture"]
    return {
        **values,
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 6,
        "n_conv_per_stage_encoder": [2, 2, 1],
        "n_conv_per_stage_decoder": [2, 1],
        "num_pool_per_axis": [2, 2, 2],
        "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        "conv_kernel_sizes": [[3, 3, 3], [3, 3, 3], [3, 3, 3]],
    }


def dataset(labels: dict[str, Any], channels: dict[str, str], **others: Any) -> dict[str, Any]:
    return {"channel_names": channels, "labels": labels, "numTraining": 7, "file_ending": ".nii.gz", **others}


def smooth_image(shape: tuple[int, ...], seed: int, *, scale: float = 100.0, border: int = 0) -> np.ndarray:
    """Return (C, D, H, W) of smooth noise rounded to whole numbers, with a border of zeros."""
    noise = np.random.default_rng(seed).normal(size=shape)
    image = ndimage.gaussian_filter(noise, (0, 1.2, 1.5, 1.5))
    image = np.round(image / image.std() * scale + 2 * scale).astype(np.int16)
    if border:
        inside = np.zeros(shape, dtype=bool)
        inside[:, border // 2 : shape[1] - border, border : shape[2] - border, border + 1 : shape[3] - 1] = True
        image[~inside] = 0
    return image


def write_model(
    folder: Path,
    name: str,
    plan: dict[str, Any],
    data: dict[str, Any],
    *,
    folds: int | tuple[str],
    mirror: Any,
    trainer: str = "nnUNetTrainer",
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plan, indent=1) + "\n")
    (folder / "dataset.json").write_text(json.dumps(data, indent=1) + "\n")
    manager = PlansManager(deepcopy(plan))
    configured = manager.get_configuration(name)
    labels = manager.get_label_manager(data)
    package = Path(sys.modules[nnUNetTrainer.__module__].__file__ or "").parent
    trainer_class = recursive_find_python_class(str(package), trainer, "nnunetv2.training.nnUNetTrainer")
    for number, fold in enumerate(range(folds) if isinstance(folds, int) else folds):
        torch.manual_seed(100 + number)
        network = trainer_class.build_network_architecture(
            manager,
            configured,
            determine_num_input_channels(manager, configured, data),
            labels.num_segmentation_heads,
            enable_deep_supervision="NoDeepSupervision" not in trainer,
        )
        state = network.state_dict()
        for key, value in state.items():
            # Norms and biases as after a training, so that a mistake in one of them shows.
            if (key.endswith("bias") or ".norm." in key) and value.is_floating_point():
                change = 0.3 * torch.randn(value.shape)
                if key.endswith("_var"):
                    value.copy_(0.1 * (1 + change.abs()))  # as of features that fade without statistics of images
                else:
                    value.add_(change)
        checkpoint = {
            "network_weights": state,
            "optimizer_state": {"state": {}, "param_groups": [{"lr": np.float64(1e-2)}]},
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float32(0.5)], "epoch_end_timestamps": [1.0]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 1000,
            "init_args": {
                "plans": plan,
                "configuration": name,
                "fold": fold,
                "dataset_json": data,
                "device": torch.device("cpu"),
            },
            "trainer_name": trainer,
            "inference_allowed_mirroring_axes": mirror,
        }
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")


def predict(
    folder: Path,
    image: np.ndarray,
    spacing: list[float],
    *,
    mirrored: bool,
    dtype: torch.dtype = torch.float32,
    found_first: np.ndarray | None = None,
) -> np.ndarray:
    weights_of = nnunet.compute_gaussian
    nnunet.compute_gaussian = partial(weights_of, dtype=dtype)
    torch.half = dtype
    try:
        predictor = nnunet.nnUNetPredictor(
            use_gaussian=True,
            use_mirroring=mirrored,
            perform_everything_on_device=False,
            device=torch.device("cpu"),
            allow_tqdm=False,
        )
        folds = ("all",) if (folder / "fold_all").is_dir() else None  # which it does not find by itself
        predictor.initialize_from_trained_model_folder(str(folder), folds, "checkpoint_final.pth")
        found_first = None if found_first is None else found_first[None].astype(np.float32)
        found = predictor.predict_single_npy_array(image.astype(np.float32), {"spacing": spacing}, found_first)
        return found.astype(np.uint8)
    finally:
        nnunet.compute_gaussian = weights_of
        torch.half = HALF
        weights_of.cache_clear()


def balance_heads(
    folder: Path,
    image: np.ndarray,
    spacing: list[float],
    *,
    values: list[int],
    found_first: np.ndarray | None = None,
) -> None:
    """Shift the biases of the heads, each of which gives one of `values`, until none takes more than its share."""
    paths = sorted(folder.glob("fold_*/checkpoint_final.pth"))
    for repetition in range(12):
        found = None if repetition == 0 else predict(folder, image, spacing, mirrored=False, found_first=found_first)
        for path in paths:
            checkpoint = torch.load(path, weights_only=False)
            state = checkpoint["network_weights"]
            finest = max(key for key in state if key.startswith("decoder.seg_layers.")).rpartition(".")[0]
            if found is None:
                state[finest + ".weight"] /= state[finest + ".weight"].std()
                state[finest + ".bias"] *= 0
            else:
                shares = np.array([np.mean(found == value) for value in values])
                state[finest + ".bias"] -= torch.from_numpy(shares - 1 / (max(values) + 1)).float() * 3
            torch.save(checkpoint, path)


def make(
    name: str,
    configuration_name: str,
    plan: dict[str, Any],
    data: dict[str, Any],
    image: np.ndarray,
    spacing: list[float],
    *,
    folds: int | tuple[str] = 1,
    mirror: Any = None,
    trainer: str = "nnUNetTrainer",
) -> None:
    folder = FOLDER / name / f"{trainer}__nnUNetPlans__{configuration_name}"
    write_model(folder, configuration_name, plan, data, folds=folds, mirror=mirror, trainer=trainer)
    heads = [value for name, value in data["labels"].items() if name != "ignore"]
    balance_heads(folder, image, spacing, values=data.get("regions_class_order", heads))
    labels = predict(folder, image, spacing, mirrored=False)
    arrays = {"image": image, "spacing_mm": np.array(spacing), "labels": labels}
    arrays["labels_half"] = predict(folder, image, spacing, mirrored=mirror is not None, dtype=HALF)
    if mirror is not None:
        arrays["labels_mirrored"] = predict(folder, image, spacing, mirrored=True)
    np.savez_compressed(FOLDER / name / "images.npz", **arrays)
    shares = np.bincount(labels.ravel()) / labels.size
    agreement = np.mean(arrays["labels_half"] == arrays.get("labels_mirrored", labels))
    size = sum(path.stat().st_size for path in (FOLDER / name).rglob("*") if path.is_file()) / 1000
    sys.stdout.write(f"{name}: shares {np.round(shares, 2)}, half precision agrees on {agreement:.5f}, {size:.0f} kB\n")


MR, TWO = {"0": "MRI"}, {"background": 0, "front": 1, "back": 2}


def main() -> None:
    torch.set_num_threads(1)
    isotropic = [1.0, 1.0, 1.0]
    fine = configuration([16, 16, 24], isotropic, ["ZScoreNormalization"])
    make(
        "plain3d",
        "3d_fullres",
        plans("Plain", {"3d_fullres": fine}),
        dataset(TWO, MR),
        smooth_image((1, 22, 26, 37), 0, border=4),
        [1.3, 0.9, 0.8],
    )
    if len(sys.argv) > 1:
        volume = sitk.ReadImage(sys.argv[1])
        array = sitk.GetArrayFromImage(volume)
        middle = [size // 2 for size in array.shape]
        crop = array[
            None, middle[0] - 12 : middle[0] + 12, middle[1] - 20 : middle[1] + 20, middle[2] - 24 : middle[2] + 24
        ]
        spacing = [float(f"{step:.9g}") for step in volume.GetSpacing()[::-1]]
        low = configuration([16, 24, 24], [4.5, 4.0, 4.0], ["CTNormalization"])
        inherited = {"3d_lowres": {"inherits_from": "base", "next_stage": "3d_cascade_fullres"}, "base": low}
        inherited["3d_cascade_fullres"] = {"inherits_from": "base", "previous_stage": "3d_lowres"}
        make(
            "lowres_ct", "3d_lowres", plans("CT", inherited), dataset(TWO, {"0": "CT"}), crop.astype(np.int16), spacing
        )
    flat = configuration([32, 24], [1.0, 1.0], ["ZScoreNormalization"])
    make(
        "slices2d",
        "2d",
        plans("Slices", {"2d": flat}),
        dataset(TWO, MR),
        smooth_image((1, 5, 40, 45), 1),
        [4.0, 0.8, 1.1],
        mirror=(0, 1),
    )
    picture = configuration([32, 32], [1.0, 1.0], ["RescaleTo01Normalization"])
    make(
        "picture2d",
        "2d",
        plans("Picture", {"2d": picture}),
        dataset(TWO, {"0": "grey"}),
        smooth_image((1, 1, 50, 45), 2),
        [999.0, 1.0, 1.0],
    )
    residual = configuration(
        [16, 16, 16], isotropic, ["ZScoreNormalization", "NoNormalization"], use_mask_for_norm=[True, True]
    )
    residual["architecture"] = architecture(3, residual=True, strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]])
    two_channels = smooth_image((2, 20, 24, 25), 3, border=3)
    two_channels[1] //= 100
    make(
        "residual3d",
        "3d_fullres",
        plans("Residual", {"3d_fullres": residual}),
        dataset(TWO, {"0": "T1", "1": "T2"}),
        two_channels,
        [1.0, 1.2, 1.0],
    )
    old = old_configuration([16, 16, 16], isotropic, ["ZScoreNormalization"])
    make(
        "old_plans",
        "3d_fullres",
        plans("Old", {"3d_fullres": old}),
        dataset(TWO, MR),
        smooth_image((1, 17, 20, 12), 4),
        isotropic,
    )
    thick = configuration(
        [8, 24, 24],
        [4.0, 1.0, 1.0],
        ["ZScoreNormalization"],
        architecture=architecture(3, strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]]),
    )
    make(
        "thick_transposed",
        "3d_fullres",
        plans("Thick", {"3d_fullres": thick}, transpose=[2, 0, 1]),
        dataset(TWO, MR),
        smooth_image((1, 30, 33, 11), 5),
        [0.9, 1.1, 5.0],
        mirror=(1, 2),
    )
    regions = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "active": [3]}
    make(
        "regions",
        "3d_fullres",
        plans(
            "Regions",
            {"3d_fullres": configuration([16, 16, 16], isotropic, ["ZScoreNormalization"], use_mask_for_norm=[True])},
        ),
        dataset(regions, MR, regions_class_order=[2, 1, 3]),
        smooth_image((1, 18, 20, 22), 6, border=2),
        [1.0, 1.0, 1.1],
    )
    lone = {"background": 0, "lesion": [1, 2], "ignore": 3}
    make(
        "lone_region_ignore",
        "3d_fullres",
        plans("Lone", {"3d_fullres": configuration([16, 16, 16], isotropic, ["ZScoreNormalization"])}),
        dataset(lone, MR, regions_class_order=[1]),
        smooth_image((1, 18, 17, 16), 7),
        isotropic,
    )
    ignoring = {**TWO, "ignore": 3}
    make(
        "two_folds_ignore",
        "3d_fullres",
        plans("Folds", {"3d_fullres": configuration([16, 16, 16], isotropic, ["ZScoreNormalization"])}),
        dataset(ignoring, MR),
        smooth_image((1, 18, 16, 15), 8),
        [1.0, 1.0, 0.9],
        folds=2,
        mirror=(0, 2),
    )
    make_trainers()


def make_trainers() -> None:
    """Make models of nnU-Net's other trainers: a fold of all cases, batch norm, no further outputs in training."""
    isotropic = [1.0, 1.0, 1.0]
    trainers: dict[str, tuple[str, int | tuple[str], Any]] = {
        "all_no_mirroring": ("nnUNetTrainerNoMirroring", ("all",), None),
        "batch_norm": ("nnUNetTrainerBN", 1, (0, 1, 2)),
        "no_deep_supervision": ("nnUNetTrainerNoDeepSupervision", 1, (0, 1, 2)),
    }
    for number, (name, (trainer, folds, mirror)) in enumerate(trainers.items()):
        make(
            name,
            "3d_fullres",
            plans("Trainer", {"3d_fullres": configuration([16, 16, 16], isotropic, ["ZScoreNormalization"])}),
            dataset(TWO, MR),
            smooth_image((1, 18, 17, 19), 20 + number),
            [1.0, 1.1, 0.9],
            folds=folds,
            mirror=mirror,
            trainer=trainer,
        )


if __name__ == "__main__":
    main()
