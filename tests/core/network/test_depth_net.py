# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import conv2d

from labeldistill_core.config import DepthNetConfig
from labeldistill_core.network.depth_net import CameraGate, DeformConv, DepthNet, camera_vector


def test_camera_vector_lists_27_numbers_in_order() -> None:
    matrices = torch.arange(100.0, 116.0).view(1, 1, 4, 4)
    image = torch.arange(200.0, 216.0).view(1, 1, 4, 4)
    bev = torch.arange(300.0, 316.0).view(1, 4, 4)
    k = torch.arange(9.0).view(1, 1, 3, 3)
    vector = camera_vector(k, image, matrices, bev)
    assert vector.tolist() == [
        [0, 4, 2, 5]
        + [200, 201, 203, 204, 205, 207]
        + [300, 301, 304, 305, 310]
        + list(range(100, 112))
    ]


def test_camera_vector_gives_each_camera_its_samples_augmentation() -> None:
    bev = torch.stack([torch.eye(4), 2 * torch.eye(4)])
    eye = torch.eye(4).expand(2, 3, 4, 4)
    vector = camera_vector(eye[..., :3, :3], eye, eye, bev)
    assert vector.shape == (6, 27)
    assert vector[:, 10].tolist() == [1, 1, 1, 2, 2, 2]


def test_depth_is_a_distribution() -> None:
    torch.manual_seed(0)
    config = DepthNetConfig(mid_channels=8, context_channels=6, deform_groups=2)
    net = DepthNet(config, 5, 11).eval()
    features = net(torch.randn(2, 5, 4, 7), torch.randn(2, 27))
    assert features.depth.shape == (2, 11, 4, 7)
    assert features.context.shape == (2, 6, 4, 7)
    torch.testing.assert_close(features.depth.sum(1), torch.ones(2, 4, 7))


def test_the_camera_changes_depth_and_context() -> None:
    torch.manual_seed(0)
    net = DepthNet(DepthNetConfig(8, 6, deform_groups=0), 5, 11).eval()
    x = torch.randn(1, 5, 4, 7)
    one, two = net(x, torch.zeros(1, 27)), net(x, torch.ones(1, 27))
    assert not torch.allclose(one.depth, two.depth)
    assert not torch.allclose(one.context, two.context)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_camera_far_from_those_of_training_gates_as_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    gate, x = CameraGate(8), torch.randn(2, 8, 4, 7)
    camera = torch.randn(2, 27)
    camera[1] *= 1e6
    exact = gate(x, camera)
    with torch.autocast("cpu", dtype):
        rough = gate(x.to(dtype), camera)
    assert rough.dtype == dtype
    torch.testing.assert_close(rough, exact.to(dtype), atol=0.02, rtol=0.02)


def test_deformable_convolution_starts_as_a_plain_one() -> None:
    torch.manual_seed(0)
    layer, x = DeformConv(8, groups=4), torch.randn(2, 8, 5, 6)
    plain = conv2d(x, layer.weight, padding=1, groups=4)
    torch.testing.assert_close(layer(x), plain, atol=1e-5, rtol=1e-5)


def test_offsets_move_the_samples() -> None:
    torch.manual_seed(0)
    layer, x = DeformConv(4, groups=1), torch.randn(1, 4, 6, 6)
    with torch.no_grad():
        assert layer.offset.bias is not None
        layer.offset.bias[0::2] = 1.0  # all nine taps one row down
        shifted = layer(x)
        expected = conv2d(x, layer.weight, padding=1)
    torch.testing.assert_close(shifted[:, :, 0:4], expected[:, :, 1:5], atol=1e-5, rtol=1e-5)


def test_without_deformable_convolution_there_is_none() -> None:
    config = DepthNetConfig(mid_channels=8, context_channels=6, deform_groups=2)
    names = [name for name, _ in DepthNet(config, 5, 11).named_parameters()]
    plain = DepthNet(replace(config, deform_groups=0), 5, 11)
    left = {name for name, _ in plain.named_parameters()}
    assert {name for name in names if name not in left} == {
        "deform.weight",
        "deform.offset.weight",
        "deform.offset.bias",
    }
