# SPDX-License-Identifier: Apache-2.0
"""Another vehicle's recording, with bent images and rates of its own, as a data root."""

from pathlib import Path

import numpy as np
import pytest

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.synthetic.dataset import WorldOptions, write_dataset
from labeldistill_ros.cli import main
from tests.support.other_car import world_options


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> WorldOptions:
    return world_options(tmp_path_factory.mktemp("rig"))


@pytest.fixture(scope="module")
def bags(options: WorldOptions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bags") / "all"
    words = ["synth", str(out), "--rig", str(options.rig), "--scenes", "1", "--key-frames", "4"]
    assert main([*words, "--seed", "2", "--workers", "1", "--bags"]) == 0
    return out


@pytest.fixture(scope="module")
def truth(options: WorldOptions, tmp_path_factory: pytest.TempPathFactory) -> NuScenesTables:
    """What the same scene is as a data root, whose images never were bent."""
    root = tmp_path_factory.mktemp("truth") / "root"
    return NuScenesTables(root, write_dataset(root, options))


@pytest.fixture(scope="module")
def converted(bags: Path, tmp_path_factory: pytest.TempPathFactory) -> NuScenesTables:
    root = tmp_path_factory.mktemp("converted") / "root"
    (bag,) = bags.iterdir()
    assert main(["bag", "to-nuscenes", str(bag), str(root), "--workers", "1"]) == 0
    return NuScenesTables(root, "v1.0-trainval")


def test_key_frames_calibrations_and_poses(
    truth: NuScenesTables, converted: NuScenesTables
) -> None:
    (scene,) = truth.scene_names
    first, second = truth.samples(scene), converted.samples(scene)
    assert [truth.stamp_ns(t) for t in first] == [converted.stamp_ns(t) for t in second]
    for old, new in zip(first, second, strict=True):
        a, b = truth.sensors(old), converted.sensors(new)
        assert a.keys() == b.keys()
        for name, record in b.items():
            assert record.stamp_ns == a[name].stamp_ns
            mounted = a[name].ego_from_sensor.matrix
            np.testing.assert_allclose(record.ego_from_sensor.matrix, mounted, rtol=0, atol=1e-9)
            np.testing.assert_array_equal(record.intrinsics_px, a[name].intrinsics_px)
            # poses lie 10 ms apart and are interpolated
            np.testing.assert_allclose(
                record.fixed_from_ego.matrix, a[name].fixed_from_ego.matrix, rtol=0, atol=2e-4
            )


def test_images_are_straight_again(truth: NuScenesTables, converted: NuScenesTables) -> None:
    (scene,) = truth.scene_names
    first = truth.frame_set(truth.samples(scene)[1]).by_name
    second = converted.frame_set(converted.samples(scene)[1]).by_name
    for name, view in second.items():
        a, b = first[name].pixels.astype(float), view.pixels.astype(float)
        # what the bent image did not see is black in the straight one
        seen = view.pixels.max(axis=2) > 12
        assert seen.mean() > 0.7
        assert np.abs(a - b)[seen].mean() < 12, name
    # the camera without distortion keeps its bytes, so it differs by nothing
    np.testing.assert_array_equal(first["LEFT"].pixels, second["LEFT"].pixels)


def test_boxes_and_scans(truth: NuScenesTables, converted: NuScenesTables) -> None:
    (scene,) = truth.scene_names
    for old, new in zip(truth.samples(scene), converted.samples(scene), strict=True):
        a, b = truth.ground_truth(old), converted.ground_truth(new)
        assert b.num_lidar_pts == a.num_lidar_pts
        np.testing.assert_allclose(b.boxes.values[:, :7], a.boxes.values[:, :7], atol=1e-3)
        np.testing.assert_array_equal(a.boxes.labels, b.boxes.labels)
        np.testing.assert_array_equal(truth.lidar(old).scan(), converted.lidar(new).scan())


def test_sweeps_keep_the_rates_of_the_sensors(converted: NuScenesTables) -> None:
    (scene,) = converted.scene_names
    records = converted.sensor_data(scene)
    counts = {c: sum(r.channel == c for r in records) for c in ("WIDE", "REAR", "LIDAR_TOP")}
    # one and a half seconds, both ends counted
    assert counts == {"WIDE": 16, "REAR": 31, "LIDAR_TOP": 31}
