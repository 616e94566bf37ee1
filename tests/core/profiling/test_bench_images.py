# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.data.image_header import read_header
from labeldistill_core.profiling.bench_images import CAMERA_WH, frame_set, jpeg
from labeldistill_core.synthetic.rig import camera_calibrations
from tests.support.small_networks import small


@pytest.mark.parametrize("cameras", [("left", "right"), ("CAM_FRONT", "left", "back"), ("one",)])
def test_every_camera_of_a_vehicle_has_an_image(cameras: tuple[str, ...]) -> None:
    frames = frame_set(1.0, replace(small(), cameras=cameras))
    assert tuple(frames.by_name) == cameras
    ahead = [view.calibration.ego_from_camera.rotation[:, 2] for view in frames.views]
    assert np.abs(np.sum(ahead, axis=0)).max() < 1e-9 or len(cameras) == 1


def test_cameras_of_nuscenes_are_mounted_as_there() -> None:
    config = replace(small(), cameras=("CAM_FRONT", "CAM_BACK"))
    frames = frame_set(1.0, config)
    rig = camera_calibrations(config.image.width, config.image.height)
    assert set(frames.by_name) == {"CAM_FRONT", "CAM_BACK"} < set(CAMERAS)
    for name, view in frames.by_name.items():
        mounted = view.calibration.ego_from_camera.translation
        assert mounted == pytest.approx(rig[name].ego_from_camera.translation)


def test_images_have_the_bytes_of_photographs() -> None:
    data = jpeg(0)
    header = read_header(data)
    assert (header.width_px, header.height_px) == CAMERA_WH
    # nuScenes' cameras: 138 kB in the mean, nine of ten between 111 and 168.
    assert 111_000 < len(data) < 168_000
    assert data == jpeg(0) != jpeg(1)
