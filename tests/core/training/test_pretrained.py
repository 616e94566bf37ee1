# SPDX-License-Identifier: Apache-2.0
"""The backbone begins with torchvision's weights, from a file made on the spot."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from labeldistill_core import presets
from labeldistill_core.config import ConvNeXtConfig, ImageConfig, ImageEncoderConfig, ResNetConfig
from labeldistill_core.errors import CheckpointError
from labeldistill_core.network.image_encoder import ImageEncoder
from labeldistill_core.training.pretrained import load_pretrained
from labeldistill_ros.cli import main
from tests.support.small_networks import preset_of, small
from tests.support.small_training import small_training

IMAGE = ImageConfig(height=64, width=96)


def encoder(backbone: ResNetConfig | ConvNeXtConfig, frozen: bool = False) -> ImageEncoder:
    torch.manual_seed(0)
    return ImageEncoder(ImageEncoderConfig(backbone, (4, 4, 4, 4), frozen_stem=frozen), IMAGE)


def torchvision_resnet(seed: int = 1) -> torchvision.models.ResNet:
    torch.manual_seed(seed)
    network = torchvision.models.resnet18()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            torch.nn.init.uniform_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_resnet_computes_what_torchvision_does(tmp_path: Path, suffix: str) -> None:
    theirs, file = torchvision_resnet(), tmp_path / f"resnet18{suffix}"
    save = torch.save if suffix == ".pth" else save_file
    # files of old releases have no counters
    weights = theirs.state_dict()
    save({n: t for n, t in weights.items() if "num_batches" not in n}, file)
    ours = encoder(ResNetConfig(18), frozen=True)
    neck = {name: tensor.clone() for name, tensor in ours.neck.state_dict().items()}
    load_pretrained(ours, file)
    x = torch.randn(2, 3, 64, 96)
    expected = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
    for layer, found in enumerate(ours.eval().backbone(x), 1):
        expected = theirs.get_submodule(f"layer{layer}")(expected)
        torch.testing.assert_close(found, expected)
    assert all(torch.equal(tensor, neck[name]) for name, tensor in ours.neck.state_dict().items())


def test_a_convnext_too(tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs, file = torchvision.models.convnext_tiny().eval(), tmp_path / "convnext.pth"
    torch.save(theirs.state_dict(), file)
    ours = encoder(ConvNeXtConfig("tiny"))
    load_pretrained(ours, file)
    x = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(ours.eval().backbone(x)[-1], theirs.features(x))


def test_other_files_are_refused(tmp_path: Path) -> None:
    weights, file = torchvision_resnet().state_dict(), tmp_path / "weights.pth"
    torch.save(weights, file)
    with pytest.raises(CheckpointError, match=r"of another shape: conv1.weight is \(64, 3, 7, 7\)"):
        load_pretrained(encoder(ResNetConfig(18, base_channels=8)), file)
    with pytest.raises(CheckpointError, match="missing: layer1.0.conv3.weight"):
        load_pretrained(encoder(ResNetConfig(50)), file)
    with pytest.raises(CheckpointError, match="none of the weights of a torchvision ConvNeXt"):
        load_pretrained(encoder(ConvNeXtConfig("tiny")), file)
    torch.save({n: t for n, t in weights.items() if not n.startswith("layer4.")}, file)
    ours = encoder(ResNetConfig(18))
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"missing: layer4.0.conv1.weight"):
        load_pretrained(ours, file)
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_pretrained(ours, tmp_path / "absent.pth")


def test_training_starts_from_the_file(
    synthetic_dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    wide = replace(
        small(), image_encoder=ImageEncoderConfig(ResNetConfig(18), (8,) * 4, frozen_stem=True)
    )
    monkeypatch.setitem(presets.PRESETS, "wide", preset_of(wide))
    file, out = tmp_path / "resnet18.pth", tmp_path / "run"
    torch.save(torchvision_resnet().state_dict(), file)
    command = ["train", "student", str(synthetic_dataroot), str(out), *small_training("wide")]
    assert main([*command, "--pretrained", str(file)]) == 0
    trained = torch.load(out / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    stem = "network.image_encoder.backbone.conv1.weight"
    # averaging equal numbers rounds them
    torch.testing.assert_close(trained[stem], torchvision_resnet().conv1.weight.detach())
    capsys.readouterr()
    with caplog.at_level(logging.WARNING):
        assert main(command) == 2
    assert "pretrained was " in capsys.readouterr().err
    assert "give --pretrained FILE" in caplog.text
