# SPDX-License-Identifier: Apache-2.0
"""nuScenes to bags and back: nothing of what a detector learns from may change."""

from pathlib import Path

import numpy as np
import pytest

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.nuscenes_records import SensorRecord
from labeldistill_core.data.splits import split_scenes
from labeldistill_core.synthetic.dataset import WorldOptions, write_dataset
from labeldistill_ros.bags.convert import ConversionOptions, convert_scene
from labeldistill_ros.cli import main

OURS = "v1.0-trainval"


def there_and_back(tables: NuScenesTables, scene: str, folder: Path, *options: str) -> Path:
    """The scene as a bag, and the bag as a data root."""
    bag, root = folder / scene, folder / "root"
    convert_scene(tables, scene, bag, ConversionOptions())
    assert main(["bag", "to-nuscenes", str(bag), str(root), "--workers", "1", *options]) == 0
    return root


def told(tables: NuScenesTables, scene: str) -> dict[tuple[str, int], SensorRecord]:
    records = tables.sensor_data(scene)
    return {(r.channel, r.stamp_ns): r for r in records if r.is_there and r.modality != "radar"}


def assert_same_scene(before: NuScenesTables, after: NuScenesTables, scene: str) -> None:
    whole = [token for token in before.samples(scene) if before.has_images(token)]
    tokens = after.samples(scene)
    assert [after.stamp_ns(t) for t in tokens] == [before.stamp_ns(t) for t in whole]
    for old, new in zip(whole, tokens, strict=True):
        assert_same_sample(before, after, old, new)


def assert_same_sample(before: NuScenesTables, after: NuScenesTables, old: str, new: str) -> None:
    first, second = before.ground_truth(old), after.ground_truth(new)
    if after.has_scan(new):  # without, a sample takes the pose of its nearest image
        np.testing.assert_allclose(
            second.fixed_from_ego.matrix, first.fixed_from_ego.matrix, rtol=0, atol=1e-6
        )
    assert len(first.boxes) == len(second.boxes)
    order = sorted(range(len(first.boxes)), key=lambda i: first.boxes.centers[i].tolist())
    again = sorted(range(len(second.boxes)), key=lambda i: second.boxes.centers[i].tolist())
    a, b = first.boxes.values[order].numpy(), second.boxes.values[again].numpy()
    np.testing.assert_allclose(b[:, :6], a[:, :6], rtol=0, atol=1e-3)
    np.testing.assert_allclose(np.cos(b[:, 6] - a[:, 6]), 1, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(first.boxes.labels[order], second.boxes.labels[again])


def assert_same_files(
    before: dict[tuple[str, int], SensorRecord], after: dict[tuple[str, int], SensorRecord]
) -> None:
    assert after.keys() == before.keys()
    for key, record in after.items():
        old = before[key]
        assert record.read() == old.read(), key
        assert record.is_key_frame == old.is_key_frame
        np.testing.assert_allclose(
            record.ego_from_sensor.matrix, old.ego_from_sensor.matrix, rtol=0, atol=1e-9
        )
        np.testing.assert_allclose(
            record.fixed_from_ego.matrix, old.fixed_from_ego.matrix, rtol=0, atol=1e-6
        )
        np.testing.assert_array_equal(record.intrinsics_px, old.intrinsics_px)
        assert (record.width_px, record.height_px) == (old.width_px, old.height_px)


@pytest.fixture(scope="module")
def moving_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes with all sweeps."""
    root = tmp_path_factory.mktemp("moving") / "world"
    write_dataset(root, WorldOptions(2, 3, 5, (80, 45), sweeps="all", workers=1))
    return root


@pytest.mark.parametrize(
    ("world", "version"),
    [
        pytest.param("moving_world", "v1.0-mini", id="sweeps"),
        pytest.param("synthetic_dataroot", "v1.0-mini", id="key frames alone"),
        pytest.param("shared_dataroot", "v1.0-test", id="other tables"),
    ],
)
def test_a_small_world_survives(
    world: str, version: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    before = NuScenesTables(request.getfixturevalue(world), version)
    scene = before.scene_names[0]
    after = NuScenesTables(there_and_back(before, scene, tmp_path), OURS)
    assert_same_scene(before, after, scene)
    assert_same_files(told(before, scene), told(after, scene))


def test_instances_and_points_survive(moving_world: Path, tmp_path: Path) -> None:
    before = NuScenesTables(moving_world, "v1.0-mini")
    scene = before.scene_names[1]
    after = NuScenesTables(there_and_back(before, scene, tmp_path), OURS)
    for old, new in zip(before.samples(scene), after.samples(scene), strict=True):
        first, second = before.ground_truth(old), after.ground_truth(new)
        # Boxes of a sample keep their order, so that rows can be compared.
        assert second.num_lidar_pts == first.num_lidar_pts
        np.testing.assert_allclose(second.boxes.velocities, first.boxes.velocities, atol=1e-6)
    assert split_scenes(after, "train") == [scene]


def test_real_frames_survive(shared_data: Path, tmp_path: Path) -> None:
    before = NuScenesTables(shared_data / "nuscenes/mini_val", "v1.0-mini")
    scene = "scene-0103"
    after = NuScenesTables(there_and_back(before, scene, tmp_path, "--no-sweeps"), OURS)
    assert_same_scene(before, after, scene)
    whole = {t for t in before.samples(scene) if before.has_images(t)}
    keys = {k: r for k, r in told(before, scene).items() if r.sample_token in whole}
    assert_same_files({k: r for k, r in keys.items() if r.is_key_frame}, told(after, scene))
