# SPDX-License-Identifier: Apache-2.0
"""What `labeldistill export` writes of a run is what the run itself wrote, and what is loaded."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from labeldistill_core.checkpoints import file_sha256, load_student
from labeldistill_core.errors import CheckpointError
from labeldistill_core.runtime import Detector
from labeldistill_core.training.export import IDENTITY, export
from labeldistill_ros.cli import main
from tests.support.small_networks import small
from tests.support.small_training import small_training


def test_export_writes_what_the_node_loads(
    synthetic_dataroot: Path,
    tmp_path: Path,
    small_in_presets: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    common = small_training()
    root, run = str(synthetic_dataroot), tmp_path / "student"
    teacher = tmp_path / "teacher" / "teacher.safetensors"
    assert main(["train", "teacher", root, str(teacher.parent), *common]) == 0
    assert main(["train", "student", root, str(run), "--teacher", str(teacher), *common]) == 0
    capsys.readouterr()
    exported = tmp_path / "vehicle.safetensors"
    assert main(["export", str(run), str(exported)]) == 0
    assert "2 steps" in capsys.readouterr().out
    assert Detector.load(exported).config == small()
    one, two = load_student(exported), load_student(run / "student.safetensors")
    weights = two.student.state_dict()
    assert all(torch.equal(w, weights[n]) for n, w in one.student.state_dict().items())
    assert one.record == two.record
    assert one.record["recipe"]["batch_size"] == 4
    assert exported.stat().st_size < 0.5 * (run / "checkpoints" / "last.ckpt").stat().st_size
    assert str(tmp_path).encode() not in exported.read_bytes()
    assert main(["export", str(run), str(exported), "--which", "best"]) == 2
    assert "--validate val" in capsys.readouterr().err


def test_export_writes_teachers_as_the_next_stage_loads_them(
    synthetic_dataroot: Path,
    tmp_path: Path,
    small_in_presets: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    common, root = small_training(), str(synthetic_dataroot)
    teacher, encoder = tmp_path / "teacher", tmp_path / "encoder"
    assert main(["train", "teacher", root, str(teacher), *common]) == 0
    file = teacher / "teacher.safetensors"
    taught = ["--teacher", str(file)]
    assert main(["train", "label-encoder", root, str(encoder), *taught, *common]) == 0
    for run, name, note in (
        (teacher, "teacher.safetensors", "seed 0"),
        (encoder, "label_encoder.safetensors", "seed 0, inverse-head"),
    ):
        exported = tmp_path / name
        assert main(["export", str(run), str(exported)]) == 0
        assert f"preset small, 2 steps on 8 samples, {note}, sha256" in capsys.readouterr().out
        assert exported.read_bytes() == (run / name).read_bytes()
    again = tmp_path / "again"
    assert main(["train", "teacher", root, str(again), "--init", str(file), *common]) == 0
    assert f"seed 0, from the teacher {file_sha256(file)}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "identity",
    [
        "student",
        {},
        {"stage": "pilot"},
        {"stage": ["student"]},
        {"stage": "student"},
        {"stage": "student", "config": asdict(small()), "preset": "demo", "samples": 1},
    ],
    ids=["word", "empty", "other stage", "list", "no config", "no recipe"],
)
def test_a_run_that_does_not_say_what_made_it_is_damaged(identity: Any, tmp_path: Path) -> None:
    run = tmp_path / "last.ckpt"
    torch.save({IDENTITY: identity, "global_step": 1, "state_dict": {}}, run)
    with pytest.raises(CheckpointError, match=r"last\.ckpt is damaged or not of this project"):
        export(run, tmp_path / "out.safetensors")
