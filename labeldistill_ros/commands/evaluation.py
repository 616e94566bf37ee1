# SPDX-License-Identifier: Apache-2.0
"""`labeldistill evaluate`, `evaluate-results`, `statistics` and `view`."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from labeldistill_core.checkpoints import kind_of
from labeldistill_core.config_files import classes_of_checkpoint
from labeldistill_core.console import Flat, tell_written
from labeldistill_core.evaluation import evaluate as scoring
from labeldistill_core.evaluation import statistics as describing
from labeldistill_core.evaluation.metrics import json_ready
from labeldistill_core.evaluation.result_file import Source, write_results
from labeldistill_core.files import refuse_unwritable, write_json
from labeldistill_core.runtime.allocator import keep_freed_memory
from labeldistill_core.runtime.device import resolve_device
from labeldistill_core.visualization import view as drawing


def evaluate(
    checkpoint: Positional[Path],
    dataroot: Positional[Path],
    options: Flat[scoring.EvaluationOptions],
    out: Path | None = None,
) -> None:
    """Run a network over key frames and score its boxes with the official metrics.

    A student sees each scene in the order of time, as a vehicle does. A teacher gets the LiDAR's
    points. A label encoder gets the true boxes, and what the teacher's head reads from its features
    is scored.

    Args:
        checkpoint: file of a student, a teacher or a label encoder.
        dataroot: nuScenes data root, real or synthetic.
        options: what it is run over, and where.
        out: folder for `results.json` and `metrics.json`.
    """
    # A switch of the whole process, so the command sets it and no function of the library does.
    keep_freed_memory(resolve_device(options.device))
    if out:
        refuse_unwritable(out / "results.json")
    found = scoring.run_checkpoint(checkpoint, dataroot, options)
    try:
        # Before they are scored, which may fail after hours of detecting.
        if out:
            # What knows the true boxes is no detector.
            made_from: dict[str, Source] = {"teacher": "lidar", "label encoder": "external"}
            source = made_from.get(kind_of(checkpoint), "camera")
            write_results(out / "results.json", found, source)
    finally:
        # In any case: a folder that cannot be written costs no score.
        metrics = scoring.score(found, dataroot, options, classes_of_checkpoint(checkpoint))
        print(metrics.table())
    if out:
        # Both files, since `results.json` is what the nuScenes server takes, and it has no scores.
        metrics.write(out / "metrics.json")
        tell_written(out / "results.json", out / "metrics.json")


def evaluate_results(
    results: Positional[Path],
    dataroot: Positional[Path],
    options: Flat[scoring.ResultFileOptions],
    json: Path | None = None,
) -> None:
    """Score a nuScenes result file with the official metrics.

    Args:
        results: `.json` or `.json.gz` file.
        dataroot: nuScenes data root; only its tables are read.
        options: what of the file is scored.
        json: file to write the metrics to.
    """
    refuse_unwritable(json)
    metrics = scoring.evaluate_results(results, dataroot, options)
    print(metrics.table())
    if json:
        metrics.write(json)
        tell_written(json)


def statistics(
    dataroot: Positional[Path],
    options: Flat[describing.StatisticsOptions],
    json: Path | None = None,
) -> None:
    """Describe the annotations of a data root, beside those of another.

    Only the tables are read.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        options: what it is compared with.
        json: file to write the numbers to.
    """
    refuse_unwritable(json)
    found = describing.statistics(dataroot, options)
    print(describing.table([Path(name).name for name in found], list(found.values())))
    if json:
        write_json(json, json_ready(found))
        tell_written(json)


def view(
    dataroot: Positional[Path], out: Positional[Path], options: Flat[drawing.ViewOptions]
) -> None:
    """Write a page with the key frames of a data root, their boxes drawn in.

    Ground truth that no LiDAR or radar point hit is left out, as in the metrics.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        out: folder for `index.html` and the pictures.
        options: what is drawn.
    """
    refuse_unwritable(options.animation)
    page = drawing.view(dataroot, out, options)
    tell_written(page, options.animation)
    print(f"open {page}")
