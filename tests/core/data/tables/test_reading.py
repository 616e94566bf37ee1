# SPDX-License-Identifier: Apache-2.0
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labeldistill_core.data.tables import reading
from labeldistill_core.data.tables.reading import read_rows, read_table
from labeldistill_core.data.tables.schema import EgoPose, Sample
from labeldistill_core.errors import DataError

SAMPLE = {"token": "a", "timestamp": 1, "scene_token": "s", "next": ""}


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"timestamp": "1"}, r"\(token 'b'\): field `timestamp`: Expected .*microseconds"),
        ({"timestamp": -5}, r"field `timestamp`: .*>= 0.*microseconds"),
        ({"timestamp": 1_533_151_603_547_590_000}, "field `timestamp`: .*microseconds"),
        ({"timestamp": 10**30}, "timestamp.*microseconds"),
        ({"timestamp": None}, "field `timestamp`: Expected"),
        ({"timestamp": True}, "field `timestamp`: Expected"),
        ({"scene_token": 7}, "field `scene_token`: Expected `str`, got `int`"),
    ],
)
def test_a_field_of_the_wrong_kind(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    path = written(tmp_path / "sample.json", [SAMPLE, {**SAMPLE, "token": "b", **change}])
    with pytest.raises(DataError, match=rf"sample\.json, record 1.*{told}"):
        read_table(path, Sample)


def test_a_field_that_is_missing(tmp_path: Path) -> None:
    short = {key: value for key, value in SAMPLE.items() if key != "next"}
    path = written(tmp_path / "sample.json", [short])
    with pytest.raises(DataError, match=r"record 0 \(token 'a'\): field `next`: it is missing"):
        read_table(path, Sample)
    del short["token"]
    with pytest.raises(DataError, match=r"record 0: field `token`: it is missing"):
        read_table(written(path, [short]), Sample)


@pytest.mark.parametrize("content", ["", "[", "[{]", "{}", "[1]", "null", "[" * 100_000, '"x"'])
def test_no_table(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"sample\.json"):
        read_table(written(tmp_path / "sample.json", content), Sample)


def test_other_columns_may_hold_anything(tmp_path: Path) -> None:
    extra = {"velocity": [math.nan, math.inf], "nested": [{"a": 1}, {"b": "},{"}], "text": "} , {"}
    rows = [{**SAMPLE, **extra, "token": str(i)} for i in range(10)]
    found = read_table(written(tmp_path / "sample.json", rows), Sample)
    assert [row.token for row in found] == [str(i) for i in range(10)]


def test_byte_order_marks(tmp_path: Path) -> None:
    path = tmp_path / "sample.json"
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        path.write_text(json.dumps([SAMPLE]), encoding=encoding)
        assert read_table(path, Sample)[0].token == "a"


def test_absent_tables(tmp_path: Path) -> None:
    assert read_table(tmp_path / "log.json", Sample, optional=True) == []
    with pytest.raises(DataError, match=r"log\.json is missing"):
        read_table(tmp_path / "log.json", Sample)


TEXTS = st.text(st.sampled_from('a},{ \n[]":\\'), max_size=12)


@settings(deadline=None, max_examples=200)
@example([("}, {", "", []), ("b", "}, \n{", [])], 1, None)
@given(
    st.lists(st.tuples(TEXTS, TEXTS, st.lists(st.dictionaries(TEXTS, TEXTS), max_size=3))),
    st.integers(1, 300),
    st.sampled_from([None, 1, 4]),
)
def test_parts_of_any_size_give_all_records(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, list[dict[str, str]]]],
    block: int,
    indent: int | None,
) -> None:
    """Borders are looked for without parsing, so texts and nested lists must not mislead them."""
    records = [
        {**SAMPLE, "token": token, "next": next_, "extra": extra} for token, next_, extra in rows
    ]
    path = tmp_path_factory.mktemp("parts") / "sample.json"
    path.write_text(json.dumps(records, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BLOCK_BYTES", block)
        found = [row for part in read_rows(path, Sample) for row in part]
    assert [(row.token, row.next) for row in found] == [row[:2] for row in rows]


def test_records_are_counted_over_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 200)
    pose = {"translation": [0, 0, 0], "rotation": [1, 0, 0, 0]}
    rows = [{"token": f"t{i}", **pose} for i in range(50)]
    rows[40]["rotation"] = [1, 0, 0]
    path = written(tmp_path / "ego_pose.json", rows)
    with pytest.raises(DataError, match=r"record 40 \(token 't40'\): field `rotation`.*length 4"):
        list(read_rows(path, EgoPose))
    path.write_text(path.read_text()[:-30])
    with pytest.raises(DataError, match=r"ego_pose\.json"):
        list(read_rows(path, EgoPose))
