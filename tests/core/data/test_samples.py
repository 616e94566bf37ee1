# SPDX-License-Identifier: Apache-2.0
"""Training samples: augmentation moves images, geometry, boxes and depth labels alike."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.config import BevGrid, StudentConfig
from labeldistill_core.data.augmentation import AugmentationConfig
from labeldistill_core.data.batch import camera_batch
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.samples import (
    LidarDataset,
    SampleConfig,
    StudentDataset,
    StudentSample,
)
from labeldistill_core.data.splits import split_scenes
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Transform
from labeldistill_core.lidar.config import SweepsConfig
from labeldistill_core.lidar.points import Points
from labeldistill_core.presets import demo
from labeldistill_core.published import behaviour
from tests.support.nuscenes_fixture import SCENES, VERSION

CONFIG: StudentConfig = replace(demo().student, grid=BevGrid(cell_m=3.2))


@pytest.fixture(scope="module")
def tables(synthetic_dataroot: Path) -> NuScenesTables:
    return NuScenesTables(synthetic_dataroot, "v1.0-mini")


def centers_in_images(sample: StudentSample) -> list[np.ndarray[Any, Any]]:
    """Pixels and depths of the boxes' centres in each current image, by the batch's geometry."""
    batch, (boxes,) = sample.batch, sample.boxes
    homogeneous = torch.cat([boxes.centers, torch.ones(len(boxes), 1)], dim=1)
    found = []
    for camera in range(batch.images.shape[2]):
        ego_from_camera = batch.augmentation[0] @ batch.ego_from_camera[0, 0, camera]
        points = (torch.linalg.inv(ego_from_camera) @ homogeneous.T)[:3]
        pixels = batch.intrinsics[0, 0, camera] @ points
        depth = pixels[2]
        uv = torch.stack([pixels[0] / depth, pixels[1] / depth, depth, torch.ones_like(depth)])
        moved = batch.image_from_sensor[0, 0, camera] @ uv
        found.append(torch.stack([moved[0], moved[1], depth]).T.numpy())
    return found


def test_without_augmentation_it_is_the_evaluation_input(tables: NuScenesTables) -> None:
    scene = tables.scene_names[0]
    dataset = StudentDataset(tables, [scene], CONFIG)
    tokens = tables.samples(scene)
    assert len(dataset) == 4
    # the past frame is two key frames back, or the current one where the scene begins
    for index, past in ((0, 0), (1, 1), (2, 0), (3, 1)):
        sets = [tables.frame_set(tokens[i], CONFIG.cameras) for i in (index, past)]
        expected, sample = camera_batch(sets, CONFIG), dataset[index]
        assert torch.equal(sample.batch.images, expected.images)
        assert torch.equal(sample.batch.ego_from_camera, expected.ego_from_camera)
    truth = tables.ground_truth(tokens[0])
    assert len(dataset[0].boxes[0]) == sum(n > 0 for n in truth.num_lidar_pts)


def test_ages_that_no_key_frame_has_are_told(
    tables: NuScenesTables, caplog: pytest.LogCaptureFixture
) -> None:
    StudentDataset(tables, tables.scene_names, replace(CONFIG, history_s=(0.7, 1.0, 1.8)))
    (told,) = (r.getMessage() for r in caplog.records if "key frame" in r.getMessage())
    assert told.startswith("no sample has a key frame 0.7 or 1.8 s before it")


def test_augmented_boxes_stay_on_their_pixels(tables: NuScenesTables) -> None:
    """What is drawn moves everything together: undoing the image transform gives the same place."""
    scene = tables.scene_names[0]
    plain = StudentDataset(tables, [scene], CONFIG)[2]
    augmented = StudentDataset(tables, [scene], CONFIG, AugmentationConfig())[2, 1]
    assert not torch.equal(augmented.batch.augmentation, plain.batch.augmentation)
    assert not torch.allclose(augmented.boxes[0].values, plain.boxes[0].values)
    compared = 0
    for camera, (one, two) in enumerate(
        zip(centers_in_images(plain), centers_in_images(augmented), strict=True)
    ):
        scale = np.linalg.det(augmented.batch.augmentation[0, :3, :3].numpy())
        np.testing.assert_allclose(one[:, 2], two[:, 2], rtol=1e-3, atol=1e-2)
        assert abs(scale) != 1.0
        front = one[:, 2] > 1.0
        sensor = []
        for points, batch in ((one, plain.batch), (two, augmented.batch)):
            matrix = batch.image_from_sensor[0, 0, camera].numpy()
            linear, shift = matrix[:2, :2], matrix[:2, 3]
            sensor.append((points[front, :2] - shift) @ np.linalg.inv(linear).T)
        np.testing.assert_allclose(sensor[0], sensor[1], atol=0.1, rtol=1e-3)
        compared += int(front.sum())
    assert compared > 10


def test_depth_labels_follow_the_image_transform(tables: NuScenesTables) -> None:
    scene = tables.scene_names[0]
    plain = StudentDataset(tables, [scene], CONFIG)[0]
    mirror = AugmentationConfig(
        resize=(1.0, 1.0), image_rotation_deg=(0.0, 0.0), bev_rotation_deg=(0.0, 0.0),
        bev_scale=(1.0, 1.0), bev_flip=False,
    )  # fmt: skip
    flipped = StudentDataset(tables, [scene], CONFIG, mirror)[0, 1]
    mirrored = 0
    for camera in range(6):
        image, depth = plain.batch.images[0, 0, camera], plain.depth[0, camera]
        other, labels = flipped.batch.images[0, 0, camera], flipped.depth[0, camera]
        if flipped.batch.image_from_sensor[0, 0, camera, 0, 0] > 0:
            assert torch.equal(labels, depth)
            continue
        mirrored += 1
        assert torch.equal(other, image.flip(-1))
        known = (labels > 0).float().mean()
        # a point on a pixel's edge may fall into its neighbour
        near = torch.nn.functional.max_pool2d(depth.flip(-1)[None], 3, 1, 1)[0]
        assert ((labels > 0) & (near == 0)).float().mean() < 0.02 * known
    assert mirrored >= 1
    assert 0.005 < (plain.depth > 0).float().mean() < 0.3


def nearest_label(depth: np.ndarray[Any, Any], column: int, row: int, expected_m: float) -> float:
    """Least difference between a depth and the labels within three pixels, metres."""
    window = depth[max(0, row - 3) : row + 4, max(0, column - 3) : column + 4]
    known = window[window > 0]
    return float(np.abs(known - expected_m).min()) if len(known) else np.inf


def on_labels(sample: StudentSample, points: torch.Tensor) -> float:
    """Share of the points that fall where the depth labels say, by the batch's geometry."""
    batch, hits = sample.batch, []
    homogeneous = torch.cat([points[:, :3], torch.ones(len(points), 1)], dim=1)
    height, width = sample.depth.shape[-2:]
    for camera in range(6):
        ego_from_camera = batch.augmentation[0] @ batch.ego_from_camera[0, 0, camera]
        xyz = (torch.linalg.inv(ego_from_camera) @ homogeneous.T)[:3]
        xyz = xyz[:, xyz[2] > 1.0]
        u, v, _ = batch.intrinsics[0, 0, camera] @ (xyz / xyz[2])
        matrix = batch.image_from_sensor[0, 0, camera]
        pixels = matrix[:2, :2] @ torch.stack([u, v]) + matrix[:2, 3:]
        depth = sample.depth[0, camera].numpy()
        for (column, row), away in zip(pixels.T.long().tolist(), xyz[2].tolist(), strict=True):
            if 4 <= column < width - 4 and 4 <= row < height - 4:
                hits.append(nearest_label(depth, column, row, away) < 0.02 * away + 0.3)
    assert len(hits) > 100
    return float(np.mean(hits))


def test_augmented_points_lie_on_the_depth_labels_of_augmented_images(
    tables: NuScenesTables,
) -> None:
    """One draw turns, scales and mirrors the world; another each image; both meet in the pixels."""
    data = StudentDataset(
        tables, [tables.scene_names[0]], CONFIG, AugmentationConfig(), Points(SweepsConfig(0, 0))
    )
    plain = data[1]
    # the ground looks the same from all sides
    upright = plain.points[0][:, 2] > 0.5
    assert on_labels(plain, plain.points[0][upright]) > 0.95
    for seed in (1, 2):
        sample = data[1, seed]
        assert on_labels(sample, sample.points[0][upright]) > 0.95
        assert on_labels(sample, plain.points[0][upright]) < 0.6


def test_published_samples_differ_where_the_published_code_does(tables: NuScenesTables) -> None:
    config = replace(CONFIG, history_s=(0.5, 1.0))
    scene = tables.scene_names[0]
    published = behaviour.samples(SampleConfig(depth_labels="linear"))
    assert published == SampleConfig("last_valid", "last", "one_hot")
    ours = StudentDataset(tables, [scene], config)
    theirs = StudentDataset(tables, [scene], config, sample=published)
    # the second sample has one past frame: it stands in again, or the current one does
    first, second = tables.samples(scene)[:2]
    assert ours.frame_tokens[1] == (second, first, second)
    assert theirs.frame_tokens[1] == (second, first, first)
    assert ours.frame_tokens[0] == theirs.frame_tokens[0] == (first, first, first)
    near, last = ours[3].depth, theirs[3].depth
    assert torch.equal(near > 0, last > 0)
    assert (near <= last).all()
    assert (near < last).any()


def test_collating_keeps_every_sample(tables: NuScenesTables) -> None:
    dataset = StudentDataset(tables, split_scenes(tables, "all"), CONFIG)
    both = StudentSample.collate([dataset[0], dataset[5]])
    assert both.batch.images.shape[:3] == (2, 2, 6)
    assert both.depth.shape == (2, 6, 128, 352)
    assert torch.equal(both.batch.images[1:], dataset[5].batch.images)
    assert torch.equal(both.boxes[1].values, dataset[5].boxes[0].values)


def test_a_missing_scan_names_the_sample(synthetic_dataroot: Path, tmp_path: Path) -> None:
    root = shutil.copytree(synthetic_dataroot, tmp_path / "data")
    tables = NuScenesTables(root, "v1.0-mini")
    scene = tables.scene_names[0]
    token = tables.samples(scene)[1]
    dataset = StudentDataset(tables, [scene], CONFIG)
    tables.lidar(token).path.write_bytes(b"short")
    with pytest.raises(DataError, match=rf"sample {token}: .*no LiDAR scan"):
        dataset[1]
    tables.lidar(token).path.unlink()
    with pytest.raises(DataError, match=rf"sample {token}: "):
        dataset[1]
    assert len(dataset[0].boxes) == 1


def test_boxes_whose_points_nobody_counted_are_learned_and_scored(dataroot: Path) -> None:
    table = dataroot / VERSION / "sample_annotation.json"
    rows = json.loads(table.read_text())
    rows = [{**row, "num_lidar_pts": -1, "num_radar_pts": 0} for row in rows]
    table.write_text(json.dumps(rows))
    tables = NuScenesTables(dataroot, VERSION)
    scene = next(iter(SCENES))
    truths = [tables.ground_truth(token) for token in tables.samples(scene)]
    data = LidarDataset(tables, [scene], CAMERAS)
    assert sum(len(truth.boxes) for truth in truths) > 0
    for truth, index in zip(truths, range(len(data)), strict=True):
        assert truth.touched.all()
        assert len(data[index].boxes[0]) == len(truth.boxes)


def test_a_partial_root_is_refused_before_the_first_step(dataroot: Path) -> None:
    tables = NuScenesTables(dataroot, VERSION)
    tables.cameras("sample-1-2")["CAM_BACK"].path.unlink()
    with pytest.raises(DataError, match="1 of 6 samples lack images .*such as sample sample-1-2"):
        StudentDataset(tables, SCENES, CONFIG)
    assert len(StudentDataset(tables, SCENES[:1], CONFIG)) == 3
    assert len(StudentDataset(tables, SCENES, CONFIG, partial=True)) == 5


def test_scans_that_are_missing_are_refused_or_left_out(
    synthetic_dataroot: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = shutil.copytree(synthetic_dataroot, tmp_path / "data")
    tables = NuScenesTables(root, "v1.0-mini")
    scene, points = tables.scene_names[0], Points(SweepsConfig(0, 0))
    token = tables.samples(scene)[1]
    tables.lidar(token).path.unlink()
    lacking = f"1 of 4 samples lack LiDAR scans under .* sample {token}: .*--partial"
    with pytest.raises(DataError, match=lacking):
        StudentDataset(tables, [scene], CONFIG)
    with pytest.raises(DataError, match=lacking):
        LidarDataset(tables, [scene], CAMERAS, None, points)
    blind = StudentDataset(tables, [scene], CONFIG, partial=True)
    assert len(blind) == 4
    assert "1 of 4 samples have no LiDAR scan, and so no depth labels" in caplog.text
    assert not blind[1].depth.any()
    assert blind[0].depth.any()
    assert len(StudentDataset(tables, [scene], CONFIG, None, points, True)) == 3
    assert "1 of 4 samples lack images or scans and are left out" in caplog.text
    assert len(LidarDataset(tables, [scene], CAMERAS, None, points, True)) == 3
    assert len(LidarDataset(tables, [scene], CAMERAS)) == 4


@pytest.mark.parametrize("kept", [(), ("CAM_BACK", "CAM_FRONT")])
def test_scans_need_no_cameras(
    synthetic_dataroot: Path, tmp_path: Path, kept: tuple[str, ...]
) -> None:
    root = shutil.copytree(synthetic_dataroot, tmp_path / "data")
    file = root / "v1.0-mini" / "sample_data.json"
    names = ("LIDAR", *(f"/{camera}/" for camera in kept))
    rows = [r for r in json.loads(file.read_text()) if any(n in r["filename"] for n in names)]
    # As other tools write them: then the size is that of the image, which is not there either.
    file.write_text(json.dumps([{**row, "width": 0, "height": 0} for row in rows]))
    for image in root.glob("samples/CAM*/*"):
        image.unlink()
    tables = NuScenesTables(root, "v1.0-mini")
    scene = tables.scene_names[0]
    token, points = tables.samples(scene)[0], Points(SweepsConfig(0, 0))
    poses = tables.camera_poses(token)
    assert set(poses) == set(kept)
    for cameras in (CAMERAS, None):
        sample = LidarDataset(tables, [scene], cameras, None, points)[0]
        at_cameras = [poses[name] for name in kept]
        wanted = Transform.mean(at_cameras or [tables.lidar(token).fixed_from_ego])
        np.testing.assert_allclose(sample.map_from_ego[0].matrix, wanted.matrix, atol=1e-9)
        assert len(sample.boxes[0])
        assert len(sample.points[0])


def test_data_of_cameras_alone_has_no_depth_labels(
    synthetic_dataroot: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(synthetic_dataroot, tmp_path / "data")
    folder = root / "v1.0-mini"
    data = json.loads((folder / "sample_data.json").read_text())
    cameras = [row for row in data if "LIDAR" not in row["filename"]]
    assert len(cameras) < len(data)
    (folder / "sample_data.json").write_text(json.dumps(cameras))
    tables = NuScenesTables(root, "v1.0-mini")
    with pytest.raises(DataError, match="8 of 8 samples lack LiDAR scans"):
        StudentDataset(tables, tables.scene_names, CONFIG)
    sample = StudentDataset(tables, tables.scene_names, CONFIG, partial=True)[0]
    assert not sample.depth.any()
    assert len(sample.boxes[0].values)
