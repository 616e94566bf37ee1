# SPDX-License-Identifier: Apache-2.0
"""The best checkpoint is the best one, wherever the folder lies and however the run was ended."""

from __future__ import annotations

import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from labeldistill_core import signals
from labeldistill_core.errors import CheckpointError, StoppedError
from labeldistill_core.files import write_whole
from labeldistill_core.training import checkpointing, interrupts
from labeldistill_core.training.checkpointing import Keep, KeepBest
from labeldistill_core.training.export import read_run
from labeldistill_core.training.fit import Machine, fit
from tests.core.training.test_export import content_of_a_run
from tests.core.training.test_resume import RECIPE, made, steps


def kept(folder: Path, scored: str = "those") -> KeepBest:
    return KeepBest(Keep(folder / "last.ckpt", 1, 0), folder / "best.ckpt", "val/mAP", scored)


def scored(keep: KeepBest, scores: list[float]) -> list[Path]:
    """Files that are saved while a run scores so."""
    saved: list[Path] = []
    for score in scores:
        trainer: Any = SimpleNamespace(
            callback_metrics={"val/mAP": score}, save_checkpoint=saved.append
        )
        keep.on_validation_end(trainer, LightningModule())
    return saved


def with_best(keep: KeepBest, folder: Path, state: object) -> KeepBest:
    """One that goes on where the best checkpoint says so of itself."""
    folder.mkdir(exist_ok=True)
    content = content_of_a_run({"recipe": {"epochs": 1}}, 3, **{keep.state_key: state})
    torch.save(content, folder / "best.ckpt")
    keep.on_train_start()
    return keep


def test_a_better_score_replaces_the_file_after_the_folder_was_moved(tmp_path: Path) -> None:
    first = kept(tmp_path / "run")
    assert len(scored(first, [0.0, 0.2, 0.1, float("nan")])) == 2
    moved = with_best(kept(tmp_path / "moved"), tmp_path / "moved", first.state_dict())
    assert scored(moved, [0.1, 0.3, 0.3]) == [tmp_path / "moved/best.ckpt"]


def test_scores_of_other_samples_are_not_compared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = kept(tmp_path)
    scored(first, [0.9])
    other = with_best(kept(tmp_path, "others"), tmp_path, first.state_dict())
    told = "other samples are scored than before: the best checkpoint begins anew"
    assert caplog.text.count(told) == 1
    assert len(scored(other, [0.5, 0.4])) == 1
    # as a version wrote it that did not tell
    assert scored(with_best(kept(tmp_path), tmp_path, {"best": 0.9}), [0.5]) == []


@pytest.mark.parametrize(
    "state",
    [None, [1, 2], {}, {"best": "a"}, {"best": float("nan")}, {"best": 10**400}, {"best": 7.0}],
    ids=["none", "list", "empty", "word", "nan", "huge", "seven"],
)
def test_a_checkpoint_that_tells_no_score_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, state: object
) -> None:
    keep = with_best(kept(tmp_path), tmp_path, state)
    assert "best.ckpt is damaged: the next epoch that is scored replaces it" in caplog.text
    assert len(scored(keep, [0.1])) == 1


def train(
    root: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    scores: dict[int, float] | None,
    epochs: int = 2,
) -> None:
    """Train a teacher that scores so at these steps, or is not scored."""
    stage, data, collate = made("teacher", root, replace(RECIPE, epochs=epochs))
    validation = None if scores is None else data
    stage.tables = data.tables
    inner = KeepBest.on_validation_end

    def given(keep: KeepBest, trainer: Trainer, module: LightningModule) -> None:
        assert scores is not None
        trainer.callback_metrics["val/mAP"].fill_(scores[trainer.global_step])
        inner(keep, trainer, module)

    with monkeypatch.context() as patched:
        patched.setattr(KeepBest, "on_validation_end", given)
        fit(
            stage,
            data,
            collate,
            out,
            {"stage": "teacher"},
            Machine("32-true", workers=0),
            validation,
        )


class Killed(Exception):
    """Ends a run as nothing does that asks it to."""


def test_a_worse_epoch_does_not_replace_the_best_of_a_killed_run(
    synthetic_dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = tmp_path / "checkpoints/best.ckpt"

    def killed(path: Path, data: memoryview) -> None:
        if best.exists():
            raise Killed  # between the best checkpoint and the last
        write_whole(path, data)

    monkeypatch.setattr(checkpointing, "write_whole", killed)
    with pytest.raises(Killed):
        train(synthetic_dataroot, tmp_path, monkeypatch, {3: 0.5})
    assert read_run(best)["global_step"] == 3
    monkeypatch.setattr(checkpointing, "write_whole", write_whole)
    train(synthetic_dataroot, tmp_path, monkeypatch, {6: 0.4})
    assert steps(tmp_path) == 6
    assert read_run(best)["global_step"] == 3


def test_a_slow_disk_is_waited_for_by_the_best_checkpoint(
    synthetic_dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(path: Path, data: memoryview) -> None:
        if path.name == "best.ckpt":
            signal.raise_signal(signal.SIGTERM)
            time.sleep(1.5)
        write_whole(path, data)

    monkeypatch.setattr(signals, "ONE_STOP_S", 0.0)
    monkeypatch.setattr(interrupts, "GRACE_S", 1.0)
    monkeypatch.setattr(checkpointing, "write_whole", slowly)
    with pytest.raises(StoppedError, match="stopped at step 3, repeat the command to go on"):
        train(synthetic_dataroot, tmp_path, monkeypatch, {3: 0.5})
    assert read_run(tmp_path / "checkpoints/best.ckpt")["global_step"] == 3


def test_the_best_takes_the_place_of_a_lost_last(
    synthetic_dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last, best = (tmp_path / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    train(synthetic_dataroot, tmp_path, monkeypatch, {3: 0.9, 6: 0.5})
    last.unlink()
    with pytest.raises(CheckpointError, match=r"last checkpoint is gone: copy it to last\.ckpt"):
        train(synthetic_dataroot, tmp_path, monkeypatch, {})
    shutil.copy(best, last)
    train(synthetic_dataroot, tmp_path, monkeypatch, {6: 0.6})
    assert steps(tmp_path) == 6
    assert read_run(best)["global_step"] == 3  # the better one
    # one that is gone is made again by the next epoch that is scored
    best.rename(last)
    train(synthetic_dataroot, tmp_path, monkeypatch, {6: 0.6})
    assert read_run(best)["global_step"] == 6


def test_the_best_stays_where_the_run_was_not_scored_meanwhile(
    synthetic_dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for epochs, scores in ((1, {3: 0.9}), (2, None), (3, {9: 0.1})):
        train(synthetic_dataroot, tmp_path, monkeypatch, scores, epochs)
    assert steps(tmp_path) == 9
    assert read_run(tmp_path / "checkpoints/best.ckpt")["global_step"] == 3


def test_a_damaged_best_checkpoint_ends_no_run(
    synthetic_dataroot: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    best = tmp_path / "checkpoints/best.ckpt"
    with pytest.raises(KeyError, match="3"):
        train(synthetic_dataroot, tmp_path, monkeypatch, {})
    best.write_bytes(b"damaged")
    train(synthetic_dataroot, tmp_path, monkeypatch, {6: 0.6})
    assert "best.ckpt is damaged: the next epoch that is scored replaces it" in caplog.text
    assert read_run(best)["global_step"] == 6
