"""Sentences are taken apart by the templates of the sources, and come together again, in any language."""

import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from UNetSegmentationLib.core.messages import CATALOGUE, fill, to_template
from UNetSegmentationLib.core.task import Task
from UNetSegmentationLib.protocol.lines import with_templates

ROOT = Path(__file__).parents[2]
TEMPLATES = json.loads(CATALOGUE.read_text(encoding="utf-8"))


def test_the_catalogue_is_up_to_date():
    answer = subprocess.run([sys.executable, ROOT / "Testing/Docs/make_messages.py", "--check"], check=False)
    assert answer.returncode == 0, "the catalogue of messages is out of date: run python Testing/Docs/make_messages.py"


@given(st.sampled_from(TEMPLATES), st.lists(st.text(max_size=20), min_size=12, max_size=12))
@settings(max_examples=300, deadline=None)
def test_every_sentence_comes_together_again(template, values):
    text = fill({"template": template, "values": values})
    assert fill(to_template(text)) == text


@given(st.text(max_size=300))
@settings(deadline=None)
def test_any_text_comes_together_again(text):
    assert fill(to_template(text)) == text


def test_a_sentence_is_said_in_another_language_with_its_values_in_another_order():
    text = "the image has values down to -1024, as CT has, but the model is for MRI: do not rely on the result"
    found = to_template(text)
    assert found["values"] == ["-1024", "MRI"]
    german = {found["template"]: "Das Modell ist für {1}, das Bild reicht bis {0}: verlassen Sie sich nicht darauf"}
    assert fill(found, german.__getitem__).startswith("Das Modell ist für MRI, das Bild reicht bis -1024")


def test_a_sentence_within_a_sentence_is_translated_too():
    seen = []
    task = Task(lambda event: seen.append(event["stage"]))
    task.part(0, 1, stage="First stage").progress(0.5, "Segmenting")
    german = {"First stage": "Erste Stufe", "Segmenting": "Segmentieren"}
    assert fill(to_template(seen[0]), lambda text: german.get(text, text)) == "Erste Stufe: Segmentieren"


def test_a_message_carries_templates_of_all_its_sentences():
    message = with_templates(
        {"event": "result", "warnings": ("on the CPU", "unheard of"), "warning": "", "fraction": 1}
    )
    assert message["said"]["unheard of"] == {"template": "unheard of", "values": []}
    assert message["said"]["on the CPU"] == {"template": "on the {0}", "values": ["CPU"]}
    assert "said" not in with_templates({"event": "cancelled"})


@pytest.mark.parametrize("text", [": " * 900, "a and b " * 240, "'x' is 1: give 2 " * 110, "model " * 3000])
def test_a_text_made_to_take_long_does_not(text):
    to_template("warm")
    began = time.perf_counter()
    assert fill(to_template(text)) == text
    assert time.perf_counter() - began < 5


def test_templates_number_equal_values_alike(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "Testing/Docs")
    source = "raise InputError(f'{name} has {len(a)}: {name}')\nwarnings.append('w' if x else f'{y} v')\nprint('no')"
    assert list(import_module("make_messages").templates_in(source)) == ["{0} has {1}: {0}", "w", "{0} v"]
