# SPDX-License-Identifier: Apache-2.0
"""`labeldistill train ...`, `overfit` and `ablation`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tyro.conf import Positional

from labeldistill_core.console import Flat, tell_written
from labeldistill_core.exit_codes import MISSED
from labeldistill_core.experiments import ablation as comparison
from labeldistill_core.options import TablesOptions
from labeldistill_core.runtime.allocator import keep_freed_memory
from labeldistill_core.runtime.device import resolve_device
from labeldistill_core.training import overfit as overfitting
from labeldistill_core.training import train
from labeldistill_core.training.export import Written
from labeldistill_core.training.options import (
    LabelEncoderOptions,
    StudentOptions,
    TeacherOptions,
    TrainingOptions,
)


def train_teacher(
    dataroot: Positional[Path], out: Positional[Path], options: Flat[TeacherOptions]
) -> None:
    """Train the LiDAR teacher, the first stage.

    A run that was cut off goes on from its last checkpoint when the call is repeated.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        out: folder for checkpoints, logs and the teacher.
        options: how long and on which device it learns, and from what.
    """
    # A switch of the whole process, which no function of the library sets.
    keep_freed_memory(resolve_device("auto"))
    # Nothing is printed in the other processes of a run, which write no file.
    _tell(
        train.train_teacher(dataroot, out, options),
        lambda file: (
            *("train", "label-encoder", dataroot, _beside(out, "label_encoder")),
            *(*_same_network(options), "--teacher", file),
        ),
    )


def train_label_encoder(
    dataroot: Positional[Path], out: Positional[Path], options: Flat[LabelEncoderOptions]
) -> None:
    """Train the label encoder through the teacher's frozen neck and head, the second stage.

    A run that was cut off goes on from its last checkpoint when the call is repeated.

    Args:
        dataroot: nuScenes data root, real or synthetic; only its boxes are read.
        out: folder for checkpoints, logs and the label encoder.
        options: how long and on which device it learns, and from what.
    """
    keep_freed_memory(resolve_device("auto"))
    _tell(
        train.train_label_encoder(dataroot, out, options),
        lambda file: (
            *("train", "student", dataroot, _beside(out, "student"), *_same_network(options)),
            *("--teacher", options.teacher, "--label-encoder", file),
        ),
    )


def train_student(
    dataroot: Positional[Path], out: Positional[Path], options: Flat[StudentOptions]
) -> None:
    """Train a student with the detection and depth losses, and with the teachers that are given.

    A run that was cut off goes on from its last checkpoint when the call is repeated.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        out: folder for checkpoints, logs and the student.
        options: how long and on which device it learns, and from what.
    """
    keep_freed_memory(resolve_device("auto"))
    _tell(
        train.train_student(dataroot, out, options),
        lambda file: (
            "evaluate",
            file,
            dataroot,
            *_same_tables(options),
            *(("--scenes", *options.val_scenes) if options.val_scenes else ()),
            "--out",
            _beside(out, "scores"),
        ),  # fmt: skip
    )


def overfit(
    dataroot: Positional[Path], out: Positional[Path], options: Flat[overfitting.OverfitOptions]
) -> int:
    """Train a student on a few samples until it finds their boxes, without augmentation.

    What can go wrong with a new data set shows here within minutes: wrong calibrations, frames or
    times keep the score low, whatever the network. Samples without images are passed over, and
    depth labels are made where there is a LiDAR scan. The exit code is 1 when the target is missed.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        out: folder for `student.safetensors` and `metrics.json`.
        options: what is learned.
    """
    keep_freed_memory(resolve_device("auto"))
    found = overfitting.overfit(dataroot, out, options)
    print(found.metrics.table())
    print(f"mAP over the classes that are there: {found.present_map:.4f} ({found.file})")
    tell_written(
        out,
        then=(
            "labeldistill",
            "view",
            dataroot,
            f"{out}_pages",
            *_same_tables(options),
            "--checkpoint",
            found.file,
        ),  # fmt: skip
    )
    # The figures are told either way; the exit code is for scripts that check a new data set.
    return 0 if found.reached else MISSED


def ablation(
    dataroot: Positional[Path], out: Positional[Path], options: Flat[comparison.AblationOptions]
) -> None:
    """Train students with and without each teacher, and compare them on the validation scenes.

    Every run has the same data, network, steps and augmentation; only what the seed draws and what
    the arm says differ. A call that was cut off goes on where it stopped.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        out: folder for all runs, `table.md` and `ablation.png`.
        options: what is compared.
    """
    keep_freed_memory(resolve_device("auto"))
    print(comparison.ablation(dataroot, out, options))
    tell_written(out / "table.md", out / "ablation.png", options.json)


def _beside(out: Path, name: str) -> Path:
    """A folder beside another one, which may be called `.`."""
    return Path(os.path.normpath(out / ".." / name))


def _same_network(options: TrainingOptions) -> tuple[str | Path, ...]:
    """Options that give the next stage the data and the configuration of this one."""
    chosen = ("--config", options.config) if options.config else ("--preset", options.preset)
    words = [*_same_tables(options), *chosen, *options.single_fields]
    words += ["--published"] * options.published + ["--partial"] * options.partial
    if options.split != "train":
        words += ["--split", options.split]
    if options.scenes:
        words += ["--scenes", str(options.scenes)]
    for option, scenes in (
        ("--train-scenes", options.train_scenes),
        ("--val-scenes", options.val_scenes),
    ):
        words += [option, *scenes] if scenes else []
    return tuple(words)


def _same_tables(options: TablesOptions) -> tuple[str, ...]:
    """The version of the data root, where this call had to name it."""
    return ("--version", options.version) if options.version else ()


def _tell(written: Written | None, then: Callable[[Path], tuple[str | Path, ...]]) -> None:
    """Print what was written, once: of the processes that train together, one writes the file."""
    if written:
        print(written)
        tell_written(written.file, then=("labeldistill", *then(written.file)))
