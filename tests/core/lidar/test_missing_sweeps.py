# SPDX-License-Identifier: Apache-2.0
"""Scans between key frames that are not there are found before the first step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.samples import LidarDataset
from labeldistill_core.errors import DataError
from labeldistill_core.lidar.config import SweepsConfig
from labeldistill_core.lidar.points import Points
from labeldistill_core.synthetic.dataset import WorldOptions, write_dataset


@pytest.fixture
def tables(tmp_path: Path) -> NuScenesTables:
    options = WorldOptions(1, 2, seed=3, image_size_px=(64, 36), sweeps="lidar", workers=1)
    write_dataset(tmp_path, options)
    return NuScenesTables(tmp_path, "v1.0-mini")


def test_they_are_refused_or_left_out(
    tables: NuScenesTables, caplog: pytest.LogCaptureFixture
) -> None:
    points = Points(SweepsConfig(past=2, future=2, future_needs_past=False))
    scenes, token = tables.scene_names, tables.samples(tables.scene_names[0])[1]
    points.look_for_sweeps(tables, tables.samples(scenes[0]), partial=False)
    whole = tables.lidar_sweeps(token, 2, 2)
    assert len(whole) >= 2
    whole[0].path.unlink()
    data = LidarDataset(tables, scenes, CAMERAS, None, points)
    lacking = f"1 of 2 samples lack LiDAR scans between .* such as sample {token}: .*--partial"
    with pytest.raises(DataError, match=lacking):
        points.look_for_sweeps(tables, data.tokens, partial=False)
    points.look_for_sweeps(tables, data.tokens, partial=True)
    assert "1 of 2 samples lack LiDAR scans between key frames" in caplog.text
    ages = [np.unique(data[i].points[0][:, 4].numpy()) for i in range(2)]
    assert len(ages[1]) == len(whole)  # the sample's own and all but one of the others


@pytest.mark.parametrize(("every", "found"), [(1, 9), (2, 5), (4, 3)])
def test_lidars_may_turn_slower_than_nuscenes(tmp_path: Path, every: int, found: int) -> None:
    """At 20, 10 and 5 Hz; key frames without scans between them are no sweeps."""
    options = WorldOptions(1, 2, seed=3, image_size_px=(64, 36), sweeps="lidar", workers=1)
    write_dataset(tmp_path, options)
    file = tmp_path / "v1.0-mini" / "sample_data.json"
    rows = json.loads(file.read_text())
    scans = sorted((r for r in rows if "LIDAR" in r["filename"]), key=lambda r: r["timestamp"])
    key = next(i for i, row in enumerate(scans) if row["is_key_frame"])
    kept = [r for i, r in enumerate(scans) if r["is_key_frame"] or (i - key) % every == 0]
    for row, before, after in zip(kept, [None, *kept], [*kept[1:], None], strict=False):
        row["prev"], row["next"] = (other["token"] if other else "" for other in (before, after))
    gone = {row["token"] for row in scans} - {row["token"] for row in kept}
    file.write_text(json.dumps([row for row in rows if row["token"] not in gone]))
    tables = NuScenesTables(tmp_path, "v1.0-mini")
    token = tables.samples(tables.scene_names[0])[-1]
    assert len(tables.lidar_sweeps(token, 9, 0)) == found


def test_key_frames_alone_are_no_sweeps(tmp_path: Path) -> None:
    write_dataset(tmp_path, WorldOptions(1, 3, seed=3, image_size_px=(64, 36), workers=1))
    tables = NuScenesTables(tmp_path, "v1.0-mini")
    token = tables.samples(tables.scene_names[0])[-1]
    assert tables.lidar_sweeps(token, 9, 0) == []
