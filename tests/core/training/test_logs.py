# SPDX-License-Identifier: Apache-2.0
"""What a run writes down: lines where there is no terminal, curves and pictures for tools."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from labeldistill_core.errors import ConfigError
from labeldistill_core.training.logs import Bar, JsonLines, Lines, LogFirst, progress
from labeldistill_core.training.trackers import log_picture, make_logger


def trainer(step: int) -> Any:
    return SimpleNamespace(
        global_step=step,
        estimated_stepping_batches=100.0,
        current_epoch=0,
        max_epochs=2,
        is_last_batch=False,
        is_global_zero=True,
        callback_metrics={"train/loss": torch.tensor(1.5), "val/mAP": 0.25, "val/NDS": 0.5},
    )


def test_what_is_unknown_is_null(tmp_path: Path) -> None:
    scores = {"val/NDS": 0.5, "val/mAAE": float("nan"), "val/mAP": float("inf")}
    JsonLines(tmp_path / "scalars.jsonl").log_metrics(scores, step=3)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    line = json.loads((tmp_path / "scalars.jsonl").read_text(), parse_constant=refuse)
    assert line == {"step": 3, "val/NDS": 0.5, "val/mAAE": None, "val/mAP": None}


def test_a_bar_is_for_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True))
    assert isinstance(progress(), Bar)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: False))
    assert isinstance(progress(), Lines)


def test_lines_come_every_half_minute_and_say_how_long_it_takes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    lines: Any = Lines()
    caplog.set_level(logging.INFO)
    lines.on_train_start(trainer(20), None)
    for step in range(21, 61):  # a step a second
        now += 1.0
        lines.on_train_batch_end(trainer(step))
    lines.on_validation_end(trainer(60), None)
    assert caplog.messages == [
        "step 50 of 100, epoch 1 of 2, loss 1.5, about 50 s left",
        "scored: mAP 0.2500, NDS 0.5000",
    ]


def test_the_first_step_is_logged_and_then_every_tenth() -> None:
    run = trainer(0)
    LogFirst().on_train_batch_start(run)
    assert run.log_every_n_steps == 1
    run.global_step = 1
    LogFirst().on_train_batch_start(run)
    assert run.log_every_n_steps == 10


def test_a_tool_that_is_not_installed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("wandb")

    monkeypatch.setattr("labeldistill_core.training.trackers.WandbLogger", absent)
    with pytest.raises(ConfigError, match="--logger wandb: it is not installed; pip install wandb"):
        make_logger("wandb", tmp_path)


def test_tensorboard_gets_configuration_and_pictures(tmp_path: Path) -> None:
    board = make_logger("tensorboard", tmp_path / "run")
    assert isinstance(board, TensorBoardLogger)
    board.log_hyperparams({"recipe": {"epochs": 3}})
    picture = Image.new("RGB", (30, 20), (200, 0, 0))
    others = [make_logger("none", tmp_path), CSVLogger(tmp_path / "csv")]
    log_picture([board, *others], "val/detections", picture, 7)
    board.save()
    board.finalize("success")
    events = EventAccumulator(str(tmp_path / "run" / "log"))
    (shown,) = events.Reload().Images("val/detections")
    assert (shown.step, shown.width, shown.height) == (7, 30, 20)
    assert "epochs: 3" in (tmp_path / "run" / "log" / "hparams.yaml").read_text()
