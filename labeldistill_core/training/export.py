# SPDX-License-Identifier: Apache-2.0
"""What others get of a training run: its network alone, in one file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import ZipFile

import torch
from torch import Tensor, nn

from labeldistill_core.checkpoints import (
    Kind,
    file_sha256,
    fitting_network,
    kind_of,
    refuse_other_file,
    save_network,
)
from labeldistill_core.config import StudentConfig
from labeldistill_core.config_json import from_mapping
from labeldistill_core.distillation.config import LabelEncoderConfig
from labeldistill_core.distillation.label_encoder import LabelEncoder
from labeldistill_core.errors import CheckpointError, ConfigError
from labeldistill_core.files import open_descriptor
from labeldistill_core.lidar.config import TeacherConfig
from labeldistill_core.lidar.teacher import Teacher
from labeldistill_core.names import plain_text, shown
from labeldistill_core.network.student import Student
from labeldistill_core.weights import load_weights

IDENTITY = "labeldistill.identity"
"""Key under which a run's checkpoint says what made the run."""
_PREFIX = "network."
"""Of the names of its weights, in the checkpoint of a run."""
_TO_GO_ON = {"callbacks": dict, "loops": dict, "optimizer_states": list}
"""What lightning takes up of a checkpoint beside the weights."""
_NETWORKS: Mapping[Kind, tuple[type[Any], Callable[[Any], nn.Module]]] = {
    "teacher": (TeacherConfig, Teacher),
    "label encoder": (LabelEncoderConfig, LabelEncoder),
    "student": (StudentConfig, Student),
}
"""Configuration and network of each stage."""
KINDS: tuple[Kind, ...] = tuple(_NETWORKS)
"""What the stages train."""


@dataclass(frozen=True)
class Written:
    """A network's file."""

    file: Path
    """Path of the file that was written."""
    kind: Kind
    """Of the network."""
    note: str
    """What its network was trained on."""

    def __str__(self) -> str:
        """File, note and the file's hash, which a vehicle can be told to insist on."""
        # What went into a pipe or a device cannot be read again.
        kept = self.file.is_file() and open_descriptor(self.file) is None
        known = f", sha256 {file_sha256(self.file)}" if kept else ""
        return f"{self.file}: {self.note}{known}"


@dataclass(frozen=True)
class ExportOptions:
    """How the network of a run is written."""

    which: Literal["last", "best"] = "last"
    """Checkpoint of the run to take: the last one, or the best, which is there when the run was
    scored."""
    dtype: Literal["float16", "float32"] = "float16"
    """Number format in which the weights are stored."""


def network_file(kind: Kind) -> str:
    """Name of the file in a run's folder that its network goes to."""
    return f"{kind.replace(' ', '_')}.safetensors"


def export(run: Path, out: Path, options: ExportOptions = ExportOptions()) -> Written:  # noqa: B008
    """Write the network of a run, without optimizer, as the node and the next stage load it.

    Args:
        run: folder of `labeldistill train`, or one of its checkpoints.
        out: file to write, `*.safetensors`.
        options: which of its networks, and how.

    Raises:
        CheckpointError: there is no such checkpoint, it is damaged, or what is to be written over
            is no network.
    """
    file = _checkpoint(run, options.which)
    refuse_other_file(out)
    content = read_run(file)
    try:
        # What made the run goes into the network's file, which then says by itself where it comes
        # from.
        record = {**content[IDENTITY], "steps": content["global_step"]}
        kind: Kind = record["stage"]
        config_class, network_class = _NETWORKS[kind]
        config = from_mapping(config_class, record.pop("config"))
        note = _note(kind, record)
        weights = {
            name.removeprefix(_PREFIX): tensor
            for name, tensor in content["state_dict"].items()
            # Adaptors and an autoencoder's head stay behind: nobody needs them any more.
            if name.startswith(_PREFIX)
        }
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from error
    except (AttributeError, LookupError, TypeError) as error:
        raise _damaged(file, f"what it says of its run: {error!r}") from error
    network = fitting_network(config, network_class, weights, str(file))
    load_weights(network, weights, str(file))
    save_network(out, kind, network, config, note, getattr(torch, options.dtype), record)
    return Written(out, kind, note)


def _note(kind: Kind, record: Mapping[str, Any]) -> str:
    """What a network was trained on, and from what."""
    parts = [
        f"preset {record['preset']}",
        f"{record['steps']} steps on {record['samples']} samples",
        f"seed {record['recipe']['seed']}",
    ]
    if kind == "student":
        teachers = (("LiDAR", "teacher"), ("label", "label_encoder"))
        given = [name for name, key in teachers if record.get(key)]
        parts.append(f"{' and '.join(given) or 'no'} teacher")
    if kind == "label encoder":
        parts.append(record["aim"])
    if record.get("init"):
        parts.append(f"from the {kind} {record['init']}")
    return ", ".join(map(plain_text, parts))


def read_run(file: Path, taken_up: bool = False) -> Mapping[str, Any]:
    """Content of a run's checkpoint.

    Args:
        file: the checkpoint.
        taken_up: whether the run is to go on from it, which needs more than its network.

    Raises:
        CheckpointError: the file is damaged or not of this project.
        OSError: it cannot be opened.
    """
    if kind := kind_of(file):
        raise CheckpointError(
            f"{file} is the file of a {plain_text(kind)}, as the next stage loads it, and no "
            "checkpoint of a run: use it as it is, or give the folder of its run"
        )
    try:
        # Torch does not compare the check sums that it writes, and a flipped bit would train and
        # detect worse without a word.
        with ZipFile(file) as archive:
            bad = archive.testzip()
        # Tensors and plain values alone, since a pickle could run any program; mapped, since the
        # optimizer's part of the file, the larger one, is not needed to export.
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # damaged bytes lead torch's unpickler to errors of any kind
        raise _damaged(file, str(error)) from error
    fault = f"{bad} has another check sum" if bad else _fault(content)
    for key, form in _TO_GO_ON.items() if taken_up and not fault else ():
        if not isinstance(content.get(key), form):
            fault = f"it has no {key}"
    if fault:
        raise _damaged(file, fault)
    return dict(content)


def _fault(content: Any) -> str:
    """What the content of a checkpoint has that no run writes, or lacks; empty when nothing."""
    if not isinstance(content, dict):
        return f"it holds a {type(content).__name__}"
    for key in (IDENTITY, "global_step", "state_dict"):
        if key not in content:
            return f"it has no {key}"
    identity, weights, step = content[IDENTITY], content["state_dict"], content["global_step"]
    if type(step) is not int or step < 0:
        return f"its step is {step!r}"
    try:
        same = json.loads(json.dumps(identity)) == identity
        json.dumps(identity, ensure_ascii=False).encode()
    except (RecursionError, TypeError, ValueError):
        same = False
    if not same or not isinstance(identity, dict):
        return "what it says of its run is no JSON object"
    recipe = identity.get("recipe")
    if not isinstance(recipe, dict) or type(recipe.get("epochs")) is not int:
        return "its recipe is none"
    if not isinstance(weights, dict) or not all(map(_is_weight, weights, weights.values())):
        return "its weights are no tensors by name"
    return ""


def _is_weight(name: Any, tensor: Any) -> bool:
    return (
        isinstance(name, str)
        and isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
    )


def _damaged(file: Path, why: str) -> CheckpointError:
    what = shown(" ".join(why.split()))
    best = file.with_name("best.ckpt")
    mend = "remove it to start the run anew"
    if file == best:
        mend = "take the last one"
    elif best.is_file():
        mend = f"copy {best.name} over it to go on from there, or remove both to start anew"
    return CheckpointError(f"{file} is damaged or not of this project ({what}): {mend}")


def _checkpoint(run: Path, which: str) -> Path:
    if run.is_file():
        if which == "best" and run.name != "best.ckpt":
            raise CheckpointError(f"{run} is one checkpoint: `--which best` chooses in a folder")
        return run
    file = run / "checkpoints" / f"{which}.ckpt"
    if file.is_file():
        return file
    if which == "best" and file.with_name("last.ckpt").is_file():
        raise CheckpointError(
            f"{run} has no best checkpoint, as of a run without `--validate val`: take the last one"
        )
    raise CheckpointError(f"{run} holds no run: give the folder of a `labeldistill train ...`")
