# SPDX-License-Identifier: Apache-2.0
import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeldistill_core.errors import DataError
from labeldistill_core.evaluation import result_file
from labeldistill_core.evaluation.result_boxes import boxes_of_results
from labeldistill_core.evaluation.result_columns import columns_of
from labeldistill_core.evaluation.result_file import Source, read_results, write_results
from tests.support.fuzzing import fuzz

BOX = {
    "sample_token": "s",
    "translation": [1, 2.5, 0],
    "size": [1, 2, 1.5],
    "rotation": [1, 0, 0, 0],
    "velocity": [0, 0],
    "detection_name": "car",
    "detection_score": 1,
    "attribute_name": "",
}


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("source", ["camera", "lidar", "external"])
def test_a_file_says_what_its_boxes_are_made_from(tmp_path: Path, source: Source) -> None:
    write_results(tmp_path / "r.json", {"s": []}, source)
    meta = json.loads((tmp_path / "r.json").read_text())["meta"]
    names = ("camera", "lidar", "radar", "map", "external")
    assert meta == {f"use_{name}": name == source for name in names}


def test_whole_numbers_unknown_velocities_and_other_keys(tmp_path: Path) -> None:
    box = {**BOX, "velocity": [math.nan, math.nan], "tracking_id": {"a": [1]}}
    del box["attribute_name"]
    found = read_results(written(tmp_path / "r.json", {"results": {"s": [box], "t": []}}))
    assert found["t"] == []
    assert found["s"][0]["translation"] == [1.0, 2.5, 0.0]
    assert type(found["s"][0]["detection_score"]) is float
    assert math.isnan(found["s"][0]["velocity"][0])
    assert found["s"][0]["attribute_name"] == ""
    assert "tracking_id" not in found["s"][0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"size": [0, 1, 1]}, r"its `size` '\[0.0, 1.0, 1.0\]' must be above zero"),
        ({"size": [1, -1, 1]}, "its `size`.*must be above zero"),
        ({"size": [1, 1]}, "its `size`: .*length"),
        ({"size": [math.nan, 1, 1]}, "its `size`.*infinite or no number"),
        ({"translation": [math.inf, 1, 1]}, "its `translation`.*infinite or no number"),
        ({"translation": None}, "its `translation`: Expected"),
        ({"velocity": [None, None]}, "its `velocity`: Expected"),
        ({"velocity": [math.inf, 0]}, "its `velocity`.*infinite"),
        ({"rotation": [0, 0, 0, 0]}, "its `rotation`.*no quaternion"),
        ({"detection_score": "high"}, "its `detection_score`: Expected"),
        ({"detection_score": math.nan}, "its `detection_score`.*no number"),
        ({"detection_name": "tram"}, "its class 'tram' is none of car"),
        ({"detection_name": "\x1b[2J\n"}, r"its class '\\x1b\[2J\\n' is none of"),
        ({"detection_name": "x" * 10_000}, "its class 'x+...' is none of"),
        ({"attribute_name": None}, "its `attribute_name`: Expected"),
        ({"velocity": ["unknown" * 1000, 0]}, "its `velocity`: Expected `float`, got `str`$"),
    ],
)
def test_a_box_that_cannot_be(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    results = {"good": [BOX], "bad": [BOX, {**BOX, **change}]}
    path = written(tmp_path / "r.json", {"meta": {}, "results": results})
    with pytest.raises(DataError, match=rf"r\.json: box 1 of sample 'bad' is malformed: {told}"):
        read_results(path)


def test_boxes_that_name_another_sample_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    results = {"s": [BOX], "t": [{**BOX, "sample_token": "t"}]}
    path = tmp_path / "r.json"
    read_results(written(path, {"results": results}))
    assert caplog.text == ""
    results["t"] += [BOX, BOX]
    assert len(read_results(written(path, {"results": results}))["t"]) == 3
    told = "r.json: 2 boxes name another sample in `sample_token` than the one they stand under"
    assert caplog.text.count(f"{told}, such as in sample 't'") == 1


def test_numbers_that_json_lacks_are_read_as_fast_as_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists of dictionaries, which Python's own reader makes, take ten times the memory."""
    unknown = {**BOX, "sample_token": "[NaN]", "velocity": [math.nan, 1]}
    content = {"meta": {"x": [-math.inf, math.inf]}, "results": {"[NaN]": [unknown], "u": []}}
    path = written(tmp_path / "r.json", content)
    monkeypatch.setattr(json, "loads", None)
    with pytest.raises(DataError, match="'results'"):
        read_results(path)  # a name that looks like a number is refused, not changed
    path.write_text(path.read_text().replace('"[NaN]"', '"NaN"'))
    found = read_results(path)
    assert math.isnan(found["NaN"][0]["velocity"][0])
    assert found["NaN"][0]["velocity"][1] == 1.0
    assert list(found) == ["NaN", "u"]


def test_quaternions_of_any_length_turn_pictures_and_metrics_alike(tmp_path: Path) -> None:
    half = math.pi / 8
    turned = {**BOX, "rotation": [3 * math.cos(half), 0, 0, 3 * math.sin(half)]}
    found = read_results(written(tmp_path / "r.json", {"results": {"s": [turned]}}))
    assert found.boxes.yaws.tolist() == pytest.approx([math.pi / 4])
    assert boxes_of_results(found["s"]).yaws.tolist() == pytest.approx([math.pi / 4])


def test_numbers_of_numpy_are_numbers() -> None:
    box = {
        **BOX,
        "translation": np.array([1.0, 2.5, 0.0]),
        "size": [np.float64(1), np.float32(2), np.int64(3)],
        "velocity": (np.float64(np.nan), 0.0),
        "detection_score": np.float32(0.5),
    }
    found = columns_of([BOX, box], "s")
    assert found.centers_m[1].tolist() == [1.0, 2.5, 0.0]
    assert found.sizes_m[1].tolist() == [1.0, 2.0, 3.0]
    assert found.scores.tolist() == [1.0, 0.5]
    with pytest.raises(DataError, match="box 1 of sample 's' is malformed: its `size`"):
        columns_of([BOX, {**box, "size": np.ones(2)}], "s")


@pytest.mark.parametrize("field", [name for name in BOX if name != "attribute_name"])
def test_a_box_without_a_field(tmp_path: Path, field: str) -> None:
    box = {key: value for key, value in BOX.items() if key != field}
    with pytest.raises(DataError, match=f"box 0 of sample 's' is malformed: its `{field}` is mis"):
        read_results(written(tmp_path / "r.json", {"results": {"s": [box]}}))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"results": {"s": null}}', "sample 's' is malformed: Expected `array`, got `null`"),
        ('{"results": {"s": [null]}}', "box 0 of sample 's' is malformed: Expected `object`"),
        ('{"results": {"s": {}}}', "sample 's' is malformed"),
        ('{"results": {"a\\u0000b\\n": 1}}', r"sample 'a\\x00b\\n' is malformed"),
        ('{"results": null}', "'results'"),
        ("null", "'results'"),
        ("[]", "'results'"),
        ('{"meta": NaN}', "'results'"),
        ('{"results": NaN}', "'results'"),
        ('{"results": {"s": [NaN]}}', "box 0 of sample 's'"),
        ("", "'results'"),
        ("\ufeff{}", "'results'"),
        ("[" * 200_000, r"r\.json"),
        ('{"results": {"s": ' + "[" * 200_000, r"r\.json"),
        ('{"results": {"s": [{"x": ' + "[" * 5_000 + "]" * 5_000 + "}]}}", "nested too deeply"),
    ],
)
def test_odd_files(tmp_path: Path, content: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_results(written(tmp_path / "r.json", content))


def test_damaged_archives(tmp_path: Path) -> None:
    whole = gzip.compress(json.dumps({"results": {"s": [BOX]}}).encode())
    path = tmp_path / "r.json.gz"
    path.write_bytes(whole)
    assert len(read_results(path)["s"]) == 1
    for damaged in (whole[:-9], whole[:20] + b"xx" + whole[22:], b""):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"r\.json\.gz"):
            read_results(path)


def test_a_compressed_file_is_bounded_and_a_mark_is_no_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.dumps({"results": {"s": []}}).encode()
    marked, packed = tmp_path / "marked.json", tmp_path / "packed.json.gz"
    marked.write_bytes(b"\xef\xbb\xbf" + content)
    packed.write_bytes(gzip.compress(content + b" " * 1000))
    assert list(read_results(marked)) == list(read_results(packed)) == ["s"]
    monkeypatch.setattr(result_file, "LARGEST_BYTES", 500)
    with pytest.raises(DataError, match="packed.json.gz stands for more than"):
        read_results(packed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@fuzz(300)
@given(st.sampled_from(["file", "results", "boxes", "box", *BOX]), JSON)
def test_any_json_is_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, where: str, value: Any
) -> None:
    content: Any = {"results": {"s": [{**BOX, where: value}]}}
    if where == "file":
        content = value
    elif where == "results":
        content = {"results": value}
    elif where in ("boxes", "box"):
        content = {"results": {"s": value if where == "boxes" else [value]}}
    path = tmp_path_factory.mktemp("results") / "r.json"
    path.write_text(json.dumps(content))
    try:
        found = read_results(path)
    except DataError as error:
        assert "r.json" in str(error)  # noqa: PT017 - either way is right
    else:
        assert all(min(box["size"]) > 0 for boxes in found.values() for box in boxes)
