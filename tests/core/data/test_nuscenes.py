# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest
import torch

from labeldistill_core.cameras import CAMERAS, EGO_FRAME, FIXED_FRAME
from labeldistill_core.classes import CLASSES
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import DataError
from tests.support.nuscenes_fixture import OBJECTS, SCENES, VERSION, ego_at, jpeg

Nus = NuScenesTables


@pytest.fixture
def tables(shared_dataroot: Path) -> Nus:
    return Nus(shared_dataroot, VERSION)


def test_samples_follow_in_time(tables: Nus) -> None:
    assert tables.scene_names == SCENES
    tokens = tables.samples(SCENES[1])
    assert len(tokens) == 3
    stamps = [tables.stamp_ns(token) for token in tokens]
    assert stamps == sorted(stamps)
    assert {tables.scene_of(token) for token in tokens} == {SCENES[1]}


def test_a_frame_set_has_each_camera_at_its_own_pose(tables: Nus) -> None:
    token = tables.samples(SCENES[0])[1]
    frames = tables.frame_set(token)
    assert frames.stamp_ns == tables.stamp_ns(token)
    assert set(frames.by_name) == set(CAMERAS)
    for name, view in frames.by_name.items():
        position, rotation = ego_at(0, view.stamp_ns // 1000)
        np.testing.assert_allclose(view.fixed_from_ego.translation, position)
        np.testing.assert_allclose(view.fixed_from_ego.quaternion, rotation, atol=1e-12)
        assert view.fixed_from_ego.target == FIXED_FRAME
        assert view.calibration.ego_from_camera.source == name
        assert view.image.shape == (90, 160, 3)
    ahead = frames.by_name["CAM_FRONT"].calibration.ego_from_camera.rotation @ [0, 0, 1]
    np.testing.assert_allclose(ahead, [1, 0, 0], atol=1e-9)
    left = frames.by_name["CAM_FRONT_LEFT"].calibration.ego_from_camera.rotation @ [0, 0, 1]
    assert left[1] > 0.5


def test_a_frame_set_takes_the_cameras_asked_for(tables: Nus) -> None:
    token = tables.samples(SCENES[0])[0]
    frames = tables.frame_set(token, ["CAM_BACK", "CAM_FRONT"])
    assert [view.calibration.name for view in frames.views] == ["CAM_BACK", "CAM_FRONT"]
    with pytest.raises(DataError, match="no image of CAM_TOP; it has CAM_FRONT_LEFT"):
        tables.frame_set(token, ["CAM_TOP"])


def test_sweeps_lie_between_samples(tables: Nus) -> None:
    keys = tables.sensor_data(SCENES[0], modality="camera", sweeps=False)
    all_ = tables.sensor_data(SCENES[0], modality="camera")
    assert (len(keys), len(all_)) == (18, 30)
    stamps = [record.stamp_ns for record in all_]
    assert stamps == sorted(stamps)
    assert all(record.is_there and record.modality == "camera" for record in all_)


def test_pose_at_every_record_of_every_sensor(tables: Nus) -> None:
    records = tables.sensor_data(SCENES[0])
    stamps = [record.stamp_ns for record in records]
    assert len(set(stamps)) == 33
    assert stamps == sorted(stamps)
    for record in records:
        pose = record.fixed_from_ego
        np.testing.assert_allclose(pose.translation, ego_at(0, record.stamp_ns // 1000)[0])


def test_ground_truth(tables: Nus) -> None:
    token = tables.samples(SCENES[0])[1]
    truth = tables.ground_truth(token)
    names = [instance.split("-")[1] for instance in truth.instances]
    assert names == [name for name in OBJECTS if name not in ("rack", "dog")]
    assert truth.boxes.frame == FIXED_FRAME
    assert truth.boxes.values.dtype == torch.float64
    car = names.index("car")
    width, length, height = OBJECTS["car"][4]
    np.testing.assert_allclose(truth.boxes.sizes[car], [length, width, height])
    assert truth.boxes.yaws[car] == pytest.approx(OBJECTS["car"][5])
    assert CLASSES[truth.boxes.labels[names.index("walker")]] == "pedestrian"
    assert (truth.num_lidar_pts[car], truth.attributes[car]) == (40, "vehicle.moving")
    assert (truth.visibility[car], truth.visibility[0 if car else 1]) == ("v80-100", "")
    assert truth.bicycle_racks.shape == (1, 7)
    np.testing.assert_allclose(truth.bicycle_racks[0, 3:], [6.0, 2.0, 1.4, 0.4])
    assert truth.fixed_from_ego.source == EGO_FRAME


def test_velocities_are_the_devkits(tables: Nus, shared_dataroot: Path) -> None:
    nuscenes = pytest.importorskip("nuscenes")
    devkit = nuscenes.NuScenes(VERSION, str(shared_dataroot), verbose=False)
    count = 0
    for scene in SCENES:
        for token in tables.samples(scene):
            truth = tables.ground_truth(token)
            for mine, annotation in zip(truth.boxes.velocities, truth.tokens, strict=True):
                wanted = devkit.box_velocity(annotation)[:2]
                np.testing.assert_array_equal(mine.numpy(), wanted)
                count += np.isfinite(wanted).all()
    assert count > 20
    once = tables.ground_truth(tables.samples(SCENES[0])[1])
    index = [i.split("-")[1] for i in once.instances].index("once")
    assert torch.isnan(once.boxes.velocities[index]).all()


def test_the_scan_of_a_sample(tables: Nus) -> None:
    token = tables.samples(SCENES[0])[0]
    assert tables.lidar(token).path.suffixes[-2:] == [".pcd", ".bin"]
    assert tables.lidar(token).stamp_ns == tables.stamp_ns(token)


def test_a_root_without_tables(tmp_path: Path, dataroot: Path) -> None:
    with pytest.raises(DataError, match="no data root .*nowhere"):
        Nus(tmp_path / "nowhere", VERSION)
    with pytest.raises(DataError, match=f"no tables v1.0-mini.*has the versions {VERSION}"):
        Nus(dataroot, "v1.0-mini")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no tables at all"):
        Nus(tmp_path / "empty", VERSION)


def test_damaged_tables(dataroot: Path) -> None:
    folder = dataroot / VERSION
    text = (folder / "sample.json").read_text()
    (folder / "sample.json").write_text(text[:100])
    with pytest.raises(DataError, match=r"sample\.json is no readable JSON"):
        Nus(dataroot, VERSION)
    (folder / "sample.json").write_text("{}")
    with pytest.raises(DataError, match=r"sample\.json is no nuScenes table"):
        Nus(dataroot, VERSION)
    (folder / "sample.json").unlink()
    with pytest.raises(DataError, match=r"sample\.json is missing"):
        Nus(dataroot, VERSION)


def test_an_unknown_scene_lists_those_there_are(tables: Nus) -> None:
    with pytest.raises(DataError, match="no scene 'scene-9'.*there are: scene-0001, scene-0002"):
        tables.samples("scene-9")


def test_an_unknown_sample(tables: Nus) -> None:
    with pytest.raises(DataError, match="no sample 'nothing'"):
        tables.ground_truth("nothing")


def test_missing_corrupt_and_misshapen_images(dataroot: Path) -> None:
    tables = Nus(dataroot, VERSION)
    token = tables.samples(SCENES[0])[0]
    assert tables.has_images(token)
    path = tables.cameras(token)["CAM_BACK"].path
    path.write_bytes(jpeg(1)[:300])
    with pytest.raises(DataError, match=f"{path.name}: corrupt image of 300 bytes"):
        tables.frame_set(token)
    path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=f"{path.name}: corrupt image"):
        tables.frame_set(token)
    other = np.zeros((10, 20, 3), np.uint8)
    from PIL import Image

    Image.fromarray(other).save(path)
    with pytest.raises(DataError, match=rf"{path.name}: CAM_BACK: image is uint8 \(10, 20, 3\)"):
        tables.frame_set(token)
    path.unlink()
    assert not tables.has_images(token)
    with pytest.raises(DataError, match=f"CAM_BACK of sample {token}: cannot read .*partial"):
        tables.frame_set(token)


def test_real_tables_say_what_is_there(shared_data: Path) -> None:
    tables = Nus(shared_data / "nuscenes/mini_val", "v1.0-mini")
    assert tables.scene_names == ("scene-0103", "scene-0916")
    tokens = tables.samples("scene-0103")
    there = [i for i, token in enumerate(tokens) if tables.has_images(token)]
    assert there == [0, 1, 2, 3, 5, 8]
    frames = tables.frame_set(tokens[0])
    assert {view.image.shape for view in frames.views} == {(900, 1600, 3)}
    assert not any(tables.has_images(token) for token in tables.samples("scene-0916"))
