"""Labels: what is refused, the round trip through JSON, and the terminology that Slicer reads."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.image.labels import Code, Label

LIVER = Code(scheme="SCT", value="10200004", meaning="Liver")
LEFT = Code(scheme="SCT", value="7771000", meaning="Left")

codes = st.builds(Code, scheme=st.text(), value=st.text(), meaning=st.text())
labels = st.builds(
    Label,
    value=st.integers(1, 65535),
    name=st.text(min_size=1).filter(str.strip),
    color=st.tuples(*[st.integers(0, 255)] * 3),
    category=codes,
    term=st.none() | codes,
    modifier=st.none() | codes,
)


@given(label=labels)
def test_json_gives_the_same_label_back(label: Label) -> None:
    assert Label.from_dict(json.loads(json.dumps(label.to_dict()))) == label


@given(label=labels)
def test_labels_can_be_keys(label: Label) -> None:
    assert {label: 1}[Label.from_dict(label.to_dict())] == 1


def test_a_list_from_json_becomes_a_tuple() -> None:
    assert Label(value=1, name="Liver", color=[1, 2, 3]).color == (1, 2, 3)


@pytest.mark.parametrize("value", [-1, 0, 65536])
def test_value_out_of_range_is_refused(value: int) -> None:
    with pytest.raises(InputError, match=f"label value {value} is out of range: give 1 to 65535"):
        Label(value=value, name="Liver", color=(0, 0, 0))


@pytest.mark.parametrize("name", ["", " ", "\t\n"])
def test_a_name_is_needed(name: str) -> None:
    with pytest.raises(InputError, match="label 7 has no name"):
        Label(value=7, name=name, color=(0, 0, 0))


@pytest.mark.parametrize("color", [(0, 0), (0, 0, 0, 0), (0, 0, 256), (-1, 0, 0), ()])
def test_colour_is_three_bytes(color: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=re.escape(f"colour {color} of label 'Liver'")):
        Label(value=1, name="Liver", color=color)


def test_no_term_means_no_terminology() -> None:
    assert Label(value=1, name="Thing", color=(0, 0, 0)).terminology_entry == ""


@pytest.mark.parametrize(("modifier", "expected"), [(None, "^^"), (LEFT, "SCT^7771000^Left")])
def test_terminology_has_the_seven_parts_that_slicer_reads(modifier: Code | None, expected: str) -> None:
    """The context name, category, type, type modifier, then the anatomic context, region and its modifier."""
    parts = Label(value=1, name="L", color=(0, 0, 0), term=LIVER, modifier=modifier).terminology_entry.split("~")
    assert parts == [
        "Segmentation category and type - DICOM master list",
        "SCT^123037004^Anatomical Structure",
        "SCT^10200004^Liver",
        expected,
        "Anatomic codes - DICOM master list",
        "^^",
        "^^",
    ]
