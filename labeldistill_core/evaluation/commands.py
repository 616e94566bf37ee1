# SPDX-License-Identifier: Apache-2.0
"""Commands that score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tqdm import tqdm

from labeldistill_core.cameras import FIXED_FRAME
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.splits import split_scenes
from labeldistill_core.evaluation.metrics import evaluate
from labeldistill_core.evaluation.results import (
    ResultBox,
    read_results,
    result_boxes,
    write_results,
)
from labeldistill_core.frames import Transform
from labeldistill_core.runtime.detector import Detector, Precision


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
    device: str = "auto",
    precision: Precision = "float32",
    out: Path | None = None,
) -> None:
    """Run a student over key frames and score its boxes with the official metrics.

    The detector sees each scene in the order of time, as a vehicle does.

    Args:
        checkpoint: file of the student.
        dataroot: nuScenes data root, real or synthetic.
        version: of the tables.
        split: scenes to run on.
        device: cpu, cuda:0 and so on, or auto.
        precision: of the convolutions.
        out: folder for `results.json` and `metrics.json`.
    """
    tables = NuScenesTables(dataroot, version)
    detector = Detector.load(checkpoint, device=device, precision=precision)
    tokens = [(s, t) for s in split_scenes(tables, split) for t in tables.samples(s)]
    identity = Transform.identity(FIXED_FRAME, FIXED_FRAME)
    results: dict[str, list[ResultBox]] = {}
    before = ""
    for scene, token in tqdm(tokens, unit="sample", disable=None):
        if scene != before:
            detector.reset(f"scene {scene}")
            before = scene
        found = detector.detect(tables.frame_set(token, detector.config.cameras))
        boxes = found.in_frame(identity)
        results[token] = result_boxes(token, boxes, detector.class_names)
    metrics = evaluate([tables.ground_truth(token) for token in results], results)
    if out:
        write_results(out / "results.json", results)
        metrics.write(out / "metrics.json")
    print(metrics.table())
