# SPDX-License-Identifier: Apache-2.0
"""Signals end a run with what is whole saved, and two runs do not share a folder."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import Tensor

from labeldistill_core import exit_codes, signals
from labeldistill_core.errors import CheckpointError, ConfigError, NotFiniteError, StoppedError
from labeldistill_core.files import write_whole
from labeldistill_core.training import checkpointing, interrupts
from labeldistill_core.training.fit import Machine, fit
from tests.core.training.test_resume import RECIPE, made, run, steps


def signalled(
    root: Path,
    out: Path,
    numbers: tuple[signal.Signals, ...],
    call: int,
    function: str = "training_step",
    scored: bool = False,
) -> StoppedError:
    """What ends a run of the teacher to which signals come in a call, counted from its start."""
    stage, data, collate = made("teacher", root, RECIPE)
    stage.tables = data.tables
    calls, inner = 0, getattr(stage, function)

    def counting(*args: Any) -> Any:
        nonlocal calls
        if calls == call:
            for number in numbers:
                signal.raise_signal(number)
        calls += 1
        return inner(*args)

    setattr(stage, function, counting)
    machine = Machine("32-true", workers=0)
    with pytest.raises(StoppedError) as stopped:
        fit(stage, data, collate, out, {"stage": "teacher"}, machine, data if scored else None)
    return stopped.value


def test_a_signal_saves_and_the_run_goes_on(synthetic_dataroot: Path, tmp_path: Path) -> None:
    whole = run("teacher", synthetic_dataroot, tmp_path / "whole")
    parts = tmp_path / "parts"
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    # within the second step; in the last batch of the epoch, which is counted from where it stopped
    for batch, number, step in ((4, signal.SIGTERM, 2), (1, signal.SIGINT, 3)):
        stopped = signalled(synthetic_dataroot, parts, (number,), batch)
        assert str(stopped) == f"stopped at step {step}, repeat the command to go on"
        assert stopped.signal == number
        assert steps(parts) == step
    again = run("teacher", synthetic_dataroot, parts)
    assert whole is not None
    assert again is not None
    assert [name for name in whole if not torch.equal(whole[name], again[name])] == []
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_signals_of_one_stop_save(synthetic_dataroot: Path, tmp_path: Path) -> None:
    # as where a terminal signals all processes, and the one that started this passes it on
    twice = (signal.SIGINT, signal.SIGTERM)
    assert signalled(synthetic_dataroot, tmp_path, twice, 4).signal == signal.SIGINT
    assert steps(tmp_path) == 2


def test_a_second_signal_ends_at_once(
    synthetic_dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "ONE_STOP_S", 0.0)
    twice = (signal.SIGINT, signal.SIGINT)
    assert signalled(synthetic_dataroot, tmp_path, twice, 4).signal == signal.SIGINT
    assert not (tmp_path / "checkpoints/last.ckpt").exists()


def test_a_step_that_takes_long_is_not_waited_for(
    synthetic_dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "ONE_STOP_S", 0.0)
    monkeypatch.setattr(interrupts, "GRACE_S", 0.0)
    stopped = signalled(synthetic_dataroot, tmp_path, (signal.SIGTERM,), 3)
    assert stopped.signal == signal.SIGTERM
    assert str(stopped) == (
        "stopped at step 1; nothing is saved yet, and the repeated command goes on from there"
    )


@pytest.mark.parametrize(("call", "step"), [(5, 2), (7, 3)], ids=["within", "last"])
def test_a_slow_disk_is_waited_for(
    call: int,
    step: int,
    synthetic_dataroot: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the end of an epoch saves by itself."""
    grace_s = 4.0  # within which a step ends on a busy machine, too

    def slowly(path: Path, data: memoryview) -> None:
        time.sleep(1.1 * grace_s)
        write_whole(path, data)

    monkeypatch.setattr(signals, "ONE_STOP_S", 0.0)
    monkeypatch.setattr(interrupts, "GRACE_S", grace_s)
    monkeypatch.setattr(checkpointing, "write_whole", slowly)
    stopped = signalled(synthetic_dataroot, tmp_path, (signal.SIGTERM,), call)
    assert str(stopped) == f"stopped at step {step}, repeat the command to go on"
    assert steps(tmp_path) == step


@pytest.mark.parametrize("function", ["validation_step", "on_validation_epoch_end"])
def test_a_signal_while_a_run_is_scored_loses_no_step(
    function: str, synthetic_dataroot: Path, tmp_path: Path
) -> None:
    whole = run("teacher", synthetic_dataroot, tmp_path / "whole")
    parts = tmp_path / "parts"
    stopped = signalled(synthetic_dataroot, parts, (signal.SIGTERM,), 0, function, scored=True)
    assert str(stopped) == "stopped at step 3, repeat the command to go on"
    assert steps(parts) == 3
    again = run("teacher", synthetic_dataroot, parts)
    assert whole is not None
    assert again is not None
    assert steps(parts) == 6
    assert [name for name in whole if not torch.equal(whole[name], again[name])] == []


def test_a_signal_behind_the_last_step_is_told(synthetic_dataroot: Path, tmp_path: Path) -> None:
    numbers = (signal.SIGTERM,)
    stopped = signalled(synthetic_dataroot, tmp_path, numbers, 0, "on_train_end")
    assert stopped.signal == signal.SIGTERM
    assert str(stopped) == "stopped at step 6, repeat the command to go on"


def test_the_exit_code_tells_the_signal(capsys: pytest.CaptureFixture[str]) -> None:
    def call() -> None:
        raise StoppedError("stopped at step 3", signal.SIGTERM)

    assert exit_codes.exit_code(call, "train") == 143
    assert capsys.readouterr().err == "stopped at step 3\n"


def test_a_folder_has_one_training_at_a_time(synthetic_dataroot: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1)
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(ConfigError, match=f"another process trains in {tmp_path}: give another"),
    ):
        run("teacher", synthetic_dataroot, tmp_path, recipe)
    assert not (tmp_path / "checkpoints").exists()
    assert run("teacher", synthetic_dataroot, tmp_path, recipe) is not None
    # one checkpoint, which others may read
    assert [file.name for file in tmp_path.rglob("*.ckpt")] == ["last.ckpt"]
    assert (tmp_path / "checkpoints/last.ckpt").stat().st_mode & 0o444 == 0o444


def test_tasks_of_slurm_are_as_many_as_processes(
    synthetic_dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    with pytest.raises(ConfigError, match="Slurm started 4 tasks, and --devices 1 on --nodes 1"):
        run("teacher", synthetic_dataroot, tmp_path)


def test_a_run_that_came_to_its_end_can_be_lengthened(
    synthetic_dataroot: Path, tmp_path: Path
) -> None:
    one, two = replace(RECIPE, epochs=1), RECIPE
    assert run("label encoder", synthetic_dataroot, tmp_path, one, stop_at_batch=4) is None
    with pytest.raises(CheckpointError, match="recipe.epochs was 1, is 2"):
        run("label encoder", synthetic_dataroot, tmp_path, two)
    # of a process that was killed while it saved
    left = [
        tmp_path / "checkpoints" / "last.ckpt.0123abcd.partial",
        tmp_path / "label_encoder.safetensors.0123abcd.partial",
    ]
    for file in left:
        file.write_bytes(b"half")
        os.utime(file, (0, 0))  # one of this minute may be being written
    assert run("label encoder", synthetic_dataroot, tmp_path, one) is not None
    assert not any(file.exists() for file in left)
    assert steps(tmp_path) == 3
    assert run("label encoder", synthetic_dataroot, tmp_path, two) is not None
    assert steps(tmp_path) == 6
    with pytest.raises(CheckpointError, match="recipe.epochs was 2, is 1"):
        run("label encoder", synthetic_dataroot, tmp_path, one)


def test_a_run_that_diverges_says_where(synthetic_dataroot: Path, tmp_path: Path) -> None:
    """No assertion of torch comes first, and the last good checkpoint stays."""
    recipe = replace(RECIPE, epochs=1, learning_rate=1e30, accumulate=1)
    with pytest.raises(
        NotFiniteError, match=r"loss is not finite at step 1: .*depth nan.*; samples \w+"
    ):
        run("student", synthetic_dataroot, tmp_path, recipe, save_every=100)


def test_weights_that_are_not_finite_replace_no_checkpoint(
    synthetic_dataroot: Path, tmp_path: Path
) -> None:
    stage, data, collate = made("teacher", synthetic_dataroot, replace(RECIPE, accumulate=1))
    step = stage.training_step

    def spoiled(sample: Any, batch_idx: int) -> Tensor:
        loss = step(sample, batch_idx)
        if stage.global_step == 2:
            next(stage.network.parameters()).data.fill_(float("inf"))
        return loss

    stage.training_step = spoiled  # type: ignore[method-assign, assignment]
    machine = Machine("32-true", workers=0)
    with pytest.raises(NotFiniteError, match=r"stopped at step 3, and .*last.ckpt stays as it was"):
        fit(stage, data, collate, tmp_path, {"stage": "teacher"}, machine, save_every=1)
    assert steps(tmp_path) == 2
