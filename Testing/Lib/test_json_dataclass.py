"""JSON of dataclasses: what is written comes back equal, and what does not fit is refused in one sentence."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import UNetSegmentationLib
from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.core.json_dataclass import (
    NOT_STORED,
    OMITTED_AT_DEFAULT,
    JsonDataclass,
    JsonOutput,
    written_by,
)
from UNetSegmentationLib.models.description import read_description, write_description
from UNetSegmentationLib.planning.plan import Plan

ROOT = Path(__file__).parents[2]
MODELS = sorted(path.parent for path in (ROOT / "Resources" / "Models").rglob("model.json"))
GOLDEN = sorted((ROOT / "Testing" / "Lib" / "golden").glob("*.json"))


@dataclass(frozen=True, kw_only=True)
class Circle(JsonDataclass):
    kind: Literal["circle"] = field(default="circle", init=False)
    radius_mm: float

    def __post_init__(self) -> None:
        self.require(self.radius_mm >= 0, f"radius_mm is {self.radius_mm}: give 0 or more")


@dataclass(frozen=True, kw_only=True)
class Box(JsonDataclass):
    kind: Literal["box"] = field(default="box", init=False)
    size_mm: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Place(JsonDataclass):
    name: str
    folder: Path = field(metadata=NOT_STORED)


@dataclass(frozen=True, kw_only=True)
class Drawing(JsonDataclass):
    schema_version: ClassVar[int] = 3

    title: str
    file: Path
    shapes: tuple[Circle | Box, ...]
    places: dict[str, Place]
    shares: dict[int, float] | None = None
    mixed: tuple[int, str] = (1, "a")
    mode: Literal["fast", "exact"] = "fast"
    is_final: bool = False
    count: int = 0
    mark: Circle | None = field(default=None, metadata=OMITTED_AT_DEFAULT)
    notes: dict[str, Any] = field(default_factory=dict, metadata=OMITTED_AT_DEFAULT)
    shouted: str = field(default="", metadata=written_by(str.upper))


FOLDER = Path("somewhere")
LEAST = {"schema_version": 3, "title": "t", "file": "/f", "shapes": [], "places": {}}
finite = st.floats(allow_nan=False, allow_infinity=False)
circles = st.builds(Circle, radius_mm=finite.map(abs))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
drawings = st.builds(
    Drawing,
    title=st.text(),
    file=st.text("abc", min_size=1).map(lambda name: Path("/") / name),
    shapes=st.lists(circles | st.builds(Box, size_mm=st.tuples(finite, st.integers(-9, 9)))).map(tuple),
    places=st.dictionaries(st.text(), st.builds(Place, name=st.text(), folder=st.just(FOLDER))),
    shares=st.none() | st.dictionaries(st.integers(), finite),
    mixed=st.tuples(st.integers(), st.text()),
    mode=st.sampled_from(["fast", "exact"]),
    is_final=st.booleans(),
    count=st.integers(),
    mark=st.none() | circles,
    notes=st.dictionaries(st.text(), json_values),
)


@given(drawing=drawings)
def test_what_is_written_comes_back_equal(drawing: Drawing) -> None:
    text = json.dumps(drawing.to_dict(), allow_nan=False)
    back = Drawing.from_dict(json.loads(text), folder=FOLDER)
    assert back == drawing
    assert json.dumps(back.to_dict()) == text


def test_plain_values_are_written_in_the_order_of_the_fields() -> None:
    drawing = Drawing(
        title="t",
        file=Path("/f"),
        shapes=(Circle(radius_mm=1), Box(size_mm=(1.0, 2.0))),
        places={"p": Place(name="n", folder=FOLDER)},
        shares={2: 0.5},
        shouted="loud",
    )
    expected = {
        "schema_version": 3,
        "title": "t",
        "file": str(Path("/f").absolute()),
        "shapes": [{"kind": "circle", "radius_mm": 1}, {"kind": "box", "size_mm": [1.0, 2.0]}],
        "places": {"p": {"name": "n"}},
        "shares": {"2": 0.5},
        "mixed": [1, "a"],
        "mode": "fast",
        "is_final": False,
        "count": 0,
        "shouted": "LOUD",
    }
    assert json.dumps(drawing.to_dict()) == json.dumps(expected)


def test_paths_are_written_so_that_another_working_directory_finds_them() -> None:
    values = Drawing(title="t", file=Path("near"), shapes=(), places={}).to_dict()
    assert values["file"] == str(Path.cwd() / "near")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1, "aim": 2}, "Drawing has no field aim, colour: choose from title, file, shapes, places, shares,"),
        (
            {"schema_version": 4},
            "schema_version is 4, this version reads 3: update the software or export the file again",
        ),
        ({"title": 5}, "Drawing: title is 5: give a string"),
        ({"file": 5}, "Drawing: file is 5: give a path"),
        ({"shapes": 5}, "Drawing: shapes is 5: give a list of objects"),
        ({"shapes": [5]}, "Drawing: shapes is [5]: give a list of objects"),
        ({"shapes": [{"kind": "star"}]}, "kind is 'star': choose circle, box"),
        ({"shapes": [{"radius_mm": 1}]}, "kind is None: choose circle, box"),
        ({"shapes": [{"kind": "circle"}]}, "Circle lacks radius_mm: add every field that has no default"),
        ({"shapes": [{"kind": "circle", "radius_mm": -1}]}, "Circle: radius_mm is -1: give 0 or more"),
        ({"shapes": [{"kind": "circle", "radius_mm": True}]}, "Circle: radius_mm is True: give a finite number"),
        ({"shapes": [{"kind": "box", "size_mm": [1]}]}, "Box: size_mm is [1]: give a list of 2 finite numbers"),
        ({"places": {"p": {"name": "n", "folder": "f"}}}, "Place has no field folder: choose from name"),
        ({"places": [1]}, "Drawing: places is [1]: give an object of objects"),
        ({"shares": {"x": 1}}, "Drawing: shares is {'x': 1}: give an object of finite numbers or null"),
        ({"shares": {"1": float("inf")}}, "Drawing: shares is {'1': inf}: give an object of finite numbers or null"),
        ({"mixed": ["a", 1]}, "Drawing: mixed is ['a', 1]: give a list of 2: a whole number, a string"),
        ({"mode": "slow"}, "Drawing: mode is 'slow': give 'fast' or 'exact'"),
        ({"is_final": 1}, "Drawing: is_final is 1: give true or false"),
        ({"count": True}, "Drawing: count is True: give a whole number"),
        ({"count": 1.0}, "Drawing: count is 1.0: give a whole number"),
        ({"count": None}, "Drawing: count is None: give a whole number"),
        ({"mark": []}, "Drawing: mark is []: give an object or null"),
        ({"mark": {"kind": "box", "radius_mm": 1}}, "Circle: kind is 'box': give 'circle'"),
        ({"notes": {"a": [float("nan")]}}, "Drawing: notes is {'a': [nan]}: give an object of any values"),
        ({"title": ["x" * 1000]}, "Drawing: title is ['" + "x" * 98 + "...: give a string"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refusal:
        Drawing.from_dict({**LEAST, **changes}, folder=FOLDER)
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


def test_all_missing_fields_are_named() -> None:
    with pytest.raises(InputError, match="Drawing lacks title, shapes, places: add every field"):
        Drawing.from_dict({"schema_version": 3, "file": "f"})
    with pytest.raises(InputError, match="schema_version is None, this version reads 3"):
        Drawing.from_dict({})


@pytest.mark.parametrize("values", [None, 5, "x", [], [("title", "t")]])
def test_what_is_no_object_is_refused(values: Any) -> None:
    with pytest.raises(InputError, match=r"Drawing is .*: give an object"):
        Drawing.from_dict(values)


def test_whole_numbers_stay_whole_where_any_number_is_allowed() -> None:
    assert json.dumps(Circle.from_dict({"radius_mm": 2}).to_dict()["radius_mm"]) == "2"
    assert Circle.from_dict({"radius_mm": 10**400}).radius_mm == 10**400


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_cannot_hold_are_not_written(number: float) -> None:
    with pytest.raises(InputError, match=rf"Box: size_mm is {number}, which JSON does not allow: give finite numbers"):
        Box(size_mm=(1.0, number)).to_dict()
    with pytest.raises(InputError, match="Drawing: notes is"):
        Drawing(title="t", file=FOLDER, shapes=(), places={}, notes={"a": [{"b": number}]}).to_dict()


def test_what_has_no_form_in_json_is_a_fault_of_ours() -> None:
    with pytest.raises(TypeError, match="set cannot be written as JSON"):
        Drawing(title="t", file=FOLDER, shapes=(), places={}, notes={"a": {1}}).to_dict()


def test_what_is_only_written_has_no_reader() -> None:
    assert not hasattr(JsonOutput, "from_dict")


# The library's own.
def _kinds_of(base: type) -> Iterator[type[JsonDataclass]]:
    for kind in base.__subclasses__():
        if kind.__module__.startswith(UNetSegmentationLib.__name__):
            yield kind
        yield from _kinds_of(kind)


def _all_kinds() -> list[type[JsonDataclass]]:
    for module in pkgutil.walk_packages(UNetSegmentationLib.__path__, f"{UNetSegmentationLib.__name__}."):
        # The benchmarks of other tools need those tools, and a __main__ runs.
        if ".benchmark" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return sorted(set(_kinds_of(JsonDataclass)), key=lambda kind: kind.__qualname__)


def test_every_dataclass_refuses_a_field_that_it_does_not_know() -> None:
    kinds = _all_kinds()
    assert {"ModelDescription", "SegmentRequest", "TrainingJob", "UNetConfig", "FinetuningJob"} <= {
        kind.__name__ for kind in kinds
    }
    for kind in kinds:
        version = {} if kind.schema_version is None else {"schema_version": kind.schema_version}
        with pytest.raises(InputError, match=f"{kind.__name__} has no field misspelt: choose from"):
            kind.from_dict({**version, "misspelt": 1})


def test_the_envelope_of_a_message_belongs_to_messages_alone() -> None:
    takers = {kind.__name__ for kind in _all_kinds() if _takes_envelope(kind)}
    messages = importlib.import_module("UNetSegmentationLib.protocol.message").Message
    assert takers == {messages.__name__} | {kind.__name__ for kind in _kinds_of(messages)}


def _takes_envelope(kind: type[JsonDataclass]) -> bool:
    try:
        kind.from_dict({"schema_version": kind.schema_version, "op": "segment", "misspelt": 1})
    except InputError as error:
        return " op" not in str(error).split(":")[0]
    return True


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_shipped_models_are_written_as_they_are(folder: Path, tmp_path: Path) -> None:
    write_description(tmp_path, read_description(folder))
    assert (tmp_path / "model.json").read_bytes() == (folder / "model.json").read_bytes()


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_golden_plans_are_written_as_they_are(file: Path) -> None:
    plan = json.loads(file.read_text(encoding="utf-8"))["plan"]
    written = Plan.from_dict(plan).to_dict()
    assert json.dumps({name: written[name] for name in plan}) == json.dumps(plan)
