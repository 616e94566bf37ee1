# SPDX-License-Identifier: Apache-2.0
"""Commands that train, one a stage."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from lightning.pytorch import seed_everything

from labeldistill_core.checkpoints import (
    file_sha256,
    load_student,
    load_weights,
    save_network,
)
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.samples import (
    LidarDataset,
    LidarSample,
    SampleConfig,
    StudentDataset,
    StudentSample,
    official_samples,
)
from labeldistill_core.data.splits import split_scenes
from labeldistill_core.distillation.config import (
    DistillationConfig,
    TeacherNorm,
    official_distillation,
    official_label_encoder,
)
from labeldistill_core.distillation.distiller import Distiller
from labeldistill_core.distillation.label_encoder import load_label_encoder
from labeldistill_core.errors import ConfigError
from labeldistill_core.lidar.points import Points
from labeldistill_core.lidar.teacher import Teacher, load_teacher
from labeldistill_core.lidar.teacher_cache import RecallingTeacher
from labeldistill_core.presets import (
    label_encoder_preset,
    official,
    official_teacher,
    preset_config,
    teacher_preset,
)
from labeldistill_core.training.export import export
from labeldistill_core.training.label_encoder import Aim, LabelEncoderStage
from labeldistill_core.training.pretrained import load_pretrained
from labeldistill_core.training.recipe import Recipe, published_recipe, recipe_of
from labeldistill_core.training.run import Machine, fit
from labeldistill_core.training.stage import Stage
from labeldistill_core.training.student import StudentStage
from labeldistill_core.training.teacher import TeacherStage

_LOG = logging.getLogger(__name__)
Split = Literal["train", "val", "all"]


@dataclass(frozen=True)
class Options:
    """What all stages can be told."""

    version: str = "v1.0-trainval"
    """Folder of the tables."""
    preset: str = "demo"
    """Name of the configuration."""
    published: bool = False
    """Reproduce the published code where it differs from the paper: networks, samples, losses and
    recipes."""
    split: Split = "train"
    """Scenes to train on."""
    scenes: int = 0
    """Only the first so many of them; all when 0."""
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

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.scenes < 0:
            raise ConfigError("--scenes must be 0 or more")

    def recipe(self, stage: str) -> Recipe:
        """The preset's recipe, with what was given in its place."""
        names = ("epochs", "batch_size", "accumulate", "learning_rate", "class_balanced")
        given: dict[str, Any] = {n: getattr(self, n) for n in names if getattr(self, n) is not None}
        named = published_recipe if self.published else recipe_of
        return replace(named(stage, self.preset), seed=self.seed, **given)

    def scene_names(self, tables: NuScenesTables) -> tuple[list[str], list[str]]:
        """Those of the scenes to train on, and of those to score."""
        scored = [] if self.validate == "none" else split_scenes(tables, self.validate)
        return split_scenes(tables, self.split)[: self.scenes or None], scored

    def note(self, recipe: Recipe, samples: int) -> str:
        """What a checkpoint says of its origin."""
        return (
            f"preset {self.preset}, {recipe.epochs} epochs on {samples} samples, seed {recipe.seed}"
        )

    def identity(
        self, stage: str, data: LidarDataset | StudentDataset, **parts: Any
    ) -> Mapping[str, Any]:
        """What a run must have in common with the one that it takes up."""
        return {
            "stage": stage,
            "preset": self.preset,
            "published": self.published,
            "samples": len(data.tokens),
            "samples_sha256": hashlib.sha256(" ".join(data.tokens).encode()).hexdigest(),
            **parts,
        }


def train_teacher(
    dataroot: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    init: Path | None = None,
    options: Annotated[Options, tyro.conf.arg(name="")] = Options(),  # noqa: B008
) -> None:
    """Train the LiDAR teacher, the first stage.

    A run that was cut off goes on from its last checkpoint when the call is repeated.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        out: folder for checkpoints, logs and the teacher.
        init: teacher checkpoint to start from, of the same network.
        options: of all stages.
    """
    recipe = options.recipe("teacher")
    config = teacher_preset(options.preset)
    config = official_teacher(config) if options.published else config
    seed_everything(recipe.seed, workers=True, verbose=False)
    stage = TeacherStage(config, recipe)
    if init:
        load_weights(stage.network, load_teacher(init).state_dict(), str(init))
    data, scored = _lidar_data(stage, options, dataroot, recipe, Points(config.sweeps))
    identity = options.identity(
        "teacher",
        data,
        config=asdict(config),
        init=file_sha256(init) if init else None,
    )
    if fit(
        stage, data, LidarSample.collate, out, identity, options.machine, scored,
        options.validate_every,
    ):  # fmt: skip
        note = options.note(recipe, len(data))
        note += f", from the teacher {identity['init']}" if init else ""
        save_network(out / "teacher.safetensors", "teacher", stage.network, config, note)
        print(f"{out / 'teacher.safetensors'}: {note}")


def train_label_encoder(
    dataroot: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    teacher: Path,
    aim: Aim = "inverse-head",
    options: Annotated[Options, tyro.conf.arg(name="")] = Options(),  # noqa: B008
) -> None:
    """Train the label encoder through the teacher's frozen neck and head, the second stage.

    A run that was cut off goes on from its last checkpoint when the call is repeated.

    Args:
        dataroot: nuScenes data root, real or synthetic; only its boxes are read.
        out: folder for checkpoints, logs and the label encoder.
        teacher: checkpoint of the LiDAR detector.
        aim: the inverse of the teacher's head, or an autoencoder with a head of its own.
        options: of all stages.
    """
    recipe = options.recipe("label-encoder")
    config = label_encoder_preset(options.preset)
    config = official_label_encoder(config) if options.published else config
    seed_everything(recipe.seed, workers=True, verbose=False)
    norm: TeacherNorm = "batch" if options.published else "running"
    stage = LabelEncoderStage(config, recipe, load_teacher(teacher), aim, norm)
    data, scored = _lidar_data(stage, options, dataroot, recipe)
    identity = options.identity(
        "label encoder",
        data,
        config=asdict(config),
        aim=aim,
        teacher=file_sha256(teacher),
    )
    if fit(
        stage, data, LidarSample.collate, out, identity, options.machine, scored,
        options.validate_every,
    ):  # fmt: skip
        file = out / "label_encoder.safetensors"
        note = f"{options.note(recipe, len(data))}, {aim}"
        save_network(file, "label encoder", stage.network, config, note)
        print(f"{file}: {note}")


def _lidar_data(
    stage: Stage,
    options: Options,
    dataroot: Path,
    recipe: Recipe,
    points: Points | None = None,
) -> tuple[LidarDataset, LidarDataset | None]:
    """Samples to train on and samples to score, without images."""
    tables = stage.tables = NuScenesTables(dataroot, options.version)
    cameras = preset_config(options.preset).cameras
    trained, scored = (
        LidarDataset(tables, names, cameras, recipe.augmentation, points)
        for names in options.scene_names(tables)
    )
    if points:
        points.warn_where_alone(tables, trained.tokens)
    return trained, scored if len(scored) else None


def train_student(
    dataroot: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    teacher: Path | None = None,
    label_encoder: Path | None = None,
    distillation: DistillationConfig = DistillationConfig(),  # noqa: B008
    sample: SampleConfig = SampleConfig(),  # noqa: B008
    init: Path | None = None,
    pretrained: Path | None = None,
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
        sample: how samples are made.
        init: student checkpoint to start from, of the same configuration.
        pretrained: torchvision's ImageNet weights of the image encoder's backbone, `.pth` or
            `.safetensors`; the published results start from them.
        options: of all stages.
    """
    recipe = options.recipe("student")
    config = preset_config(options.preset)
    if options.published:
        config, distillation = official(config), official_distillation(distillation)
        sample = official_samples(sample)
    seed_everything(recipe.seed, workers=True, verbose=False)
    distiller = points = None
    if teacher or label_encoder:
        if teacher is None:
            distillation = replace(distillation, lidar_weight=0.0, response_weight=0.0)
        if label_encoder is None:
            distillation = replace(distillation, label_weight=0.0)
        lidar = None
        if teacher:
            lidar = _student_teacher(teacher, recipe, distillation, options.machine)
        labels = load_label_encoder(label_encoder) if label_encoder else None
        distiller = Distiller(distillation, config, lidar, labels)
        points = Points(lidar.config.sweeps) if lidar else None
    stage = StudentStage(config, recipe, distiller, sample)
    if pretrained:
        load_pretrained(stage.network.image_encoder, pretrained)
    if init:
        load_weights(stage.network, load_student(init).student.state_dict(), str(init))
    elif config.image_encoder.frozen_stem and not pretrained:
        _LOG.warning(
            "preset %s keeps the first convolution as pretrained, but it is random: give "
            "--pretrained FILE with torchvision's ImageNet weights",
            options.preset,
        )
    tables = stage.tables = NuScenesTables(dataroot, options.version)
    data, scored = (
        StudentDataset(tables, names, config, recipe.augmentation, points, sample=sample)
        if names
        else None
        for names in options.scene_names(tables)
    )
    assert data is not None
    if points:
        points.warn_where_alone(tables, data.tokens)
    identity = options.identity(
        "student",
        data,
        config=asdict(config),
        distillation=asdict(distillation) if distiller else None,
        sample=asdict(sample),
        **{
            name: file_sha256(path) if path else None
            for name, path in (
                ("teacher", teacher),
                ("label_encoder", label_encoder),
                ("init", init),
                ("pretrained", pretrained),
            )
        },
    )
    if fit(
        stage, data, StudentSample.collate, out, identity, options.machine, scored,
        options.validate_every,
    ):  # fmt: skip
        export(out, out / "student.safetensors")


def _student_teacher(
    file: Path, recipe: Recipe, distillation: DistillationConfig, machine: Machine
) -> Teacher | RecallingTeacher:
    """The teacher; one that remembers where each sample looks the same in every epoch."""
    if recipe.augmentation.keeps_world and distillation.teacher_norm == "running":
        return _recalling_teacher(file, file_sha256(file), int(machine.recall_gib * 2**30))
    return load_teacher(file)


@lru_cache(maxsize=1)
def _recalling_teacher(file: Path, _: str, memory_bytes: int) -> RecallingTeacher:
    """Several runs in one process share it."""
    return RecallingTeacher(load_teacher(file), memory_bytes)
