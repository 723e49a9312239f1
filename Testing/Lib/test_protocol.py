"""Messages between panel and worker: nothing is lost however the pipe cuts, and every dataclass comes back equal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.image.labels import Label
from UNetSegmentationLib.protocol import lines
from UNetSegmentationLib.protocol.arrays import ArrayFile
from UNetSegmentationLib.protocol.lines import LineDecoder, encode
from UNetSegmentationLib.protocol.segment import SegmentFound, SegmentRequest, SegmentResult

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
messages = st.dictionaries(st.text(), values, max_size=4)
finite = st.floats(allow_nan=False, allow_infinity=False)
array_files = st.builds(
    ArrayFile,
    path=st.text(),
    dtype=st.sampled_from(["uint8", "<i2", "<u2", "float32", "<f8", "bool"]),
    shape=st.lists(st.integers(1, 2**20), min_size=1, max_size=4).map(tuple),
)
requests = st.builds(
    SegmentRequest,
    model=st.text(),
    volume=array_files,
    affine_ras=st.tuples(*[st.tuples(*[finite] * 4)] * 4),
    output=st.text(),
    device=st.sampled_from(["auto", "cpu", "cuda", "mps"]),
    tta=st.booleans(),
    postprocess=st.none() | st.lists(st.text(), max_size=3).map(tuple),
)
labels = st.builds(
    Label,
    value=st.integers(1, 65535),
    name=st.text(min_size=1).filter(str.strip),
    color=st.tuples(*[st.integers(0, 255)] * 3),
)
found = st.builds(
    SegmentFound,
    label=labels,
    voxels=st.integers(0, 2**40),
    bounds=st.none() | st.tuples(*[st.tuples(st.integers(0, 4096), st.integers(0, 4096))] * 3),
)
results = st.builds(
    SegmentResult,
    labelmap=array_files,
    segments=st.lists(found, max_size=3).map(tuple),
    provenance=st.dictionaries(st.text(), values, max_size=3),
    duration_s=st.dictionaries(st.text(), finite, max_size=3),
    warnings=st.lists(st.text(), max_size=3).map(tuple),
)
# What a library may print between messages: no line of it is a JSON object.
junk = st.binary(max_size=20).map(lambda data: b"!" + data.replace(b"\n", b" "))


def _feed_in_pieces(stream: bytes, cuts: list[int]) -> tuple[LineDecoder, list[dict[str, object]]]:
    places = sorted(cut % (len(stream) + 1) for cut in cuts)
    decoder, received = LineDecoder(), []
    for start, stop in zip([0, *places], [*places, len(stream)], strict=True):
        received += decoder.feed(stream[start:stop])
    return decoder, received


def _through_the_pipe(values: dict[str, object]) -> dict[str, object]:
    (message,) = LineDecoder().feed(encode(values))
    return message


@given(sent=st.lists(messages, max_size=5), cuts=st.lists(st.integers(0, 10_000), max_size=8))
def test_messages_arrive_in_order_however_the_pipe_cuts(sent: list[dict], cuts: list[int]) -> None:
    decoder, received = _feed_in_pieces(b"".join(map(encode, sent)), cuts)
    assert received == sent
    assert decoder.noise == []


@given(sent=st.lists(messages | junk, max_size=8), cuts=st.lists(st.integers(0, 10_000), max_size=8))
def test_what_others_print_neither_hides_nor_becomes_a_message(sent: list, cuts: list[int]) -> None:
    stream = b"".join(item + b"\n" if isinstance(item, bytes) else encode(item) for item in sent)
    decoder, received = _feed_in_pieces(stream, cuts)
    assert received == [item for item in sent if isinstance(item, dict)]
    assert len(decoder.noise) == sum(isinstance(item, bytes) for item in sent)


@given(message=messages)
def test_a_message_is_one_line_of_ascii(message: dict) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert line.isascii()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_json_lacks_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode({"fraction": number})


@pytest.mark.parametrize("line", [b"[1, 2]\n", b"3\n", b'"text"\n', b"null\n", b"{\n", b"\xff\xfe\n"])
def test_a_line_that_is_no_object_is_noise(line: bytes) -> None:
    decoder = LineDecoder()
    assert decoder.feed(line + encode({"id": 1})) == [{"id": 1}]
    assert decoder.noise == [line.decode("utf-8", "replace").strip()]


def test_windows_line_ends_and_blank_lines_are_no_noise() -> None:
    decoder = LineDecoder()
    assert decoder.feed(b'\r\n{"id":1}\r\n\n  \n') == [{"id": 1}]
    assert decoder.noise == []


def test_noise_keeps_the_last_fifty_lines() -> None:
    decoder = LineDecoder()
    decoder.feed(b"".join(b"line %d\n" % number for number in range(120)))
    assert decoder.noise == [f"line {number}" for number in range(70, 120)]


def test_a_line_without_end_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays bounded when a library prints without a line end."""
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1000)
    decoder = LineDecoder()
    for _ in range(50):
        assert decoder.feed(b"x" * 300) == []
        assert len(decoder._rest) <= 1000
    assert decoder.noise[0] == "x" * 200
    decoder.feed(b"\n")
    assert decoder.feed(encode({"id": 2})) == [{"id": 2}]


@given(request=requests)
def test_request_comes_back_equal(request: SegmentRequest) -> None:
    assert SegmentRequest.from_dict(_through_the_pipe(request.to_dict())) == request


@given(result=results)
def test_result_comes_back_equal(result: SegmentResult) -> None:
    assert SegmentResult.from_dict(_through_the_pipe(result.to_dict())) == result


def test_request_ignores_the_envelope() -> None:
    volume = {"path": "v.raw", "dtype": "float32", "shape": [1, 2, 3, 4]}
    message = {
        "id": 3,
        "op": "segment",
        "model": "m",
        "volume": volume,
        "affine_ras": np.eye(4).tolist(),
        "output": "o",
    }
    request = SegmentRequest.from_dict(message)
    assert (request.device, request.tta, request.postprocess) == ("auto", False, None)
    assert request.volume.shape == (1, 2, 3, 4)


def test_request_names_all_that_it_lacks() -> None:
    with pytest.raises(InputError, match="SegmentRequest lacks volume, affine_ras, output: add every field"):
        SegmentRequest.from_dict({"model": "m"})


@pytest.mark.parametrize("shape", [(), (0, 2), (3, -1)])
def test_empty_array_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="is empty: every size must be at least 1"):
        ArrayFile(path="v.raw", dtype="uint8", shape=shape)


@pytest.mark.parametrize("dtype", ["object", "U3", "datetime64[s]", "complex64"])
def test_array_holds_numbers_only(dtype: str) -> None:
    with pytest.raises(InputError, match="is not a number"):
        ArrayFile(path="v.raw", dtype=dtype, shape=(1,))


@pytest.mark.parametrize("dtype", ["uint8", "<i2", "float32"])
def test_both_sides_see_the_same_voxels(tmp_path: Path, dtype: str) -> None:
    file = ArrayFile(path=str(tmp_path / "v.raw"), dtype=dtype, shape=(2, 3, 4))
    expected = np.arange(24, dtype=dtype).reshape(2, 3, 4)
    written = file.open("w+")
    written[:] = expected
    written.flush()
    read = ArrayFile(**json.loads(json.dumps({"path": file.path, "dtype": dtype, "shape": file.shape}))).open()
    np.testing.assert_array_equal(read, expected)
    assert not read.flags.writeable


@pytest.mark.parametrize("size", [None, 0, 23, 25])
def test_array_file_of_the_wrong_length_is_refused(tmp_path: Path, size: int | None) -> None:
    file = ArrayFile(path=str(tmp_path / "v.raw"), dtype="uint8", shape=(2, 3, 4))
    if size is not None:
        Path(file.path).write_bytes(bytes(size))
    with pytest.raises(InputError, match=r"v\.raw has -?\d+ bytes, but 24 are needed: write it again"):
        file.open()
