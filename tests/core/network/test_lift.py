# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from labeldistill_core.config import BevGrid, DepthBins
from labeldistill_core.network.depth_net import FrameFeatures
from labeldistill_core.network.lift import (
    PoolingTable,
    bin_depths,
    feature_pixels,
    grid_cells,
    pool,
    ray_matrices,
    ray_points,
)

GRID = BevGrid((-4.0, 4.0), (-3.0, 3.0), (-1.0, 2.0), cell_m=1.0)  # 8 columns, 6 rows


def naive_pool(
    features: FrameFeatures, points: Tensor, grid: BevGrid, use: Tensor | None = None
) -> Tensor:
    """Build depth x context for every point and add it up, in float64."""
    b, n, d, h, w, _ = points.shape
    depth, context = features.depth.double(), features.context.double()
    lifted = (depth[:, None] * context[:, :, None]).view(b, n, -1, d, h, w)
    out = lifted.new_zeros(b, grid.rows * grid.columns, lifted.shape[2])
    for sample in range(b):
        for camera in range(n):
            if use is not None and not use[sample, camera]:
                continue
            p = points[sample, camera].double()
            column = ((p[..., 0] - grid.x_m[0]) / grid.cell_m).floor().long()
            row = ((p[..., 1] - grid.y_m[0]) / grid.cell_m).floor().long()
            inside = (column >= 0) & (column < grid.columns) & (row >= 0) & (row < grid.rows)
            inside &= (p[..., 2] >= grid.z_m[0]) & (p[..., 2] < grid.z_m[1])
            rows = lifted[sample, camera].permute(1, 2, 3, 0)[inside]
            out[sample] = out[sample].index_add(0, (row * grid.columns + column)[inside], rows)
    return out.view(b, grid.rows, grid.columns, -1).permute(0, 3, 1, 2)


def random_case(
    b: int, n: int, d: int, h: int, w: int, c: int, seed: int
) -> tuple[Tensor, FrameFeatures]:
    generator = torch.Generator().manual_seed(seed)
    # a third of the points lies outside the grid
    points = torch.rand(b, n, d, h, w, 3, generator=generator) * 10 - 5
    points[..., 2] = points[..., 2] / 3
    depth = torch.randn(b * n, d, h, w, generator=generator).softmax(1).requires_grad_()
    context = torch.randn(b * n, c, h, w, generator=generator).requires_grad_()
    return points, FrameFeatures(depth, context)


sizes = st.integers(1, 4)


@settings(max_examples=25, deadline=None)
@given(sizes, sizes, sizes, sizes, sizes, sizes, st.integers(0, 1000))
def test_pooling_is_the_naive_sum(
    b: int, n: int, d: int, h: int, w: int, c: int, seed: int
) -> None:
    points, features = random_case(b, n, d, h, w, c, seed)
    ours = pool(features, PoolingTable.build(points, GRID))
    theirs = naive_pool(features, points, GRID)
    assert ours.shape == (b, c, 6, 8)
    torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=1e-5)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(seed))
    inputs = (features.depth, features.context)
    for mine, reference in zip(
        torch.autograd.grad((ours * weight).sum(), inputs),
        torch.autograd.grad((theirs * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-5)


def test_absent_cameras_take_no_part() -> None:
    points, features = random_case(2, 3, 4, 3, 3, 5, seed=1)
    use = torch.tensor([[True, False, True], [False, False, True]])
    masked = pool(features, PoolingTable.build(points, GRID, use))
    torch.testing.assert_close(masked.double(), naive_pool(features, points, GRID, use))
    assert not torch.allclose(masked, pool(features, PoolingTable.build(points, GRID)))


@settings(max_examples=25, deadline=None)
@given(sizes, sizes, sizes, sizes, sizes, st.integers(0, 1000))
def test_a_table_of_fixed_size_gives_the_same_sums(
    b: int, n: int, d: int, h: int, w: int, seed: int
) -> None:
    points, features = random_case(b, n, d, h, w, 3, seed)
    use = torch.rand(b, n, generator=torch.Generator().manual_seed(seed)) < 0.7
    table = PoolingTable.build(points, GRID, use, fixed=True)
    assert len(table.depth_index) == b * n * d * h * w
    lean = PoolingTable.build(points, GRID, use)
    torch.testing.assert_close(pool(features, table), pool(features, lean))


def test_no_camera_at_all_gives_zeros() -> None:
    points, features = random_case(1, 2, 4, 3, 3, 5, seed=1)
    table = PoolingTable.build(points, GRID, torch.zeros(1, 2, dtype=torch.bool))
    assert pool(features, table).abs().max() == 0


@pytest.mark.parametrize(
    ("point", "cell"),
    [
        ((0.0, 0.0, 0.0), (4, 3)),
        ((-4.0, -3.0, -1.0), (0, 0)),  # the lower edge belongs to the grid
        ((3.99, 2.99, 1.99), (7, 5)),
        ((-4.01, 0.0, 0.0), None),  # truncating would put it in column 0
        ((0.0, -3.5, 0.0), None),
        ((0.0, 0.0, -1.5), None),
        ((4.0, 0.0, 0.0), None),
        ((0.0, 3.0, 0.0), None),
        ((0.0, 0.0, 2.0), None),
        ((float("nan"), 0.0, 0.0), None),
        ((1e9, 0.0, 0.0), None),
    ],
)
def test_a_point_falls_in_its_cell_or_nowhere(
    point: tuple[float, float, float], cell: tuple[int, int] | None
) -> None:
    points = torch.tensor(point).view(1, 1, 1, 1, 1, 3)
    features = FrameFeatures(torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 2.0))
    bev = pool(features, PoolingTable.build(points, GRID))[0, 0]
    expected = torch.zeros(6, 8)
    if cell:
        expected[cell[1], cell[0]] = 2.0
    assert torch.equal(bev, expected)


def test_truncation_takes_in_the_rim() -> None:
    grid = BevGrid(GRID.x_m, GRID.y_m, GRID.z_m, 1.0, "truncate")
    points = torch.tensor([[-4.5, 0.0, 0.0], [0.0, 0.0, -3.9], [-5.1, 0.0, 0.0]])
    assert grid_cells(points, grid).tolist() == [[0, 3, 0], [4, 3, 0], [-1, 3, 0]]
    assert grid_cells(points, GRID).tolist() == [[-1, 3, 0], [4, 3, -1], [-2, 3, 0]]


def test_rays_start_and_end_at_the_first_and_last_pixel() -> None:
    pixels = feature_pixels((256, 704), (16, 44))
    assert pixels.shape == (16, 44, 2)
    assert pixels[0, 0].tolist() == [0.0, 0.0]
    assert pixels[-1, -1].tolist() == [703.0, 255.0]
    assert pixels[0, 1, 0].item() == pytest.approx(703 / 43)


def test_bins_stand_at_their_left_edges() -> None:
    depths = bin_depths(DepthBins(2.0, 58.0, 0.5))
    assert depths.shape == (112,)
    assert depths[[0, 1, -1]].tolist() == [2.0, 2.5, 57.5]


def test_ray_of_a_known_pixel() -> None:
    k = torch.tensor([[100.0, 0.0, 50.0], [0.0, 100.0, 40.0], [0.0, 0.0, 1.0]]).view(1, 1, 3, 3)
    half = torch.diag(torch.tensor([0.5, 0.5, 1.0, 1.0])).view(1, 1, 4, 4)
    forward = torch.tensor([[0.0, 0, 1, 1], [-1, 0, 0, 0], [0, -1, 0, 2], [0, 0, 0, 1]])
    scaled = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]))[None]
    pixel = torch.tensor([[[30.0, 25.0]]])  # (60, 50) before halving
    rays = ray_matrices(k, half, forward.view(1, 1, 4, 4), scaled)
    points = ray_points(pixel, torch.tensor([10.0]), rays)
    # in the camera: right 1, down 1, ahead 10; in the vehicle: (11, -1, 1); doubled
    torch.testing.assert_close(points[0, 0, 0, 0, 0], torch.tensor([22.0, -2.0, 2.0]))


def test_a_table_for_other_images_is_refused() -> None:
    points, features = random_case(1, 2, 4, 3, 3, 5, seed=1)
    table = PoolingTable.build(points[:, :1], GRID)
    with pytest.raises(ValueError, match=r"depth is \(2, 4, 3, 3\), .* built for \(1, 4, 3, 3\)"):
        pool(features, table)
