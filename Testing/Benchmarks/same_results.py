"""Check that two checkouts produce bit-equal results on the command line: volumes, trainings, fine-tuning and imports.

    python Testing/Benchmarks/same_results.py OTHER_CHECKOUT [--work FOLDER]

Both run with this Python, one thread and plain torch; values that depend on the clock (durations, dates) are ignored.
It prints a line for each comparison and exits with 1 if any differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

ROOT = Path(__file__).parents[2]
CLOCKED = {"duration_s", "elapsed_s", "minutes", "date", "versions", "seconds", "peak_memory_mb", "left_s"}
TRAIN = ("--steps", "3", "--validate-every", "2", "--fold", "0/3", "--seed", "7", "--device", "cpu", "--quiet")


def main() -> int:
    """Compare and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, help="another checkout of the repository")
    parser.add_argument("--work", type=Path, help="folder for the results, kept; a temporary one by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = (arguments.work or Path(scratch)).resolve()
        make_images(work / "data")
        digests = []
        for name, checkout in (("here", ROOT), ("other", arguments.other.resolve())):
            produce(checkout, work / "data", work / name)
            digests.append(dict(read_results(work / name)))
    here, other = digests
    for name in sorted(here.keys() | other.keys()):
        is_same = here.get(name) == other.get(name)
        print(f"{'equal  ' if is_same else 'DIFFERS'} {name}")  # noqa: T201
    count = sum(here.get(name) == other.get(name) for name in here.keys() | other.keys())
    print(f"{count} of {len(here.keys() | other.keys())} results are bit-equal")  # noqa: T201
    return 0 if here == other else 1


def make_images(folder: Path) -> None:
    """Write a data set of six noisy balls, and the images of the imported models' fixtures as volumes."""
    rng = np.random.default_rng(0)
    for number in range(6):
        grid = np.indices((20, 24, 28))
        centre = rng.uniform(8, 14, 3)[:, None, None, None]
        distance = np.sqrt(((grid - centre) ** 2).sum(axis=0))
        labels = (distance < 6).astype(np.uint8) + (distance < 3)
        _write(rng.normal(size=labels.shape) + 2.0 * labels, folder / f"balls/images/case{number}.nii.gz")
        _write(labels, folder / f"balls/labels/case{number}.nii.gz")
    for archive in sorted((ROOT / "Testing/Fixtures").glob("*/*/images.npz")):
        name = f"{archive.parts[-3]}-{archive.parts[-2]}"
        with np.load(archive) as arrays:
            first = arrays[arrays.files[0]]
        if first.ndim == 4:
            for number, channel in enumerate(first):
                _write(channel, folder / f"{name}/{number}.nii.gz")


def _write(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array.astype(np.uint8 if array.dtype == np.uint8 else np.float32))
    image.SetSpacing((1.1, 0.9, 1.6))
    image.SetOrigin((-12.0, 7.0, 30.0))
    sitk.WriteImage(image, str(path))


def produce(checkout: Path, data: Path, out: Path) -> None:
    """Run every command in a checkout and keep its output in `out`."""
    out.mkdir(parents=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "UNETSEG_BACKEND": "eager",
        "UNETSEG_CACHE_DIR": str(out / "cache"),
        "OMP_NUM_THREADS": "1",
    }

    def run(name: str, *words: object) -> None:
        command = [sys.executable, "-m", "UNetSegmentationLib", *map(str, words)]
        done = subprocess.run(
            command,
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        (out / f"{name}.exit").write_text(f"{done.returncode}\n")
        if done.returncode:
            print(f"{checkout.name}: {name} ended with {done.returncode}: {done.stderr[-300:]}")  # noqa: T201

    samples = checkout / "Resources/Samples"
    for model in sorted(path.name for path in (checkout / "Resources/Models").iterdir()):
        kind = model.partition("-")[0]
        images = {"mri": "mri_hippocampus.nii.gz", "xray": "xray_lungs.png", "ct": "ct_demo.nii.gz"}
        if model != "ct-pet-mr-sarcoma":
            run(f"segment-{model}", "segment", samples / images[kind], "-o", out / f"{model}.nrrd", "--model", model)
    mri = samples / "mri_hippocampus.nii.gz"
    words = ("--model", "mri-hippocampus-unet", "--tta", "--probabilities", out / "p.nrrd")
    run("segment-tta", "segment", mri, "-o", out / "tta.nrrd", *words)
    run("plan", "plan", data / "balls", "--preset", "mri", "-o", out / "plan.json")
    for variant in ("unet", "attention_unet", "nnunet_plain"):
        run(f"train-{variant}", "train", data / "balls", "-o", out / variant, "--variant", variant, *TRAIN)
    words = ("--steps", "2", "--seed", "3", "--device", "cpu", "--quiet")
    run("finetune", "finetune", "mri-hippocampus-unet", data / "balls", "-o", out / "finetuned", *words)
    fixtures = checkout / "Testing/Fixtures"
    for folder in sorted(path.parent for path in fixtures.glob("*/*/images.npz")):
        name = f"{folder.parts[-2]}-{folder.name}"
        sources = [entry for entry in folder.iterdir() if entry.is_dir() and entry.name.startswith("nnUNetTrainer")]
        source = sorted(sources)[0] if sources else folder
        run(f"import-{name}", "import", source, "-o", out / name)
        images = sorted((data / name).glob("*.nii.gz"))
        if images:
            image = ",".join(map(str, images))
            run(f"segment-{name}", "segment", image, "-o", out / f"{name}.nrrd", "--model", out / name)


def read_results(out: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and a digest of every relevant output of the commands."""
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if name.startswith("cache/") or path.is_dir() or path.name in ("job.json", "finetuning.json", "CARD.md"):
            continue
        if path.suffix == ".nrrd":
            yield name, _digest(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).tobytes())
        elif path.suffix in (".json", ".jsonl"):
            text = path.read_text(encoding="utf-8")
            parts = [text] if path.suffix == ".json" else text.splitlines()
            plain = [_without_clock(json.loads(part)) for part in parts if part.strip()]
            yield name, _digest(json.dumps(plain, sort_keys=True).replace(str(out), "").encode())
        elif path.suffix in (".safetensors", ".exit"):
            yield name, _digest(path.read_bytes())


def _without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_clock(part) for key, part in value.items() if key not in CLOCKED}
    return [_without_clock(part) for part in value] if isinstance(value, list) else value


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
