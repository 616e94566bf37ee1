# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from labeldistill_core.classes import CLASSES
from labeldistill_core.network.student import Student
from labeldistill_core.presets import PRESETS


def parameters(name: str) -> int:
    with torch.device("meta"):  # shapes without memory
        return sum(p.numel() for p in Student(PRESETS[name].student).parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("r50_256x704_4key", 132_389_380),
        ("r50_256x704_2key", 127_960_180),
        ("r101_512x1408_2key", 146_952_308),
        ("convnext_b", 191_033_524),
    ],
)
def test_size_of_the_published_networks(name: str, count: int) -> None:
    assert parameters(name) == count


def test_the_demo_is_small() -> None:
    assert parameters("demo") < 6e6


@pytest.mark.parametrize("name", PRESETS)
def test_labels_are_the_class_list(name: str) -> None:
    assert PRESETS[name].student.class_names == CLASSES


def test_quirks_of_the_published_variant() -> None:
    config = PRESETS["r50_256x704_4key"].as_published().student
    assert config.image.channel_order == "bgr"
    assert config.grid.index_rounding == "truncate"
    assert config.head.heatmap_bias is None
