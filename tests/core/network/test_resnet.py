# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torchvision

from labeldistill_core.config import ConvNeXtConfig
from labeldistill_core.network.image_encoder import ConvNeXt
from labeldistill_core.network.resnet import ResNet


@pytest.mark.parametrize("depth", [18, 50])
def test_torchvision_weights_give_the_same_features(depth: int) -> None:
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, f"resnet{depth}")(weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    ours = ResNet(depth).eval()
    keys = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert keys.missing_keys == []
    assert keys.unexpected_keys == ["fc.weight", "fc.bias"]
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        maps = ours(x)
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for index in range(4):
            y = getattr(theirs, f"layer{index + 1}")(y)
            torch.testing.assert_close(maps[index], y)
    assert ours.channels == tuple(m.shape[1] for m in maps)


def test_convnext_maps_are_torchvisions() -> None:
    torch.manual_seed(0)
    ours = ConvNeXt(ConvNeXtConfig("tiny")).eval()
    assert ours.channels == (96, 192, 384, 768)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps = ours(x)
        torch.testing.assert_close(maps[-1], ours.features(x))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (96, 16, 16),
        (192, 8, 8),
        (384, 4, 4),
        (768, 2, 2),
    ]


def test_trunk_without_pooling_has_three_stages() -> None:
    trunk = ResNet(18, base_channels=8, in_channels=5, stages=3, pool=False)
    maps = trunk(torch.rand(2, 5, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 16, 16), (16, 8, 8), (32, 4, 4)]


def test_a_frozen_stem_stays_as_it_is() -> None:
    net = ResNet(18, base_channels=4)
    net.freeze_stem()
    net.train()
    means = net.bn1.running_mean
    assert means is not None
    before = means.clone()
    net(torch.rand(2, 3, 32, 32))[-1].sum().backward()
    assert torch.equal(means, before)
    assert net.conv1.weight.grad is None
    assert net.bn1.weight.grad is None
    assert net.get_submodule("layer1.0.bn1").training
    assert net.get_parameter("layer1.0.conv1.weight").grad is not None
