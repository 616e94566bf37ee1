# SPDX-License-Identifier: Apache-2.0
"""Scores of many boxes, with ties among their scores, are the devkit's."""

from __future__ import annotations

import json
import math
from pathlib import Path

from benchmarks.evaluation.measure import (
    SPLIT,
    largest_difference,
    use_devkit,
    use_ours,
    write_random_results,
)
from benchmarks.tables.generate import VERSION, write_tables
from labeldistill_core.data.nuscenes import NuScenesTables


def test_random_boxes_score_as_in_the_devkit(tmp_path: Path) -> None:
    root, results = tmp_path / "nuscenes", tmp_path / "results.json"
    write_tables(root, scenes=2, samples=8)
    names = list(NuScenesTables(root, VERSION).scene_names)
    (root / VERSION / "splits.json").write_text(json.dumps({SPLIT: names}))
    write_random_results(root, results, boxes=300)
    ours, devkit = use_ours(root, results), use_devkit(root, results)
    assert largest_difference(ours["scores"], devkit["scores"]) < 1e-9
    assert 0.005 < ours["scores"]["mAP"] < 1
    assert min(ours["seconds"], devkit["seconds"]) > 0
    # boxes that are missing on one side are seen
    changed = json.loads(results.read_text())
    token = next(iter(changed["results"]))
    changed["results"][token] = changed["results"][token][20:]
    results.write_text(json.dumps(changed))
    less = use_ours(root, results)["scores"]
    assert largest_difference(less, devkit["scores"]) > 1e-9


def test_a_number_beside_none_is_a_difference() -> None:
    assert largest_difference({"a": None}, {"a": math.nan}) == 0
    assert largest_difference({"a": None}, {"a": 0.5}) == math.inf
    assert largest_difference({"a": 0.5}, {"a": math.nan}) == math.inf
