"""What is read of a MONAI bundle, and what is refused by name."""

import json
import os
import shutil
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks import nets

from UNetSegmentationLib.cli import main
from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.importers import ImportOptions, import_model
from UNetSegmentationLib.importers.monai.references import BundleConfiguration, Code
from UNetSegmentationLib.inference.predictor import Predictor
from UNetSegmentationLib.models.description import read_description

FIXTURES = Path(__file__).parents[1] / "Fixtures" / "monai"
NAMES = sorted(path.name for path in FIXTURES.iterdir())
AGREEMENT = 0.9999


def case_in(name: str) -> tuple[Volume, np.ndarray]:
    with np.load(FIXTURES / name / "images.npz") as arrays:
        return Volume(arrays["image"], arrays["affine_ras"]), arrays["labels"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / "slices", tmp_path / "bundle"))


def change(bundle: Path, key: str, value: object, *, file: str = "inference.json") -> None:
    path = bundle / "configs" / file
    values = json.loads(path.read_text())
    *parents, last = key.split(".")
    place = values
    for part in parents:
        place = place[int(part) if part.isdigit() else part]
    place[int(last) if last.isdigit() else last] = value
    path.write_text(json.dumps(values))


def transforms(bundle: Path, *entries: dict, kind: str = "preprocessing") -> None:
    keys = "image" if kind == "preprocessing" else "pred"
    change(bundle, f"{kind}.transforms", [{"keys": keys, **entry} for entry in entries])


def refuse(bundle: Path, message: str, *, options: ImportOptions | None = None) -> None:
    output = bundle.parent / "model"
    with pytest.raises(InputError, match=message) as caught:
        import_model(bundle, output, options=options)
    assert "\n" not in str(caught.value)
    assert not output.exists()


def test_what_the_metadata_say_comes_along(tmp_path: Path) -> None:
    model = import_model(FIXTURES / "nested_regions", tmp_path / "model")
    description = read_description(tmp_path / "model")
    assert json.dumps(description.to_dict()) == json.dumps(model.description.to_dict())
    assert [channel.name for channel in description.channels] == ["T1c", "T1", "T2", "FLAIR"]
    assert [(label.name, label.value) for label in description.labels] == [
        ("Whole tumor", 2),
        ("Tumor core", 1),
        ("Enhancing tumor", 4),
    ]
    assert (description.output, description.preset, description.network) == ("regions", "mri", "segresnet")
    assert description.licence.startswith("CC0 1.0 Universal")
    card = (tmp_path / "model" / "CARD.md").read_text(encoding="utf-8")
    for words in ("version 0.1.0", "Authors: Made by a script", "Copyright: None", "Cite: Nobody", "CC0 1.0 Universal"):
        assert words in card
    assert model.warnings == ()


def test_regions_without_a_rule_are_painted_from_the_outermost_or_warned_of(tmp_path: Path, bundle: Path) -> None:
    nested = Path(shutil.copytree(FIXTURES / "nested_regions", tmp_path / "nested"))
    path = nested / "configs" / "inference.json"
    values = json.loads(path.read_text())
    values["postprocessing"]["transforms"] = values["postprocessing"]["transforms"][:2]
    path.write_text(json.dumps(values))
    model = import_model(nested, tmp_path / "first")
    assert [label.name for label in model.description.labels] == ["Whole tumor", "Tumor core", "Enhancing tumor"]
    assert [label.value for label in model.description.labels] == [1, 2, 3]
    assert any("a region is kept where its probability is above 0.5" in sentence for sentence in model.warnings)
    transforms(bundle, {"_target_": "Activationsd", "sigmoid": True}, kind="postprocessing")
    model = import_model(bundle, tmp_path / "second")
    assert any("painted in this order, background, front, back" in sentence for sentence in model.warnings)


def test_the_command_imports_folder_and_archive_and_segments_alike(tmp_path: Path, capsys) -> None:
    archive = tmp_path / "bundle.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for path in (FIXTURES / "slices").rglob("*"):
            opened.write(path, path.relative_to(FIXTURES))
    for source, name in ((archive, "zip"), (FIXTURES / "slices", "folder")):
        assert main(["import", str(source), "-o", str(tmp_path / name), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["model"]["licence"].startswith("CC0")
    first, second = (read_description(tmp_path / name) for name in ("zip", "folder"))
    assert first == second
    assert (first.id, first.network, first.plan.dimensions) == ("monai-fixture-slices", "residual_unet", 2)
    assert (tmp_path / "zip" / "weights.safetensors").read_bytes() == (
        tmp_path / "folder" / "weights.safetensors"
    ).read_bytes()


def test_weights_lie_under_the_key_of_a_training_or_of_a_wrapper(bundle: Path, tmp_path: Path) -> None:
    path = bundle / "models" / "model.pt"
    state = torch.load(path, weights_only=True)
    torch.save({"network": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}, path)
    wrapped = import_model(bundle, tmp_path / "model").network.state_dict()
    plain = import_model(FIXTURES / "slices", tmp_path / "plain").network.state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in wrapped.items())


def test_the_file_that_the_bundle_loads_is_taken(bundle: Path, tmp_path: Path) -> None:
    (bundle / "models" / "model.pt").rename(bundle / "models" / "best.pt")
    refuse(bundle, r"model\.pt is missing")
    change(bundle, "checkpointloader.load_path", "$@bundle_root + '/models/' + @name")
    change(bundle, "name", "best.pt")
    import_model(bundle, tmp_path / "model")


class Bomb:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def test_code_in_the_weights_is_refused_and_never_runs(bundle: Path, tmp_path: Path) -> None:
    torch.save({"model": Bomb(tmp_path / "ran")}, bundle / "models" / "model.pt")
    refuse(bundle, r"(posix|nt)\.mkdir.*save the state dictionary")
    assert not (tmp_path / "ran").exists()


def test_code_in_the_configuration_never_runs(bundle: Path, tmp_path: Path) -> None:
    code = f"$__import__('os').mkdir({str(tmp_path / 'ran')!r})"
    change(bundle, "imports", [code])
    change(bundle, "initialize", [code])
    import_model(bundle, tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    for key in (
        "network_def.in_channels",
        "preprocessing.transforms.0",
        "inferer.roi_size",
        "inferer",
        "preprocessing",
    ):
        change(bundle, key, code)
        refuse(bundle, "which is code and never run|no whole number")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_weights_that_were_cut_off_are_refused(bundle: Path, share: float) -> None:
    path = bundle / "models" / "model.pt"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refuse(bundle, "damaged")


def test_weights_of_another_network_are_refused(bundle: Path) -> None:
    path = bundle / "models" / "model.pt"
    state = torch.load(path, weights_only=True)
    torch.save({**state, "extra.weight": torch.ones(2)}, path)
    refuse(bundle, r"more than the bundle's UNet \(extra\.weight\)")
    torch.save({name: value for name, value in state.items() if "residual" not in name}, path)
    refuse(bundle, "do not fit the bundle's UNet|lack")
    torch.save(state, path)
    change(bundle, "network_def.channels", [4, 8, 6])
    refuse(bundle, "do not fit the bundle's UNet")
    torch.save({}, path)
    refuse(bundle, "no weights")


@pytest.mark.parametrize("name", ["configs/inference.json", "models/model.pt"])
def test_missing_files_are_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    refuse(bundle, Path(name).name.replace(".", r"\."))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_files_that_are_no_object_are_refused(bundle: Path, text: str) -> None:
    for name in ("inference.json", "metadata.json"):
        kept = (bundle / "configs" / name).read_text()
        (bundle / "configs" / name).write_text(text)
        refuse(bundle, name.replace(".", r"\."))
        (bundle / "configs" / name).write_text(kept)


def test_torchscript_is_loaded_only_where_the_user_allows_code(bundle: Path, tmp_path: Path) -> None:
    path = bundle / "models" / "model.pt"
    state = torch.load(path, weights_only=True)
    values = json.loads((bundle / "configs" / "inference.json").read_text())["network_def"]
    network = nets.UNet(**{key: value for key, value in values.items() if key != "_target_"})
    network.load_state_dict(state)
    script = bundle / "models" / "model.ts"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network.eval(), torch.zeros(1, 1, 16, 16)).save(script)
    import_model(bundle, tmp_path / "preferred")
    path.unlink()
    refuse(bundle, "TorchScript, that is, code: add models/model.pt, or allow code to be run")
    assert main(["import", str(bundle), "-o", str(tmp_path / "allowed"), "--allow-code"]) == 0
    first, second = (tmp_path / name / "weights.safetensors" for name in ("preferred", "allowed"))
    assert first.read_bytes() == second.read_bytes()
    script.write_bytes(script.read_bytes()[:500])
    refuse(bundle, "cannot be loaded", options=ImportOptions(allow_code=True))


def test_an_archive_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "bundle.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.write(FIXTURES / "slices" / "configs" / "metadata.json", "b/configs/metadata.json")
        opened.writestr(zipfile.ZipInfo("b/../../model.pt"), "")
    with pytest.raises(InputError, match="leads out of its folder"):
        import_model(archive, tmp_path / "model")


def test_several_bundles_are_refused_by_name(tmp_path: Path) -> None:
    for name in ("slices", "cropped"):
        shutil.copytree(FIXTURES / name, tmp_path / "zoo" / name)
    refuse(tmp_path / "zoo", "several bundles, cropped, slices")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("network_def", {"_target_": "SwinUNETR"}, "'SwinUNETR', which is not supported: UNet, SegResNet"),
        ("network_def", {"_target_": "scripts.nets.UNet"}, r"'scripts\.nets\.UNet', which is not supported"),
        ("network_def", "$my_network()", r"'\$my_network\(\)', which is code"),
        ("network_def", {}, "does not name a network"),
        ("network_def.norm", "layer", "norm 'layer'"),
        ("network_def.norm", ["group", {"num_groups": 3}], "3 groups"),
        ("network_def.norm", ["instance", {"eps": 0.1}], "eps is 0.1"),
        ("network_def.act", "swish", "activation 'swish'"),
        ("network_def.adn_ordering", "AND", "adn_ordering is 'AND'"),
        ("network_def.channels", "many", "channels is 'many'"),
        ("network_def.strides", [2], "strides are"),
        ("network_def.kernel_size", [3, 5, 7], "kernel_size is"),
        ("network_def.spatial_dims", 1, "spatial dimensions"),
        ("network_def.attention", True, "options attention"),
        ("inferer", {"_target_": "SaliencyInferer"}, "inferer 'SaliencyInferer'"),
        ("inferer", None, "no inferer"),
        ("inferer.overlap", [0.5, 0.25], "overlap is"),
        ("inferer.overlap", 1.5, "overlap is 1.5"),
        ("inferer.sigma_scale", [0.1, 0.2], "sigma_scale is"),
        ("inferer.mode", "median", "weights is 'median'"),
        ("inferer.padding_mode", "circular", "padding is 'circular'"),
        ("inferer.roi_size", "large", "roi_size is 'large'"),
        ("inferer.spatial_dim", 3, "spatial_dim 3"),
        ("preprocessing", 3, "preprocessing is 3"),
        ("preprocessing.transforms.0", "LoadImaged", "which is not a transform"),
        ("preprocessing.transforms.0", {"_target_": "Spacingd", "_disabled_": "$f()"}, "may switch off"),
        ("preprocessing", "@absent", "'absent', which is missing"),
        ("preprocessing", "@preprocessing", "circle"),
        ("preprocessing", "%other.json#preprocessing", "another file"),
        ("postprocessing", None, "neither Activations nor AsDiscrete"),
    ],
)
def test_what_has_no_equal_is_refused_by_name(bundle: Path, key: str, value: object, message: str) -> None:
    change(bundle, key, value)
    refuse(bundle, message)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"_target_": "Resized"}], "transform 'Resized'"),
        ([{"_target_": "my.Spacingd"}], r"transform 'my\.Spacingd'"),
        ([{"_target_": "Spacingd", "pixdim": [1, 1, 1], "mode": 3}], "mode is 3"),
        ([{"_target_": "Spacingd", "pixdim": [1, 1, 1], "padding_mode": "zeros"}], "padding_mode is 'zeros'"),
        ([{"_target_": "Spacingd", "pixdim": "1"}], "pixdim is '1'"),
        ([{"_target_": "Spacingd", "pixdim": 1, "max_pixdim": 2}], "max_pixdim"),
        ([{"_target_": "Spacingd", "pixdim": 1}, {"_target_": "Spacingd", "pixdim": 1}], "Resample occurs twice"),
        ([{"_target_": "Spacingd", "pixdim": 1}, {"_target_": "Orientationd", "axcodes": "RAS"}], "comes after"),
        ([{"_target_": "Orientationd", "axcodes": "RA"}], "orientation is 'RA'"),
        ([{"_target_": "Orientationd", "axcodes": "RAS", "labels": [["A", "B"]]}], "labels are"),
        ([{"_target_": "CropForegroundd", "select_fn": "$lambda x: x > -1"}], "select_fn is .* code"),
        ([{"_target_": "CropForegroundd", "source_key": "label"}], "crops by 'label'"),
        ([{"_target_": "CropForegroundd", "margin": 2, "mode": "edge"}], "mode is 'edge'"),
        ([{"_target_": "CropForegroundd", "margin": 2}, {"_target_": "Spacingd", "pixdim": 1}], "swap the two"),
        ([{"_target_": "ScaleIntensityRanged"}], "no a_min and a_max"),
        ([{"_target_": "ScaleIntensityRanged", "a_min": 0, "a_max": 1, "b_min": 0}], "b_min and b_max are"),
        ([{"_target_": "ScaleIntensityRanged", "a_min": 1, "a_max": 1}], "two different values"),
        ([{"_target_": "ScaleIntensityRangePercentilesd", "lower": 9, "upper": 1}], "increasing"),
        ([{"_target_": "ScaleIntensityRangePercentilesd", "lower": "a", "upper": 1}], "only a number"),
        ([{"_target_": "NormalizeIntensityd", "subtrahend": [1, 2]}], "set is_each_channel"),
        ([{"_target_": "NormalizeIntensityd", "subtrahend": ["a"]}], "only numbers"),
        ([{"_target_": "CastToTyped", "dtype": "$torch.int16"}], r"dtype is 'torch\.int16'"),
    ],
)
def test_transforms_that_have_no_equal_are_refused_by_name(bundle: Path, entries: list, message: str) -> None:
    transforms(bundle, *entries)
    refuse(bundle, message)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"_target_": "MeanEnsembled"}], "'MeanEnsembled', which is not supported"),
        ([{"_target_": "Activationsd", "other": "$torch.tanh"}], "other is"),
        ([{"_target_": "AsDiscreted", "threshold": 0.3}], "threshold is 0.3"),
        ([{"_target_": "AsDiscreted", "threshold": 0.5}], "thresholds the logits"),
        ([{"_target_": "AsDiscreted", "argmax": True, "rounding": "torchrounding"}], "rounding is"),
        (
            [{"_target_": "Activationsd", "softmax": True}, {"_target_": "AsDiscreted", "threshold": 0.5}],
            "threshold of a",
        ),
        ([{"_target_": "Activationsd", "sigmoid": True}, {"_target_": "AsDiscreted", "argmax": True}], "argmax of a"),
        ([{"_target_": "AsDiscreted", "argmax": True}, {"_target_": "Invertd", "post_func": "$f"}], "post_func is"),
        (
            [
                {"_target_": "Activationsd", "sigmoid": True},
                {"_target_": "AsDiscreted", "threshold": 0.5},
                {"_target_": "Lambdad", "func": "$lambda x: x + 1"},
            ],
            "code and never run",
        ),
        (
            [
                {"_target_": "Activationsd", "sigmoid": True},
                {"_target_": "AsDiscreted", "threshold": 0.5},
                {"_target_": "Lambdad", "func": "$lambda x: torch.where(x[[7]] > 0, 4, 0)"},
            ],
            r"paints the outputs \[7\] of 3",
        ),
        (
            [
                {"_target_": "AsDiscreted", "argmax": True},
                {"_target_": "KeepLargestConnectedComponentd", "connectivity": 1},
            ],
            "connectivity is 1",
        ),
    ],
)
def test_results_that_have_no_equal_are_refused_by_name(bundle: Path, entries: list, message: str) -> None:
    transforms(bundle, *entries, kind="postprocessing")
    refuse(bundle, message)


def test_the_largest_components_become_a_step_and_are_told_of(bundle: Path, tmp_path: Path) -> None:
    argmax = {"_target_": "AsDiscreted", "argmax": True}
    largest = {"_target_": "KeepLargestConnectedComponentd", "applied_labels": [1, 2]}
    transforms(bundle, argmax, largest, {"_target_": "Invertd", "nearest_interp": False}, kind="postprocessing")
    transforms(bundle, {"_target_": "Spacingd", "pixdim": [1, 1, -1]})
    model = import_model(bundle, tmp_path / "model")
    assert model.description.postprocess == ("keep_largest_component:regions=1/2",)
    assert "kept on the image's grid" in model.warnings[0]
    assert "the nearest is used" in model.warnings[1]
    volume, _ = case_in("slices")
    result = Predictor(tmp_path / "model", device="cpu").segment(volume)
    assert result.labelmap.shape == volume.shape


def test_expressions_of_plain_data_are_understood_and_others_kept_as_code() -> None:
    values = {
        "sizes": [4, "$2 ** 3", "$1.5 * 2"],
        "nested": {"flag": True},
        "chosen": "$'yes' if @nested#flag else 'no'",
        "old": "@nested::flag",
        "count": "$len(@sizes) - 1",
        "path": "$@root + '/models/model.pt'",
        "root": ".",
        "key": "$monai.utils.CommonKeys.IMAGE",
        "moved": "$@network.to(@device)",
        "network": {"_target_": "UNet"},
        "device": "$torch.device('cpu')",
        "kind": "$torch.float32",
        "table": "${'a': [1, (2, 3)], 'b': None}",
        "same": "%nested",
        "long": "$[0] * 100000000",
        "huge": "$" + "(" * 5000,
        "text": "@ is no reference",
    }
    configuration = BundleConfiguration(values, "inference.json")
    expected = {
        "sizes#2": 3.0,
        "chosen": "yes",
        "old": True,
        "count": 2,
        "path": "./models/model.pt",
        "key": "image",
        "moved": {"_target_": "UNet"},
        "kind": "torch.float32",
        "table": {"a": [1, [2, 3]], "b": None},
        "same": {"flag": True},
        "text": "@ is no reference",
        "absent": None,
    }
    assert {key: configuration.get(key) for key in expected} == expected
    for key in ("sizes#1", "device", "long", "huge"):
        assert isinstance(configuration.get(key), Code)


def test_yaml_needs_its_package(bundle: Path, monkeypatch) -> None:
    path = bundle / "configs" / "inference.json"
    path.rename(path.with_suffix(".yaml"))
    monkeypatch.setitem(sys.modules, "yaml", None)
    refuse(bundle, r"inference\.yaml is YAML, which needs the package PyYAML: install it, or save the file as JSON")


def test_yaml_is_read_as_json_is(bundle: Path, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    path = bundle / "configs" / "inference.json"
    path.with_suffix(".yaml").write_text(yaml.safe_dump(json.loads(path.read_text())))
    path.unlink()
    import_model(bundle, tmp_path / "model")
    path.with_suffix(".yaml").write_text("a: [1")
    with pytest.raises(InputError, match="cannot be read"):
        import_model(bundle, tmp_path / "other")
