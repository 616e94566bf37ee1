# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from labeldistill_core.cameras import CAMERAS, FrameSet
from labeldistill_core.config import StudentConfig
from labeldistill_core.data.batch import camera_batch, collate, mean_ego_pose
from labeldistill_core.data.images import ImageTransform
from labeldistill_core.errors import DataError
from labeldistill_core.network.lift import bin_depths, ray_matrices, ray_points


def test_shapes_and_order_of_cameras(
    tiny_config: StudentConfig, frame_set: Callable[..., FrameSet]
) -> None:
    now, then = frame_set(1.0), frame_set(0.5)
    shuffled = FrameSet(now.stamp_ns, now.views[::-1])
    batch = camera_batch([shuffled, then, then], tiny_config)
    assert batch.images.shape == (1, 3, 6, 3, 64, 128)
    assert batch.images.dtype == torch.uint8
    assert torch.equal(batch.images, camera_batch([now, then, then], tiny_config).images)
    assert batch.use.all()
    back = CAMERAS.index("CAM_BACK")
    assert batch.intrinsics[0, 0, back, 0, 0].item() == pytest.approx(80.9)


def test_current_cameras_stand_at_their_mounts(
    tiny_config: StudentConfig, frame_set: Callable[..., FrameSet]
) -> None:
    frames = frame_set(1.0)
    batch = camera_batch([frames, frames, frames], tiny_config)
    for index, view in enumerate(frames.views):
        mount = torch.from_numpy(view.calibration.ego_from_camera.matrix).float()
        for frame in range(3):
            torch.testing.assert_close(batch.ego_from_camera[0, frame, index], mount)


def test_a_fixed_point_stays_where_it_is_in_past_frames(
    tiny_config: StudentConfig, frame_set: Callable[..., FrameSet]
) -> None:
    now, then = frame_set(2.0), frame_set(1.0)
    batch = camera_batch([now, then, then], tiny_config)
    landmark = np.array([640.0, 1620.0, 1.0])  # in the fixed frame
    for index, (new, old) in enumerate(zip(now.views, then.views, strict=True)):
        fixed_from_camera = old.fixed_from_ego @ old.calibration.ego_from_camera
        in_camera = fixed_from_camera.inverse.apply(landmark)
        moved = batch.ego_from_camera[0, 1, index].numpy() @ [*in_camera, 1.0]
        expected = new.fixed_from_ego.inverse.apply(landmark)
        np.testing.assert_allclose(moved[:3], expected, atol=1e-4)


def test_a_pixel_lifts_back_to_its_point(
    tiny_config: StudentConfig, frame_set: Callable[..., FrameSet]
) -> None:
    frames = frame_set(1.0)
    transform = ImageTransform(0.8, (128, 72), (3, 8, 131, 72), flip=True, rotate_deg=4.0)
    batch = camera_batch([frames] * 3, tiny_config, [transform] * 6)
    point = np.array([9.0, 0.5, 1.0])
    front = CAMERAS.index("CAM_FRONT")
    calibration = frames.by_name["CAM_FRONT"].calibration
    u, v, depth = calibration.project(calibration.ego_from_camera.inverse.apply(point))
    pixel = torch.from_numpy(transform.matrix @ [u, v, 0.0, 1.0])[:2].float()
    rays = ray_matrices(
        batch.intrinsics[:, 0],
        batch.image_from_sensor[:, 0],
        batch.ego_from_camera[:, 0],
        batch.augmentation,
    )
    lifted = ray_points(pixel.view(1, 1, 2), torch.tensor([depth]).float(), rays)
    np.testing.assert_allclose(lifted[0, front, 0, 0, 0].numpy(), point, atol=1e-4)
    assert bin_depths(tiny_config.depth_bins)[:2].tolist() == [2.0, 6.0]


def test_a_missing_camera_is_black_and_takes_no_part(
    tiny_config: StudentConfig, frame_set: Callable[..., FrameSet]
) -> None:
    now, then = frame_set(1.0, missing=["CAM_FRONT"]), frame_set(0.5, missing=["CAM_BACK"])
    batch = camera_batch([now, then, now], tiny_config)
    front, back = CAMERAS.index("CAM_FRONT"), CAMERAS.index("CAM_BACK")
    assert batch.images[0, 0, front].max() == 0
    unused = [(frame, camera) for _, frame, camera in (~batch.use).nonzero().tolist()]
    # a past image without a current one of the same camera has no place to go
    assert unused == [(0, front), (1, front), (1, back), (2, front)]


def test_a_set_without_the_models_cameras_is_refused(
    tiny_config: StudentConfig, frame_set: Callable[..., FrameSet]
) -> None:
    with pytest.raises(DataError, match="no image of CAM_FRONT_LEFT, CAM_FRONT"):
        camera_batch([FrameSet(0, ())], tiny_config)
    only_back = replace(tiny_config, cameras=("CAM_BACK",))
    with pytest.raises(DataError, match="no image of CAM_BACK"):
        camera_batch([frame_set(0.0, missing=["CAM_BACK"])], only_back)


def test_collate_stacks_samples(
    tiny_config: StudentConfig, frame_set: Callable[..., FrameSet]
) -> None:
    one, two = (camera_batch([frame_set(t)] * 3, tiny_config) for t in (1.0, 2.0))
    both = collate([one, two])
    assert both.images.shape[0] == 2
    assert torch.equal(both.images[1:], two.images)
    assert torch.equal(both.use[:1], one.use)


def test_mean_pose_lies_between_the_cameras(frame_set: Callable[..., FrameSet]) -> None:
    frames = frame_set(1.0)
    mean = mean_ego_pose(frames)
    xs = [view.fixed_from_ego.translation[0] for view in frames.views]
    assert (mean.target, mean.source) == ("map", "ego")
    assert mean.translation[0] == pytest.approx(np.mean(xs))
    first = frames.views[0]
    own = mean_ego_pose(frames, (first.calibration.name,))
    np.testing.assert_allclose(own.matrix, first.fixed_from_ego.matrix, atol=1e-12)
