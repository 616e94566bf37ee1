# SPDX-License-Identifier: Apache-2.0
"""A result file of random boxes; scored here and by the devkit, each in a process of its own."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.tables.generate import VERSION
from benchmarks.tables.measure import memory_mib
from labeldistill_core.classes import CLASSES
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.evaluation.evaluate import ResultFileOptions, evaluate_results
from labeldistill_core.evaluation.result_boxes import attribute_of, result_columns
from labeldistill_core.evaluation.result_columns import BoxArrays, ResultColumns
from labeldistill_core.evaluation.result_file import write_results
from labeldistill_ros.bags.run_comparison import ScoreOptions, score_runs

SPLIT = "measured"
"""Name of the split that holds all scenes."""


def write_random_results(root: Path, path: Path, boxes: int) -> None:
    """Result boxes about as a detector has them: near the true ones, and anywhere else."""
    tables, rng = NuScenesTables(root, VERSION), np.random.default_rng(0)
    parts: dict[str, BoxArrays] = {}
    for token in (t for name in tables.scene_names for t in tables.samples(name)):
        # Half at most: a detector that is let say 500 boxes finds many that are none.
        truth = result_columns(tables.ground_truth(token).boxes)[: boxes // 2]
        center = tables.ground_truth(token).fixed_from_ego.translation
        values = np.zeros((boxes, 13))
        values[:, 0:3] = center + rng.uniform(-50, 50, (boxes, 3)) * (1, 1, 0)
        values[:, 3:6] = rng.uniform(1, 5, (boxes, 3))
        turns = rng.uniform(0, math.pi, boxes)
        values[:, 6], values[:, 9] = np.cos(turns), np.sin(turns)
        values[:, 10:12] = rng.normal(0, 2, (boxes, 2))
        values[: len(truth)] = truth.values
        values[: len(truth), 0:2] += rng.normal(0, 0.8, (len(truth), 2))
        labels = rng.integers(0, len(CLASSES), boxes)
        labels[: len(truth)] = truth.labels
        # Rounded as float32 scores are not, so that ties between equal scores are measured too.
        values[:, 12] = np.round(rng.beta(1, 4, boxes), 3)
        values[: len(truth), 12] = np.round(rng.beta(2, 2, len(truth)), 3)
        names = [
            attribute_of(CLASSES[label], vx, vy)
            for label, (vx, vy) in zip(labels.tolist(), values[:, 10:12].tolist(), strict=True)
        ]
        codes: dict[str, int] = {}
        attributes = np.array([codes.setdefault(name, len(codes)) for name in names], np.int64)
        parts[token] = BoxArrays(values, labels, attributes, tuple(codes))
    write_results(path, ResultColumns(parts))


def use_ours(root: Path, results: Path) -> dict[str, Any]:
    """Time, memory and scores of `evaluate-results`."""
    NuScenesTables(root, VERSION)  # its index is there after the first command on a data root
    begin = perf_counter()
    metrics = evaluate_results(results, root, ResultFileOptions(version=VERSION))
    return {
        "seconds": perf_counter() - begin,
        "peak_mib": memory_mib()["peak"],
        "scores": metrics.as_json(),
    }


def use_bag_score(root: Path, results: Path) -> dict[str, Any]:
    """The same of `bag score`, which also breaks the scores down by distance and visibility."""
    NuScenesTables(root, VERSION)
    begin = perf_counter()
    options = ScoreOptions(dataroot=root, version=VERSION, split="all")
    (score,) = score_runs(results, (), options).scores
    return {
        "seconds": perf_counter() - begin,
        "peak_mib": memory_mib()["peak"],
        "scores": score.metrics.as_json(),
    }


def use_devkit(root: Path, results: Path) -> dict[str, Any]:
    """The same of the devkit; opening its tables is measured by itself."""
    from nuscenes import NuScenes
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    nusc = NuScenes(VERSION, str(root), verbose=False)
    begin = perf_counter()
    config = config_factory("detection_cvpr_2019")
    with tempfile.TemporaryDirectory() as out:
        evaluation = DetectionEval(nusc, config, str(results), SPLIT, out, verbose=False)
        metrics, _ = evaluation.evaluate()
    found = metrics.serialize()
    scores = {"mAP": found["mean_ap"], "NDS": found["nd_score"], "classes": {}}
    for name in CLASSES:
        scores["classes"][name] = {
            "AP": found["mean_dist_aps"][name],
            "AP_at_m": found["label_aps"][name],
            **{f"A{error[0].upper()}E": v for error, v in found["label_tp_errors"][name].items()},
        }
    return {
        "seconds": perf_counter() - begin,
        "peak_mib": memory_mib()["peak"],
        "scores": scores,
    }


def largest_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Between the values that both have under one name; infinite where only one is a number."""
    gaps = [0.0]
    for name, value in theirs.items():
        mine = ours[name] if name in ours else ours[str(name)]
        if isinstance(value, dict):
            gaps.append(largest_difference(mine, value))
        elif mine is None or math.isnan(value):
            gaps.append(0.0 if mine is None and math.isnan(value) else math.inf)
        else:
            gaps.append(abs(mine - value))
    return max(gaps)
