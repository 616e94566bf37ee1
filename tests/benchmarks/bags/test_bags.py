# SPDX-License-Identifier: Apache-2.0
"""What bags cost, measured once over a small data root."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.bags.__main__ import main
from tests.support.nuscenes_fixture import VERSION

pytestmark = pytest.mark.real_time


def test_bags_are_measured(shared_dataroot: Path, tmp_path: Path) -> None:
    file = tmp_path / "bags.json"
    command = [str(shared_dataroot), "--version", VERSION, "--repeats", "1", "--rates", "1", "64"]
    assert main([*command, "--longer", str(shared_dataroot), "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    conversion = found["conversion"]
    assert conversion["files"] > 0
    assert conversion["messages"] > conversion["files"]
    assert conversion["share_of_copy"].keys() == {"1 worker", "2 workers"}
    assert [row["key_frames"] > 0 for row in found["memory"]] == [True, True]
    first = found["replay"]["rates"][0]
    assert first["received"] == first["images"] > 0
    assert found["replay"]["largest_rate_without_loss"] >= 1
