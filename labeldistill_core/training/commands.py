# SPDX-License-Identifier: Apache-2.0
"""Commands that train."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from labeldistill_core.checkpoints import load_student, load_weights, save_student
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.samples import StudentDataset, StudentSample
from labeldistill_core.data.splits import split_scenes
from labeldistill_core.errors import ConfigError
from labeldistill_core.presets import preset_config
from labeldistill_core.training.recipe import RECIPES, Recipe
from labeldistill_core.training.student import StudentTraining

_LOG = logging.getLogger(__name__)


def train_student(
    dataroot: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    version: str = "v1.0-trainval",
    preset: str = "demo",
    split: Literal["train", "val", "all"] = "train",
    init: Path | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "bf16-mixed",
    devices: int = 1,
    workers: int = 1,
    seed: int = 0,
) -> None:
    """Train a student with the detection and depth losses.

    A run that was cut off goes on from its last checkpoint when the call is repeated.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        out: folder for checkpoints, logs and the student.
        version: folder of the tables.
        preset: name of the configuration.
        split: scenes to train on.
        init: student checkpoint to start from, of the same configuration.
        epochs: passes over the data; the recipe's when not given.
        batch_size: samples a step and device; the recipe's when not given.
        learning_rate: for the recipe's reference batch; the recipe's when not given.
        precision: of the network.
        devices: GPUs, or processes on a CPU.
        workers: processes that load data, for each device.
        seed: of weights, order and augmentation.
    """
    given = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    recipe = replace(
        RECIPES.get(preset, Recipe()),
        seed=seed,
        **{k: v for k, v in given.items() if v is not None},  # type: ignore[arg-type]
    )
    config = preset_config(preset)
    tables = NuScenesTables(dataroot, version)
    dataset = StudentDataset(tables, split_scenes(tables, split), config, recipe.augmentation)
    if len(dataset) < recipe.batch_size * devices:
        raise ConfigError(
            f"{len(dataset)} samples are fewer than one batch of {recipe.batch_size} x {devices}"
        )
    seed_everything(recipe.seed, workers=True, verbose=False)
    loader = DataLoader(
        dataset,
        recipe.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=StudentSample.collate,
    )
    module = StudentTraining(config, recipe)
    if init:
        load_weights(module.student, load_student(init).student.state_dict(), str(init))
    last = out / "checkpoints" / "last.ckpt"
    trainer = Trainer(
        default_root_dir=out,
        max_epochs=recipe.epochs,
        precision=precision,
        devices=devices,
        gradient_clip_val=recipe.gradient_clip,
        log_every_n_steps=10,
        logger=TensorBoardLogger(out, "", "log"),
        callbacks=[
            EMAWeightAveraging(decay=recipe.ema_decay),
            LearningRateMonitor("step"),
            ModelCheckpoint(last.parent, every_n_train_steps=100, save_last=True, save_top_k=0),
        ],
    )
    if last.exists():
        _LOG.info("going on from %s", last)
    trainer.fit(module, loader, ckpt_path=last if last.exists() else None, weights_only=False)
    if trainer.is_global_zero and trainer.state.status == "finished":
        file = out / "student.safetensors"
        note = f"preset {preset}, {recipe.epochs} epochs on {len(dataset)} samples, seed {seed}"
        save_student(file, module.student, note, torch.float16)
        print(f"{file}: {note}")
