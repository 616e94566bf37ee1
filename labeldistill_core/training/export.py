# SPDX-License-Identifier: Apache-2.0
"""What the vehicle gets of a training run: the student alone, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from labeldistill_core.checkpoints import file_sha256, save_student
from labeldistill_core.config import StudentConfig
from labeldistill_core.config_json import from_mapping
from labeldistill_core.errors import CheckpointError, ConfigError
from labeldistill_core.names import shown
from labeldistill_core.network.student import Student
from labeldistill_core.weights import load_weights

IDENTITY = "labeldistill.identity"
"""Key under which a run's checkpoint says what made the run."""
_NETWORK = "network."


@dataclass(frozen=True)
class Written:
    """A network's file."""

    file: Path
    """Path of the file that was written."""
    note: str
    """What its network was trained on."""

    def __str__(self) -> str:
        """File, note and the file's hash, which a vehicle can be told to insist on."""
        return f"{self.file}: {self.note}, sha256 {file_sha256(self.file)}"


@dataclass(frozen=True)
class ExportOptions:
    """How the student of a run is written."""

    which: Literal["last", "best"] = "last"
    """Checkpoint of the run to take: the last one, or the best, which is there when the run was
    scored."""
    dtype: Literal["float16", "float32"] = "float16"
    """Number format in which the weights are stored."""


def export(run: Path, out: Path, options: ExportOptions = ExportOptions()) -> Written:  # noqa: B008
    """Write the student of a run, without teachers and optimizer, as the node loads it.

    Args:
        run: folder of `labeldistill train student`, or one of its checkpoints.
        out: file to write, `*.safetensors`.
        options: which of its networks, and how.

    Raises:
        CheckpointError: there is no such checkpoint, or it is not a student's.
    """
    file = run if run.is_file() else _checkpoint(run, options.which)
    content = read_run(file)
    # What made the run goes into the student's file, which then says by itself where it comes from.
    record = {**content[IDENTITY], "steps": content["global_step"]}
    if record.get("stage") != "student":
        raise CheckpointError(f"{file} is a checkpoint of a {record.get('stage')}, not a student")
    try:
        student = Student(from_mapping(StudentConfig, record.pop("config")))
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from error
    weights = {
        name.removeprefix(_NETWORK): tensor
        for name, tensor in content["state_dict"].items()
        # Adaptors and optimizer stay behind: the vehicle needs neither.
        if name.startswith(_NETWORK)
    }
    load_weights(student, weights, str(file))
    teachers = [
        name for name, key in (("LiDAR", "teacher"), ("label", "label_encoder")) if record.get(key)
    ]
    note = (
        f"preset {record['preset']}, {record['steps']} steps on {record['samples']} samples, "
        f"seed {record['recipe']['seed']}, {' and '.join(teachers) or 'no'} teacher"
    )
    save_student(out, student, note, getattr(torch, options.dtype), record)
    return Written(out, note)


def read_run(file: Path) -> Mapping[str, Any]:
    """Content of a run's checkpoint.

    Raises:
        CheckpointError: the file is damaged or not of this project.
    """
    try:
        # Tensors and plain values alone, since a pickle could run any program; mapped, since the
        # optimizer's part of the file, the larger one, is not read.
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # damaged bytes lead torch's unpickler to errors of any kind
        raise _damaged(file, str(error)) from error
    if not isinstance(content, dict):
        raise _damaged(file, f"it holds a {type(content).__name__}")
    for key in (IDENTITY, "global_step", "state_dict"):
        if key not in content:
            raise _damaged(file, f"it has no {key}")
    return content


def _damaged(file: Path, why: str) -> CheckpointError:
    what = shown(" ".join(why.split()))
    return CheckpointError(
        f"{file} is damaged or not of this project ({what}): remove it to start anew"
    )


def _checkpoint(run: Path, which: str) -> Path:
    file = run / "checkpoints" / f"{which}.ckpt"
    if not file.is_file():
        raise CheckpointError(
            f"{run} holds no checkpoint `{which}`: give the folder of `labeldistill train student`"
            + (" --validate val" if which == "best" else "")
        )
    return file
