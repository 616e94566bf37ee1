# SPDX-License-Identifier: Apache-2.0
"""Several runs against one reference, and whether they keep the thresholds."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from labeldistill_core.cameras import FIXED_FRAME
from labeldistill_core.errors import ConfigError
from labeldistill_core.evaluation.verdict import Check, RunRecord, Thresholds, check
from labeldistill_core.options import ClassesOptions
from labeldistill_ros.bags import html_report
from labeldistill_ros.bags.detector_output import DETECTIONS_TOPIC, TOLERANCE_S
from labeldistill_ros.bags.html_report import Pictures
from labeldistill_ros.bags.score import (
    Reference,
    Score,
    is_result_file,
    reference_scenes,
    score_run,
)
from labeldistill_ros.ros_names import frame_name


@dataclass(frozen=True)
class ScoreOptions(ClassesOptions):
    """What runs are measured against, and what they must reach."""

    dataroot: Path | None = None
    """nuScenes data root to take the truth from; only its tables are read."""
    split: str = "val"
    """Key frames of the data root: train, val, mini_train, mini_val, all, or a name in its
    splits.json."""
    scenes: tuple[str, ...] = ()
    """Scenes of the data root, names or a file with a name a line, in the place of a split."""
    topic: str = DETECTIONS_TOPIC
    """Topic of the detections in a run's bag."""
    tolerance_s: Annotated[float, tyro.conf.arg(name="tolerance")] = TOLERANCE_S
    """Seconds between a sample and the detections that are taken for it."""
    fixed_frame: str = FIXED_FRAME
    """What a run's bag calls the fixed frame of the truth, such as odom; boxes are moved into it by
    the bag's /tf."""
    thresholds: Annotated[Thresholds, tyro.conf.arg(name="")] = field(default_factory=Thresholds)
    """What each run must reach."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Runs that were scored, and what their scores were held against."""

    reference: Reference
    """What they were measured against."""
    scores: tuple[Score, ...]
    """What each run is worth, in the order in which they were given."""
    checks: tuple[Check, ...]
    """Each threshold and each run."""
    pictures: Pictures
    """Images of the reference's key frames."""
    records: Mapping[str, RunRecord]
    """Times and figures by run, for a CI server."""

    @property
    def passed(self) -> bool:
        """Whether all runs keep all thresholds."""
        return all(one.passed for one in self.checks)


def score_runs(
    source: Path, runs: Sequence[Path], options: ScoreOptions, out: Path | None = None
) -> Scored:
    """Score runs with the official metrics.

    Args:
        source: bag with samples, ground truth and poses; with a data root, the first run.
        runs: bags or result files; when there is none, `source` holds the detections too.
        options: what they are measured against.
        out: nuScenes result file to write, of a single run, before it is scored.

    Raises:
        ConfigError: several runs are to be one result file, or there is nothing to measure a
            result file against.
        BagError: a bag is unreadable or lacks what is needed.
        DataError: a result file or a table cannot be used.
    """
    compared = tuple(runs)
    if options.dataroot:
        tables = options.tables(options.dataroot)
        chosen = reference_scenes(tables, options.split, options.scenes)
        reference, compared = Reference.of_dataroot(tables, chosen), (source, *compared)
        # Images are read only when a report asks for them; metrics need the tables alone.
        pictures = html_report.pictures_of_dataroot(tables, reference)
    elif unread := _of_a_data_root(options):
        told = ", ".join(unread)
        raise ConfigError(f"{told}: a bag is scored whole, so name a data root (--dataroot)")
    # A result file has boxes and no truth, so alone it cannot be scored.
    elif is_result_file(source):
        raise ConfigError(
            f"{source} is a result file: say with --dataroot, --version and --split what it is "
            "measured against, or put a bag with the ground truth before it"
        )
    else:
        reference, compared = Reference.of_bag(source), compared or (source,)
        pictures = html_report.pictures_of_bag(source)
    if out and len(compared) > 1:
        raise ConfigError(f"--out takes the boxes of one run, and {len(compared)} are given")
    # ROS names are absolute in a bag; people leave the slash out.
    topic = "/" + options.topic.strip("/")
    scores, records, checks = [], {}, []
    for run, name in zip(compared, run_names(compared), strict=True):
        begin_s = time.monotonic()
        score = score_run(
            reference,
            run,
            topic=topic,
            tolerance_s=options.tolerance_s,
            fixed_frame=frame_name(options.fixed_frame),
            out=out,
        )
        score = replace(score, name=name)
        scores.append(score)
        records[name] = record_of(score, time.monotonic() - begin_s)
        checks += checks_of(score, options.thresholds)
    return Scored(reference, tuple(scores), tuple(checks), pictures, records)


def _of_a_data_root(options: ScoreOptions) -> list[str]:
    """Options that were given and of which a bag knows nothing."""
    plain = ScoreOptions()
    names = ("split", "scenes", "version", "config")
    return [f"--{name}" for name in names if getattr(options, name) != getattr(plain, name)]


def run_names(runs: Sequence[Path]) -> list[str]:
    """A name for each run: that of its file or folder, where it is the only one so called."""
    names = [run.name for run in runs]
    counts = Counter(names)
    return [name if counts[name] == 1 else str(run) for name, run in zip(names, runs, strict=True)]


def checks_of(score: Score, thresholds: Thresholds) -> list[Check]:
    """Hold a run against the thresholds that are set."""
    return check(
        score.name,
        thresholds,
        nds=score.metrics.nds,
        mean_ap=score.metrics.mean_ap,
        coverage=score.coverage.share,
        latency_p95_ms=score.latency_p95_ms,
    )


def record_of(score: Score, seconds: float) -> RunRecord:
    """What a CI server keeps of a run that took so long."""
    metrics = score.metrics
    values = {"NDS": metrics.nds, "mAP": metrics.mean_ap, **metrics.tp_errors}
    values |= {"coverage": score.coverage.share}
    for stage, (median, high) in score.latency_ms.items():
        values |= {f"{stage} p50 ms": median, f"{stage} p95 ms": high}
    values |= {f"sets {outcome}": count for outcome, count in score.outcomes.items()}
    return RunRecord(seconds, values)
