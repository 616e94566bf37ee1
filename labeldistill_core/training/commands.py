# SPDX-License-Identifier: Apache-2.0
"""Commands that train, one a stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from lightning.pytorch import seed_everything

from labeldistill_core.checkpoints import load_student, load_weights, save_student
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.samples import StudentDataset, StudentSample
from labeldistill_core.data.splits import split_scenes
from labeldistill_core.distillation.config import DistillationConfig, official_distillation
from labeldistill_core.distillation.distiller import Distiller
from labeldistill_core.presets import official, preset_config
from labeldistill_core.training.recipe import Recipe, recipe_of
from labeldistill_core.training.run import Machine, fit
from labeldistill_core.training.student import StudentStage

Split = Literal["train", "val", "all"]


@dataclass(frozen=True)
class Options:
    """What all stages can be told."""

    version: str = "v1.0-trainval"
    """Folder of the tables."""
    preset: str = "demo"
    """Name of the configuration."""
    published: bool = False
    """Reproduce the published code where it differs from the paper."""
    split: Split = "train"
    """Scenes to train on."""
    validate: Literal["val", "none"] = "none"
    """Scenes to score with the official metrics while training."""
    validate_every: int = 1
    """Epochs between scorings."""
    epochs: int | None = None
    """Passes over the data; the recipe's when not given."""
    batch_size: int | None = None
    """Samples a step and device; the recipe's when not given."""
    accumulate: int | None = None
    """Batches a step of the optimizer; the recipe's when not given."""
    learning_rate: float | None = None
    """For the recipe's reference batch; the recipe's when not given."""
    class_balanced: bool | None = None
    """Draw samples so that classes are equally frequent; the recipe's when not given."""
    seed: int = 0
    """Of weights, order and augmentation."""
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)
    """Where it runs."""

    def recipe(self, stage: str) -> Recipe:
        """The preset's recipe, with what was given in its place."""
        names = ("epochs", "batch_size", "accumulate", "learning_rate", "class_balanced")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace(recipe_of(stage, self.preset), seed=self.seed, **given)

    def scenes(self, tables: NuScenesTables) -> tuple[list[str], list[str]]:
        """Names of the scenes to train on, and of those to score."""
        scored = [] if self.validate == "none" else split_scenes(tables, self.validate)
        return split_scenes(tables, self.split), scored

    def identity(self, stage: str, **parts: Any) -> Mapping[str, Any]:
        """What a run must have in common with the one that it takes up."""
        return {"stage": stage, "preset": self.preset, "published": self.published, **parts}


def train_student(
    dataroot: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    teacher: Path | None = None,
    label_encoder: Path | None = None,
    distillation: DistillationConfig = DistillationConfig(),  # noqa: B008
    init: Path | None = None,
    options: Annotated[Options, tyro.conf.arg(name="")] = Options(),  # noqa: B008
) -> None:
    """Train a student with the detection and depth losses, and with the teachers that are given.

    A run that was cut off goes on from its last checkpoint when the call is repeated.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        out: folder for checkpoints, logs and the student.
        teacher: checkpoint of the LiDAR detector; without it, no LiDAR losses.
        label_encoder: checkpoint of the label encoder; without it, no label loss.
        distillation: which teacher shapes what.
        init: student checkpoint to start from, of the same configuration.
        options: of all stages.
    """
    recipe = options.recipe("student")
    config = preset_config(options.preset)
    if options.published:
        config, distillation = official(config), official_distillation(distillation)
    seed_everything(recipe.seed, workers=True, verbose=False)
    distiller = None
    if teacher or label_encoder:
        from labeldistill_core.distillation.label_encoder import load_label_encoder
        from labeldistill_core.lidar.teacher import load_teacher

        if teacher is None:
            distillation = replace(distillation, lidar_weight=0.0, response_weight=0.0)
        if label_encoder is None:
            distillation = replace(distillation, label_weight=0.0)
        distiller = Distiller(
            distillation,
            config,
            load_teacher(teacher) if teacher else None,
            load_label_encoder(label_encoder) if label_encoder else None,
        )
    stage = StudentStage(config, recipe, distiller)
    if init:
        load_weights(stage.network, load_student(init).student.state_dict(), str(init))
    tables = stage.tables = NuScenesTables(dataroot, options.version)
    data, scored = (
        StudentDataset(tables, names, config, recipe.augmentation) if names else None
        for names in options.scenes(tables)
    )
    assert data is not None
    identity = options.identity(
        "student",
        config=asdict(config),
        distillation=asdict(distillation) if distiller else None,
        teachers=[str(path) for path in (teacher, label_encoder, init)],
        samples=len(data),
    )
    if fit(
        stage, data, StudentSample.collate, out, identity, options.machine, scored,
        options.validate_every,
    ):  # fmt: skip
        file = out / "student.safetensors"
        teachers = [name for name, path in (("LiDAR", teacher), ("label", label_encoder)) if path]
        note = (
            f"preset {options.preset}, {recipe.epochs} epochs on {len(data)} samples, "
            f"seed {recipe.seed}, {' and '.join(teachers) or 'no'} distillation"
        )
        save_student(file, stage.network, note, torch.float16)
        print(f"{file}: {note}")
