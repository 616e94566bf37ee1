# SPDX-License-Identifier: Apache-2.0
"""The LiDAR teacher: voxels, sparse convolutions, points, and what it refuses."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv3d

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.checkpoints import save_network
from labeldistill_core.config import BevGrid, HeadConfig
from labeldistill_core.data.bev_augmentation import BevAugmentation
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.samples import LidarDataset, LidarSample
from labeldistill_core.errors import CheckpointError, ConfigError, DataError
from labeldistill_core.frames import Transform
from labeldistill_core.lidar.config import SweepsConfig, TeacherConfig
from labeldistill_core.lidar.points import Points, Scan, cloud
from labeldistill_core.lidar.sparse import (
    SparseConv3d,
    SparseTensor,
    build_rulebook,
    has_spconv,
)
from labeldistill_core.lidar.teacher import Teacher, load_teacher
from labeldistill_core.lidar.teacher_cache import CachedTeacher
from labeldistill_core.lidar.voxels import voxelize, voxelize_cloud
from labeldistill_core.presets import PRESETS
from labeldistill_core.published import behaviour
from tests.support.small_networks import small_teacher

SMALL = TeacherConfig(
    grid=BevGrid(x_m=(-12.8, 12.8), y_m=(-12.8, 12.8), cell_m=1.6),
    voxel_m=(0.4, 0.4, 0.4),
    max_points=3,
    max_voxels=(200, 300),
    encoder_channels=(8, 8, 16),
    height_padding=(1, 1),
    out_channels=8,
    second_channels=(16, 24),
    second_layers=(1, 1),
    neck_channels=(16, 16),
    head=HeadConfig(shared_channels=16, branch_channels=8),
)


def random_cloud(points: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    xyz = (torch.rand(points, 3, generator=generator) - 0.5) * torch.tensor([30.0, 30.0, 10.0])
    return torch.cat([xyz, torch.rand(points, 2, generator=generator)], dim=1)


def voxels_one_by_one(
    points: np.ndarray[Any, Any], config: TeacherConfig, limit: int
) -> dict[tuple[int, ...], list[np.ndarray[Any, Any]]]:
    low = np.array([config.grid.x_m[0], config.grid.y_m[0], config.grid.z_m[0]], np.float32)
    size = np.array(config.voxel_m, np.float32)
    height, rows, columns = config.sparse_shape
    voxels: dict[tuple[int, ...], list[np.ndarray[Any, Any]]] = {}
    for point in points:
        x, y, z = np.floor((point[:3] - low) / size).astype(int)
        if not (0 <= x < columns and 0 <= y < rows and 0 <= z < height - 1):
            continue
        kept = voxels.get((z, y, x))
        if kept is None:
            if len(voxels) == limit:
                continue
            kept = voxels[z, y, x] = []
        if len(kept) < config.max_points:
            kept.append(point)
    return voxels


@pytest.mark.parametrize("limit", [50, 10_000])
def test_voxels_equal_a_loop_over_points(limit: int) -> None:
    points = random_cloud(3000)
    points[1000:2000, :3] = points[:1000, :3]  # several points a voxel
    expected = voxels_one_by_one(points.numpy(), SMALL, limit)
    ours = voxelize_cloud(points, SMALL, limit)
    assert [tuple(row) for row in ours.indices.tolist()] == list(expected)
    assert ours.count.tolist() == [len(kept) for kept in expected.values()]
    mean = np.stack([np.mean(kept, axis=0) for kept in expected.values()])
    np.testing.assert_allclose(ours.mean, mean, rtol=1e-5, atol=1e-6)


def test_points_outside_or_not_finite_make_no_voxel() -> None:
    points = torch.tensor([[50.0, 0, 0, 0, 0], [0, 0, 9, 0, 0], [float("nan"), 0, 0, 0, 0]])
    assert len(voxelize([points, random_cloud(0)], SMALL, 10).mean) == 0


def active(shape: tuple[int, int, int], voxels: int, channels: int, batch: int = 2) -> SparseTensor:
    torch.manual_seed(0)
    cells = torch.randperm(batch * shape[0] * shape[1] * shape[2])[:voxels]
    z, y, x = shape
    indices = torch.stack(
        [cells // (z * y * x), cells // (y * x) % z, cells // x % y, cells % x], 1
    )
    return SparseTensor(torch.randn(voxels, channels, requires_grad=True), indices, shape, batch)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "submanifold"),
    [
        ((3, 3, 3), (1, 1, 1), (1, 1, 1), True),
        ((3, 3, 3), (2, 2, 2), (1, 1, 1), False),
        ((3, 3, 3), (2, 2, 2), (0, 1, 1), False),
        ((3, 1, 1), (2, 1, 1), (0, 0, 0), False),
    ],
)
def test_sparse_convolution_equals_a_dense_one(
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int],
    padding: tuple[int, int, int],
    submanifold: bool,
) -> None:
    x = active((7, 10, 12), 150, 4)
    conv = SparseConv3d(4, 6, kernel, stride, padding, submanifold, "torch")
    ours = conv(x)
    dense = conv3d(x.dense(), conv.weight.permute(4, 3, 0, 1, 2), stride=stride, padding=padding)
    where = ours.indices.unbind(1)
    theirs = dense.permute(0, 2, 3, 4, 1)[where]
    torch.testing.assert_close(ours.features, theirs, rtol=1e-4, atol=1e-5)
    if not submanifold:
        # nothing that the dense one sees is left out
        assert ours.dense().ne(0).sum() == dense.ne(0).sum()
    weights = torch.randn_like(theirs)
    of_ours = torch.autograd.grad((ours.features * weights).sum(), [x.features, conv.weight])
    of_theirs = torch.autograd.grad((theirs * weights).sum(), [x.features, conv.weight])
    for one, two in zip(of_ours, of_theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_gradients_by_finite_differences() -> None:
    x = active((4, 5, 6), 30, 2)
    conv = SparseConv3d(2, 3, stride=(2, 2, 2), backend="torch").double()

    def run(features: Tensor, weight: Tensor) -> Tensor:
        with torch.no_grad():
            conv.weight.copy_(weight)
        out: SparseTensor = torch.func.functional_call(
            conv, {"weight": weight}, (replace_(x, features),)
        )
        return out.features

    features = x.features.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(run, (features, conv.weight.detach().clone().requires_grad_()))


def replace_(x: SparseTensor, features: Tensor) -> SparseTensor:
    return SparseTensor(features, x.indices, x.shape, x.batch)


def test_one_rulebook_serves_all_convolutions_of_a_resolution() -> None:
    x = active((4, 5, 6), 30, 2)
    first = SparseConv3d(2, 2, submanifold=True, backend="torch")(x)
    assert list(x.rulebooks) == [((3, 3, 3), (1, 1, 1), (1, 1, 1))]
    book = next(iter(x.rulebooks.values()))
    SparseConv3d(2, 2, submanifold=True, backend="torch")(first)
    assert next(iter(first.rulebooks.values())) is book
    again = build_rulebook(x, (3, 3, 3), (1, 1, 1), (1, 1, 1), True)
    assert torch.equal(again.sources, book.sources)


@pytest.mark.gpu
@pytest.mark.skipif(not has_spconv(), reason="needs spconv")
@pytest.mark.parametrize("submanifold", [True, False])
def test_both_backends_agree(submanifold: bool) -> None:
    x = active((9, 16, 16), 300, 16)
    x = SparseTensor(x.features.detach().cuda(), x.indices.cuda(), x.shape, x.batch)
    stride = (1, 1, 1) if submanifold else (2, 2, 2)
    one = SparseConv3d(16, 32, stride=stride, submanifold=submanifold, backend="torch").cuda()
    two = SparseConv3d(16, 32, stride=stride, submanifold=submanifold, backend="spconv").cuda()
    two.load_state_dict(one.state_dict())
    torch.testing.assert_close(one(x).dense(), two(x).dense(), rtol=1e-2, atol=1e-2)


def test_an_empty_cloud_is_an_empty_street() -> None:
    torch.manual_seed(0)
    teacher = Teacher(SMALL)
    for mode in (True, False):
        output = teacher.train(mode)([random_cloud(0), random_cloud(2000)])
        assert all(m.heatmap.isfinite().all() for m in output.maps)
        assert output.taps[0].shape == (2, 16, 16, 16)
        assert output.taps[1].shape == (2, 24, 8, 8)
        alone = teacher.train(mode)([random_cloud(0)])
        assert all(m.box_code.isfinite().all() for m in alone.maps)


def test_training_steps_repeat_to_the_bit() -> None:
    def gradients() -> list[Tensor]:
        torch.manual_seed(0)
        teacher = Teacher(SMALL)
        output = teacher([random_cloud(3000), random_cloud(3000, 1)])
        torch.stack([m.heatmap.sum() + m.box_code.sum() for m in output.maps]).sum().backward()
        return [p.grad for p in teacher.parameters() if p.grad is not None]

    one, two = gradients(), gradients()
    assert len(one) == len(list(Teacher(SMALL).parameters()))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_published_parameter_count() -> None:
    teacher = Teacher(PRESETS["r50_256x704_4key"].teacher)
    assert sum(p.numel() for p in teacher.parameters()) == 8_938_262


def test_checkpoints_of_another_network_are_refused(tmp_path: Path) -> None:
    from labeldistill_core.checkpoints import load_student
    from labeldistill_core.distillation.label_encoder import load_label_encoder

    path = tmp_path / "teacher.safetensors"
    teacher = Teacher(SMALL)
    save_network(path, "teacher", teacher, SMALL, "made for a test")
    again = load_teacher(path)
    assert again.config == SMALL
    assert not again.training
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    with pytest.raises(CheckpointError, match="holds a teacher, and a student is needed"):
        load_student(path)
    with pytest.raises(CheckpointError, match="holds a teacher, and a label encoder is needed"):
        load_label_encoder(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"voxel_m": (0.5, 0.4, 0.4)}, "does not grow to a cell of 1.6 m in 2 halvings"),
        ({"height_padding": (1,)}, "one number between two of the 3 stages"),
        ({"height_padding": (1, -1)}, "must be 0 or more"),
        ({"encoder_channels": ()}, "teacher.encoder_channels is empty: use positive numbers"),
        ({"voxel_m": (0.4, 0.4, 0.0)}, "teacher.voxel_m is 0.4, 0.4, 0.0: use positive numbers"),
        ({"voxel_m": (0.4, 0.4, float("nan"))}, "teacher.voxel_m is 0.4, 0.4, nan: use positive"),
        ({"voxel_m": (0.4, 0.4, 1e-320)}, "into more than 4096 layers: use higher voxels"),
        ({"voxel_m": (0.4, 0.4, 9.0)}, r"voxel_m .* leave no layer of grid.z_m \(-"),
        ({"max_voxels": (-1, 5)}, "teacher.max_voxels is -1, 5: use positive numbers"),
        ({"neck_channels": (8, 0)}, "teacher.neck_channels is 8, 0: use positive numbers"),
        ({"grid": BevGrid((-12.8, 12.8), (-12.0, 12.0), cell_m=1.6)}, "even number of rows"),
    ],
)
def test_configurations_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SMALL, **change)


@pytest.mark.parametrize("change", [{"past": -3}, {"future": -1}, {"max_range_m": 0.0}])
def test_sweeps_that_there_are_none_of(change: dict[str, Any]) -> None:
    (name,) = change
    with pytest.raises(ConfigError, match=f"teacher.sweeps.{name} is {change[name]}: it must be"):
        SweepsConfig(**change)


def test_scans_meet_in_one_frame() -> None:
    """A point that stands still is at one place, whatever the vehicle does between two scans."""
    still = np.array([10.0, 2.0, 0.5])
    poses = [
        Transform("map", "lidar", np.eye(3), np.array([0.5 * turn, 0.0, 1.8])) for turn in (0, -1)
    ]
    scans = []
    for turn, pose in enumerate(poses):
        xyz = pose.inverse.apply(still[None])
        scans.append(Scan(np.append(xyz, [[7.0, 3.0]], 1).astype(np.float32), pose, 0.05 * turn))
    ego = Transform("map", "ego", np.eye(3), np.array([0.2, 0.0, 0.0]))
    bev = BevAugmentation(rotation_deg=90.0, scale=2.0)
    found = cloud(scans, ego, bev, SweepsConfig())
    expected = [[-4.0, 19.6, 1.0, 7.0, 0.0], [-4.0, 19.6, 1.0, 7.0, 0.05]]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    published = cloud(scans[:1], ego, bev, SweepsConfig(repeat_when_alone=8, scale_height=False))
    assert len(published) == 9
    np.testing.assert_allclose(published[:, 2], 0.5, atol=1e-6)
    far = Scan(np.array([[60.0, 0, 0, 0, 0]], np.float32), poses[0], 0.0)
    assert len(cloud([far], ego, bev, SweepsConfig())) == 0


def test_published_sweeps_end_at_the_first_gap() -> None:
    """Six scans of the sensor before the sample, six after it; or a sample that has none before."""
    pose = Transform.identity("map", "ego")

    def scan(turn: int) -> SimpleNamespace:
        return SimpleNamespace(
            stamp_ns=turn * 50_000_000,
            scan=lambda: np.zeros((1, 5), np.float32),
            fixed_from_ego=pose,
            ego_from_sensor=Transform.identity("ego", "lidar"),
        )

    def ages(config: SweepsConfig, first: int) -> list[float]:
        tables: Any = SimpleNamespace(
            lidar=lambda _: scan(0),
            lidar_sweeps=lambda _, past, future: [
                *(scan(-turn) for turn in range(1, past + 1) if -turn >= first),
                *(scan(turn) for turn in range(1, future + 1)),
            ],
        )
        return sorted(Points(config)(tables, "token", pose, BevAugmentation())[:, 4].tolist())

    ours, published = SweepsConfig(), behaviour.sweeps(SweepsConfig())
    assert len(ages(ours, -6)) == 10
    assert ages(published, -6) == pytest.approx([0.05 * turn for turn in range(-3, 6)])
    assert ages(ours, 0) == pytest.approx([-0.2, -0.15, -0.1, -0.05, 0.0])
    assert ages(published, 0) == [0.0] * 9  # it repeats what it has
    assert ages(published, -4) == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])


def test_boxes_hold_the_points_that_they_were_counted_with(synthetic_dataroot: Path) -> None:
    tables = NuScenesTables(synthetic_dataroot, "v1.0-mini")
    data = LidarDataset(tables, tables.scene_names, CAMERAS, None, Points(SweepsConfig(0, 0)))
    plain, turned = data[0], data[0, 3]
    token = plain.tokens[0]
    counted = [n for n in tables.ground_truth(token).num_lidar_pts if n > 0]
    for sample in (plain, turned):
        boxes, points = sample.boxes[0].values, sample.points[0]
        inside = []
        for x, y, z, length, width, height, yaw in boxes[:, :7].tolist():
            local = points[:, :3] - torch.tensor([x, y, z])
            along = local[:, 0] * np.cos(yaw) + local[:, 1] * np.sin(yaw)
            across = local[:, 1] * np.cos(yaw) - local[:, 0] * np.sin(yaw)
            size = torch.tensor([length, width, height]) / 2
            place = torch.stack([along, across, local[:, 2]], 1).abs()
            inside.append(int((place <= size).all(1).sum()))
        # rounding decides on points that lie on a side
        found, total = np.array(inside), np.array(counted)
        assert np.abs(found - total).sum() < 0.02 * total.sum()
    assert not torch.equal(plain.points[0], turned.points[0])


def test_a_missing_scan_names_the_sample(synthetic_dataroot: Path, tmp_path: Path) -> None:
    root = shutil.copytree(synthetic_dataroot, tmp_path / "data")
    tables = NuScenesTables(root, "v1.0-mini")
    points = Points(SweepsConfig(0, 0))
    data = LidarDataset(tables, tables.scene_names, CAMERAS, None, points)
    token = tables.samples(tables.scene_names[0])[1]
    tables.lidar(token).path.write_bytes(b"short")
    with pytest.raises(DataError, match=rf"sample {token}: .*no LiDAR scan"):
        data[1]
    tables.lidar(token).path.unlink()
    with pytest.raises(DataError, match=rf"sample {token}: .*cannot read"):
        data[1]
    both = LidarSample.collate([data[0], data[2]])
    assert len(both.tokens) == len(both.boxes) == len(both.points) == 2


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_cached_teacher_computes_each_cloud_once(device: str, tmp_path: Path) -> None:
    teacher = Teacher(small_teacher()).eval().to(device)
    cached = CachedTeacher(teacher, tmp_path, "sha256", 1 << 30)
    generator = torch.Generator().manual_seed(0)
    span = torch.tensor([40.0, 40.0, 1.0, 255.0, 0.0])
    clouds = [((torch.rand(300, 5, generator=generator) - 0.5) * span).to(device) for _ in range(3)]
    calls = []
    teacher.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    with torch.no_grad():
        expected = teacher([clouds[2], clouds[0]])
        calls.clear()
        cached([clouds[0], clouds[1], clouds[0]])
        cached(clouds[1:])
        # each by itself on a CPU, so that nothing depends on the clouds beside it
        assert calls == ([1, 1, 1] if device == "cpu" else [2, 1])
        calls.clear()
        # by another process, too
        found = CachedTeacher(teacher, tmp_path, "sha256", 1 << 30)([clouds[2], clouds[0]])
        assert calls == []
        for one, two in zip(found.taps, expected.taps, strict=True):
            torch.testing.assert_close(one, two, atol=1e-3, rtol=1e-3)
        for one, two in zip(found.maps, expected.maps, strict=True):
            torch.testing.assert_close(one.heatmap, two.heatmap, atol=1e-2, rtol=1e-3)
            torch.testing.assert_close(one.velocity, two.velocity, atol=1e-2, rtol=1e-3)
        # what another teacher or another precision makes is something else
        CachedTeacher(teacher, tmp_path, "other", 1 << 30)(clouds[:1])
        assert len(calls) == 1
        with torch.autocast(device, torch.bfloat16):  # as in training
            cached(clouds[:1])
            assert len(calls) == 2
            cached(clouds[:1])
        assert len(calls) == 2
        # without room it is the teacher itself
        forgetful = CachedTeacher(teacher, tmp_path / "none", "sha256", 0)
        forgetful(clouds[:1])
        forgetful(clouds[:1])
    assert len(calls) == 4
