# SPDX-License-Identifier: Apache-2.0
"""What the tables of the synthetic world say of times, poses, visibility and attributes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.synthetic.dataset import WorldOptions, scene_names, write_dataset
from labeldistill_core.synthetic.meshes import box
from labeldistill_core.synthetic.raycast import RaycastingScene
from labeldistill_core.synthetic.rig import CAMERA_PHASES_S, camera_calibrations
from labeldistill_core.synthetic.visibility import visible_shares
from labeldistill_core.synthetic.world import World

WRITE = """
import sys
from pathlib import Path
from labeldistill_core.synthetic.dataset import WorldOptions, write_dataset
write_dataset(Path(sys.argv[1]), WorldOptions(2, 4, seed=3, image_size_px=(200, 112), workers=1))
"""


def files_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_killed_within_a_scene_it_goes_on_to_the_same_bytes(
    synthetic_dataroot: Path, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    process = subprocess.Popen([sys.executable, "-c", WRITE, str(root)])
    try:
        deadline = time.monotonic() + 120
        while len(list(root.glob("samples/CAM_*/*.jpg"))) < 3:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    first, _ = scene_names(2)[1]
    assert not (root / ".scenes" / f"{first}.json").exists()
    assert 3 <= len(list(root.glob("samples/CAM_*/*.jpg"))) < 24
    write_dataset(root, WorldOptions(2, 4, seed=3, image_size_px=(200, 112), workers=1))
    assert files_of(root) == files_of(synthetic_dataroot)


@pytest.mark.parametrize(("count", "version"), [(10, "v1.0-mini"), (11, "v1.0-trainval")])
def test_scenes_have_the_names_of_the_devkits_splits(count: int, version: str) -> None:
    from nuscenes.utils.splits import create_splits_scenes

    splits = create_splits_scenes()
    found, names = scene_names(count)
    train, val = ("mini_train", "mini_val") if count <= 10 else ("train", "val")
    assert found == version
    assert len(set(names)) == count
    in_train, in_val = set(names) & set(splits[train]), set(names) & set(splits[val])
    assert len(in_train) + len(in_val) == count
    assert 1 <= len(in_val) <= count / 4


def test_cameras_fire_at_their_phases(synthetic_dataroot: Path) -> None:
    tables = NuScenesTables(synthetic_dataroot, "v1.0-mini")
    for scene in tables.scene_names:
        for token in tables.samples(scene):
            after_ms = {
                name: (record.stamp_ns - tables.stamp_ns(token)) / 1e6
                for name, record in tables.cameras(token).items()
            }
            assert after_ms == pytest.approx(
                {name: 1000 * CAMERA_PHASES_S[name] for name in CAMERAS}, abs=1e-3
            )
            assert tables.lidar(token).stamp_ns == tables.stamp_ns(token)


def test_phases_are_those_of_the_real_rig(shared_data: Path) -> None:
    tables = NuScenesTables(shared_data / "nuscenes" / "mini_val", "v1.0-mini")
    tokens = [token for scene in tables.scene_names for token in tables.samples(scene)]
    for name in CAMERAS:
        after_s = [
            (tables.cameras(t)[name].stamp_ns - tables.lidar(t).stamp_ns) / 1e9 for t in tokens
        ]
        assert CAMERA_PHASES_S[name] == pytest.approx(np.median(after_s), abs=0.008)


def test_each_sensor_has_the_pose_of_its_own_time(synthetic_dataroot: Path) -> None:
    tables = NuScenesTables(synthetic_dataroot, "v1.0-mini")
    apart = []
    for scene in tables.scene_names:
        tokens = tables.samples(scene)
        keys = [tables.lidar(token) for token in tokens]
        start = keys[0].stamp_ns
        at_s = np.array([(key.stamp_ns - start) / 1e9 for key in keys])
        places = np.array([key.fixed_from_ego.translation[:2] for key in keys])
        path = np.polyfit(at_s, places, 3)  # through all four key scans
        for token in tokens:
            for record in tables.cameras(token).values():
                time_s = (record.stamp_ns - start) / 1e9
                expected = np.array([time_s**3, time_s**2, time_s, 1.0]) @ path
                here = record.fixed_from_ego.translation[:2]
                np.testing.assert_allclose(here, expected, atol=0.03)
                scan = tables.lidar(token).fixed_from_ego.translation[:2]
                apart.append(np.hypot(*(here - scan)))
    assert max(apart) > 0.1  # the test could tell the scan's pose from the camera's


def test_visibility_agrees_with_rays_into_the_object_alone() -> None:
    world = World.sample(np.random.default_rng(5), 4.0)
    geometry, time_s = RaycastingScene(world), 2.0
    snapshot, ego = geometry.at(time_s), world.map_from_ego(time_s)
    nowhere = box((5e3, 5e3, 0), (5e3 + 1, 5e3 + 1, 1), (0, 0, 0))
    pairs = []
    for calibration in camera_calibrations(400, 225).values():
        map_from_camera = ego @ calibration.ego_from_camera
        v, u = np.mgrid[:225, :400].reshape(2, -1)
        pixels = np.stack([u, v, np.ones_like(u)], axis=1)
        rays = pixels @ np.linalg.inv(calibration.intrinsics_px).T @ map_from_camera.rotation.T
        origins = np.tile(map_from_camera.translation - geometry.origin, (len(rays), 1))
        hits = snapshot.cast(origins, rays)
        seen = np.where(hits.mask, geometry.objects[hits.triangles], -1)
        shares = visible_shares(snapshot, np.arange(len(world.actors)), ego, [calibration])
        for index, actor in enumerate(world.actors):
            alone = RaycastingScene(replace(world, actors=(actor,), clutter=nowhere))
            hit = alone.at(time_s).cast(origins, rays).mask.reshape(225, 400)
            cut = hit[[0, -1]].any() or hit[:, [0, -1]].any()  # part of it is out of the image
            if hit.sum() >= 60 and not cut:
                pairs.append((np.sum(seen == index) / hit.sum(), shares[index]))
    by_pixels, by_surface = np.array(pairs).T
    assert len(pairs) >= 12
    assert np.mean(np.abs(by_pixels - by_surface)) < 0.12
    assert (by_surface[by_pixels > 0.98] > 0.8).all()
    assert (by_surface[by_pixels < 0.05] < 0.4).all()
    assert by_pixels.min() < 0.5 < by_pixels.max()  # both kinds are there


def test_attributes_follow_from_what_moves(synthetic_dataroot: Path) -> None:
    from nuscenes import NuScenes

    devkit = NuScenes("v1.0-mini", str(synthetic_dataroot), verbose=False)
    moving, standing = 0, 0
    for row in devkit.sample_annotation:
        names = [devkit.get("attribute", token)["name"] for token in row["attribute_tokens"]]
        category = row["category_name"]
        if "barrier" in category or "trafficcone" in category:
            assert not names
            continue
        (name,) = names
        kind = category.split(".")[1] if category.startswith("vehicle") else "pedestrian"
        prefix = "cycle" if "cycle" in kind else "pedestrian" if kind == "pedestrian" else "vehicle"
        assert name.startswith(f"{prefix}.")
        if not (row["prev"] and row["next"]):
            continue
        steps = [
            np.subtract(
                row["translation"], devkit.get("sample_annotation", row[end])["translation"]
            )
            for end in ("prev", "next")
        ]
        ways = [np.linalg.norm(step) for step in steps]
        if min(ways) > 0.3:  # within half a second
            assert name in ("vehicle.moving", "pedestrian.moving", "cycle.with_rider")
            moving += 1
        elif max(ways) < 1e-6:
            assert name not in ("vehicle.moving", "pedestrian.moving")
            standing += 1
    assert moving >= 10
    assert standing >= 10
