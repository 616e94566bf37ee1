# SPDX-License-Identifier: Apache-2.0
"""Networks of the published code, written as checkpoints of this project."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

import tyro

from labeldistill_core.checkpoints import load_weights, save_network, save_student
from labeldistill_core.distillation.label_encoder import LabelEncoder
from labeldistill_core.errors import CheckpointError
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

_LOG = logging.getLogger(__name__)

PresetName = Literal[
    "auto", "r50_256x704_4key", "r50_256x704_2key", "r101_512x1408_2key", "convnext_b"
]


def convert_checkpoint(
    source: Annotated[Path, tyro.conf.Positional],
    target: Annotated[Path, tyro.conf.Positional],
    part: Literal["student", "teacher", "label-encoder"] = "student",
    preset: PresetName = "auto",
) -> None:
    """Read a network of the published code and write it as a safetensors checkpoint.

    Args:
        source: `.pth`, `.ckpt` or `.safetensors` file with the published parameter names; for the
            teacher also a CenterPoint of mmdetection3d.
        target: `.safetensors` file to write.
        part: which of the networks in the file.
        preset: network that the weights belong to; auto tries all of them.
    """
    weights, note = read_state_dict(source), f"converted from {source.name}"
    # all published students were trained with the same two teachers
    published = r50_256x704_4key().as_published()
    if part == "teacher":
        config = published.teacher
        teacher = Teacher(config)
        load_weights(teacher, rename_teacher(weights), str(source))
        save_network(target, "teacher", teacher, config, note)
        return
    if part == "label-encoder":
        encoder_config = published.label_encoder
        encoder = LabelEncoder(encoder_config)
        tensors = rename_part(weights, "label_encoder.", LABEL_ENCODER_RENAMES)
        load_weights(encoder, tensors, str(source))
        save_network(target, "label encoder", encoder, encoder_config, note)
        return
    tensors, refusals = rename_student(weights), []
    for name in PRESETS if preset == "auto" else [preset]:
        student = Student(PRESETS[name].as_published().student)
        try:
            load_weights(student, tensors, str(source))
        except CheckpointError as error:
            refusals.append(f"{name}: {error}")
            continue
        save_student(target, student, note=note)
        _LOG.info("%s: %s with %d tensors", target, name, len(tensors))
        return
    raise CheckpointError("\n".join(refusals))
