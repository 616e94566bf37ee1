# SPDX-License-Identifier: Apache-2.0
"""What a detector published, scored with the official nuScenes metrics from bags alone.

A sample takes the message whose stamp is nearest to its own stamp or one of its cameras'; the
node stamps a set with its anchor camera's exposure, so the difference is normally zero. A sample
without a message counts as one without boxes, and the coverage says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import FIXED_FRAME
from labeldistill_core.classes import CLASSES
from labeldistill_core.errors import BagError, DataError
from labeldistill_core.evaluation.metrics import Metrics, evaluate, json_ready
from labeldistill_core.evaluation.results import ResultBox, result_boxes
from labeldistill_ros.bags.frames import read_transforms
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.truth import read_samples
from labeldistill_ros.bags.types import stamp_of
from labeldistill_ros.messages import boxes_from_detections, boxes_from_table
from labeldistill_ros.transforms import TransformBuffer, TransformError

DETECTIONS_TOPIC = "/detector/detections"
TABLE_TOPIC = "/detector/detections_table"
STATUS_TOPIC = "/detector/status"
TOLERANCE_S = 0.05


@dataclass(frozen=True)
class Coverage:
    """Which samples got boxes."""

    samples: int
    """In the bag."""
    matched: int
    """With a message of the detector."""
    missed: tuple[str, ...]
    """Tokens of those without."""
    sets: int
    """Messages of the detector, at samples or between them."""
    largest_gap_ms: float
    """Between the stamps of a sample and its message."""


@dataclass(frozen=True)
class Score:
    """What the detector is worth on a bag."""

    metrics: Metrics
    """Official."""
    coverage: Coverage
    """Of the samples."""
    latency_ms: dict[str, tuple[float, float]]
    """Median and 95th percentile by stage of the sets processed, as the node's status tells;
    `total` runs from a set's last image to its boxes. Empty without status."""
    outcomes: dict[str, int]
    """Sets seen by the node, by what became of them. Empty without status."""
    velocities: bool
    """Whether velocities were recorded; without, they count as zero."""
    results: dict[str, list[ResultBox]]
    """What was scored, by sample token."""

    def as_json(self) -> dict[str, Any]:
        """Everything but the boxes."""
        content = asdict(self)
        del content["results"]
        ready: dict[str, Any] = json_ready(content)
        return ready

    def table(self) -> str:
        """For people."""
        coverage = self.coverage
        lines = [
            self.metrics.table(),
            "",
            f"samples with boxes {coverage.matched} of {coverage.samples}, "
            f"sets published {coverage.sets}, largest gap {coverage.largest_gap_ms:.1f} ms",
        ]
        if not self.velocities:
            lines.append(f"no velocities: {TABLE_TOPIC} was not recorded, zero was taken")
        if self.outcomes:
            lines.append("sets " + ", ".join(f"{k} {v}" for k, v in self.outcomes.items()))
        width = max(map(len, self.latency_ms), default=0)
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
        topic: of the detections; `<topic>_table` has the velocities, and the boxes then come from
            it too when both have the same stamp and length.
        tolerance_s: largest difference of stamps.

    Raises:
        BagError: a bag is unreadable, or lacks a topic or a transform.
        DataError: the boxes cannot be scored.
    """
    with BagReader(bag) as reader:
        samples = read_samples(reader)
        transforms = read_transforms(reader)
    with BagReader(detections_bag or bag) as reader:
        reader.require(topic)
        published = _published(reader, topic)
        velocities = f"{topic}_table" in reader.topics
        statuses = _statuses(reader)
    pairs = match([sample.stamps_ns for sample in samples], list(published), tolerance_s)
    results: dict[str, list[ResultBox]] = {}
    missed, gaps = [], [0.0]
    for sample, pair in zip(samples, pairs, strict=True):
        token = sample.truth.sample_token
        if pair is None:
            results[token] = []
            missed.append(token)
            continue
        stamp_ns, gap_ns = pair
        boxes = _in_map(published[stamp_ns], transforms, stamp_ns, bag)
        results[token] = result_boxes(token, boxes)
        gaps.append(gap_ns / 1e6)
    coverage = Coverage(
        len(samples), len(samples) - len(missed), tuple(missed), len(published), max(gaps)
    )
    if not samples:
        raise BagError(f"{bag}: no sample was recorded, so there is nothing to score")
    return Score(
        evaluate([sample.truth for sample in samples], results),
        coverage,
        _latencies(statuses),
        _outcomes(statuses),
        velocities,
        results,
    )


def match(
    samples_ns: Sequence[Sequence[int]], stamps_ns: Sequence[int], tolerance_s: float
) -> list[tuple[int, int] | None]:
    """For each sample the nearest stamp and its distance, each stamp given once.

    Args:
        samples_ns: all stamps of each sample.
        stamps_ns: of the messages.
        tolerance_s: largest distance.

    Returns:
        Stamp and distance in nanoseconds, or None where no stamp is near.
    """
    stamps = np.sort(np.asarray(stamps_ns, dtype=np.int64))
    candidates = []
    for index, own in enumerate(samples_ns):
        reach = round(tolerance_s * 1e9)
        first = np.searchsorted(stamps, min(own) - reach)
        last = np.searchsorted(stamps, max(own) + reach, side="right")
        for stamp in stamps[first:last].tolist():
            gap = min(abs(stamp - mine) for mine in own)
            if gap <= reach:
                candidates.append((gap, index, stamp))
    found: list[tuple[int, int] | None] = [None] * len(samples_ns)
    taken: set[int] = set()
    for gap, index, stamp in sorted(candidates):
        if found[index] is None and stamp not in taken:
            found[index] = (stamp, gap)
            taken.add(stamp)
    return found


def _published(reader: BagReader, topic: str) -> dict[int, Boxes3D]:
    """Boxes by stamp; of a stamp that was published twice, the last."""
    table_topic = f"{topic}_table"
    tables: dict[int, Boxes3D] = {}
    try:
        if table_topic in reader.topics:
            for _, message in reader.messages([table_topic]):
                tables[stamp_of(message)] = boxes_from_table(message)
        out = {}
        for _, message in reader.messages([topic]):
            stamp_ns = stamp_of(message)
            boxes, table = boxes_from_detections(message, CLASSES), tables.get(stamp_ns)
            if table is not None and len(table) == len(boxes):
                boxes = _with_velocities(boxes, table)
            out[stamp_ns] = boxes
    except DataError as error:
        raise BagError(f"{reader.path}: {topic}: {error}") from error
    return out


def _with_velocities(boxes: Boxes3D, table: Boxes3D) -> Boxes3D:
    # the message is float64, the table float32: centres on a large map keep their decimals
    values = torch.cat([boxes.values[:, :7], table.values[:, 7:9].double()], dim=1)
    return Boxes3D(boxes.frame, values, boxes.labels, boxes.scores)


def _in_map(boxes: Boxes3D, transforms: TransformBuffer, stamp_ns: int, bag: Path) -> Boxes3D:
    if boxes.frame == FIXED_FRAME:
        return boxes
    try:
        return boxes.transformed(transforms.lookup(FIXED_FRAME, boxes.frame, stamp_ns))
    except TransformError as error:
        raise BagError(
            f"{bag}: boxes at {stamp_ns} ns are in {boxes.frame!r} and cannot be moved to "
            f"{FIXED_FRAME!r}: {error}"
        ) from error


def _statuses(reader: BagReader) -> list[Mapping[str, str]]:
    if STATUS_TOPIC not in reader.topics:
        return []
    return [
        {pair.key: pair.value for pair in status.values}
        for _, message in reader.messages([STATUS_TOPIC])
        for status in message.status
    ]


def _latencies(statuses: Sequence[Mapping[str, str]]) -> dict[str, tuple[float, float]]:
    found: dict[str, list[float]] = {}
    for values in statuses:
        if values.get("outcome") == "processed":
            for key, text in values.items():
                if key.endswith("_ms") and key not in ("spread_ms", "age_ms"):
                    found.setdefault(key.removesuffix("_ms"), []).append(float(text))
    return {
        stage: (float(np.percentile(times, 50)), float(np.percentile(times, 95)))
        for stage, times in found.items()
    }


def _outcomes(statuses: Sequence[Mapping[str, str]]) -> dict[str, int]:
    """Counters of the node; they only grow, so the largest is the last."""
    counts: dict[str, int] = {}
    for values in statuses:
        for key, text in values.items():
            if key.startswith("sets_"):
                name = key.removeprefix("sets_")
                counts[name] = max(counts.get(name, 0), int(text))
    return counts
