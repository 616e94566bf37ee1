# SPDX-License-Identifier: Apache-2.0
"""Detectors scored with the official nuScenes metrics: bags and result files, one or several runs.

Ground truth comes from a bag that carries it, or from a data root. A recording of a live node may
lack key frames: they count as empty, and the coverage says how many they are. A result file must
speak of every key frame, as the leaderboard wants it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from labeldistill_core.cameras import FIXED_FRAME
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.splits import named_scenes, split_scenes
from labeldistill_core.errors import BagError, DataError
from labeldistill_core.evaluation.breakdown import Breakdown, break_down
from labeldistill_core.evaluation.counted_boxes import evaluation_boxes
from labeldistill_core.evaluation.metrics import Metrics, evaluate_boxes, json_ready
from labeldistill_core.evaluation.result_columns import ResultColumns
from labeldistill_core.evaluation.result_file import read_results, write_results
from labeldistill_ros.bags.detector_output import (
    DETECTIONS_TOPIC,
    TOLERANCE_S,
    Coverage,
    read_recording,
)
from labeldistill_ros.bags.poses import read_transforms
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.truth import BagSample, read_samples
from labeldistill_ros.inputs.transforms import TransformBuffer

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Reference:
    """What runs are measured against."""

    source: Path
    """The bag or the nuScenes data root that the samples come from."""
    samples: tuple[BagSample, ...]
    """Key frames with their ground truth, in the order of time within a scene."""
    transforms: TransformBuffer | None
    """Transforms of the bag, to move boxes to "map"; None when the source is a data root."""
    whole: bool
    """Whether nothing beyond `samples` can be meant, so that other sample tokens are wrong."""

    @classmethod
    def of_bag(cls, bag: Path) -> Reference:
        """Samples, truth and poses that a bag carries.

        Raises:
            BagError: it is unreadable or has no samples.
        """
        with BagReader(bag) as reader:
            samples, transforms = read_samples(reader), read_transforms(reader)
        if not samples:
            raise BagError(f"{bag}: no sample was recorded, so there is nothing to score")
        return cls(bag, tuple(samples), transforms, whole=False)

    @classmethod
    def of_dataroot(cls, tables: NuScenesTables, scenes: Sequence[str]) -> Reference:
        """Key frames of some scenes; only the tables are read."""
        samples = []
        for scene in scenes:
            for token in tables.samples(scene):
                stamps = {name: record.stamp_ns for name, record in tables.cameras(token).items()}
                samples.append(BagSample(scene, tables.ground_truth(token), stamps))
        return cls(tables.dataroot, tuple(samples), None, whole=True)


def reference_scenes(tables: NuScenesTables, split: str, scenes: Sequence[str]) -> list[str]:
    """Names of the scenes that a split's name means, or of those that are named.

    Args:
        tables: of the data root.
        split: train, val, mini_train, mini_val, all, or a name in the root's `splits.json`.
        scenes: names, or files of them; they override the split.

    Raises:
        DataError: no such split in this version.
    """
    if scenes:
        return named_scenes(tables, scenes)
    # The devkit names the splits of v1.0-mini by themselves; here the version says which is meant.
    mini = tables.version == "v1.0-mini"
    if split.startswith("mini_") and not mini:
        raise DataError(f"split {split!r} belongs to v1.0-mini, not to {tables.version!r}")
    return split_scenes(tables, split.removeprefix("mini_"))


@dataclass(frozen=True)
class Score:
    """What a detector is worth."""

    name: str
    """Name of the run, which is that of its bag or result file."""
    metrics: Metrics
    """Metrics of the nuScenes detection benchmark, by the devkit's own definition."""
    breakdown: Breakdown
    """The same scores for groups of boxes: by distance, visibility and LiDAR returns."""
    coverage: Coverage
    """Which samples got boxes, and how far in time those were."""
    results: ResultColumns
    """The boxes that were scored, by sample token."""
    velocities: bool = True
    """Whether velocities were recorded; without, they count as zero."""
    latencies_ms: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Latencies by stage, one for each set; `total` runs from a set's last image to its boxes."""
    outcomes: dict[str, int] = field(default_factory=dict)
    """Number of sets that the node has seen, by what became of them."""

    @property
    def latency_ms(self) -> dict[str, tuple[float, float]]:
        """Median and 95th percentile by stage."""
        return {
            stage: (float(np.percentile(times, 50)), float(np.percentile(times, 95)))
            for stage, times in self.latencies_ms.items()
        }

    @property
    def latency_p95_ms(self) -> float:
        """95th percentile from a set's last image to its boxes; NaN when it was not recorded."""
        return self.latency_ms.get("total", (math.nan, math.nan))[1]

    def as_json(self) -> dict[str, Any]:
        """Everything but the boxes."""
        return {
            "run": self.name,
            **self.metrics.as_json(),
            "breakdown": json_ready(asdict(self.breakdown)),
            "coverage": json_ready({**asdict(self.coverage), "share": self.coverage.share}),
            "latency_ms": {
                stage: {"p50": p50, "p95": p95} for stage, (p50, p95) in self.latency_ms.items()
            },
            "outcomes": self.outcomes,
            "velocities": self.velocities,
        }

    def table(self) -> str:
        """The figures as lines of text for people."""
        coverage = self.coverage
        lines = [
            self.metrics.table(),
            "",
            self.breakdown.table(),
            "",
            f"samples with boxes {coverage.matched} of {coverage.samples}, "
            f"sets published {coverage.sets}, largest gap {coverage.largest_gap_ms:.1f} ms",
        ]
        if not self.velocities:
            lines.append("no velocities: ~/detections_table was not recorded, zero was taken")
        if self.outcomes:
            lines.append("sets " + ", ".join(f"{k} {v}" for k, v in self.outcomes.items()))
        width = max(map(len, self.latencies_ms), default=0)
        for stage, (median, high) in self.latency_ms.items():
            lines.append(f"{stage:<{width}}  p50 {median:8.1f} ms  p95 {high:8.1f} ms")
        return "\n".join(lines)


def score_bag(
    bag: Path,
    detections_bag: Path | None = None,
    *,
    topic: str = DETECTIONS_TOPIC,
    tolerance_s: float = TOLERANCE_S,
) -> Score:
    """Score the boxes of one bag with the samples, truth and poses of another, or of the same.

    Args:
        bag: has the samples, the ground truth and the poses.
        detections_bag: has the detector's topics; the same bag when None.
        topic: of the detections; see `detector_output.read_recording`.
        tolerance_s: largest difference of stamps.

    Raises:
        BagError: a bag is unreadable, or lacks a topic or a transform.
        DataError: the boxes cannot be scored.
    """
    reference = Reference.of_bag(bag)
    return score_run(reference, detections_bag or bag, topic=topic, tolerance_s=tolerance_s)


def is_result_file(path: Path) -> bool:
    """Whether a run is a nuScenes result file rather than a bag."""
    return path.name.endswith((".json", ".json.gz"))


def score_run(
    reference: Reference,
    run: Path,
    *,
    topic: str = DETECTIONS_TOPIC,
    tolerance_s: float = TOLERANCE_S,
    fixed_frame: str = FIXED_FRAME,
    out: Path | None = None,
) -> Score:
    """Score a bag or a result file.

    Args:
        reference: what it is measured against.
        run: the bag or the result file.
        topic: of the detections in a bag.
        tolerance_s: largest difference of stamps.
        fixed_frame: what that of the reference is called in a bag.
        out: nuScenes result file to write before anything is scored, as scoring may fail.

    Raises:
        BagError: see `detector_output.read_recording`.
        DataError: a result file lacks key frames, has unknown ones, or its boxes are malformed.
    """
    truths = [sample.truth for sample in reference.samples]
    if is_result_file(run):
        results = _whole_results(reference, run)
        if out:
            write_results(out, results)
        # A result file has an entry for every key frame, which was checked, and no stamps; whether
        # an empty one was looked at nobody can tell.
        empty = tuple(t.sample_token for t in truths if not len(results.columns(t.sample_token)))
        coverage = Coverage(len(truths), len(truths) - len(empty), empty, len(results), 0.0)
        boxes = evaluation_boxes(truths, results)
        return Score(run.name, evaluate_boxes(boxes), break_down(boxes), coverage, results)
    recording = read_recording(
        run,
        reference.samples,
        reference.transforms,
        topic=topic,
        tolerance_s=tolerance_s,
        fixed_frame=fixed_frame,
    )
    if out:
        write_results(out, recording.results)
    boxes = evaluation_boxes(truths, recording.results)
    return Score(
        run.name,
        evaluate_boxes(boxes),
        break_down(boxes),
        recording.coverage,
        recording.results,
        recording.velocities,
        recording.latencies_ms,
        recording.outcomes,
    )


def comparison(scores: Sequence[Score]) -> str:
    """Several runs side by side, for people."""
    width = max(len(score.name) for score in scores)
    head = f"{'run':<{width}}{'NDS':>8}{'mAP':>8}"
    errors = ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")
    head += "".join(f"{name:>8}" for name in ("mATE", "mASE", "mAOE", "mAVE", "mAAE"))
    lines = [head + f"{'cover':>8}{'p95 ms':>9}"]
    for score in scores:
        metrics = score.metrics
        values = [metrics.nds, metrics.mean_ap, *(metrics.tp_errors[e] for e in errors)]
        row = f"{score.name:<{width}}" + "".join(f"{value:8.4f}" for value in values)
        lines.append(row + f"{score.coverage.share:8.3f}{score.latency_p95_ms:9.1f}")
    return "\n".join(lines)


def _whole_results(reference: Reference, path: Path) -> ResultColumns:
    """Results of all key frames of the reference, in the file's order."""
    results = read_results(path, reference.samples[0].truth.classes.names)
    wanted = {sample.truth.sample_token for sample in reference.samples}
    missing, unknown = wanted - set(results), set(results) - wanted
    if missing:
        raise DataError(
            f"{path} lacks {len(missing)} of the {len(wanted)} key frames of {reference.source}, "
            f"such as {min(missing)}: each needs an entry, if only an empty list; or name fewer "
            "with --split or --scenes"
        )
    # A result file of the whole split may be scored on a bag of one scene, but not against tables
    # that were chosen to fit it.
    if unknown and reference.whole:
        raise DataError(
            f"{path} has {len(unknown)} key frames that are not among the {len(wanted)} chosen of "
            f"{reference.source}, such as {min(unknown)}: choose others with --split or --scenes"
        )
    if unknown:
        _LOG.info("%s: %d key frames of other scenes are left out", path, len(unknown))
    return results.only([token for token in results if token in wanted])
