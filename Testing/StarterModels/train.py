"""Train a starter model by its recipe.

python Testing/StarterModels/train.py MODEL_ID --data FOLDER -o MODEL_FOLDER [further options of `unetseg train`]

FOLDER holds the data sets that recipes.json names. A recipe is a single call of `unetseg train`, or several (`begin`),
all of whose models but the last are put beside MODEL_FOLDER. Afterwards, `replay-of` names the starter model whose
crops the new one shares, and `replay-bytes` packs its own crops into that many bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from Testing.StarterModels.shared_replay import share_replay
from UNetSegmentationLib.cli import main
from UNetSegmentationLib.models.installed import bundled_models_folder
from UNetSegmentationLib.training.replay_packing import pack_replay

ROOT = Path(__file__).resolve().parents[2]
RECIPES_FILE = Path(__file__).with_name("recipes.json")


def trainings_of(model_id: str, recipes: dict[str, Any], data: Path, output: Path) -> list[list[str]]:
    """Return the arguments of `unetseg train` for each training of a model; each starts from the previous weights."""
    recipe = dict(recipes["models"][model_id])
    earlier = recipe.pop("begin", [])
    common = {name: recipe[name] for name in ("title", "data", "variant", "options")}
    folders = [output.with_name(f"{output.name}-{number}") for number in range(1, len(earlier) + 1)] + [output]
    trainings = []
    for number, (stage, folder) in enumerate(zip([*earlier, recipe], folders, strict=True)):
        arguments = arguments_of(model_id, common | stage, recipes, data)
        begins_with = ["--init", str(folders[number - 1])] if number else []
        trainings.append([*arguments, *begins_with, "-o", str(folder)])
    return trainings


def arguments_of(model_id: str, recipe: dict[str, Any], recipes: dict[str, Any], data: Path) -> list[str]:
    """Return the arguments of `unetseg train` for one training, except the output."""
    about = recipes["data"][recipe["data"]]
    arguments = [str(data / recipe["data"]), "--id", model_id, "--title", recipe["title"]]
    arguments += ["--variant", recipe["variant"], "--preset", about["preset"]]
    arguments += ["--labels", str(ROOT / "Resources" / "Labels" / about["labels"])]
    for name in ("data-licence", "data-source"):
        arguments += [f"--{name}", about[name]]
    if "channels" in about:
        arguments += ["--channels", *about["channels"]]
    for name, value in recipe.get("options", {}).items():
        arguments += ["--network-option", f"{name}={json.dumps(value)}"]
    if "plan" in recipe:
        arguments += ["--plan", str(RECIPES_FILE.with_name(recipe["plan"]))]
    arguments += [f"--{name}" for name in ("demonstration", "replay") if recipe.get(name)]
    for name in ("steps", "minutes", "learning-rate", "fold"):
        if name in recipe:
            arguments += [f"--{name}", str(recipe[name])]
    return arguments


def train(argv: list[str]) -> int:
    """Train the model named on the command line."""
    recipes = json.loads(RECIPES_FILE.read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=recipes["models"])
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="MODEL_FOLDER")
    known, further = parser.parse_known_args(argv)
    for training in trainings_of(known.model, recipes, known.data, known.output):
        if status := main(["train", *training, *further]):
            return status
    recipe = recipes["models"][known.model]
    if max_bytes := recipe.get("replay-bytes"):
        pack_replay(known.output, known.data / recipe["data"], max_bytes=max_bytes)
    if owner := recipe.get("replay-of"):
        share_replay(known.output, bundled_models_folder() / owner)
    return 0


if __name__ == "__main__":
    sys.exit(train(sys.argv[1:]))
