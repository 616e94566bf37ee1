# SPDX-License-Identifier: Apache-2.0
"""Looking at data roots: LiDAR in the images, real frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import EGO_FRAME, FIXED_FRAME, CameraView
from labeldistill_core.classes import ClassList, ObjectClass
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import ConfigError
from labeldistill_core.frames import Transform
from labeldistill_core.synthetic.rig import camera_calibrations
from labeldistill_core.visualization import page
from labeldistill_core.visualization.colours import TRUTH_COLOUR
from labeldistill_core.visualization.lidar_overlay import with_points
from labeldistill_core.visualization.view import ViewOptions, key_frame, view


def test_points_are_painted_where_the_camera_sees_them_near_over_far() -> None:
    calibration = camera_calibrations(200, 112)["CAM_FRONT"]
    ego = Transform.from_quaternion(FIXED_FRAME, EGO_FRAME, (0.6, 0, 0, 0.8), (700.0, 900.0, 0.0))
    black = CameraView(calibration, 0, np.zeros((112, 200, 3), np.uint8), ego)
    fixed_from_camera = ego @ calibration.ego_from_camera
    k_inverse = np.linalg.inv(calibration.intrinsics_px)

    def point(u: float, v: float, depth: float) -> list[float]:
        return list(fixed_from_camera.apply(k_inverse @ [u, v, 1.0] * depth))

    alone = with_points(black, np.array([point(20, 30, 3.0), point(150, 60, 60.0)])).image
    rows, columns = np.nonzero(np.any(alone, axis=2))
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == {(30, 20), (60, 150)}
    near, far = alone[30, 20], alone[60, 150]
    assert near[0] > near[2]
    assert far[2] > far[0]
    both = [point(20, 30, 3.0), point(20, 30, 60.0), point(20, 30, -5.0), point(500, 30, 5.0)]
    for points in (both, both[::-1]):
        image = with_points(black, np.array(points)).image
        assert np.any(image, axis=2).sum() == 1
        assert image[30, 20].tolist() == near.tolist()
    assert not black.image.any()


@pytest.mark.parametrize("lidar", [True, False])
def test_view_paints_points_on_request(
    lidar: bool, synthetic_dataroot: Path, tmp_path: Path
) -> None:
    view(
        synthetic_dataroot, tmp_path / "with", ViewOptions(version="v1.0-mini", limit=1, lidar=True)
    )
    view(
        synthetic_dataroot, tmp_path / "as", ViewOptions(version="v1.0-mini", limit=1, lidar=lidar)
    )
    painted, plain = (
        np.asarray(Image.open(tmp_path / name / "frame_0000_cameras.jpg"), int)
        for name in ("with", "as")
    )
    differs = (np.abs(painted - plain).max(axis=2) > 40).mean()
    assert (differs == 0) if lidar else (0.01 < differs < 0.5)


def test_view_of_real_frames(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "nuscenes" / "mini_val"
    view(root, tmp_path / "page", ViewOptions(version="v1.0-mini", limit=2))
    text = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert text.count("<figure>") == 2
    for i in range(2):
        for name in (f"frame_{i:04d}_cameras.jpg", f"frame_{i:04d}_top.png"):
            pixels = np.asarray(Image.open(tmp_path / "page" / name).convert("RGB"), int)
            green = np.abs(pixels - TRUTH_COLOUR).max(axis=2) < 60
            assert green.sum() > 300


@pytest.mark.parametrize("score", [float("nan"), -0.1, 1.5])
def test_scores_that_no_box_can_have_are_refused(score: float) -> None:
    with pytest.raises(ConfigError, match="--min-score must be from 0 to 1"):
        ViewOptions(min_score=score)


def test_the_view_from_above_reaches_as_far_as_the_grid(
    synthetic_dataroot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = NuScenesTables(synthetic_dataroot)
    token = tables.samples(tables.scene_names[0])[0]
    shown: list[float] = []

    def drawn(*_: object, range_m: float, **__: object) -> Image.Image:
        shown.append(range_m)
        return Image.new("RGB", (500, 500))

    monkeypatch.setattr(page, "birds_eye_view", drawn)
    for reach_m in (0.0, 102.4):
        key_frame(tables, token, Boxes3D.empty(FIXED_FRAME), range_m=reach_m)
    far = ClassList((ObjectClass("car", ("vehicle.car",), 80.0),))
    key_frame(NuScenesTables(synthetic_dataroot, classes=far), token, Boxes3D.empty(FIXED_FRAME))
    assert shown == [55.0, 102.4, 80.0]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_page_of_nothing_is_refused(limit: int) -> None:
    with pytest.raises(ConfigError, match="--limit must be 1 or more"):
        ViewOptions(limit=limit)
