# SPDX-License-Identifier: Apache-2.0
"""Any value in any field of any table: an answer, or an error that names the table."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.tables.schema import OPTIONAL, REQUIRED
from labeldistill_core.errors import DataError
from tests.support.fuzzing import fuzz
from tests.support.nuscenes_fixture import VERSION

Tables = dict[str, list[dict[str, Any]]]

NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 1e300, 1e-300])
NAMES = st.text(max_size=6) | st.sampled_from(["..", "/etc/passwd", "a/../b", "\0", "\ud800", "."])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=9,
)


@pytest.fixture(scope="module")
def content(shared_dataroot: Path) -> Tables:
    folder = shared_dataroot / VERSION
    return {n: json.loads((folder / f"{n}.json").read_text()) for n in (*REQUIRED, *OPTIONAL)}


@fuzz(100)
@given(data=st.data())
def test_any_value_in_any_field(
    content: Tables, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    table = data.draw(st.sampled_from(sorted(content)))
    rows = [dict(row) for row in content[table]]
    for _ in range(data.draw(st.integers(1, 3))):
        row = rows[data.draw(st.integers(0, len(rows) - 1))]
        # also what another record has there: rings, records that stand twice, swapped references
        field = data.draw(st.sampled_from(sorted(row)))
        others = st.sampled_from([other.get(field) for other in rows])
        row[field] = data.draw(VALUES | others)
    folder = tmp_path_factory.mktemp("fuzz") / VERSION
    folder.mkdir()
    for name, records in {**content, table: rows}.items():
        (folder / f"{name}.json").write_text(json.dumps(records))
    try:
        tables = NuScenesTables(folder.parent, VERSION)
    except DataError as error:
        assert f"{table}.json" in str(error) or "record" in str(error)  # noqa: PT017
        return
    for scene in tables.scene_names:
        try:
            tokens = tables.samples(scene)
            found = tables.sensor_data(scene)
        except DataError as error:
            assert ".json" in str(error)  # noqa: PT017
            continue
        assert len(set(tokens)) == len(tokens)
        for record in found:
            assert ".." not in record.path.relative_to(folder.parent).parts
        for token in tokens:
            truth = tables.ground_truth(token)
            assert truth.boxes.values[:, :7].isfinite().all()
            assert (truth.boxes.sizes > 0).all()
            tables.lidar_sweeps(token, 2, 2) if "LIDAR_TOP" in tables.sensors(token) else None
