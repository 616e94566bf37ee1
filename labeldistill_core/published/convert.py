# SPDX-License-Identifier: Apache-2.0
"""Networks of the published code, written as checkpoints of this project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from labeldistill_core.checkpoints import refuse_other_file, save_network, save_student
from labeldistill_core.distillation.label_encoder import LabelEncoder
from labeldistill_core.errors import CheckpointError, ConfigError
from labeldistill_core.lidar.teacher import Teacher
from labeldistill_core.network.student import Student
from labeldistill_core.presets import PRESETS, r50_256x704_4key
from labeldistill_core.published.weights import (
    LABEL_ENCODER_RENAMES,
    read_state_dict,
    rename_part,
    rename_student,
    rename_teacher,
)
from labeldistill_core.weights import load_weights

PresetName = Literal[
    "auto", "r50_256x704_4key", "r50_256x704_2key", "r101_512x1408_2key", "convnext_b"
]


@dataclass(frozen=True)
class CheckpointOptions:
    """Which network of a published file is converted."""

    part: Literal["student", "teacher", "label-encoder"] = "student"
    """Network to take from the file."""
    preset: PresetName = "auto"
    """Preset that a student's weights belong to; auto tries all of them."""


@dataclass(frozen=True)
class Converted:
    """A network that was converted."""

    file: Path
    """Checkpoint that was written."""
    network: str
    """The part of the published file, and for a student the preset that its weights fit."""
    tensors: int
    """Number of tensors in the checkpoint."""

    def __str__(self) -> str:
        """For people, in one line."""
        return f"{self.file}: {self.network} with {self.tensors} tensors"


def convert_checkpoint(
    source: Path,
    target: Path,
    options: CheckpointOptions = CheckpointOptions(),  # noqa: B008 - frozen
) -> Converted:
    """Read a network of the published code and write it as a safetensors checkpoint.

    Args:
        source: `.pth`, `.ckpt` or `.safetensors` file with the published parameter names; for the
            teacher also a CenterPoint of mmdetection3d.
        target: `.safetensors` file to write.
        options: which of the networks in the file.

    Raises:
        CheckpointError: the file is damaged, unsafe to read, or its weights fit no preset; or what
            is to be written over is no network.
        ConfigError: it would be written over itself.
    """
    if target.exists() and source.exists() and target.samefile(source):
        raise ConfigError(f"{source} would be written over: name another file to write")
    refuse_other_file(target)
    weights, note = read_state_dict(source), f"converted from {source.name}"
    # all published students were trained with the same two teachers
    published = r50_256x704_4key().as_published()
    if options.part == "teacher":
        teacher, tensors = Teacher(published.teacher), rename_teacher(weights)
        load_weights(teacher, tensors, str(source))
        save_network(target, "teacher", teacher, published.teacher, note)
        return Converted(target, "teacher", len(tensors))
    if options.part == "label-encoder":
        encoder = LabelEncoder(published.label_encoder)
        tensors = rename_part(weights, "label_encoder.", LABEL_ENCODER_RENAMES)
        load_weights(encoder, tensors, str(source))
        save_network(target, "label encoder", encoder, published.label_encoder, note)
        return Converted(target, "label encoder", len(tensors))
    tensors, refusals = rename_student(weights), []
    for name in PRESETS if options.preset == "auto" else [options.preset]:
        student = Student(PRESETS[name].as_published().student)
        try:
            # Names and shapes must agree wholly, so the first preset that takes the weights is
            # theirs.
            load_weights(student, tensors, str(source))
        except CheckpointError as error:
            refusals.append(f"{name}: {error}")
            continue
        save_student(target, student, note=note)
        return Converted(target, f"student {name}", len(tensors))
    raise CheckpointError("; ".join(refusals))
