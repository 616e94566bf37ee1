# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch

from labeldistill_core.cameras import FrameSet
from labeldistill_core.config import ConvNeXtConfig, ImageConfig, ImageEncoderConfig, StudentConfig
from labeldistill_core.data.batch import camera_batch, collate
from labeldistill_core.network.image_encoder import ImageEncoder
from labeldistill_core.network.student import CameraBatch, Student


@pytest.fixture
def batch(tiny_config: StudentConfig, frame_set: Callable[..., FrameSet]) -> CameraBatch:
    return camera_batch([frame_set(t) for t in (2.0, 1.5, 1.0)], tiny_config)


@torch.no_grad()
def test_shapes(student: Student, batch: CameraBatch) -> None:
    output, features = student(batch)
    assert output.taps[0].shape == (1, 18, 32, 32)
    assert output.taps[1].shape == (1, 8, 16, 16)
    assert features.depth.shape == (6, 10, 4, 8)
    assert features.context.shape == (6, 6, 4, 8)
    assert [m.heatmap.shape[1] for m in output.maps] == [1, 2, 2, 1, 2, 2]
    assert {m.box_code.shape for m in output.maps} == {(1, 10, 32, 32)}


@torch.no_grad()
def test_every_frame_reaches_its_own_channels(student: Student, batch: CameraBatch) -> None:
    base = student(batch)[0].taps[0]
    for frame in range(3):
        images = batch.images.clone()
        images[:, frame] = 255 - images[:, frame]
        changed = student(replace(batch, images=images))[0].taps[0]
        pairs = zip(base.chunk(3, 1), changed.chunk(3, 1), strict=True)
        same = [torch.equal(before, after) for before, after in pairs]
        assert same == [index != frame for index in range(3)]


@torch.no_grad()
def test_ego_motion_moves_the_past(student: Student, batch: CameraBatch) -> None:
    base = student(batch)[0].taps[0].chunk(3, 1)
    shifted = batch.ego_from_camera.clone()
    shifted[:, 1, :, 0, 3] += 1.6  # one cell forward
    moved = student(replace(batch, ego_from_camera=shifted))[0].taps[0].chunk(3, 1)
    assert torch.equal(base[0], moved[0])
    inner = base[1][..., 1:-2].abs().sum()
    assert inner > 0
    # rounding at cell edges aside, the map moves by one column
    difference = (moved[1][..., 2:-1] - base[1][..., 1:-2]).abs().sum()
    assert difference < 0.02 * inner


@torch.no_grad()
def test_samples_of_a_batch_do_not_mix(
    student: Student, tiny_config: StudentConfig, frame_set: Callable[..., FrameSet]
) -> None:
    one, two = (camera_batch([frame_set(t)] * 3, tiny_config) for t in (1.0, 4.0))
    together = student(collate([one, two]))[0].maps[1].heatmap
    torch.testing.assert_close(together[1:], student(two)[0].maps[1].heatmap, atol=1e-4, rtol=1e-4)


def test_gradients_flow_through_the_current_frame_only(
    student: Student, batch: CameraBatch
) -> None:
    images = batch.images.float().requires_grad_()
    output, _ = student.train()(replace(batch, images=images))
    losses = [m.heatmap.square().sum() + m.box_code.square().sum() for m in output.maps]
    torch.stack(losses).sum().backward()
    assert images.grad is not None
    reached = images.grad.abs().sum((2, 3, 4, 5))[0]
    assert reached[0] > 0
    assert reached[1:].tolist() == [0.0, 0.0]
    assert all(p.grad is not None for p in student.parameters())


def test_shapes_that_disagree_are_refused(batch: CameraBatch) -> None:
    with pytest.raises(ValueError, match=r"intrinsics is \(1, 3, 6, 4, 4\)"):
        replace(batch, intrinsics=batch.ego_from_camera)


def test_channel_order(tiny_config: StudentConfig) -> None:
    image = torch.tensor([10.0, 20.0, 30.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    mean, std = torch.tensor(ImageConfig(32, 32).mean), torch.tensor(ImageConfig(32, 32).std)
    rgb = ImageEncoder(tiny_config.image_encoder, tiny_config.image)
    bgr = ImageEncoder(tiny_config.image_encoder, replace(tiny_config.image, channel_order="bgr"))
    values = torch.tensor([10.0, 20.0, 30.0])
    torch.testing.assert_close(rgb.normalize(image)[0, :, 0, 0], (values - mean) / std)
    torch.testing.assert_close(bgr.normalize(image)[0, :, 0, 0], (values.flip(0) - mean) / std)


@torch.no_grad()
@pytest.mark.parametrize("stride", [8, 16])
def test_other_backbones_and_strides(
    tiny_config: StudentConfig, stride: Literal[8, 16], frame_set: Callable[..., FrameSet]
) -> None:
    encoder = ImageEncoderConfig(ConvNeXtConfig("tiny"), (4, 4, 4, 4), stride=stride)
    config = replace(tiny_config, image_encoder=encoder, history_s=())
    output, features = Student(config).eval()(camera_batch([frame_set(1.0)], config))
    assert features.depth.shape[2:] == (64 // stride, 128 // stride)
    assert output.maps[0].heatmap.isfinite().all()
