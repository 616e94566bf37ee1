# SPDX-License-Identifier: Apache-2.0
"""What changes boxes or points changes the hash by which a run knows them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labeldistill_core.data.fingerprint import (
    boxes_sha256,
    poses_sha256,
    sensors_sha256,
    sweeps_sha256,
)
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.synthetic.dataset import WorldOptions, write_dataset

Rows = list[dict[str, Any]]
VERSION = "v1.0-mini"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    options = WorldOptions(1, 2, seed=3, image_size_px=(64, 36), sweeps="lidar", workers=1)
    write_dataset(tmp_path, options)
    return tmp_path


def change(root: Path, table: str, edit: Callable[[Rows], object]) -> None:
    file = root / VERSION / f"{table}.json"
    rows = json.loads(file.read_text())
    edit(rows)
    file.write_text(json.dumps(rows))


def hashes(root: Path, past: int = 2, future: int = 1) -> dict[str, str | None]:
    tables = NuScenesTables(root)
    tokens = tables.samples(tables.scene_names[0])
    return {
        "boxes": boxes_sha256(tables, tokens),
        "sensors": sensors_sha256(tables, tokens),
        "sweeps": sweeps_sha256(tables, tokens, past, future),
        "poses": poses_sha256(tables, tokens, scans=False),
        "scans": poses_sha256(tables, tokens, scans=True),
    }


def changed(before: dict[str, str | None], after: dict[str, str | None]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_radar_points_and_racks_count(root: Path) -> None:
    """Both decide which boxes are trained on and scored."""
    first = hashes(root)
    assert changed(first, hashes(root)) == set()
    change(root, "sample_annotation", lambda rows: rows[0].update(num_radar_pts=7))
    radar = hashes(root)
    assert changed(first, radar) == {"boxes"}
    change(
        root, "category",
        lambda rows: rows.append(
            {"token": "rack", "name": "static_object.bicycle_rack", "description": ""}
        ),
    )  # fmt: skip
    change(
        root, "instance",
        lambda rows: rows.append({**rows[0], "token": "rack", "category_token": "rack"}),
    )  # fmt: skip
    assert changed(radar, hashes(root)) == set()
    change(
        root, "sample_annotation",
        lambda rows: rows.append({**rows[0], "token": "rack", "instance_token": "rack",
                                  "prev": "", "next": ""}),
    )  # fmt: skip
    assert changed(radar, hashes(root)) == {"boxes"}


def test_scans_between_samples_count_where_they_are_seen(root: Path) -> None:
    first = hashes(root)
    assert hashes(root, 0, 0)["sweeps"] is None
    assert changed(first, hashes(root, past=3)) == {"sweeps"}
    tables = NuScenesTables(root)
    sample = tables.samples(tables.scene_names[0])[1]
    near = tables.lidar_sweeps(sample, 1, 0)[0]
    poses: list[str] = []

    def note(rows: Rows) -> None:
        name = near.path.relative_to(root).as_posix()
        poses.extend(row["ego_pose_token"] for row in rows if row["filename"] == name)

    def move(rows: Rows) -> None:
        for row in rows:
            if row["token"] in poses:
                row["translation"][0] += 5.0

    change(root, "sample_data", note)
    change(root, "ego_pose", move)
    moved = hashes(root)
    assert changed(first, moved) == {"sweeps"}
    near.path.unlink()
    assert changed(moved, hashes(root)) == {"sweeps"}


def test_images_that_come_later_change_no_teacher(root: Path) -> None:
    first = hashes(root)
    next((root / "samples" / "CAM_FRONT").iterdir()).unlink()
    assert changed(first, hashes(root)) == {"sensors"}
    # nor do those of tables that leave the sizes to the images
    for file in (root / "samples" / "CAM_FRONT").iterdir():
        file.unlink()
    change(root, "sample_data", lambda rows: [row.update(width=0, height=0) for row in rows])
    tables = NuScenesTables(root)
    tokens = tables.samples(tables.scene_names[0])
    for scans, name in ((False, "poses"), (True, "scans")):
        assert poses_sha256(tables, tokens, scans=scans) == first[name]
    change(root, "ego_pose", lambda rows: [row["translation"].reverse() for row in rows])
    tables = NuScenesTables(root)
    assert poses_sha256(tables, tokens, scans=False) != first["poses"]


def test_a_scan_counts_for_those_who_see_it(root: Path) -> None:
    first = hashes(root)
    tables = NuScenesTables(root)
    tables.lidar(tables.samples(tables.scene_names[0])[0]).path.unlink()
    assert changed(first, hashes(root)) == {"sensors", "scans"}
