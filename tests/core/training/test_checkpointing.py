# SPDX-License-Identifier: Apache-2.0
"""The best checkpoint is the best one, wherever the folder lies."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lightning.pytorch import LightningModule

from labeldistill_core.training.checkpointing import KeepBest


def scored(keep: KeepBest, scores: list[float]) -> list[Path]:
    """Files that are saved while a run scores so."""
    saved: list[Path] = []
    for score in scores:
        trainer: Any = SimpleNamespace(
            callback_metrics={"val/mAP": score}, save_checkpoint=saved.append
        )
        keep.on_validation_end(trainer, LightningModule())
    return saved


def test_a_better_score_replaces_the_file_after_the_folder_was_moved(tmp_path: Path) -> None:
    first = KeepBest(tmp_path / "run/best.ckpt", "val/mAP")
    assert len(scored(first, [0.0, 0.2, 0.1, float("nan")])) == 2
    moved = KeepBest(tmp_path / "moved/best.ckpt", "val/mAP")
    moved.load_state_dict(first.state_dict())
    assert scored(moved, [0.1, 0.3, 0.3]) == [tmp_path / "moved/best.ckpt"]
