# SPDX-License-Identifier: Apache-2.0
"""What training makes of data and disks that are not as they should be."""

from __future__ import annotations

import errno
import json
import logging
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.samples import (
    LidarDataset,
    LidarSample,
    StudentDataset,
    StudentSample,
)
from labeldistill_core.distillation.config import DistillationConfig, LabelEncoderConfig
from labeldistill_core.distillation.distiller import Distiller
from labeldistill_core.distillation.label_encoder import LabelEncoder
from labeldistill_core.lidar.config import SweepsConfig
from labeldistill_core.lidar.points import Points
from labeldistill_core.lidar.teacher import Teacher
from labeldistill_core.network.targets import build_targets
from labeldistill_core.training.checkpointing import WholeCheckpoints
from labeldistill_core.training.recipe import Recipe
from labeldistill_core.training.student import StudentStage
from labeldistill_core.training.teacher import TeacherStage
from labeldistill_ros.cli import main
from tests.support.full_disk import files_no_larger_than
from tests.support.nuscenes_fixture import VERSION
from tests.support.small_networks import small, small_teacher
from tests.support.small_training import small_training


def change(root: Path, version: str, table: str, edit: Callable[[Any], object]) -> None:
    path = root / version / f"{table}.json"
    rows = json.loads(path.read_text())
    edit(rows)
    path.write_text(json.dumps(rows))


def distilled_losses(sample: StudentSample) -> dict[str, float]:
    config, teacher = small(), small_teacher()
    encoder = LabelEncoderConfig(
        teacher.grid, teacher.head.tasks, teacher.second_channels, hidden_channels=8
    )
    torch.manual_seed(0)
    distiller = Distiller(
        DistillationConfig(), config, Teacher(teacher).eval(), LabelEncoder(encoder).eval()
    )
    stage = StudentStage(config, Recipe(), distiller)
    losses = stage.losses(sample)
    torch.stack(list(losses.values())).sum().backward()
    gradients = [p.grad for p in stage.network.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    return {name: float(value.detach()) for name, value in losses.items()}


def student_data(root: Path) -> StudentDataset:
    tables = NuScenesTables(root, VERSION)
    return StudentDataset(tables, tables.scene_names, small(), None, Points(SweepsConfig(0, 0)))


def test_odd_boxes_give_finite_losses(dataroot: Path) -> None:
    """One is seen once and has no velocity, one is outside the grid, one has no returns."""
    data = student_data(dataroot)
    sample = StudentSample.collate([data[0], data[1]])
    velocity = sample.boxes[1].values[:, 7:9]
    assert torch.isnan(velocity).any()
    assert float(sample.boxes[0].values[:, :2].abs().max()) > 51.2
    losses = distilled_losses(sample)
    assert {"lidar", "label", "response"} < set(losses)
    assert all(np.isfinite(value) for value in losses.values())


def test_samples_without_boxes_train(dataroot: Path) -> None:
    change(dataroot, VERSION, "sample_annotation", lambda rows: rows.clear())
    data = student_data(dataroot)
    sample = StudentSample.collate([data[0], data[1]])
    assert [len(boxes) for boxes in sample.boxes] == [0, 0]
    losses = distilled_losses(sample)
    assert losses["box"] == 0.0
    assert losses["heatmap"] > 0.0
    assert all(np.isfinite(value) for value in losses.values())


def test_an_empty_cloud_trains(dataroot: Path) -> None:
    data = student_data(dataroot)
    tables = NuScenesTables(dataroot, VERSION)
    for token in data.tokens:
        tables.lidar(token).path.write_bytes(b"")
    sample = StudentSample.collate([data[0], data[1]])
    assert [len(points) for points in sample.points] == [0, 0]
    losses = distilled_losses(sample)
    assert losses["depth"] == 0.0
    assert all(np.isfinite(value) for value in losses.values())
    lidar = LidarDataset(tables, tables.scene_names, CAMERAS, None, Points(SweepsConfig(0, 0)))
    stage = TeacherStage(small_teacher(), Recipe())
    found = stage.losses(LidarSample.collate([lidar[0], lidar[1]]))
    assert all(torch.isfinite(value) for value in found.values())


def test_targets_have_no_velocity_where_none_is_known(dataroot: Path) -> None:
    data = student_data(dataroot)
    config = small()
    targets = build_targets(data[1].boxes, config.grid, config.head)
    assert all(torch.isfinite(task.heatmap).all() for task in targets)
    codes = torch.cat([task.code[task.valid] for task in targets])
    assert torch.isnan(codes[:, 8:]).any()
    assert torch.isfinite(codes[:, :8]).all()


def without_points(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["num_lidar_pts"] = row["num_radar_pts"] = 0


@pytest.mark.parametrize("stage", ["teacher", "student", "overfit"])
@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda rows: rows.clear(), "samples have no box of the configuration's classes (car, "),
        (without_points, "since no LiDAR or radar point is in any of them (num_lidar_pts, num_"),
    ],
    ids=["no box", "no points"],
)
def test_a_training_without_a_box_is_refused(
    stage: str,
    edit: Callable[[list[dict[str, Any]]], None],
    told: str,
    dataroot: Path,
    tmp_path: Path,
    small_in_presets: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(dataroot, VERSION, "sample_annotation", edit)
    command = ["train", stage, str(dataroot), str(tmp_path / "run")]
    command += small_training(version=VERSION)
    if stage == "overfit":
        command = ["overfit", str(dataroot), str(tmp_path / "run"), "--version", VERSION]
    assert main(command) == 2
    assert told in capsys.readouterr().err


def test_unknown_categories_are_named(dataroot: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        NuScenesTables(dataroot, VERSION)
        assert not caplog.records
        before = len(
            NuScenesTables(dataroot, VERSION).ground_truth(student_data(dataroot).tokens[0]).boxes
        )

        def rename(rows: list[dict[str, str]]) -> None:
            for row in rows:
                if row["name"] == "vehicle.car":
                    row["name"] = "vehicle.hovercraft"

        change(dataroot, VERSION, "category", rename)
        tables = NuScenesTables(dataroot, VERSION)
    assert "vehicle.hovercraft is no nuScenes category" in caplog.text
    assert 0 < len(tables.ground_truth(tables.samples(tables.scene_names[0])[0]).boxes) < before


def test_a_split_that_the_version_lacks(
    dataroot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "teacher", str(dataroot), str(tmp_path / "out"), "--version", VERSION]
    assert main(command) == 2
    assert f"version '{VERSION}' has no split 'train'" in capsys.readouterr().err


def test_a_full_disk_leaves_the_last_checkpoint(
    synthetic_dataroot: Path,
    tmp_path: Path,
    small_in_presets: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    command = ["train", "teacher", str(synthetic_dataroot), str(out), *small_training(epochs=4)]
    with files_no_larger_than(100_000):
        assert main(command) == 2
    assert "Make room and repeat the call: it begins anew" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(TeacherStage, "on_train_epoch_start", interrupt_after_first_epoch)
        with pytest.raises(SystemExit):
            main(command)
    last = out / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    with files_no_larger_than(100_000):
        assert main(command) == 2
    assert "repeat the call: it goes on from last.ckpt" in capsys.readouterr().err
    assert last.read_bytes() == before
    assert list(last.parent.glob("*.partial")) == []
    assert not (out / "teacher.safetensors").exists()
    assert main(command) == 0
    file = out / "teacher.safetensors"
    before = file.read_bytes()
    # a run that has ended, and whose network does not fit on the disk any more
    with files_no_larger_than(100_000):
        assert main(command) == 2
    assert f"{file}: File too large: raise the limit" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert [path.name for path in out.glob("*.partial")] == []


def test_a_disk_that_fills_up_while_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written beside the last one, on the same disk, and never onto it."""
    file = tmp_path / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"step": 1}, file)
    write = Path.write_bytes

    def half(path: Path, content: memoryview) -> int:
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        WholeCheckpoints().save_checkpoint({"step": 2}, file)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert torch.load(file, weights_only=True) == {"step": 1}


def interrupt_after_first_epoch(stage: TeacherStage) -> None:
    if stage.current_epoch == 1:
        raise KeyboardInterrupt


DDP = """
import shlex
import sys

import torch

sys.path.insert(0, {repository!r})
from labeldistill_core import presets
from labeldistill_ros import cli
from tests.support.small_networks import small_preset

presets.PRESETS["small"] = small_preset()
for command in sys.argv[1:]:
    if code := cli.main(shlex.split(command)):
        sys.exit(code)
    # The first process writes what the next command reads.
    torch.distributed.barrier()
"""


@pytest.mark.long
def test_two_processes_train_one_network(
    synthetic_dataroot: Path, tmp_path: Path, repository: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text(DDP.format(repository=str(repository)))
    common = [*small_training(batch_size=2, epochs=2), "--validate", "val", "--devices", "2"]
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    # A teacher that remembers lies in each process.
    given = ["--teacher", str(teacher / "teacher.safetensors")]
    commands = [
        ["train", "teacher", str(synthetic_dataroot), str(teacher), *common],
        ["train", "student", str(synthetic_dataroot), str(student), *given, *common],
    ]
    # The first stage starts the second process, which costs seconds, and the second stage finds it
    # there, as with torchrun.
    done = subprocess.run(
        [sys.executable, str(script), *map(shlex.join, commands)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # the rule for the learning rate, told by each process in each stage
    assert done.stderr.count("2 processes") == 4
    for stage, out in (("teacher", teacher), ("student", student)):
        checkpoint = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
        # eight samples in steps of two processes with two samples each
        assert checkpoint["global_step"] == 4
        lines = (out / "log" / "scalars.jsonl").read_text().splitlines()
        assert sum("val/mAP" in json.loads(line) for line in lines) == 2
        assert (out / f"{stage}.safetensors").exists()
