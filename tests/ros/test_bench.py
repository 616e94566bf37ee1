# SPDX-License-Identifier: Apache-2.0
"""The failure table, one test a scene; and the load tool, for a few seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nuscenes_fixture import VERSION

from labeldistill_core.cli import main
from labeldistill_ros.bench.failure_table import SCENES
from labeldistill_ros.bench.failures import Scene, as_json, run_scene
from labeldistill_ros.bench.load import LoadOptions, run_load


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name.replace(" ", "_"))
def test_every_event_of_the_scene(scene: Scene, tiny_model: Path) -> None:
    rows = run_scene(scene, tiny_model)
    assert len(rows) == len(scene.events)
    assert [row for row in as_json(rows)["rows"] if not row["passed"]] == []


def test_load_counts_what_goes_through(tiny_model: Path) -> None:
    found = run_load(LoadOptions(5.0, 5.0, (320, 180), tiny_model, warm_s=1.0))
    assert found["sets_mixed"] == 0
    assert found["images_received"] >= 0.9 * found["images_sent"] > 100
    assert found["sets_processed"] + found["sets_dropped"] >= found["sets_paired"] - 2
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p99"]
    assert 0 < found["node_share"] < 1


def test_bags_are_measured(shared_dataroot: Path, tmp_path: Path) -> None:
    file = tmp_path / "bags.json"
    command = ["bench-bags", str(shared_dataroot), "--version", VERSION, "--repeats", "1"]
    assert main([*command, "--longer", str(shared_dataroot), "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    conversion = found["conversion"]
    assert conversion["files"] > 0
    assert conversion["messages"] > conversion["files"]
    assert conversion["share_of_copy"] > 0
    assert [row["key_frames"] > 0 for row in found["memory"]] == [True, True]
    first = found["replay"]["rates"][0]
    assert first["received"] == first["images"] > 0
    assert found["replay"]["largest_rate_without_loss"] >= 1
