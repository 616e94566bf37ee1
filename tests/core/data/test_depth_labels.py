# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable

import numpy as np
import pytest
import torch

from labeldistill_core.cameras import CameraCalibration
from labeldistill_core.config import DepthBins
from labeldistill_core.data.depth_labels import (
    depth_bins,
    depth_map,
    depth_remainders,
    points_in_image,
)
from labeldistill_core.data.images import ImageTransform
from labeldistill_core.frames import Transform


def test_points_that_the_camera_sees(calibration: Callable[..., CameraCalibration]) -> None:
    front = calibration(1)
    camera_from_lidar = front.ego_from_camera.inverse @ Transform.identity("ego", "LIDAR_TOP")
    points = np.array(
        [
            [11.7, 0.0, 1.5, 9.0],  # 10 m ahead of the camera, on its axis
            [11.7, -1.0, 1.0, 9.0],  # 1 m to the right, 0.5 m down
            [-20.0, 0.0, 1.5, 9.0],  # behind
            [11.7, 8.0, 1.5, 9.0],  # out of the image
        ]
    )
    seen = points_in_image(points, camera_from_lidar, front)
    expected = [[81.6, 49.1, 10.0], [81.6 + 12.66, 49.1 + 6.33, 10.0]]
    np.testing.assert_allclose(seen, expected, atol=1e-4)


def test_map_follows_the_image() -> None:
    transform = ImageTransform(0.5, (80, 45), (8, 13, 72, 45), flip=True)
    depths = depth_map(np.array([[100.0, 60.0, 7.5]], np.float32), transform)
    # u: 100/2 - 8 = 42, mirrored in 64 columns to 22; v: 60/2 - 13 = 17
    assert depths.shape == (32, 64)
    assert depths[17, 22] == 7.5
    assert np.count_nonzero(depths) == 1


def test_points_outside_the_crop_are_dropped() -> None:
    transform = ImageTransform(1.0, (64, 32), (0, 8, 64, 32))
    assert not depth_map(np.array([[10.0, 3.0, 5.0]], np.float32), transform).any()


def test_collisions() -> None:
    transform = ImageTransform(1.0, (64, 32), (0, 0, 64, 32))
    points = np.array([[3.1, 4.2, 5.0], [3.6, 4.9, 20.0]], np.float32)
    assert depth_map(points, transform)[4, 3] == 5.0
    assert depth_map(points, transform, "last")[4, 3] == 20.0
    assert depth_map(points[::-1], transform)[4, 3] == 5.0


def test_bins_take_the_nearest_depth_of_a_cell() -> None:
    maps = torch.zeros(1, 8, 12)
    maps[0, 1, 1], maps[0, 2, 3] = 30.0, 10.9  # same cell
    maps[0, 0, 5] = 1.9  # before the first bin
    maps[0, 4, 4] = 2.0  # on the edge of the first bin
    maps[0, 7, 11] = 58.0  # past the last bin
    bins = depth_bins(maps, 4, DepthBins(2.0, 58.0, 0.5))
    assert bins.tolist() == [[[17, -1, -1], [-1, 0, -1]]]
    remainders = depth_remainders(maps, 4, DepthBins(2.0, 58.0, 0.5))
    assert remainders[0, 0, 0].item() == pytest.approx(0.8, abs=1e-5)
    assert remainders[0, 1].tolist() == [0.0, 0.0, 0.0]
