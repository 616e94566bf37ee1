# SPDX-License-Identifier: Apache-2.0
"""What the vehicle gets of a training run: the student alone, in one file."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from labeldistill_core.checkpoints import load_student, load_weights, save_student
from labeldistill_core.config import StudentConfig, from_mapping
from labeldistill_core.errors import CheckpointError, ConfigError
from labeldistill_core.network.student import Student

IDENTITY = "labeldistill.identity"
"""Key under which a run's checkpoint says what made the run."""
_NETWORK = "network."


def export(
    run: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    which: Literal["last", "best"] = "last",
    dtype: Literal["float16", "float32"] = "float16",
) -> None:
    """Write the student of a run, without teachers and optimizer, as the node loads it.

    The file holds averaged weights and their hash, the configuration with the class names, and the
    record of the training. A run that is still going on can be exported, too.

    Args:
        run: folder of `labeldistill train student`, or one of its checkpoints.
        out: file to write, `*.safetensors`.
        which: checkpoint of the folder; `best` is there when the run was scored.
        dtype: in which the weights are stored.

    Raises:
        CheckpointError: there is no such checkpoint, or it is not a student's.
    """
    file = run if run.is_file() else _checkpoint(run, which)
    content = read_run(file)
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
    save_student(out, student, note, getattr(torch, dtype), record)
    print(f"{out}: {note}, sha256 {load_student(out).sha256}")


def read_run(file: Path) -> Mapping[str, Any]:
    """Content of a run's checkpoint.

    Raises:
        CheckpointError: the file is damaged or not of this project.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        content[IDENTITY], content["global_step"], content["state_dict"]
    except (
        OSError,
        RuntimeError,
        EOFError,
        LookupError,
        TypeError,
        pickle.UnpicklingError,
    ) as error:
        raise CheckpointError(
            f"{file} is damaged or not of this project ({error}): remove it to start anew"
        ) from error
    return content  # type: ignore[no-any-return]


def _checkpoint(run: Path, which: str) -> Path:
    found = sorted((run / "checkpoints").glob(f"{which}*.ckpt"))
    if not found:
        raise CheckpointError(
            f"{run} holds no checkpoint `{which}`: give the folder of `labeldistill train student`"
            + (" --validate val" if which == "best" else "")
        )
    return found[-1]
