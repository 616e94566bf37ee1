# SPDX-License-Identifier: Apache-2.0
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.classes import CLASSES
from labeldistill_core.config import BevGrid, DecodeConfig, HeadConfig
from labeldistill_core.network.center_head import BOX_MAPS, TaskMaps
from labeldistill_core.network.decode import decode
from labeldistill_core.network.targets import TaskTargets, build_targets, gaussian_radius

Row = tuple[str, list[float]]
GRID, HEAD = BevGrid(), HeadConfig()


def boxes(*rows: Row) -> Boxes3D:
    """Rows of class name and nine values."""
    return Boxes3D(
        "ego",
        torch.tensor([values for _, values in rows]).view(-1, 9),
        torch.tensor([CLASSES.index(name) for name, _ in rows], dtype=torch.int64),
        torch.ones(len(rows)),
    )


def car(
    x: float,
    y: float,
    yaw: float = 0.0,
    size: tuple[float, float, float] = (4.6, 1.9, 1.7),
    velocity: tuple[float, float] = (0.0, 0.0),
) -> Row:
    return ("car", [x, y, -1.0, *size, yaw, *velocity])


@pytest.mark.parametrize(
    ("size_m", "radius_cells"),
    [
        ((0.73, 0.67), 0.38),  # pedestrian
        ((4.62, 1.95), 1.58),  # car
        ((6.93, 2.51), 2.16),  # truck
        ((11.0, 2.94), 2.89),  # bus
        ((12.29, 2.90), 2.97),  # trailer
    ],
)
def test_radius_before_rounding(size_m: tuple[float, float], radius_cells: float) -> None:
    # the radius grows in proportion to the box, so a thousandfold box shows three more digits
    cells = torch.tensor([size_m]) / 0.8
    assert gaussian_radius(1000 * cells).item() / 1000 == pytest.approx(radius_cells, abs=0.04)


@pytest.mark.parametrize("least", [1, 2, 3])
def test_every_gaussian_reaches_as_far_as_the_configuration_says(least: int) -> None:
    head = replace(HEAD, least_radius=least)
    pedestrian = ("pedestrian", car(0.5, -0.5, size=(0.7, 0.7, 1.7))[1])
    heat = build_targets([boxes(pedestrian)], GRID, head)[5].heatmap
    assert (heat > 0).sum() == (2 * least + 1) ** 2


def test_heatmap_peaks_at_the_centre_in_its_class() -> None:
    targets = build_targets([boxes(car(0.5, -0.5), ("trailer", car(10.0, 20.4)[1]))], GRID, HEAD)
    heat = targets[0].heatmap[0, 0]
    row, column = 63, 64  # -0.5 m and 0.5 m of 0.8 m cells from -51.2 m
    assert heat.shape == (128, 128)
    assert (heat == 1).nonzero().tolist() == [[row, column]]
    sigma = 5 / 6
    assert heat[row, column + 1].item() == pytest.approx(math.exp(-1 / (2 * sigma**2)))
    assert heat[row - 2, column + 2].item() == pytest.approx(math.exp(-8 / (2 * sigma**2)))
    assert (heat > 0).sum() == 25
    bus, trailer = targets[2].heatmap[0]
    assert bus.max() == 0
    assert (trailer == 1).nonzero().tolist() == [[89, 76]]
    assert [int(t.valid.sum()) for t in targets] == [1, 0, 1, 0, 0, 0]


def test_overlapping_gaussians_keep_the_larger_value() -> None:
    heat = build_targets([boxes(car(0.4, 0.4), car(2.0, 0.4))], GRID, HEAD)[0].heatmap[0, 0]
    assert heat[64, 64] == heat[64, 66] == 1
    assert heat[64, 65].item() == pytest.approx(math.exp(-1 / (2 * (5 / 6) ** 2)))


def test_gaussians_are_cut_at_the_border() -> None:
    heat = build_targets([boxes(car(-51.0, 51.0))], GRID, HEAD)[0].heatmap[0, 0]
    assert heat[127, 0] == 1
    assert (heat > 0).sum() == 9


def test_box_code_by_hand() -> None:
    target = build_targets([boxes(car(0.6, -0.2, yaw=0.3, velocity=(5.0, -1.0)))], GRID, HEAD)[0]
    assert target.cell.tolist() == [[63 * 128 + 64]]
    expected = [0.75, 0.75, -1.0, math.log(4.6), math.log(1.9), math.log(1.7)]
    expected += [math.sin(0.3), math.cos(0.3), 5.0, -1.0]
    assert target.code[0, 0].tolist() == pytest.approx(expected, abs=1e-5)


def test_boxes_that_cannot_be_targets_are_left_out() -> None:
    outside = [car(51.3, 0.0), car(0.0, -51.3), car(-51.5, 0.0)]
    flat = [car(0.0, 0.0, size=(4.0, 0.0, 1.5)), car(5.0, 0.0, size=(4.0, 2.0, 0.0))]
    target = build_targets([boxes(*outside, *flat, car(9.0, 9.0))], GRID, HEAD)[0]
    assert target.valid.tolist() == [[True]]
    assert target.heatmap.eq(1).sum() == 1
    truncating = BevGrid(index_rounding="truncate")
    published = build_targets([boxes(car(-51.5, 0.0))], truncating, HEAD)[0]
    assert published.valid.tolist() == [[True]]


def test_samples_are_padded_to_the_fullest() -> None:
    few, many = boxes(car(0.0, 0.0)), boxes(car(5.0, 5.0), car(9.0, 9.0), car(-9.0, 9.0))
    none = boxes()
    target = build_targets([few, none, many], GRID, HEAD)[0]
    assert target.valid.tolist() == [[True, False, False], [False] * 3, [True] * 3]
    assert target.heatmap.eq(1).sum((1, 2, 3)).tolist() == [1, 0, 3]


def perfect_maps(targets: Sequence[TaskTargets]) -> list[TaskMaps]:
    """The head's output that says exactly what the targets say."""
    maps = []
    for target in targets:
        batch, _, rows, columns = target.heatmap.shape
        code = torch.zeros(batch, 10, rows * columns)
        index = target.cell[:, None].expand(-1, 10, -1)
        code.scatter_(2, index, target.code.mT)
        parts = code.view(batch, 10, rows, columns).split(list(BOX_MAPS.values()), dim=1)
        logits = torch.where(target.heatmap == 1, 8.0, -8.0)
        maps.append(TaskMaps(logits, **dict(zip(BOX_MAPS, parts, strict=True))))
    return maps


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_decoding_targets_gives_the_boxes_back(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    n = 8
    # one box each 20 m, so that none suppresses another
    cells = torch.randperm(25, generator=generator)[:n]
    centers = torch.stack([cells % 5, cells // 5], 1) * 20.0 - 40
    values = torch.cat(
        [
            centers + torch.rand(n, 2, generator=generator) * 8,
            torch.rand(n, 1, generator=generator) * 4 - 2,
            torch.rand(n, 3, generator=generator) * 8 + 0.3,
            torch.rand(n, 1, generator=generator) * 6.2 - 3.1,
            torch.randn(n, 2, generator=generator) * 5,
        ],
        dim=1,
    )
    labels = torch.randint(0, 10, (n,), generator=generator)
    truth = Boxes3D("ego", values, labels, torch.ones(n))
    maps = perfect_maps(build_targets([truth, truth[labels > 4]], GRID, HEAD))
    found = decode(maps, GRID, DecodeConfig())
    assert found[0].frame == "ego"
    assert len(found[1]) == int((labels > 4).sum())
    order = torch.cdist(values[:, :2], found[0].values[:, :2]).argmin(1)
    torch.testing.assert_close(found[0].values[order], values, atol=1e-4, rtol=1e-4)
    assert torch.equal(found[0].labels[order], labels)
