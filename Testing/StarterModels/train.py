"""Train a starter model by its recipe.

python Testing/StarterModels/train.py MODEL_ID --data FOLDER -o MODEL_FOLDER [further options of `unetseg train`]

FOLDER holds the data sets that recipes.json names. A recipe is a call of `unetseg train` and nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from UNetSegmentationLib.cli import main

ROOT = Path(__file__).resolve().parents[2]
RECIPES_FILE = Path(__file__).with_name("recipes.json")


def arguments_of(model_id: str, recipes: dict[str, Any], data: Path) -> list[str]:
    """Return what follows `unetseg train` for a model."""
    recipe = recipes["models"][model_id]
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
    if recipe.get("demonstration"):
        arguments.append("--demonstration")
    for name in ("steps", "minutes", "learning-rate", "fold"):
        if name in recipe:
            arguments += [f"--{name}", str(recipe[name])]
    return arguments


def train(argv: list[str]) -> int:
    """Train the model that the command line names."""
    recipes = json.loads(RECIPES_FILE.read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=recipes["models"])
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    known, further = parser.parse_known_args(argv)
    return main(["train", *arguments_of(known.model, recipes, known.data), *further])


if __name__ == "__main__":
    sys.exit(train(sys.argv[1:]))
