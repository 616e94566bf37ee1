# SPDX-License-Identifier: Apache-2.0
"""What `labeldistill export` writes of a run is what the run itself wrote, and what is loaded."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from labeldistill_core.checkpoints import file_sha256, load_student
from labeldistill_core.config_json import to_json
from labeldistill_core.errors import CheckpointError
from labeldistill_core.runtime import Detector
from labeldistill_core.training.export import IDENTITY, export, read_run
from labeldistill_ros.cli import main
from tests.support.small_networks import small, small_teacher
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
    # the average of the weights, which is what the checkpoint's own names mean
    last = run / "checkpoints" / "last.ckpt"
    content = read_run(last)
    average, current = content["state_dict"], content["current_model_state"]
    for name, weight in one.student.state_dict().items():
        stored = average[f"network.{name}"]
        is_rounded = weight.is_floating_point() and "running_" not in name
        assert torch.equal(weight, stored.half().to(weight.dtype) if is_rounded else stored)
    assert any(not torch.equal(average[name], current[name]) for name in average)
    assert main(["export", str(run), str(exported), "--which", "best"]) == 2
    assert "--validate val" in capsys.readouterr().err
    # into the output, where nothing else may stand
    program = [sys.executable, "-c", "from labeldistill_ros.entry import command; command()"]
    with (tmp_path / "piped.safetensors").open("wb") as piped:
        done = subprocess.run(
            [*program, "export", run, "/dev/stdout"], stdout=piped, stderr=subprocess.PIPE,
            check=True, text=True,
        )  # fmt: skip
    assert (tmp_path / "piped.safetensors").read_bytes() == exported.read_bytes()
    assert "2 steps" in done.stderr
    assert "sha256" not in done.stderr
    # also over one of a version that told no kind
    old = tmp_path / "old.safetensors"
    with safe_open(exported, framework="pt") as new:
        said = {name: text for name, text in new.metadata().items() if "kind" not in name}
    save_file(load_file(exported), old, said)
    assert Detector.load(old).config == small()
    assert main(["export", str(run), str(old)]) == 0
    capsys.readouterr()
    before, other = last.read_bytes(), tmp_path / "other.ckpt"
    other.write_bytes(before)
    link = tmp_path / "link.safetensors"
    link.symlink_to(last)
    assert main(["export", str(last), "/dev/null"]) == 0
    assert "sha256" not in capsys.readouterr().out
    for given, wrong, told in (
        ([last, last], [], "last.ckpt is there and is no file of a network: name another"),
        ([last, other], [], "other.ckpt is there and is no file of a network: name another"),
        ([last, link], [], "link.safetensors is there and is no file of a network: name another"),
        ([exported, tmp_path / "x"], [], "is the file of a student, as the next stage loads it"),
        ([last, exported], ["--which", "best"], "is one checkpoint: `--which best` chooses"),
        ([tmp_path / "none", exported], [], "none holds no run: give the folder"),
    ):
        assert main(["export", *map(str, given), *wrong]) == 2
        assert told in capsys.readouterr().err
    assert last.read_bytes() == other.read_bytes() == before
    # who gives a run for its network is told how to get it
    for network, told in (
        (last, "network of a run's checkpoint is written by `labeldistill export`"),
        (run, "is the folder of a run: give the *.safetensors in it"),
    ):
        assert main(["evaluate", str(network), root]) == 2
        assert told in capsys.readouterr().err
    # a flipped bit in the middle, where a weight or the optimizer's memory of one lies
    middle = len(before) // 2
    last.write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])
    assert main(["export", str(run), str(exported)]) == 2
    assert "has another check sum" in capsys.readouterr().err


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


def test_a_run_may_be_in_the_folder_where_one_is(
    synthetic_dataroot: Path,
    tmp_path: Path,
    small_in_presets: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "teacher"
    folder.mkdir()
    monkeypatch.chdir(folder)
    root = str(synthetic_dataroot)
    assert main(["train", "teacher", root, ".", *small_training()]) == 0
    assert f"label-encoder {root} ../label_encoder " in capsys.readouterr().out


def content_of_a_run(identity: Any, step: int = 1, **callbacks: Any) -> dict[str, Any]:
    """What is in the checkpoint of a run without weights."""
    rest = {"loops": {}, "optimizer_states": [], "callbacks": callbacks}
    return {IDENTITY: identity, "global_step": step, "state_dict": {}, **rest}


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
    torch.save(content_of_a_run(identity), run)
    with pytest.raises(CheckpointError, match=r"last\.ckpt is damaged or not of this project"):
        export(run, tmp_path / "out.safetensors")


def identity_of_a_run(**parts: Any) -> dict[str, Any]:
    return {
        "stage": "student", "config": json.loads(to_json(small())), "preset": "small", "samples": 1,
        "recipe": {"seed": 0, "epochs": 1}, **parts,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"global_step": "abc"}, "its step is 'abc'"),
        ({"global_step": torch.tensor(1)}, r"its step is tensor\(1\)"),
        ({IDENTITY: identity_of_a_run(samples=torch.tensor(1))}, "no JSON"),
        ({IDENTITY: identity_of_a_run(teacher=torch.zeros(2))}, "no JSON"),
        ({IDENTITY: identity_of_a_run(more={(1, 2): 3})}, "no JSON"),
        ({IDENTITY: identity_of_a_run(preset="\ud800")}, "no JSON"),
        ({IDENTITY: identity_of_a_run(recipe=None)}, "its recipe is none"),
        ({IDENTITY: identity_of_a_run(recipe={"seed": 0, "epochs": "2"})}, "its recipe is none"),
        ({"state_dict": {"network.a": "b"}}, "no tensors"),
        ({"state_dict": {"network.a": torch.zeros(2).to_sparse()}}, "no tensors"),
        ({"state_dict": {"network.a": torch.zeros(2, device="meta")}}, "no tensors"),
        ({"state_dict": [1]}, "no tensors"),
    ],
    ids=str,
)
def test_what_no_run_writes_is_damage(content: Any, told: str, tmp_path: Path) -> None:
    run = tmp_path / "last.ckpt"
    torch.save(content_of_a_run(identity_of_a_run()) | content, run)
    with pytest.raises(CheckpointError, match=rf"last\.ckpt is damaged .*{told}"):
        export(run, tmp_path / "out.safetensors")


@pytest.mark.parametrize("lacking", ["callbacks", "loops", "optimizer_states"])
def test_what_goes_on_needs_more_than_its_network(lacking: str, tmp_path: Path) -> None:
    run = tmp_path / "last.ckpt"
    torch.save(content_of_a_run(identity_of_a_run()) | {lacking: None}, run)
    assert read_run(run)["global_step"] == 1
    with pytest.raises(CheckpointError, match=rf"last\.ckpt is damaged .*it has no {lacking}"):
        read_run(run, taken_up=True)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (-1, r"teacher\.out_channels is -1: use positive numbers"),
        (10**6, "does not fit the network"),
    ],
    ids=["negative", "too large"],
)
def test_a_network_that_cannot_be_is_told_before_it_takes_memory(
    value: int, told: str, tmp_path: Path
) -> None:
    run, config = tmp_path / "last.ckpt", json.loads(to_json(small_teacher()))
    identity = identity_of_a_run(stage="teacher", config={**config, "out_channels": value})
    torch.save(content_of_a_run(identity), run)
    with pytest.raises(CheckpointError, match=told):
        export(run, tmp_path / "out.safetensors")


def test_what_cannot_be_opened_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, file = tmp_path / "last.ckpt", tmp_path / "out.safetensors"
    torch.save(content_of_a_run(identity_of_a_run()), run)
    opened = Path.open

    def refused(path: Path, *args: Any, **kwargs: Any) -> Any:  # as to another user than root
        if path == unreadable:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refused)
    unreadable = run
    with pytest.raises(PermissionError, match=f"Permission denied: '{run}'"):
        export(run, file)
    file.write_bytes(b"of nobody knows whom")
    unreadable = file
    with pytest.raises(PermissionError, match=f"Permission denied: '{file}'"):
        export(run, file)
