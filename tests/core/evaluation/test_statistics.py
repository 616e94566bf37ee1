# SPDX-License-Identifier: Apache-2.0
"""Statistics of a data root count what its tables say."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.evaluation.statistics import measure
from labeldistill_ros.cli import main
from tests.support.nuscenes_fixture import OBJECTS, VERSION


def test_counts_of_a_small_root(dataroot: Path) -> None:
    tables = NuScenesTables(dataroot, VERSION)
    truths = [tables.ground_truth(t) for s in tables.scene_names for t in tables.samples(s)]
    count = sum(len(truth.boxes) for truth in truths)
    found = measure(tables)
    assert found["all"]["boxes"] == count
    assert found["all"]["boxes per key frame"] == count / len(truths)
    for title in ("% of boxes by class", "% of vehicles by speed", "% of pedestrians by speed"):
        assert sum(found[title].values()) == pytest.approx(100)
    width, length, height = OBJECTS["cone"][4]
    sizes = [found[f"mean {side}, m"]["traffic_cone"] for side in ("length", "width", "height")]
    assert sizes == pytest.approx([length, width, height])
    assert np.isnan(found["mean length, m"]["trailer"])


def test_key_frames_without_boxes_count(dataroot: Path) -> None:
    tables = NuScenesTables(dataroot, VERSION)
    bare, labelled = (set(tables.samples(scene)) for scene in tables.scene_names)
    boxes = measure(tables)["all"]["boxes"]
    folder = dataroot / VERSION
    rows = json.loads((folder / "sample_annotation.json").read_text())
    kept = [row for row in rows if row["sample_token"] not in bare]
    (folder / "sample_annotation.json").write_text(json.dumps(kept))
    left = {row["instance_token"] for row in kept}
    rows = json.loads((folder / "instance.json").read_text())
    (folder / "instance.json").write_text(json.dumps([r for r in rows if r["token"] in left]))
    found = measure(NuScenesTables(dataroot, VERSION))["all"]
    assert 0 < found["boxes"] < boxes
    assert found["key frames"] == len(bare) + len(labelled)


def test_returns_by_distance_agree_with_a_plain_loop(synthetic_dataroot: Path) -> None:
    tables = NuScenesTables(synthetic_dataroot, "v1.0-mini")
    counts = []
    for scene in tables.scene_names:
        for token in tables.samples(scene):
            truth = tables.ground_truth(token)
            x, y, _ = truth.fixed_from_ego.translation
            for (u, v, _), points in zip(
                truth.boxes.centers.tolist(), truth.num_lidar_pts, strict=True
            ):
                if 20 <= np.hypot(u - x, v - y) < 30:
                    counts.append(points)
    band = measure(tables)["20 to 30 m"]
    assert band["boxes per key frame"] == len(counts) / 8
    shares = [
        100 * sum(least <= n <= most for n in counts) / len(counts)
        for least, most in ((0, 0), (1, 5), (6, math.inf))
    ]
    assert list(band.values())[1:] == pytest.approx(shares)


def test_unknown_returns_are_in_no_band(dataroot: Path) -> None:
    path = dataroot / VERSION / "sample_annotation.json"
    boxes = json.loads(path.read_text())
    for box in boxes:
        box["num_lidar_pts"] = -1
    path.write_text(json.dumps(boxes))
    bands = measure(NuScenesTables(dataroot, VERSION))
    shares = [v for s in bands.values() for name, v in s.items() if "LiDAR returns" in name]
    assert shares
    assert all(math.isnan(share) for share in shares)


def test_a_root_without_key_frames_is_named(
    dataroot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (dataroot / VERSION / "scene.json").write_text("[]")
    assert main(["statistics", str(dataroot), "--version", VERSION]) == 2
    assert f"{VERSION} has no key frames" in capsys.readouterr().err


def test_two_versions_of_one_root_are_two(
    dataroot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(dataroot / VERSION, dataroot / "v1.0-other")
    json_file = dataroot / "found.json"
    command = ["statistics", str(dataroot), "--version", VERSION, "--json", str(json_file)]
    for words in ([], ["--against", str(dataroot)]):
        assert main([*command, "--against-version", "v1.0-other", *words]) == 0
        assert f"| | {VERSION} | v1.0-other |" in capsys.readouterr().out
        versions = [str(dataroot / name) for name in (VERSION, "v1.0-other")]
        assert list(json.loads(json_file.read_text())) == versions
    assert main([*command, "--against", str(dataroot)]) == 2
    assert "is compared with itself" in capsys.readouterr().err


def test_the_command_compares_two_roots(
    synthetic_dataroot: Path, dataroot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "numbers.json"
    command = ["statistics", str(synthetic_dataroot), "--against", str(dataroot)]
    command += ["--version", "v1.0-mini", "--against-version", VERSION, "--json", str(out)]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"| | {synthetic_dataroot.name} | {dataroot.name} |"
    assert all(line.count("|") == 4 for line in lines[:-1])
    assert lines[-1] == f"wrote {out}"
    numbers = json.loads(out.read_text())
    assert set(numbers) == {str(synthetic_dataroot), str(dataroot)}
    assert numbers[str(dataroot)]["mean length, m"]["trailer"] is None
