# SPDX-License-Identifier: Apache-2.0
"""What the stages of training can be told; the fields are options of `labeldistill train`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from typing_extensions import Self

from labeldistill_core.config_files import chosen_preset
from labeldistill_core.console import last_flag, last_value
from labeldistill_core.data.fingerprint import (
    boxes_sha256,
    poses_sha256,
    sensors_sha256,
    sweeps_sha256,
)
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.samples import LidarDataset, SampleConfig, StudentDataset
from labeldistill_core.data.splits import named_scenes, split_scenes
from labeldistill_core.distillation.config import DistillationConfig, LabelEncoderConfig
from labeldistill_core.errors import ConfigError
from labeldistill_core.lidar.config import SweepsConfig, TeacherConfig
from labeldistill_core.options import StudentFields, TablesOptions, take_single_fields
from labeldistill_core.presets import Preset, Recipes
from labeldistill_core.training.fit import Machine
from labeldistill_core.training.label_encoder import Aim


@dataclass(frozen=True)
class Fields(StudentFields):
    """Fields of a configuration that are options, too; `labeldistill config --help` lists them."""

    teacher: TeacherConfig
    """The LiDAR detector."""
    label_encoder: LabelEncoderConfig
    """The network from true boxes to the teacher's features."""
    recipes: Recipes
    """How each of them is trained."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(TablesOptions):
    """What all stages of training can be told."""

    preset: str = "demo"
    """Name of the configuration of networks and recipes."""
    config: Path | None = None
    """Configuration of one's own in the place of a preset, as `labeldistill config` prints it:
    YAML or JSON. Single fields of it, or of the preset, are options as well, such as
    --student.grid.cell-m; `labeldistill config --help` lists them."""
    fields: tyro.conf.Suppress[Fields | None] = None
    """Networks and recipes in the place of the preset's; the preset's when None."""
    single_fields: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Words that gave single fields, for the call of the next stage."""
    published: bool = False
    """Reproduce the published code where it differs from the paper: networks, samples, losses and
    recipes; single fields that are given take the place of its own."""
    split: str = "train"
    """Split whose scenes to train on: train, val, all, or a name in the data root's splits.json."""
    train_scenes: tuple[str, ...] = ()
    """Scenes to train on in the place of a split: names, or a file with a name a line."""
    val_scenes: tuple[str, ...] = ()
    """Scenes to score in the place of the split val: names, or a file with a name a line."""
    scenes: int = 0
    """Train on the first so many of these scenes only; on all when 0."""
    partial: bool = False
    """Train on what is there of a partial data root: samples without images are left out, as are
    those without a LiDAR scan where a teacher needs it; elsewhere they have no depth labels. Of a
    checkpoint to start from (--init), take the weights that fit, and list the others."""
    validate: Literal["val", "none"] = "none"
    """Scenes to score with the official metrics while training."""
    validate_every: int = 1
    """Epochs from one scoring to the next."""
    epochs: int | None = None
    """Passes over the training samples; the recipe's when not given."""
    batch_size: int | None = None
    """Samples a step and device; the recipe's when not given."""
    accumulate: int | None = None
    """Batches whose gradients make one step of the optimizer; the recipe's when not given."""
    learning_rate: float | None = None
    """Highest learning rate, for the recipe's reference batch; the recipe's when not given."""
    class_balanced: bool | None = None
    """Draw samples so that classes are equally frequent; the recipe's when not given."""
    seed: int | None = None
    """Another one draws other weights, another order and other augmentations; the recipe's when not
    given."""
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)
    """Which devices train, and how."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.scenes < 0:
            raise ConfigError("--scenes must be 0 or more")
        if self.validate_every < 1:
            raise ConfigError("--validate-every must be 1 or more")

    @classmethod
    def prepared(cls, args: Sequence[str]) -> tuple[Self, list[str]]:
        """Defaults of the command line: those of the preset or the configuration that it names.

        Returns:
            The defaults, with the single fields that are given, and the other arguments.
        """
        config = last_value(args, "--config")
        preset = chosen_preset(
            last_value(args, "--preset") or cls.preset, Path(config) if config else None
        )
        if last_flag(args, "--published"):
            preset = preset.as_published()
        defaults = cls._defaults(preset)
        defaults["fields"], rest = take_single_fields(args, defaults["fields"])
        left = iter([*rest, None])
        word, given = next(left), []
        for own in args:
            if own == word:
                word = next(left)
            else:
                given.append(own)
        # Where a value is another argument's as well, nobody knows which is which.
        if not set(given) & set(rest):
            defaults["single_fields"] = tuple(given)
        return cls(**defaults), rest

    @classmethod
    def _defaults(cls, preset: Preset) -> dict[str, Any]:
        """Values of the fields that follow from a preset."""
        own = {f.name: getattr(preset, f.name) for f in fields(Fields)}
        return {"fields": Fields(**own)}

    @classmethod
    def like(cls, other: TrainingOptions, **more: Any) -> Self:
        """The options of a stage that trains as another one does.

        Args:
            other: what all stages are told is taken from it.
            **more: what only this stage is told.
        """
        common = {f.name: getattr(other, f.name) for f in fields(TrainingOptions)}
        return cls(**common, **more)

    def resolved(self, **parts: Any) -> Preset:
        """The preset that is meant: as published where asked for, its recipes as given here.

        Args:
            **parts: fields of `Preset` that take the place of those of the named preset, as
                published or not.

        Raises:
            ConfigError: there is no such preset, or the configuration cannot be used.
        """
        preset = chosen_preset(self.preset, self.config)
        if self.published:
            preset = preset.as_published()
        preset = replace(preset, **parts)
        if self.fields:
            preset = replace(preset, **vars(self.fields))
        # None means "as the recipe has it", so that a preset's own values need no second place.
        names = ("epochs", "batch_size", "accumulate", "learning_rate", "class_balanced", "seed")
        given: dict[str, Any] = {n: getattr(self, n) for n in names if getattr(self, n) is not None}
        return replace(preset, recipes=preset.recipes.with_settings(**given))

    @property
    def preset_name(self) -> str:
        """What the preset, or the configuration in its place, is called."""
        return chosen_preset(self.preset, self.config).name

    def scene_names(self, tables: NuScenesTables) -> tuple[list[str], list[str]]:
        """Those of the scenes to train on, and of those to score."""
        if self.train_scenes:
            trained = named_scenes(tables, self.train_scenes)
        else:
            trained = split_scenes(tables, self.split)
        scored = [] if self.validate == "none" else self.scored_scenes(tables)
        return trained[: self.scenes or None], scored

    def scored_scenes(self, tables: NuScenesTables) -> list[str]:
        """The scenes that tell what a run is worth."""
        if self.val_scenes:
            return named_scenes(tables, self.val_scenes)
        return split_scenes(tables, "val")

    def identity(
        self,
        stage: str,
        data: LidarDataset | StudentDataset,
        sweeps: SweepsConfig | None,
        **parts: Any,
    ) -> Mapping[str, Any]:
        """What a run must have in common with the one that it takes up.

        Args:
            stage: what is trained.
            data: samples to train on.
            sweeps: scans that a LiDAR detector sees of each; None where there is none.
            **parts: what only this stage has.
        """
        scans = (sweeps.past, sweeps.future) if sweeps else (0, 0)
        if stage == "student":
            told = {"sensors_sha256": sensors_sha256(data.tables, data.tokens)}
        else:  # which may be trained before the images are there
            seen = poses_sha256(data.tables, data.tokens, scans=sweeps is not None)
            told = {"poses_sha256": seen}
        return {
            "stage": stage,
            "preset": self.preset_name,
            "published": self.published,
            "samples": len(data.tokens),
            # By their tokens: a root that became whole meanwhile has other samples under the same
            # indices.
            "samples_sha256": hashlib.sha256(" ".join(data.tokens).encode()).hexdigest(),
            # What the tables say of them too, which may be mended, or be another version's.
            "boxes_sha256": boxes_sha256(data.tables, data.tokens),
            **told,
            "sweeps_sha256": sweeps_sha256(data.tables, data.tokens, *scans),
            **parts,
        }


@dataclass(frozen=True, kw_only=True)
class TeacherOptions(TrainingOptions):
    """What the training of the LiDAR teacher can be told."""

    init: Path | None = None
    """Teacher checkpoint to start from; random weights when not given. One of another network needs
    --partial."""


@dataclass(frozen=True, kw_only=True)
class LabelEncoderOptions(TrainingOptions):
    """What the training of the label encoder can be told."""

    teacher: Path
    """Checkpoint of the LiDAR teacher whose head the label encoder is trained through."""
    aim: Aim = "inverse-head"
    """Learn the inverse of the teacher's head, or an autoencoder with a head of its own."""

    @classmethod
    def _defaults(cls, preset: Preset) -> dict[str, Any]:
        return super()._defaults(preset) | {"teacher": tyro.MISSING}


@dataclass(frozen=True, kw_only=True)
class StudentOptions(TrainingOptions):
    """What the training of the student can be told."""

    teacher: Path | None = None
    """Checkpoint of the LiDAR teacher; without it there are no LiDAR losses."""
    label_encoder: Path | None = None
    """Checkpoint of the label encoder; without it there is no label loss."""
    distillation: Annotated[DistillationConfig | None, tyro.conf.AvoidSubcommands] = None
    """Which teacher shapes what in the student; the preset's when None."""
    sample: Annotated[SampleConfig | None, tyro.conf.AvoidSubcommands] = None
    """How training samples are made of the data root; the preset's when None."""
    init: Path | None = None
    """Student checkpoint to start from. One of another configuration needs --partial."""
    pretrained: Path | None = None
    """torchvision's ImageNet weights of the image encoder's backbone, `.pth` or `.safetensors`;
    the published results start from them."""

    @classmethod
    def _defaults(cls, preset: Preset) -> dict[str, Any]:
        own = {"distillation": preset.distillation, "sample": preset.samples}
        return super()._defaults(preset) | own

    def resolved(self, **parts: Any) -> Preset:
        """See `TrainingOptions.resolved`; with distillation and samples as given here."""
        given = {"distillation": self.distillation, "samples": self.sample}
        return super().resolved(**{k: v for k, v in given.items() if v is not None}, **parts)
