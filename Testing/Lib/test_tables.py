"""The generated documents say what the code gives."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from Testing.Docs.paper_configurations import PAPER_CONFIGURATIONS
from UNetSegmentationLib.losses import LOSSES
from UNetSegmentationLib.models.description import read_description
from UNetSegmentationLib.networks import NETWORKS
from UNetSegmentationLib.postprocess import STEPS
from UNetSegmentationLib.postprocess.probabilities import PROBABILITY_STEPS
from UNetSegmentationLib.training.options import TrainingOptions

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "NETWORKS.md").read_text(encoding="utf-8")


def test_the_file_is_up_to_date():
    answer = subprocess.run([sys.executable, ROOT / "Testing/Docs/make_tables.py", "--check"], check=False)
    assert answer.returncode == 0, "a file in docs is out of date: run python Testing/Docs/make_tables.py"


def test_every_entry_has_a_row():
    rows = [line.split(" | ")[0].strip("| ") for line in TEXT.splitlines() if line.startswith("| ")]
    for table in (NETWORKS, LOSSES, STEPS, PROBABILITY_STEPS):
        assert {f"`{name}`" for name in table} <= set(rows)
    for entry in PAPER_CONFIGURATIONS.values():
        assert entry.title in rows
        assert f"{entry.weights:,}" in TEXT


def test_every_recipe_is_that_of_a_model_that_ships():
    recipes = json.loads((ROOT / "Testing" / "StarterModels" / "recipes.json").read_text(encoding="utf-8"))
    assert set(recipes["models"]) == {path.parent.name for path in (ROOT / "Resources" / "Models").glob("*/model.json")}
    for name, recipe in recipes["models"].items():
        model = read_description(ROOT / "Resources" / "Models" / name)
        assert (model.title, model.network) == (recipe["title"], recipe["variant"])
        assert model.preset == recipes["data"][recipe["data"]]["preset"]
        training = model.training
        assert ("init" in training) == ("begin" in recipe)
        assert training["options"]["learning_rate"] == recipe.get("learning-rate", TrainingOptions().learning_rate)
        assert training["options"]["steps"] == recipe["steps"]
        assert training["replay"].get("shared", {}).get("model") == recipe.get("replay-of")
        assert {key: json.loads(json.dumps(model.network_config[key])) for key in recipe["options"]} == recipe[
            "options"
        ]


def test_a_change_touches_few_files(monkeypatch):
    """A section of the panel or an operation of the worker: at most four files."""
    monkeypatch.syspath_prepend(ROOT / "Testing/Docs")
    document = import_module("extending_document")
    assert {"segment", "import_model", "foresee"} <= set(document.operations())
    assert {name: files for name, files in document.operations().items() if len(files) > 4} == {}
    assert document.sections()
    assert {name: files for name, files in document.sections().items() if len(files) > 4} == {}


def test_an_importer_is_found_by_its_folder(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "Testing/Docs")
    assert import_module("extending_document").others_that_import("importers").keys() == {"nnunet", "monai"}
