# SPDX-License-Identifier: Apache-2.0
import copy

import pytest
import torch
from torch import nn
from torchvision.ops import deform_conv2d

from labeldistill_core.config import StudentConfig
from labeldistill_core.network.center_head import ALL_MAPS
from labeldistill_core.network.deform import deform_conv3x3
from labeldistill_core.network.student import Student
from labeldistill_core.runtime.fuse import fuse
from labeldistill_core.runtime.sparse_head import PeakHead


def with_history(student: Student) -> Student:
    """Norms as training leaves them, not as they start."""
    generator = torch.Generator().manual_seed(5)
    for module in student.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d)):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                assert tensor is not None
                tensor.uniform_(low, high, generator=generator)
    return student.eval()


@torch.inference_mode()
def test_a_fused_network_computes_the_same(student: Student, tiny_config: StudentConfig) -> None:
    with_history(student)
    before = copy.deepcopy(student.state_dict())
    fused = fuse(student, torch.float32)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert isinstance(fused.head, PeakHead)
    assert all(torch.equal(before[k], v) for k, v in student.state_dict().items())
    size = (tiny_config.image.height, tiny_config.image.width)
    images = torch.randint(0, 256, (1, 6, 3, *size), dtype=torch.uint8)
    camera = torch.randn(6, 27)
    one, two = student.encode(images, camera), fused.encode(images, camera)
    torch.testing.assert_close(one.depth, two.depth, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(one.context, two.context, atol=1e-4, rtol=1e-4)
    channels = tiny_config.frames * tiny_config.depth_net.context_channels
    bev = torch.randn(2, channels, tiny_config.grid.rows, tiny_config.grid.columns)
    for a, b in zip(student.detect(bev).maps, fused.detect(bev).maps, strict=True):
        torch.testing.assert_close(a.heatmap, b.heatmap, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(a.box_code, b.box_code, atol=1e-4, rtol=1e-4)
        cells = torch.tensor([[0, 31, 77, 1023], [992, 5, 5, 500]])  # corners as well
        torch.testing.assert_close(a.codes_at(cells), b.codes_at(cells), atol=1e-4, rtol=1e-4)


def test_no_cell_has_no_codes(student: Student, tiny_config: StudentConfig) -> None:
    """As where suppression and limits leave none of the candidates."""
    head = fuse(with_history(student), torch.float32).head
    first = next(module for module in head.modules() if isinstance(module, nn.Conv2d))
    with torch.inference_mode():
        maps = head(torch.zeros(1, first.in_channels, 6, 7))
        none = torch.zeros(1, len(maps), 0, dtype=torch.int64)
        assert maps[0].codes_of_tasks(maps, none, ALL_MAPS).shape == (1, len(maps), 0, 10)


def test_weights_are_stored_in_the_precision_of_the_step(student: Student) -> None:
    fused = fuse(student, torch.bfloat16)
    assert fused.image_encoder.get_parameter("backbone.conv1.weight").dtype == torch.bfloat16
    assert fused.depth_net.camera_norm.weight.dtype == torch.float32
    precise = list(fused.depth_net.precise())
    assert fused.depth_net.deform.offset in precise
    assert {p.dtype for layer in precise for p in layer.parameters()} == {torch.float32}
    assert student.image_encoder.get_parameter("backbone.conv1.weight").dtype == torch.float32


@pytest.mark.parametrize("groups", [1, 2])
def test_deformable_convolution_equals_torchvisions(groups: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 5, 7, requires_grad=True)
    # offsets that leave the image and such that fall on pixels
    offset = torch.cat([3 * torch.randn(1, 18, 5, 7), torch.zeros(1, 18, 5, 7)]).requires_grad_()
    weight = torch.randn(6, 8 // groups, 3, 3, requires_grad=True)
    ours, theirs = deform_conv3x3(x, offset, weight), deform_conv2d(x, offset, weight, padding=1)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    upstream = torch.randn_like(ours)
    for one, two in zip(
        torch.autograd.grad(ours, (x, weight), upstream, retain_graph=True),
        torch.autograd.grad(theirs, (x, weight), upstream, retain_graph=True),
        strict=True,
    ):
        torch.testing.assert_close(one, two, atol=1e-3, rtol=1e-4)
    # on a pixel the slope of a bilinear sample is that of either side
    one, two = (torch.autograd.grad(o, offset, upstream)[0][0] for o in (ours, theirs))
    torch.testing.assert_close(one, two, atol=1e-3, rtol=1e-4)
