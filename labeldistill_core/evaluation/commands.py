# SPDX-License-Identifier: Apache-2.0
"""Commands that score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from labeldistill_core.checkpoints import kind_of
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.splits import split_scenes
from labeldistill_core.distillation.label_encoder import load_label_encoder
from labeldistill_core.errors import ConfigError
from labeldistill_core.evaluation.metrics import evaluate
from labeldistill_core.evaluation.predictions import lidar_results, student_results
from labeldistill_core.evaluation.results import read_results, write_results
from labeldistill_core.lidar.teacher import load_teacher
from labeldistill_core.runtime.allocator import keep_freed_memory
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.device import Precision


def evaluate_results(
    results: Annotated[Path, tyro.conf.Positional],
    dataroot: Annotated[Path, tyro.conf.Positional],
    version: str = "v1.0-trainval",
    scenes: tuple[str, ...] = (),
    json: Path | None = None,
) -> None:
    """Score a nuScenes result file with the official metrics.

    Args:
        results: `.json` or `.json.gz` file.
        dataroot: nuScenes data root; only its tables are read.
        version: of the tables.
        scenes: names of the scenes to score; when none is given, all samples of the result file.
        json: file to write the metrics to.
    """
    tables = NuScenesTables(dataroot, version)
    found = read_results(results)
    tokens = [token for name in scenes for token in tables.samples(name)] or list(found)
    metrics = evaluate([tables.ground_truth(token) for token in tokens], found)
    if json:
        metrics.write(json)
    print(metrics.table())


def evaluate_checkpoint(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    dataroot: Annotated[Path, tyro.conf.Positional],
    version: str = "v1.0-trainval",
    split: Literal["train", "val", "all"] = "val",
    teacher: Path | None = None,
    device: str = "auto",
    precision: Precision = "float32",
    out: Path | None = None,
) -> None:
    """Run a network over key frames and score its boxes with the official metrics.

    A student sees each scene in the order of time, as a vehicle does. A teacher gets the LiDAR's
    points. A label encoder gets the true boxes, and what the teacher's head reads from its features
    is scored.

    Args:
        checkpoint: file of a student, a teacher or a label encoder.
        dataroot: nuScenes data root, real or synthetic.
        version: of the tables.
        split: scenes to run on.
        teacher: file of the teacher whose head reads the label encoder's features.
        device: cpu, cuda:0 and so on, or auto.
        precision: of the student's convolutions.
        out: folder for `results.json` and `metrics.json`.
    """
    tables = NuScenesTables(dataroot, version)
    scenes = split_scenes(tables, split)
    kind = kind_of(checkpoint)
    if kind == "teacher":
        found = lidar_results(load_teacher(checkpoint), None, tables, scenes, device)
    elif kind == "label encoder":
        if teacher is None:
            raise ConfigError(f"{checkpoint} is a label encoder: give its teacher (--teacher)")
        encoder = load_label_encoder(checkpoint)
        found = lidar_results(load_teacher(teacher), encoder, tables, scenes, device)
    else:
        detector = Detector.load(checkpoint, device=device, precision=precision)
        if detector.device.type == "cpu":
            keep_freed_memory()
        found = student_results(detector, tables, {name: tables.samples(name) for name in scenes})
    metrics = evaluate([tables.ground_truth(token) for token in found], found)
    if out:
        write_results(out / "results.json", found)
        metrics.write(out / "metrics.json")
    print(metrics.table())
