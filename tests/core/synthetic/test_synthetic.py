# SPDX-License-Identifier: Apache-2.0
"""The synthetic world: what the tables say is what the sensors see."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from labeldistill_core.cameras import CAMERAS, CameraPose
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import ConfigError, DataError
from labeldistill_core.synthetic import dataset
from labeldistill_core.synthetic.camera import take_picture
from labeldistill_core.synthetic.dataset import WorldOptions, scene_names, write_dataset
from labeldistill_core.synthetic.driven import Sweeps
from labeldistill_core.synthetic.lidar import scan
from labeldistill_core.synthetic.objects import SHAPES, SIZES
from labeldistill_core.synthetic.raycast import RaycastingScene
from labeldistill_core.synthetic.rig import CAMERA_PHASES_S, camera_calibrations, ego_from_lidar
from labeldistill_core.synthetic.world import World
from labeldistill_ros.cli import main

SIZE = (200, 112)


@pytest.fixture(scope="module")
def geometry() -> RaycastingScene:
    return RaycastingScene(World.sample(np.random.default_rng(5), 4.0))


def files_of(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_shapes_fill_their_box_and_stay_inside(name: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        size = SIZES[name].sample(rng)
        vertices = SHAPES[name](rng, *size).vertices
        half = np.array(size) / 2
        assert (np.abs(vertices) <= half + 0.02).all()
        assert vertices[:, 2].max() > half[2] - 0.02
        assert vertices[:, 2].min() < 0.02 - half[2]
        assert np.ptp(vertices[:, 0]) > 0.5 * size[0]
        assert np.ptp(vertices[:, 1]) > 0.5 * size[1]


def test_pixels_of_an_object_lie_within_its_projected_box(geometry: RaycastingScene) -> None:
    world, rng, checked = geometry.world, np.random.default_rng(0), 0
    for name, calibration in camera_calibrations(*SIZE).items():
        time_s = 2.0 + CAMERA_PHASES_S[name]
        snapshot = geometry.at(time_s)
        pose = CameraPose(calibration, world.map_from_ego(time_s))
        picture = take_picture(snapshot, pose, world.light, rng)
        camera_from_map = (pose.fixed_from_ego @ calibration.ego_from_camera).inverse
        for index in np.unique(picture.objects[picture.objects >= 0]):
            actor, (x, y, z, yaw) = world.actors[index], snapshot.poses[index]
            signs = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])
            local = signs * np.array(actor.size_m) / 2
            c, s = np.cos(yaw), np.sin(yaw)
            turned = np.stack([local[:, 0] * c - local[:, 1] * s, local[:, 0] * s + local[:, 1] * c,
                               local[:, 2]], axis=1)  # fmt: skip
            corners = camera_from_map.apply(turned + [x, y, z] + geometry.origin)
            if corners[:, 2].min() < 0.5:
                continue
            u, v, _ = calibration.project(corners).T
            row, column = np.nonzero(picture.objects == index)
            assert column.min() >= u.min() - 0.6
            assert column.max() <= u.max() + 0.6
            assert row.min() >= v.min() - 0.6
            assert row.max() <= v.max() + 0.6
            checked += 1
    assert checked >= 5


def test_lidar_points_project_onto_the_surface_they_hit(geometry: RaycastingScene) -> None:
    world, time_s = geometry.world, 2.0
    snapshot = geometry.at(time_s)
    points = scan(snapshot, time_s, np.random.default_rng(0))
    assert 10_000 < len(points) < 35_000
    assert set(np.unique(points[:, 4])) <= set(range(32))
    ego = world.map_from_ego(time_s)
    in_map = (ego @ ego_from_lidar()).apply(points[:, :3])
    shares = []
    for calibration in camera_calibrations(*SIZE).values():
        picture = take_picture(
            snapshot, CameraPose(calibration, ego), world.light, np.random.default_rng(0)
        )
        camera = (ego @ calibration.ego_from_camera).inverse.apply(in_map)
        u, v, depth = calibration.project(camera).T
        inside = (depth > 1) & (u > 0) & (u < SIZE[0] - 1) & (v > 0) & (v < SIZE[1] - 1)
        seen = picture.depth_m[np.round(v[inside]).astype(int), np.round(u[inside]).astype(int)]
        # the camera looks from elsewhere, so some points are hidden from it; none is in the air
        assert np.mean(seen > depth[inside] + 1.0) < 0.06
        shares.append(np.mean(np.abs(seen - depth[inside]) < 0.05 * depth[inside] + 0.1))
    assert np.mean(shares) > 0.85


def test_the_devkit_loads_it_and_agrees(synthetic_dataroot: Path) -> None:
    from nuscenes import NuScenes
    from nuscenes.utils.geometry_utils import points_in_box

    devkit = NuScenes("v1.0-mini", str(synthetic_dataroot), verbose=False)
    assert [scene["name"] for scene in devkit.scene] == scene_names(2)[1]
    assert len(devkit.sample) == 8
    tables, moving = NuScenesTables(synthetic_dataroot, "v1.0-mini"), 0
    for sample in devkit.sample:
        path, boxes, _ = devkit.get_sample_data(sample["data"]["LIDAR_TOP"])
        points = np.fromfile(path, np.float32).reshape(-1, 5)[:, :3]
        for box in boxes:
            annotation = devkit.get("sample_annotation", box.token)
            assert points_in_box(box, points.T).sum() == annotation["num_lidar_pts"]
        truth = tables.ground_truth(sample["token"])
        for token, velocity in zip(truth.tokens, truth.boxes.velocities, strict=True):
            expected = devkit.box_velocity(token)[:2]
            np.testing.assert_allclose(velocity, expected, atol=1e-6)
            moving += int(np.linalg.norm(expected) > 1)
        assert {r.channel for r in tables.cameras(sample["token"]).values()} == set(CAMERAS)
    assert moving > 5
    assert devkit.map[0]["mask"].mask().any()


def test_same_seed_same_bytes_with_any_workers(synthetic_dataroot: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    write_dataset(again, WorldOptions(2, 4, seed=3, image_size_px=SIZE, workers=2))
    assert files_of(again) == files_of(synthetic_dataroot)


def test_another_seed_is_another_world() -> None:
    one, other = (World.sample(np.random.default_rng(seed), 4.0) for seed in (1, 2))
    assert len(one.actors) != len(other.actors) or one.light != other.light


def test_goes_on_where_it_stopped(synthetic_dataroot: Path, tmp_path: Path) -> None:
    root = shutil.copytree(synthetic_dataroot, tmp_path / "data")
    second = scene_names(2)[1][1]
    (root / ".scenes" / f"{second}.json").unlink()
    kept = next(path for path in root.rglob("*.jpg") if second not in path.name)
    before = kept.stat().st_mtime_ns
    write_dataset(root, WorldOptions(2, 4, seed=3, image_size_px=SIZE, workers=1))
    assert kept.stat().st_mtime_ns == before
    assert files_of(root) == files_of(synthetic_dataroot)


def test_a_scene_does_not_depend_on_how_many_there_are(
    synthetic_dataroot: Path, tmp_path: Path
) -> None:
    root = tmp_path / "three"
    write_dataset(root, WorldOptions(3, 4, seed=3, image_size_px=SIZE, workers=1))
    assert set(scene_names(2)[1]) < set(scene_names(3)[1])
    more = files_of(root)
    for name, data in files_of(synthetic_dataroot).items():
        if name.startswith(("samples", "maps", ".scenes")):
            assert more[name] == data


@pytest.mark.parametrize(("sweeps", "images"), [("all", 7), ("lidar", 2)])
def test_sweeps_come_between_and_leave_key_frames_as_they_were(
    sweeps: Sweeps, images: int, tmp_path: Path
) -> None:
    plain, root = tmp_path / "none", tmp_path / "sweeps"
    write_dataset(plain, WorldOptions(1, 2, seed=3, image_size_px=SIZE, workers=1))
    write_dataset(root, WorldOptions(1, 2, seed=3, image_size_px=SIZE, sweeps=sweeps, workers=1))
    there = files_of(root)
    for name, data in files_of(plain).items():
        if name.startswith("samples/") or name.endswith("sample_annotation.json"):
            assert there[name] == data
    tables = NuScenesTables(root, "v1.0-mini")
    (scene,) = tables.scene_names
    front = [r for r in tables.sensor_data(scene, modality="camera") if r.channel == "CAM_FRONT"]
    assert [r.is_key_frame for r in front] == [True, *[False] * (images - 2), True]
    gaps_ms = np.diff([r.stamp_ns for r in front]) / 1e6
    np.testing.assert_allclose(gaps_ms, 500 / (images - 1), atol=0.01)
    assert len(tables.sensor_data(scene, modality="lidar")) == 11


def test_one_sees_through_a_bicycle_and_not_through_a_motorcycle() -> None:
    """How much of the box is covered, seen from the side."""
    shares = {}
    for name in ("bicycle", "motorcycle"):
        mesh = SHAPES[name](np.random.default_rng(0), 1.9, 0.6, 1.1)
        x, z = np.meshgrid(np.linspace(-0.9, 0.9, 60), np.linspace(-0.5, 0.5, 40))
        corners = mesh.vertices[mesh.triangles][:, :, [0, 2]]
        hit = np.zeros(x.shape, bool)
        for a, b, c in corners:
            sides = [
                (q[0] - p[0]) * (z - p[1]) - (q[1] - p[1]) * (x - p[0])
                for p, q in ((a, b), (b, c), (c, a))
            ]
            flat = abs(np.linalg.det([b - a, c - a])) < 1e-9
            hit |= (not flat) & (np.all(np.array(sides) >= 0, 0) | np.all(np.array(sides) <= 0, 0))
        shares[name] = hit.mean()
    assert 0.17 < shares["bicycle"] < 0.3 < 0.45 < shares["motorcycle"], shares


@pytest.mark.parametrize("scenes", [0, 851])
def test_refuses_a_number_of_scenes_without_names(scenes: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"scenes is {scenes}"):
        write_dataset(tmp_path / "x", WorldOptions(scenes, 2, workers=1))


def test_numbers_that_make_no_world_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seed is -1: use 0 or more"):
        WorldOptions(seed=-1)
    for size in ("31x400", "400x8193", "400", "²00x400"):
        assert main(["synth", str(tmp_path / "x"), "--image-size", size]) == 2
    assert not (tmp_path / "x").exists()


def test_a_call_that_wrote_no_scene_binds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    out, few = tmp_path / "world", {"image_size_px": SIZE, "workers": 1}
    monkeypatch.setattr(dataset, "record_scene", fail)
    with pytest.raises(OSError, match="No space"):
        write_dataset(out, WorldOptions(1, 1, seed=3, **few))  # type: ignore[arg-type]
    monkeypatch.undo()
    write_dataset(out, WorldOptions(1, 1, seed=4, **few))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="other settings"):
        write_dataset(out, WorldOptions(1, 1, seed=3, **few))  # type: ignore[arg-type]


def test_refuses_a_folder_of_other_settings(synthetic_dataroot: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="other settings"):
        write_dataset(synthetic_dataroot, WorldOptions(2, 4, seed=9, image_size_px=SIZE, workers=1))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="not empty"):
        write_dataset(tmp_path, WorldOptions(1, 1, workers=1))


def test_ground_truth_as_prediction_scores_as_the_devkit_says(synthetic_dataroot: Path) -> None:
    from labeldistill_core.evaluation.metrics import evaluate
    from labeldistill_core.evaluation.result_boxes import result_boxes

    tables = NuScenesTables(synthetic_dataroot, "v1.0-mini")
    truths = [tables.ground_truth(t) for s in tables.scene_names for t in tables.samples(s)]
    assert torch.isfinite(truths[1].boxes.values[:, :7]).all()
    results = {
        t.sample_token: [
            box
            for box, points in zip(
                result_boxes(t.sample_token, t.boxes, attributes=t.attributes),
                t.num_lidar_pts,
                strict=True,
            )
            if points  # the metrics leave out what no sensor touched
        ]
        for t in truths
    }
    metrics = evaluate(truths, results)
    present = [name for name, count in metrics.truth_boxes.items() if count]
    assert len(present) >= 3
    assert all(metrics.class_ap[name] > 0.98 for name in present)
